"""Members: the devices that the rings of this host name, and how an operator's tool asks all of them at once.

Owns which devices there are (by where they are, whatever ring names them), how many are asked at a time, and that one that does
not answer is an answer. Never decides what an answer means.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from ring.device import Device
from ring.file import load_ring
from ring.files import RING_SUFFIX
from ring.ring import Ring
from swiftlike.config import Cluster, HostConfig, load_cluster, load_host
from swiftlike.node_calls import ring_name, tables
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.transport import Outcome, TcpAddress, Transport
from swiftlike.tls import calling_network

ASK_S: Final = 10.0
ASKED_AT_ONCE: Final = 64
"""Devices, each over a connection of its own."""

M = TypeVar("M")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """A device by where it is."""

    host: str
    port: int
    name: str
    known_as: Mapping[str, Device]
    """What each ring that names it knows it as."""

    def __str__(self) -> str:
        """Write it as operators do, without what only one ring says of it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.name}"

    @property
    def address(self) -> TcpAddress:
        """Where it listens."""
        return TcpAddress(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Silence:
    """Why a device did not answer, or would not."""

    reason: str
    refused: bool = False
    """It did answer, and would not: it has another ring, or has only just started."""

    @classmethod
    def of(cls, failure: NodeFailed) -> "Silence":
        """Say what a failed call says."""
        reply = failure.reply
        said = " ".join(str(part) for part in (reply.code, reply.reason) if part)
        return cls(said or f"the call ended as {reply.outcome.value}", reply.outcome is Outcome.ERROR)


def members_of(rings: Iterable[Ring]) -> list[Member]:
    """Return the devices that any of these rings names, previous owners of what moves too, by where they are."""
    found: dict[tuple[str, int, str], dict[str, Device]] = {}
    for ring in rings:
        for device in ring.devices:
            if device is not None:
                found.setdefault((device.host, device.port, device.name), {})[ring.name] = device
    return [Member(*place, known_as) for place, known_as in sorted(found.items())]


class Members:
    """A cluster as this host's files describe it."""

    def __init__(
        self, host: HostConfig, cluster: Cluster, rings: Mapping[bytes, Ring], transport: Transport
    ) -> None:
        """Take the files, the rings by table, and the way to the devices."""
        self.host: Final = host
        self.cluster: Final = cluster
        self.rings: Final = rings
        self._transport: Final = transport
        self.all: Final = members_of(rings.values())

    def client(
        self, device: Device | Member, epochs: Mapping[str, int] | None = None, timeout_s: float = ASK_S
    ) -> NodeClient:
        """Return the way to a device, under the epochs of these rings, or others by the rings' names."""
        known = {ring.name: ring.epoch for ring in self.rings.values()} | dict(epochs or {})
        address = TcpAddress(device.host, device.port)
        return NodeClient(
            self._transport, address, lambda table: known[ring_name(table)], timeout_s=timeout_s
        )


@asynccontextmanager
async def open_members(config: Path) -> AsyncIterator[Members]:
    """Read the files of a host and open the way to all devices. Raises ConfigError, RingError."""
    host = load_host(config)
    cluster = load_cluster(host.cluster_file)
    rings = {
        table: load_ring(host.ring_directory / f"{ring_name(table)}{RING_SUFFIX}", cluster.hash_seed)
        for table in tables(policy.index for policy in cluster.policies)
    }
    async with Client(calling_network(host.tls), cluster.rpc_secret) as transport:
        yield Members(host, cluster, rings, transport)


async def ask_all(asked: Sequence[M], ask: Callable[[M], Awaitable[T]]) -> list[T | Silence]:
    """Ask many, some at a time; in their order, what each said or why it did not."""
    gate = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(member: M) -> T | Silence:
        async with gate:
            try:
                return await ask(member)
            except NodeFailed as failure:
                return Silence.of(failure)

    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(one(member)) for member in asked]
    return [task.result() for task in asking]
