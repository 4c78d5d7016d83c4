"""A device that was told to take nothing for a while, and what it tells of itself meanwhile, in virtual time."""

import asyncio

import pytest

from storage_node.errors import StorageError
from storage_node.pause import JOB, Pause
from swiftlike.limits import PAUSE_S_MAX
from swiftlike.node_calls import objects
from tests.simulation.healing_cluster import (
    HealingCluster,
    HealingDevice,
    down,
    held,
    hold,
    hold_rows,
    play_healing,
    put,
    row,
)

S = 1_000_000


def figures(device: HealingDevice) -> dict[str, float]:
    """What a replicator tells of itself."""
    assert device.replicator is not None
    return {figure.name: figure.value for figure in device.replicator.figures()}


def pause_of(device: HealingDevice) -> Pause:
    assert device.pause is not None
    return device.pause


def test_a_device_that_is_paused_compares_and_takes_nothing_and_then_takes_all() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, _ = world.devices
        now_us = world.cluster.read_us()
        for device in (first, world.devices[2]):
            for at in range(20):
                await hold(device, f"o{at}", put(at))
            await hold_rows(device, {b"%03d" % at: row(at) for at in range(20)})
        await pause_of(second).set(now_us() + 600 * S)
        await world.walk(1)
        assert held(second, "o1")[0] is None
        assert second.replicator is not None
        second.replicator.hint(b"o\0", 0, None)
        await asyncio.sleep(60)
        await world.walk(1)
        assert held(second, "o1")[0] is None
        told = figures(second)
        assert (told["paused"], told["differing"], told["degraded_1"], told["taken"]) == (1.0, 2, 2, 0)
        await pause_of(second).set(0)
        await world.walk(1)
        assert world.agree(0, 1, 2)
        assert figures(second)["paused"] == 0.0

    play_healing(scenario)


def test_a_pause_outlives_a_restart_and_ends_by_itself() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, _ = world.devices
        await hold(first, "o", put(1))
        until_us = world.cluster.read_us()() + 60 * S
        await pause_of(second).set(until_us)
        async with down(world, 1):
            pass
        assert pause_of(second).until_us == until_us
        await world.walk(1)
        assert held(second, "o")[0] is None
        await asyncio.sleep(61)
        assert (pause_of(second).until_us, pause_of(second).is_on()) == (0, False)
        await world.walk(1)
        assert held(second, "o")[0] == put(1)

    play_healing(scenario)


def test_a_pause_in_the_middle_of_a_ring_change_keeps_a_newcomer_from_voting_until_it_is_over() -> None:
    async def scenario(world: HealingCluster) -> None:
        for device in world.devices[:3]:
            for at in range(50):
                await hold(device, f"o{at}", put(at))
        newcomer = world.devices[3]
        await pause_of(newcomer).set(world.cluster.read_us()() + 3600 * S)
        await world.adopt([0, 1, 3], before=[0, 1, 2])
        await world.walk(3)
        assert newcomer.replicator is not None
        found = newcomer.replicator.caught_up(objects(0))
        assert (found.moving, found.moved, found.per_s) == (1, 0, 0.0)
        await pause_of(newcomer).set(0)
        await world.walk(3)
        found = newcomer.replicator.caught_up(objects(0))
        assert (found.moving, found.moved) == (1, 1)
        assert found.per_s > 0

    play_healing(scenario, others=1)


def test_a_pause_has_an_end_and_another_releases_word_is_none() -> None:
    async def scenario(world: HealingCluster) -> None:
        device = world.devices[0]
        now_us = world.cluster.read_us()
        with pytest.raises(StorageError, match="renew it"):
            await pause_of(device).set(now_us() + (PAUSE_S_MAX + 1) * S)
        await device.store.remember(JOB, b"\x92\x09\x01")
        await pause_of(device).load()
        assert not pause_of(device).is_on()

    play_healing(scenario)


def test_a_device_tells_how_many_sound_copies_its_partitions_have_and_since_when() -> None:
    async def scenario(world: HealingCluster) -> None:
        first = world.devices[0]
        await world.walk(0)
        assert figures(first)["oldest_divergence_s"] == 0.0
        async with down(world, 2):
            await world.walk(0)
            await asyncio.sleep(5)
            told = figures(first)
            tables = len(first.store.layout.part_powers)
            assert (told["degraded_2"], told["degraded_1"]) == (tables, 0)
            assert told["oldest_divergence_s"] == pytest.approx(5, abs=1)
            assert first.replicator is not None
            assert {(each.owners, each.sound) for each in first.replicator.degraded()} == {(3, 2)}
            async with down(world, 1):
                await world.walk(0)
                assert figures(first)["degraded_1"] == tables
        await world.walk(0)
        told = figures(first)
        assert (told["degraded_1"], told["degraded_2"], told["oldest_divergence_s"]) == (0, 0, 0.0)
        assert told["last_pass_us"] > 0

    play_healing(scenario)
