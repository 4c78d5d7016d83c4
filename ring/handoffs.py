"""Handoffs: who stands in for a partition's primaries, as far from them as can be.

Owns the order in which the other devices are offered. It is drawn from the partition's number, so every
process finds the same one, and so that a dead device's load spreads over many. Never looks at who is up.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import accumulate, count
from struct import Struct
from typing import Final

import xxhash

from ring.device import Device, Partition, Tier

MISSES_MAX: Final = 32
"""Draws in a row that may land on a used place before what is left of a tier is listed instead of drawn."""

_DRAW: Final = Struct("<QQ")

Place = tuple[int | str, ...]


class HandoffOrder:
    """The devices with weight, arranged so that the first handoffs of a partition cost microseconds.

    A draw is a point on a line on which each device has a stretch as long as its weight. A draw that lands
    on a used place is drawn again, which leaves every unused place its exact share of the chances.
    """

    __slots__ = ("_devices", "_line", "_places")

    def __init__(self, devices: Iterable[Device | None]) -> None:
        self._devices = sorted(
            (device for device in devices if device is not None and device.weight > 0),
            key=lambda device: device.location(Tier.DEVICE),
        )
        self._line = array("d", accumulate(device.weight for device in self._devices))
        self._places = tuple(frozenset(device.location(tier) for device in self._devices) for tier in Tier)

    def walk(self, partition: Partition, primaries: Sequence[Device]) -> Iterator[Device]:
        """Yield every device that has weight and is none of `primaries`, each once, the farthest away first.

        While a region is left that neither a primary nor an earlier handoff is in, the next handoff is in such
        a region; then the same with zones, hosts, and devices.
        """
        draws = _draws(partition)
        used = tuple({device.location(tier) for device in primaries} for tier in Tier)
        for tier in Tier:
            for device in self._apart(tier, used[tier], draws):
                for places, tier_of_places in zip(used, Tier, strict=True):
                    places.add(device.location(tier_of_places))
                yield device

    def _apart(self, tier: Tier, used: Set[Place], draws: Iterator[float]) -> Iterator[Device]:
        """Yield a device in each place of `tier` that is not in `used`, to which the caller adds as it goes."""
        places_left = len(self._places[tier]) - len(self._places[tier] & used)
        misses = 0
        while places_left and misses < MISSES_MAX:
            device = self._devices[bisect_right(self._line, next(draws) * self._line[-1])]
            if device.location(tier) in used:
                misses += 1
                continue
            misses = 0
            places_left -= 1
            yield device
        if places_left:
            for device in self._shuffled(tier, used, draws):
                if device.location(tier) not in used:
                    yield device

    def _shuffled(self, tier: Tier, used: Set[Place], draws: Iterator[float]) -> list[Device]:
        """List what is left of a tier in the order in which repeated draws would have found it.

        Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
        """
        left = [device for device in self._devices if device.location(tier) not in used]
        arrivals = {device.id: -math.log1p(-next(draws)) / device.weight for device in left}
        return sorted(left, key=lambda device: arrivals[device.id])


def _draws(partition: Partition) -> Iterator[float]:
    """Yield the numbers in [0, 1) that belong to a partition, without end.

    Not `random.Random`: seeding one costs more than the few draws that a handoff needs.
    """
    for turn in count():
        yield (xxhash.xxh3_64_intdigest(_DRAW.pack(partition, turn)) >> 11) * 2.0**-53
