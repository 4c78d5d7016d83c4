"""Caught up: whether the new owners of what is moving have caught up, told by the devices themselves.

Owns who is asked, under the epoch that moves, and how what is missing is put into sentences. Never writes a ring.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ring.device import Device
from ring.errors import RingError
from ring.ring import Ring
from swiftlike.config import Cluster, ConfigError, HostConfig, load_cluster, load_host
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, CaughtUp, Code, objects
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.transport import TcpAddress
from swiftlike.tls import calling_network

ASK_S: Final = 10.0
TOLD_MAX: Final = 5
"""Devices that are named; of the others, only how many they are."""


def who_waits(ring: Ring, host_file: Path) -> list[str]:
    """Return a sentence for each new owner that has not caught up, or does not say; none: all have.

    Raises RingError when the configuration cannot be read.
    """
    try:
        host = load_host(host_file)
        cluster = load_cluster(host.cluster_file)
    except ConfigError as error:
        raise RingError(f"{error}; the devices cannot be asked without it") from None
    return asyncio.run(_ask_all(ring, host, cluster))


async def _ask_all(ring: Ring, host: HostConfig, cluster: Cluster) -> list[str]:
    async with Client(calling_network(host.tls), cluster.rpc_secret) as transport:

        async def ask(device: Device) -> str | None:
            address = TcpAddress(device.host, device.port)
            client = NodeClient(transport, address, lambda table: ring.epoch, timeout_s=ASK_S)
            try:
                return told_by(device, ring, await client.caught_up(table_of(ring.name)))
            except NodeFailed as failure:
                if failure.reply.code == Code.RING_NEWER:
                    return (
                        f"{device} has not got epoch {ring.epoch} of the ring yet: copy the ring to its host"
                    )
                return f"{device} does not say: {failure.reply.code} {failure.reply.reason}".rstrip()

        answers = await asyncio.gather(*(ask(device) for device in new_owners(ring)))
    return [answer for answer in answers if answer is not None]


def told_by(device: Device, ring: Ring, answer: CaughtUp) -> str | None:
    """Put an answer into a sentence; None when the device has caught up with all that it is to own."""
    if answer.epoch != ring.epoch:
        return f"{device} is at epoch {answer.epoch} of the ring, not {ring.epoch}: copy the ring to its host"
    if answer.moved < answer.moving:
        return f"{device} has caught up with {answer.moved} of {answer.moving} partitions"
    return None


def new_owners(ring: Ring) -> list[Device]:
    """Return the devices that are to own something of what moves, by id."""
    moving = list(ring.moving_partitions)
    found = {
        device_id
        for row in ring.rows
        for partition in moving
        if partition < len(row)
        for device_id in (row[partition],)
    }
    return [device for device in ring.devices if device is not None and device.id in found]


def table_of(ring_name: str) -> bytes:
    """Return the table that a ring places."""
    match ring_name:
        case "account":
            return ACCOUNTS
        case "container":
            return CONTAINERS
        case _:
            return objects(int(ring_name.removeprefix("object-")))


def shortened(sentences: Iterable[str]) -> str:
    """Join sentences, the first few of many."""
    told = list(sentences)
    more = f"; and {len(told) - TOLD_MAX} more devices" if len(told) > TOLD_MAX else ""
    return "; ".join(told[:TOLD_MAX]) + more
