"""The ring files of one directory: every ring that a process places by, each followed for as long as the process lives.

Owns which file holds which ring, and that a file holds the ring that its name says, with as many replicas as it was said to have. Never decides whether a newer ring
may replace one (its watcher does), never fetches a ring from another host, and knows no tables: only names.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from ring.errors import RingFileError
from ring.file import load_ring
from ring.ring import Ring
from ring.watcher import RingWatcher

RING_SUFFIX: Final = ".ring"

log: Final = logging.getLogger(__name__)


class RingFiles:
    """The newest rings that their files have shown, by name. `run` follows the files."""

    def __init__(
        self, rings: Mapping[str, tuple[Path, Ring]], on_change: Callable[[Ring, Ring], None] | None = None
    ) -> None:
        """Take each ring and the file that it was read from; `on_change(old, new)` is told after the fact."""
        self._watchers = {
            name: RingWatcher(path, ring, on_change=on_change) for name, (path, ring) in rings.items()
        }

    @classmethod
    def load(
        cls,
        directory: Path,
        names: Iterable[str],
        hash_seed: int,
        on_change: Callable[[Ring, Ring], None] | None = None,
        *,
        replicas: Mapping[str, int] | None = None,
    ) -> "RingFiles":
        """Read the rings of these names; `replicas` says of some how many copies they are to give.

        Raises RingFileError when one is missing, no ring, another one, or gives another number of copies. One that does so only
        later is taken and told of: whoever changes the number writes the ring first, and then what says so.
        """

        def take(old: Ring, new: Ring) -> None:
            if wrong := _other_replicas(new, replicas or {}):
                log.error("%s; it is used, and refused at the next start", wrong)
            if on_change is not None:
                on_change(old, new)

        rings: dict[str, tuple[Path, Ring]] = {}
        for name in names:
            path = directory / f"{name}{RING_SUFFIX}"
            ring = load_ring(path, hash_seed)
            if ring.name != name:
                raise RingFileError(f"ring file {path} holds ring {ring.name}: put the ring {name} there")
            if wrong := _other_replicas(ring, replicas or {}):
                raise RingFileError(f"{path}: {wrong}")
            rings[name] = path, ring
        return cls(rings, take)

    @property
    def names(self) -> tuple[str, ...]:
        """The rings that are followed."""
        return tuple(self._watchers)

    def ring(self, name: str) -> Ring:
        """Return the ring in use. Raises KeyError for one that is not followed."""
        return self._watchers[name].ring

    def watcher(self, name: str) -> RingWatcher:
        """Return what holds the ring in use, for whoever asks for it all the time. Raises KeyError as `ring` does."""
        return self._watchers[name]

    def look(self, name: str) -> None:
        """Look at a ring's file at once. Raises KeyError for one that is not followed."""
        self._watchers[name].poke()

    def look_at_all(self) -> None:
        """Look at all files at once."""
        for watcher in self._watchers.values():
            watcher.poke()

    async def run(self) -> None:
        """Follow the files until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watcher in self._watchers.values():
                group.create_task(watcher.run())


def _other_replicas(ring: Ring, replicas: Mapping[str, int]) -> str | None:
    """Say what is wrong where a ring gives another number of copies than is said; a fraction is one on its way."""
    said = replicas.get(ring.name)
    if said is None or abs(ring.replicas - said) < 1:
        return None
    return (
        f"ring {ring.name}, epoch {ring.epoch}, gives {ring.replicas:g} replicas and cluster.toml says {said}: correct replicas "
        "of that policy in cluster.toml on every host, or put the right ring there"
    )
