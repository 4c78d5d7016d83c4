"""The builder file: round trips, refusals, and the history that undo needs."""

import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from ring.builder import RingBuilder
from ring.builder import file as builder_file
from ring.builder.file import (
    BUILDER_BYTES_MAX,
    HEADER,
    HISTORY_STATES_MAX,
    MAGIC,
    decode_builder,
    encode_builder,
    load_builder,
    previous_state,
    save_builder,
    save_undone,
)
from ring.builder.report import balance, validate
from ring.device import Device, DeviceId
from ring.errors import BuilderError, RingError, RingFileError
from ring.file import replace_file
from ring.ring import NOBODY
from tests.unit.ring.clusters import builders


def small() -> RingBuilder:
    builder = RingBuilder(UUID(int=1), "object-0", 3, 2.5, 1)
    for number in range(4):
        builder.add(
            Device(
                DeviceId(number), 1, number, "10.0.0.1", 6200, f"sd{number}", 1.0, "a meta", UUID(int=number)
            )
        )
    builder.rebalance(1000)
    return builder


def same(one: RingBuilder, other: RingBuilder) -> bool:
    return b"".join(encode_builder(one)) == b"".join(encode_builder(other))


@given(builders(), st.booleans(), st.booleans())
def test_what_is_saved_is_loaded(builder: RingBuilder, with_ring: bool, moving: bool) -> None:
    if with_ring:
        builder.rebalance(1000)
        if moving:
            builder.add(Device(builder.next_id(), 9, 9, "10.9.9.9", 6200, "sda", 5.0))
            builder.rebalance(2000)
    loaded = decode_builder(b"".join(encode_builder(builder)), "it")
    assert loaded.devices == builder.devices
    assert loaded.removed == builder.removed
    assert (loaded.lineage, loaded.replicas, loaded.overload) == (
        builder.lineage,
        builder.replicas,
        builder.overload,
    )
    for table in ("owners", "moving_partitions", "moving_rows", "moved_at_s"):
        assert np.array_equal(getattr(loaded, table), getattr(builder, table)), table
    if with_ring:
        assert loaded.publish().checksum == builder.publish().checksum


@given(st.data())
def test_any_flipped_byte_or_truncation_is_refused(data: st.DataObject) -> None:
    encoded = b"".join(encode_builder(small()))
    at = data.draw(st.integers(0, len(encoded) - 1).filter(lambda at: not 12 <= at < 16))
    flipped = bytearray(encoded)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(flipped), encoded[:at]):
        with pytest.raises(RingFileError, match="the file"):
            decode_builder(broken, "the file")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "is not a builder file", id="empty"),
        pytest.param(b"\x89SLRING\n" + bytes(100), "is not a builder file; name a file", id="a ring file"),
        pytest.param(MAGIC, "is truncated", id="header cut"),
        pytest.param(HEADER.pack(MAGIC, 2, 0, bytes(16)), "version 2 .* upgrade", id="newer"),
    ],
)
def test_a_foreign_or_newer_file_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "object-0.builder"
    path.write_bytes(content)
    with pytest.raises(RingFileError, match=sentence):
        load_builder(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RingFileError, match="does not exist; create it"):
        load_builder(tmp_path / "none")
    with pytest.raises(RingFileError, match="cannot be read"):
        load_builder(tmp_path)


def test_a_pipe_in_the_place_of_a_builder_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RingFileError, match="is not a regular file; name the builder file itself"):
        load_builder(tmp_path / "pipe")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "object-0.builder"
    path.write_bytes(b"".join(encode_builder(small())))
    os.truncate(path, BUILDER_BYTES_MAX + 1)
    with pytest.raises(RingFileError, match=f"none is larger than {BUILDER_BYTES_MAX}"):
        load_builder(path)


# A file whose checksum is right and whose content is not


def sealed(fields: object) -> bytes:
    """A builder file of any content."""
    body: bytes = msgpack.packb(fields)
    return HEADER.pack(MAGIC, 1, 0, xxhash.xxh3_128_digest(body)) + body


def fields_of(builder: RingBuilder) -> dict[str, Any]:
    fields: dict[str, Any] = msgpack.unpackb(b"".join(encode_builder(builder))[HEADER.size :])
    return fields


def moving() -> RingBuilder:
    builder = small()
    builder.add(Device(builder.next_id(), 9, 9, "10.9.9.9", 6200, "sda", 5.0))
    builder.rebalance(2000)
    assert builder.is_moving
    return builder


def slots(*ids: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in ids)


DEVICE = [1, 0, "10.0.0.1", 6200, "sdz", 1.0, "", None]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        pytest.param({"id": b"short"}, "not a 16-char string", id="id"),
        pytest.param({"name": 5}, "int where str belongs", id="name"),
        pytest.param({"part_power": True}, "bool where int belongs", id="part power's type"),
        pytest.param({"part_power": 33}, "33 where 0 to 32 belongs", id="part power"),
        pytest.param({"part_power": 32}, "which are not", id="a part power that its tables do not have"),
        pytest.param({"replicas": 1e9}, "1000000000.0 where 1 to 256 belongs", id="replicas"),
        pytest.param({"replicas": float("nan")}, "nan where 1 to 256 belongs", id="replicas no number"),
        pytest.param({"min_part_hours": -1.0}, "-1.0 where 0 to", id="hours"),
        pytest.param({"seed": -1}, "-1 where 0 to", id="seed"),
        pytest.param({"overload": float("inf")}, "inf where 0 to", id="overload"),
        pytest.param({"lineage": bytes(15)}, "a lineage of 15 bytes", id="lineage"),
        pytest.param({"lineage": b""}, "which are not", id="a ring without a lineage"),
        pytest.param({"removed": [77]}, "77 where 0 to 4 belongs", id="a removed device that never was"),
        pytest.param({"removed": 5}, "int where list belongs", id="removed"),
        pytest.param({"devices": {}}, "dict where list belongs", id="devices"),
        pytest.param({"devices": [DEVICE[:-1]]}, "not enough values", id="a device cut short"),
        pytest.param({"devices": [[1, 0, "a", "6200", *DEVICE[4:]]]}, "str where int", id="a port's type"),
        pytest.param({"devices": [[1, 0, "a", 99999, *DEVICE[4:]]]}, "port 99999 is not", id="a port"),
        pytest.param({"devices": [[-1, *DEVICE[1:]]]}, "region -1, zone 0", id="a region"),
        pytest.param({"devices": [[1, 0, "a\n", *DEVICE[3:]]]}, "cannot be printed", id="a host"),
        pytest.param({"devices": [[*DEVICE[:4], "../x", *DEVICE[5:]]]}, "no slash", id="a device's name"),
        pytest.param({"devices": [[*DEVICE[:5], -1.0, "", None]]}, "-1.0 where", id="a weight"),
        pytest.param({"devices": [DEVICE, DEVICE]}, "is in the ring already", id="a device twice"),
        pytest.param({"owners": [1 << 40, b""]}, "where 0 to 256 belongs", id="rows without end"),
        pytest.param({"owners": [3, bytes(4)]}, "a table of 4 bytes, which are not 3 rows of 8", id="owners"),
        pytest.param({"owners": [-1, b""]}, "-1 where 0 to", id="fewer than no rows"),
        pytest.param({"owners": [0, b""]}, "0 rows of owners at epoch 2", id="no owners"),
        pytest.param({"owners": [1, slots(*[9] * 8)]}, "d9 owns partitions and is no device", id="owner"),
        pytest.param({"moved_at_s": [1, bytes(4)]}, "1 rows of 8", id="moved_at_s"),
        pytest.param({"moving_partitions": [1, slots(3, 2)]}, "which are not", id="previous owners' number"),
        pytest.param(
            {"moving_partitions": [1, slots(8)], "moving_rows": [1, slots(0)]}, "out of range", id="moving"
        ),
        pytest.param(
            {"moving_partitions": [1, slots(3, 2)], "moving_rows": [1, slots(0, 0)]}, "order", id="order"
        ),
        pytest.param(
            {"moving_partitions": [1, slots(3)], "moving_rows": [1, slots(NOBODY)]},
            "no previous owner",
            id="nobody moves",
        ),
        pytest.param(
            {"moving_partitions": [1, slots(3)], "moving_rows": [1, slots(9)]}, "d9 owns", id="previous owner"
        ),
        pytest.param({"founding": b""}, "0 bytes of founding bits", id="founding"),
    ],
)
def test_a_field_that_cannot_be_is_refused_though_the_checksum_is_right(
    change: dict[str, Any], cause: str
) -> None:
    with pytest.raises(RingFileError, match=f"^the file is corrupted .*{cause}.*; bring back a copy of it$"):
        decode_builder(sealed({**fields_of(moving()), **change}), "the file")


@pytest.mark.parametrize("content", [None, 5, [], "x", {}, {b"id": 1}, {"id": bytes(16)}])
def test_content_that_is_no_builder_is_refused_though_the_checksum_is_right(content: object) -> None:
    with pytest.raises(RingFileError, match=r"^the file is corrupted "):
        decode_builder(sealed(content), "the file")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.data())
def test_whatever_stands_in_a_field_is_refused_or_can_be_worked_with(data: st.DataObject) -> None:
    fields = fields_of(moving())
    name = data.draw(st.sampled_from(sorted(fields)))
    try:
        builder = decode_builder(sealed({**fields, name: data.draw(ANYTHING)}), "the file")
    except RingFileError:
        return
    validate(builder)
    balance(builder)
    assert decode_builder(b"".join(encode_builder(builder)), "the file").devices == builder.devices


# The history


def test_the_last_ten_states_can_be_returned_to_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "object-0.builder"
    builder = small()
    for weight in range(1, 15):
        builder.update(replace(builder.device(0), weight=float(weight)))
        save_builder(path, builder)
    seen = []
    for _ in range(HISTORY_STATES_MAX):
        earlier = previous_state(path)
        seen.append(earlier.device(0).weight)
        current = load_builder(path)
        current.undo_to(earlier, 5000)
        save_undone(path, current)
        assert load_builder(path).device(0).weight == seen[-1]
    assert seen == [13, 12, 11, 10, 9, 8, 7, 6, 5, 4]
    with pytest.raises(BuilderError, match="no earlier state"):
        previous_state(path)


def test_a_state_that_is_not_to_be_remembered_replaces_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "object-0.builder"
    builder = small()
    save_builder(path, builder)
    save_builder(path, builder, remember=False)
    with pytest.raises(BuilderError, match="no earlier state"):
        previous_state(path)
    assert same(load_builder(path), builder)


def states(path: Path) -> list[str]:
    return sorted(state.name for state in path.with_name(path.name + ".history").iterdir())


def saved(path: Path, weights: Iterable[float]) -> RingBuilder:
    """Save a builder once for each weight of its first device."""
    builder = small()
    for weight in weights:
        builder.update(replace(builder.device(0), weight=float(weight)))
        save_builder(path, builder)
    return builder


def full_disk(*_: object) -> None:
    raise RingError("object-0.builder could not be written (No space left on device); make room")


def test_a_save_that_fails_leaves_file_and_history_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "object-0.builder"
    builder = saved(path, range(1, HISTORY_STATES_MAX + 2))
    before = states(path)
    assert len(before) == HISTORY_STATES_MAX
    builder.update(replace(builder.device(0), weight=77.0))
    with monkeypatch.context() as patch:
        patch.setattr(builder_file, "replace_file", full_disk)
        for _ in range(2):
            with pytest.raises(RingError, match="No space left"):
                save_builder(path, builder)
    assert states(path) == before
    assert load_builder(path).device(0).weight == HISTORY_STATES_MAX + 1
    assert previous_state(path).device(0).weight == HISTORY_STATES_MAX


def test_a_state_that_a_crash_left_behind_is_no_change_to_undo(tmp_path: Path) -> None:
    path = tmp_path / "object-0.builder"
    saved(path, [1, 2])
    os.link(path, tmp_path / "object-0.builder.history" / "000002")  # and here the process was killed
    assert previous_state(path).device(0).weight == 1
    builder = load_builder(path)
    builder.update(replace(builder.device(0), weight=3.0))
    save_builder(path, builder)
    assert states(path) == ["000001", "000002"]
    assert previous_state(path).device(0).weight == 2


def test_a_file_system_without_hard_links_keeps_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path = tmp_path / "object-0.builder"
    monkeypatch.setattr(os, "link", link)
    saved(path, [1, 2, 3])
    assert states(path) == ["000001", "000002"]
    assert previous_state(path).device(0).weight == 2
    assert (tmp_path / "object-0.builder.history" / "000002").stat().st_nlink == 1


@pytest.mark.parametrize("linking", [True, False], ids=["links", "copies"])
def test_a_state_is_synced_before_the_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linking: bool
) -> None:
    path = tmp_path / "object-0.builder"
    saved(path, [1, 2])
    builder, history, done = load_builder(path), tmp_path / "object-0.builder.history", []

    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def replacing(target: Path, pieces: Iterable[bytes]) -> None:
        done.append(f"replace {target.name}")
        replace_file(target, pieces)

    monkeypatch.setattr(builder_file, "replace_file", replacing)
    monkeypatch.setattr(builder_file, "sync_directory", lambda target: done.append(f"sync {target.name}"))
    if not linking:
        monkeypatch.setattr(os, "link", link)
    builder.update(replace(builder.device(0), weight=3.0))
    save_builder(path, builder)
    copied = [] if linking else ["replace 000002"]
    assert done == [*copied, f"sync {history.name}", "replace object-0.builder"]
