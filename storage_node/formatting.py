"""Formatting: an empty directory becomes a device.

Owns the creation of an index, which happens nowhere else, and the order that makes formatting safe to interrupt. Never
touches a directory that holds anything but a format that was interrupted.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from storage_node import identity
from storage_node.disk import Disk
from storage_node.identity import DeviceFile
from storage_node.index import Identity, Index
from storage_node.index_place import elsewhere, home, new_place
from storage_node.keys import FORMATTED, IDENTITY
from swiftlike.limits import INDEX_MAP_BYTES


def format_device(
    root: Path,
    *,
    index_directory: Path | None = None,
    map_bytes: int = INDEX_MAP_BYTES,
    disk: Disk | None = None,
    make_index: Callable[..., Index] = Index,
) -> UUID:
    """Make an empty directory a device with a new uuid, and return that. The only place where an index is created.

    `device.toml` comes last: a directory that has one is a whole device, and one in which a format was interrupted is
    formatted again. Raises DeviceRefused.
    """
    place = home(root) if index_directory is None else new_place(index_directory.resolve())
    disk = disk or Disk()
    identity.begin_format(root, disk)
    uuid = uuid4()
    device = DeviceFile(uuid, generation=1, stamp=uuid, index=elsewhere(root, place))
    create_index(place, device, disk, partial(make_index, map_bytes=map_bytes), formatted=True).close()
    identity.end_format(root, device, disk)
    return device.uuid


def create_index(
    directory: Path,
    device: DeviceFile,
    disk: Disk,
    make_index: Callable[..., Index],
    *,
    formatted: bool = False,
) -> Index:
    """Create the index of a device that is being formatted, or rebuilt: only the former may ever get first votes.

    Its names are durable, that of the directory too. Raises DeviceRefused.
    """
    with identity.refusing(directory):
        if not directory.exists():
            disk.make_directory(directory)
        disk.sync_directory(directory.parent)
    index = make_index(directory, create=True)
    try:
        with identity.refusing(directory):
            change = index.begin()
            change.put(IDENTITY, Identity(device.uuid, device.generation).encode())
            if formatted:
                change.put(FORMATTED, b"")
            change.commit()
            disk.sync_directory(directory)
    except BaseException:
        index.close()
        raise
    return index
