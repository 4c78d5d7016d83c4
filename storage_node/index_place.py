"""The place of an index: on its device, or in a directory of its own on a faster disk.

Owns where an index is looked for and whose it must be, each refusal with the fix in the sentence. Never makes, opens or
changes one.

`device.toml` records a place that is not on the device. A process that serves the device is told the place besides, by
its configuration, and refuses a contradiction: an index that was left behind by a move has forgotten promises.
"""

from pathlib import Path
from typing import Final

from storage_node.errors import DeviceRefused
from storage_node.identity import DeviceFile
from storage_node.index import Identity, Index

DATA_FILE: Final = "data.mdb"
"""LMDB's file in the directory of an index."""


def recorded_place(root: Path, device: DeviceFile) -> Path:
    """Return where the index of a device is by its own word."""
    return device.index or home(root)


def home(root: Path) -> Path:
    """Return where an index is that lives on its device."""
    return root.resolve() / "index"


def elsewhere(root: Path, place: Path) -> Path | None:
    """Return a place as `device.toml` records it: None for the device itself."""
    return None if place.resolve() == home(root) else place.resolve()


def holds_index(place: Path) -> bool:
    """Say whether there is an index at a place."""
    return (place / DATA_FILE).exists()


def place_to_serve(root: Path, device: DeviceFile, told: Path | None) -> Path:
    """Return where a process that serves the device opens its index; `told` is what its configuration says, if anything.

    Raises DeviceRefused when the two do not agree, or when the disk of the index is not mounted.
    """
    place = recorded_place(root, device)
    if told is None:
        if device.index is not None:
            raise DeviceRefused(
                f'{root}: its index is kept in {place}: set index_path = "{place}" for this device in the host\'s file'
            )
        return place  # if it is not there, it is lost: the index itself says so
    told = told.resolve()
    if told != place and holds_index(place):
        raise DeviceRefused(
            f"{root}: its index is in {place} and index_path says {told}: correct index_path, or move the directory there"
        )
    if not holds_index(told):
        raise DeviceRefused(
            f"{root}: {told} holds no index: mount its disk, or correct index_path; only if it is lost for good, run "
            f"rebuild-index with --index {told}"
        )
    return told


def place_to_read(root: Path, device: DeviceFile, told: Path | None) -> Path:
    """Return where a tool that only reads opens the index. Raises DeviceRefused when its disk is not mounted."""
    place = told or recorded_place(root, device)
    if elsewhere(root, place) is not None and not holds_index(place):
        raise DeviceRefused(
            f"{root}: its index is kept in {place}, which holds none: mount its disk, or say with --index where it is"
        )
    return place


def place_to_rebuild(root: Path, device: DeviceFile, told: Path | None) -> Path:
    """Return where a new index is to be built. One that may merely not be mounted is not given up unasked.

    Raises DeviceRefused for that, and for a place that holds another index than the one to be replaced.
    """
    place = recorded_place(root, device)
    if told is None:
        if device.index is not None and not holds_index(place):
            raise DeviceRefused(
                f"{root}: its index is kept in {place}, which holds none: mount its disk, for it may be sound; if it is "
                "lost for good, say with --index where to build the new one"
            )
        return place
    told = told.resolve()
    return told if told == place else new_place(told)


def new_place(place: Path) -> Path:
    """Return a place where an index can be made. Raises DeviceRefused when it cannot."""
    if not place.parent.is_dir():
        raise DeviceRefused(f"{place.parent} is not a directory: create it, or mount the disk of the index")
    if holds_index(place):
        raise DeviceRefused(f"{place} already holds an index: choose an empty directory")
    return place


def check_owner(index: Index, device: DeviceFile, root: Path, place: Path) -> None:
    """Raise DeviceRefused when an open index is not this device's."""
    found = index.identity()
    if found != Identity(device.uuid, device.generation):
        fix = (
            "mount the right index, or run rebuild-index"
            if elsewhere(root, place) is None
            else "mount the right disk there, or correct index_path"
        )
        raise DeviceRefused(
            f"{root}: its index belongs to device {found.uuid}, generation {found.generation}, and device.toml says "
            f"{device.uuid}, generation {device.generation}, at {place}: {fix}"
        )
