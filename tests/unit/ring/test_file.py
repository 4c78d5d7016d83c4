"""The ring file: what is written is read, and whatever else is there is refused in one sentence."""

import contextlib
import os
import struct
import tracemalloc
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from ring.device import Partition
from ring.errors import RingError, RingFileError
from ring.file import RingFields, decode_ring, encode_ring, load_ring, replace_file, write_ring
from ring.ring import NOBODY, Ring
from tests.unit.ring.rings import SEED, device, fields, ring_fields, ring_of

SMALL = fields(
    [device(0), None, device(2, zone=2)],
    [[0, 2, 0, 2], [2, 0]],
    epoch=2,
    ancestors=bytes(range(16)),
    moving={1: [2, 0], 3: [0]},
)
SMALL_BYTES = bytes(encode_ring(SMALL))
HEADER_BYTES = 88


def refusal(data: bytes) -> str:
    """Why these bytes are refused, as a sentence that ends in the fix."""
    with pytest.raises(RingFileError) as refused:
        decode_ring(data, SEED, "ring file x.ring")
    sentence = str(refused.value)
    assert sentence.startswith("ring file x.ring ")
    assert ";" in sentence
    assert "\n" not in sentence
    return sentence


def sealed(data: bytes) -> bytes:
    """The same bytes under the checksum that a writer of them would have put there."""
    checksum = xxhash.xxh3_128_digest(data[:16] + data[32:])
    return data[:16] + checksum + data[32:]


# Round trips


@given(ring_fields())
def test_what_is_written_is_read(described: RingFields) -> None:
    encoded = encode_ring(described)
    ring = decode_ring(bytes(encoded), SEED, "the test's ring")
    assert ring.checksum == encoded.checksum
    assert RingFields(
        name=ring.name,
        builder_id=ring.builder_id,
        epoch=ring.epoch,
        part_power=ring.part_power,
        replicas=ring.replicas,
        devices=list(ring.devices),
        rows=[array("I", row) for row in ring.rows],
        ancestors=bytes(ring.ancestors),
        moving_partitions=array("I", ring.moving_partitions),
        moving_rows=[array("I", row) for row in ring.moving_rows],
        founding=bytes(ring.founding),
    ) == replace(described, devices=list(described.devices))


@given(ring_fields())
def test_the_same_fields_make_the_same_bytes(described: RingFields) -> None:
    assert bytes(encode_ring(described)) == bytes(encode_ring(described))


def test_a_file_is_loaded_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "object-0.ring"
    checksum = write_ring(path, SMALL)
    assert load_ring(path, SEED) == ring_of(SMALL)
    assert load_ring(path, SEED).checksum == checksum
    assert [found.name for found in tmp_path.iterdir()] == ["object-0.ring"]


def test_sections_begin_at_multiples_of_eight() -> None:
    sizes = struct.unpack_from("<7Q", SMALL_BYTES, 32)
    assert sizes[0] == len(SMALL_BYTES) == HEADER_BYTES + sum(-(-size // 8) * 8 for size in sizes[1:])
    assert sizes[3:] == (6 * 4, 2 * 4, 4 * 4, 0)


# Refusals


@given(described=ring_fields(), data=st.data())
def test_any_flipped_byte_is_refused(described: RingFields, data: st.DataObject) -> None:
    flipped = bytearray(bytes(encode_ring(described)))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= data.draw(st.integers(1, 255))
    refusal(bytes(flipped))


def test_each_byte_counts() -> None:
    for offset in range(len(SMALL_BYTES)):
        refusal(SMALL_BYTES[:offset] + bytes([SMALL_BYTES[offset] ^ 1]) + SMALL_BYTES[offset + 1 :])


def test_a_truncated_ring_file_is_refused() -> None:
    for left in range(8, len(SMALL_BYTES)):
        assert "is truncated" in refusal(SMALL_BYTES[:left])


def test_a_ring_file_with_something_after_it_is_refused() -> None:
    assert f"{len(SMALL_BYTES) + 1} bytes are there where its header says {len(SMALL_BYTES)}" in refusal(
        SMALL_BYTES + b"\0"
    )


def test_sections_that_leave_something_over_are_refused() -> None:
    longer = SMALL_BYTES[:32] + struct.pack("<Q", len(SMALL_BYTES) + 8) + SMALL_BYTES[40:] + bytes(8)
    assert "has sections that do not fill it" in refusal(sealed(longer))


@pytest.mark.parametrize(
    ("data", "cause", "fix"),
    [
        (
            b"R1NG\x00\x01 another store's ring",
            "is not a ring file",
            "name a file that the ring builder wrote",
        ),
        (b"\x1f\x8b\x08", "is not a ring file", "name a file that the ring builder wrote"),
        (
            SMALL_BYTES[:5],
            "is truncated",
            "copy it again from another host or write it again from its builder",
        ),
        (
            SMALL_BYTES[:8] + struct.pack("<I", 7) + SMALL_BYTES[12:],
            "is of format version 7 and this program reads up to version 1",
            "upgrade swiftlike",
        ),
        (SMALL_BYTES[:8] + struct.pack("<I", 0) + SMALL_BYTES[12:], "is corrupted", "copy it again"),
        (SMALL_BYTES[:12] + struct.pack("<I", 2**32 - 1) + SMALL_BYTES[16:], "is corrupted", "copy it again"),
        (SMALL_BYTES[:-1] + b"?", "is corrupted: its checksum does not match", "copy it again"),
    ],
    ids=["foreign", "gzip", "truncated", "newer", "version-zero", "header-length", "checksum"],
)
def test_a_refusal_names_the_cause_and_the_fix(data: bytes, cause: str, fix: str) -> None:
    sentence = refusal(data)
    assert cause in sentence
    assert fix in sentence


def _with_metadata(**changed: object) -> bytes:
    """The small ring with other metadata, sealed, as a writer with a bug might leave it."""
    sizes = list(struct.unpack_from("<7Q", SMALL_BYTES, 32))
    metadata = msgpack.unpackb(SMALL_BYTES[HEADER_BYTES : HEADER_BYTES + sizes[1]])
    packed = msgpack.packb({name: value for name, value in (metadata | changed).items() if value is not ...})
    rest = SMALL_BYTES[HEADER_BYTES + -(-sizes[1] // 8) * 8 :]
    return _with_section(packed, rest)


def _with_section(packed: bytes, rest: bytes) -> bytes:
    sizes = list(struct.unpack_from("<7Q", SMALL_BYTES, 32))
    body = packed + bytes(-len(packed) % 8) + rest
    return sealed(
        SMALL_BYTES[:32] + struct.pack("<7Q", HEADER_BYTES + len(body), len(packed), *sizes[2:]) + body
    )


DEVICE = [1, 1, "h", 6200, "sda", 1.0, "", None]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": ...},
        {"name": 5},
        {"builder": b"short"},
        {"epoch": 0},
        {"epoch": 3},
        {"epoch": True},
        {"part_power": 33},
        {"part_power": -1},
        {"part_power": 3},
        {"replicas": 0.5},
        {"replicas": 3.0},
        {"replicas": 1e308},
        {"replicas": float("nan")},
        {"replicas": float("inf")},
        {"devices": None},
        {"devices": [[1, 2, 3]]},
        {"devices": [7]},
        {"devices": [[*DEVICE[:5], -1.0, *DEVICE[6:]]]},
        {"devices": [[*DEVICE[:5], float("inf"), *DEVICE[6:]]]},
        {"devices": [[*DEVICE[:5], 1e19, *DEVICE[6:]]]},
        {"devices": [[*DEVICE[:7], b"not sixteen"]]},
    ],
    ids=str,
)
def test_metadata_out_of_bounds_is_refused_even_under_a_right_checksum(changed: dict[str, object]) -> None:
    assert _with_metadata() == SMALL_BYTES, "what is changed below is one field"
    refusal(_with_metadata(**changed))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x81\xa4name\xa1\xff",
        b"\x90",
        b"\x81\x90\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\x80\x80",
    ],
    ids=[
        "nothing",
        "reserved",
        "not-utf-8",
        "array",
        "array-as-key",
        "huge-array",
        "huge-text",
        "deep",
        "two",
    ],
)
def test_metadata_that_is_no_map_is_refused(packed: bytes) -> None:
    rest = SMALL_BYTES[HEADER_BYTES + -(-struct.unpack_from("<Q", SMALL_BYTES, 40)[0] // 8) * 8 :]
    assert "has metadata that cannot be read" in refusal(_with_section(packed, rest))


@pytest.mark.parametrize(
    ("moving_partitions", "moving_rows", "cause"),
    [
        ([3, 1], [[0, 0]], "out of range or out of order"),
        ([1, 1], [[0, 0]], "out of range or out of order"),
        ([1, 4], [[0, 0]], "out of range or out of order"),
        ([1], [[NOBODY]], "without a previous owner"),
        ([1], [[NOBODY], [2]], "without a previous owner"),
        ([1], [], "do not fit"),
        ([1, 2], [[0]], "do not fit"),
        ([], [[0]], "do not fit"),
        ([1], [[1]], "names devices that are not in its table (1)"),
        ([1], [[5]], "names devices that are not in its table (5)"),
    ],
    ids=str,
)
def test_moves_that_cannot_be_are_not_written(
    moving_partitions: list[int], moving_rows: list[list[int]], cause: str
) -> None:
    described = replace(
        SMALL,
        moving_partitions=array("I", moving_partitions),
        moving_rows=[array("I", row) for row in moving_rows],
    )
    with pytest.raises(RingError, match=r"^ring object-0, epoch 2, .*; nothing was written") as refused:
        encode_ring(described)
    assert cause in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": [array("I", [0, 2, 0, 1]), array("I", [2, 0])]},
        {"rows": [array("I", [0, 2, 0, NOBODY - 1]), array("I", [2, 0])]},
        {"rows": [array("I", [0, 2, 0]), array("I", [2, 0, 2])]},
        {"rows": [array("I", [0, 2, 0, 2])]},
        {"ancestors": b""},
        {"devices": [device(0), None, device(3)]},
        {"devices": [device(0), None, device(2, weight=-1)]},
        {"devices": [device(0), None, device(2, weight=float("nan"))]},
        {"replicas": 0.0},
        {"part_power": 40},
    ],
    ids=[
        "hole",
        "beyond",
        "short-row",
        "row-missing",
        "ancestors",
        "misplaced",
        "weight",
        "nan",
        "replicas",
        "power",
    ],
)
def test_fields_that_no_reader_would_accept_are_not_written(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    with pytest.raises(RingError, match="nothing was written"):
        write_ring(tmp_path / "x.ring", replace(SMALL, **changed))  # type: ignore[arg-type]  # wrong on purpose
    assert list(tmp_path.iterdir()) == []


# Fuzz


def use_all_of(ring: Ring) -> None:
    """Ask a ring everything; a slot that names no device is a RingFileError."""
    for number in range(min(ring.partition_count, 64)):
        with contextlib.suppress(RingFileError):
            assert len(ring.primaries(Partition(number))) >= int(ring.replicas)
            ring.previous_owners(Partition(number))
            list(ring.handoffs(Partition(number)))


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    refusal(data)
    refusal(SMALL_BYTES[:16] + data)
    refusal(sealed(SMALL_BYTES[:16] + data.ljust(64)))


@given(described=ring_fields(), data=st.data())
def test_a_damaged_file_with_a_right_checksum_is_refused_or_can_be_used(
    described: RingFields, data: st.DataObject
) -> None:
    damaged = bytearray(bytes(encode_ring(described)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        ring = decode_ring(sealed(bytes(damaged)), SEED, "the test's ring")
    except RingFileError:
        return
    use_all_of(ring)


@pytest.mark.parametrize("field", range(6))
@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 2**32 - 8])
def test_a_huge_length_costs_no_memory(field: int, length: int) -> None:
    sizes = list(struct.unpack_from("<7Q", SMALL_BYTES, 32))
    sizes[field] = length
    huge = sealed(SMALL_BYTES[:32] + struct.pack("<7Q", *sizes) + SMALL_BYTES[HEADER_BYTES:])
    tracemalloc.start()
    try:
        refusal(huge)
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024
    finally:
        tracemalloc.stop()


# Files


def test_an_empty_ring_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ring"
    path.touch()
    with pytest.raises(RingFileError, match=r"x\.ring is empty; copy it again"):
        load_ring(path, SEED)


def test_a_missing_ring_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RingFileError, match=r"x\.ring does not exist; write it from its builder, or fix the path"
    ):
        load_ring(tmp_path / "x.ring", SEED)


def test_a_directory_is_no_ring_file(tmp_path: Path) -> None:
    with pytest.raises(RingFileError, match="is not a regular file; name the ring file itself"):
        load_ring(tmp_path, SEED)


def test_a_pipe_is_no_ring_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.ring")
    with pytest.raises(RingFileError, match="is not a regular file"):
        load_ring(tmp_path / "x.ring", SEED)


def test_a_file_that_shrinks_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.ring"
    write_ring(path, SMALL)
    fstat = os.fstat

    def fstat_and_truncate(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        os.truncate(path, 100)
        return status

    monkeypatch.setattr("ring.file.os.fstat", fstat_and_truncate)
    with pytest.raises(RingFileError, match=r"x\.ring shrank while it was opened; copy it again"):
        load_ring(path, SEED)


def test_a_path_through_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RingFileError, match=r"cannot be read \(Not a directory\)"):
        load_ring(tmp_path / "file" / "x.ring", SEED)


def test_a_ring_that_is_replaced_stays_whole_for_those_who_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "x.ring"
    write_ring(path, SMALL)
    held = load_ring(path, SEED)
    write_ring(path, replace(SMALL, rows=[array("I", [2, 2, 2, 2]), array("I", [2, 2])]))
    assert [owner.id for owner in held.primaries(Partition(0))] == [0, 2]
    assert [owner.id for owner in load_ring(path, SEED).primaries(Partition(0))] == [2, 2]
    path.unlink()
    assert [owner.id for owner in held.primaries(Partition(3))] == [2]


def test_the_tables_stay_in_the_map(tmp_path: Path) -> None:
    path = tmp_path / "x.ring"
    write_ring(path, fields([device(0)], [[0] * 2**18]))
    tracemalloc.start()
    try:
        ring = load_ring(path, SEED)
        assert len(ring.rows[0]) == 2**18
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024, "the row alone has a megabyte"
    finally:
        tracemalloc.stop()


def test_a_file_is_synced_before_it_is_renamed_and_its_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.replace

    def fsync_and_tell(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("sync directory" if target == tmp_path else f"sync {target.suffix}")
        fsync(descriptor)

    def rename_and_tell(source: Path, target: Path) -> None:
        steps.append(f"rename {Path(source).suffix} to {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync_and_tell)
    monkeypatch.setattr(os, "replace", rename_and_tell)
    write_ring(tmp_path / "x.ring", SMALL)
    assert steps == ["sync .tmp", "rename .tmp to x.ring", "sync directory"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.ring"
    write_ring(path, SMALL)

    def pieces() -> Iterator[bytes]:
        yield b"half of a ring"
        raise OSError(28, "No space left on device")

    with pytest.raises(
        RingError, match=r"x\.ring could not be written \(No space left on device\); make room"
    ):
        replace_file(path, pieces())
    assert path.read_bytes() == SMALL_BYTES
    assert [found.name for found in tmp_path.iterdir()] == ["x.ring"], "nothing is left beside it"


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half of a ring"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "x.ring", pieces())
    assert list(tmp_path.iterdir()) == []


def test_a_ring_is_not_written_over_a_directory_nor_into_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "taken", tmp_path / "missing" / "x.ring"):
        with pytest.raises(RingError, match="could not be written"):
            write_ring(path, SMALL)
    assert [found.name for found in tmp_path.iterdir()] == ["taken"]
