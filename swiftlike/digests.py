"""Digests: an order-free summary of many entries. Equal digests, equal contents.

Owns what is hashed and how digests add up. Never says which entries belong together: a table's buckets and a
container's ranges do.

    digest, version 1, big-endian:  offset  size  field
                                         0    16  XOR over entries of xxh3_128(key, ballot, write id)
                                        16     8  count of entries
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from xxhash import xxh3_128_intdigest

from swiftlike.entries import Entry

_DIGEST: Final = Struct(">16sQ")
DIGEST_BYTES: Final = _DIGEST.size
assert DIGEST_BYTES == 24, "the table and the code must agree"


def fingerprint(key: bytes, entry: Entry) -> int:
    """Return what one entry adds to the digest that covers it: 128 bits that depend on the whole (key, ballot, write id).

    The key comes last: all before it has a fixed length, so no two entries share one concatenation.
    """
    return xxh3_128_intdigest(entry.ballot + entry.write_id + key)


class Digest(NamedTuple):
    """The XOR of fingerprints, and how many there are: an even number of equal damages cannot cancel out unseen."""

    xor: int = 0
    entries: int = 0

    def added(self, mark: int) -> "Digest":
        """Return the digest with one more fingerprint."""
        return Digest(self.xor ^ mark, self.entries + 1)

    def removed(self, mark: int) -> "Digest":
        """Return the digest with one fingerprint less."""
        return Digest(self.xor ^ mark, self.entries - 1)

    def joined(self, other: "Digest") -> "Digest":
        """Return the digest of two disjoint sets of entries."""
        return Digest(self.xor ^ other.xor, self.entries + other.entries)

    def encode(self) -> bytes:
        """Write it down."""
        return _DIGEST.pack(self.xor.to_bytes(16, "big"), self.entries)

    @classmethod
    def decode(cls, raw: bytes, offset: int = 0) -> "Digest":
        """Read it from `offset`."""
        xor, count = _DIGEST.unpack_from(raw, offset)
        return cls(int.from_bytes(xor, "big"), count)


EMPTY: Final = Digest()


def digest_of(entries: Iterable[tuple[bytes, Entry]]) -> Digest:
    """Return the digest of these keys and entries."""
    xor = count = 0
    for key, entry in entries:
        xor ^= fingerprint(key, entry)
        count += 1
    return Digest(xor, count)
