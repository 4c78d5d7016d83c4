"""First votes: whom a ring lets vote without having caught up."""

from dataclasses import replace
from uuid import UUID

from hypothesis import given

from ring.device import Partition
from ring.file import RingFields
from storage_node.voting import founding_partitions
from tests.unit.ring.rings import device, fields, ring_fields, ring_of

OURS, THEIRS = UUID(int=1), UUID(int=2)
ROWS = [[0, 1, 0, 1], [1, 2, 2, 2]]


def described(*uuids: UUID | None, founding: bytes = b"\x0f") -> RingFields:
    devices = [replace(device(number), uuid=uuid) for number, uuid in enumerate(uuids)]
    return replace(fields(devices, ROWS), founding=founding)


def test_an_owner_votes_at_once_on_founding_partitions_that_it_owns_and_on_no_others() -> None:
    for founding, expected in ((b"\x0f", [0, 2]), (b"\x0e", [2]), (b"\x0a", []), (b"", [])):
        ring = ring_of(described(OURS, THEIRS, UUID(int=3), founding=founding))
        assert list(founding_partitions(ring, OURS)) == expected


def test_a_device_that_the_ring_names_without_a_uuid_votes_on_nothing() -> None:
    assert not founding_partitions(ring_of(described(None, THEIRS, None)), OURS)


@given(ring_fields())
def test_who_votes_at_once_is_a_primary_under_this_uuid_of_a_founding_partition(some: RingFields) -> None:
    ring = ring_of(some)
    for uuid in {there.uuid for there in ring.devices if there is not None and there.uuid is not None}:
        found = set(founding_partitions(ring, uuid))
        for number in map(Partition, range(ring.partition_count)):
            owned = any(owner.uuid == uuid for owner in ring.primaries(number))
            assert (number in found) == (owned and ring.is_founding(number))
