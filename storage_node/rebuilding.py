"""Rebuild: a new index from the volumes and large files, which describe themselves.

Owns the order that makes it safe to interrupt, and what of the volumes it could not use. Never removes or changes a volume
or a large file.

What only the index knew is gone: tombstones, promises, rows, containers, metadata changed since a body was stored.
So the device gets a new uuid and no votes; it catches up from the other owners. Every object it finds owes its row
again.

Order: the new index is built in a directory of its own beside the old one, on the same disk; the old one's file is set
aside and the new one's takes its name; then `device.toml` names the new uuid. Interrupted anywhere, the device either opens as before or asks for a rebuild.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from uuid import uuid4

from storage_node import identity, keys
from storage_node.blocks import Extent, chunks_of, pread_salvaging, seed_of
from storage_node.disk import Disk
from storage_node.errors import BodyDamaged, DeviceRefused
from storage_node.files import Files
from storage_node.formatting import create_index
from storage_node.identity import DeviceFile
from storage_node.index import Index
from storage_node.index_place import DATA_FILE, elsewhere, holds_index, place_to_rebuild
from storage_node.keys import Key, Layout
from storage_node.locations import MISSING, InFile, InVolume, VolumeId
from storage_node.tables import Change, Held, read_held
from storage_node.volumes import FIRST_RECORD_AT, Record, Volumes
from swiftlike.entries import Entry
from swiftlike.limits import INDEX_MAP_BYTES
from swiftlike.registers import Register

_BATCH = 1_000

NEW_DIRECTORY = "new"
"""In the place of an index: where a rebuild builds the next one, which then takes the file's name."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes `[start, stop)` of a volume."""

    path: Path
    start: int
    stop: int


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild found."""

    device: DeviceFile
    entries: int = 0
    """Bodies and entries that were read, older copies of a key included."""
    damaged: int = 0
    """Of these, bodies that failed their checksums: their entries are kept, and wait for a body."""
    passed_over: list[Span] = field(default_factory=list)
    """What of the volumes is no sound record: what a crash tore, or damage, and then objects are lost here."""
    unreadable_files: list[str] = field(default_factory=list)
    """Large files that do not describe themselves, each with the reason; they are left alone."""

    @property
    def is_whole(self) -> bool:
        """Whether everything that lies on the device was taken."""
        return not (self.damaged or self.passed_over or self.unreadable_files)


@dataclass(frozen=True, slots=True)
class _Found:
    key: Key
    entry: Entry
    place: InVolume | InFile
    sound: bool


def rebuild_index(
    root: Path,
    seed: int,
    *,
    index_directory: Path | None = None,
    map_bytes: int = INDEX_MAP_BYTES,
    disk: Disk | None = None,
    make_index: Callable[..., Index] = Index,
) -> Rebuilt:
    """Build a new index for a closed device and give it a new uuid; `seed` is the cluster's.

    It takes the place of the old one, or `index_directory`. Raises DeviceRefused, and OSError where something may not be read.
    """
    layout = Layout(seed, {})  # no ring is needed: only standings depend on part powers, and there are none
    disk = disk or Disk()
    old = identity.read_device_file(root).under(seed, root)
    place = place_to_rebuild(root, old, index_directory)
    rebuilt = Rebuilt(replace(old, uuid=uuid4(), generation=old.generation + 1, index=elsewhere(root, place)))
    with ExitStack() as parts:
        parts.callback(identity.unlock_device, identity.lock_device(root))
        if index_directory is None and old.index is not None:
            _check_not_foreign(root, old, place, map_bytes)
        if rebuilt.device.index != old.index:
            # Before anything is there: should this be interrupted, the next attempt knows what is its own.
            identity.write_device_file(root, replace(old, index=rebuilt.device.index), disk)
        volumes = Volumes(root / "volumes", old.stamp, disk)
        parts.callback(volumes.close)
        files = Files(root / "files", root / "staging", old.stamp, disk)
        with identity.refusing(root):
            if not place.exists():
                disk.make_directory(place)
                disk.sync_directory(place.parent)
            beside = _empty_directory(place / NEW_DIRECTORY, disk)
        index = create_index(beside, rebuilt.device, disk, partial(make_index, map_bytes=map_bytes))
        try:
            found = _all_bodies(volumes, files, rebuilt)
            while some := list(islice(found, _BATCH)):
                _add(index, layout, some)
                rebuilt.entries += len(some)
        finally:
            index.close()
        with identity.refusing(root):
            if holds_index(place):
                disk.rename(place / DATA_FILE, _free_name(place, old.generation))
            disk.rename(beside / DATA_FILE, place / DATA_FILE)
            disk.sync_directory(place)
        identity.write_device_file(root, rebuilt.device, disk)
        with identity.refusing(root):
            disk.remove_directory(_empty_directory(beside, disk))
    return rebuilt


def set_aside(place: Path) -> list[Path]:
    """Return the files of the indexes that rebuilds have set aside."""
    return sorted(path for path in place.glob(f"{DATA_FILE}.*") if path.suffix[1:].isdigit())


def _free_name(place: Path, generation: int) -> Path:
    """Return a name to set an index aside under: an interrupted rebuild may have taken that of the generation."""
    return next(
        path for number in count(generation) if not (path := place / f"{DATA_FILE}.{number}").exists()
    )


def _check_not_foreign(root: Path, device: DeviceFile, place: Path, map_bytes: int) -> None:
    """Refuse to set aside what seems to be another device's index, where disks could have been mounted the wrong way."""
    try:
        index = Index(place, map_bytes=map_bytes, readonly=True)
    except DeviceRefused:
        return  # too damaged to tell: what a rebuild is for
    try:
        if index.identity().uuid != device.uuid:
            raise DeviceRefused(
                f"{root}: the index in {place} is not this device's: mount the right disk there; if it is what an "
                f"interrupted rebuild left, say so with --index {place}"
            )
    finally:
        index.close()


def _all_bodies(volumes: Volumes, files: Files, rebuilt: Rebuilt) -> Iterator[_Found]:
    for volume in volumes.ids():
        for record in _records(volumes, volume, rebuilt):
            extent = volumes.open(record.location, record.entry.size, seed_of(record.entry.body_id))
            yield _verified(record.key, record.entry, record.location, extent, rebuilt)
    rebuilt.passed_over += [Span(path, 0, path.stat().st_size) for path in volumes.ruined()]
    for file in files.finished():
        try:
            found = files.read_trailer(file)
        except PermissionError:
            raise  # one who may read it can use it
        except (BodyDamaged, OSError) as error:
            rebuilt.unreadable_files.append(str(error))
            continue
        extent = files.open(found.location, found.entry.size, seed_of(found.entry.body_id))
        yield _verified(found.key, found.entry, found.location, extent, rebuilt)


def _records(volumes: Volumes, volume: VolumeId, rebuilt: Rebuilt) -> Iterator[Record]:
    """Yield the sound records of a volume, noting what lies between and behind them; what the disk refuses is such."""
    end = FIRST_RECORD_AT
    if volume in volumes.damaged():
        rebuilt.passed_over.append(Span(volumes.path(volume), 0, end))
    for record in volumes.scan(volume, pread_salvaging):
        if record.location.offset > end:
            rebuilt.passed_over.append(Span(volumes.path(volume), end, record.location.offset))
        end = record.location.offset + record.total_bytes
        yield record
    if volumes.size(volume) > end:
        rebuilt.passed_over.append(Span(volumes.path(volume), end, volumes.size(volume)))


def _verified(key: Key, entry: Entry, place: InVolume | InFile, extent: Extent, rebuilt: Rebuilt) -> _Found:
    try:
        for start, stop in chunks_of(0, entry.size):
            extent.read(start, stop)
    except (BodyDamaged, OSError):
        rebuilt.damaged += 1
        return _Found(key, entry, place, sound=False)
    finally:
        extent.release()
    return _Found(key, entry, place, sound=True)


def _add(index: Index, layout: Layout, some: list[_Found]) -> None:
    """Point at what was found, the newest of each key; between equals, one that is sound."""
    view = index.begin()
    try:
        change = Change(view, layout, {})
        for found in some:
            hashed = layout.hashed(found.key.path)
            raw_key = keys.register_key(found.key, hashed)
            held = read_held(view, raw_key)
            if held is not None and held.register.entry is not None:
                newer = found.entry.ballot > held.register.entry.ballot
                mends = found.entry == held.register.entry and found.sound and not held.location.held
                if not newer and not mends:
                    continue
            # Nothing is remembered of what came before: the memory begins at this entry.
            after = Held(Register(found.entry, since_us=None), found.place if found.sound else MISSING)
            change.put_register(raw_key, found.key.path, hashed, held, after)
            change.owe(raw_key, found.entry)
        change.flush()
    except BaseException:
        view.abort()
        raise
    view.commit()


def _empty_directory(path: Path, disk: Disk) -> Path:
    """Make a directory anew; what an interrupted rebuild left in it is removed."""
    if path.exists():
        for leftover in path.iterdir():
            disk.unlink(leftover)
    else:
        disk.make_directory(path)
    return path
