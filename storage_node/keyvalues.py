"""Ordered keys and values under one transaction, as the tables of a device need them; and a body of it in memory.

Owns the interface and the in-memory form, on which the in-memory store and the simulator stand. Never knows what a
key or a value means.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import islice
from typing import Protocol


class Reading(Protocol):
    """A consistent view."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value at a key."""

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items in `[start, stop)` in order of their keys, or from the last to the first."""

    def scan_sound(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the items in `[start, stop)` in order, with None for a value that fails its checksum."""

    def take(
        self, start: bytes, stop: bytes, limit: int, *, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of the first `limit` items that a scan would yield: for many items the cheaper way."""

    def floor(self, key: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """Return the last item in `[start, key]`."""


class Writing(Reading, Protocol):
    """A view that sees its own changes; all of them happen, or none."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value at a key."""

    def delete(self, key: bytes) -> bool:
        """Remove a key; say whether it was there."""


class MemoryKeyValues:
    """Sorted keys and their values; a transaction keeps what it overwrote, to put it back."""

    def __init__(self) -> None:
        """Begin empty."""
        self._keys: list[bytes] = []
        self._values: dict[bytes, bytes] = {}
        self._undo: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value at a key."""
        return self._values.get(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items in `[start, stop)`, as they are when each is reached."""
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]
        for key in reversed(keys) if reverse else keys:
            if key in self._values:
                yield key, self._values[key]

    def scan_sound(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the items in `[start, stop)`: in memory nothing decays."""
        yield from self.scan(start, stop)

    def take(
        self, start: bytes, stop: bytes, limit: int, *, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of the first `limit` items that a scan would yield."""
        found = list(islice(self.scan(start, stop, reverse=reverse), limit))
        return [key for key, _ in found], [value for _, value in found]

    def floor(self, key: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """Return the last item in `[start, key]`."""
        at = bisect_right(self._keys, key)
        if at == 0 or self._keys[at - 1] < start:
            return None
        found = self._keys[at - 1]
        return found, self._values[found]

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value at a key."""
        old = self._values.get(key)
        self._undo.setdefault(key, old)
        if old is None:
            insort(self._keys, key)
        self._values[key] = value

    def delete(self, key: bytes) -> bool:
        """Remove a key; say whether it was there."""
        old = self._values.pop(key, None)
        if old is None:
            return False
        self._undo.setdefault(key, old)
        del self._keys[bisect_left(self._keys, key)]
        return True

    def copy(self) -> "MemoryKeyValues":
        """Return the same keys and values, to be changed on their own; between two transactions."""
        assert not self._undo, "a transaction is under way"
        other = MemoryKeyValues()
        other._keys, other._values = self._keys.copy(), self._values.copy()
        return other

    def commit(self) -> None:
        """Keep the changes."""
        self._undo.clear()

    def abort(self) -> None:
        """Take the changes back."""
        undo, self._undo = self._undo, {}
        for key, old in undo.items():
            if old is None:
                self.delete(key)
            else:
                self.put(key, old)
        self._undo.clear()
