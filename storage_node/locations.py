"""Locations: where a device keeps the body of an entry.

Owns their byte form, which leads each register in the index. Never reads a body.

    location, version 1, big-endian:  offset  size  field
                                           0     1  kind: 0 none needed, 1 missing, 2 in a volume, 3 in a file
                                           1     4  volume                        |  file id,
                                           5     8  offset of the record          |  16 bytes
                                          13     4  head_bytes, before the body   |
"""

from struct import Struct
from typing import Final, NamedTuple, NewType

VolumeId = NewType("VolumeId", int)
FileId = NewType("FileId", bytes)
"""16 random bytes: two copies of one body may arrive at once."""

_PACKED: Final = Struct(">BIQI")
LOCATION_BYTES: Final = _PACKED.size
assert LOCATION_BYTES == 17, "the table and the code must agree"
_NONE, _MISSING, _VOLUME, _FILE = range(4)


class Nowhere(NamedTuple):
    """No bytes here: none are needed, or they are missing."""

    missing: bool

    @property
    def held(self) -> bool:
        """Whether all bytes that the entry needs are here."""
        return not self.missing

    def encode(self) -> bytes:
        """Write it down."""
        return bytes([_MISSING if self.missing else _NONE]) + bytes(16)


class InVolume(NamedTuple):
    """A record of a volume."""

    volume: VolumeId
    offset: int
    head_bytes: int
    """Header, key, entry and checksums: the body follows."""

    held: bool = True

    def encode(self) -> bytes:
        """Write it down."""
        return _PACKED.pack(_VOLUME, self.volume, self.offset, self.head_bytes)


class InFile(NamedTuple):
    """A file of its own."""

    file: FileId
    held: bool = True

    def encode(self) -> bytes:
        """Write it down."""
        return bytes([_FILE]) + self.file


Location = Nowhere | InVolume | InFile

UNNEEDED: Final = Nowhere(missing=False)
MISSING: Final = Nowhere(missing=True)


def decode_location(raw: bytes) -> Location:
    """Read what leads a register in the index."""
    kind, volume, offset, head_bytes = _PACKED.unpack_from(raw)
    match kind:
        case 2:
            return InVolume(VolumeId(volume), offset, head_bytes)
        case 3:
            return InFile(FileId(raw[1:17]))
        case 1:
            return MISSING
        case 0:
            return UNNEEDED
        case _:
            raise ValueError(f"location kind {kind} is not known to this release; upgrade it")
