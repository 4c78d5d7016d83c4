"""The builder file: round trips, refusals, and the history that undo needs."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.builder import RingBuilder
from ring.builder.file import (
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
from ring.device import Device, DeviceId
from ring.errors import BuilderError, RingFileError
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
