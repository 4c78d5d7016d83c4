"""An open body: reading what an entry points at, for as long as somebody holds it.

Owns the choice between a warm read on the event loop and a cold one on a thread, and what is told when the bytes are
bad. Whether a bad body is believed is for the device to judge: it may have been replaced meanwhile.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

from storage_node.bad_bodies import BadBodies
from storage_node.blocks import Cold, Extent, chunks_of, pread_waiting, pread_warm
from storage_node.counters import Counters
from storage_node.errors import BodyDamaged
from storage_node.keys import Key
from storage_node.locations import Location


class ReadingDevice(Protocol):
    """What an open body needs of the device that it lies on."""

    @property
    def counters(self) -> Counters:
        """What the device counts."""

    async def on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run what waits for the disk on a reader's thread."""

    @property
    def bad_bodies(self) -> BadBodies:
        """Who judges a body that is bad."""


class OpenBody:
    """A body of the device, held open."""

    def __init__(self, device: ReadingDevice, key: Key, place: Location, extent: Extent) -> None:
        """Take over an open extent."""
        self._device = device
        self._key = key
        self._place = place
        self._extent = extent
        self.size: Final = extent.size

    async def read(self, start: int, stop: int) -> memoryview:
        """Return the verified bytes `[start, stop)`: without a hop if they are warm."""
        counters = self._device.counters
        try:
            try:
                warm = self._extent.read(start, stop, pread_warm)
            except Cold:
                counters.cold_reads += 1
                cold: memoryview = await self._device.on_thread(self._extent.read, start, stop, pread_waiting)
                return cold
            counters.warm_reads += 1
            return warm
        except BodyDamaged as damage:
            raise await self._device.bad_bodies.judge(self._key, self._place, damage) from damage
        except OSError as error:
            raise self._device.bad_bodies.refused(
                self._key, self._place, self._extent.place, error
            ) from error

    async def stream(self, start: int, stop: int) -> AsyncIterator[memoryview]:
        """Yield the verified bytes `[start, stop)` in chunks that end where blocks do."""
        for chunk_start, chunk_stop in chunks_of(start, stop):
            yield await self.read(chunk_start, chunk_stop)

    def release(self) -> None:
        """Let go of the body."""
        self._extent.release()
