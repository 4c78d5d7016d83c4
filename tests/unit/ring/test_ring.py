"""What a ring answers: partitions, primaries, previous owners, and how it is related to other rings."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.device import Partition
from ring.errors import RingFileError
from ring.file import RingFields, encode_ring
from ring.hashing import path_hash
from ring.ring import NOBODY, Kinship, Ring, ids_in
from swiftlike.names import path_of
from tests.unit.ring.rings import SEED, device, fields, ring_fields, ring_of, successor_of

FOUR = [device(0), device(1), None, device(3), device(4)]
ROWS = [[0, 1, 3, 4], [1, 3, 4, 0], [3, 4]]


def test_primaries_come_in_replica_order_and_the_first_partitions_have_the_extra_replica() -> None:
    ring = ring_of(fields(FOUR, ROWS))
    owners = [[owner.id for owner in ring.primaries(Partition(number))] for number in range(4)]
    assert owners == [[0, 1, 3], [1, 3, 4], [3, 4], [4, 0]]
    assert (ring.replicas, ring.partition_count) == (2.5, 4)


@pytest.mark.parametrize("number", [-1, 4, 2**32])
def test_a_partition_of_another_ring_is_our_own_mistake(number: int) -> None:
    with pytest.raises(AssertionError):
        ring_of(fields(FOUR, ROWS)).primaries(Partition(number))


def test_a_ring_that_is_settled_has_no_previous_owners() -> None:
    ring = ring_of(fields(FOUR, ROWS))
    assert not ring.is_moving
    assert [ring.previous_owners(Partition(number)) for number in range(4)] == [()] * 4


def test_a_moving_partition_names_its_whole_previous_owner_set() -> None:
    ring = ring_of(fields(FOUR, ROWS, moving={3: [4, 1, 0], 1: [0]}))
    assert ring.is_moving
    assert [[owner.id for owner in ring.previous_owners(Partition(number))] for number in range(4)] == [
        [],
        [0],
        [],
        [4, 1, 0],
    ]


@given(ring_fields())
def test_previous_owners_are_those_of_the_moving_table_and_of_nobody_else(described: RingFields) -> None:
    ring = ring_of(described)
    columns = zip(*ring.moving_rows, strict=True) if ring.is_moving else ()
    expected = {
        number: [owner for owner in column if owner != NOBODY]
        for number, column in zip(ring.moving_partitions, columns, strict=True)
    }
    for number in range(ring.partition_count):
        assert [owner.id for owner in ring.previous_owners(Partition(number))] == expected.get(number, [])


@given(ring_fields(part_power_max=6), st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_a_name_falls_into_the_partition_of_the_top_bits_of_its_path_hash(
    described: RingFields, parts: list[bytes]
) -> None:
    ring = ring_of(described)
    assert ring.partition_of(*parts) == path_hash(path_of(*parts), SEED) >> (128 - described.part_power)
    assert len(ring.primaries(ring.partition_of(*parts))) in {int(ring.replicas), len(ring.rows)}


def test_a_ring_cannot_be_changed() -> None:
    ring = ring_of(fields(FOUR, ROWS))
    with pytest.raises(FrozenInstanceError):
        ring.epoch = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="read-only"):
        ring.rows[0][0] = 1


def test_a_slot_that_names_no_device_is_refused_when_it_is_met() -> None:
    # A builder with a bug: `encode_ring` would have refused this, so the table is taken away afterwards.
    ring = ring_of(fields(FOUR, ROWS, moving={2: [1]}))
    holed = replace(ring, devices=(*ring.devices[:1], None, *ring.devices[2:]))
    with pytest.raises(
        RingFileError, match=r"ring object-0, epoch 1, gives partition 0 to device 1, .* write the ring"
    ):
        holed.primaries(Partition(0))
    with pytest.raises(RingFileError, match="gives partition 2 to device 1"):
        holed.previous_owners(Partition(2))
    assert [owner.id for owner in holed.primaries(Partition(2))] == [3, 4]


def test_the_ids_of_a_table_are_those_of_somebody() -> None:
    ring = ring_of(fields(FOUR, ROWS, moving={0: [4], 1: [0, 1]}))
    assert ids_in(ring.moving_rows) == {0, 1, 4}
    assert ids_in(ring.rows) == {0, 1, 3, 4}


def _epochs() -> tuple[RingFields, list[Ring]]:
    described = fields(FOUR, ROWS)
    rings = [ring_of(described)]
    for _ in range(3):
        rings.append(ring_of(successor_of(rings[-1], described)))
    return described, rings


def test_every_later_epoch_descends_from_every_earlier_one() -> None:
    _, rings = _epochs()
    for older in rings:
        for newer in rings:
            assert newer.descends_from(older) == (newer.epoch > older.epoch)
    assert rings[3].ancestor_checksum(2) == rings[1].checksum


def test_kinship_tells_the_same_from_later_earlier_and_foreign_rings() -> None:
    described, rings = _epochs()
    changed = replace(described, rows=described.rows[:2], replicas=2.0)
    other_second = ring_of(successor_of(rings[0], changed))
    other_third = ring_of(successor_of(other_second, described))
    assert rings[1].kinship(ring_of(successor_of(rings[0], described))) is Kinship.SAME
    assert rings[1].kinship(rings[3]) is Kinship.DESCENDANT
    assert rings[3].kinship(rings[1]) is Kinship.ANCESTOR
    assert rings[1].kinship(other_second) is Kinship.STRANGER, "an equal epoch with other content"
    assert rings[1].kinship(other_third) is Kinship.STRANGER, "a later epoch of another line"
    assert rings[3].kinship(other_second) is Kinship.STRANGER, "an earlier epoch of another line"
    assert rings[0].kinship(other_third) is Kinship.DESCENDANT


def test_rings_are_equal_when_their_contents_are() -> None:
    described = fields(FOUR, ROWS)
    first, again = ring_of(described), ring_of(described)
    assert first == again
    assert hash(first) == hash(again)
    assert first.checksum == encode_ring(described).checksum
    assert first != ring_of(replace(described, name="object-1"))
    assert first != replace(first, hash_seed=SEED + 1), "it places names elsewhere"


def test_the_seed_of_the_cluster_is_not_shown() -> None:
    assert str(SEED) not in repr(ring_of(fields(FOUR, ROWS)))
