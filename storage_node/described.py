"""What stands beside a stored body, held against the index: the key and the entry from which a lost index is rebuilt.

Owns what of it must be equal. A body whose blocks are sound and whose description is not can be read today and would be
lost by a rebuild, without a word; so a check calls it damage, and an audit stores it anew.
"""

from typing import Protocol

from storage_node.errors import BodyDamaged, BodyGone
from storage_node.files import Files
from storage_node.keys import Key
from storage_node.locations import InFile, InVolume
from storage_node.volumes import Volumes
from swiftlike.entries import Entry


class Description(Protocol):
    """What a record of a volume, or a large file, says of itself."""

    @property
    def key(self) -> Key:
        """The key that the body was stored under."""

    @property
    def entry(self) -> Entry:
        """The entry that it was stored with."""

    @property
    def location(self) -> InVolume | InFile:
        """Where the body lies."""


def verify_description(
    volumes: Volumes, files: Files, key: Key, entry: Entry, place: InVolume | InFile
) -> None:
    """See that a rebuild would find the body of an entry where the index has it; for threads.

    Key, place, body id and size never change; metadata and ballot may be newer than the body, and are not compared.
    Raises BodyDamaged; BodyGone when the file or volume was removed meanwhile; OSError.
    """
    try:
        told: Description = (
            volumes.read_record(place) if isinstance(place, InVolume) else files.read_trailer(place.file)
        )
    except FileNotFoundError as error:
        raise BodyGone(f"{error.filename} was removed meanwhile: begin the read again") from None
    if (told.key, told.location, told.entry.body_id, told.entry.size) != (
        key,
        place,
        entry.body_id,
        entry.size,
    ):
        raise BodyDamaged(f"{place}: what is stored there says that it is the body of {told.key.path!r}")
