"""Operations: what callers change of a device, and where bodies lie, each as one step of a transaction.

Owns how an acceptor's decision becomes changes of the tables and bodies to append. Never writes or commits by
itself, so that many operations share one batch and a failing one can be replayed alone. What jobs change is `maintenance`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from storage_node import acceptor, keys
from storage_node.acceptor import Accepted, Known, Promised, Refused, WantsBody
from storage_node.blocks import seed_of
from storage_node.errors import StorageError
from storage_node.keys import Key, Listing
from storage_node.locations import MISSING, UNNEEDED, InFile, InVolume, Location
from storage_node.rows import (
    condemn_rows,
    is_condemned,
    read_row,
    upsert_row,
)
from storage_node.store import RowOffer
from storage_node.tables import Change, Held, read_held
from swiftlike.entries import Entry, Version, encode
from swiftlike.node_calls import Acceptance, Promise, RowRefused, Standing
from swiftlike.registers import Register
from swiftlike.timestamps import ZERO_BALLOT, Ballot, WriteId


class Bodies(Protocol):
    """Where small bodies are appended."""

    def stage(self, key: Key, entry_raw: bytes, body: bytes | memoryview, seed: int) -> InVolume:
        """Lay out a record and return where its body will be."""


class Operation(Protocol):
    """One step of a batch."""

    @property
    def body_bytes(self) -> int:
        """Bytes that it appends to a volume."""

    @property
    def spends_reserve(self) -> bool:
        """Whether it is done even when only the reserve of free space is left."""

    def apply(self, change: Change, bodies: Bodies) -> Any:
        """Make its changes and return its answer. Raises StorageError when it cannot be done."""


Content = bytes | memoryview | InFile | None
"""A body for a volume, a file that is finished, or nothing."""


@dataclass(slots=True)
class Accept:
    """Offer an entry to its key's acceptor."""

    key: Key
    entry: Entry
    body: Content
    owing: bool
    from_voter: bool
    oldest_us: int
    is_current: Callable[[], bool] = lambda: True
    is_lent: bool = False
    """The finished file goes back to whoever staged it when the offer is refused, for another offer."""
    entry_raw: bytes | None = None
    """The entry as it is encoded, for a caller that has it."""
    body_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Weigh the body."""
        self.body_bytes = _weight(self.body)

    @property
    def spends_reserve(self) -> bool:
        """Tombstones and entries without new bytes are let in: they are how space comes back."""
        return self.entry.tombstone or self.body is None

    def apply(self, change: Change, bodies: Bodies) -> Acceptance | None:
        """Decide, and keep what was accepted; None when the ring changed, and nothing was kept."""
        key, entry = self.key, self.entry
        if not self.is_current():
            if not self.is_lent:
                _discard(change, self.body)
            return None
        hashed = change.layout.hashed(key.path)
        raw_key = keys.register_key(key, hashed)
        held = read_held(change.view, raw_key)
        standing = change.standing(key.table, hashed)
        decision = acceptor.accept(
            None if held is None else held.register,
            entry,
            standing,
            oldest_us=self.oldest_us,
            from_voter=self.from_voter,
            whole=held is None or held.location.held,
            brings_body=self.body is not None or not entry.size,
        )
        match decision:
            case WantsBody():
                return Acceptance(accepted=False, whole=False, votes=standing.votes)
            case Refused(above):
                if not self.is_lent:
                    _discard(change, self.body)
                return Acceptance(accepted=False, whole=False, votes=standing.votes, above=above)
            case Known(before, whole):
                assert held is not None, "only what is held is known"
                if whole is None:
                    whole = _complete(change, bodies, key, hashed, held, self.body)
                else:
                    _discard(change, self.body)
                return Acceptance(accepted=True, whole=whole, votes=standing.votes, replaced=before)
            case Accepted(register):
                entry_raw = self.entry_raw or encode(entry)
                location = _locate(change, bodies, key, entry, entry_raw, held, self.body)
                change.put_register(raw_key, key.path, hashed, held, Held(register, location), entry_raw)
                if self.owing:
                    change.owe(raw_key, entry)
                if key.table == keys.CONTAINERS:
                    # A tombstone ends its own incarnation too; a live entry only the ones before it.
                    stop = entry.incarnation + b"\0" if entry.tombstone else bytes(entry.incarnation)
                    condemn_rows(change, key, hashed, stop)
                replaced = register.replaced[0] if register.replaced else None
                return Acceptance(accepted=True, whole=location.held, votes=standing.votes, replaced=replaced)


@dataclass(slots=True)
class Prepare:
    """Promise to refuse what is below a ballot."""

    key: Key
    ballot: Ballot
    closing: bool
    oldest_us: int
    is_current: Callable[[], bool] = lambda: True
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> Promise | None:
        """Decide, and keep the promise; None when the ring changed, and nothing was promised."""
        if not self.is_current():
            return None
        hashed = change.layout.hashed(self.key.path)
        raw_key = keys.register_key(self.key, hashed)
        held = read_held(change.view, raw_key)
        standing = change.standing(self.key.table, hashed)
        decision = acceptor.prepare(
            None if held is None else held.register,
            self.ballot,
            standing,
            oldest_us=self.oldest_us,
            closing=self.closing,
        )
        location = UNNEEDED if held is None else held.location
        match decision:
            case Refused(above):
                return Promise(None, whole=location.held, votes=standing.votes, above=above)
            case Promised(register, before):
                change.put_register(raw_key, self.key.path, hashed, held, Held(register, location))
                return Promise(before, whole=location.held, votes=standing.votes)


@dataclass(slots=True)
class Fill:
    """Bring a missing body."""

    key: Key
    body_id: WriteId
    body: bytes | memoryview | InFile
    instead_of: Location | None = None
    """Where the present one lies, if the disk does not read it."""
    body_bytes: int = field(init=False)
    spends_reserve: bool = False

    def __post_init__(self) -> None:
        """Weigh the body."""
        self.body_bytes = _weight(self.body)

    def apply(self, change: Change, bodies: Bodies) -> bool:
        """Attach the body if the entry still wants it."""
        hashed = change.layout.hashed(self.key.path)
        held = read_held(change.view, keys.register_key(self.key, hashed))
        if held is None or held.register.entry is None or held.register.entry.body_id != self.body_id:
            _discard(change, self.body)
            return False
        return _complete(change, bodies, self.key, hashed, held, self.body, self.instead_of)


@dataclass(slots=True)
class Relocate:
    """Point at another copy of a body: at the end of the volumes, or in a finished file."""

    key: Key
    place: InVolume | InFile
    body: bytes | memoryview | InFile
    body_bytes: int = field(init=False)
    spends_reserve: bool = True

    def __post_init__(self) -> None:
        """Weigh the body."""
        self.body_bytes = _weight(self.body)

    def apply(self, change: Change, bodies: Bodies) -> bool:
        """Point there, unless the index points elsewhere by now."""
        hashed = change.layout.hashed(self.key.path)
        raw_key = keys.register_key(self.key, hashed)
        held = read_held(change.view, raw_key)
        if held is None or held.location != self.place:
            _discard(change, self.body)
            return False
        entry = held.register.entry
        assert entry is not None, "only an entry has a body"
        place = _keep(change, bodies, self.key, entry, encode(entry), self.body)
        change.put_register(raw_key, self.key.path, hashed, held, Held(held.register, place))
        return True


@dataclass(slots=True)
class Disown:
    """Count a body as missing: it failed its checksum, or it is gone."""

    key: Key
    place: Location
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> bool:
        """Keep the entry without the body, if the index still points there; the caller takes care of the file."""
        hashed = change.layout.hashed(self.key.path)
        raw_key = keys.register_key(self.key, hashed)
        held = read_held(change.view, raw_key)
        if held is None or held.location != self.place:
            return False
        change.put_register(raw_key, self.key.path, hashed, held, Held(held.register, MISSING))
        if isinstance(self.place, InFile):
            change.freed.remove(self.place.file)
        return True


@dataclass(slots=True)
class UpsertRows:
    """Merge rows into their listings.

    A row that is taken is answered with the ballot of the container's entry under which it was: see RowTaken.
    """

    rows: tuple[RowOffer, ...]
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> list[Ballot | RowRefused]:
        """Take or refuse each row."""
        parents: dict[Key, tuple[int, Register | None, Standing]] = {}
        answers: list[Ballot | RowRefused] = []
        takes_rows: set[Listing] = set()
        for row in self.rows:
            if row.parent not in parents:
                hashed = change.layout.hashed(row.parent.path)
                held = read_held(change.view, keys.register_key(row.parent, hashed))
                standing = change.standing(row.parent.table, hashed)
                parents[row.parent] = hashed, None if held is None else held.register, standing
            hashed, parent, standing = parents[row.parent]
            refused, container = None, ZERO_BALLOT
            if row.parent.table == keys.CONTAINERS:
                refused = acceptor.refuse_row(parent, row.entry.ballot, standing)
                container = ZERO_BALLOT if parent is None else parent.ballot
            if (
                refused is None
                and acceptor.is_below_floor(row.entry.ballot, standing)
                and read_row(change.view, row.listing, hashed, row.name) is None
            ):
                # It may be a late copy of a row that all owners have forgotten: only one that is held is replaced.
                refused = RowRefused(closing=False, incarnation=row.listing.incarnation)
            if refused is None:
                if row.listing not in takes_rows:
                    if is_condemned(change.view, row.listing, hashed):
                        raise StorageError(
                            f"the old rows of {row.parent.path!r} are being removed: sweep, and try again"
                        )
                    takes_rows.add(row.listing)
                upsert_row(change, row.listing, hashed, row.name, row.entry)
            answers.append(container if refused is None else refused)
        return answers


@dataclass(slots=True)
class Pay:
    """Clear debts."""

    debts: tuple[tuple[Key, Version], ...]
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> int:
        """Clear each that is still owed by that version."""
        layout = change.layout
        return sum(
            change.pay(keys.register_key(key, layout.hashed(key.path)), version)
            for key, version in self.debts
        )


def _weight(body: Content) -> int:
    return 0 if body is None or isinstance(body, InFile) else len(body)


def _discard(change: Change, body: Content) -> None:
    """Free a finished file that no entry will point at; small bodies were not written yet."""
    if isinstance(body, InFile):
        change.freed.append(body.file)


def _locate(
    change: Change, bodies: Bodies, key: Key, entry: Entry, entry_raw: bytes, held: Held | None, body: Content
) -> Location:
    """Say where the body of a newly accepted entry is: where it was, or in what came with it."""
    if not entry.has_body:
        _discard(change, body)
        return UNNEEDED
    old = None if held is None else held.register.entry
    if held is not None and old is not None and held.location.held and old.body_id == entry.body_id:
        _discard(change, body)
        return held.location
    return _keep(change, bodies, key, entry, entry_raw, body)


def _keep(
    change: Change, bodies: Bodies, key: Key, entry: Entry, entry_raw: bytes, body: Content
) -> Location:
    if body is None:
        if entry.size:
            return MISSING
        body = b""
    if isinstance(body, InFile):
        change.adopted.append(body.file)
        return body
    return bodies.stage(key, entry_raw, body, seed_of(entry.body_id))


def _complete(
    change: Change,
    bodies: Bodies,
    key: Key,
    hashed: int,
    held: Held,
    body: Content,
    instead_of: Location | None = None,
) -> bool:
    """Attach a body to the entry that lacks it, or has it in that place; say whether it is whole now."""
    if held.location.held and held.location != instead_of:
        _discard(change, body)
        return True
    entry = held.register.entry
    if entry is None:
        return False
    place = _keep(change, bodies, key, entry, encode(entry), body)
    change.put_register(keys.register_key(key, hashed), key.path, hashed, held, Held(held.register, place))
    return place.held
