"""Lost bodies: what the index points at in volumes that are gone, or that end too soon, is found at the start.

Owns the comparison of volumes with what the index counts of them, and the walk that marks each lost body as missing, so that
the mender brings it back and nobody takes the device for whole meanwhile. Never brings a body and never touches a volume.

The index counts for each volume how many bytes of it something points at, and how far its records reach. So what a damaged file
system or a slip of the hand took shows at once, for the price of a file's size; which bodies it was, a walk over all registers
tells.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NoReturn, Protocol

from storage_node.counters import Counters
from storage_node.jobs import Figure, repeat
from storage_node.keys import Key
from storage_node.locations import InVolume, Location, VolumeId
from storage_node.pace import Pace
from storage_node.tables import VolumeCount
from storage_node.volumes import FIRST_RECORD_AT
from swiftlike.limits import AUDITED_VALUES_PER_S

AGAIN_S: Final = 60.0
"""Until a walk is tried again that the disk did not let come to its end."""
SLICE: Final = 1_000
"""Registers that are looked at under one view of the index; as many may be lost."""

_log: Final = logging.getLogger(__name__)


class LosingDevice(Protocol):
    """What the walk needs of its device."""

    on_missing: Callable[[Key], None]
    lost_volumes: Mapping[VolumeId, int]
    """The volumes that have lost something, each with the size that it had at the start; 0: it was gone."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def counters(self) -> Counters:
        """What it counts."""

    async def lost_bodies(self, after: bytes, limit: int) -> tuple[list[tuple[Key, InVolume]], bytes | None]:
        """Return what is lost among the next `limit` registers, and the index key to go on from."""

    async def disown(self, key: Key, place: Location) -> bool:
        """Count the body at a place as missing, if the index still points there; say whether it did."""

    async def settle_volumes(self) -> None:
        """Count nothing any more in what the volumes have lost: nothing points there."""


def lost_in(counts: Mapping[VolumeId, VolumeCount], sizes: Mapping[VolumeId, int]) -> dict[VolumeId, int]:
    """Return the volumes that hold less than the index points at, each with the size that it has; 0: it is gone."""
    return {
        volume: sizes.get(volume, 0)
        for volume, count in counts.items()
        if count.live_bytes and sizes.get(volume, 0) < max(count.end, FIRST_RECORD_AT + count.live_bytes)
    }


class LostBodies:
    """The walk over one device; it does nothing where nothing was lost."""

    def __init__(
        self, device: LosingDevice, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Take the device."""
        self._device: Final = device
        self._sleep: Final = sleep
        self._pace: Final = Pace(AUDITED_VALUES_PER_S, sleep)
        self._tried = False
        self.found = 0

    async def run(self) -> NoReturn:
        """Walk at once, and again while it did not come to its end, until cancelled."""
        await repeat(self.walk, AGAIN_S, self._rest)

    async def walk(self) -> None:
        """Mark all that is lost as missing. Raises what the disk refuses."""
        self._tried = True
        device, lost = self._device, self._device.lost_volumes
        if not lost:
            return
        numbers = ", ".join(map(str, sorted(lost)))
        _log.error(
            "device %s: the index points at more than there is of volumes %s: what they lost is brought back; look at the disk",
            device.name,
            numbers,
        )
        after: bytes | None = b""
        while after is not None:
            await self._pace.spend(SLICE)
            some, after = await device.lost_bodies(after, SLICE)
            for (key, _), was_lost in zip(
                some, await asyncio.gather(*(device.disown(*each) for each in some)), strict=True
            ):
                if was_lost:
                    self.found += 1
                    device.counters.bodies_damaged += 1
                    device.on_missing(key)
        await device.settle_volumes()
        _log.error("device %s: %d bodies were lost with volumes %s", device.name, self.found, numbers)

    def figures(self) -> Sequence[Figure]:
        """Return how far it is."""
        return (
            Figure(
                "volumes",
                "Volumes that lost something, while it is not known yet what",
                len(self._device.lost_volumes),
            ),
            Figure("found", "Bodies that were found to be lost with a volume", self.found, is_total=True),
        )

    async def _rest(self, pause_s: float) -> None:
        if self._tried:
            await self._sleep(pause_s)
