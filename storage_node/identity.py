"""Whose directory this is: `device.toml`, the lock, the mark of a failed sync, and the directories of a device.

Owns the refusal of directories that are foreign, newer, not mounted or in use, each with the fix in the sentence.
Never opens the index, and never looks for it.

`device.toml`, format 1: `format` (this number), `uuid` (new at each format and each rebuild of the index, since either
may have forgotten what was promised), `generation` (counts the indexes: 1 when formatted), `stamp` (the uuid that the
device was formatted with, which its volumes and files bear) and, only when it is not on the device, `index` (the directory
of the index). Written beside, synced, renamed, and the directory synced.
"""

import fcntl
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import tomli_w

from storage_node.errors import DeviceRefused

FORMAT: Final = 1
DEVICE_FILE: Final = "device.toml"
FAILED_FILE: Final = "sync-failed"
"""Left by a process whose sync failed, until the votes were taken: the device returns as one that does not vote."""

DIRECTORIES: Final = ("volumes", "files", "staging", "quarantine")


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """What `device.toml` says."""

    uuid: UUID
    generation: int
    stamp: UUID
    index: Path | None = None
    """The directory of its index, when that is not on the device."""


def read_device_file(root: Path) -> DeviceFile:
    """Read `device.toml`. Raises DeviceRefused when it is missing, unreadable, not ours or newer."""
    path = root / DEVICE_FILE
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        device_format = raw["format"]
        uuid, generation, stamp, index = raw["uuid"], raw["generation"], raw["stamp"], raw.get("index")
    except FileNotFoundError:
        raise DeviceRefused(
            f"{root} holds no {DEVICE_FILE}: mount its disk, or format it with swiftlike-device init"
        ) from None
    except OSError as error:
        raise DeviceRefused(
            f"{path} cannot be read ({error.strerror}): give this user access to the device"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
        raise DeviceRefused(
            f"{path} is not a device file ({error!r}): mount the right disk at {root}"
        ) from None
    if device_format != FORMAT:
        raise DeviceRefused(f"{path} has format {device_format}, this release knows {FORMAT}: upgrade it")
    try:
        return DeviceFile(UUID(uuid), int(generation), UUID(stamp), None if index is None else Path(index))
    except (ValueError, TypeError, AttributeError):
        raise DeviceRefused(
            f"{path} names no valid uuid and generation: restore it, or rebuild-index"
        ) from None


def write_device_file(root: Path, device: DeviceFile) -> None:
    """Write `device.toml` so that a crash leaves the old one or the new."""
    beside = root / f"{DEVICE_FILE}.new"
    fields: dict[str, str | int] = {
        "format": FORMAT,
        "uuid": str(device.uuid),
        "generation": device.generation,
        "stamp": str(device.stamp),
    }
    if device.index is not None:
        fields["index"] = str(device.index)
    with beside.open("wb") as file:
        tomli_w.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(root / DEVICE_FILE)
    sync_directory(root)


def make_directories(root: Path) -> None:
    """Lay out an empty device but for its index, names durable. Raises DeviceRefused when it holds anything but lost+found."""
    if not root.is_dir():
        raise DeviceRefused(f"{root} is not a directory: create it, or mount the disk there")
    found = sorted(path.name for path in root.iterdir() if path.name != "lost+found")
    if found:
        raise DeviceRefused(f"{root} is not empty (it holds {found[0]}): choose an empty directory")
    for name in DIRECTORIES:
        (root / name).mkdir(mode=0o700)
    for lead in range(256):
        (root / "files" / f"{lead:02x}").mkdir(mode=0o700)
    sync_directory(root / "files")
    sync_directory(root)


def lock_device(root: Path) -> int:
    """Lock a device for this process and return the descriptor that holds the lock. Raises DeviceRefused when taken."""
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
    """Note durably that a sync failed, as far as a failing disk lets us."""
    fd = os.open(root / FAILED_FILE, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(root)


def has_failed(root: Path) -> bool:
    """Say whether a sync failed since the device's votes were last taken away."""
    return (root / FAILED_FILE).exists()


def clear_failed(root: Path) -> None:
    """Forget a failed sync, once the device's votes have been taken away."""
    (root / FAILED_FILE).unlink()
    sync_directory(root)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on stable storage."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
