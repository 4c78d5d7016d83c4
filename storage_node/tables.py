"""Tables: registers with all that hangs on them, read and changed in one transaction.

Owns how digests, due times, live bytes and missing bodies follow each change of a register, so that none can be
forgotten. Never decides whether a change is allowed (the acceptor does) and never commits.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from itertools import islice
from struct import Struct
from typing import Final, NamedTuple

from ring.hashing import HASH_BITS
from storage_node import keys
from storage_node.errors import IndexDamaged
from storage_node.keys import HEAD_KEY_BYTES, Due, DueDelete, Key, Layout
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
from swiftlike.node_calls import HeldVersion, Standing
from swiftlike.registers import Register, decode_register, encode_register
from swiftlike.timestamps import ZERO_BALLOT, Ballot, WriteId

_COUNT: Final = Struct(">QQ")
_LIVE_ONLY: Final = Struct(">Q")
"""What was written of a volume before its end was."""
_STANDING: Final = Struct(">BQQ")

REGISTER_TABLES: Final = (b"a", b"c", b"o")
"""What the keys of all registers begin with, in their order."""

_WALKED_MAX: Final = 8
"""Entries that are walked over on the way from one bucket's head to the next; from more, it is quicker to seek."""

PartitionKey = tuple[bytes, int]
"""A table and a partition of its ring."""


class Held(NamedTuple):
    """A register and where its entry's body is."""

    register: Register
    location: Location = UNNEEDED


class VolumeCount(NamedTuple):
    """What the index says of a volume."""

    live_bytes: int
    """Bytes that something points at."""
    end: int
    """Where the last record ends that anything ever pointed at; 0: not known."""

    def encode(self) -> bytes:
        """Write it down."""
        return _COUNT.pack(*self)

    @classmethod
    def decode(cls, raw: bytes | None) -> "VolumeCount":
        """Read it."""
        if raw is None:
            return cls(0, 0)
        live_bytes, end = _COUNT.unpack(raw) if len(raw) == _COUNT.size else (*_LIVE_ONLY.unpack(raw), 0)
        return cls(live_bytes, end)


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
    view: Reading, layout: Layout, table: bytes, bits: int, number: int, after: bytes = b""
) -> Iterator[tuple[Key, Held]]:
    """Yield the registers whose path hash begins with the `bits` bits of `number`: by bucket, then by path.

    With a path `after`, those behind it: it must be one of them, or have been.
    """
    buckets = keys.buckets_of(bits, number, number + 1)
    start = keys.bucket_key(table, buckets.start)
    if after:
        start = max(start, keys.register_key(Key(table, after), layout.hashed(after)) + b"\0")
    for raw_key, raw in view.scan(start, keys.bucket_key(table, buckets.stop)):
        if len(raw_key) == HEAD_KEY_BYTES:
            continue
        key = keys.key_of(raw_key)
        if bits <= keys.BUCKET_BITS or layout.hashed(key.path) >> (HASH_BITS - bits) == number:
            yield key, decode_held(raw_key, raw)


def read_digests(
    view: Reading, layout: Layout, table: bytes, bits: int, first: int, stop: int
) -> list[Digest]:
    """Return digests of a table's registers, one for each number in `[first, stop)`: of the hashes that begin with it.

    Up to BUCKET_BITS they are added up from the heads of buckets, beyond that from the few registers of each.
    """
    if bits > keys.BUCKET_BITS:
        return _count_digests(view, layout, table, bits, first, stop)
    xors, counts = [0] * (stop - first), [0] * (stop - first)
    shift = keys.BUCKET_BITS - bits
    for bucket, head in _read_heads(view, table, keys.buckets_of(bits, first, stop)):
        at = (bucket >> shift) - first
        xors[at] ^= head.xor
        counts[at] += head.entries
    return list(map(Digest, xors, counts))


def _read_heads(view: Reading, table: bytes, buckets: range) -> Iterator[tuple[int, Digest]]:
    """Yield the digests of those buckets that hold something."""
    bucket, end = buckets.start, keys.bucket_key(table, buckets.stop)
    full = True
    while full:
        full = False
        for key, raw in view.scan(keys.bucket_key(table, bucket), end):
            if len(key) == HEAD_KEY_BYTES:
                head = decode_head(key, raw)
                bucket = keys.bucket_in(key)
                yield bucket, head
                if head.entries > _WALKED_MAX:
                    bucket, full = bucket + 1, True
                    break


def _count_digests(
    view: Reading, layout: Layout, table: bytes, bits: int, first: int, stop: int
) -> list[Digest]:
    digests = [EMPTY] * (stop - first)
    buckets = keys.buckets_of(bits, first, stop)
    for bucket in buckets:
        for key, held in scan_registers(view, layout, table, keys.BUCKET_BITS, bucket):
            at = (layout.hashed(key.path) >> (HASH_BITS - bits)) - first
            if held.register.entry is not None and 0 <= at < len(digests):
                digests[at] = digests[at].added(fingerprint(key.path, held.register.entry))
    return digests


def read_versions(
    view: Reading, layout: Layout, table: bytes, bits: int, number: int, after: bytes = b""
) -> Iterator[HeldVersion]:
    """Yield what a replicator compares of the registers that `scan_registers` yields."""
    for key, held in scan_registers(view, layout, table, bits, number, after):
        yield _version_of(view, keys.register_key(key, layout.hashed(key.path)), key.path, held)


def read_version(view: Reading, layout: Layout, key: Key) -> HeldVersion:
    """Return what a replicator compares of one key."""
    raw_key = keys.register_key(key, layout.hashed(key.path))
    held = read_held(view, raw_key)
    if held is None:
        return HeldVersion(key.path, None, ZERO_BALLOT, whole=True, owes=False)
    return _version_of(view, raw_key, key.path, held)


def _version_of(view: Reading, raw_key: bytes, path: bytes, held: Held) -> HeldVersion:
    entry = held.register.entry
    if entry is None:
        return HeldVersion(path, None, held.register.promised, whole=True, owes=False)
    return HeldVersion(
        path, entry.version, held.register.promised, held.location.held, owes_row(view, raw_key, entry)
    )


def owes_row(view: Reading, key: bytes, entry: Entry) -> bool:
    """Tell whether the row of an entry is still owed."""
    return view.get(keys.due_key(Due.DEBT, entry.ballot.micros, key)) is not None


def read_held_partitions(
    view: Reading, layout: Layout, table: bytes, passed_over: Container[int]
) -> list[int]:
    """Return the partitions of which anything is held, but for those `passed_over`; costs a seek for each run of these.

    The rows under a table's registers count as well.
    """
    found: set[int] = set()
    power = layout.part_powers[table]
    kinds = [(table, False)]
    if table in keys.ROWS_OF:
        kinds.append((b"s" + keys.ROWS_OF[table][1:], True))
    for lead, is_listing in kinds:
        number, end = 0, keys.after(lead)
        while number < 1 << power:
            if number in passed_over or number in found:
                number += 1
                continue
            start = keys.bucket_key(lead, keys.buckets_of(power, number, number + 1).start)
            held = _first_held(
                view, layout, lead, start, end, is_listing=is_listing, power=power, least=number
            )
            if held is None:
                break
            number = held
            if number not in passed_over:
                found.add(number)
    return sorted(found)


def _first_held(
    view: Reading,
    layout: Layout,
    lead: bytes,
    start: bytes,
    end: bytes,
    *,
    is_listing: bool,
    power: int,
    least: int,
) -> int | None:
    """Return the first partition from `least` on of which something stands in a table."""
    for key, raw in view.scan(start, end):
        if len(key) == HEAD_KEY_BYTES or (is_listing and not Sums.decode(raw).rows_and_tombstones):
            continue
        if power <= keys.BUCKET_BITS:
            return keys.bucket_in(key) >> (keys.BUCKET_BITS - power)
        path = keys.parent_path(b"r" + key[1:]) if is_listing else key[HEAD_KEY_BYTES:]
        number = layout.hashed(path) >> (HASH_BITS - power)
        if number >= least:
            return number
    return None


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


def read_due_deletes(
    view: Reading, layout: Layout, before_us: int, limit: int, after: DueDelete | None = None
) -> list[DueDelete]:
    """Return objects that are to be deleted before a time, earliest first, from behind `after`: many share one second."""
    start = keys.due_key(Due.DELETE, 0, b"")
    if after is not None:
        register = keys.register_key(after.key, layout.hashed(after.key.path))
        start = keys.due_key(Due.DELETE, after.at_us, register) + b"\0"
    found = islice(view.scan(start, keys.due_key(Due.DELETE, before_us, b"")), limit)
    due = [keys.due_of(raw_key) for raw_key, _ in found]
    return [DueDelete(at_us, keys.key_of(raw)) for at_us, raw in due]


def read_standings(view: Reading, layout: Layout) -> dict[PartitionKey, Standing]:
    """Return the standing of every partition that has one, under the part powers in use."""
    standings: dict[PartitionKey, Standing] = {}
    for key, raw in view.scan(keys.STANDINGS, keys.after(keys.STANDINGS)):
        table, power, partition = keys.standing_of(key)
        if layout.part_powers.get(table) == power:
            standings[table, partition] = decode_standing(raw)
    return standings


def read_volumes(view: Reading) -> dict[VolumeId, VolumeCount]:
    """Return what is counted of each volume."""
    return {
        VolumeId(int.from_bytes(key[2:], "big")): VolumeCount.decode(raw)
        for key, raw in view.scan(keys.VOLUMES, keys.after(keys.VOLUMES))
    }


def read_live_bytes(view: Reading) -> dict[VolumeId, int]:
    """Return how many bytes of each volume something points at."""
    return {volume: count.live_bytes for volume, count in read_volumes(view).items()}


def read_lost_bodies(
    view: Reading, sizes: Mapping[VolumeId, int], after: bytes, limit: int
) -> tuple[list[tuple[Key, InVolume]], bytes | None]:
    """Return which bodies among the `limit` registers behind the index key `after` reach beyond the size that their volume is
    given in `sizes`, and where to go on; None: these were the last.
    """
    lost: list[tuple[Key, InVolume]] = []
    count, key = 0, after
    for table in REGISTER_TABLES:
        for key, raw in view.scan(max(table, after + b"\0"), keys.after(table)):
            if len(key) > HEAD_KEY_BYTES and isinstance(place := decode_location(raw), InVolume):
                size = sizes.get(place.volume)
                if size is not None and _end_of(place, decode_held(key, raw)) > size:
                    lost.append((keys.key_of(key), place))
            count += 1
            if count == limit:
                return lost, key
    return lost, None


def read_files_pointed_at(view: Reading, after: bytes, limit: int) -> tuple[set[FileId], bytes | None]:
    """Return the files that the `limit` registers behind the index key `after` point at, and where to go on."""
    files: set[FileId] = set()
    count, key = 0, after
    for table in REGISTER_TABLES:
        for key, raw in view.scan(max(table, after + b"\0"), keys.after(table)):
            if len(key) > HEAD_KEY_BYTES and isinstance(location := decode_location(raw), InFile):
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
        self._digests_moved: dict[PartitionKey, list[int]] = {}
        """By how much the digest of each partition changes: an XOR, and a difference of counts."""
        self._recounts: dict[PartitionKey, Callable[[Reading], Digest]] = {}
        self._standings = standings
        self._heads: dict[bytes, list[int]] = {}
        self._live: dict[VolumeId, int] = {}
        self._ends: dict[VolumeId, int] = {}

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

    def may_grant_first_votes(self) -> bool:
        """Whether this index is the one that was formatted, and never lost its votes."""
        return self.view.get(keys.FORMATTED) is not None

    def stood(self, table: bytes, partition: int) -> bool:
        """Whether a partition ever had a standing, with a vote or without."""
        return self.view.get(keys.standing_key(table, self.layout.part_powers[table], partition)) is not None

    def epoch(self, table: bytes) -> int:
        """Return the epoch of a table's ring that the standings were last held against; 0 before the first."""
        raw = self.view.get(keys.EPOCHS + table)
        return 0 if raw is None else int.from_bytes(raw, "big")

    def set_epoch(self, table: bytes, epoch: int) -> None:
        """Note that the standings were held against this epoch."""
        self.view.put(keys.EPOCHS + table, epoch.to_bytes(4, "big"))

    def all_standings(self, table: bytes) -> dict[int, Standing]:
        """Return the standings of a table by partition, as this transaction sees them."""
        prefix = keys.standings_prefix(table, self.layout.part_powers[table])
        return {
            keys.standing_of(key)[2]: decode_standing(raw)
            for key, raw in self.view.scan(prefix, keys.after(prefix))
        }

    def take_all_votes(self) -> None:
        """Take the votes of all tables away, under every part power, and with them the right to first votes."""
        self.view.delete(keys.FORMATTED)
        for key, raw in list(self.view.scan(keys.STANDINGS, keys.after(keys.STANDINGS))):
            self.view.put(key, _STANDING.pack(*decode_standing(raw)._replace(votes=False)))

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
        return owes_row(self.view, key, entry)

    def pay(self, key: bytes, version: Version) -> bool:
        """Clear a debt, if it is still this version that owes it."""
        due = keys.due_key(Due.DEBT, version.ballot.micros, key)
        return self.view.get(due) == encode_version(version) and self.view.delete(due)

    def reclaimable(
        self, table: bytes, ring: bytes, partition: int, floor_us: int, limit: int
    ) -> list[bytes]:
        """Return up to `limit` keys of a table in a partition of table `ring` whose reclaim time lies below a floor."""
        found: list[bytes] = []
        groups = self.layout.reclaim_groups(ring, partition)
        group, end = groups.start, keys.reclaim_due_key(table, groups.stop, 0)
        while group < groups.stop:
            # Most groups are empty: the next that is not is a seek away, however many lie between.
            ahead, _ = self.view.take(keys.reclaim_due_key(table, group, 0), end, 1)
            if not ahead:
                break
            group = keys.reclaim_group_of(ahead[0])
            start, stop = (keys.reclaim_due_key(table, group, micros) for micros in (0, floor_us))
            for due, _ in self.view.scan(start, stop):
                if len(found) >= limit:
                    return found
                key = keys.due_of(due)[1]
                path = keys.key_of(key).path if table == ring else keys.parent_path(key)
                if self.layout.partition(ring, self.layout.hashed(path)) == partition:
                    found.append(key)
            group += 1
        return found

    def tally(self, key: bytes) -> Sums:
        """Return the tally at a key, to be changed in place."""
        sums = self.tallies.get(key)
        if sums is None:
            sums = self.tallies[key] = Sums.decode(self.view.get(key))
        return sums

    def set_head(self, head_key: bytes, counted: Digest) -> bool:
        """Put the digest of a bucket right; say whether it was wrong."""
        raw = self.view.get(head_key)
        stood = self._heads.get(head_key) or ([0, 0] if raw is None else list(decode_head(head_key, raw)))
        self._heads[head_key] = list(counted)
        return stood != list(counted)

    def recount_partition(self, kind: bytes, partition: int, count: Callable[[Reading], Digest]) -> None:
        """Have the digest of a partition counted anew, once all else that this transaction changes is written."""
        self._recounts[kind, partition] = count

    def set_tally(self, key: bytes, counted: Sums) -> bool:
        """Put a tally right; say whether it was wrong."""
        was_wrong = self.tally(key) != counted
        self.tallies[key] = counted
        return was_wrong

    def flush(self) -> None:
        """Write what was collected; the transaction is then ready to commit."""
        put = self.view.put
        for key, (xor, entries) in self._heads.items():
            self._put_digest(key, Digest(xor, entries))
        for key, tally in self.tallies.items():
            put(key, tally.encode())
        for volume, change in self._live.items():
            key = keys.volume_key(volume)
            live_bytes, end = VolumeCount.decode(self.view.get(key))
            put(key, _COUNT.pack(live_bytes + change, max(end, self._ends.get(volume, 0))))
        self._flush_partitions()

    def _flush_partitions(self) -> None:
        """Let the digests of partitions follow; those that are to be counted are, from all that is written by now."""
        for (kind, partition), moved in self._digests_moved.items():
            if (moved[0] or moved[1]) and (kind, partition) not in self._recounts:
                key = keys.digest_key(kind, keys.power_of(self.layout, kind), partition)
                raw = self.view.get(key)
                stood = EMPTY if raw is None else decode_head(key, raw)
                self._put_digest(key, stood.joined(Digest(*moved)))
        for (kind, partition), count in self._recounts.items():
            key = keys.digest_key(kind, keys.power_of(self.layout, kind), partition)
            self._put_digest(key, count(self.view))

    def _put_digest(self, key: bytes, digest: Digest) -> None:
        if digest == EMPTY:
            self.view.delete(key)  # so that what holds nothing any more is passed over
        else:
            self.view.put(key, digest.encode())

    def forget_volume(self, volume: VolumeId) -> None:
        """Remove the count of a volume that is about to be removed."""
        self.view.delete(keys.volume_key(volume))

    def shorten_volume(self, volume: VolumeId) -> None:
        """Let the end of a volume be as little known as it was at first: what lay there is lost, and disowned."""
        key = keys.volume_key(volume)
        self.view.put(key, VolumeCount.decode(self.view.get(key))._replace(end=0).encode())

    def _move_digest(
        self, key: bytes, path: bytes, hashed: int, old: Entry | None, new: Entry | None
    ) -> None:
        head_key = key[:HEAD_KEY_BYTES]
        head = self._heads.get(head_key)
        if head is None:
            raw = self.view.get(head_key)
            head = self._heads[head_key] = [0, 0] if raw is None else list(decode_head(head_key, raw))
        xor = (0 if old is None else fingerprint(path, old)) ^ (0 if new is None else fingerprint(path, new))
        entries = (new is not None) - (old is not None)
        head[0] ^= xor
        head[1] += entries
        table = key[:2]
        if table in self.layout.part_powers:  # a rebuild knows no ring
            self._move_partition(table, self.layout.partition(table, hashed), xor, entries)

    def move_rows_digest(self, kind: bytes, hashed: int, xor: int, entries: int) -> None:
        """Note by how much the digest of all rows of a partition changes; `hashed` is their parent's."""
        ring = keys.RING_OF[kind]
        if ring in self.layout.part_powers:
            self._move_partition(kind, self.layout.partition(ring, hashed), xor, entries)

    def _move_partition(self, table: bytes, partition: int, xor: int, entries: int) -> None:
        moved = self._digests_moved.setdefault((table, partition), [0, 0])
        moved[0] ^= xor
        moved[1] += entries

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
            self._ends[new.volume] = max(self._ends.get(new.volume, 0), _end_of(new, after))
        elif not new.held:
            self.view.put(keys.MISSING + key, b"")

    def _count_live(self, location: InVolume, held: Held, sign: int) -> None:
        assert held.register.entry is not None, "only an entry has a body"
        change = sign * record_bytes(location, held.register.entry.size)
        self._live[location.volume] = self._live.get(location.volume, 0) + change


def _end_of(location: InVolume, held: Held) -> int:
    """Return where the record of a body ends."""
    assert held.register.entry is not None, "only an entry has a body"
    return location.offset + record_bytes(location, held.register.entry.size)


def _delete_time(entry: Entry | None) -> int | None:
    return entry.delete_at if entry is not None and entry.delete_at and not entry.tombstone else None


def decode_standing(raw: bytes) -> Standing:
    """Read the standing of a partition."""
    votes, floor_us, refusing_us = _STANDING.unpack(raw)
    return Standing(bool(votes), floor_us, refusing_us)


def decode_head(key: bytes, raw: bytes) -> Digest:
    """Read the digest at the head of a bucket, or of a partition. Raises IndexDamaged."""
    if len(raw) != DIGEST_BYTES:
        raise IndexDamaged(
            f"the digest of bucket or partition {key.hex()} has {len(raw)} bytes; run rebuild-index"
        )
    return Digest.decode(raw)
