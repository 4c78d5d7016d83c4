"""Whose directory this is: `device.toml`, the lock, the mark of a failed sync, and the directories of a device.

Owns the refusal of directories that are foreign, newer, not mounted or in use, each with the fix in the sentence.
Never opens the index, and never looks for it.

`device.toml`, format 1: `format` (this number), `uuid` (new at each format and each rebuild of the index, since either
may have forgotten what was promised), `generation` (counts the indexes: 1 when formatted), `stamp` (the uuid that the
device was formatted with, which its volumes and files bear) and, only when it is not on the device, `index` (the directory
of the index). From its first start on also `seed_mark`, by which the cluster's seed is known again: under another seed nothing
that the device holds would be found. Written beside, synced, renamed, and the directory synced.
"""

import fcntl
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import tomli_w

from storage_node.disk import Disk
from storage_node.errors import DeviceFailed, DeviceRefused
from swiftlike.seeds import seed_mark

FORMAT: Final = 1
DEVICE_FILE: Final = "device.toml"
FAILED_FILE: Final = "sync-failed"
"""Left by a process whose sync failed, until the votes were taken: the device returns as one that does not vote."""

FORMATTING_FILE: Final = "formatting"
"""The first name of a device, gone once it has its `device.toml`."""

DIRECTORIES: Final = ("volumes", "files", "staging", "quarantine")


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """What `device.toml` says."""

    uuid: UUID
    generation: int
    stamp: UUID
    index: Path | None = None
    """The directory of its index, when that is not on the device."""
    seed_mark: str | None = None
    """Of the seed that places its paths; None before the first start."""

    def under(self, seed: int, root: Path) -> "DeviceFile":
        """Return it with the mark of the cluster's seed. Raises DeviceRefused when it was filled under another one."""
        mark = seed_mark(seed)
        if self.seed_mark not in (None, mark):
            raise DeviceRefused(
                f"{root} was filled under another hash_seed than cluster.toml has now (its mark is {self.seed_mark}, and that "
                f"of cluster.toml {mark}): put the old one back there, since under a new one nothing is found"
            )
        return replace(self, seed_mark=mark)


def read_device_file(root: Path) -> DeviceFile:
    """Read `device.toml`.

    Raises DeviceRefused when it is missing, unreadable, not ours or newer, or a directory of the device is missing.
    """
    path = root / DEVICE_FILE
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        device_format = raw["format"]
        uuid, generation, stamp, index = raw["uuid"], raw["generation"], raw["stamp"], raw.get("index")
        mark = raw.get("seed_mark")
    except FileNotFoundError:
        raise DeviceRefused(
            f"{root} holds no {DEVICE_FILE}: mount its disk, or format it with swiftlike-device init"
        ) from None
    except OSError as error:
        raise DeviceRefused(
            f"{path} cannot be read ({error.strerror}): give this user access to the device"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
        match error:
            case UnicodeDecodeError():
                why = "it is no text"
            case KeyError():
                why = f"it lacks {error}"
            case _:
                why = str(error)
        raise DeviceRefused(f"{path} is not a device file ({why}): mount the right disk at {root}") from None
    if device_format != FORMAT:
        raise DeviceRefused(
            f"{path} has format {str(device_format)[:20]}, this release knows {FORMAT}: upgrade swiftlike on this host"
        )
    _check_directories(root)
    try:
        place = None if index is None else Path(index)
        return DeviceFile(
            UUID(uuid), int(generation), UUID(stamp), place, None if mark is None else str(mark)
        )
    except (ValueError, TypeError, AttributeError):
        raise DeviceRefused(
            f"{path} names no valid uuid and generation: restore it, or rebuild-index"
        ) from None


def write_device_file(root: Path, device: DeviceFile, disk: Disk) -> None:
    """Write `device.toml` so that a crash leaves the old one or the new. Raises DeviceRefused."""
    beside = root / f"{DEVICE_FILE}.new"
    fields: dict[str, str | int] = {
        "format": FORMAT,
        "uuid": str(device.uuid),
        "generation": device.generation,
        "stamp": str(device.stamp),
    }
    if device.index is not None:
        fields["index"] = str(device.index)
    if device.seed_mark is not None:
        fields["seed_mark"] = device.seed_mark
    with refusing(root):
        if beside.exists():
            disk.unlink(beside)  # a crash left it
        fd = disk.create(beside)
        try:
            disk.write(fd, 0, [tomli_w.dumps(fields).encode()])
            disk.sync(fd)
        finally:
            os.close(fd)
        disk.rename(beside, root / DEVICE_FILE)
        disk.sync_directory(root)


def begin_format(root: Path, disk: Disk) -> None:
    """Lay out an empty device but for its index, names durable; begin again where a crash ended it.

    The mark is durable before anything else is, and while there is no `device.toml` nobody can have stored anything
    here: so what stands beside the one and not the other is an unfinished format. Raises DeviceRefused for what holds
    anything else but lost+found.
    """
    if not root.is_dir():
        raise DeviceRefused(f"{root} is not a directory: create it, or mount the disk there")
    with refusing(root):
        found = {path.name for path in root.iterdir()} - {"lost+found"}
        begun = FORMATTING_FILE in found and DEVICE_FILE not in found
        if found and not begun:
            raise DeviceRefused(f"{root} is not empty (it holds {min(found)}): choose an empty directory")
        if not begun:
            os.close(disk.create(root / FORMATTING_FILE))
        disk.sync_directory(root)
        for leftover in (root / "index" / "data.mdb", root / "index" / "lock.mdb"):
            if leftover.exists():
                disk.unlink(leftover)
        for directory in _directories(root):
            if not directory.exists():
                disk.make_directory(directory)
        disk.sync_directory(root / "files")
        disk.sync_directory(root)


def end_format(root: Path, device: DeviceFile, disk: Disk) -> None:
    """Make a whole device of it: `device.toml`, then the mark goes. Raises DeviceRefused."""
    write_device_file(root, device, disk)
    with refusing(root):
        disk.unlink(root / FORMATTING_FILE)
        disk.sync_directory(root)


def _directories(root: Path) -> list[Path]:
    """Return what a format makes, parents first."""
    return [root / name for name in DIRECTORIES] + [root / "files" / f"{lead:02x}" for lead in range(256)]


def _check_directories(root: Path) -> None:
    with refusing(root):
        missing = [directory for directory in _directories(root) if not directory.is_dir()]
    if missing:
        raise DeviceRefused(
            f"{missing[0]} is missing: look at the disk (fsck puts what it finds into lost+found). Is it lost, make it "
            f"again (mkdir {missing[0]}): what was in it comes back from the other owners"
        )


def lock_device(root: Path) -> int:
    """Lock a device for this process and return the descriptor that holds the lock. Raises DeviceRefused when taken."""
    with refusing(root):
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DeviceRefused(f"{root} is in use by another process: stop that one first") from None
        return fd


def unlock_device(lock: int) -> None:
    """Give a lock back."""
    os.close(lock)


def mark_failed(root: Path) -> None:
    """Note durably that a sync failed. Raises DeviceFailed when the disk does not take that either."""
    try:
        fd = os.open(root / FAILED_FILE, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        _sync_names(root)
    except OSError as error:
        raise DeviceFailed(
            f"{root / FAILED_FILE} cannot be written ({error}): start this device once --without-votes"
        ) from error


def note_failed(root: Path) -> None:
    """Note durably that a sync failed, before the device is served all the same. Raises DeviceRefused when the disk is too full."""
    if has_failed(root):
        return
    try:
        mark_failed(root)
    except DeviceFailed as error:
        raise DeviceRefused(
            f"{root} has no room to note that a sync failed ({error}): free some MiB of it"
        ) from error


def has_failed(root: Path) -> bool:
    """Say whether a sync failed since the votes were last taken away. Raises DeviceRefused when the disk does not tell."""
    with refusing(root):
        return (root / FAILED_FILE).exists()


def clear_failed(root: Path) -> None:
    """Forget a failed sync, if one is noted, once the device's votes have been taken away. Raises DeviceRefused."""
    with refusing(root):
        (root / FAILED_FILE).unlink(missing_ok=True)
        _sync_names(root)


@contextmanager
def refusing(root: Path) -> Iterator[None]:
    """Turn what a disk refuses into DeviceRefused, with the fix: nothing of the device is served then."""
    try:
        yield
    except PermissionError as error:
        raise DeviceRefused(no_access(error)) from error
    except (OSError, DeviceFailed) as error:
        raise DeviceRefused(
            f"{root} cannot be used ({error}): look at its disk, and whether this user may write there"
        ) from error


def no_access(error: PermissionError) -> str:
    """Say what to do about a file of a device that this user may not use: it is no damage, and nothing is lost."""
    what = error.filename or "a file of the device"
    return f"{what} cannot be used ({error.strerror}): give this user access to the whole device"


def _sync_names(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
