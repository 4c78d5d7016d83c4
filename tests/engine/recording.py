"""A disk that remembers every effect between two syncs, so that a crash can be staged at any point of a run.

The index writes through LMDB, out of our sight: its commit is recorded as the pages that changed, in LMDB's own
order: data pages in any order, a sync, then the meta page.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, zip_longest
from pathlib import Path
from random import Random

from storage_node.disk import Disk
from storage_node.index import Index, IndexChange
from swiftlike.entries import Entry
from swiftlike.timestamps import Ballot

SECTOR_BYTES = 512
PAGE_BYTES = 4096
META_PAGES = 2
SUBSETS_OF_MAX = 8
"""Up to this many unsynced effects all subsets are tried; beyond, random ones and each alone."""


@dataclass(frozen=True)
class Write:
    """Bytes written at an offset: lost, whole or torn at sectors until the file is synced."""

    path: Path
    offset: int
    data: bytes


@dataclass(frozen=True)
class Named:
    """A name made (`old` is None), changed or removed (`new` is None): happened or not until its directory is synced."""

    old: Path | None
    new: Path | None
    is_directory: bool = False
    """Of a name that is made."""


@dataclass(frozen=True)
class Synced:
    """All writes to a file, or names in a directory, before this are on stable storage."""

    path: Path


@dataclass(frozen=True)
class Acknowledged:
    """A caller was told that the entry of a key is durable, or (None) its row."""

    name: str
    at: int
    entry: Entry | None


@dataclass(frozen=True)
class Promised:
    """A caller was told that nothing below this ballot is accepted at a key any more."""

    name: str
    ballot: Ballot


Told = Acknowledged | Promised
Event = Write | Named | Synced | Told


class RecordingDisk(Disk):
    """A real disk that writes down what is done to it."""

    def __init__(self, log: list[Event]) -> None:
        self.log = log
        self._paths: dict[int, Path] = {}

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._paths[fd] = path
        self.log.append(Named(None, path))
        return fd

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        self.log.append(Named(None, path, is_directory=True))

    def open(self, path: Path, *, writable: bool = False) -> int:
        fd = super().open(path, writable=writable)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, offset: int, buffers: Sequence[bytes | memoryview]) -> None:
        super().write(fd, offset, buffers)
        self.log.append(Write(self._paths[fd], offset, b"".join(buffers)))

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.log.append(Synced(self._paths[fd]))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.log.append(Synced(path))

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        for fd, path in self._paths.items():
            if path == old:
                self._paths[fd] = new
        self.log.append(Named(old, new))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.log.append(Named(path, None))


class RecordingIndex(Index):
    """An index whose commits are recorded as the pages that they changed."""

    log: list[Event]

    def __init__(self, path: Path, *, map_bytes: int, create: bool = False) -> None:
        super().__init__(path, map_bytes=map_bytes, create=create)
        self.data = path / "data.mdb"
        self.image = self.data.read_bytes()
        if create:
            self.log += [Named(None, self.data), Named(None, path / "lock.mdb")]
            self.log.append(Write(self.data, 0, self.image))

    def begin(self) -> IndexChange:
        return RecordingChange(super().begin(), self)

    def record_commit(self) -> None:
        self.image, before = self.data.read_bytes(), self.image
        changed = [
            at
            for at in range(0, len(self.image), PAGE_BYTES)
            if self.image[at : at + PAGE_BYTES] != before[at : at + PAGE_BYTES]
        ]
        for is_meta in (False, True):
            for at in changed:
                if (at < META_PAGES * PAGE_BYTES) is is_meta:
                    self.log.append(Write(self.data, at, self.image[at : at + PAGE_BYTES]))
            self.log.append(Synced(self.data))


class RecordingChange(IndexChange):
    """The write transaction of a recording index."""

    def __init__(self, change: IndexChange, index: RecordingIndex) -> None:
        super().__init__(change._transaction)
        self._index = index

    def commit(self) -> None:
        super().commit()
        self._index.record_commit()


def crash_states(
    log: list[Event], start: Path, live: Path, scratch: Path, random: Random, states_max: int
) -> Iterator[tuple[Path, list[Told]]]:
    """Yield devices as crashes may leave them, each with what was told before; up to `states_max`.

    `start` is a copy of the device before the run, `live` the directory that the log speaks of.
    """
    points = [at for at, event in enumerate(log) if isinstance(event, Synced)] + [len(log)]
    at_points = [_states_at(log[:point], random) for point in points]
    random.shuffle(at_points)
    for states in at_points:
        random.shuffle(states)
    # By turns: where hundreds of names wait for one sync, there are more states than at all other points together.
    by_turns = (state for turn in zip_longest(*at_points) for state in turn if state is not None)
    for point, unsynced in islice(by_turns, states_max):
        state = scratch / "crashed"
        if state.exists():
            shutil.rmtree(state)
        shutil.copytree(start, state)
        _replay(log[:point], unsynced, live, state, random)
        yield state, [event for event in log[:point] if isinstance(event, Told)]


def _states_at(log: list[Event], random: Random) -> list[tuple[int, frozenset[int]]]:
    """Return the sets of unsynced events that a crash at the end of this log may have kept."""
    unsynced = [
        at for at, event in enumerate(log) if isinstance(event, Write | Named) and not _is_synced(log, at)
    ]
    if len(unsynced) <= SUBSETS_OF_MAX:
        chosen = [set(some) for size in range(len(unsynced) + 1) for some in combinations(unsynced, size)]
    else:
        chosen = [{at for at in unsynced if random.random() < 0.5} for _ in range(50)]
        chosen += [{at} for at in unsynced] + [set(unsynced), set()]
    return [(len(log), frozenset(some)) for some in chosen]


def _is_synced(log: list[Event], at: int) -> bool:
    event = log[at]
    if isinstance(event, Write):
        paths = {event.path, *_later_names(log, at, event.path)}
        return any(isinstance(later, Synced) and later.path in paths for later in log[at:])
    assert isinstance(event, Named)
    directory = (event.new or event.old or Path()).parent
    return any(isinstance(later, Synced) and later.path == directory for later in log[at:])


def _later_names(log: list[Event], at: int, path: Path) -> Iterator[Path]:
    for later in log[at:]:
        if isinstance(later, Named) and later.old == path and later.new is not None:
            path = later.new
            yield path


def _replay(log: list[Event], kept: frozenset[int], live: Path, state: Path, random: Random) -> None:
    """Bring a copy of the start to what is durable at the end of the log, plus what a crash kept of the rest.

    A file whose name was lost keeps its bytes where nobody finds them, so writes to it go to a file outside. With a
    directory whose name was lost, all is lost that is in it.
    """

    def here(path: Path) -> Path:
        return state / path.relative_to(live)

    moved: dict[Path, Path] = {}
    for at, event in enumerate(log):
        happened = at in kept or not isinstance(event, Write | Named) or _is_synced(log, at)
        match event:
            case Write(path, offset, data) if happened:
                target = here(moved.get(path, path))
                if target.exists():
                    torn = (
                        data
                        if at not in kept or random.random() < 0.5
                        else _torn(target, offset, data, random)
                    )
                    with target.open("r+b") as file:
                        file.seek(offset)
                        file.write(torn)
            case Named(None, Path() as new, is_directory) if happened or _is_named_later(log, at, new):
                if here(new).parent.is_dir():
                    here(new).mkdir() if is_directory else here(new).touch()
            case Named(Path() as old, Path() as new):
                if happened and here(old).exists():
                    if here(new).is_dir():
                        shutil.rmtree(here(new))  # that its old name was moved away was lost
                    here(old).rename(here(new))
                elif here(old).exists():
                    moved[new] = old
            case Named(Path() as old, None) if happened and here(old).exists():
                here(old).unlink()


def _is_named_later(log: list[Event], at: int, path: Path) -> bool:
    """Whether a file whose creation was not synced got a name that was, by a rename."""
    return any(
        isinstance(later, Named) and later.old == path and later.new is not None and _is_synced(log, index)
        for index, later in enumerate(log[at:], start=at)
    )


def _torn(target: Path, offset: int, data: bytes, random: Random) -> bytes:
    """Return the data with some of its sectors as they were before."""
    with target.open("rb") as file:
        before = os.pread(file.fileno(), len(data), offset).ljust(len(data), b"\0")
    torn = bytearray(data)
    at = 0
    while at < len(data):
        end = min(len(data), (offset + at) // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset)
        if random.random() < 0.5:
            torn[at:end] = before[at:end]
        at = end
    return bytes(torn)
