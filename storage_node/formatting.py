"""Formatting: an empty directory becomes a device.

Owns the creation of an index, which happens nowhere else, and the order that makes formatting safe to interrupt. Never
touches a directory that holds anything.
"""

from pathlib import Path
from uuid import UUID, uuid4

from storage_node import identity
from storage_node.identity import DeviceFile
from storage_node.index import Identity, Index
from storage_node.index_place import elsewhere, home, new_place
from storage_node.keys import FORMATTED, IDENTITY
from swiftlike.limits import INDEX_MAP_BYTES


def format_device(
    root: Path, *, index_directory: Path | None = None, map_bytes: int = INDEX_MAP_BYTES
) -> UUID:
    """Make an empty directory a device with a new uuid, and return that. The only place where an index is created.

    `device.toml` is written last: a directory that has one is a whole device. Raises DeviceRefused.
    """
    place = home(root) if index_directory is None else new_place(index_directory.resolve())
    identity.make_directories(root)
    uuid = uuid4()
    device = DeviceFile(uuid, generation=1, stamp=uuid, index=elsewhere(root, place))
    create_index(place, device, map_bytes, formatted=True).close()
    identity.write_device_file(root, device)
    return device.uuid


def create_index(directory: Path, device: DeviceFile, map_bytes: int, *, formatted: bool = False) -> Index:
    """Create the index of a device that is being formatted, or rebuilt: only the former may ever get first votes."""
    directory.mkdir(mode=0o700, exist_ok=True)
    identity.sync_directory(directory.parent)
    index = Index(directory, create=True, map_bytes=map_bytes)
    change = index.begin()
    change.put(IDENTITY, Identity(device.uuid, device.generation).encode())
    if formatted:
        change.put(FORMATTED, b"")
    change.commit()
    identity.sync_directory(directory)
    return index
