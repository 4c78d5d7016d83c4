"""The ring: the immutable table from names to partitions to devices.

Owns look-up, and the judgement of how two rings are related. Never opens a file, never reads a clock,
never changes: a watcher swaps one ring for the next, and a builder makes them.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from uuid import UUID

from ring.device import Device, Partition
from ring.errors import RingFileError
from ring.handoffs import HandoffOrder
from ring.hashing import HASH_BITS, path_hash
from swiftlike.names import path_of

NOBODY: Final = 2**32 - 1
"""In a row of previous owners: this partition had fewer of them than the widest one has."""

CHECKSUM_BYTES: Final = 16

_set = object.__setattr__  # how a frozen value fills in what it derives from its own fields


class Kinship(Enum):
    """What another ring is to this one."""

    SAME = "the same ring"
    DESCENDANT = "a later epoch of this ring"
    ANCESTOR = "an earlier epoch of this ring"
    STRANGER = "not of this ring's line"


@dataclass(frozen=True, slots=True)
class Ring:
    """One epoch of one ring. Two rings are equal when their contents and the cluster's seed are.

    The tables are views of 32-bit numbers, as a rule straight into the ring file's memory map, so that all
    processes of a host share one copy. Their shapes were checked when the file was loaded; that each number
    names a device is checked as it is used, because reading millions of slots would dominate the start.
    """

    checksum: bytes
    """Of the whole file; names this content in the ancestors of later epochs."""
    hash_seed: int = field(repr=False)
    """The cluster's secret, 64 bits; not part of the file."""
    name: str = field(compare=False)
    """Which of the cluster's rings this is: `account`, `container`, `object-0`."""
    builder_id: UUID = field(compare=False)
    epoch: int = field(compare=False)
    part_power: int = field(compare=False)
    replicas: float = field(compare=False)
    """Copies of each partition; 3.25 means that a quarter of the partitions has a fourth."""
    devices: tuple[Device | None, ...] = field(compare=False, repr=False)
    """Indexed by device id; None is a hole. A device that previous owners name is no hole, though it was removed."""
    rows: tuple[memoryview, ...] = field(compare=False, repr=False)
    """One row of device ids per replica, indexed by partition; the last may stop early (fractional replicas)."""
    moving_partitions: memoryview = field(compare=False, repr=False)
    """The partitions that are moving, ascending."""
    moving_rows: tuple[memoryview, ...] = field(compare=False, repr=False)
    """The previous owners of those partitions, as rows of device ids, filled up with NOBODY."""
    ancestors: memoryview = field(compare=False, repr=False)
    """The checksums of epochs 1, 2, … up to the one before this, 16 bytes each."""
    founding: memoryview = field(compare=False, repr=False)
    """A bit for each partition, lowest bit first; or nothing at all, where none is founding."""

    _device_of: dict[int, Device] = field(init=False, compare=False, repr=False)
    _hash_shift: int = field(init=False, compare=False, repr=False)
    _last_row_stop: int = field(init=False, compare=False, repr=False)
    _handoff_order: HandoffOrder | None = field(init=False, compare=False, repr=False, default=None)

    def __post_init__(self) -> None:
        assert 0 <= self.hash_seed < 2**64, "the hash would silently drop the upper bits of a larger seed"
        assert all(row.format == "I" for row in (*self.rows, self.moving_partitions, *self.moving_rows))
        # A dict rather than the tuple: a hole and an id beyond the table are both a KeyError, at no cost.
        _set(self, "_device_of", {device.id: device for device in self.devices if device is not None})
        _set(self, "_hash_shift", HASH_BITS - self.part_power)
        _set(self, "_last_row_stop", len(self.rows[-1]))

    @property
    def partition_count(self) -> int:
        """Number of partitions; they are numbered from zero."""
        return 1 << self.part_power

    @property
    def is_moving(self) -> bool:
        """Whether any partition is still on its way from previous owners."""
        return len(self.moving_partitions) > 0

    def partition_of(
        self, account: bytes, container: bytes | None = None, obj: bytes | None = None
    ) -> Partition:
        """Return the partition of an account, a container or an object."""
        return Partition(path_hash(path_of(account, container, obj), self.hash_seed) >> self._hash_shift)

    def primaries(self, partition: Partition) -> tuple[Device, ...]:
        """Return the devices that own a partition, in replica order.

        Raises RingFileError when the ring names a device that its own table does not hold.
        """
        assert not partition >> self.part_power, (
            "a partition of another ring; one below zero would count from the end"
        )
        device_of = self._device_of
        rows = self.rows if partition < self._last_row_stop else self.rows[:-1]
        try:
            return tuple([device_of[row[partition]] for row in rows])
        except KeyError as error:
            raise self._names_unknown_device(partition, error.args[0]) from None

    def is_founding(self, partition: Partition) -> bool:
        """Whether a partition has only ever had its present owners, each under its first uuid.

        Such an owner has missed nothing and votes at once; any other votes when it has caught up.
        """
        assert not partition >> self.part_power, "a partition of another ring"
        return bool(self.founding) and bool(self.founding[partition >> 3] >> (partition & 7) & 1)

    def handoffs(self, partition: Partition) -> Iterator[Device]:
        """Yield all devices with weight that are no primary of a partition, in the order in which they stand in.

        Lazy, and the same in every process; each is as far from the primaries and the handoffs before it as can
        be. Previous owners of a moving partition are not left out: whoever writes to them already skips them.
        """
        order = self._handoff_order
        if order is None:
            # Two threads may both build it; they build equals, and the last one stays.
            order = HandoffOrder(self.devices)
            _set(self, "_handoff_order", order)
        return order.walk(partition, self.primaries(partition))

    def previous_owners(self, partition: Partition) -> tuple[Device, ...]:
        """Return all devices that owned a partition before it began to move; nothing when it is not moving."""
        moving = self.moving_partitions
        position = bisect_left(moving, partition)
        if position == len(moving) or moving[position] != partition:
            return ()
        ids = [row[position] for row in self.moving_rows]
        try:
            return tuple([self._device_of[device_id] for device_id in ids if device_id != NOBODY])
        except KeyError as error:
            raise self._names_unknown_device(partition, error.args[0]) from None

    def ancestor_checksum(self, epoch: int) -> bytes:
        """Return the checksum that this ring's line had at an earlier epoch."""
        assert 1 <= epoch < self.epoch, "a ring has one ancestor for each epoch before its own"
        return bytes(self.ancestors[(epoch - 1) * CHECKSUM_BYTES : epoch * CHECKSUM_BYTES])

    def descends_from(self, other: "Ring") -> bool:
        """Say whether `other` is one of the epochs that led to this ring."""
        return other.epoch < self.epoch and self.ancestor_checksum(other.epoch) == other.checksum

    def kinship(self, other: "Ring") -> Kinship:
        """Say what `other` is to this ring."""
        if other.checksum == self.checksum:
            return Kinship.SAME
        if other.descends_from(self):
            return Kinship.DESCENDANT
        if self.descends_from(other):
            return Kinship.ANCESTOR
        return Kinship.STRANGER

    def _names_unknown_device(self, partition: Partition, device_id: int) -> RingFileError:
        return RingFileError(
            f"ring {self.name}, epoch {self.epoch}, gives partition {partition} to device {device_id}, which is not in"
            " its table; validate its builder and write the ring again"
        )


def ids_in(rows: Sequence[memoryview]) -> set[int]:
    """Collect the device ids that rows name, NOBODY apart. Reads every slot: for writers and validation."""
    return set[int]().union(*rows) - {NOBODY}
