"""Check: whether everything that the index says is there and sound.

Owns the reading of a whole closed device and what counts as damage: all that a reader would be refused, and all that
a rebuild of the index would miss. Never writes a byte, and needs no secret: what only the cluster's seed could tell
(that a path stands in its right bucket) is not checked.

What a crash may leave behind (bytes that nothing points at, staged and unreferenced files) is a leftover, not damage.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from storage_node import identity, keys, partition_digests, tables
from storage_node.blocks import Extent, chunks_of, seed_of
from storage_node.described import verify_description
from storage_node.disk import Disk
from storage_node.errors import IndexDamaged, StorageError
from storage_node.files import Files
from storage_node.identity import DeviceFile
from storage_node.index import Index, value_damaged
from storage_node.index_place import check_owner, place_to_read
from storage_node.keys import Due
from storage_node.keyvalues import Reading
from storage_node.locations import InFile, InVolume, VolumeId
from storage_node.tables import Held, decode_held
from storage_node.tallies import Sums
from storage_node.volumes import Volumes, record_bytes
from swiftlike.digests import EMPTY, Digest, fingerprint
from swiftlike.entries import Entry, EntryDamaged, decode
from swiftlike.limits import INDEX_MAP_BYTES


@dataclass(slots=True)
class Report:
    """What a check found."""

    damage: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    registers: int = 0
    rows: int = 0
    bodies: int = 0
    body_bytes: int = 0
    awaited: int = 0
    """Entries whose body the device knows to lack; repair brings them."""


class ClosedDevice:
    """A device that no process has open, held for reading only. Raises DeviceRefused like an opening."""

    def __init__(
        self, root: Path, *, index_directory: Path | None = None, map_bytes: int = INDEX_MAP_BYTES
    ) -> None:
        """Lock the device and open its parts."""
        self.root = root
        self.device: DeviceFile = identity.read_device_file(root)
        with ExitStack() as parts:
            lock = identity.lock_device(root)
            parts.callback(identity.unlock_device, lock)
            self.index_directory = place_to_read(root, self.device, index_directory)
            self.index = Index(self.index_directory, map_bytes=map_bytes, readonly=True)
            parts.callback(self.index.close)
            check_owner(self.index, self.device, root, self.index_directory)
            self.volumes = Volumes(root / "volumes", self.device.stamp, Disk())
            parts.callback(self.volumes.close)
            self.files = Files(root / "files", root / "staging", self.device.stamp, Disk())
            self._parts = parts.pop_all()

    def close(self) -> None:
        """Let go of it."""
        self._parts.close()


def check(closed: ClosedDevice) -> Report:
    """Read everything and report. Takes as long as reading the disk does.

    Raises OSError where something may not be read, which says nothing of what it holds.
    """
    report = Report()
    try:
        with closed.index.reading() as view:
            items = _check_values(view, report)
            _check_all(closed, view, report, items)
    except (IndexDamaged, EntryDamaged) as error:
        # What hangs on a value that cannot be read cannot be judged, and what nothing points at not be told.
        if str(error) in report.damage:
            report.damage.remove(str(error))
        report.damage.append(f"{error}; what comes behind it was not looked at")
    return report


def _check_values(view: Reading, report: Report) -> Counter[bytes]:
    """Hold every value, of whatever table, against its checksum; return how many there are by the letter of their table.

    Votes, floors, epochs and the places of jobs follow from nothing else in the index: this is all that can be said of them.
    """
    items: Counter[bytes] = Counter()
    for key, value in view.scan_sound(b"", b"\xff"):
        items[key[:1]] += 1
        if value is None:
            report.damage.append(str(value_damaged(key)))
    return items


def _check_all(closed: ClosedDevice, view: Reading, report: Report, items: Counter[bytes]) -> None:
    live: Counter[VolumeId] = Counter()
    ends: dict[VolumeId, int] = {}
    referenced: set[bytes] = set()
    expected_due: set[bytes] = set()
    lacking: set[bytes] = set()
    for key, held in _registers(view, report):
        report.registers += 1
        expected_due |= _due_of(key, held)
        _check_body(closed, key, held, report)
        match held.location:
            case InVolume() as place if held.register.entry is not None:
                total = record_bytes(place, held.register.entry.size)
                live[place.volume] += total
                ends[place.volume] = max(ends.get(place.volume, 0), place.offset + total)
            case InFile(file):
                referenced.add(file)
            case place if not place.held:
                lacking.add(key)
    _check_listings(view, report, expected_due, items)
    _check_derived(view, report, live, expected_due, lacking)
    _check_partitions(view, report)
    _list_leftovers(closed, report, ends, referenced)


def _registers(view: Reading, report: Report) -> Iterator[tuple[bytes, Held]]:
    """Yield every register, comparing each bucket's digest on the way."""
    for letter in tables.REGISTER_TABLES:
        head_key, stored, counted = b"", EMPTY, EMPTY
        for key, raw in view.scan(letter, keys.after(letter)):
            if key[: keys.HEAD_KEY_BYTES] != head_key:
                _compare_digest(report, head_key, stored, counted)
                head_key, stored, counted = key[: keys.HEAD_KEY_BYTES], EMPTY, EMPTY
            if len(key) == len(head_key):
                stored = tables.decode_head(key, raw)
                continue
            held = decode_held(key, raw)
            if held.register.entry is not None:
                counted = counted.added(fingerprint(keys.key_of(key).path, held.register.entry))
            yield key, held
        _compare_digest(report, head_key, stored, counted)


def _compare_digest(report: Report, head_key: bytes, stored: Digest, counted: Digest) -> None:
    if stored != counted:
        report.damage.append(
            f"bucket {head_key.hex()}: its digest is not that of its entries; run rebuild-index"
        )


def _check_body(closed: ClosedDevice, key: bytes, held: Held, report: Report) -> None:
    entry = held.register.entry
    if not held.location.held:
        report.awaited += 1
    if entry is None or not isinstance(held.location, InVolume | InFile):
        return
    report.bodies += 1
    report.body_bytes += entry.size
    try:
        opener = closed.volumes.open if isinstance(held.location, InVolume) else closed.files.open
        extent: Extent = opener(held.location, entry.size, seed_of(entry.body_id))  # type: ignore[arg-type]
    except PermissionError:
        raise
    except (StorageError, OSError) as error:
        report.damage.append(f"{_named(key)}: its body is not there ({error}); copy it from another replica")
        return
    try:
        for start, stop in chunks_of(0, entry.size):
            extent.read(start, stop)
        verify_description(closed.volumes, closed.files, keys.key_of(key), entry, held.location)
    except PermissionError:
        raise
    except (StorageError, OSError) as error:
        report.damage.append(f"{_named(key)}: {error}")
    finally:
        extent.release()


def _check_listings(view: Reading, report: Report, expected_due: set[bytes], items: Counter[bytes]) -> None:
    """Recount every listing and its ranges, but for those that wait to be swept, and see that no row stands outside of one."""
    seen: Counter[bytes] = Counter()
    condemned = tuple(b"r" + key[1:] for key, _ in view.scan(b"w", keys.after(b"w")))
    for tally_key, raw in view.scan(b"s", keys.after(b"s")):
        prefix = b"r" + tally_key[1:]
        if prefix in condemned:
            continue
        ranges = [(key[len(prefix) :], Sums.decode(each)) for key, each in _under(view, b"g" + tally_key[1:])]
        counted = [Sums() for _ in ranges]
        seen[b"g"] += len(ranges)
        whole, at = Sums(), 0
        for key, row_raw in _under(view, prefix):
            name, entry = key[len(prefix) :], decode(row_raw)
            report.rows += 1
            seen[b"r"] += 1
            while at + 1 < len(ranges) and name >= ranges[at + 1][0]:
                at += 1
            whole.add(name, entry)
            if counted:
                counted[at].add(name, entry)
            if entry.tombstone:
                expected_due.add(keys.due_key(Due.RECLAIM, entry.ballot.micros, key))
        if whole != Sums.decode(raw) or [tally for _, tally in ranges] != counted:
            report.damage.append(
                f"listing {_named(prefix)}: its counts are not those of its rows; run rebuild-index"
            )
        elif whole.rows_and_tombstones and (not ranges or ranges[0][0]):
            report.damage.append(f"listing {_named(prefix)}: its rows stand in no range; run rebuild-index")
    for prefix in condemned:
        seen[b"g"] += sum(1 for _ in _under(view, b"g" + prefix[1:]))
        for key, row_raw in _under(view, prefix):
            seen[b"r"] += 1
            if (entry := decode(row_raw)).tombstone:
                expected_due.add(keys.due_key(Due.RECLAIM, entry.ballot.micros, key))
    for letter, what in ((b"r", "rows"), (b"g", "ranges of rows")):
        if lone := items[letter] - seen[letter]:
            report.damage.append(f"{lone} {what} stand in no listing that is counted; run rebuild-index")


def _check_derived(
    view: Reading, report: Report, live: Counter[VolumeId], expected_due: set[bytes], lacking: set[bytes]
) -> None:
    counted = {volume: size for volume, size in tables.read_live_bytes(view).items() if size}
    if counted != dict(live):
        report.damage.append(
            f"live bytes of volumes are counted as {counted} and are {dict(live)}; run rebuild-index"
        )
    present = {key for key, _ in _under(view, b"t") if key[1] != Due.DEBT}
    if present != expected_due:
        report.damage.append(
            f"{len(present ^ expected_due)} due times do not match their entries; run rebuild-index"
        )
    if {key[len(keys.MISSING) :] for key, _ in _under(view, keys.MISSING)} != lacking:
        report.damage.append("the list of missing bodies does not match the entries; run rebuild-index")


def _check_partitions(view: Reading, report: Report) -> None:
    """Compare the digests of partitions, but where a part power above that of buckets takes the seed to tell."""
    for mark, _ in _under(view, keys.DIGESTS_COUNTED):
        kind, power = mark[2:4], mark[4]
        if power <= keys.BUCKET_BITS:
            stored = {
                keys.partition_in(key): raw for key, raw in _under(view, keys.DIGESTS + kind + mark[4:])
            }
            counted = partition_digests.count_by_bucket(view, kind, power, keys.buckets_of(0, 0, 1))
            if stored != {number: digest.encode() for number, digest in counted.items()}:
                report.damage.append(
                    f"digests of partitions of table {kind!r} are not those of their entries; run rebuild-index"
                )


def _due_of(key: bytes, held: Held) -> set[bytes]:
    """Return the due keys that a register must have, debts aside: whether one was paid, nothing else tells."""
    entry: Entry | None = held.register.entry
    due = set()
    if entry is not None and entry.delete_at and not entry.tombstone:
        due.add(keys.due_key(Due.DELETE, entry.delete_at, key))
    if (reclaim_us := tables.reclaim_time(held.register)) is not None:
        due.add(keys.due_key(Due.RECLAIM, reclaim_us, key))
    return due


def _list_leftovers(
    closed: ClosedDevice, report: Report, ends: dict[VolumeId, int], referenced: set[bytes]
) -> None:
    report.damage += [
        f"{path}: nothing in it is sound, and the bodies in it are gone; keep the file if another replica lacks one"
        for path in closed.volumes.ruined()
    ]
    report.damage += [
        f"{closed.volumes.path(volume)}: its header is damaged; start the device, which moves the bodies out of it"
        for volume in closed.volumes.damaged()
    ]
    for volume in closed.volumes.ids():
        behind = closed.volumes.size(volume) - ends.get(volume, 0)
        if behind > 0:  # one that ends too soon has lost bodies, and each of these is damage
            report.leftovers.append(
                f"{closed.volumes.path(volume)}: {behind} bytes behind the last live body"
            )
    report.leftovers += [f"{path}: staged, never finished" for path in closed.files.staged()]
    unreferenced = [file for file in closed.files.finished() if file not in referenced]
    report.leftovers += [f"{closed.files.path(file)}: nothing points at it" for file in unreferenced]


def _under(view: Reading, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    return view.scan(prefix, keys.after(prefix))


def _named(key: bytes) -> str:
    """Write a key for a message: its table and path."""
    return f"{key[:2]!r} {keys.key_of(key).path.decode('utf-8', 'backslashreplace')!r}"
