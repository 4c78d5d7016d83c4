"""Runs every test of this folder twice: a real device over a Unix socket, and the in-memory store over a simulated network."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from storage_node.formatting import format_device
from storage_node.memory import MemoryStore
from storage_node.pause import Pause
from storage_node.service import DeviceService, Surroundings
from storage_node.store import Store
from swiftlike.node_calls import CaughtUp, Degraded, Trusted
from swiftlike.node_client import NodeClient
from swiftlike.rpc.transport import Address, Transport
from swiftlike.rpc.virtual_time import VirtualLoop
from tests.cluster.rpc.worlds import UvloopUnix, world_of
from tests.engine.conftest import SETTINGS, opened, vote_everywhere
from tests.engine.samples import LAYOUT, NOW_US, OBJECTS

EPOCH = 5


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"device-over-unix": UvloopUnix, "memory-simulated": VirtualLoop}


class FixedRings:
    """Rings of one epoch, until a test moves on; remembers which newer ones were heard of."""

    def __init__(self) -> None:
        self.current = EPOCH
        self.looks_until_newer: int | None = None
        """After so many more looks at the epoch, it is the next one."""
        self.looked_for: list[bytes] = []

    def epoch(self, table: bytes) -> int | None:
        if self.looks_until_newer is not None:
            if self.looks_until_newer == 0:
                self.current, self.looks_until_newer = self.current + 1, None
            else:
                self.looks_until_newer -= 1
        return self.current if table in LAYOUT.part_powers else None

    def look_for_newer(self, table: bytes) -> None:
        self.looked_for.append(table)


class HeardHealing:
    """A replicator that only remembers what it was told."""

    def __init__(self) -> None:
        self.hints: list[tuple[bytes, int, int | None]] = []

    def hint(self, table: bytes, partition: int, device: int | None, *, one_way: bool = False) -> bool:
        self.hints.append((table, partition, device))
        return True

    def caught_up(self, table: bytes) -> CaughtUp:
        return CaughtUp(EPOCH, 3, 1, 2, 1, (4, 7))

    async def trust(self, table: bytes, partition: int) -> Trusted:
        return Trusted(1, 0)

    def lag_s(self) -> float:
        return 0.25

    def degraded(self) -> tuple[Degraded, ...]:
        return (Degraded(OBJECTS, 3, owners=3, sound=1, since_us=NOW_US),)


@dataclass
class Node:
    """A served store and the way to it."""

    store: Store
    service: DeviceService
    rings: FixedRings
    transport: Transport
    address: Address
    client: NodeClient
    root: Path | None
    """Of the device, where there is one."""
    handler_bugs: Callable[[], int]
    room: list[bool]
    """Whether large bodies have room; a test may say no."""
    healing: HeardHealing


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A store that votes, served in its world."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(world_of(loop, tmp_path))
        store: Store
        if isinstance(loop, VirtualLoop):
            store, root, surroundings = MemoryStore("memory", LAYOUT, lambda: NOW_US), None, Surroundings()
        else:
            root = tmp_path / "d1"
            root.mkdir()
            format_device(root, map_bytes=SETTINGS.index_map_bytes)
            # Behind the world's servers, so that they end first.
            device = await stack.enter_async_context(opened(root))
            store, surroundings = device, Surroundings()
        await vote_everywhere(store)
        room = [True]
        healing = HeardHealing()
        pause = Pause(store, lambda: NOW_US, lambda: None)
        surroundings = replace(
            surroundings,
            has_room=lambda size: room[0],
            healing=lambda: healing,
            overseeing=lambda: healing,
            pausing=lambda: pause,
        )
        rings = FixedRings()
        service = await world.stack.enter_async_context(DeviceService(store, LAYOUT, rings, surroundings))
        server, [address] = await world.serve(service.service)
        transport = await world.client()
        client = NodeClient(transport, address, lambda table: EPOCH)
        yield Node(
            store,
            service,
            rings,
            transport,
            address,
            client,
            root,
            lambda: (
                server.counters.handler_bugs
                + sum(count for (_, ended), count in service.counts.items() if ended == "bug")
            ),
            room,
            healing,
        )
        await world.stack.aclose()
