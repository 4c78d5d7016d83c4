"""A raised part power changes what partitions are called, and nothing of what a device holds, says or agrees to."""

import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.hashing import PART_POWER_MAX
from storage_node import powers
from storage_node.device import Device
from storage_node.errors import DeviceRefused, IndexDamaged
from storage_node.formatting import format_device
from storage_node.keys import BUCKET_BITS, CONTAINERS, Key, Layout, bucket_of
from storage_node.maintenance import SetStanding
from storage_node.operations import Accept
from swiftlike.digests import digest_of
from swiftlike.entries import Entry
from swiftlike.node_calls import Standing
from tests.engine.conftest import SETTINGS
from tests.engine.samples import LAYOUT, NOW_US, OBJECTS, delete, object_key, put

CHILD_OF_THREE = Standing(votes=True, floor_us=7, refusing_us=9)


def opened_at(root: Path, power: int) -> Device:
    """Open a device whose ring of objects has a part power; it is not started."""
    layout = Layout(LAYOUT.seed, {OBJECTS: power, CONTAINERS: 4})
    return Device(root, layout, lambda: NOW_US, settings=SETTINGS)


def accept(device: Device, key: Key, entry: Entry) -> None:
    """Let a device accept an entry, as one that votes."""
    ((answer, error),) = device.commit([Accept(key, entry, None, False, False, oldest_us=0)])
    assert error is None
    assert answer.accepted
    assert answer.votes


def set_standings(device: Device, standings: dict[int, Standing]) -> None:
    """Let partitions of the objects stand for something."""
    for partition, standing in standings.items():
        ((_, error),) = device.commit([SetStanding(OBJECTS, partition, Standing(), standing)])
        assert error is None


def assert_covers(device: Device, bits: int, held: dict[bytes, Entry]) -> None:
    """Hold every digest and every enumeration of so many bits against what was put in."""
    spans: dict[int, dict[bytes, Entry]] = {}
    for path, entry in held.items():
        spans.setdefault(LAYOUT.hashed(path) >> (128 - bits), {})[path] = entry
    for number, inside in spans.items():
        assert device.digests(OBJECTS, bits, number, number + 1) == [digest_of(inside.items())]
        found: list[bytes] = []
        while page := device.registers(OBJECTS, bits, number, found[-1] if found else b"", 2):
            found += [key.path for key, _ in page]
        assert len(found) == len(set(found))
        assert set(found) == inside.keys()
    first = min(spans, default=0)
    several = device.digests(OBJECTS, bits, first, min(first + 5, 1 << bits))
    assert several == [
        digest_of(spans.get(first + at, {}).items()) for at in range(min(5, (1 << bits) - first))
    ]


def assert_partitions(device: Device, power: int, held: dict[bytes, Entry]) -> None:
    """Hold the digests that are kept for partitions against what was put in, each asked for by itself and all at once."""
    inside: dict[int, dict[bytes, Entry]] = {}
    for path, entry in held.items():
        inside.setdefault(LAYOUT.hashed(path) >> (128 - power), {})[path] = entry
    expected = {number: digest_of(entries.items()) for number, entries in inside.items()}
    assert device.partition_digests(OBJECTS, list(expected)) == expected
    assert {number: device.partition_digest(OBJECTS, number) for number in expected} == expected


@settings(max_examples=20, deadline=None)
@given(
    first=st.integers(0, BUCKET_BITS + 2),
    raises=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    names=st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=4, max_size=40),
    other_bits=st.integers(0, PART_POWER_MAX),
)
def test_digests_and_enumerations_stay_those_of_the_entries_while_the_part_power_grows(
    first: int, raises: list[int], names: list[tuple[int, bool]], other_bits: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        format_device(root, map_bytes=SETTINGS.index_map_bytes)
        held: dict[bytes, Entry] = {}
        power, rest, serial = first, list(names), 0
        for raised in (0, *raises):
            power = min(power + raised, PART_POWER_MAX)
            device = opened_at(root, power)
            if not held:
                touched = {
                    LAYOUT.hashed(object_key(str(number)).path) >> (128 - power) for number, _ in names
                }
                set_standings(device, {partition: Standing(votes=True) for partition in touched})
            some, rest = rest[: len(names) // 2], rest[len(names) // 2 :]
            for number, deleted in some:
                key, serial = object_key(str(number)), serial + 1
                held[key.path] = delete(serial) if deleted else put(serial)
                accept(device, key, held[key.path])
            for bits in {power, BUCKET_BITS, other_bits}:
                assert_covers(device, bits, held)
            assert_partitions(device, power, held)
            device.close_now()


@pytest.mark.parametrize("generations", [1, 3])
def test_each_child_of_a_partition_inherits_what_its_parent_stood_for(root: Path, generations: int) -> None:
    device = opened_at(root, 4)
    set_standings(device, {3: CHILD_OF_THREE, 5: Standing(votes=False, floor_us=8)})
    device.close_now()
    for _ in range(2):  # what was carried over once is not carried again
        device = opened_at(root, 4 + generations)
        stands = [device.standing(OBJECTS, number) for number in range(16 << generations)]
        device.close_now()
        expected = {3: CHILD_OF_THREE, 5: Standing(votes=False, floor_us=8)}
        assert stands == [expected.get(number >> generations, Standing()) for number in range(len(stands))]


def test_a_vote_that_was_taken_away_is_not_granted_again_under_a_higher_power(root: Path) -> None:
    device = opened_at(root, 4)
    set_standings(device, {3: Standing(votes=False)})
    device.close_now()
    device = opened_at(root, 5)
    with device._index.reading() as view:
        assert view.get(b"f\1") is not None, "first votes may still be granted elsewhere"
    assert device.standing(OBJECTS, 6) == Standing(votes=False)
    device.close_now()


def test_a_conversion_that_was_interrupted_goes_on_at_the_next_start(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = opened_at(root, 4)
    set_standings(device, dict.fromkeys(range(16), CHILD_OF_THREE))
    device.close_now()
    monkeypatch.setattr(powers, "STANDINGS_MOVED_MAX", 4)
    carry, steps = powers._carry_some, []

    def interrupted(*arguments: object) -> int:
        steps.append(arguments)
        if len(steps) == 4:
            raise OSError("power is lost")
        return carry(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(powers, "_carry_some", interrupted)
    with pytest.raises(OSError, match="power is lost"):
        opened_at(root, 5)
    with caplog.at_level(logging.INFO):
        device = opened_at(root, 5)
    assert "10 partitions were divided" in caplog.text, "six were before"
    assert {device.standing(OBJECTS, number) for number in range(32)} == {CHILD_OF_THREE}
    device.close_now()


def test_digests_of_partitions_that_an_older_release_did_not_keep_are_counted_once(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    device = opened_at(root, 4)
    held = {object_key(str(number)).path: put(number) for number in range(40)}
    set_standings(device, {partition: Standing(votes=True) for partition in range(16)})
    for path, entry in held.items():
        accept(device, Key(OBJECTS, path), entry)
    view = device._index.begin()
    for key, _ in list(view.scan(b"p", b"q")):
        view.delete(key)
    view.commit()
    device.close_now()
    with caplog.at_level(logging.INFO):
        device = opened_at(root, 4)
    assert "the digests of the partitions of 3 tables were counted" in caplog.text
    assert_partitions(device, 4, held)
    device.close_now()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        opened_at(root, 4).close_now()
    assert not caplog.text


def test_a_part_power_that_sank_is_refused_and_nothing_is_changed(root: Path) -> None:
    device = opened_at(root, 5)
    set_standings(device, {3: CHILD_OF_THREE})
    device.close_now()
    with pytest.raises(DeviceRefused, match=r"part power 4, .* has known 5: a part power never sinks"):
        opened_at(root, 4)
    device = opened_at(root, 5)
    assert device.standing(OBJECTS, 3) == CHILD_OF_THREE
    device.close_now()


def test_a_digest_that_is_not_one_of_a_bucket_is_refused_by_name(root: Path) -> None:
    device = opened_at(root, 4)
    key, entry = object_key("one"), put(1)
    partition = LAYOUT.hashed(key.path) >> 124
    set_standings(device, {partition: Standing(votes=True)})
    accept(device, key, entry)
    view = device._index.begin()
    head_key = OBJECTS + bucket_of(LAYOUT.hashed(key.path))
    view.put(head_key, 2 * digest_of([(key.path, entry)]).encode())
    view.commit()
    with pytest.raises(IndexDamaged, match=f"partition {head_key.hex()} has 48 bytes; run rebuild-index"):
        device.digests(OBJECTS, 4, partition, partition + 1)
    device.close_now()
