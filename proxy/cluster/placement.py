"""Placement: which devices a key's owners are, under one epoch of a ring, and how to call them.

Owns the step from a key to addresses. Never follows ring files: whoever holds the rings swaps them underneath, and a
placement keeps to the epoch that it was made under.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from proxy.cluster.quorum import Owners, owners_of
from ring.device import Device, DeviceId
from ring.hashing import partition_of_hash, path_hash
from ring.ring import Ring
from swiftlike.limits import PLACED_PARTITIONS_MAX
from swiftlike.rpc.transport import Address, TcpAddress
from swiftlike.timestamps import NO_INCARNATION, Timestamp


class Key(NamedTuple):
    """One register: its table, its whole path, and the incarnation of the container that it belongs to."""

    table: bytes
    path: bytes
    incarnation: Timestamp = NO_INCARNATION
    owes: bool = False
    """Whether what is accepted under this key owes a row to a listing. A carry-through and a write-back owe like the write
    itself: they take the place of an entry whose debt goes with it, and its writer may be dead."""


class Rings(Protocol):
    """The rings that a process holds, each the newest epoch that it has seen."""

    def ring(self, table: bytes) -> Ring:
        """Return the ring that places a table."""

    def look_for_newer(self, table: bytes) -> None:
        """A device has a newer ring: look for it soon."""


class Placement(NamedTuple):
    """The owners of one key under one epoch."""

    ring: Ring
    key: Key
    owners: Owners
    devices: Mapping[DeviceId, Device]
    """Those owners."""

    @property
    def epoch(self) -> int:
        """The epoch that every call of this placement carries."""
        return self.ring.epoch

    def handoffs(self) -> Iterator[Device]:
        """Yield who stands in for an owner that is down or full, the farthest away first."""
        partition = partition_of_hash(path_hash(self.key.path, self.ring.hash_seed), self.ring.part_power)
        return (device for device in self.ring.handoffs(partition) if device.id not in self.devices)


class PlacedRing:
    """One ring, and the owners of the partitions that were asked for: reading them costs more than all else of a look-up."""

    def __init__(self, ring: Ring) -> None:
        """Take the ring."""
        self.ring: Final = ring
        self._placed: dict[int, tuple[Owners, Mapping[DeviceId, Device]]] = {}

    def place(self, key: Key) -> Placement:
        """Return where the ring places a key."""
        ring = self.ring
        partition = partition_of_hash(path_hash(key.path, ring.hash_seed), ring.part_power)
        placed = self._placed.get(partition)
        if placed is None:
            if len(self._placed) >= PLACED_PARTITIONS_MAX:
                self._placed.clear()
            primaries, previous = ring.primaries(partition), ring.previous_owners(partition)
            owners = owners_of([device.id for device in primaries], [device.id for device in previous])
            placed = owners, {device.id: device for device in (*previous, *primaries)}
            self._placed[partition] = placed
        return Placement(ring, key, *placed)


def tcp_address(device: Device) -> Address:
    """Return where a device listens across the network."""
    return TcpAddress(device.host, device.port)
