"""The service of one device: what its store can do, as methods of the RPC.

Owns the translation, both ways: a call's header is parsed at the door (`requests`), the ring's epoch is compared, the
store is asked, and its answer or error becomes a reply by one table. Never decides what a store accepts, never opens a
socket or a file; bodies that are streamed are `body_streams`'.

Calls are answered within the turn of the loop that brought them as long as nothing has to be waited for; scans go
through `Surroundings.scan`, so that a real device makes them on a thread.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from storage_node import errors
from storage_node.begun import begin
from storage_node.body_streams import BodyStreams
from storage_node.compared import ComparedCalls, Healing
from storage_node.errors import StorageError
from storage_node.keys import ACCOUNTS, CONTAINERS, Due, Key, Layout, Listing
from storage_node.offer_calls import OfferCalls, octets
from storage_node.overseen import Overseeing, OverseenCalls
from storage_node.pause import Pausing
from storage_node.placing import Placing, Rings
from storage_node.requests import EPOCH_MAX, MICROS_MAX, Fields, parse_get
from storage_node.store import RowOffer, Store
from swiftlike.entries import Entry, encode
from swiftlike.limits import ITEMS_MAX, PAGE_ITEMS_MAX, PATH_BYTES_MAX, RPC_BODY_BYTES_MAX
from swiftlike.names import ROW_BYTES_MAX
from swiftlike.node_calls import (
    SEEN,
    Code,
    DueKind,
    Method,
    NamedRows,
    Page,
    Query,
    RowRefused,
    Standing,
    encode_version,
    pack_list,
)
from swiftlike.registers import encode_register
from swiftlike.rpc.errors import CallFailed
from swiftlike.rpc.service import Call, Later, PlainHandler, Service
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Outcome, Reply, done, failed
from swiftlike.timestamps import Ballot

T = TypeVar("T")

log: Final = logging.getLogger(__name__)

CODES: Final[Mapping[type[StorageError], Code]] = {
    errors.BallotRefused: Code.BALLOT_REFUSED,
    errors.RingChanged: Code.RING_OLDER,
    errors.InsufficientStorage: Code.INSUFFICIENT_STORAGE,
    errors.BodyDamaged: Code.BODY_DAMAGED,
    errors.BodyGone: Code.BODY_GONE,
    errors.IndexDamaged: Code.INDEX_DAMAGED,
    errors.DeviceFailed: Code.DEVICE_FAILED,
    errors.StorageError: Code.STORAGE_ERROR,
}
"""The one table from what a store raises to what a caller is told. OutcomeUnknown is no code: it stays unknown."""

_READ_TRIES: Final = 4
_REPLY_SLACK_BYTES: Final = 16 * 1024
"""What msgpack adds to the items of a list, at most."""

_NAME_SLACK_BYTES: Final = 5
"""What msgpack adds to a name, at most."""

_GOT: Final = (str(Method.GET), "ok")
_PLACED: Final = {"table", "epoch"}
_KEYED: Final = _PLACED | {"path"}
_LISTED: Final = _KEYED | {"incarnation"}
_STANDING: Final = {lead + name for lead in ("", SEEN) for name in Standing._fields}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service needs of its process, with what serves a store in memory."""

    has_room: Callable[[int], bool] = lambda size: True
    """Whether a large body of this size may begin to arrive."""
    health: Callable[[], Mapping[str, Any]] = dict
    """What `health` answers."""
    stats: Callable[[], Mapping[str, Any]] = dict
    """What `stats` answers."""
    healing: Callable[[], Healing | None] = lambda: None
    """The device's replicator, once there is one."""
    overseeing: Callable[[], Overseeing | None] = lambda: None
    """The same, for whoever watches."""
    pausing: Callable[[], Pausing | None] = lambda: None
    """What pauses the jobs of healing, once it is there."""
    metrics: Callable[[], bytes] = bytes
    """What `metrics` answers, in the text format of Prometheus."""


class DeviceService:
    """The methods of one device; usable inside its context, which owns the tasks of calls that wait."""

    def __init__(
        self, store: Store, layout: Layout, rings: Rings, surroundings: Surroundings | None = None
    ) -> None:
        self.counts: Final[Counter[tuple[str, str]]] = Counter()
        """Calls by method and by how they ended: `ok`, a code, `unknown`, or `bug`."""
        self.service: Final = Service()
        self._store = store
        self._layout = layout
        self._rings = rings
        self._around = surroundings or Surroundings()
        self._tasks = asyncio.TaskGroup()
        self._register()

    async def __aenter__(self) -> Self:
        """Begin to own tasks."""
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the tasks of calls; the server has ended or cancelled them."""
        await self._tasks.__aexit__(None, None, None)

    def _register(self) -> None:
        compared = ComparedCalls(self._store, self._layout, self._rings, self._around.healing, self._table)
        overseen = OverseenCalls(
            self._store, self._around.overseeing, self._around.pausing, self._key, self._placed
        )
        for method, handler, known in (
            *compared.handlers(),
            *overseen.handlers(),
            (Method.PREPARE, self._prepare, _KEYED | {"ballot", "closing"}),
            (Method.FILL, self._fill, _KEYED | {"body_id"}),
            (Method.SET_STANDING, self._set_standing, _PLACED | {"partition", *_STANDING}),
            (Method.STANDING, self._standing, _PLACED | {"partition"}),
            (Method.READ, self._read, _KEYED),
            (Method.GET, self._get, _KEYED | {"inline_bytes"}),
            (Method.LIST_ROWS, self._list_rows, _LISTED | set(Query._fields)),
            (Method.TALLY, self._tally, _LISTED),
            (Method.RANGES, self._ranges, _LISTED | {"after", "limit"}),
            (Method.SPAN_DIGEST, self._span_digest, _LISTED | {"start", "stop"}),
            (Method.PARTITION_DIGEST, self._partition_digest, _PLACED | {"partition"}),
            (Method.DIGESTS, self._digests, _PLACED | {"bits", "first", "stop"}),
            (Method.REGISTERS, self._registers, _PLACED | {"bits", "number", "after", "limit"}),
            (Method.DUE, self._due, {"kind", "before_us", "limit"}),
            (Method.MISSING, self._missing, {"table", "after", "limit"}),
            (Method.HEALTH, self._health, set[str]()),
            (Method.STATS, self._stats, set[str]()),
            (Method.METRICS, self._metrics, set[str]()),
        ):
            answer = partial(self._answer, str(method), handler, frozenset(known))
            begin_call: PlainHandler = partial(self._begin, answer)
            if method is Method.GET:
                begin_call = partial(self._get_at_once, begin_call)
            self.service.calls(method, begin_call)
        for method, begin_write in ((Method.UPSERT_ROWS, self._upsert_rows), (Method.PAY, self._pay)):
            self.service.calls(method, partial(self._write, method.value, begin_write))
        offers = OfferCalls(self._store, self._placing, reply_to, self.counts)
        self.service.calls(Method.OFFER, offers.offer)
        self.service.calls(Method.OFFERS, offers.offers)
        streams = BodyStreams(self._store, self._placing, self._around.has_room)
        for method, stream_handler in (
            (Method.OFFER_STREAM, streams.offer),
            (Method.FILL_STREAM, streams.fill),
            (Method.GET_STREAM, streams.get),
        ):
            self.service.streams(method, partial(self._serve_stream, stream_handler))

    # --- around every call --------------------------------------------------------------------------------------

    def _begin(
        self, answer: Callable[[Call], Coroutine[Any, Any, Reply]], call: Call
    ) -> "Reply | asyncio.Task[Reply]":
        return begin(self._tasks, answer(call))

    async def _answer(
        self,
        method: str,
        handler: Callable[[Call, Fields], Awaitable[Reply]],
        known: frozenset[str],
        call: Call,
    ) -> Reply:
        """Parse, do, and translate what went wrong; what nobody foresaw, too."""
        fields = Fields(call, known)
        try:
            return await self._counted(method, handler(call, fields))
        except Exception:
            # Answered, not raised, since the calls of everybody else share the group of this one.
            self.counts[method, "bug"] += 1
            log.exception("%s failed in a way that nobody foresaw", method)
            return Reply(Outcome.UNKNOWN, reason=f"{method} failed; see the log of the device")

    def _write(
        self,
        method: str,
        begin_write: "Callable[[Call, Fields], tuple[asyncio.Future[Any], Callable[[Any], Reply]]]",
        call: Call,
    ) -> Reply | Later:
        """Begin a write that waits for nothing but the writer's batch: it costs no task."""
        try:
            work, answer = begin_write(call, Fields(call, _PLACED))
        except CallFailed as refusal:
            return self._unserved(method, refusal)
        return Later(work, partial(self._written, method, answer))

    def _written(self, method: str, answer: Callable[[Any], Reply], work: "asyncio.Future[Any]") -> Reply:
        """Count how a write ended, and translate what the store raised."""
        try:
            reply = answer(work.result())
        except (CallFailed, StorageError) as error:
            return self._unserved(method, error)
        self.counts[method, "ok"] += 1
        return reply

    def _unserved(self, method: str, error: CallFailed | StorageError) -> Reply:
        """Count a call that was refused or failed, and return what its caller is told."""
        if isinstance(error, CallFailed):
            reply = failed(error.code, error.reason, error.header)
        else:
            reply = reply_to(error)
        self.counts[method, reply.code or "unknown"] += 1
        return reply

    async def _serve_stream(
        self, handler: Callable[[Call, ServedStream], Awaitable[Reply]], call: Call, stream: ServedStream
    ) -> Reply:
        return await self._counted(call.method, handler(call, stream))

    async def _counted(self, method: str, work: Awaitable[Reply]) -> Reply:
        """Count how a call ends, and translate what the store raised."""
        try:
            reply = await work
        except (CallFailed, StorageError) as error:
            # Answered, not raised: out of a call that waited it would end the tasks of all others.
            return self._unserved(method, error)
        self.counts[method, "ok"] += 1
        return reply

    def _placing(self, table: bytes, fields: Fields) -> Placing:
        """Return how a call was placed, which must be by the ring in use here."""
        placing = Placing(self._rings, table, fields.number("epoch", 1, EPOCH_MAX))
        placing.check()
        return placing

    def _table(self, fields: Fields) -> bytes:
        """Return the table of a call that was placed by the ring in use here."""
        table = fields.table()
        self._placing(table, fields)
        return table

    def _key(self, fields: Fields) -> Key:
        table = self._table(fields)
        return Key(table, fields.path(table))

    def _place(self, fields: Fields) -> tuple[Key, Placing]:
        """Return the key of a call whose answer counts, and how it was placed."""
        table = fields.table()
        placing = self._placing(table, fields)
        return Key(table, fields.path(table)), placing

    def _placed(self, fields: Fields) -> tuple[bytes, int]:
        """Return the table and the partition of a call that was placed by the ring in use here."""
        table = self._table(fields)
        return table, self._partition(table, fields)

    def _partition(self, table: bytes, fields: Fields) -> int:
        return fields.number("partition", 0, (1 << self._layout.part_powers[table]) - 1)

    def _votes(self, key: Key) -> bool:
        partition = self._layout.partition(key.table, self._layout.hashed(key.path))
        return self._store.standing(key.table, partition).votes

    # --- registers ----------------------------------------------------------------------------------------------

    async def _prepare(self, call: Call, fields: Fields) -> Reply:
        (key, placing), ballot = self._place(fields), fields.ballot()
        promise = self._store.prepare(
            key, ballot, closing=fields.flag("closing"), is_current=placing.is_current
        )
        return Reply(header=(await placing.counted(promise)).header())

    async def _fill(self, call: Call, fields: Fields) -> Reply:
        (key, placing), body_id = self._place(fields), fields.write_id("body_id")
        whole = await placing.counted(self._store.fill(key, body_id, octets(call)))
        return Reply(header={"whole": whole})

    async def _read(self, call: Call, fields: Fields) -> Reply:
        key = self._key(fields)
        held = await self._store.look_up(key)
        header: dict[str, Any] = {"votes": self._votes(key), "whole": held is None or held.location.held}
        if held is not None:
            header["register"] = encode_register(held.register)
        return Reply(header=header)

    def _get_at_once(self, begin_call: PlainHandler, call: Call) -> "Reply | asyncio.Future[Reply] | Later":
        """Answer a `get` in the shortest way where nothing is to be said but what stands there, and nothing to be waited
        for; else `begin_call`, which has a word for everything.
        """
        asked = parse_get(call)
        if asked is None:
            return begin_call(call)
        table, epoch, path, inline_bytes = asked
        if self._rings.epoch(table) != epoch:
            return begin_call(call)
        layout = self._layout
        hashed = layout.hashed(path)
        seen = self._store.glance(Key(table, path), hashed, inline_bytes)
        if seen is None:
            return begin_call(call)
        raw, whole, body = seen
        votes = self._store.standing(table, layout.partition(table, hashed)).votes
        header: dict[str, Any] = {"votes": votes, "whole": whole, "inline": body is not None}
        if raw is not None:
            header["entry"] = raw
        self.counts[_GOT] += 1
        return done(header, b"" if body is None else body)

    async def _get(self, call: Call, fields: Fields) -> Reply:
        """Answer with the entry and, where it is no longer than the caller wants, its body."""
        key = self._key(fields)
        inline_bytes = fields.number("inline_bytes", 0, RPC_BODY_BYTES_MAX, RPC_BODY_BYTES_MAX)
        for _ in range(_READ_TRIES if inline_bytes else 0):
            held, body = await self._store.find(key, inline_bytes)
            entry = None if held is None else held.register.entry
            if body is None:
                break
            try:
                content = await body.read(0, body.size)
            except errors.BodyGone:
                continue
            finally:
                body.release()
            return Reply(header=_found(entry, votes=self._votes(key), inline=True), body=content)
        else:
            held = await self._store.look_up(key)
            entry = None if held is None else held.register.entry
        whole = held is None or held.location.held
        return Reply(header=_found(entry, votes=self._votes(key), whole=whole))

    # --- rows and debts -----------------------------------------------------------------------------------------

    def _upsert_rows(
        self, call: Call, fields: Fields
    ) -> "tuple[asyncio.Future[Any], Callable[[list[Ballot | RowRefused]], Reply]]":
        table = fields.table()
        placing = self._placing(table, fields)
        if table not in (CONTAINERS, ACCOUNTS):
            fields.refuse(f"nothing is listed under table {table!r}")
        rows = fields.rows(table)
        return self._store.upsert_rows(rows), partial(self._upserted, placing, rows)

    def _upserted(
        self, placing: Placing, rows: Sequence[RowOffer], answers: Sequence[Ballot | RowRefused]
    ) -> Reply:
        if refusal := placing.changed():
            raise refusal
        votes = {parent: self._votes(parent) for parent in {row.parent for row in rows}}
        return Reply(
            body=pack_list(
                (False, *answer) if isinstance(answer, RowRefused) else (True, votes[row.parent], answer)
                for row, answer in zip(rows, answers, strict=True)
            )
        )

    def _pay(self, call: Call, fields: Fields) -> "tuple[asyncio.Future[Any], Callable[[int], Reply]]":
        paid = self._store.pay(fields.debts(self._table(fields)))
        return paid, lambda paid: Reply(header={"paid": paid})

    async def _list_rows(self, call: Call, fields: Fields) -> Reply:
        listing, query = fields.listing(self._table(fields)), fields.query()
        page = await self._store.scan(self._store.list_rows, listing, query)
        if query.names_only:
            return self._names_of(listing, page)
        fitting = count_fitting(page.rows)
        if fitting < len(page.rows):
            # Asked again, and not cut here, since only the store knows the marker behind a common prefix.
            shorter = query._replace(limit=fitting)
            page = await self._store.scan(self._store.list_rows, listing, shorter)
        header = {"more": page.more, "digest": page.digest.encode(), "votes": self._votes(listing.parent)}
        return Reply(header=header, body=pack_list(page.rows))

    def _names_of(self, listing: Listing, page: Page) -> Reply:
        """Answer with the names of a page; those that do not fit are of the next."""
        names = page.rows.names if isinstance(page.rows, NamedRows) else [row.name for row in page.rows]
        fitting = names[: count_fitting_names(names)]
        more = page.more if len(fitting) == len(names) else fitting[-1]
        header = {"more": more, "digest": page.digest.encode(), "votes": self._votes(listing.parent)}
        return Reply(header=header, body=pack_list(fitting))

    async def _tally(self, call: Call, fields: Fields) -> Reply:
        listing = fields.listing(self._table(fields))
        tally = await self._store.look(self._store.tally, listing)
        return Reply(header={"votes": self._votes(listing.parent)}, body=pack_list(tally.pack()))

    async def _ranges(self, call: Call, fields: Fields) -> Reply:
        listing = fields.listing(self._table(fields))
        limit = fields.number("limit", 1, ITEMS_MAX, PAGE_ITEMS_MAX)
        after = fields.octets("after", 0, ROW_BYTES_MAX) if fields.has("after") else None
        found = await self._store.scan(self._store.ranges, listing, after, limit + 1)
        return _page_of([(first, tally.pack()) for first, tally in found], limit)

    async def _span_digest(self, call: Call, fields: Fields) -> Reply:
        listing = fields.listing(self._table(fields))
        start, stop = (
            fields.octets("start", 0, ROW_BYTES_MAX, b""),
            fields.octets("stop", 0, ROW_BYTES_MAX, b""),
        )
        digest = await self._store.scan(self._store.span_digest, listing, start, stop)
        return Reply(header={"digest": digest.encode(), "votes": self._votes(listing.parent)})

    # --- partitions ---------------------------------------------------------------------------------------------

    async def _set_standing(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        seen, standing = (
            Standing(
                fields.flag(f"{lead}votes"),
                fields.number(f"{lead}floor_us", 0, MICROS_MAX),
                fields.number(f"{lead}refusing_us", 0, MICROS_MAX),
            )
            for lead in (SEEN, "")
        )
        await self._store.set_standing(table, self._partition(table, fields), standing, seen=seen)
        return Reply()

    async def _standing(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        return Reply(header=self._store.standing(table, self._partition(table, fields))._asdict())

    async def _partition_digest(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        partition = self._partition(table, fields)
        digest = await self._store.scan(self._store.partition_digest, table, partition)
        return Reply(header={"digest": digest.encode()})

    async def _digests(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        bits = fields.bits()
        first = fields.number("first", 0, (1 << bits) - 1)
        stop = fields.number("stop", first + 1, min(1 << bits, first + ITEMS_MAX))
        digests = await self._store.scan(self._store.digests, table, bits, first, stop)
        return Reply(body=pack_list(digest.encode() for digest in digests))

    async def _registers(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        bits = fields.bits()
        number = fields.number("number", 0, (1 << bits) - 1)
        after = fields.octets("after", 0, PATH_BYTES_MAX, b"")
        limit = fields.number("limit", 1, ITEMS_MAX, PAGE_ITEMS_MAX)
        found = await self._store.scan(self._store.registers, table, bits, number, after, limit + 1)
        return _page_of(
            [(key.path, encode_register(held.register), held.location.held) for key, held in found], limit
        )

    # --- the whole device ---------------------------------------------------------------------------------------

    async def _due(self, call: Call, fields: Fields) -> Reply:
        kind = {DueKind.DELETE: Due.DELETE, DueKind.DEBT: Due.DEBT}[
            DueKind(fields.text("kind", set(DueKind)))
        ]
        before_us = fields.number("before_us", 0, MICROS_MAX)
        limit = fields.number("limit", 1, ITEMS_MAX, PAGE_ITEMS_MAX)
        found = await self._store.scan(self._store.due, kind, before_us, limit)
        items = [
            (key.table, key.path, None if version is None else encode_version(version))
            for key, version in found
        ]
        return Reply(body=pack_list(items[: count_fitting(items)]))

    async def _missing(self, call: Call, fields: Fields) -> Reply:
        after = None
        if fields.has("after"):
            after = Key(fields.table(), fields.octets("after", 1, PATH_BYTES_MAX))
        limit = fields.number("limit", 1, ITEMS_MAX, PAGE_ITEMS_MAX)
        found = await self._store.scan(self._store.missing, after, limit)
        items = [(key.table, key.path) for key in found]
        return Reply(body=pack_list(items[: count_fitting(items)]))

    async def _health(self, call: Call, fields: Fields) -> Reply:
        return Reply(header=self._around.health())

    async def _stats(self, call: Call, fields: Fields) -> Reply:
        return Reply(header=self._around.stats())

    async def _metrics(self, call: Call, fields: Fields) -> Reply:
        return Reply(body=self._around.metrics())


def reply_to(error: StorageError) -> Reply:
    """Translate what a store raised; the one place where that is done."""
    if isinstance(error, errors.OutcomeUnknown):
        return Reply(Outcome.UNKNOWN, reason=str(error))
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    return Reply(Outcome.ERROR, {}, b"", code, str(error))


def count_fitting(items: Sequence[tuple[Any, ...]]) -> int:
    """Return how many of these items, from the first, fit into the body of one reply; one always does."""
    left = RPC_BODY_BYTES_MAX - _REPLY_SLACK_BYTES
    # All of them nearly always do, which is told soonest where they hold nothing but bytes, as rows do.
    with suppress(TypeError):
        if sum(map(len, chain.from_iterable(items))) + 32 * len(items) <= left:
            return len(items)
    for at, item in enumerate(items):
        left -= 16
        for value in item:
            left -= len(value) if type(value) is bytes else 64
        if left < 0:
            return max(1, at)
    return len(items)


def count_fitting_names(names: Sequence[bytes]) -> int:
    """Return how many of these names, from the first, fit into the body of one reply."""
    left = RPC_BODY_BYTES_MAX - _REPLY_SLACK_BYTES
    if sum(map(len, names)) + _NAME_SLACK_BYTES * len(names) <= left:
        return len(names)
    ends = accumulate(len(name) + _NAME_SLACK_BYTES for name in names)
    return sum(1 for end in ends if end <= left)


def _page_of(items: list[tuple[Any, ...]], limit: int) -> Reply:
    """Answer with the first items, and the first value of the last of them where there are more."""
    fitting = items[: count_fitting(items[:limit])]
    return Reply(
        header={"more": fitting[-1][0] if len(fitting) < len(items) else None}, body=pack_list(fitting)
    )


def _found(entry: Entry | None, *, votes: bool, whole: bool = True, inline: bool = False) -> dict[str, Any]:
    header: dict[str, Any] = {"votes": votes, "whole": whole, "inline": inline}
    if entry is not None:
        header["entry"] = encode(entry)
    return header
