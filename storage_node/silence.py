"""Silence: where owners do not answer, so that a job which goes over many keys waits for them twice, and not once for each.

Owns what is remembered of one walk. A key that could not be done and took its whole time speaks against its partition, whose
owners hold it, and against the listing that its row goes to; one that ended quickly held nobody up, and says nothing.
"""

from collections import Counter
from typing import Final

from storage_node.keys import CONTAINERS, Key, Layout

TRIES: Final = 2
"""Keys of one place that are waited for in vain, one after the other. One alone may have reasons of its own."""

Place = tuple[bytes, int | bytes]
"""A table, and a partition of it or the path of the listing above a key."""


class Silence:
    """The places that were silent in one walk."""

    def __init__(self, layout: Layout, patience_s: float) -> None:
        """Take where keys are placed, and how long one that could not be done has to have taken to count."""
        self._layout: Final = layout
        self._patience_s: Final = patience_s
        self._waited: Final[Counter[Place]] = Counter()

    def covers(self, key: Key) -> bool:
        """Say whether this key would be waited for in vain, as far as this walk knows."""
        return any(self._waited[place] >= TRIES for place in self._places(key))

    def note(self, key: Key, took_s: float, *, is_done: bool) -> None:
        """Remember how a key ended."""
        if is_done:
            for place in self._places(key):
                self._waited.pop(place, None)
        elif took_s >= self._patience_s:
            self._waited.update(self._places(key))

    def _places(self, key: Key) -> tuple[Place, Place]:
        names = key.path.split(b"\0", 2)
        listing = names[0] if key.table == CONTAINERS else b"\0".join(names[:2])
        partition = self._layout.partition(key.table, self._layout.hashed(key.path))
        return (key.table, partition), (key.table, listing)
