"""Keys: where in the index everything stands.

Owns the names of the tables and the order of keys within them. Never reads or writes one.

    key, version 1:    size  field
                          2  table: a letter, and a policy or a kind
                             then, by table:
    o policy, c 0, a 0       bucket(2) path                           registers: objects of a policy, containers, accounts
                             bucket(2)                                ... and, first of each bucket, its digests
    r kind                   bucket(2) path NUL incarnation(16) name  rows of a container (kind 0) or an account (kind 1)
    s kind                   bucket(2) path NUL incarnation(16)       tally of all rows of one incarnation
    g kind                   bucket(2) path NUL incarnation(16) name  tally of the rows from this name to the next range
    w kind                   bucket(2) path NUL incarnation(16)       rows of an incarnation that is gone, to be swept
    t 0                      due(8) register key                      objects by the time at which they are to be deleted
    t 1                      ballot's time(8) register key            debts: objects whose row is still owed
    t 2                      key's first four bytes, time(8), rest    tombstones and promises, by bucket and then time
    m 0                      register key                             entries whose body is missing here
    v 0                      volume(4)                                live bytes of a volume
    f 0                      table(2) part power(1) partition(4)      voting and floor
    f 1                                                               set by format: first votes may still be granted
    # 0                                                               identity of the index

The bucket is the first 16 bits of the path hash, so that a partition is a few runs of keys and a change of part power
moves none. Rows carry their incarnation, so that those of a deleted container are out of sight at once, however many.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from ring.hashing import HASH_BITS, path_hash
from swiftlike.timestamps import NO_INCARNATION, Timestamp

BUCKET_BITS: Final = 16
CONTAINERS: Final = b"c\0"
ACCOUNTS: Final = b"a\0"
MISSING: Final = b"m\0"
VOLUMES: Final = b"v\0"
STANDINGS: Final = b"f\0"
FORMATTED: Final = b"f\1"
IDENTITY: Final = b"#\0"

_TIME: Final = Struct(">Q")
_NUMBER: Final = Struct(">I")


def objects(policy: int) -> bytes:
    """Return the table of objects of a policy, 0 to 255."""
    return b"o" + policy.to_bytes(1, "big")


class Due(IntEnum):
    """What falls due with time."""

    DELETE = 0
    DEBT = 1
    RECLAIM = 2


class Key(NamedTuple):
    """One register: a table and a whole path."""

    table: bytes
    path: bytes

    @property
    def holds_rows(self) -> bool:
        """Whether rows stand under this key."""
        return self.table in (CONTAINERS, ACCOUNTS)


class Listing(NamedTuple):
    """The rows of one incarnation of a container, or of an account (which has none)."""

    parent: Key
    incarnation: Timestamp = NO_INCARNATION


@dataclass(frozen=True, slots=True)
class Layout:
    """How this cluster hashes paths, and how finely each ring divides them."""

    seed: int
    """The cluster's secret 64-bit seed."""
    part_powers: Mapping[bytes, int]
    """Part power of each table's ring."""

    def hashed(self, path: bytes) -> int:
        """Return the 128-bit hash that places a path."""
        return path_hash(path, self.seed)

    def partition(self, table: bytes, hashed: int) -> int:
        """Return the partition of a path hash in a table's ring."""
        return hashed >> (HASH_BITS - self.part_powers[table])

    def digest_bits(self, table: bytes) -> int:
        """Return how many leading bits of the path hash share a digest: a bucket's, or a partition's if that is smaller."""
        return max(BUCKET_BITS, self.part_powers[table])

    def buckets(self, table: bytes, partition: int) -> list[bytes]:
        """Return the buckets that a partition lies in: many, or part of one above a part power of BUCKET_BITS."""
        power = self.part_powers[table]
        if power > BUCKET_BITS:
            return [(partition >> (power - BUCKET_BITS)).to_bytes(2, "big")]
        each = 1 << (BUCKET_BITS - power)
        return [bucket.to_bytes(2, "big") for bucket in range(partition * each, (partition + 1) * each)]


def bucket_of(hashed: int) -> bytes:
    """Return the bucket of a path hash, two bytes."""
    return (hashed >> (HASH_BITS - BUCKET_BITS)).to_bytes(2, "big")


def register_key(key: Key, hashed: int) -> bytes:
    """Return where a register stands."""
    return key.table + bucket_of(hashed) + key.path


def key_of(raw: bytes) -> Key:
    """Return the register that stands at an index key of a register table."""
    return Key(raw[:2], raw[4:])


def rows_prefix(listing: Listing, hashed: int) -> bytes:
    """Return what leads the keys of a listing's rows; a row's name follows. `hashed` is the parent's."""
    kind = b"r\1" if listing.parent.table == ACCOUNTS else b"r\0"
    return kind + bucket_of(hashed) + listing.parent.path + b"\0" + listing.incarnation


def parent_path(row_key: bytes) -> bytes:
    """Return the path of the container or account that the key of a row belongs to."""
    path = row_key[4:]
    end = path.index(b"\0", 1)
    if row_key[:2] == b"r\0":
        # account NUL container NUL: a hidden container's name begins with NUL itself, so one byte is passed over.
        end = path.index(b"\0", end + 2)
    return path[:end]


def split_row_key(row_key: bytes) -> tuple[Listing, bytes]:
    """Return the listing and the name that the key of a row was made of."""
    path = parent_path(row_key)
    rest = row_key[4 + len(path) + 1 :]
    parent = Key(ACCOUNTS if row_key[:2] == b"r\1" else CONTAINERS, path)
    return Listing(parent, Timestamp(rest[:16])), rest[16:]


def tally_key(prefix: bytes) -> bytes:
    """Return where the tally of a listing stands, given its rows' prefix."""
    return b"s" + prefix[1:]


def range_key(prefix: bytes, first: bytes) -> bytes:
    """Return where the tally of the rows from `first` on stands."""
    return b"g" + prefix[1:] + first


def sweep_key(prefix: bytes) -> bytes:
    """Return where a listing stands that is to be swept."""
    return b"w" + prefix[1:]


def due_key(kind: Due, micros: int, key: bytes) -> bytes:
    """Return where a key stands that falls due at `micros`."""
    table = b"t" + kind.to_bytes(1, "big")
    if kind is Due.RECLAIM:
        return table + key[:4] + _TIME.pack(micros) + key[4:]
    return table + _TIME.pack(micros) + key


def due_of(raw: bytes) -> tuple[int, bytes]:
    """Return the time and the key that a due key was made of."""
    if raw[1] == Due.RECLAIM:
        return _TIME.unpack_from(raw, 6)[0], raw[2:6] + raw[14:]
    return _TIME.unpack_from(raw, 2)[0], raw[10:]


def volume_key(volume: int) -> bytes:
    """Return where the live bytes of a volume stand."""
    return VOLUMES + _NUMBER.pack(volume)


def standing_key(table: bytes, part_power: int, partition: int) -> bytes:
    """Return where the voting and the floor of a partition stand."""
    return STANDINGS + table + part_power.to_bytes(1, "big") + _NUMBER.pack(partition)


def standings_prefix(table: bytes) -> bytes:
    """Return what leads the keys of a table's standings; the part power that numbers its partitions follows."""
    return STANDINGS + table


def after(prefix: bytes) -> bytes:
    """Return the least key above all that begin with `prefix`, which is not all 0xff."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])
