"""Votes: an operator's word that what is left of a partition is all there is.

Owns the one way in which a device votes without having caught up with a majority: for partitions whose other owners are lost for good,
or too many of them. Before it votes it takes all that those of them hold who answer and vote; that is the device's own business.
Never decides that the others are lost.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from ring.files import RingFiles
from swiftlike.config import Cluster, ConfigError, HostConfig
from swiftlike.node_calls import Trusted, ring_name, tables
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.transport import TcpAddress
from swiftlike.tls import calling_network

ASK_S: Final = 10.0
TAKE_S: Final = 3600.0
"""For one partition, all of which may have to be taken before the device votes on it."""
AT_ONCE: Final = 4


class NotTold(Exception):
    """The device cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The partitions of a ring that a device owns and does not vote on, or did not until it was told to."""

    ring: str
    partitions: tuple[int, ...]
    alone: int = 0
    """Those of them of which no owner that votes answered: what this device held is all that was found."""
    silent: int = 0
    """Those of which some owner did not answer."""


def waiting(host: HostConfig, cluster: Cluster, name: str, *, trust: bool) -> list[Waiting]:
    """Return what a device of this host waits for; with `trust`, it votes on all of that from now on, with what others hold.

    Raises NotTold, RingError, ConfigError.
    """
    return asyncio.run(_ask(host, cluster, name, trust=trust))


async def _ask(host: HostConfig, cluster: Cluster, name: str, *, trust: bool) -> list[Waiting]:
    devices = () if host.storage is None else host.storage.devices
    device = next((device for device in devices if device.name == name), None)
    if host.storage is None or device is None:
        raise ConfigError(f"no [[storage.devices]] of this host is named {name}: name one that is, or add it")
    all_tables = tables(policy.index for policy in cluster.policies)
    names = {ring_name(table): table for table in all_tables}
    rings = RingFiles.load(host.ring_directory, names, cluster.hash_seed, lambda old, new: None)
    found: list[Waiting] = []
    async with Client(calling_network(host.tls), cluster.rpc_secret) as transport:
        address = TcpAddress(host.storage.bind_host, device.port)
        client = NodeClient(
            transport,
            address,
            lambda table: rings.ring(ring_name(table)).epoch,
            timeout_s=TAKE_S if trust else ASK_S,
        )
        for table in all_tables:
            try:
                each = await (_trust(client, table) if trust else _waiting(client, table))
            except NodeFailed as failure:
                raise NotTold(f"{failure}; start the device, and give it the ring of this host") from None
            if each.partitions:
                found.append(each)
    return found


async def _waiting(client: NodeClient, table: bytes) -> Waiting:
    return Waiting(ring_name(table), (await client.caught_up(table)).waiting)


async def _trust(client: NodeClient, table: bytes) -> Waiting:
    """Have the device vote on all that it waits for. Raises NotTold with the first partition on which it does not."""
    ring, partitions, alone, silent = ring_name(table), dict[int, None](), 0, 0
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> Trusted | str:
        async with gate:
            try:
                return await client.trust(table, number)
            except NodeFailed as failure:
                return failure.reply.reason or str(failure)

    while some := [number for number in (await client.caught_up(table)).waiting if number not in partitions]:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask(number)) for number in some]
        answers = [task.result() for task in asking]
        told = [answer for answer in answers if isinstance(answer, Trusted)]
        if refusals := [answer for answer in answers if isinstance(answer, str)]:
            raise NotTold(
                f"ring {ring}: {refusals[0]} ({len(refusals)} partitions wait, {len(partitions) + len(told)} are voted on)"
            )
        partitions.update(dict.fromkeys(some))
        alone += sum(not each.voters for each in told)
        silent += sum(each.silent > 0 for each in told)
    return Waiting(ring, tuple(partitions), alone, silent)
