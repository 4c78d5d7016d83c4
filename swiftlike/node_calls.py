"""What a device is asked and what it answers, as it travels over the RPC: methods, codes, values and their encoding.

Owns the vocabulary that a storage node and its callers share. Never calls anybody: `node_client` asks, and the
storage node's service answers.

A call's header is a map of the fields named here. Entries and registers travel as they are encoded in an index, under
their own checksums; lists travel as one msgpack array in the body. Every call about a table carries `table` and the
`epoch` of the ring that placed it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache, partial
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias, cast, overload

import msgpack

from swiftlike.digests import DIGEST_BYTES, Digest
from swiftlike.entries import Entry, Version, decode, encode
from swiftlike.limits import ITEMS_MAX, PAGE_ITEMS_MAX
from swiftlike.registers import Register, Replaced, decode_register, encode_register
from swiftlike.rpc.transport import Body, Header
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Offer, Timestamp, WriteId


class Method(StrEnum):
    """The calls and streams of a device."""

    OFFER = "offer"
    OFFERS = "offers"
    """Several of one table, each with an outcome of its own."""
    OFFER_STREAM = "offer_stream"
    PREPARE = "prepare"
    FILL = "fill"
    FILL_STREAM = "fill_stream"
    UPSERT_ROWS = "upsert_rows"
    PAY = "pay"
    SET_STANDING = "set_standing"
    STANDING = "standing"
    READ = "read"
    GET = "get"
    GET_STREAM = "get_stream"
    LIST_ROWS = "list_rows"
    TALLY = "tally"
    RANGES = "ranges"
    SPAN_DIGEST = "span_digest"
    PARTITION_DIGEST = "partition_digest"
    DIGESTS = "digests"
    REGISTERS = "registers"
    DUE = "due"
    MISSING = "missing"
    COMPARE = "compare"
    VERSIONS = "versions"
    VERSIONS_IN = "versions_in"
    VERSIONS_OF = "versions_of"
    COPIES = "copies"
    LISTINGS = "listings"
    SPAN_DIGESTS = "span_digests"
    ROW_BALLOTS = "row_ballots"
    HINT = "hint"
    CAUGHT_UP = "caught_up"
    DEGRADED = "degraded"
    PAUSE = "pause"
    TRUST = "trust"
    VERIFY = "verify"
    HEALTH = "health"
    STATS = "stats"
    METRICS = "metrics"


class Code(StrEnum):
    """Why a device judged a call and did not do it."""

    BAD_CALL = "bad_call"
    """A field is missing, of the wrong type or out of bounds: the caller's mistake."""
    UNKNOWN_TABLE = "unknown_table"
    """The device has no ring for it: the policy is new here."""
    RING_OLDER = "ring_older"
    """The caller's ring is older than the device's, whose epoch is in the answer: fetch that one."""
    RING_NEWER = "ring_newer"
    """The caller's ring is newer than the device's, which has begun to look for it: give it to it, or try again."""
    RING_CHANGED = "ring_changed"
    """The device took a newer ring while it did what was asked: that may be kept, and must not be counted."""
    BALLOT_REFUSED = "ballot_refused"
    INSUFFICIENT_STORAGE = "insufficient_storage"
    BODY_DAMAGED = "body_damaged"
    BODY_GONE = "body_gone"
    INDEX_DAMAGED = "index_damaged"
    DEVICE_FAILED = "device_failed"
    STORAGE_ERROR = "storage_error"
    NOT_HERE = "not_here"
    """No body to stream: the key, or the body of its entry, is not on this device."""
    OTHER_BODY = "other_body"
    """The entry's body is not the one that was asked for; a read that goes on elsewhere must not mix two."""
    NO_COMMIT = "no_commit"
    """A streamed body ended without its entry; nothing was stored."""


CONTAINERS: Final = b"c\0"
ACCOUNTS: Final = b"a\0"


@lru_cache(256)
def objects(policy: int) -> bytes:
    """Return the table of objects of a policy."""
    return b"o" + policy.to_bytes(1, "big")


@lru_cache(2 + 256)  # as many as there can be
def ring_name(table: bytes) -> str:
    """Return the name of the ring that places a table."""
    match table[:1]:
        case b"c":
            return "container"
        case b"a":
            return "account"
        case _:
            return f"object-{table[1]}"


def tables(policies: Iterable[int]) -> tuple[bytes, ...]:
    """Return all tables of a cluster with these storage policies."""
    return (ACCOUNTS, CONTAINERS, *map(objects, policies))


class Acceptance(NamedTuple):
    """The answer to an offer. Only one that `counts` and `votes` is part of a majority."""

    accepted: bool
    whole: bool
    """Its body is there, or it needs none."""
    votes: bool
    replaced: Replaced | None = None
    """What it replaced, as far as that is remembered."""
    above: Ballot | None = None
    """When refused: the ballot that must be passed; None: it is refused for want of its body only."""

    @property
    def wants_body(self) -> bool:
        """Whether the owner would take the entry with its body: it has another one, and does not let go of it before."""
        return not self.accepted and self.above is None

    @property
    def counts(self) -> bool:
        """Whether the owner holds the entry with its body."""
        return self.accepted and self.whole

    def header(self) -> Header:
        """Write it down."""
        header: dict[str, Any] = {"accepted": self.accepted, "whole": self.whole, "votes": self.votes}
        if self.replaced is not None:
            header["replaced"] = encode_register(Register(None, (self.replaced,)))
        if self.above is not None:
            header["above"] = bytes(self.above)
        return header

    @classmethod
    def of(cls, header: Header) -> "Acceptance":
        """Read it."""
        replaced, above = header.get("replaced"), header.get("above")
        return cls(
            header["accepted"],
            header["whole"],
            header["votes"],
            None if replaced is None else decode_register(replaced).replaced[0],
            None if above is None else Ballot(above),
        )


class Promise(NamedTuple):
    """The answer to a prepare."""

    register: Register | None
    """What the owner holds and remembers; None when refused."""
    whole: bool
    votes: bool
    above: Ballot | None = None
    """When refused: the ballot that must be passed."""

    def header(self) -> Header:
        """Write it down."""
        header: dict[str, Any] = {"whole": self.whole, "votes": self.votes}
        if self.register is not None:
            header["register"] = encode_register(self.register)
        if self.above is not None:
            header["above"] = bytes(self.above)
        return header

    @classmethod
    def of(cls, header: Header) -> "Promise":
        """Read it."""
        register, above = header.get("register"), header.get("above")
        return cls(
            None if register is None else decode_register(register),
            header["whole"],
            header["votes"],
            None if above is None else Ballot(above),
        )


class Found(NamedTuple):
    """What stands at a key, and its body where that came along."""

    entry: Entry | None
    whole: bool
    votes: bool
    body: Body | None = None
    """None: not asked for, not there, or too large for an answer; stream it."""

    @classmethod
    def of(cls, header: Header, body: Body, read_entry: Callable[[bytes], Entry] = decode) -> "Found":
        """Read it; `read_entry` for whoever has read the same bytes already."""
        raw = header.get("entry")
        return cls(
            None if raw is None else read_entry(raw),
            header["whole"],
            header["votes"],
            body if header.get("inline") else None,
        )


class Standing(NamedTuple):
    """What an owner may say about the keys of one partition."""

    votes: bool = False
    """It has caught up: an absent key was never written, or was forgotten by agreement."""
    floor_us: int = 0
    """All owners may have forgotten tombstones and promises below; an absent key counts as this ballot."""
    refusing_us: int = 0
    """The owner has agreed to take nothing below that it lacks, while a new floor is being settled."""


class RowTaken(NamedTuple):
    """A row that a listing took."""

    votes: bool
    container: Ballot = ZERO_BALLOT
    """Of the container's entry under which it was taken; zero where none is known, and for an account's rows.

    Only answers under one and the same ballot make a majority. A closing prepare and a row meet at one owner at least, and
    there the row was taken either before the promise, so that whoever deletes the container finds it, or under an entry
    that was accepted above it. Held by a majority, that entry is chosen, and keeps an older tombstone from ever being; held
    by that one owner alone, it does not.
    """


class RowRefused(NamedTuple):
    """A row that a container does not take."""

    closing: bool
    """A container delete is under way; otherwise the row's incarnation is gone."""
    incarnation: Timestamp
    """The container's incarnation as this owner knows it."""


class RowOffer(NamedTuple):
    """A row for a listing; its ballot names the incarnation."""

    parent: bytes
    """Path of the container, or of the account."""
    name: bytes
    entry: Entry


class Query(NamedTuple):
    """Which rows of a listing a page should hold. Names are bytes, compared as bytes; empty means no bound."""

    prefix: bytes = b""
    marker: bytes = b""
    """The page starts after this name; in reverse, before it."""
    end_marker: bytes = b""
    """The page ends before this name; in reverse, after it."""
    delimiter: bytes = b""
    """Names that hold it behind the prefix are rolled up to it, into one common prefix each."""
    reverse: bool = False
    limit: int = PAGE_ITEMS_MAX
    """Rows and common prefixes, and never more than LISTING_ROWS_MAX."""
    tombstones: bool = False
    """Deleted and due rows too, for a merge of several owners' pages; not with a delimiter."""
    now_us: int = 0
    """Rows with an earlier delete_at are left out."""
    names_only: bool = False
    """The rows come without their entries, which are most of a page; not with a delimiter, nor for a merge."""

    def header(self) -> Header:
        """Write down what differs from the default."""
        asked = self._asdict()
        return {name: asked[name] for name in asked if asked[name] != self._field_defaults[name]}


class Row(NamedTuple):
    """A name and its entry as it is encoded, or a common prefix and None; in a list of them it is packed as it is.

    A page has thousands of rows, and most listings show their names only: an entry is decoded by whoever wants one.
    """

    name: bytes
    raw: bytes | None

    @classmethod
    def of(cls, name: bytes, entry: Entry) -> "Row":
        """Return the row of an entry."""
        return cls(name, encode(entry))

    @property
    def entry(self) -> Entry | None:
        """The entry; None: this is a common prefix. Raises EntryDamaged."""
        return None if self.raw is None else decode(self.raw)


NO_ENTRY: Final = b""
"""The `raw` of a row that came without its entry; to look at that raises EntryDamaged."""

as_row: Final = cast("Callable[[tuple[bytes, bytes | None]], Row]", partial(tuple.__new__, Row))
"""Makes a row of its two values in half of the time that `Row` takes: a page has a thousand of them."""


class NamedRows(Sequence[Row]):
    """Rows without their entries: names, of which a row is made when it is looked at. Most pages only hand them on."""

    __slots__ = ("names",)

    def __init__(self, names: Sequence[bytes]) -> None:
        """Take the names, in their order."""
        self.names: Final = names

    def __len__(self) -> int:
        """Count them."""
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> "NamedRows": ...

    def __getitem__(self, at: "int | slice") -> "Row | NamedRows":
        """Return one of them, or some."""
        return NamedRows(self.names[at]) if isinstance(at, slice) else Row(self.names[at], NO_ENTRY)


class Page(NamedTuple):
    """Part of a listing, in the order asked for. It may be shorter than asked for."""

    rows: Sequence[Row]
    more: bytes | None
    """The marker of the next page; None when this is the last."""
    digest: Digest
    """Of the whole listing, so that owners with equal ones have proved the page to each other."""


class Tally(NamedTuple):
    """What the rows of a listing, or of a range of it, add up to."""

    digest: Digest
    """Of all rows, tombstones too; so is its count."""
    rows: int
    """Rows that are no tombstones."""
    objects: int
    """Objects that they stand for: themselves, or what the containers hold that an account lists."""
    bytes: int
    policies: tuple[tuple[int, int, int, int], ...]
    """Policy, rows, objects and bytes of each, by policy."""

    def pack(self) -> tuple[Any, ...]:
        """Write it down as a msgpack array."""
        return (self.digest.encode(), self.rows, self.objects, self.bytes, self.policies)

    @classmethod
    def of(cls, packed: Sequence[Any]) -> "Tally":
        """Read it."""
        digest, rows, objects_, size, policies = packed
        return cls(Digest.decode(digest), rows, objects_, size, tuple(tuple(policy) for policy in policies))


class HeldRegister(NamedTuple):
    """A register as a replicator sees it."""

    path: bytes
    register: Register
    whole: bool


class HeldVersion(NamedTuple):
    """What stands at a key, as far as two owners have to know to compare."""

    path: bytes
    version: Version | None
    """Of its entry; None where there is none, and for a key that is absent."""
    promised: Ballot
    """ZERO_BALLOT unless a promise is outstanding."""
    whole: bool
    """The entry's body is there, or it needs none."""
    owes: bool
    """The row of that very entry is still owed."""

    @property
    def ballot(self) -> Ballot:
        """The ballot accepted last."""
        return ZERO_BALLOT if self.version is None else self.version.ballot

    def pack(self) -> tuple[Any, ...]:
        """Write it down as a msgpack array."""
        version = b"" if self.version is None else encode_version(self.version)
        promised = b"" if self.promised == ZERO_BALLOT else self.promised
        return (self.path, version, promised, self.whole, self.owes)

    @classmethod
    def of(cls, packed: Sequence[Any]) -> "HeldVersion":
        """Read it."""
        path, version, promised, whole, owes = packed
        return cls(
            path,
            decode_version(version) if version else None,
            Ballot(promised) if promised else ZERO_BALLOT,
            whole,
            owes,
        )


class VersionsPage(NamedTuple):
    """What stands in the first of several ranges of path hashes, in their order."""

    found: list[HeldVersion]
    served: int
    """So many of the ranges are told of to their end."""
    after: bytes
    """The path behind which to go on in the next range; empty: at its beginning."""


class HeldCopy(NamedTuple):
    """An entry to be copied, with its body where that is small enough to come along."""

    path: bytes
    entry: Entry
    whole: bool
    owes: bool
    body: Body | None

    def pack(self) -> tuple[Any, ...]:
        """Write it down as a msgpack array."""
        return (self.path, encode(self.entry), self.whole, self.owes, self.body)

    @classmethod
    def of(cls, packed: Sequence[Any]) -> "HeldCopy":
        """Read it. Raises EntryDamaged."""
        path, raw, whole, owes, body = packed
        return cls(path, decode(raw), whole, owes, body)


class Copies(NamedTuple):
    """Copies of what stands at the first of the keys that were asked for."""

    copies: list[HeldCopy]
    served: int
    """How many of the keys were looked at."""
    lag_s: float
    """How long calls wait at that device before anybody looks at them."""


class PartitionDigests(NamedTuple):
    """Digests of some partitions of one table, to be compared with a peer's; the table may be one of rows."""

    table: bytes
    epoch: int
    """Of the ring that places it."""
    digests: dict[int, Digest]
    """By partition."""

    def pack(self) -> tuple[Any, ...]:
        """Write it down as a msgpack array."""
        return (self.table, self.epoch, pack_digests(self.digests))

    @classmethod
    def of(cls, packed: Sequence[Any]) -> "PartitionDigests":
        """Read it. Raises ValueError."""
        table, epoch, raw = packed
        return cls(table, epoch, unpack_digests(raw))


class CaughtUp(NamedTuple):
    """How far a device is with the partitions of one ring that it owns."""

    epoch: int
    owned: int
    """Partitions that it owns, or owned before a move that is not over."""
    votes: int
    """Those of them on which it votes: nothing of them is left to be taken from others."""
    moving: int
    """Partitions that it is to own once their move is settled."""
    moved: int
    """Those of them that it has caught up with."""
    waiting: tuple[int, ...]
    """Partitions that it has not caught up with, the first ITEMS_MAX of them."""
    per_s: float = 0.0
    """How many of those that move it has caught up with a second, over the last ten minutes."""


class Trusted(NamedTuple):
    """With what a device votes on a partition on an operator's word."""

    voters: int
    """Owners that voted, all of whose memory it has."""
    silent: int
    """Owners that did not answer: what only they held is not there."""


class Degraded(NamedTuple):
    """A partition some of whose owners are not known to hold what they should, as one of its owners sees it."""

    table: bytes
    partition: int
    owners: int
    """Whose votes count."""
    sound: int
    """Of them, those that answer, vote, and hold the same."""
    since_us: int
    """When that was first seen, by the clock and in the life of the process that tells it."""


class DueKind(StrEnum):
    """What falls due with time."""

    DELETE = "delete"
    DEBT = "debt"


class DueItem(NamedTuple):
    """An object that is to be deleted, or that owes a row (then with the version that owes)."""

    table: bytes
    path: bytes
    version: Version | None


# --- encoding of what is made of several fields -------------------------------------------------------------------

_VERSION: Final = Struct(">16s32s")
VERSION_BYTES: Final = _VERSION.size
assert VERSION_BYTES == 48, "a write id and a ballot"


def encode_version(version: Version) -> bytes:
    """Write a version down: write id, then ballot."""
    return version.write_id + version.ballot


def decode_version(raw: bytes) -> Version:
    """Read a version of VERSION_BYTES."""
    write_id, ballot = _VERSION.unpack(raw)
    return Version(WriteId(write_id), Ballot(ballot))


_PARTITION_DIGEST: Final = Struct(f">I{DIGEST_BYTES}s")


def pack_digests(digests: Mapping[int, Digest]) -> bytes:
    """Write down digests by partition: a number of four bytes and a digest, again and again."""
    return b"".join(_PARTITION_DIGEST.pack(number, digest.encode()) for number, digest in digests.items())


def unpack_digests(raw: bytes) -> dict[int, Digest]:
    """Read digests by partition. Raises ValueError when the bytes are no whole number of them."""
    if len(raw) % _PARTITION_DIGEST.size:
        raise ValueError(f"{len(raw)} bytes are no digests by partition")
    return {number: Digest.decode(digest) for number, digest in _PARTITION_DIGEST.iter_unpack(raw)}


def pack_list(items: Iterable[Any]) -> bytes:
    """Encode a list as the body of a call or an answer."""
    return cast(bytes, msgpack.packb(list(items)))


def unpack_list(raw: Body) -> tuple[Any, ...]:
    """Decode a list. Raises ValueError when it is none, or longer than ITEMS_MAX."""
    try:
        found = msgpack.unpackb(
            raw, use_list=False, max_array_len=ITEMS_MAX, max_map_len=0, strict_map_key=True
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"not a msgpack array of at most {ITEMS_MAX} items: {error}") from None
    if not isinstance(found, tuple):
        raise ValueError(f"a {type(found).__name__}, not an array")
    return found


def unpack_names(raw: Body) -> NamedRows:
    """Decode the names of a page, as rows without their entries. Raises ValueError when they are none."""
    found = unpack_list(raw)
    if set(map(type, found)) - {bytes}:
        raise ValueError("an item of a page is not a name")
    return NamedRows(found)


def unpack_rows(raw: Body) -> tuple[Row, ...]:
    """Decode the rows of a page. Raises ValueError when they are none."""
    found = unpack_list(raw)
    if set(map(len, found)) - {len(Row._fields)}:
        raise ValueError("an item of a page is not a name and what it names")
    return tuple(map(as_row, found))


PackedRow: TypeAlias = tuple[bytes, bytes, bytes]
"""A row in a list of them: its parent, its name, and its entry as it is encoded."""


def pack_row(row: RowOffer) -> PackedRow:
    """Write a row down for a list of them."""
    return row.parent, row.name, encode(row.entry)


SEEN: Final = "seen_"
"""Leads the names of the fields of the standing that a caller has read, before those of the one that it wants."""

OFFERS: Final = {offer.value: offer for offer in Offer}
"""How an offer is called in a header; the default is a first one."""
