"""Sharing: which partitions a device owns under a ring, with whom, and whose word it needs before it votes.

Pure. Owns what follows from a ring and a device's uuid. Never asks anybody and never knows what is held.

While a partition is moving it has two sets of owners: the previous ones, whose votes count, and the new ones. Whoever is in
the new set and not in the old is a newcomer, whatever it still has.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from ring.device import Device, DeviceId, Partition
from ring.ring import NOBODY, Ring


def in_turn(owners: Sequence[DeviceId], partition: int) -> tuple[DeviceId, ...]:
    """Return owners in the order in which to ask them of a partition: with each partition another one is the first."""
    at = partition % max(1, len(owners))
    return (*owners[at:], *owners[:at])


class Need(NamedTuple):
    """Of these owners, so many must vote and hand over all that they hold."""

    owners: tuple[DeviceId, ...]
    voices: int


@dataclass(frozen=True)
class Shares:
    """What one epoch of a ring gives to one device."""

    ring: Ring
    uuid: UUID
    ids: frozenset[DeviceId]
    """Under which the ring knows the device; mostly one."""
    owned: frozenset[int]
    """Partitions of which it is an owner, of the previous or of the new ones."""
    newcoming: frozenset[int]
    """Those of them of which it is a new owner and was no previous one."""
    moving: frozenset[int]
    """Those of them that it is to own once a move is settled."""
    peers: Mapping[DeviceId, tuple[int, ...]] = field(repr=False)
    """The partitions that it shares with each other owner, ascending."""

    @property
    def staying(self) -> frozenset[int]:
        """Partitions on which it keeps a vote when this epoch begins."""
        return self.owned - self.newcoming

    def device(self, number: DeviceId) -> Device | None:
        """Return a device of the ring by its id; None when there is none, or it is this one."""
        devices = self.ring.devices
        return devices[number] if number < len(devices) and number not in self.ids else None

    def others(self, partition: int) -> tuple[DeviceId, ...]:
        """Return the other owners of a partition, previous and new ones."""
        voting, joining = owners_of(self.ring, partition)
        return tuple(owner for owner in dict.fromkeys((*voting, *joining)) if owner not in self.ids)

    def voters(self, partition: int) -> tuple[DeviceId, ...]:
        """Return the owners whose votes count: the previous ones of a partition that is moving."""
        return owners_of(self.ring, partition)[0]

    def needs(self, partition: int) -> tuple[Need, ...]:
        """Return whose word this owner needs before it votes: a majority of the others, of each set separately.

        Other newcomers are left out of the new set: before they vote they have nothing that the old set has not, and two of
        them would wait for each other for ever.
        """
        voting, joining = owners_of(self.ring, partition)
        needs = []
        for owners in (voting, tuple(owner for owner in joining if owner in voting)):
            others = tuple(owner for owner in owners if owner not in self.ids)
            if owners is voting or others:
                needs.append(Need(others, len(others) // 2 + 1))
        return tuple(needs)


def is_enough(needs: Collection[Need], heard: Collection[DeviceId]) -> bool:
    """Say whether these owners, each of which votes, are enough. Where there are no others at all, nobody is ever."""
    return all(sum(owner in heard for owner in need.owners) >= need.voices for need in needs)


def owners_of(ring: Ring, partition: int) -> tuple[tuple[DeviceId, ...], tuple[DeviceId, ...]]:
    """Return the owners whose votes count, and those that a partition is moving to; each once."""
    primaries = tuple(dict.fromkeys(device.id for device in ring.primaries(Partition(partition))))
    previous = tuple(dict.fromkeys(device.id for device in ring.previous_owners(Partition(partition))))
    return (previous, primaries) if previous else (primaries, ())


_NONE: Final = frozenset[int]()


def shares_of(ring: Ring, uuid: UUID) -> Shares:
    """Return what a ring gives to the device with this uuid. Reads the whole table: on a thread."""
    ids = frozenset(device.id for device in ring.devices if device is not None and device.uuid == uuid)
    if not ids:
        return Shares(ring, uuid, ids, _NONE, _NONE, _NONE, {})
    primary = {number for row in ring.rows for number, device in enumerate(row) if device in ids}
    before: dict[int, bool] = {}
    for at, number in enumerate(ring.moving_partitions):
        before[number] = any(row[at] in ids for row in ring.moving_rows if row[at] != NOBODY)
    owned = frozenset(primary | {number for number, was in before.items() if was})
    newcoming = frozenset(number for number in primary if not before.get(number, True))
    moving = frozenset(number for number in primary if number in before)
    shares = Shares(ring, uuid, ids, owned, newcoming, moving, {})
    peers: dict[DeviceId, list[int]] = {}
    for partition in sorted(owned):
        for owner in shares.others(partition):
            peers.setdefault(owner, []).append(partition)
    return Shares(
        ring, uuid, ids, owned, newcoming, moving, {peer: tuple(numbers) for peer, numbers in peers.items()}
    )
