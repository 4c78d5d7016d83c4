"""Volumes and large files of random bytes: scanned without a crash, and nothing in them is believed."""

import random
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_node.blocks import seed_of
from storage_node.checking import ClosedDevice, check
from storage_node.compaction import compact
from storage_node.device import Device, Settings
from storage_node.disk import Disk
from storage_node.errors import BodyDamaged, StorageError
from storage_node.files import Files
from storage_node.keys import Key
from storage_node.locations import FileId
from storage_node.rebuilding import rebuild_index
from storage_node.volumes import Volumes
from swiftlike.entries import encode
from tests.engine.conftest import opened, vote_everywhere
from tests.engine.samples import LARGE, LAYOUT, object_key, put
from tests.engine.test_store_contract import body_of, offer

SMALL_VOLUMES = Settings(reserve_bytes=0, index_map_bytes=1 << 28, volume_bytes_max=30_000)

LOST = "nothing in it is sound"
"""What a check says of a volume that is left alone for ever."""
STAMP = UUID(int=7)
HEADER = b"slvolume\1" + bytes(7) + STAMP.bytes
ids = st.sampled_from(
    [b"slvr", b"slvr\1", b"\xff" * 8, b"\0" * 16, b"slvr\1\0\xff\xff\xff\xff\xff\xff" + b"\xff" * 20]
)
noise = st.lists(st.binary(max_size=60) | ids, max_size=12).map(b"".join)


def scan(directory: Path) -> list[bytes]:
    """Return the paths of all records of the only volume."""
    volumes = Volumes(directory, STAMP, Disk())
    try:
        return [record.key.path for record in volumes.scan(volumes.ids()[0])]
    finally:
        volumes.close()


@given(noise)
@settings(deadline=None)
def test_noise_holds_no_records(raw: bytes) -> None:
    with TemporaryDirectory() as directory:
        (Path(directory) / "00000001.vol").write_bytes(HEADER + raw)
        assert scan(Path(directory)) == []


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_damaged_record_hides_no_other(data: st.DataObject) -> None:
    with TemporaryDirectory() as directory:
        volumes = Volumes(Path(directory), STAMP, Disk())
        spans = []
        for name in ("a", "b", "c"):
            body = name.encode() * 300
            entry = put(1, body)
            place = volumes.stage(object_key(name), encode(entry), body, seed_of(entry.body_id))
            spans.append((place.offset, place.offset + place.head_bytes))
        volumes.write()
        volumes.sync()
        path = volumes.path(volumes.ids()[0])
        volumes.close()
        victim = data.draw(st.integers(0, 2))
        at = data.draw(st.integers(*spans[victim]).map(lambda at: min(at, spans[victim][1] - 1)))
        raw = bytearray(path.read_bytes())
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(raw)
        kept = [object_key(name).path for number, name in enumerate("abc") if number != victim]
        assert scan(Path(directory)) == kept


@given(noise)
@settings(deadline=None)
def test_a_large_file_of_noise_is_refused(raw: bytes) -> None:
    with TemporaryDirectory() as directory:
        files = Files(Path(directory), Path(directory), STAMP, Disk())
        file = FileId(bytes(16))
        files.path(file).parent.mkdir()
        files.path(file).write_bytes(raw + b"slfl\1" + bytes(59))
        with pytest.raises(BodyDamaged):
            files.read_trailer(file)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_becomes_of_the_files_of_a_device_it_serves_right_bytes_or_a_typed_error(
    root: Path, seed: int
) -> None:
    """Spans of volumes and large files are turned, zeroed, cut off or doubled; a check, reads and a rebuild go on."""
    chance = random.Random(seed)
    bodies = {
        object_key(f"n{number:02}"): chance.randbytes(LARGE if number % 15 == 0 else chance.randint(0, 9_000))
        for number in range(45)
    }
    async with opened(root, SMALL_VOLUMES) as device:
        await vote_everywhere(device)
        for key, body in bodies.items():
            await offer(device, key, put(1, body), body)
    paths = sorted((root / "volumes").iterdir()) + sorted((root / "files").glob("??/*"))
    for path in chance.sample(paths, len(paths) // 2):
        path.write_bytes(ruined(path.read_bytes(), chance))

    damage = damage_of(root)
    async with opened(root, SMALL_VOLUMES) as device:
        sound = await sound_of(device, bodies)
        await offer(device, object_key("after"), put(2, b"x"), b"x")
    assert (len(sound) < len(bodies)) <= bool(damage)
    rebuilt = rebuild_index(root, LAYOUT.seed, map_bytes=SMALL_VOLUMES.index_map_bytes)
    assert not rebuilt.is_whole
    assert all(LOST in each or "its header is damaged" in each for each in damage_of(root))
    async with opened(root, SMALL_VOLUMES) as device:
        assert await body_of(device, object_key("after")) == b"x"
        found = await sound_of(device, bodies)
        for volume in device.volumes.damaged():
            assert (await compact(device, volume)).removed
        assert await sound_of(device, bodies) == found
    assert all(LOST in each for each in damage_of(root))
    for key in sound - found:
        named = repr(key.path.decode())
        assert any(named in each for each in damage), (
            "what a rebuild loses and a reader had, the check has told"
        )


def ruined(raw: bytes, chance: random.Random) -> bytes:
    """Return what a bad disk makes of a file."""
    start, span = chance.randrange(len(raw)), chance.choice((1, 8, 512, 4_096, 100_000))
    if chance.random() < 0.25:
        start = chance.randrange(32)  # of the header, of whatever length the span is
    elif chance.random() < 0.5:
        # What stands beside a body is short, and would hardly ever be met alone.
        heads = [found.start() for found in re.finditer(b"slvr", raw)] or [len(raw) - 120]
        start, span = chance.choice(heads) + chance.randrange(100), 4
    stop = min(len(raw), start + span)
    match chance.randrange(4):
        case 0:
            return raw[:start] + bytes(each ^ 0x5A for each in raw[start:stop]) + raw[stop:]
        case 1:
            return raw[:start] + bytes(stop - start) + raw[stop:]
        case 2:
            return raw[:start]
        case _:
            return raw[:stop] + raw[start:stop] + raw[stop:]


def damage_of(root: Path) -> list[str]:
    """Return what a check finds."""
    closed = ClosedDevice(root, map_bytes=SMALL_VOLUMES.index_map_bytes)
    try:
        return check(closed).damage
    finally:
        closed.close()


async def sound_of(device: Device, bodies: dict[Key, bytes]) -> set[Key]:
    """Return the keys whose bodies can be read, and see that they are right."""
    sound = set()
    for key, body in bodies.items():
        try:
            found = await device.open_object(key)
            if found is None:
                continue
            try:
                assert bytes(await found[1].read(0, found[1].size)) == body
            finally:
                found[1].release()
            sound.add(key)
        except StorageError:
            continue
    return sound
