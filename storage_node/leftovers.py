"""Leftovers: files that nothing points at, removed long after the write or the rebuild that left them.

Owns what counts as a leftover and the proof that nothing can point at it again. Runs in slices beside the device's
other work; never removes anything at start, and never touches a file that a write of this process still has in hand.

What may lie about, and what leaves it: staged files and finished ones without an entry (a process that died, an unlink
that failed), volumes without a header (a crash while one was made), an index set aside or half built by a rebuild.

Why it is safe: a file's id is among those under way from before the file exists until the commit that points at it or
gives it up. So one that is not under way, and that a view of the index taken afterwards does not know, stays unknown.
The index is asked twice: by the key in the file's trailer, which is quick, and then by reading every location there
is, so that a wrong cluster seed, which hides every key, cannot make a whole device look like leftovers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage_node.device import Device
from storage_node.errors import BodyDamaged
from storage_node.locations import FileId, InFile
from storage_node.rebuilding import NEW_DIRECTORY, set_aside
from swiftlike.limits import LEFTOVER_AGE_US, LEFTOVERS_MAX, OLD_INDEX_AGE_US

_SLICE_REGISTERS: Final = 2_000


@dataclass(slots=True)
class Removed:
    """What one pass removed."""

    staged: int = 0
    files: int = 0
    volumes: int = 0
    indexes: int = 0
    bytes_freed: int = 0
    kept: int = 0
    """Files that nothing points at and that are left for a person: damaged, or the only copy of a missing body here."""


async def remove_leftovers(
    device: Device, now_us: int, pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
) -> Removed:
    """Remove what nothing has pointed at for LEFTOVER_AGE_US; `pause` is awaited between slices.

    One pass takes up to LEFTOVERS_MAX finished files; what is more waits for the next.
    """
    removed = Removed()
    oldest_us = now_us - LEFTOVER_AGE_US
    await device.on_thread(_remove_staged, device, oldest_us, removed)
    await device.on_thread(_remove_headless_volumes, device, oldest_us, removed)
    await device.on_thread(_remove_old_indexes, device, oldest_us, now_us - OLD_INDEX_AGE_US, removed)
    candidates: set[FileId] = set()
    for directory in device.files.directories():
        candidates |= await device.on_thread(_unreferenced, device, directory, oldest_us, removed)
        await pause()
        if len(candidates) >= LEFTOVERS_MAX:
            break
    after: bytes | None = b""
    while candidates and after is not None:
        pointed_at, after = await device.scan(device.files_pointed_at, after, _SLICE_REGISTERS)
        candidates -= pointed_at
        await pause()
    for file in sorted(candidates):
        removed.files += await device.on_thread(_remove, device, device.files.path(file), removed)
        await pause()
    return removed


def _remove_staged(device: Device, oldest_us: int, removed: Removed) -> None:
    paths = device.files.staged()
    # Asked after the list was made: what is on the list and not under way now has been decided.
    under_way = device.files.under_way()
    for path in paths:
        if path.name not in under_way and _changed_us(path) < oldest_us:
            removed.staged += _remove(device, path, removed)


def _remove_headless_volumes(device: Device, oldest_us: int, removed: Removed) -> None:
    for path in device.volumes.headless():
        if _changed_us(path) < oldest_us:
            removed.volumes += _remove(device, path, removed)


def _remove_old_indexes(device: Device, oldest_us: int, oldest_index_us: int, removed: Removed) -> None:
    """Remove what a rebuild set aside long ago, and what one built in or was interrupted in: none runs beside a device."""
    for path in set_aside(device.index_directory):
        if _changed_us(path) < oldest_index_us:
            removed.indexes += _remove(device, path, removed)
    begun = device.index_directory / NEW_DIRECTORY
    if begun.is_dir() and _changed_us(begun) < oldest_us:
        for inside in sorted(begun.iterdir()):
            _remove(device, inside, removed)
        device.disk.remove_directory(begun)
        removed.indexes += 1


def _unreferenced(device: Device, directory: Path, oldest_us: int, removed: Removed) -> set[FileId]:
    """Return the files of one directory that their own keys do not point at."""
    candidates = set()
    files = device.files.finished_in(directory)
    # Asked after the list was made, and before the index is: see above.
    under_way = device.files.under_way()
    for file in files:
        if file.hex() in under_way or _changed_us(device.files.path(file)) >= oldest_us:
            continue
        try:
            found = device.files.read_trailer(file)
        except FileNotFoundError:
            continue  # a delete that was under way was quicker
        except (BodyDamaged, OSError):
            removed.kept += 1
            continue
        held = device.read(found.key)
        if held is not None and held.location == InFile(file):
            continue
        entry = None if held is None else held.register.entry
        if held is not None and not held.location.held and entry and entry.body_id == found.entry.body_id:
            removed.kept += 1
            continue
        candidates.add(file)
    return candidates


def _remove(device: Device, path: Path, removed: Removed) -> bool:
    """Remove a file and say whether it was still there."""
    try:
        size = path.stat().st_size
        device.disk.unlink(path)
    except FileNotFoundError:
        return False  # a delete that was under way was quicker
    removed.bytes_freed += size
    return True


def _changed_us(path: Path) -> int:
    """Return when a file was last written or renamed; one that is gone meanwhile counts as young."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 2**63
    return max(status.st_mtime_ns, status.st_ctime_ns) // 1_000
