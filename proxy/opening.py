"""From a host's files to the domain: how its devices are reached, and the registers and the store over them.

Owns how the parts are put together, one for a worker and for whatever tool speaks to the cluster directly. Never listens.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random, SystemRandom

from proxy.cluster.placement import Rings, tcp_address
from proxy.cluster.register import Registers
from proxy.cluster.rings import FollowedRings
from proxy.store.store import Store
from ring.device import Device
from swiftlike.config import Cluster, HostConfig
from swiftlike.rpc.client import Client
from swiftlike.rpc.transport import Address, Transport, UnixAddress
from swiftlike.timestamps import Clock
from swiftlike.tls import calling_network


def addresses(host: HostConfig) -> Callable[[Device], Address]:
    """Return how devices are reached: those of this host by their Unix sockets, which cost less and need no port."""
    storage = host.storage
    if storage is None:
        return tcp_address
    own: dict[tuple[str, int, str], Address] = {
        (storage.bind_host, device.port, device.name): UnixAddress(
            str(host.socket_directory / f"{device.name}.sock")
        )
        for device in storage.devices
    }

    def address_of(device: Device) -> Address:
        return own.get((device.host, device.port, device.name)) or tcp_address(device)

    return address_of


def registers_of(
    transport: Transport, rings: Rings, host: HostConfig, now_us: Callable[[], int]
) -> Registers:
    """Return the registers of a cluster, seen from a process of this host that is a writer of its own."""
    clock = Clock(now_us, int.from_bytes(os.urandom(8), "big"))
    random = Random(SystemRandom().getrandbits(64))
    return Registers(transport, rings, clock, random, address_of=addresses(host), leaves_hints=True)


@asynccontextmanager
async def open_store(
    transport: Transport, rings: Rings, host: HostConfig, cluster: Cluster, now_us: Callable[[], int]
) -> AsyncIterator[Store]:
    """Open the domain over a cluster's devices; its calls have ended when this has."""
    async with (
        registers_of(transport, rings, host, now_us) as registers,
        Store(registers, cluster.policies) as store,
    ):
        yield store


@asynccontextmanager
async def following(
    rings: FollowedRings, when_ended: Callable[[BaseException | None], None]
) -> AsyncIterator[None]:
    """Follow the files of the rings; should that ever end by itself, `when_ended` hears of it."""

    def tell(task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            when_ended(task.exception())

    task = asyncio.create_task(rings.run())
    task.add_done_callback(tell)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


@asynccontextmanager
async def open_quorums(
    host: HostConfig,
    cluster: Cluster,
    now_us: Callable[[], int],
    when_ended: Callable[[BaseException | None], None],
) -> AsyncIterator[Store]:
    """Open the quorum client of a process that serves no clients, such as a device's, for its jobs.

    Raises RingError, and ConfigError for the files of TLS.
    """
    rings = FollowedRings(host.ring_directory, cluster)
    async with (
        Client(calling_network(host.tls), cluster.rpc_secret) as transport,
        following(rings, when_ended),
        open_store(transport, rings, host, cluster, now_us) as store,
    ):
        yield store
