"""Keys: where in the index everything stands.

Owns the names of the tables and the order of keys within them. Never reads or writes one.

    key, version 1:    size  field
                          2  table: a letter, and a policy or a kind
                             then, by table:
    o policy, c 0, a 0       bucket(3) path                           registers: objects of a policy, containers, accounts
                             bucket(3)                                ... and, first of each bucket, its digest
    r kind                   bucket(3) path NUL incarnation(16) name  rows of a container (kind 0) or an account (kind 1)
    s kind                   bucket(3) path NUL incarnation(16)       tally of all rows of one incarnation
    g kind                   bucket(3) path NUL incarnation(16) name  tally of the rows from this name to the next range
    w kind                   bucket(3) path NUL incarnation(16)       rows of an incarnation that is gone, to be swept
    t 0                      due(8) register key                      objects by the time at which they are to be deleted
    t 1                      ballot's time(8) register key            debts: objects whose row is still owed
    t 2                      key's first four bytes, time(8), rest    tombstones and promises, by reclaim group, then time
    m 0                      register key                             entries whose body is missing here
    v 0                      volume(4)                                live bytes of a volume, and how far its records reach
    f 0                      table(2) part power(1) partition(4)      voting and floor
    f 1                                                               set by format: first votes may still be granted
    f 2                      table(2)                                 epoch of the ring that standings were last held against
    p 0                      table(2) part power(1) partition(4)      digest of a partition's registers, or of the rows under them
    p 1                      table(2) part power(1)                   set where those of a table stand there, all of them
    j                        job                                      how far a job has come; format and meaning are the job's
    # 0                                                               identity of the index

The bucket is the first three bytes of the path hash, at any part power: a partition is one run of keys (part of a bucket
where the power is above 24), and a change of power moves none. A reclaim group is a table and two bytes of the hash. Rows
carry their incarnation, so that those of a deleted container are out of sight at once, however many.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from ring.hashing import HASH_BITS, path_hash
from swiftlike.spans import behind
from swiftlike.timestamps import NO_INCARNATION, Timestamp

BUCKET_BYTES: Final = 3
BUCKET_BITS: Final = 8 * BUCKET_BYTES
_BELOW_BUCKET_BITS: Final = HASH_BITS - BUCKET_BITS
HEAD_KEY_BYTES: Final = 2 + BUCKET_BYTES
"""Table and bucket: the key of a bucket's digest, and what leads the path in the key of a register."""

_RECLAIM_BITS: Final = 16
_RECLAIM_GROUP_BYTES: Final = 4
CONTAINERS: Final = b"c\0"
ACCOUNTS: Final = b"a\0"
MISSING: Final = b"m\0"
VOLUMES: Final = b"v\0"
STANDINGS: Final = b"f\0"
FORMATTED: Final = b"f\1"
EPOCHS: Final = b"f\2"
DIGESTS: Final = b"p\0"
DIGESTS_COUNTED: Final = b"p\1"
ROWS_OF: Final = {CONTAINERS: b"r\0", ACCOUNTS: b"r\1"}
"""The rows that stand under the registers of a table, and are placed by its ring."""
RING_OF: Final = {rows: table for table, rows in ROWS_OF.items()}
"""And the other way about."""
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


class DueDelete(NamedTuple):
    """An object and the time at which it is to be deleted; in the order in which they fall due."""

    at_us: int
    key: Key


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

    def reclaim_groups(self, ring: bytes, partition: int) -> range:
        """Return the groups in which the reclaimable keys of a partition stand; above 2^16 with others' keys."""
        return _cut(self.part_powers[ring], partition, partition + 1, _RECLAIM_BITS)


def buckets_of(bits: int, first: int, stop: int) -> range:
    """Return the buckets that hold the path hashes whose leading `bits` bits are `[first, stop)`."""
    return _cut(bits, first, stop, BUCKET_BITS)


def _cut(bits: int, first: int, stop: int, cells_bits: int) -> range:
    if bits <= cells_bits:
        return range(first << (cells_bits - bits), stop << (cells_bits - bits))
    return range(first >> (bits - cells_bits), ((stop - 1) >> (bits - cells_bits)) + 1)


def partitions_of(bits: int, bucket: int) -> range:
    """Return the partitions, numbered by so many bits, whose path hashes lie in a bucket or share one with it."""
    return _cut(BUCKET_BITS, bucket, bucket + 1, bits)


def bucket_key(table: bytes, bucket: int) -> bytes:
    """Return where a bucket begins, and its digest stands; of one behind the last, where the table ends."""
    if bucket >> BUCKET_BITS:
        return after(table)
    return table + bucket.to_bytes(BUCKET_BYTES, "big")


def bucket_in(key: bytes) -> int:
    """Return the bucket that a key of a register table lies in."""
    return int.from_bytes(key[2:HEAD_KEY_BYTES], "big")


def bucket_of(hashed: int) -> bytes:
    """Return the bucket of a path hash, as it stands in a key."""
    return (hashed >> _BELOW_BUCKET_BITS).to_bytes(BUCKET_BYTES, "big")


def register_key(key: Key, hashed: int) -> bytes:
    """Return where a register stands."""
    return key.table + (hashed >> _BELOW_BUCKET_BITS).to_bytes(BUCKET_BYTES, "big") + key.path


def key_of(raw: bytes) -> Key:
    """Return the register that stands at an index key of a register table."""
    return Key(raw[:2], raw[HEAD_KEY_BYTES:])


def rows_prefix(listing: Listing, hashed: int) -> bytes:
    """Return what leads the keys of a listing's rows; a row's name follows. `hashed` is the parent's."""
    kind = b"r\1" if listing.parent.table == ACCOUNTS else b"r\0"
    return kind + bucket_of(hashed) + listing.parent.path + b"\0" + listing.incarnation


def parent_path(row_key: bytes) -> bytes:
    """Return the path of the container or account that the key of a row belongs to."""
    path = row_key[HEAD_KEY_BYTES:]
    end = path.index(b"\0", 1)
    if row_key[:2] == b"r\0":
        # account NUL container NUL: a hidden container's name begins with NUL itself, so one byte is passed over.
        end = path.index(b"\0", end + 2)
    return path[:end]


def split_row_key(row_key: bytes) -> tuple[Listing, bytes]:
    """Return the listing and the name that the key of a row was made of."""
    path = parent_path(row_key)
    rest = row_key[HEAD_KEY_BYTES + len(path) + 1 :]
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
        return table + key[:_RECLAIM_GROUP_BYTES] + _TIME.pack(micros) + key[_RECLAIM_GROUP_BYTES:]
    return table + _TIME.pack(micros) + key


def reclaim_due_key(table: bytes, group: int, micros: int) -> bytes:
    """Return where the keys of a group of a table begin that may be reclaimed from `micros` on; of one behind the last, where
    the table ends.
    """
    lead = b"t" + Due.RECLAIM.to_bytes(1, "big") + table
    if group >> _RECLAIM_BITS:
        return after(lead)
    return lead + group.to_bytes(2, "big") + _TIME.pack(micros)


def reclaim_group_of(raw: bytes) -> int:
    """Return the group that a key of what may be reclaimed stands in."""
    return int.from_bytes(raw[4:6], "big")


def due_of(raw: bytes) -> tuple[int, bytes]:
    """Return the time and the key that a due key was made of."""
    if raw[1] == Due.RECLAIM:
        return _TIME.unpack_from(raw, 6)[0], raw[2:6] + raw[14:]
    return _TIME.unpack_from(raw, 2)[0], raw[10:]


def volume_key(volume: int) -> bytes:
    """Return where the live bytes of a volume stand."""
    return VOLUMES + _NUMBER.pack(volume)


def job_key(job: str) -> bytes:
    """Return where it stands how far a job has come."""
    return b"j" + job.encode()


def standing_key(table: bytes, part_power: int, partition: int) -> bytes:
    """Return where the voting and the floor of a partition stand."""
    return standings_prefix(table, part_power) + _NUMBER.pack(partition)


def standings_prefix(table: bytes, part_power: int) -> bytes:
    """Return what leads the keys of a table's standings whose partitions are numbered under a part power."""
    return STANDINGS + table + part_power.to_bytes(1, "big")


def standing_of(raw: bytes) -> tuple[bytes, int, int]:
    """Return the table, the part power and the partition that the key of a standing was made of."""
    return raw[2:4], raw[4], _NUMBER.unpack_from(raw, 5)[0]


def power_of(layout: Layout, kind: bytes) -> int:
    """Return the part power that numbers the partitions of a table of registers, or of the rows under one."""
    return layout.part_powers[RING_OF.get(kind, kind)]


def digest_key(kind: bytes, part_power: int, partition: int) -> bytes:
    """Return where the digest of a partition's registers stands, or of the rows under them."""
    return DIGESTS + kind + part_power.to_bytes(1, "big") + _NUMBER.pack(partition)


def partition_in(raw: bytes) -> int:
    """Return the partition that the key of a digest was made of."""
    return int(_NUMBER.unpack_from(raw, 5)[0])


def digests_mark(kind: bytes, part_power: int) -> bytes:
    """Return what is set where the digests of a table's partitions stand under a part power."""
    return DIGESTS_COUNTED + kind + part_power.to_bytes(1, "big")


after: Final = behind
"""The least key above all that begin with a prefix, which is not all 0xff."""
