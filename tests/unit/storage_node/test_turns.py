"""Whose turn it is: one owner is first at each path, all have their turn, and the work is shared."""

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from ring.device import Partition
from ring.hashing import HASH_BITS, path_hash
from storage_node.turns import turn, turns_of
from tests.simulation.quorum_cluster import next_ring, ring_fields
from tests.unit.ring.rings import SEED, ring_of

UUIDS = [UUID(int=number + 1) for number in range(6)]


@given(st.integers(1, 5), st.integers(0, 2**HASH_BITS - 1))
def test_the_owners_of_a_path_take_all_turns_and_nobody_else_has_one(owners: int, hashed: int) -> None:
    ring = ring_of(ring_fields(range(owners), 6))
    turns = [turn(ring, uuid, hashed) for uuid in UUIDS]
    assert sorted(one for one in turns if one is not None) == list(range(owners))
    assert turns[owners:] == [None] * (6 - owners)


def test_the_paths_of_one_partition_are_shared_evenly() -> None:
    ring = ring_of(ring_fields(range(3), 3))
    first = Counter(
        number
        for path in range(3000)
        for number, uuid in enumerate(UUIDS[:3])
        if turn(ring, uuid, path_hash(b"a\0c\0%d" % path, SEED)) == 0
    )
    assert all(900 < count < 1100 for count in first.values())


def test_while_a_partition_moves_its_owners_of_old_take_turns() -> None:
    ring = ring_of(ring_fields(range(3), 6))
    moving = next_ring(ring, ring_fields([3, 4, 5], 6, moving={0: [0, 1, 2]}))
    turn_of = [turns_of(lambda table: moving, uuid) for uuid in UUIDS]
    assert moving.previous_owners(Partition(0))
    turns = [each(b"o\0", 12345) for each in turn_of]
    assert turns[3:] == [None, None, None]
    assert set(turns[:3]) == {0, 1, 2}
