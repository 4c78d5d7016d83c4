"""A device's memory with the one property of a disk that the protocol rests on: what was not synced is lost in a crash.

Owns a store's queue, its writer and its faults: a batch takes time to become durable, all of it or nothing, and only then is
answered; a crash in the middle leaves either. It can be slow, full, and hold bodies that do not match their checksums.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any, NoReturn, TypeAlias

from storage_node.errors import BodyDamaged, InsufficientStorage
from storage_node.keys import Key, Layout
from storage_node.keyvalues import MemoryKeyValues
from storage_node.locations import InVolume, Location
from storage_node.maintenance import Sweep
from storage_node.memory import MemoryBody, MemoryStore, settle
from storage_node.operations import Accept, Disown, Operation, Prepare
from storage_node.store import Outcome
from storage_node.tables import Held, PartitionKey
from swiftlike.entries import Entry
from swiftlike.limits import RECLAIM_AGE_US
from swiftlike.node_calls import Acceptance, Promise, Standing
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import Ballot

Queued: TypeAlias = tuple[Sequence[Operation | Outcome], Callable[[Sequence[Outcome]], None]]

SYNC_S = 0.004
"""What a batch takes on average."""


class SyncingStore(MemoryStore):
    """One device, whose process comes and goes."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        read_us: Callable[[], int],
        random: Random,
        reclaim_age_us: int = RECLAIM_AGE_US,
    ) -> None:
        """Begin empty, voting on nothing, and without a process."""
        super().__init__(name, layout, read_us, reclaim_age_us)
        self._random = random
        self._queue: list[Queued] = []
        self._queued = asyncio.Event()
        self._has_process = False
        self._rotten: set[Location] = set()
        self.slowness = 1.0
        """Times that a batch takes."""
        self.is_full = False
        self.on_accept: Callable[[Entry], None] = lambda entry: None
        """Called with each entry of an object that was taken and is on the disk."""
        self.on_promise: Callable[[Ballot], None] = lambda ballot: None
        """Called with each ballot that was promised at an object's key."""
        self.on_missing: Callable[[Key], None] = lambda key: None
        """Called with each key whose body was found damaged."""
        self._synced: tuple[MemoryKeyValues, dict[PartitionKey, Standing]] | None = None
        """What is on the disk, for a store that answers before it is."""

    acknowledges_early = False
    """A deliberate bug: answers before the sync."""

    async def write(self) -> NoReturn:
        """Be the writer of a process; when that is cancelled, what is under way is on the disk or not."""
        self._queue.clear()
        self._has_process = True
        batch: list[Queued] = []
        try:
            while True:
                await self._queued.wait()
                self._queued.clear()
                batch, self._queue = self._queue, []
                await asyncio.sleep(self._random.expovariate(1 / SYNC_S) * self.slowness)
                written, batch = batch, []
                for slots, end in written:
                    self._write(slots, end)
        finally:
            self._has_process = False
            if self.acknowledges_early:
                self._lose(batch)
            elif self._random.random() < 0.5:
                for slots, end in batch:
                    self._write(slots, end)

    def _lose(self, batch: "list[Queued]") -> None:
        """Take back what was answered and is not on the disk."""
        if batch and self._synced is not None:
            self._table, self._standings = self._synced

    def damage(self, key: Key) -> None:
        """Let the bytes of a body change, if there are any."""
        held = self.read(key)
        if held is not None and held.location.held:
            self._rotten.add(held.location)

    def is_rotten(self, place: Location) -> bool:
        """Whether the bytes there are not what was written."""
        return place in self._rotten

    async def find(self, key: Key, size_max: int) -> tuple[Held | None, MemoryBody | None]:
        """Return what stands at a key, and its body, held open."""
        held, body = await super().find(key, size_max)
        if held is not None and body is not None and held.location in self._rotten:
            return held, _RottenBody(self, key, held.location, body)
        return held, body

    def _warm_body(self, place: InVolume, size: int, seed: int) -> Body | None:
        return None if place in self._rotten else super()._warm_body(place, size, seed)

    async def disown(self, key: Key, place: Location) -> None:
        """Count a body as missing, as a device does that finds it damaged."""
        if await self._submit(Disown(key, place)):
            self.on_missing(key)
        self._rotten.discard(place)

    def _submit(self, operation: Operation) -> "asyncio.Future[Any]":
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def end(outcomes: Sequence[Outcome]) -> None:
            settle(answered, outcomes[0])

        self._enter((operation,), end)
        return answered

    def _submit_all(self, slots: Sequence[Operation | Outcome]) -> "asyncio.Future[Sequence[Outcome]]":
        answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()

        def end(outcomes: Sequence[Outcome]) -> None:
            if not answered.done():
                answered.set_result(outcomes)

        self._enter(slots, end)
        return answered

    def _enter(self, slots: Sequence[Operation | Outcome], end: Callable[[Sequence[Outcome]], None]) -> None:
        slots = [self._full(slot) for slot in slots]
        if not self._has_process or all(isinstance(slot, Outcome) for slot in slots):
            end(self._outcomes(slots))  # the test's own hand, or nothing to do
            return
        if self.acknowledges_early:
            if not self._queue:
                self._synced = self._table.copy(), dict(self._standings)
            end(self._outcomes(slots))
            self._queue.append(((Sweep(0),), lambda outcomes: None))
        else:
            self._queue.append((slots, end))
        self._queued.set()

    def _outcomes(self, slots: Sequence[Operation | Outcome]) -> list[Outcome]:
        return [slot if isinstance(slot, Outcome) else self._outcome(slot) for slot in slots]

    def _full(self, slot: Operation | Outcome) -> Operation | Outcome:
        """Refuse what needs room where there is none."""
        if isinstance(slot, Outcome) or not self.is_full or slot.spends_reserve:
            return slot
        return Outcome(None, InsufficientStorage(f"device {self.name} has only its reserve left"))

    def _write(self, slots: Sequence[Operation | Outcome], end: Callable[[Sequence[Outcome]], None]) -> None:
        outcomes = self._outcomes(slots)
        end(outcomes)
        for operation, (answer, _) in zip(slots, outcomes, strict=True):
            is_new = isinstance(answer, Acceptance) and answer.accepted
            if is_new and isinstance(operation, Accept) and operation.key.table[:1] == b"o":
                self.on_accept(operation.entry)
            is_promised = isinstance(answer, Promise) and answer.register is not None
            if is_promised and isinstance(operation, Prepare) and operation.key.table[:1] == b"o":
                self.on_promise(operation.ballot)


class _RottenBody(MemoryBody):
    """A body whose bytes are not what was written."""

    def __init__(self, store: SyncingStore, key: Key, place: Location, body: MemoryBody) -> None:
        super().__init__(bytes(body.size))
        self._store = store
        self._key = key
        self._place = place

    async def read(self, start: int, stop: int) -> memoryview:
        """Find the damage."""
        await self._store.disown(self._key, self._place)
        raise BodyDamaged(f"device {self._store.name}: block checksum mismatch")

    async def stream(self, start: int, stop: int) -> AsyncIterator[memoryview]:
        """Find the damage."""
        yield await self.read(start, stop)
