"""Turns: which of the owners of a path does for all of them what any one could do.

Pure. All owners hold the same due time, the same deleted account; were they all to act on it at once, each would be in the
others' way. So each path has an order of its owners, another one for each path, in which they take their turns: the first at
once, the next only where that one did not.
"""

from collections.abc import Callable
from uuid import UUID

from ring.device import Partition
from ring.hashing import HASH_BITS
from ring.ring import Ring

Turn = Callable[[bytes, int], int | None]
"""Given a table and a path hash: 0 for whoever is first, and so on; None for a device that is no owner."""


def turn(ring: Ring, uuid: UUID, hashed: int) -> int | None:
    """Return the turn of the device with this uuid at a path, given its hash.

    Of a partition that moves, the owners of old take turns: they are certain to hold what there is.
    """
    partition = Partition(hashed >> (HASH_BITS - ring.part_power))
    owners = [device.uuid for device in ring.previous_owners(partition) or ring.primaries(partition)]
    if uuid not in owners:
        return None
    return (owners.index(uuid) - hashed) % len(owners)


def turns_of(ring_of: Callable[[bytes], Ring], uuid: UUID) -> Turn:
    """Return the turns of a device under whatever rings are in use."""
    return lambda table, hashed: turn(ring_of(table), uuid, hashed)
