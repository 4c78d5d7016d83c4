"""Volumes and large files of random bytes: scanned without a crash, and nothing in them is believed."""

from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_node.blocks import seed_of
from storage_node.disk import Disk
from storage_node.errors import BodyDamaged
from storage_node.files import Files
from storage_node.locations import FileId
from storage_node.volumes import Volumes
from swiftlike.entries import encode
from tests.engine.samples import object_key, put

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
