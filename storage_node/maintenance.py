"""Maintenance: the operations by which a device's jobs, and those of its peers, keep it in order.

Owns what may be forgotten and when: each step looks again, inside its transaction, whether what it was decided on still stands.
Never moves a body and never decides what is accepted; that is `operations`'s.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from storage_node import keys, tables
from storage_node.errors import StorageError
from storage_node.keys import Key, Listing
from storage_node.locations import UNNEEDED, VolumeId
from storage_node.operations import Bodies
from storage_node.rows import EVERY_INCARNATION, condemn_rows, read_row, remove_row, scan_listings, sweep_rows
from storage_node.store import Reclaimed, RowHeld
from storage_node.tables import Change, Held, read_held
from swiftlike.entries import Version
from swiftlike.node_calls import Standing
from swiftlike.registers import Register


@dataclass(slots=True)
class SetStanding:
    """Change the voting and the floors of a partition, unless it stands otherwise than the caller has seen."""

    table: bytes
    partition: int
    seen: Standing
    standing: Standing
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> None:
        """Write it; neither floor ever sinks, whatever was seen."""
        before = change.partition_standing(self.table, self.partition)
        if before != self.seen:
            raise StorageError(
                f"partition {self.partition} stands as {before} and not as {self.seen}: read it again, and decide anew"
            )
        for floor in ("floor_us", "refusing_us"):
            held_us, wanted_us = getattr(before, floor), getattr(self.standing, floor)
            if held_us > wanted_us:
                raise StorageError(
                    f"{floor} of partition {self.partition} cannot sink from {held_us} to {wanted_us}: keep it"
                )
        change.set_standing(self.table, self.partition, self.standing)


@dataclass(slots=True)
class TakeEpoch:
    """Hold the votes against a newer epoch of a table's ring: who owns a partition no more, or anew, does not vote on it.

    A device that comes back to a partition which others owned meanwhile has missed what they took, whatever it still has.
    """

    table: bytes
    epoch: int
    staying: Container[int]
    """The partitions that the device owned before this epoch's moves, as the ring says, or owns where none is."""
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Take the votes of all other partitions, once for each epoch; return how many."""
        if change.epoch(self.table) >= self.epoch:
            return 0
        taken = 0
        for partition, standing in change.all_standings(self.table).items():
            if standing.votes and partition not in self.staying:
                change.set_standing(self.table, partition, standing._replace(votes=False))
                taken += 1
        change.set_epoch(self.table, self.epoch)
        return taken


@dataclass(slots=True)
class Owe:
    """Mark what is held as owing its row: a debt that another owner has handed over."""

    debts: tuple[tuple[Key, Version], ...]
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Mark each whose entry is still that version; return how many."""
        marked = 0
        for key, version in self.debts:
            raw_key = keys.register_key(key, change.layout.hashed(key.path))
            held = read_held(change.view, raw_key)
            if (
                held is not None
                and held.register.entry is not None
                and held.register.entry.version == version
            ):
                change.owe(raw_key, held.register.entry)
                marked += 1
        return marked


@dataclass(slots=True)
class Forget:
    """Remove what an owner that catches up holds, lies below the floor, and no voter holds: all have forgotten it.

    A promise above the floor stays, since it binds; the entry below it goes all the same, or the owner would bring it back.
    """

    table: bytes
    partition: int
    floor_us: int
    paths: tuple[bytes, ...]
    rows: tuple[tuple[Listing, bytes], ...] = ()
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Remove each that is still below the floor, while the owner does not vote; return how many."""
        if change.partition_standing(self.table, self.partition).votes:
            return 0
        gone = 0
        for path in self.paths:
            key = Key(self.table, path)
            hashed = change.layout.hashed(path)
            raw_key = keys.register_key(key, hashed)
            held = read_held(change.view, raw_key)
            if held is None:
                continue
            register = held.register
            if register.outstanding.micros < self.floor_us:
                change.put_register(raw_key, path, hashed, held, None)
                gone += 1
            elif register.entry is not None and register.ballot.micros < self.floor_us:
                # Nobody knows what else this owner may have accepted and lost.
                bound = Register(None, (), None, register.promised, register.closing)
                change.put_register(raw_key, path, hashed, held, Held(bound, UNNEEDED))
                gone += 1
        for listing, name in self.rows:
            hashed = change.layout.hashed(listing.parent.path)
            row = read_row(change.view, listing, hashed, name)
            if row is not None and row.ballot.micros < self.floor_us:
                remove_row(change, listing, hashed, name)
                gone += 1
        return gone


@dataclass(slots=True)
class Release:
    """Remove what a device need not hold any more, each only if it still is what was looked at, and owes nothing.

    Nothing once the partition is this device's again: an owner forgets nothing that it has told others it holds.
    """

    table: bytes
    versions: tuple[tuple[bytes, Version | None], ...]
    rows: tuple[RowHeld, ...] = ()
    is_current: Callable[[], bool] = lambda: True
    """Whether the ring is still the one under which the partition is others'."""
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Remove them; return how many."""
        if not self.is_current():
            return 0
        gone = 0
        for path, version in self.versions:
            hashed = change.layout.hashed(path)
            raw_key = keys.register_key(Key(self.table, path), hashed)
            held = read_held(change.view, raw_key)
            if held is None or change.standing(self.table, hashed).votes:
                continue
            entry = held.register.entry
            if (None if entry is None else entry.version) != version:
                continue
            if entry is None or not change.owes(raw_key, entry):
                change.put_register(raw_key, path, hashed, held, None)
                gone += 1
        for listing, name, ballot in self.rows:
            hashed = change.layout.hashed(listing.parent.path)
            row = read_row(change.view, listing, hashed, name)
            if row is not None and row.ballot == ballot and not change.standing(self.table, hashed).votes:
                remove_row(change, listing, hashed, name)
                gone += 1
        return gone


@dataclass(slots=True)
class GrantFirstVotes:
    """Let a formatted device vote on partitions that never had other owners.

    What had a standing keeps it: votes that were taken away come back only after catch-up. The standing written here
    is itself the mark that this was done, so that a crash before the commit grants nothing and one behind it grants
    nothing twice.
    """

    table: bytes
    partitions: Sequence[int]
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Grant what was never granted or taken, and return how many."""
        if not change.may_grant_first_votes():
            return 0
        new = [number for number in self.partitions if not change.stood(self.table, number)]
        for number in new:
            change.set_standing(self.table, number, Standing(votes=True))
        return len(new)


@dataclass(slots=True)
class Reclaim:
    """Forget tombstones and lone promises below a partition's floor, apart from tombstones that still owe their row."""

    table: bytes
    partition: int
    limit: int
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> Reclaimed:
        """Take up to `limit` of them, rows with their containers."""
        floor_us = change.partition_standing(self.table, self.partition).floor_us
        below = [self.table]
        if self.table in keys.ROWS_OF:
            below.append(keys.ROWS_OF[self.table])
        registers = rows = 0
        for table in below:
            for key in change.reclaimable(
                table, self.table, self.partition, floor_us, self.limit - registers - rows
            ):
                if table == self.table:
                    path, held = keys.key_of(key).path, read_held(change.view, key)
                    if held and held.register.entry and change.owes(key, held.register.entry):
                        continue  # its row would show the deleted name for ever: first the debt is paid
                    change.put_register(key, path, change.layout.hashed(path), held, None)
                    registers += 1
                else:
                    listing, name = keys.split_row_key(key)
                    remove_row(change, listing, change.layout.hashed(listing.parent.path), name)
                    rows += 1
        return Reclaimed(registers, rows, more=registers + rows == self.limit)


@dataclass(slots=True)
class Drop:
    """Forget registers of a partition that the device no longer owns."""

    table: bytes
    partition: int
    limit: int
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Remove up to `limit` of them, the rows of containers by way of the sweep."""
        power = change.layout.part_powers[self.table]
        found = tables.scan_registers(change.view, change.layout, self.table, power, self.partition)
        gone = list(islice(found, self.limit))
        for key, held in gone:
            hashed = change.layout.hashed(key.path)
            change.put_register(keys.register_key(key, hashed), key.path, hashed, held, None)
            if key.holds_rows:
                condemn_rows(change, key, hashed, EVERY_INCARNATION)
        parents = 0
        if len(gone) < self.limit and self.table in keys.ROWS_OF:
            # Rows whose container this device has never heard of.
            listings = scan_listings(change.view, change.layout, self.table, self.partition)
            for parent in {held.listing.parent for held in islice(listings, self.limit - len(gone))}:
                condemn_rows(change, parent, change.layout.hashed(parent.path), EVERY_INCARNATION)
                parents += 1
        return len(gone) + parents


@dataclass(slots=True)
class Sweep:
    """Remove rows of incarnations that are gone."""

    rows_max: int
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Remove up to `rows_max` rows."""
        return sweep_rows(change, self.rows_max)


@dataclass(slots=True)
class RemoveVolume:
    """Stop counting a volume that nothing points at, before its file is removed."""

    volume: VolumeId
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> None:
        """Remove its count."""
        change.forget_volume(self.volume)


@dataclass(slots=True)
class SettleVolumes:
    """Stop counting what volumes have lost, once nothing points there: those of size 0 are gone, the others are shorter."""

    sizes: Mapping[VolumeId, int]
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> None:
        """Forget the one, and the end of the other."""
        for volume, size in self.sizes.items():
            if size:
                change.shorten_volume(volume)
            else:
                change.forget_volume(volume)
