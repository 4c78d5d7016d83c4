"""Volumes that are gone, or cut short, behind a closed device: nothing of it goes unnoticed, and nothing lies in the way of the new."""

import os
import shutil
from pathlib import Path

import pytest

from storage_node import tables
from storage_node.checking import ClosedDevice, check
from storage_node.device import Device, Settings
from storage_node.errors import StorageError
from storage_node.index import Index
from storage_node.keys import VOLUMES, Key, after, volume_key
from storage_node.locations import VolumeId
from storage_node.lost_bodies import LostBodies, lost_in
from storage_node.tables import VolumeCount
from tests.engine.conftest import SETTINGS, opened, vote_everywhere
from tests.engine.samples import object_key, put
from tests.engine.test_store_contract import body_of, offer

BODY = bytes(2_000)
SMALL_VOLUMES = Settings(reserve_bytes=0, index_map_bytes=1 << 30, volume_bytes_max=10_000)
NAMES = [f"n{number}" for number in range(10)]


@pytest.fixture
async def filled(root: Path) -> Path:
    """A closed device with three volumes of bodies."""
    async with opened(root, SMALL_VOLUMES) as device:
        await vote_everywhere(device)
        for name in NAMES:
            await offer(device, object_key(name), put(1, BODY), BODY)
        assert device.volumes.ids() == (1, 2, 3)
        assert not device.lost_volumes
    return root


def missing(device: Device) -> int:
    return len(device.missing(None, 100))


async def test_the_bodies_of_volumes_that_are_gone_are_marked_as_missing(filled: Path) -> None:
    shutil.rmtree(filled / "volumes")
    (filled / "volumes").mkdir()
    told: list[Key] = []
    async with opened(filled, SMALL_VOLUMES) as device:
        device.on_missing = told.append
        job = LostBodies(device)
        assert [figure.value for figure in job.figures()] == [3, 0], (
            "what is under way is seen from the first moment"
        )
        await job.walk()
        assert [figure.value for figure in job.figures()] == [0, 10]
        assert missing(device) == len(told) == device.counters.bodies_damaged == 10
        await job.walk()
        assert job.found == 10
    async with opened(filled, SMALL_VOLUMES) as device:
        assert (device.lost_volumes, missing(device)) == ({}, 10)
    assert check_of(filled) == []


async def test_a_volume_that_was_cut_short_loses_what_lay_behind_and_no_more(filled: Path) -> None:
    os.truncate(filled / "volumes" / "00000002.vol", 5_000)
    async with opened(filled, SMALL_VOLUMES) as device:
        assert device.lost_volumes == {2: 5_000}
        await LostBodies(device).walk()
        lost = {key.path.rsplit(b"\0")[-1].decode() for key in device.missing(None, 100)}
        assert 0 < len(lost) < 4
        for name in set(NAMES) - lost:
            assert await body_of(device, object_key(name)) == BODY
    async with opened(filled, SMALL_VOLUMES) as device:
        assert not device.lost_volumes, "it is not looked for at every start"
    assert check_of(filled) == []


async def test_a_number_that_something_points_into_is_not_given_to_another_volume(filled: Path) -> None:
    for path in (filled / "volumes").iterdir():
        path.unlink()
    async with opened(filled, SMALL_VOLUMES) as device:
        await offer(device, object_key("new"), put(1, BODY), BODY)
        assert device.volumes.ids() == (4,)
        await LostBodies(device).walk()
        assert await body_of(device, object_key("new")) == BODY
        assert missing(device) == 10


async def test_a_walk_that_was_interrupted_begins_anew_at_the_next_start(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (filled / "volumes" / "00000001.vol").unlink()
    async with opened(filled, SMALL_VOLUMES) as device:

        async def refuse() -> None:
            raise StorageError("no room")

        monkeypatch.setattr(device, "settle_volumes", refuse)
        with pytest.raises(StorageError):
            await LostBodies(device).walk()
        lost = missing(device)
    monkeypatch.undo()
    # Nothing points there any more, so there is nothing left to look for.
    async with opened(filled, SMALL_VOLUMES) as device:
        assert (device.lost_volumes, missing(device)) == ({}, lost)


async def test_a_sound_device_is_not_looked_at(filled: Path) -> None:
    async with opened(filled, SMALL_VOLUMES) as device:
        device.lost_bodies = None  # type: ignore[assignment,method-assign]
        await LostBodies(device).walk()


async def test_what_an_earlier_release_counted_is_read_and_told_by_live_bytes_alone(filled: Path) -> None:
    index = Index(filled / "index", map_bytes=SETTINGS.index_map_bytes)
    with index.reading() as view:
        counts = tables.read_volumes(view)
        assert all(count.end for count in counts.values())
    change = index.begin()
    for volume, count in counts.items():
        change.put(volume_key(volume), count.live_bytes.to_bytes(8, "big"))
    change.commit()
    with index.reading() as view:
        assert len(list(view.scan(VOLUMES, after(VOLUMES)))) == 3
        assert tables.read_volumes(view) == {
            v: VolumeCount(count.live_bytes, 0) for v, count in counts.items()
        }
    index.close()
    os.truncate(filled / "volumes" / "00000002.vol", 5_000)
    (filled / "volumes" / "00000003.vol").unlink()
    async with opened(filled, SMALL_VOLUMES) as device:
        assert device.lost_volumes == {2: 5_000, 3: 0}


def test_a_volume_has_lost_something_when_it_is_smaller_than_its_end_or_than_what_is_live() -> None:
    one, two, three, four, five = map(VolumeId, range(1, 6))
    counts = {
        one: VolumeCount(100, 500),
        two: VolumeCount(100, 500),
        three: VolumeCount(100, 0),
        four: VolumeCount(0, 500),
        five: VolumeCount(100, 0),
    }
    assert lost_in(counts, {one: 500, two: 499, three: 131}) == {two: 499, three: 131, five: 0}


def check_of(root: Path) -> list[str]:
    """Return the damage that a check finds."""
    closed = ClosedDevice(root, map_bytes=SETTINGS.index_map_bytes)
    try:
        return check(closed).damage
    finally:
        closed.close()
