"""A thousand objects with names as long as they may be: what owners say of them to each other fits its calls all the same."""

import pytest

from swiftlike.names import OBJECT_BYTES_MAX
from swiftlike.node_calls import Standing
from tests.engine.conftest import stand
from tests.simulation.healing_cluster import HealingCluster, HealingDevice, fill, hold, play_healing, put
from tests.simulation.quorum_cluster import STARTED_US

COUNT = 1_000
OBJECTS = b"o\0"


async def hold_long(device: HealingDevice, *, owing: bool = False) -> None:
    """Have a device hold them."""
    for number in range(COUNT):
        await hold(device, f"{number:04}".ljust(OBJECT_BYTES_MAX, "n"), put(number), owing=owing)


def test_a_device_that_missed_them_takes_them() -> None:
    async def scenario(world: HealingCluster) -> None:
        await hold_long(world.devices[0])
        await hold_long(world.devices[2])
        await world.walk(1)
        assert world.agree(0, 1, 2)

    play_healing(scenario)


@pytest.mark.parametrize("what", ["owing", "floor"])
def test_a_disk_that_was_replaced_catches_up_with_them_and_votes(what: str) -> None:
    async def scenario(world: HealingCluster) -> None:
        for device in (world.devices[0], world.devices[2]):
            await hold_long(device, owing=what == "owing")
            if what == "floor":
                floor_us = STARTED_US + 10_000
                await stand(device.store, OBJECTS, 0, Standing(True, floor_us, floor_us))
        await world.replace_disks(1)
        await world.walk(1)
        assert world.devices[1].votes()

    play_healing(scenario)


def test_a_device_that_is_no_owner_gives_them_back() -> None:
    async def scenario(world: HealingCluster) -> None:
        *owners, stranger = world.devices
        await fill(world, 0, 1, 2, objects=1)
        await hold_long(stranger)
        for _ in range(2):
            await world.walk(3)
            for owner in owners:
                assert owner.replicator is not None
                await owner.replicator.heed_hints()
        await world.walk(3)
        assert stranger.store.partition_digest(OBJECTS, 0).entries == 0
        assert world.agree(0, 1, 2)

    play_healing(scenario, others=1)
