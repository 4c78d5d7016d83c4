"""Bodies in streams: large bodies on their way in and out of a device.

Owns what the messages of those streams mean, and that nothing stays behind of a body that was not committed. Never
decides what is accepted and never sees a file.

    offer_stream  →  open: table, epoch, path, body_id, size (if known)
                  ←  an empty message: it has room, and the body may come
                  →  body*; then a commit, since a ballot is taken, and placed, at commit: one message with `epoch`,
                     `entry`, `offer`, `owing`, `from_voter`
                  ←  accepted: the reply, with the answer of an offer. Refused: a message with that answer, or with `code`
                     and `reason`; the body stays here, and another commit may follow
                  →  END: it is given up
                     An empty message, at any time, says that the caller is still there.
    fill_stream   →  open: table, epoch, path, body_id, size; body*; END.              ←  `whole`
    get_stream    →  open: table, epoch, path, start, stop, body_id (if it must be that one)
                  ←  one message with `entry`; the bytes `[start, stop)`; the reply
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from storage_node.errors import BallotRefused, InsufficientStorage
from storage_node.keys import Key
from storage_node.placing import Placing
from storage_node.requests import Fields
from storage_node.store import Offered, Staged, Store
from swiftlike.entries import encode
from swiftlike.limits import BODY_BYTES_MAX, WRITE_RUN_BYTES
from swiftlike.node_calls import Acceptance, Code
from swiftlike.rpc.errors import CallFailed
from swiftlike.rpc.service import Call
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Body, Header, Reply
from swiftlike.timestamps import WriteId

T = TypeVar("T")

_PLACED: Final = frozenset({"table", "epoch", "path"})
_OPENED: Final = _PLACED | {"body_id", "size"}
_COMMITTED: Final = frozenset({"epoch", "entry", "offer", "owing", "from_voter"})
_MENDABLE: Final = frozenset({Code.RING_OLDER, Code.RING_NEWER})
_RANGED: Final = _PLACED | {"start", "stop", "body_id"}


class BodyStreams:
    """The handlers of the three streams."""

    def __init__(
        self,
        store: Store,
        placing_of: Callable[[bytes, Fields], Placing],
        has_room: Callable[[int], bool],
    ) -> None:
        """Take the store, what holds a call's epoch against the ring, and whether a body of some size has room."""
        self._store = store
        self._placing_of = placing_of
        self._has_room = has_room

    async def offer(self, call: Call, stream: ServedStream) -> Reply:
        """Stage a body, then offer it with the entry that a commit brings, until one is accepted."""
        fields = Fields(call, _OPENED)
        key, _, staged, size_max = self._open(fields)
        try:
            await stream.send()
            commit = await _receive(stream, staged, size_max, fields)
            while commit:
                answer = await self._commit(call, key, fields.write_id("body_id"), staged, commit)
                if isinstance(answer, Acceptance) and answer.accepted:
                    return Reply(header=answer.header())
                await stream.send(header=answer.header() if isinstance(answer, Acceptance) else answer)
                commit = await _receive(stream, None, 0, fields)
            raise CallFailed(
                Code.NO_COMMIT, f"{call.method}: the body ended without an entry; nothing was stored"
            )
        finally:
            await undisturbed(staged.abort())

    async def _commit(
        self, call: Call, key: Key, body_id: WriteId, staged: Staged, commit: Header
    ) -> Acceptance | Header:
        """Offer a staged body; what is refused for a reason that another commit can mend is a header that says so."""
        last = Fields(call._replace(header=commit), _COMMITTED)
        try:
            placing = self._placing_of(key.table, last)
            entry = last.entry()
            if entry.body_id != body_id:
                # Its checksums are made for the other: it would be accepted, and no read of it ever verified.
                last.refuse("the entry names another body than the one that was sent")
            offered = Offered(
                key,
                entry,
                last.offer(),
                staged,
                last.flag("owing"),
                last.flag("from_voter"),
                placing.is_current,
            )
            return await placing.counted(undisturbed(self._store.offer(offered)))
        except CallFailed as refusal:
            if refusal.code not in _MENDABLE:
                raise
            return {**refusal.header, "code": str(refusal.code), "reason": refusal.reason}
        except BallotRefused as refused:
            return {"code": str(Code.BALLOT_REFUSED), "reason": str(refused)}

    async def fill(self, call: Call, stream: ServedStream) -> Reply:
        """Stage a missing body and give it to its entry."""
        fields = Fields(call, _OPENED)
        key, placing, staged, size_max = self._open(fields)
        try:
            if await _receive(stream, staged, size_max, fields):
                fields.refuse("a message of this stream has a header")
            filled = self._store.fill(key, fields.write_id("body_id"), staged)
            whole = await placing.counted(undisturbed(filled))
            return Reply(header={"whole": whole})
        finally:
            await undisturbed(staged.abort())

    async def get(self, call: Call, stream: ServedStream) -> Reply:
        """Send the entry, then a range of its body, which stays open whatever happens to the key meanwhile."""
        fields = Fields(call, _RANGED)
        key, _ = self._place(fields)
        opened = await self._store.open_object(key)
        if opened is None:
            raise CallFailed(Code.NOT_HERE, f"{key.path!r} has no body on this device: ask another owner")
        entry, body = opened
        try:
            header = {"entry": encode(entry)}
            if fields.has("body_id") and fields.write_id("body_id") != entry.body_id:
                raise CallFailed(
                    Code.OTHER_BODY, f"{key.path!r} has another body by now: begin the read again", header
                )
            start = fields.number("start", 0, body.size, 0)
            stop = fields.number("stop", start, body.size, body.size)
            await stream.send(header=header)
            async for chunk in body.stream(start, stop):
                for at in range(0, len(chunk), stream.message_bytes):
                    await stream.send(chunk[at : at + stream.message_bytes])
            return Reply()
        finally:
            body.release()

    def _place(self, fields: Fields) -> tuple[Key, Placing]:
        table = fields.table()
        placing = self._placing_of(table, fields)
        return Key(table, fields.path(table)), placing

    def _open(self, fields: Fields) -> tuple[Key, Placing, Staged, int]:
        """Return the key, where its body may go, and how large that may become; refuse before any of it is sent."""
        key, placing = self._place(fields)
        body_id = fields.write_id("body_id")
        size_max = fields.number("size", 0, BODY_BYTES_MAX, BODY_BYTES_MAX)
        if not self._has_room(size_max if fields.has("size") else 0):
            raise InsufficientStorage(
                "only the reserve of this device would be left: ask another, and add devices"
            )
        return key, placing, self._store.stage(body_id), size_max


async def _receive(stream: ServedStream, staged: Staged | None, size_max: int, fields: Fields) -> Header:
    """Stage the body and return the header of the message that ended it; empty when the caller will send no more.

    One run is written while the next arrives: two of them, and a window, is what a stream holds in memory.
    """
    run: list[Body] = []
    run_bytes = received = 0
    run_bytes_max = min(WRITE_RUN_BYTES, stream.window_bytes)
    commit: Header = {}
    writing: asyncio.Task[None] | None = None
    try:
        async for message in stream:
            run_bytes += len(message.body)
            received += len(message.body)
            if received > size_max:
                fields.refuse(f"the body passes {size_max} bytes" if staged else "a body after a commit")
            if message.body:
                run.append(message.body)
            commit = message.header
            if commit:
                break
            if run_bytes >= run_bytes_max and staged is not None:
                if writing is not None:
                    await undisturbed(writing)
                writing = asyncio.ensure_future(staged.write(*run))
                run, run_bytes = [], 0
    finally:
        if writing is not None:
            await undisturbed(writing)
    if run and staged is not None:
        await undisturbed(staged.write(*run))
    return commit


async def undisturbed(work: Awaitable[T]) -> T:
    """Await work to its end even when cancelled, and only then be cancelled.

    A thread cannot be called back: a staged file must not be given up while one still writes to it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # whoever would have heard of it has gone
        raise cancelled
    return task.result()
