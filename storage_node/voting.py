"""First votes: the partitions on which a device votes from the first, without having caught up with anybody.

Pure. Owns the decision that follows from a ring; whether the index is still the one that was formatted, and whether
the partition ever had a standing, is for the transaction that grants the vote (`maintenance.GrantFirstVotes`).
"""

from collections.abc import Sequence
from uuid import UUID

from ring.device import Partition
from ring.ring import Ring


def founding_partitions(ring: Ring, uuid: UUID) -> Sequence[int]:
    """Return the partitions that never had other owners and that the device with this uuid owns.

    A device that the ring names without a uuid is nobody yet, and owns none of them.
    """
    if not ring.founding:
        return ()
    ids = {device.id for device in ring.devices if device is not None and device.uuid == uuid}
    owned = {number for row in ring.rows for number, device in enumerate(row) if device in ids}
    return [number for number in sorted(owned) if ring.is_founding(Partition(number))]
