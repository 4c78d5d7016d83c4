"""Votes: an operator's word that what a device holds of a partition is all there is.

Owns the one way in which a device votes without having caught up: for partitions whose other owners are lost for good, or too
many of them. Never decides that they are lost.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from ring.files import RingFiles
from swiftlike.config import Cluster, ConfigError, HostConfig
from swiftlike.node_calls import ring_name, tables
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.transport import TcpAddress
from swiftlike.tls import calling_network

ASK_S: Final = 10.0


class NotTold(Exception):
    """The device cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The partitions of a ring that a device owns and does not vote on."""

    ring: str
    partitions: tuple[int, ...]


def waiting(host: HostConfig, cluster: Cluster, name: str, *, trust: bool) -> list[Waiting]:
    """Return what a device of this host waits for; with `trust`, it votes on all of that from now on.

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
    async with Client(calling_network(host.tls), cluster.secret) as transport:
        address = TcpAddress(host.storage.bind_host, device.port)
        client = NodeClient(
            transport, address, lambda table: rings.ring(ring_name(table)).epoch, timeout_s=ASK_S
        )
        try:
            for table in all_tables:
                partitions: list[int] = []
                while some := [
                    number
                    for number in (await client.caught_up(table)).waiting
                    if number not in set(partitions)
                ]:
                    partitions += some
                    for number in some if trust else ():
                        seen = await client.standing(table, number)
                        await client.set_standing(table, number, seen._replace(votes=True), seen=seen)
                    if not trust:
                        break
                if partitions:
                    found.append(Waiting(ring_name(table), tuple(partitions)))
        except NodeFailed as failure:
            raise NotTold(f"{failure}; start the device, and give it the ring of this host") from None
    return found
