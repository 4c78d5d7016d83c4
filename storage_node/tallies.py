"""Tallies as an index keeps them: sums that rows are counted into and out of.

Owns their byte form and arithmetic. Never reads a row.

    tally, version 1, big-endian:  offset  size  field
                                        0     1  version = 1
                                        1     1  zero
                                        2     2  count of policies
                                        4    24  digest of all rows, tombstones too
                                       28     8  rows that are no tombstones
                                       36     8  objects that they stand for
                                       44     8  bytes that they stand for
                                      26 ×       policy, rows, objects, bytes
"""

from struct import Struct
from typing import Final

from storage_node.errors import IndexDamaged
from swiftlike.digests import Digest, fingerprint
from swiftlike.entries import Entry
from swiftlike.node_calls import Tally

_FIXED: Final = Struct(">BxH16sQQQQ")
_POLICY: Final = Struct(">HQQQ")
assert (_FIXED.size, _POLICY.size) == (52, 26), "the table and the code must agree"
_VERSION: Final = 1


class Sums:
    """Sums over rows; mutable, since a batch of many rows of one container counts them here."""

    __slots__ = ("bytes", "objects", "policies", "rows", "rows_and_tombstones", "xor")

    def __init__(self) -> None:
        """Begin with no rows."""
        self.xor = 0
        self.rows_and_tombstones = 0
        self.rows = 0
        self.objects = 0
        self.bytes = 0
        self.policies: dict[int, tuple[int, int, int]] = {}
        """Rows, objects and bytes of each policy."""

    @property
    def digest(self) -> Digest:
        """The digest of all rows, tombstones too."""
        return Digest(self.xor, self.rows_and_tombstones)

    @property
    def tally(self) -> Tally:
        """What they are now, as a value."""
        policies = tuple((policy, *sums) for policy, sums in sorted(self.policies.items()))
        return Tally(self.digest, self.rows, self.objects, self.bytes, policies)

    def add(self, name: bytes, entry: Entry) -> None:
        """Count a row in."""
        self.xor ^= fingerprint(name, entry)
        self.rows_and_tombstones += 1
        if not entry.tombstone:
            self._count(entry, 1)

    def remove(self, name: bytes, entry: Entry) -> None:
        """Count a row out."""
        self.xor ^= fingerprint(name, entry)
        self.rows_and_tombstones -= 1
        if not entry.tombstone:
            self._count(entry, -1)

    def include(self, other: "Sums") -> None:
        """Add the sums over other rows."""
        self.xor ^= other.xor
        self.rows_and_tombstones += other.rows_and_tombstones
        self.rows += other.rows
        self.objects += other.objects
        self.bytes += other.bytes
        for policy, sums in other.policies.items():
            mine = self.policies.get(policy, (0, 0, 0))
            self.policies[policy] = (mine[0] + sums[0], mine[1] + sums[1], mine[2] + sums[2])

    def _count(self, entry: Entry, sign: int) -> None:
        objects, size = sign * entry.objects, sign * entry.size
        self.rows += sign
        self.objects += objects
        self.bytes += size
        had_rows, had_objects, had_bytes = self.policies.get(entry.policy, (0, 0, 0))
        self.policies[entry.policy] = (had_rows + sign, had_objects + objects, had_bytes + size)
        if self.policies[entry.policy] == (0, 0, 0):
            del self.policies[entry.policy]

    def __eq__(self, other: object) -> bool:
        """Sums are equal when each of theirs is."""
        return isinstance(other, Sums) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def encode(self) -> bytes:
        """Write it down."""
        fixed = _FIXED.pack(
            _VERSION,
            len(self.policies),
            self.xor.to_bytes(16, "big"),
            self.rows_and_tombstones,
            self.rows,
            self.objects,
            self.bytes,
        )
        return fixed + b"".join(_POLICY.pack(policy, *sums) for policy, sums in sorted(self.policies.items()))

    @classmethod
    def decode(cls, raw: bytes | None) -> "Sums":
        """Read it; None, where nothing stands, is the tally of no rows."""
        sums = cls()
        if raw is None:
            return sums
        version, policies, xor, sums.rows_and_tombstones, sums.rows, sums.objects, sums.bytes = (
            _FIXED.unpack_from(raw)
        )
        if version != _VERSION or len(raw) != _FIXED.size + policies * _POLICY.size:
            raise IndexDamaged(
                f"tally version {version} of {len(raw)} bytes is not known to this release; upgrade it"
            )
        sums.xor = int.from_bytes(xor, "big")
        sums.policies = {
            policy: (rows, objects, size)
            for policy, rows, objects, size in _POLICY.iter_unpack(raw[_FIXED.size :])
        }
        return sums
