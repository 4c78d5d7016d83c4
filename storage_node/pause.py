"""Pause: an operator's word that a device takes nothing from its peers for a while.

Owns until when, in the index, so that a restart keeps to it, and that there is an end to it. While it lasts the device goes on
comparing, follows its rings, answers everybody and can be taken from; it gives no vote back and gets none. What the
jobs of healing do about it is theirs.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgpack

from storage_node.errors import StorageError
from storage_node.store import Store
from swiftlike.limits import PAUSE_S_MAX

JOB: Final = "pause"
_VERSION: Final = 1
_MICROS: Final = 1_000_000


class Pausing(Protocol):
    """What the service of a device is told."""

    async def set(self, until_us: int) -> None:
        """Pause until a time; one that has passed ends the pause. Raises StorageError for one too far ahead."""


class Pause:
    """The pause of one device. `load` it before anybody asks."""

    def __init__(self, store: Store, read_us: Callable[[], int], on_end: Callable[[], None]) -> None:
        """Take the device, the time in microseconds since 1970, and who is told when it is ended by word."""
        self._store: Final = store
        self._read_us: Final = read_us
        self._on_end: Final = on_end
        self._until_us = 0

    async def load(self) -> None:
        """Read what was set before a restart; what another release wrote means none."""
        raw = await self._store.scan(self._store.position, JOB)
        if raw is not None:
            version, until_us = msgpack.unpackb(raw)
            self._until_us = until_us if version == _VERSION else 0

    @property
    def until_us(self) -> int:
        """When it ends; zero: there is none."""
        return self._until_us if self.is_on() else 0

    def is_on(self) -> bool:
        """Whether the device is to take nothing now. A clock that was set back makes no pause longer than the longest."""
        left_us = self._until_us - self._read_us()
        return 0 < left_us <= PAUSE_S_MAX * _MICROS

    async def set(self, until_us: int) -> None:
        """Pause until a time; one that has passed ends the pause. Raises StorageError for one too far ahead."""
        if until_us > self._read_us() + PAUSE_S_MAX * _MICROS:
            raise StorageError(
                f"a pause lasts {PAUSE_S_MAX} s at most: choose an earlier end, and renew it then"
            )
        await self._store.remember(JOB, msgpack.packb((_VERSION, until_us)))
        self._until_us = until_us
        if not self.is_on():
            self._on_end()
