"""Soundness: how many owners of a partition hold what is to be held, as one of them sees it, and since when some do not.

Pure. Owns what is no sound copy, and from when on a difference is more than a write on its way. Never compares and never asks.

A copy of a partition is not sound as long as its owner does not answer, does not vote, or has differed from this one for
DIFFERS_S. Whoever does not vote itself takes all differences upon itself. New owners of a partition that is moving are not
counted: until it is settled the previous ones hold it.
"""

from collections.abc import Collection, Mapping
from typing import Final

from ring.device import DeviceId
from storage_node.sharing import Shares
from swiftlike.node_calls import Degraded

DIFFERS_S: Final = 60
"""Two owners that are written to differ at most moments, each time in something else."""
TOLD_APART: Final = 3
"""Partitions with fewer sound copies than this are counted by their number, those with more in one."""
MICROS: Final = 1_000_000

Place = tuple[bytes, int]


class Soundness:
    """What the passes of one device have seen."""

    def __init__(self) -> None:
        self._since_us: dict[Place, int] = {}
        """Partitions of which some owner was not as it should be in every pass since."""
        self.degraded: tuple[Degraded, ...] = ()
        """Those with the fewest sound copies first."""

    def note(
        self,
        now_us: int,
        shares: Mapping[bytes, Shares],
        differing: Mapping[Place, Collection[DeviceId]],
        silent: Collection[DeviceId],
        waiting: Collection[Place],
    ) -> None:
        """Take what a pass saw: who differs in what, who does not answer, and on what this device does not vote.

        Costs as much as there is trouble.
        """
        found: dict[Place, set[DeviceId]] = {place: set() for place in (*differing, *waiting)}
        for table, each in shares.items():
            for peer in silent:
                for partition in each.peers.get(peer, ()):
                    found.setdefault((table, partition), set()).add(peer)
        since = {place: self._since_us.get(place, now_us) for place in found}
        degraded = []
        waits = set(waiting)
        for (table, partition), lacking in found.items():
            place = table, partition
            owners = shares[table].voters(partition)
            own = shares[table].ids.intersection(owners)
            if not own:
                since.pop(place)
                continue
            if place in waits:
                lacking |= own
            elif now_us - since[place] >= DIFFERS_S * MICROS:
                lacking |= set(differing.get(place, ()))
            unsound = len(lacking.intersection(owners))
            if unsound:
                degraded.append(Degraded(table, partition, len(owners), len(owners) - unsound, since[place]))
        self._since_us = since
        self.degraded = tuple(sorted(degraded, key=lambda each: (each.sound, each.since_us, each[:2])))

    def oldest_us(self) -> int | None:
        """Return since when some owner of some partition has not been as it should be; None: all are."""
        return min(self._since_us.values(), default=None)

    def by_sound_copies(self) -> list[int]:
        """Count degraded partitions: those without a sound copy, with one, …, and those with TOLD_APART or more."""
        counts = [0] * (TOLD_APART + 1)
        for each in self.degraded:
            counts[min(each.sound, TOLD_APART)] += 1
        return counts
