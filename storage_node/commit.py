"""Group commit: one thread takes everything that is queued and makes it durable under one sync.

Owns the queue, its bounds, and the order body durable, index committed, answer. Never knows what an operation does.

A batch never waits for more: it is what came while the last one was under way. An operation that fails makes its
batch be replayed one by one, so that it fails alone. A sync that fails is final: what reached the disk is unknown, so
are the answers, and the process must stop. So it is when a sync fails beside the batches, that of a large file.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, Protocol

from storage_node.errors import DeviceFailed, OutcomeUnknown
from storage_node.operations import Operation
from storage_node.store import Outcome
from swiftlike.limits import BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, QUEUED_BYTES_MAX, QUEUED_OPERATIONS_MAX

_log: Final = logging.getLogger(__name__)


class Committer(Protocol):
    """What makes a batch durable."""

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Make these operations durable together and return what became of each.

        Raises DeviceFailed when nobody can say.
        """


class _Waiting(NamedTuple):
    """Operations of one caller, which are committed in one batch."""

    operations: Sequence[Operation]
    body_bytes: int
    future: "asyncio.Future[Any]"
    slots: Sequence[Operation | Outcome] | None = None
    """For a group: its operations, and in their places the outcomes of what never became one. None: a single one."""

    def end(self, outcomes: Sequence[Outcome]) -> None:
        """Tell the caller what became of its operations."""
        if self.future.done():
            return
        if self.slots is None:
            ((answer, error),) = outcomes
            if error is None:
                self.future.set_result(answer)
            else:
                self.future.set_exception(error)
        elif len(self.slots) == len(outcomes):
            self.future.set_result(outcomes)
        else:
            left = iter(outcomes)
            self.future.set_result([slot if isinstance(slot, Outcome) else next(left) for slot in self.slots])


class _Outside(NamedTuple):
    """A caller that waits for room, and how much its operations need."""

    operations: int
    body_bytes: int
    admitted: "asyncio.Future[None]"


class GroupCommit:
    """The queue and its thread. `submit` belongs to the event loop that `start` was called on."""

    def __init__(self, committer: Committer, on_failure: Callable[[DeviceFailed], None]) -> None:
        """Take what commits, and whom to tell, on the loop, that the device has failed."""
        self._committer = committer
        self._on_failure = on_failure
        self._queue: deque[_Waiting] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        """Rung for what was queued: the writer sleeps on it. A condition would cost each end several times as much."""
        self._queued = 0
        self._queued_bytes = 0
        self._is_waking = False
        self._stopping = False
        self._failure: DeviceFailed | None = None
        self._outside: deque[_Outside] = deque()
        self._thread = Thread(target=self._run, name="writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the writer's thread; answers come on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, operation: Operation) -> "asyncio.Future[Any]":
        """Queue an operation, as soon as there is room; return the future of its answer.

        It raises what the operation raised, OutcomeUnknown when its sync failed, DeviceFailed when one failed before.
        Cancelled, the operation may still happen, unless it was still waiting for room.
        """
        assert self._loop is not None, "start the group commit first"
        waiting = _Waiting((operation,), operation.body_bytes, self._loop.create_future())
        self._queue_or_wait(waiting)
        return waiting.future

    async def enqueue(self, operation: Operation) -> "asyncio.Future[Any]":
        """Wait for room and queue an operation; return the future of its answer. Raises DeviceFailed.

        A call that is cancelled here has queued nothing.
        """
        assert self._loop is not None, "start the group commit first"
        waiting = _Waiting((operation,), operation.body_bytes, self._loop.create_future())
        if self._outside or self._is_full(operation.body_bytes):
            await self._wait_outside(operation.body_bytes)
        else:
            self._count(1, operation.body_bytes)
        if refusal := self._refuse(waiting):
            raise refusal
        self._put(waiting)
        return waiting.future

    def enqueue_all(self, slots: Sequence[Operation | Outcome]) -> "asyncio.Future[Sequence[Outcome]]":
        """Queue a group, as soon as there is room for all of it; return the future of its outcomes, in order.

        An outcome among them stands for what failed before it became an operation. The group is committed in one batch, which
        may be larger than others by so much. The future raises DeviceFailed and OutcomeUnknown; cancelled before there was
        room, the group is not queued.
        """
        assert self._loop is not None, "start the group commit first"
        future: asyncio.Future[Sequence[Outcome]] = self._loop.create_future()
        operations = [slot for slot in slots if not isinstance(slot, Outcome)]
        body_bytes = sum(operation.body_bytes for operation in operations)
        waiting = _Waiting(operations, body_bytes, future, slots)
        if operations:
            self._queue_or_wait(waiting)
        else:
            waiting.end(())
        return future

    def _queue_or_wait(self, waiting: _Waiting) -> None:
        """Queue what there is room for; the rest waits for its turn without a task."""
        if not self._outside and not self._is_full(waiting.body_bytes):
            self._count(len(waiting.operations), waiting.body_bytes)
            self._put_or_refuse(waiting)
            return
        assert self._loop is not None
        admitted: asyncio.Future[None] = self._loop.create_future()
        self._outside.append(_Outside(len(waiting.operations), waiting.body_bytes, admitted))
        admitted.add_done_callback(partial(self._come_in, waiting))
        waiting.future.add_done_callback(partial(self._give_up, admitted))

    def _come_in(self, waiting: _Waiting, admitted: "asyncio.Future[None]") -> None:
        """Queue what was let in, unless its caller has gone: then the room goes to the next one."""
        if admitted.cancelled():
            return
        if waiting.future.done():
            self._count(-len(waiting.operations), -waiting.body_bytes)
            self._admit()
            return
        self._put_or_refuse(waiting)

    def _give_up(self, admitted: "asyncio.Future[None]", ended: "asyncio.Future[Any]") -> None:
        if ended.cancelled() and admitted.cancel():
            self._admit()

    def _put_or_refuse(self, waiting: _Waiting) -> None:
        if refusal := self._refuse(waiting):
            waiting.future.set_exception(refusal)
        else:
            self._put(waiting)

    def _refuse(self, waiting: _Waiting) -> DeviceFailed | None:
        """Give the room of operations back if it is too late for them, and say why."""
        if self._failure is None and not self._stopping:
            return None
        self._count(-len(waiting.operations), -waiting.body_bytes)
        return DeviceFailed(str(self._failure or "the device is closing: ask another replica"))

    def _put(self, waiting: _Waiting) -> None:
        assert self._loop is not None
        self._queue.append(waiting)
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Wake the writer once for all that this turn of the loop has queued, so that it takes them as one batch."""
        self._is_waking = False
        # Rung already, it will be heard all the same: a writer that never sleeps must not let them gather.
        if self._bell.empty():
            self._bell.put(None)

    async def _wait_outside(self, body_bytes: int) -> None:
        """Wait behind those who wait already, until admitted: then the room is ours."""
        assert self._loop is not None
        admitted: asyncio.Future[None] = self._loop.create_future()
        self._outside.append(_Outside(1, body_bytes, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled():
                # Admitted and cancelled within one turn of the loop: the room goes to the next one.
                self._count(-1, -body_bytes)
            self._admit()
            raise

    def _admit(self) -> None:
        """Let in those who wait outside, in order, as many as fit, with their room; all of them once it is over."""
        while self._outside:
            operations, body_bytes, admitted = self._outside[0]
            if not admitted.done():
                if self._is_full(body_bytes):
                    return
                self._count(operations, body_bytes)
                admitted.set_result(None)
            self._outside.popleft()

    def _count(self, operations: int, body_bytes: int) -> None:
        self._queued += operations
        self._queued_bytes += body_bytes

    async def stop(self) -> None:
        """Commit what is queued and end the thread."""
        self._stopping = True
        self._bell.put(None)
        if self._loop is not None:
            await asyncio.to_thread(self._thread.join)
            # The last answers were handed to the loop before the thread ended: let them arrive.
            await asyncio.sleep(0)

    def fail_from_thread(self, failure: DeviceFailed) -> None:
        """Take nothing more: a sync failed outside of any batch. From any thread."""
        assert self._loop is not None, "start the group commit first"
        self._loop.call_soon_threadsafe(self._fail, failure)

    @property
    def queued(self) -> int:
        """Operations that are queued, about to be, or under way."""
        return self._queued

    def _is_full(self, body_bytes: int) -> bool:
        if self._failure is not None or self._queued == 0:
            return False
        return self._queued >= QUEUED_OPERATIONS_MAX or self._queued_bytes + body_bytes > QUEUED_BYTES_MAX

    def _run(self) -> None:
        """Commit batches until told to stop. The writer's thread."""
        assert self._loop is not None
        while batch := self._take():
            try:
                outcomes = self._committer.commit(
                    [operation for waiting in batch for operation in waiting.operations]
                )
            except (
                Exception
            ) as error:  # whatever it is, these waiters must hear of it and nothing more be written
                failure = OutcomeUnknown(
                    f"the outcome of this write is unknown ({error}): the device has stopped"
                )
                failure.__cause__ = error
                self._loop.call_soon_threadsafe(self._fail_batch, batch, failure)
                return
            self._loop.call_soon_threadsafe(self._answer, batch, outcomes)

    def _take(self) -> list[_Waiting]:
        """Wait for work and take all there is, up to the bounds of a batch; nothing when it is time to end."""
        batch: list[_Waiting] = []
        operations = batch_bytes = 0
        while operations < BATCH_OPERATIONS_MAX and batch_bytes < BATCH_BYTES_MAX:
            try:
                waiting = self._queue.popleft()
            except IndexError:
                if batch or self._stopping:
                    break
                self._bell.get()
                continue
            operations += len(waiting.operations)
            batch_bytes += waiting.body_bytes
            batch.append(waiting)
        return batch

    def _answer(self, batch: list[_Waiting], outcomes: list[Outcome]) -> None:
        at = 0
        for waiting in batch:
            first, at = at, at + len(waiting.operations)
            self._count(first - at, -waiting.body_bytes)
            waiting.end(outcomes[first:at])
        assert at == len(outcomes), "each operation has an outcome"
        self._admit()

    def _fail_batch(self, batch: list[_Waiting], failure: OutcomeUnknown) -> None:
        self._drop(batch, failure)
        self._fail(failure.__cause__ or failure)

    def _fail(self, cause: BaseException) -> None:
        """Take nothing more, and tell so, once. A batch under way goes on to its own end."""
        if self._failure is not None:
            return
        _log.critical("the device has failed: %s", cause)
        self._failure = DeviceFailed(f"the device has failed and must be restarted: {cause}")
        never_begun: list[_Waiting] = []
        with suppress(IndexError):
            while True:  # one by one, since the writer may be taking of them: each goes to one of the two
                never_begun.append(self._queue.popleft())
        self._drop(never_begun, self._failure)
        self._admit()
        self._on_failure(self._failure)

    def _drop(self, some: list[_Waiting], error: DeviceFailed) -> None:
        for waiting in some:
            self._count(-len(waiting.operations), -waiting.body_bytes)
            if not waiting.future.done():
                waiting.future.set_exception(error)
