"""The calling end of a device: typed calls and streams over any transport.

Owns how a question becomes a header and an answer a value. Never retries, never picks a device, never judges an
outcome: whatever is not OK is raised as NodeFailed, which carries the reply.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from swiftlike.digests import Digest
from swiftlike.entries import Entry, EntryDamaged, Version, decode, encode
from swiftlike.limits import PAGE_ITEMS_MAX, RPC_BODY_BYTES_MAX
from swiftlike.node_calls import (
    SEEN,
    Acceptance,
    CaughtUp,
    Copies,
    Degraded,
    DueItem,
    DueKind,
    Found,
    HeldCopy,
    HeldRegister,
    HeldVersion,
    Method,
    PackedRow,
    Page,
    PartitionDigests,
    Promise,
    Query,
    RowOffer,
    RowRefused,
    RowTaken,
    Standing,
    Tally,
    Trusted,
    VersionsPage,
    decode_version,
    encode_version,
    pack_list,
    pack_row,
    unpack_list,
    unpack_names,
    unpack_rows,
)
from swiftlike.registers import Register, decode_register
from swiftlike.rpc.errors import StreamEnded
from swiftlike.rpc.transport import Address, Body, Header, Outcome, Reply, Stream, Transport
from swiftlike.timestamps import NO_INCARNATION, ZERO_BALLOT, Ballot, Offer, Timestamp, WriteId

T = TypeVar("T")

_OK: Final = Outcome.OK


class NodeFailed(Exception):
    """A call or stream that did not end in OK; `reply` says how, and what is known about the work."""

    def __init__(self, peer: Address, method: str, reply: Reply) -> None:
        super().__init__(
            f"{peer}: {method} ended as {reply.outcome.value}: {reply.code} {reply.reason}".rstrip()
        )
        self.reply = reply


class Asked(NamedTuple, Generic[T]):
    """A call that was made, and how its reply is read; reading raises NodeFailed."""

    reply: "asyncio.Future[Reply]"
    read: Callable[[Reply], T]


class NodeClient:
    """One device, under one epoch of each ring and one time limit for each call."""

    def __init__(
        self,
        transport: Transport,
        peer: Address,
        epoch_of: Callable[[bytes], int],
        *,
        timeout_s: float = 10.0,
    ) -> None:
        """Take the way to the device, and what tells the epoch of the ring that placed a table."""
        self.transport = transport
        self.epoch_of = epoch_of
        self._timeout_s = timeout_s
        self.peer = peer

    # --- registers ----------------------------------------------------------------------------------------------

    async def offer(
        self,
        table: bytes,
        path: bytes,
        entry: Entry,
        body: Body | None = None,
        *,
        offer: Offer = Offer.FIRST,
        owing: bool = False,
        from_voter: bool = False,
    ) -> Acceptance:
        """Offer an entry, with its body if that is small and not there already."""
        header = self._at(table, path) | offer_header(
            encode(entry), offer, owing=owing, from_voter=from_voter
        )
        if body is not None:
            header["with_body"] = True
        reply = await self._call(Method.OFFER, header, b"" if body is None else body)
        return self._parse(Method.OFFER, reply, lambda: Acceptance.of(reply.header))

    async def prepare(self, table: bytes, path: bytes, ballot: Ballot, *, closing: bool = False) -> Promise:
        """Ask for a promise."""
        header = self._at(table, path) | {"ballot": bytes(ballot), "closing": closing}
        reply = await self._call(Method.PREPARE, header)
        return self._parse(Method.PREPARE, reply, lambda: Promise.of(reply.header))

    async def fill(self, table: bytes, path: bytes, body_id: WriteId, body: Body) -> bool:
        """Bring a small body that is missing there; say whether the entry is whole now."""
        reply = await self._call(Method.FILL, self._at(table, path) | {"body_id": bytes(body_id)}, body)
        return bool(reply.header["whole"])

    async def read(self, table: bytes, path: bytes) -> tuple[Register | None, bool, bool]:
        """Return what stands at a key, whether its body is there, and whether the owner votes."""
        reply = await self._call(Method.READ, self._at(table, path))
        raw = reply.header.get("register")
        register = None if raw is None else self._parse(Method.READ, reply, lambda: decode_register(raw))
        return register, reply.header["whole"], reply.header["votes"]

    async def get(self, table: bytes, path: bytes, inline_bytes: int = RPC_BODY_BYTES_MAX) -> Found:
        """Return the entry of a key, with its body if that is no longer than `inline_bytes`."""
        asked = self.ask_get(table, path, inline_bytes)
        return asked.read(await asked.reply)

    def ask_get(self, table: bytes, path: bytes, inline_bytes: int) -> Asked[Found]:
        """Make that call."""
        header = self._at(table, path) | {"inline_bytes": inline_bytes}
        return Asked(self._ask(Method.GET, header), partial(read_found, self.peer))

    # --- streamed bodies ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def put_stream(
        self, table: bytes, path: bytes, body_id: WriteId, size: int | None = None
    ) -> AsyncIterator["PutStream"]:
        """Stream a body, once the device has said that it has room; leaving without a commit leaves nothing there."""
        async with self._stream(Method.OFFER_STREAM, self._at(table, path) | _body(body_id, size)) as stream:
            await stream.receive()
            yield PutStream(self, stream, table)

    async def fill_stream(
        self, table: bytes, path: bytes, body_id: WriteId, chunks: AsyncIterable[Body], size: int
    ) -> bool:
        """Stream a body that is missing there; say whether the entry is whole now."""
        async with self._stream(Method.FILL_STREAM, self._at(table, path) | _body(body_id, size)) as stream:
            async for chunk in chunks:
                await send_body(stream, chunk)
            reply = self._ok(Method.FILL_STREAM, await stream.finish())
            return bool(reply.header["whole"])

    @asynccontextmanager
    async def get_stream(
        self,
        table: bytes,
        path: bytes,
        start: int = 0,
        stop: int | None = None,
        *,
        body_id: WriteId | None = None,
    ) -> AsyncIterator[tuple[Entry, AsyncIterator[Body]]]:
        """Stream the bytes `[start, stop)` of a body; with `body_id`, only of that very one."""
        header: dict[str, Any] = self._at(table, path) | {"start": start}
        if stop is not None:
            header["stop"] = stop
        if body_id is not None:
            header["body_id"] = bytes(body_id)
        async with self._stream(Method.GET_STREAM, header) as stream:
            first = await stream.receive()
            if first is None:
                raise NodeFailed(self.peer, Method.GET_STREAM, Reply(Outcome.UNKNOWN, reason="no entry came"))
            yield decode(first.header["entry"]), _bodies(stream)

    # --- rows and debts -----------------------------------------------------------------------------------------

    async def upsert_rows(self, table: bytes, rows: Sequence[RowOffer]) -> list[RowTaken | RowRefused]:
        """Offer rows to their listings, all in one transaction."""
        asked = self.ask_upsert_rows(table, list(map(pack_row, rows)))
        return asked.read(await asked.reply)

    def ask_upsert_rows(self, table: bytes, rows: Sequence[PackedRow]) -> Asked[list[RowTaken | RowRefused]]:
        """Make that call with rows that are packed already: they go to several owners, and are packed once."""
        return Asked(self._ask(Method.UPSERT_ROWS, self._placed(table), pack_list(rows)), self._read_upserted)

    def _read_upserted(self, reply: Reply) -> list[RowTaken | RowRefused]:
        return [
            RowTaken(flag, Ballot(stamp)) if taken else RowRefused(flag, Timestamp(stamp))
            for taken, flag, stamp in unpack_list(self._ok(Method.UPSERT_ROWS, reply).body)
        ]

    async def pay(self, table: bytes, debts: Sequence[tuple[bytes, Version]]) -> int:
        """Clear debts; return how many were still owed."""
        body = pack_list((path, encode_version(version)) for path, version in debts)
        return int((await self._call(Method.PAY, self._placed(table), body)).header["paid"])

    async def list_rows(
        self, table: bytes, path: bytes, query: Query, incarnation: Timestamp = NO_INCARNATION
    ) -> tuple[Page, bool]:
        """Return a page of a listing, and whether the owner votes."""
        reply = await self._call(
            Method.LIST_ROWS, {**self._at(table, path), **query.header(), "incarnation": bytes(incarnation)}
        )
        rows = unpack_names(reply.body) if query.names_only else unpack_rows(reply.body)
        header = reply.header
        return Page(rows, header["more"], Digest.decode(header["digest"])), header["votes"]

    async def tally(
        self, table: bytes, path: bytes, incarnation: Timestamp = NO_INCARNATION
    ) -> tuple[Tally, bool]:
        """Return what the rows of a listing add up to, and whether the owner votes."""
        reply = await self._call(Method.TALLY, self._listed(table, path, incarnation))
        return Tally.of(unpack_list(reply.body)), reply.header["votes"]

    async def ranges(
        self, table: bytes, path: bytes, incarnation: Timestamp = NO_INCARNATION, after: bytes | None = None
    ) -> tuple[list[tuple[bytes, Tally]], bytes | None]:
        """Return ranges of a listing by their first names, and what to ask `after` next."""
        header = self._listed(table, path, incarnation)
        reply = await self._call(Method.RANGES, header if after is None else header | {"after": after})
        ranges = [(item[0], Tally.of(item[1])) for item in unpack_list(reply.body)]
        return ranges, reply.header["more"]

    async def span_digest(
        self, table: bytes, path: bytes, start: bytes, stop: bytes, incarnation: Timestamp = NO_INCARNATION
    ) -> tuple[Digest, bool]:
        """Return the digest of the rows in `[start, stop)`, an empty `stop` meaning to the end, and whether the owner
        votes.
        """
        header = self._listed(table, path, incarnation) | {"start": start, "stop": stop}
        found = (await self._call(Method.SPAN_DIGEST, header)).header
        return Digest.decode(found["digest"]), found["votes"]

    # --- partitions ---------------------------------------------------------------------------------------------

    async def set_standing(self, table: bytes, partition: int, standing: Standing, *, seen: Standing) -> None:
        """Change the voting and the floors of a partition from what was `seen`; refused when it stands otherwise."""
        header = self._placed(table) | {"partition": partition, **standing._asdict()}
        header |= {SEEN + name: value for name, value in seen._asdict().items()}
        await self._call(Method.SET_STANDING, header)

    async def standing(self, table: bytes, partition: int) -> Standing:
        """Return the voting and the floor of a partition."""
        reply = await self._call(Method.STANDING, self._placed(table) | {"partition": partition})
        return Standing(**reply.header)

    async def partition_digest(self, table: bytes, partition: int) -> Digest:
        """Return the digest of a partition's registers."""
        reply = await self._call(Method.PARTITION_DIGEST, self._placed(table) | {"partition": partition})
        return Digest.decode(reply.header["digest"])

    async def digests(self, table: bytes, bits: int, first: int, stop: int) -> list[Digest]:
        """Return a digest for each number in `[first, stop)`: of the registers whose path hash begins with its `bits` bits.

        With the part power for `bits` they are those of partitions, up to ITEMS_MAX of them.
        """
        header = self._placed(table) | {"bits": bits, "first": first, "stop": stop}
        reply = await self._call(Method.DIGESTS, header)
        return [Digest.decode(raw) for raw in unpack_list(reply.body)]

    async def registers(
        self, table: bytes, bits: int, number: int, after: bytes = b"", limit: int = PAGE_ITEMS_MAX
    ) -> tuple[list[HeldRegister], bytes | None]:
        """Return registers whose path hash begins with the `bits` bits of a number, and what to ask `after` next."""
        header = self._placed(table) | {"bits": bits, "number": number, "after": after, "limit": limit}
        reply = await self._call(Method.REGISTERS, header)
        held = [
            HeldRegister(path, decode_register(raw), whole) for path, raw, whole in unpack_list(reply.body)
        ]
        return held, reply.header["more"]

    # --- comparing and copying ----------------------------------------------------------------------------------

    async def compare(self, digests: Sequence[PartitionDigests]) -> list[PartitionDigests]:
        """Ask which of these partitions differ there; a table of another epoch there comes back with that and no digest."""
        reply = await self._call(Method.COMPARE, {}, pack_list(each.pack() for each in digests))
        return [PartitionDigests.of(item) for item in unpack_list(reply.body)]

    async def versions(
        self, table: bytes, bits: int, number: int, after: bytes = b"", *, marked: bool = False
    ) -> tuple[list[HeldVersion], bytes | None, bool]:
        """Return what stands in a range of path hashes, what to ask `after` next, and whether the owner votes there.

        `marked`: only keys under a promise above their entry, or that owe a row.
        """
        header = self._placed(table) | {"bits": bits, "number": number, "after": after, "marked": marked}
        reply = await self._call(Method.VERSIONS, header)
        return list(map(HeldVersion.of, unpack_list(reply.body))), reply.header["more"], reply.header["votes"]

    async def versions_in(
        self, table: bytes, bits: int, numbers: Sequence[int], after: bytes = b""
    ) -> VersionsPage:
        """Return what stands in the first of these ranges of path hashes, in the very first from behind a path."""
        header = self._placed(table) | {"bits": bits, "after": after}
        reply = await self._call(Method.VERSIONS_IN, header, pack_list(numbers))
        page = VersionsPage(
            list(map(HeldVersion.of, unpack_list(reply.body))), reply.header["served"], reply.header["after"]
        )
        if not 0 <= page.served <= len(numbers) or (not page.served and page.after == after):
            raise NodeFailed(self.peer, Method.VERSIONS_IN, _damaged("it does not go on"))
        return page

    async def versions_of(self, table: bytes, paths: Sequence[bytes]) -> list[HeldVersion]:
        """Return what stands at these keys, in their order; absent ones too."""
        reply = await self._call(Method.VERSIONS_OF, self._placed(table), pack_list(paths))
        return list(map(HeldVersion.of, unpack_list(reply.body)))

    async def copies(self, table: bytes, wanted: Sequence[tuple[bytes, WriteId]]) -> Copies:
        """Return copies of what stands at the first of these keys, at one of them at least.

        Each with the body that the caller has already, NO_WRITE for none: that one is not sent.
        """
        reply = await self._call(Method.COPIES, self._placed(table), pack_list(wanted))
        found = self._parse(Method.COPIES, reply, lambda: list(map(HeldCopy.of, unpack_list(reply.body))))
        served = reply.header["served"]
        if not min(1, len(wanted)) <= served <= len(wanted):
            raise NodeFailed(
                self.peer, Method.COPIES, _damaged("it tells of none, or of more than was asked for")
            )
        # Where a release is older than this figure, nobody is known to wait.
        return Copies(found, served, reply.header.get("lag_us", 0) / 1e6)

    async def listings(
        self, table: bytes, partition: int, after: tuple[bytes, Timestamp] | None = None
    ) -> tuple[list[tuple[bytes, Timestamp, Digest]], bool, bool]:
        """Return the listings of a partition (path, incarnation, digest), whether there are more, and whether the owner votes."""
        header = self._placed(table) | {"partition": partition}
        if after is not None:
            header |= {"after": after[0], "incarnation": bytes(after[1])}
        reply = await self._call(Method.LISTINGS, header)
        found = [
            (path, Timestamp(incarnation), Digest.decode(digest))
            for path, incarnation, digest in unpack_list(reply.body)
        ]
        return found, reply.header["more"], reply.header["votes"]

    async def span_digests(
        self, table: bytes, path: bytes, bounds: Sequence[bytes], incarnation: Timestamp = NO_INCARNATION
    ) -> list[Digest]:
        """Return the digest of a listing's rows from each bound to the next; behind the last, to the end."""
        header = self._listed(table, path, incarnation)
        reply = await self._call(Method.SPAN_DIGESTS, header, pack_list(bounds))
        return list(map(Digest.decode, unpack_list(reply.body)))

    async def row_ballots(
        self, table: bytes, path: bytes, names: Sequence[bytes], incarnation: Timestamp = NO_INCARNATION
    ) -> list[Ballot]:
        """Return the ballots of a listing's rows of these names, tombstones too, in their order; ZERO_BALLOT: there is none."""
        header = self._listed(table, path, incarnation)
        reply = await self._call(Method.ROW_BALLOTS, header, pack_list(names))
        return [Ballot(raw) if raw else ZERO_BALLOT for raw in unpack_list(reply.body)]

    async def hint(
        self, table: bytes, partition: int, device: int | None = None, *, one_way: bool = False
    ) -> bool:
        """Have a device compare a partition with another one of its ring, or with all owners; say whether it will.

        `one_way`: it need not tell that other one what it lacks.
        """
        header = self._placed(table) | {"partition": partition}
        if device is not None:
            header["device"] = device
        if one_way:
            header["one_way"] = True
        return bool((await self._call(Method.HINT, header)).header["taken"])

    async def caught_up(self, table: bytes) -> CaughtUp:
        """Return how far a device is with the partitions of a table's ring."""
        reply = await self._call(Method.CAUGHT_UP, self._placed(table))
        return CaughtUp(**reply.header, waiting=unpack_list(reply.body))

    async def trust(self, table: bytes, partition: int) -> Trusted:
        """Have a device vote on a partition on an operator's word, once it has all that the owners hold who vote and answer."""
        reply = await self._call(Method.TRUST, self._placed(table) | {"partition": partition})
        return Trusted(**reply.header)

    async def verify(self, table: bytes, path: bytes) -> bool:
        """Have a device read the body of an entry back, every block of it; say whether there is one to read.

        Raises NodeFailed with BODY_DAMAGED for one that is bad, which is then set aside and mended like any other.
        """
        reply = await self._call(Method.VERIFY, self._at(table, path))
        return bool(reply.header["read"])

    # --- the whole device ---------------------------------------------------------------------------------------

    async def due(self, kind: DueKind, before_us: int, limit: int = PAGE_ITEMS_MAX) -> list[DueItem]:
        """Return what falls due before a time, earliest first."""
        reply = await self._call(Method.DUE, {"kind": str(kind), "before_us": before_us, "limit": limit})
        return [
            DueItem(table, path, None if version is None else decode_version(version))
            for table, path, version in unpack_list(reply.body)
        ]

    async def missing(
        self, after: tuple[bytes, bytes] | None = None, limit: int = PAGE_ITEMS_MAX
    ) -> list[tuple[bytes, bytes]]:
        """Return tables and paths whose body is missing there, from behind one of them."""
        header: dict[str, Any] = {"limit": limit}
        if after is not None:
            header |= {"table": after[0], "after": after[1]}
        reply = await self._call(Method.MISSING, header)
        return [(table, path) for table, path in unpack_list(reply.body)]

    async def degraded(self) -> list[Degraded]:
        """Return the partitions of this device with fewer sound copies than owners, up to ITEMS_MAX, the worst first."""
        reply = await self._call(Method.DEGRADED, {})
        return [Degraded(*item) for item in unpack_list(reply.body)]

    async def pause(self, until_us: int) -> None:
        """Keep a device from taking from its peers until a time; one that has passed lets it go on."""
        await self._call(Method.PAUSE, {"until_us": until_us})

    async def health(self) -> Header:
        """Return how the device is."""
        return (await self._call(Method.HEALTH, {})).header

    async def stats(self) -> Header:
        """Return what the device holds and has done."""
        return (await self._call(Method.STATS, {})).header

    async def metrics(self) -> bytes:
        """Return the device's metrics in the text format of Prometheus."""
        return bytes((await self._call(Method.METRICS, {})).body)

    # --- helpers ------------------------------------------------------------------------------------------------

    def _placed(self, table: bytes) -> dict[str, Any]:
        return {"table": table, "epoch": self.epoch_of(table)}

    def _at(self, table: bytes, path: bytes) -> dict[str, Any]:
        return {"table": table, "epoch": self.epoch_of(table), "path": path}

    def _listed(self, table: bytes, path: bytes, incarnation: Timestamp) -> dict[str, Any]:
        return self._at(table, path) | {"incarnation": bytes(incarnation)}

    async def _call(self, method: Method, header: Header, body: Body = b"") -> Reply:
        deadline = self.transport.now() + self._timeout_s
        return self._ok(
            method, await self.transport.call(self.peer, str(method), header, body, deadline=deadline)
        )

    def _ask(self, method: Method, header: Header, body: Body = b"") -> "asyncio.Future[Reply]":
        deadline = self.transport.now() + self._timeout_s
        return self.transport.ask(self.peer, method.value, header, body, deadline=deadline)

    def _ok(self, method: Method, reply: Reply) -> Reply:
        if reply.outcome is not Outcome.OK:
            raise NodeFailed(self.peer, method, reply)
        return reply

    def _parse(self, method: Method, reply: Reply, parse: Callable[[], T]) -> T:
        """Read an answer; one that is damaged tells nothing about the work."""
        try:
            return parse()
        except EntryDamaged as error:
            raise NodeFailed(self.peer, method, _damaged(error)) from error

    @asynccontextmanager
    async def _stream(self, method: Method, header: Header) -> AsyncIterator[Stream]:
        deadline = self.transport.now() + self._timeout_s
        try:
            async with self.transport.open_stream(
                self.peer, str(method), header, deadline=deadline
            ) as stream:
                yield stream
        except StreamEnded as end:
            raise NodeFailed(self.peer, method, end.reply) from end


class PutStream:
    """A body on its way to a device, and the offers that are made with it. All failures are NodeFailed."""

    def __init__(self, client: NodeClient, stream: Stream, table: bytes) -> None:
        self._client = client
        self._stream = stream
        self._table = table

    @property
    def is_open(self) -> bool:
        """Whether more of the body, or a commit, can be sent."""
        return self._stream.reply is None

    @property
    def message_bytes(self) -> int:
        """How much of the body travels in one message."""
        return self._stream.message_bytes

    async def send(self, chunk: Body) -> None:
        """Send more of the body; waits while the device is slower. An empty chunk only says that we are still there."""
        try:
            await send_body(self._stream, chunk)
        except StreamEnded as end:
            raise self._failed(end.reply) from end

    async def commit(
        self,
        entry: Entry,
        *,
        offer: Offer = Offer.FIRST,
        owing: bool = False,
        from_voter: bool = False,
        epoch: int | None = None,
    ) -> Acceptance:
        """Offer the entry that the body belongs to.

        When it is refused, or fails with a code while `is_open`, the body stays there and may be offered again under another
        ballot. `epoch` is that of the ring that placed this round of offers, which may be newer than the one that the
        stream was opened under; None: the epoch that the client goes by now.
        """
        header = offer_header(encode(entry), offer, owing=owing, from_voter=from_voter)
        header["epoch"] = self._client.epoch_of(self._table) if epoch is None else epoch
        try:
            await self._stream.send(header=header)
            message = await self._stream.receive()
        except StreamEnded as end:
            raise self._failed(end.reply) from end
        if message is None:
            assert self._stream.reply is not None, "the device has sent its last word"
            return Acceptance.of(self._stream.reply.header)
        if "code" in message.header:
            code, reason = message.header["code"], message.header["reason"]
            raise self._failed(Reply(Outcome.ERROR, message.header, b"", code, reason))
        return Acceptance.of(message.header)

    def _failed(self, reply: Reply) -> NodeFailed:
        return NodeFailed(self._client.peer, Method.OFFER_STREAM, reply)


def read_found(peer: Address, reply: Reply, read_entry: Callable[[bytes], Entry] = decode) -> Found:
    """Read the answer to a `get`. Raises NodeFailed."""
    if reply.outcome is not _OK:
        raise NodeFailed(peer, Method.GET, reply)
    try:
        return Found.of(reply.header, reply.body, read_entry)
    except EntryDamaged as error:
        raise NodeFailed(peer, Method.GET, _damaged(error)) from error


def _damaged(error: EntryDamaged | str) -> Reply:
    """Return what a damaged answer is worth: it tells nothing about the work."""
    return Reply(Outcome.UNKNOWN, reason=f"its answer is damaged: {error}")


async def send_body(stream: Stream, chunk: Body) -> None:
    """Send a piece of a body of any size, in messages that fit the window."""
    message_bytes = stream.message_bytes
    if len(chunk) <= message_bytes:
        await stream.send(chunk)
        return
    view = memoryview(chunk)
    for at in range(0, len(view), message_bytes):
        await stream.send(view[at : at + message_bytes])


async def _bodies(stream: Stream) -> AsyncIterator[Body]:
    async for message in stream:
        yield message.body


def offer_header(
    entry_raw: bytes, offer: Offer, *, owing: bool = False, from_voter: bool = False
) -> dict[str, Any]:
    """Write down what is offered, but for the key and the body."""
    header: dict[str, Any] = {"entry": entry_raw}
    if offer is not Offer.FIRST:
        header["offer"] = offer.value
    if owing:
        header["owing"] = True
    if from_voter:
        header["from_voter"] = True
    return header


def _body(body_id: WriteId, size: int | None) -> dict[str, Any]:
    return {"body_id": bytes(body_id)} if size is None else {"body_id": bytes(body_id), "size": size}
