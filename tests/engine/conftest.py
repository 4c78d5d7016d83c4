"""Devices for the engine's tests: formatted in a directory of their own, closed behind each test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from storage_node.device import Device, Settings
from storage_node.formatting import format_device
from storage_node.memory import MemoryStore
from storage_node.store import Store
from swiftlike.node_calls import Standing
from tests.engine.samples import LAYOUT, NOW_US

SETTINGS = Settings(reserve_bytes=0, index_map_bytes=1 << 30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A formatted device."""
    path = tmp_path / "d1"
    path.mkdir()
    format_device(path, map_bytes=SETTINGS.index_map_bytes)
    return path


@asynccontextmanager
async def opened(root: Path, settings: Settings = SETTINGS, **options: object) -> AsyncIterator[Device]:
    """Open a device that votes everywhere, and close it."""
    device = Device(root, LAYOUT, lambda: NOW_US, settings=settings, **options)  # type: ignore[arg-type]
    device.start()
    try:
        yield device
    finally:
        await device.close()


async def vote_everywhere(store: Store) -> None:
    """Let a store vote on the partitions of the tests' tables."""
    partitions = [(table, power) for table, power in LAYOUT.part_powers.items() if power < 8]
    votes = Standing(votes=True)
    await asyncio.gather(
        *(stand(store, table, number, votes) for table, power in partitions for number in range(1 << power))
    )


async def stand(store: Store, table: bytes, partition: int, standing: Standing) -> None:
    """Give a partition a standing, whatever it stands as now."""
    await store.set_standing(table, partition, standing, seen=store.standing(table, partition))


@pytest.fixture
async def device(root: Path) -> AsyncIterator[Device]:
    """An open device that votes."""
    async with opened(root) as device:
        await vote_everywhere(device)
        yield device


@pytest.fixture(params=["memory", "device"])
async def store(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Store]:
    """Either body of the store interface; the contract suite runs on both."""
    if request.param == "memory":
        memory = MemoryStore("memory", LAYOUT, lambda: NOW_US)
        await vote_everywhere(memory)
        yield memory
        return
    async with opened(root) as device:
        await vote_everywhere(device)
        yield device
