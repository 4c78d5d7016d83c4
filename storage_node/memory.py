"""The store in memory: the same tables and acceptors over a dictionary, for the simulator and for tests.

Owns nothing durable. What it answers is what a device answers, since both stand on the same operations; one contract
suite holds it to that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from storage_node.blocks import chunks_of
from storage_node.keys import FORMATTED, Key, Layout
from storage_node.keyvalues import MemoryKeyValues, Reading
from storage_node.locations import InVolume, VolumeId
from storage_node.operations import Content, Fill, Operation
from storage_node.store import Body, Offered, Outcome, P, Staged, T
from storage_node.table_store import TableStore, check_size
from storage_node.tables import Change, Held
from swiftlike.entries import Entry
from swiftlike.limits import BODY_BYTES_MAX, RECLAIM_AGE_US
from swiftlike.node_calls import Acceptance
from swiftlike.rpc.transport import Body as Octets
from swiftlike.timestamps import WriteId


class MemoryStore(TableStore):
    """One device without a disk."""

    def __init__(
        self, name: str, layout: Layout, read_us: Callable[[], int], reclaim_age_us: int = RECLAIM_AGE_US
    ) -> None:
        """Begin empty, voting on nothing."""
        super().__init__(name, layout, read_us, reclaim_age_us)
        self._table = MemoryKeyValues()
        self._table.put(FORMATTED, b"")
        self._table.commit()
        self._bodies = _MemoryBodies()

    async def offer(self, offered: Offered) -> Acceptance:
        """Offer an entry to the acceptor of its key."""
        now_us = self._check_ballot(offered.entry.ballot, offered.offer)
        content = _content(offered.entry, offered.body)
        answer: Acceptance | None = await self._submit(self._accept(offered, content, now_us))
        return self._applied(answer)

    def offer_all(self, offered: Sequence[Offered]) -> "asyncio.Future[Sequence[Outcome]]":
        """Offer entries whose bodies are in memory, without a task: each is accepted, refused, or fails by itself."""
        return self._submit_all(self._accepts(offered))

    async def fill(self, key: Key, body_id: WriteId, body: bytes | memoryview | Staged) -> bool:
        """Bring a missing body; say whether the entry that lacked it is whole now."""
        held = self.read(key)
        entry = None if held is None else held.register.entry
        if entry is None or entry.body_id != body_id:
            return False
        content = _content(entry, body)
        assert content is not None, "a fill brings a body"
        answer: bool = await self._submit(Fill(key, body_id, content))
        return answer

    def stage(self, body_id: WriteId) -> "MemoryStaged":
        """Begin a body that comes in pieces."""
        return MemoryStaged()

    async def open_object(
        self, key: Key, size_max: int = BODY_BYTES_MAX
    ) -> "tuple[Entry, MemoryBody] | None":
        """Return the entry of a key and its body, held open; None unless both are here and it is no larger than that."""
        held, body = await self.find(key, size_max)
        entry = None if held is None else held.register.entry
        return None if entry is None or body is None else (entry, body)

    async def find(self, key: Key, size_max: int) -> "tuple[Held | None, MemoryBody | None]":
        """Return what stands at a key and, where that is here and no larger than `size_max`, its body, held open."""
        held = self.read(key)
        if held is None or held.register.entry is None or held.register.entry.size > size_max:
            return held, None
        if not isinstance(held.location, InVolume):
            return held, None
        return held, MemoryBody(self._bodies.at(held.location))

    async def ensure_described(self, key: Key, held: Held, body: Body) -> bool:
        """Say yes: nothing is ever rebuilt."""
        return True

    async def look_up(self, key: Key) -> Held | None:
        """Return what stands at a key."""
        return self.read(key)

    async def look(self, read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call a read: there is no disk to wait for."""
        return read(*arguments, **options)

    async def scan(self, read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call a read: there is no disk to wait for."""
        return read(*arguments, **options)

    def _get(self, raw_key: bytes) -> bytes | None:
        return self._table.get(raw_key)

    def _warm_body(self, place: InVolume, size: int, seed: int) -> Octets | None:
        return self._bodies.at(place)

    @contextmanager
    def _view(self) -> Iterator[Reading]:
        yield self._table

    def _submit(self, operation: Operation) -> "asyncio.Future[Any]":
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        settle(answered, self._outcome(operation))
        return answered

    def _submit_all(self, slots: Sequence[Operation | Outcome]) -> "asyncio.Future[Sequence[Outcome]]":
        """Do operations one by one; outcomes among them stand for what never became one."""
        answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        answered.set_result([slot if isinstance(slot, Outcome) else self._outcome(slot) for slot in slots])
        return answered

    def _outcome(self, operation: Operation) -> Outcome:
        try:
            return Outcome(self._apply(operation))
        except Exception as error:  # whatever it is, it alone met it
            return Outcome(None, error)

    def _apply(self, operation: Operation) -> Any:
        """Do an operation in a transaction of its own."""
        change = Change(self._table, self.layout, self._standings)
        try:
            answer = operation.apply(change, self._bodies)
            change.flush()
        except BaseException:
            self._table.abort()
            raise
        self._table.commit()
        self._standings.update(change.standings_changed)
        return answer


def settle(answered: "asyncio.Future[Any]", outcome: Outcome) -> None:
    """Tell who waits for one operation what became of it."""
    answer, error = outcome
    if answered.done():
        return
    if error is None:
        answered.set_result(answer)
    else:
        answered.set_exception(error)


class MemoryStaged:
    """A body on its way in."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._chunks: list[bytes] = []

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return sum(map(len, self._chunks))

    async def write(self, *chunks: Octets) -> None:
        """Append to the body."""
        self._chunks += map(bytes, chunks)

    async def abort(self) -> None:
        """Give the body up."""
        self._chunks.clear()

    def joined(self) -> bytes:
        """Return the whole body."""
        return b"".join(self._chunks)


class MemoryBody:
    """A body held open: its bytes never change."""

    def __init__(self, body: bytes) -> None:
        """Take the bytes."""
        self._body: Final = memoryview(body)
        self.size: Final = len(body)

    async def read(self, start: int, stop: int) -> memoryview:
        """Return the bytes `[start, stop)`."""
        assert 0 <= start <= stop <= self.size
        return self._body[start:stop]

    async def stream(self, start: int, stop: int) -> AsyncIterator[memoryview]:
        """Yield the bytes `[start, stop)` in chunks."""
        for chunk_start, chunk_stop in chunks_of(start, stop):
            yield self._body[chunk_start:chunk_stop]

    def release(self) -> None:
        """Let go of the body."""


class _MemoryBodies:
    """Bodies by their place, as a volume would number them; the simulator's runs are short, so none is removed."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []

    def stage(self, key: Key, entry_raw: bytes, body: bytes | memoryview, seed: int) -> InVolume:
        self._bodies.append(bytes(body))
        return InVolume(VolumeId(0), len(self._bodies) - 1, 0)

    def at(self, place: InVolume) -> bytes:
        return self._bodies[place.offset]


def _content(entry: Entry, body: bytes | memoryview | Staged | None) -> Content:
    if body is None:
        return None
    if not isinstance(body, bytes | memoryview):
        assert isinstance(body, MemoryStaged), "a staged body belongs to the store that staged it"
        body = body.joined()
    check_size(entry, len(body))
    return body
