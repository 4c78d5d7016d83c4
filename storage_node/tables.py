"""Tables: registers with all that hangs on them, read and changed in one transaction.

Owns how digests, due times, live bytes and missing bodies follow each change of a register, so that none can be
forgotten. Never decides whether a change is allowed (the acceptor does) and never commits.
"""

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Final, NamedTuple

from ring.hashing import HASH_BITS
from storage_node import keys
from storage_node.errors import IndexDamaged
from storage_node.keys import Due, Key, Layout
from storage_node.keyvalues import Reading, Writing
from storage_node.locations import (
    LOCATION_BYTES,
    UNNEEDED,
    FileId,
    InFile,
    InVolume,
    Location,
    VolumeId,
    decode_location,
)
from storage_node.tallies import Sums
from storage_node.volumes import record_bytes
from swiftlike.digests import DIGEST_BYTES, EMPTY, Digest, fingerprint
from swiftlike.entries import Entry, EntryDamaged, Version
from swiftlike.node_calls import Standing
from swiftlike.registers import Register, decode_register, encode_register
from swiftlike.timestamps import Ballot, WriteId

_COUNT: Final = Struct(">Q")
_STANDING: Final = Struct(">BQQ")

REGISTER_TABLES: Final = (b"a", b"c", b"o")
"""What the keys of all registers begin with, in their order."""

_HEAD_KEY_BYTES: Final = 4
"""Table and bucket: every path is longer."""

PartitionKey = tuple[bytes, int]
"""A table and a partition of its ring."""


class Held(NamedTuple):
    """A register and where its entry's body is."""

    register: Register
    location: Location = UNNEEDED


def read_held(view: Reading, key: bytes) -> Held | None:
    """Read what stands at a register key."""
    raw = view.get(key)
    return None if raw is None else decode_held(key, raw)


def decode_held(key: bytes, raw: bytes) -> Held:
    """Read the value at a register key. Raises IndexDamaged."""
    try:
        return Held(decode_register(raw[LOCATION_BYTES:]), decode_location(raw))
    except (EntryDamaged, ValueError) as error:
        raise IndexDamaged(f"index key {key[:80]!r}: {error}") from None


def scan_registers(
    view: Reading, table: bytes, bucket: bytes, after: bytes = b""
) -> Iterator[tuple[Key, Held]]:
    """Yield the registers of a bucket whose path lies behind `after`, in order of their paths."""
    start = table + bucket
    for key, raw in view.scan(start + after + b"\0", keys.after(start)):
        yield keys.key_of(key), decode_held(key, raw)


def read_digests(view: Reading, layout: Layout, table: bytes, first: int, stop: int) -> list[Digest]:
    """Return the digests `[first, stop)` of a table, each of one value of the leading `layout.digest_bits` bits."""
    each = 1 << (layout.digest_bits(table) - keys.BUCKET_BITS)
    first_bucket, stop_bucket = first // each, -(-stop // each)
    digests = [EMPTY] * ((stop_bucket - first_bucket) * each)
    end = table + stop_bucket.to_bytes(2, "big") if stop_bucket < 1 << keys.BUCKET_BITS else keys.after(table)
    # From one bucket that holds something to the next: the head, if there is one, is the first key of its bucket.
    bucket = first_bucket
    while bucket < stop_bucket:
        item = next(view.scan(table + bucket.to_bytes(2, "big"), end), None)
        if item is None:
            break
        key, raw = item
        bucket = int.from_bytes(key[2:4], "big")
        if len(key) == _HEAD_KEY_BYTES:
            at = (bucket - first_bucket) * each
            digests[at : at + each] = decode_head(raw)
        bucket += 1
    return digests[first % each :][: stop - first]


def read_partition_digest(view: Reading, layout: Layout, table: bytes, partition: int) -> Digest:
    """Return the digest of all registers of one partition."""
    each = 1 << (layout.digest_bits(table) - layout.part_powers[table])
    whole = EMPTY
    for digest in read_digests(view, layout, table, partition * each, (partition + 1) * each):
        whole = whole.joined(digest)
    return whole


def read_due(
    view: Reading, kind: Due, before_us: int, limit: int, from_us: int = 0
) -> list[tuple[bytes, Version | None]]:
    """Return register keys that fall due in `[from_us, before_us)`, earliest first; a debt with the version that owes it."""
    due: list[tuple[bytes, Version | None]] = []
    for raw_key, raw in view.scan(keys.due_key(kind, from_us, b""), keys.due_key(kind, before_us, b"")):
        due.append((keys.due_of(raw_key)[1], decode_version(raw) if kind is Due.DEBT else None))
        if len(due) == limit:
            break
    return due


def read_standings(view: Reading, layout: Layout) -> dict[PartitionKey, Standing]:
    """Return the standing of every partition that has one, under the part powers in use."""
    standings: dict[PartitionKey, Standing] = {}
    for key, raw in view.scan(keys.STANDINGS, keys.after(keys.STANDINGS)):
        table, power, partition = key[2:4], key[4], int.from_bytes(key[5:9], "big")
        if layout.part_powers.get(table) == power:
            votes, floor_us, refusing_us = _STANDING.unpack(raw)
            standings[table, partition] = Standing(bool(votes), floor_us, refusing_us)
    return standings


def read_live_bytes(view: Reading) -> dict[VolumeId, int]:
    """Return how many bytes of each volume something points at."""
    return {
        VolumeId(int.from_bytes(key[2:], "big")): _COUNT.unpack(raw)[0]
        for key, raw in view.scan(keys.VOLUMES, keys.after(keys.VOLUMES))
    }


def read_files_pointed_at(view: Reading, after: bytes, limit: int) -> tuple[set[FileId], bytes | None]:
    """Return the files that the `limit` registers behind the index key `after` point at, and where to go on."""
    files: set[FileId] = set()
    count, key = 0, after
    for table in REGISTER_TABLES:
        for key, raw in view.scan(max(table, after + b"\0"), keys.after(table)):
            if len(key) > _HEAD_KEY_BYTES and isinstance(location := decode_location(raw), InFile):
                files.add(location.file)
            count += 1
            if count == limit:
                return files, key
    return files, None


def reclaim_time(register: Register) -> int | None:
    """Return the time that a floor must pass before the register may go; None while it holds something live."""
    if register.entry is not None and not register.entry.tombstone:
        return None
    return max(register.ballot.micros, register.promised.micros)


def encode_version(version: Version) -> bytes:
    """Write a version down, as the value of a debt."""
    return version.ballot + version.write_id


def decode_version(raw: bytes) -> Version:
    """Read the value of a debt."""
    return Version(WriteId(raw[32:48]), Ballot(raw[:32]))


class Change:
    """One write transaction: changes collect here, and what many of them touch is written once, by `flush`."""

    def __init__(self, view: Writing, layout: Layout, standings: Mapping[PartitionKey, Standing]) -> None:
        """Take the transaction, and the committed standings."""
        self.view = view
        self.layout = layout
        self.standings_changed: dict[PartitionKey, Standing] = {}
        self.freed: list[FileId] = []
        """Files that nothing points at once this is committed."""
        self.adopted: list[FileId] = []
        """Files that an entry points at once this is committed."""
        self.tallies: dict[bytes, Sums] = {}
        """Tallies read so far, by their key; all are written back."""
        self._standings = standings
        self._heads: dict[bytes, list[list[int]]] = {}
        self._live: dict[VolumeId, int] = {}

    def standing(self, table: bytes, hashed: int) -> Standing:
        """Return what this owner may say about a path of a table."""
        return self.partition_standing(table, self.layout.partition(table, hashed))

    def partition_standing(self, table: bytes, number: int) -> Standing:
        """Return what this owner may say about a partition."""
        partition = (table, number)
        return self.standings_changed.get(partition) or self._standings.get(partition) or Standing()

    def set_standing(self, table: bytes, partition: int, standing: Standing) -> None:
        """Change the voting and the floor of a partition."""
        self.standings_changed[table, partition] = standing
        key = keys.standing_key(table, self.layout.part_powers[table], partition)
        self.view.put(key, _STANDING.pack(*standing))

    def may_grant_first_votes(self, table: bytes) -> bool:
        """Whether this index is as formatted, and no partition of the table stood under another part power.

        Under another power a vote may have been taken away from what is part of a partition now.
        """
        if self.view.get(keys.FORMATTED) is None:
            return False
        prefix, power = keys.standings_prefix(table), self.layout.part_powers[table]
        ours = prefix + bytes([power])
        stands = (
            next(self.view.scan(prefix, ours), None),
            next(self.view.scan(keys.after(ours), keys.after(prefix)), None),
        )
        return stands == (None, None)

    def stood(self, table: bytes, partition: int) -> bool:
        """Whether a partition ever had a standing, with a vote or without."""
        return self.view.get(keys.standing_key(table, self.layout.part_powers[table], partition)) is not None

    def take_all_votes(self) -> None:
        """Take the votes of all tables away, under every part power, and with them the right to first votes."""
        self.view.delete(keys.FORMATTED)
        for key, raw in list(self.view.scan(keys.STANDINGS, keys.after(keys.STANDINGS))):
            _, floor_us, refusing_us = _STANDING.unpack(raw)
            self.view.put(key, _STANDING.pack(False, floor_us, refusing_us))

    def put_register(
        self,
        key: bytes,
        path: bytes,
        hashed: int,
        before: Held | None,
        after: Held | None,
        entry_raw: bytes | None = None,
    ) -> None:
        """Replace what stands at a register key (None: nothing), and let all follow that hangs on it.

        `entry_raw` is the encoded entry of `after`, for a caller that has it.
        """
        old_entry = before.register.entry if before is not None else None
        new_entry = after.register.entry if after is not None else None
        if old_entry is not new_entry:
            self._move_digest(key, path, hashed, old_entry, new_entry)
            self._move_due(key, Due.DELETE, _delete_time(old_entry), _delete_time(new_entry))
            if old_entry is not None:
                self.view.delete(keys.due_key(Due.DEBT, old_entry.ballot.micros, key))
        self._move_due(
            key,
            Due.RECLAIM,
            None if before is None else reclaim_time(before.register),
            None if after is None else reclaim_time(after.register),
        )
        self._move_location(key, before, after)
        if after is None:
            self.view.delete(key)
        else:
            self.view.put(key, after.location.encode() + encode_register(after.register, entry_raw))

    def owe(self, key: bytes, entry: Entry) -> None:
        """Mark a key as owing the row of its entry."""
        self.view.put(keys.due_key(Due.DEBT, entry.ballot.micros, key), encode_version(entry.version))

    def owes(self, key: bytes, entry: Entry) -> bool:
        """Tell whether the row of an entry is still owed."""
        return self.view.get(keys.due_key(Due.DEBT, entry.ballot.micros, key)) is not None

    def pay(self, key: bytes, version: Version) -> bool:
        """Clear a debt, if it is still this version that owes it."""
        due = keys.due_key(Due.DEBT, version.ballot.micros, key)
        return self.view.get(due) == encode_version(version) and self.view.delete(due)

    def reclaimable(
        self, table: bytes, ring: bytes, partition: int, floor_us: int, limit: int
    ) -> list[bytes]:
        """Return up to `limit` keys of a table in a partition of table `ring` whose reclaim time lies below a floor."""
        found: list[bytes] = []
        for bucket in self.layout.buckets(ring, partition):
            start = keys.due_key(Due.RECLAIM, 0, table + bucket)
            for due, _ in self.view.scan(start, keys.due_key(Due.RECLAIM, floor_us, table + bucket)):
                if len(found) >= limit:
                    return found
                key = keys.due_of(due)[1]
                path = key[4:] if table == ring else keys.parent_path(key)
                if self.layout.partition(ring, self.layout.hashed(path)) == partition:
                    found.append(key)
        return found

    def tally(self, key: bytes) -> Sums:
        """Return the tally at a key, to be changed in place."""
        sums = self.tallies.get(key)
        if sums is None:
            sums = self.tallies[key] = Sums.decode(self.view.get(key))
        return sums

    def flush(self) -> None:
        """Write what was collected; the transaction is then ready to commit."""
        put = self.view.put
        for key, digests in self._heads.items():
            put(key, b"".join(Digest(xor, entries).encode() for xor, entries in digests))
        for key, tally in self.tallies.items():
            put(key, tally.encode())
        for volume, change in self._live.items():
            key = keys.volume_key(volume)
            raw = self.view.get(key)
            put(key, _COUNT.pack((0 if raw is None else _COUNT.unpack(raw)[0]) + change))

    def forget_volume(self, volume: VolumeId) -> None:
        """Remove the count of a volume that is about to be removed."""
        self.view.delete(keys.volume_key(volume))

    def _move_digest(
        self, key: bytes, path: bytes, hashed: int, old: Entry | None, new: Entry | None
    ) -> None:
        head_key = key[:4]
        head = self._heads.get(head_key)
        each = 1 << (self.layout.digest_bits(key[:2]) - keys.BUCKET_BITS)
        if head is None:
            raw = self.view.get(head_key)
            head = (
                [[0, 0] for _ in range(each)]
                if raw is None
                else [list(digest) for digest in decode_head(raw)]
            )
            self._heads[head_key] = head
        at = head[(hashed >> (HASH_BITS - self.layout.digest_bits(key[:2]))) % each] if each > 1 else head[0]
        if old is not None:
            at[0] ^= fingerprint(path, old)
            at[1] -= 1
        if new is not None:
            at[0] ^= fingerprint(path, new)
            at[1] += 1

    def _move_due(self, key: bytes, kind: Due, old_us: int | None, new_us: int | None) -> None:
        if old_us != new_us:
            if old_us is not None:
                self.view.delete(keys.due_key(kind, old_us, key))
            if new_us is not None:
                self.view.put(keys.due_key(kind, new_us, key), b"")

    def _move_location(self, key: bytes, before: Held | None, after: Held | None) -> None:
        old = before.location if before is not None else UNNEEDED
        new = after.location if after is not None else UNNEEDED
        if old == new:
            return
        if isinstance(old, InVolume) and before is not None:
            self._count_live(old, before, -1)
        elif isinstance(old, InFile):
            self.freed.append(old.file)
        elif not old.held:
            self.view.delete(keys.MISSING + key)
        if isinstance(new, InVolume) and after is not None:
            self._count_live(new, after, 1)
        elif not new.held:
            self.view.put(keys.MISSING + key, b"")

    def _count_live(self, location: InVolume, held: Held, sign: int) -> None:
        assert held.register.entry is not None, "only an entry has a body"
        change = sign * record_bytes(location, held.register.entry.size)
        self._live[location.volume] = self._live.get(location.volume, 0) + change


def _delete_time(entry: Entry | None) -> int | None:
    return entry.delete_at if entry is not None and entry.delete_at and not entry.tombstone else None


def decode_head(raw: bytes) -> list[Digest]:
    """Read the digests at the head of a bucket."""
    return [Digest.decode(raw, at) for at in range(0, len(raw), DIGEST_BYTES)]
