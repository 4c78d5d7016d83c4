"""Manifests: objects whose value is a list of other objects, and which read as their sum.

Owns the packed list, the attributes that tell such an object from others, and where in which part a byte is. Pure; never
reads a part. A part is named by its whole path, whoever wrote it, so that Swift's large objects can be told in the same way.

    body, version 1, a msgpack array:  version, then one array for each part, in order:
                                           bytes that its path shares with the part before
                                           the rest of its path
                                           size
                                           etag, the bytes of the MD5
                                           checksum, as bytes; empty: none is known

Parts of an upload differ in a few bytes of their paths, so that 10,000 of them fit a frame of the RPC.

The attributes are the domain's: what a dialect says of them in a description is not heard, and a new description keeps them.
"""

from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final, NamedTuple, cast

import msgpack

from proxy.store.names import ObjectName
from proxy.store.values import Attributes
from swiftlike.entries import Entry, unpack_metadata
from swiftlike.limits import PARTS_MAX, RPC_BODY_BYTES_MAX
from swiftlike.listed import TOTAL_SIZE, split_path
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import Timestamp

UPLOAD: Final = "sys:manifest-upload"
"""The upload to which the parts belong; they go when no object names it any more."""
COUNT: Final = "sys:manifest-parts"
FINGERPRINT: Final = "sys:manifest-fingerprint"
"""What the upload was completed with, so that a repeated request is known."""
ATTRIBUTES: Final = frozenset({UPLOAD, COUNT, FINGERPRINT, TOTAL_SIZE})

_VERSION: Final = 1


class ManifestRefused(ValueError):
    """A list that no manifest can hold, or bytes that are none."""


class Part(NamedTuple):
    """One of the objects that a manifest names."""

    name: ObjectName
    size: int
    etag: str
    """MD5 of its body, in hex."""
    checksum: str = ""
    """In base64, by the algorithm of the upload."""


class Piece(NamedTuple):
    """Bytes `[start, stop)` of one part."""

    part: Part
    start: int
    stop: int


class Manifest:
    """The parts of an object, in order."""

    __slots__ = ("_stops", "parts")

    def __init__(self, parts: Iterable[Part]) -> None:
        """Take the parts."""
        self.parts: Final = tuple(parts)
        self._stops: Final = tuple(accumulate(part.size for part in self.parts))

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return self._stops[-1] if self._stops else 0

    def span(self, number: int) -> tuple[int, int]:
        """Return which bytes `[start, stop)` a part is; the first is number 1."""
        stop = self._stops[number - 1]
        return stop - self.parts[number - 1].size, stop

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """Return what of which parts the bytes `[start, stop)` are; no piece is empty."""
        found = []
        at = bisect_right(self._stops, start)
        while start < stop and at < len(self.parts):
            part = self.parts[at]
            begins = self._stops[at] - part.size
            ends = min(stop, self._stops[at])
            if ends > start:
                found.append(Piece(part, start - begins, ends - begins))
            start, at = ends, at + 1
        return found


def pack(manifest: Manifest) -> bytes:
    """Write a manifest down. Raises ManifestRefused when it has too many parts, or their names are too long together."""
    if len(manifest.parts) > PARTS_MAX:
        raise ManifestRefused(f"{len(manifest.parts)} parts; the limit is {PARTS_MAX}")
    packed: list[Any] = [_VERSION]
    before = b""
    for part in manifest.parts:
        path = part.name.path
        shared = _shared_bytes(before, path)
        packed.append((shared, path[shared:], part.size, bytes.fromhex(part.etag), b64decode(part.checksum)))
        before = path
    raw = cast(bytes, msgpack.packb(packed))
    if len(raw) > RPC_BODY_BYTES_MAX:
        raise ManifestRefused(f"the list takes {len(raw)} bytes; the limit is {RPC_BODY_BYTES_MAX}")
    return raw


def _shared_bytes(one: bytes, other: bytes) -> int:
    """Return how many bytes two texts begin with alike, in a few comparisons of many bytes."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def unpack(raw: Body) -> Manifest:
    """Read a manifest. Raises ManifestRefused when it is of an unknown version."""
    try:
        found = msgpack.unpackb(raw, use_list=False, max_array_len=PARTS_MAX + 1, max_map_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise ManifestRefused(f"not a manifest: {error}") from None
    if not isinstance(found, tuple) or not found or found[0] != _VERSION:
        raise ManifestRefused("a manifest of a version that this release does not know; upgrade it")
    try:
        return Manifest(_read_parts(found[1:]))
    except (TypeError, ValueError, AttributeError) as error:
        raise ManifestRefused(f"not a manifest: {error}") from None


def _read_parts(packed: Iterable[Any]) -> Iterator[Part]:
    before = b""
    for shared, rest, size, etag, checksum in packed:
        if not isinstance(size, int):
            raise TypeError("a size is a number")
        before = before[:shared] + rest
        name = ObjectName(*split_path(before))
        yield Part(name, size, etag.hex(), b64encode(checksum).decode("ascii"))


class Origin(NamedTuple):
    """Where a manifest comes from."""

    upload: str
    fingerprint: str
    incarnation: Timestamp
    """Of the container beside which the parts are, and in which alone it may stand."""


def attributes_for(manifest: Manifest, origin: Origin) -> dict[str, str]:
    """Return the attributes of an object that has this manifest for its body."""
    return {
        UPLOAD: origin.upload,
        COUNT: str(len(manifest.parts)),
        FINGERPRINT: origin.fingerprint,
        TOTAL_SIZE: str(manifest.size),
    }


def is_manifest(attributes: Mapping[str, object]) -> bool:
    """Whether an object with these attributes has a manifest for its body."""
    return COUNT in attributes


def only(attributes: Attributes) -> dict[str, str]:
    """Return those attributes that tell of a manifest."""
    return {name: value for name, value in attributes.items() if name in ATTRIBUTES}


def without(attributes: Attributes) -> dict[str, str]:
    """Return the other attributes."""
    return {name: value for name, value in attributes.items() if name not in ATTRIBUTES}


def is_from(entry: Entry | None, origin: Origin) -> bool:
    """Whether an entry is the object that an upload was completed as, with these parts."""
    if entry is None or entry.tombstone:
        return False
    said = unpack_metadata(entry.metadata)
    return (said.get(UPLOAD), said.get(FINGERPRINT)) == (origin.upload, origin.fingerprint)


def upload_of(entry: Entry | None) -> str:
    """Return the upload that an entry names; empty when it names none."""
    if entry is None or entry.tombstone:
        return ""
    return str(unpack_metadata(entry.metadata).get(UPLOAD, ""))
