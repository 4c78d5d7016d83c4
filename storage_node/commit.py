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
from threading import Condition, Thread
from typing import Any, Final, NamedTuple, Protocol

from storage_node.errors import DeviceFailed, OutcomeUnknown
from storage_node.operations import Operation
from swiftlike.limits import BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, QUEUED_BYTES_MAX, QUEUED_OPERATIONS_MAX

_log: Final = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What became of one operation: an answer, or an error that it alone met."""

    answer: Any
    error: Exception | None = None


class Committer(Protocol):
    """What makes a batch durable."""

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Make these operations durable together and return what became of each.

        Raises DeviceFailed when nobody can say.
        """


class _Waiting(NamedTuple):
    operation: Operation
    future: "asyncio.Future[Any]"


class _Outside(NamedTuple):
    """A caller that waits for room, and how much its operation needs."""

    body_bytes: int
    admitted: "asyncio.Future[None]"


class GroupCommit:
    """The queue and its thread. `submit` belongs to the event loop that `start` was called on."""

    def __init__(self, committer: Committer, on_failure: Callable[[DeviceFailed], None]) -> None:
        """Take what commits, and whom to tell, on the loop, that the device has failed."""
        self._committer = committer
        self._on_failure = on_failure
        self._condition = Condition()
        self._queue: deque[_Waiting] = deque()
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

    async def submit(self, operation: Operation) -> Any:
        """Wait for room, then for the batch that makes an operation durable; return its answer.

        Raises what the operation raised, OutcomeUnknown when its sync failed, DeviceFailed when one failed before. A
        cancelled call may still happen.
        """
        return await (await self.enqueue(operation))

    async def enqueue(self, operation: Operation) -> "asyncio.Future[Any]":
        """Wait for room and queue an operation; return the future of its answer. Raises DeviceFailed.

        A call that is cancelled here has queued nothing.
        """
        assert self._loop is not None, "start the group commit first"
        if self._outside or self._is_full(operation.body_bytes):
            await self._wait_outside(operation.body_bytes)
        else:
            self._count(1, operation.body_bytes)
        if self._failure is not None or self._stopping:
            self._count(-1, -operation.body_bytes)
            raise DeviceFailed(str(self._failure or "the device is closing: ask another replica"))
        future = self._loop.create_future()
        self._queue.append(_Waiting(operation, future))
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake)
        return future

    def _wake(self) -> None:
        """Wake the writer once for all that this turn of the loop has queued, so that it takes them as one batch."""
        self._is_waking = False
        with self._condition:
            self._condition.notify()

    async def _wait_outside(self, body_bytes: int) -> None:
        """Wait behind those who wait already, until admitted: then the room is ours."""
        assert self._loop is not None
        admitted: asyncio.Future[None] = self._loop.create_future()
        self._outside.append(_Outside(body_bytes, admitted))
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
            body_bytes, admitted = self._outside[0]
            if not admitted.done():
                if self._is_full(body_bytes):
                    return
                self._count(1, body_bytes)
                admitted.set_result(None)
            self._outside.popleft()

    def _count(self, operations: int, body_bytes: int) -> None:
        self._queued += operations
        self._queued_bytes += body_bytes

    async def stop(self) -> None:
        """Commit what is queued and end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
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
                outcomes = self._committer.commit([waiting.operation for waiting in batch])
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
        with self._condition:
            while not self._queue and not self._stopping:
                self._condition.wait()
            batch: list[_Waiting] = []
            batch_bytes = 0
            while self._queue and len(batch) < BATCH_OPERATIONS_MAX and batch_bytes < BATCH_BYTES_MAX:
                waiting = self._queue.popleft()
                batch_bytes += waiting.operation.body_bytes
                batch.append(waiting)
            return batch

    def _answer(self, batch: list[_Waiting], outcomes: list[Outcome]) -> None:
        for (operation, future), (answer, error) in zip(batch, outcomes, strict=True):
            self._count(-1, -operation.body_bytes)
            if future.done():
                continue
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)
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
        with self._condition:
            never_begun = list(self._queue)
            self._queue.clear()
        self._drop(never_begun, self._failure)
        self._admit()
        self._on_failure(self._failure)

    def _drop(self, some: list[_Waiting], error: DeviceFailed) -> None:
        for operation, future in some:
            self._count(-1, -operation.body_bytes)
            if not future.done():
                future.set_exception(error)
