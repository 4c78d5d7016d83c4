"""An open body: reading what an entry points at, for as long as somebody holds it.

Owns the choice between a warm read on the event loop and a cold one on a thread, reading ahead where that waits, and what is
told when the bytes are bad. Whether a bad body is believed is for the device to judge: it may have been replaced meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Protocol

from storage_node.bad_bodies import BadBodies
from storage_node.blocks import (
    Cold,
    Extent,
    Pread,
    chunks_of,
    pread_direct,
    pread_waiting,
    pread_warm,
)
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
        self._waits = False
        """Whether the disk was waited for at the last read."""
        self.size: Final = extent.size

    async def read(self, start: int, stop: int) -> memoryview:
        """Return the verified bytes `[start, stop)`: without a hop if they are warm."""
        counters = self._device.counters
        try:
            if self._extent.is_direct(start, stop):
                # Without a look at the cache, upon which the kernel would begin to bring it there.
                counters.direct_reads += 1
                return await self._read_on_thread(start, stop, pread_direct)
            try:
                warm = self._extent.read(start, stop, pread_warm)
            except Cold:
                counters.cold_reads += 1
                return await self._read_on_thread(start, stop, pread_waiting)
            counters.warm_reads += 1
            self._waits = False
            return warm
        except BodyDamaged as damage:
            raise await self._device.bad_bodies.judge(self._key, self._place, damage) from damage
        except OSError as error:
            raise self._device.bad_bodies.refused(
                self._key, self._place, self._extent.place, error
            ) from error

    async def stream(self, start: int, stop: int) -> AsyncGenerator[memoryview, None]:
        """Yield the verified bytes `[start, stop)` in chunks that end where blocks do.

        Where the disk is waited for, the next chunk is read while its owner sends this one.
        """
        ahead: asyncio.Task[memoryview] | None = None
        try:
            for span in chunks_of(start, stop):
                chunk = await (ahead or self.read(*span))
                ahead = None
                following = next(chunks_of(span[1], stop), None)
                if self._waits and following is not None:
                    ahead = asyncio.create_task(self.read(*following))
                yield chunk
        finally:
            if ahead is not None and not ahead.cancel() and not ahead.cancelled():
                ahead.exception()  # nobody wants to hear of it any more

    async def _read_on_thread(self, start: int, stop: int, pread: Pread) -> memoryview:
        self._waits = True
        cold: memoryview = await self._device.on_thread(self._read_held, start, stop, pread)
        return cold

    def _read_held(self, start: int, stop: int, pread: Pread) -> memoryview:
        """Read on a thread, which nobody can call back: the file stays open as long as it reads."""
        file = self._extent.file.hold()
        try:
            return self._extent.read(start, stop, pread)
        finally:
            file.release()

    def release(self) -> None:
        """Let go of the body."""
        self._extent.release()
