"""Rounds: one question to many, and going on as soon as enough have answered.

Owns the tasks that ask, also those that still travel when the round is over. Never knows what is asked, and never
decides what is enough. Whoever is asked answers with a value; an exception out of a question is a bug, and ends the
process's tasks.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from ring.device import DeviceId

A = TypeVar("A")
R = TypeVar("R")

Enough = Callable[[Mapping[DeviceId, A]], bool]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a coordinator waits, and how often it tries; never beyond its caller's deadline."""

    round_s: float = 5.0
    """For the answers of one round: an owner that is silent must not use up the time for the next attempt."""
    hedge_s: float = 0.05
    """Before a read asks the owners that it hoped to spare, at least (see `Pace`), and for those that might still agree."""
    back_off_s: float = 0.01
    """The mean of the first pause between two attempts; each further one is twice as long, and all are random."""
    write_attempts_max: int = 8
    """The register model was checked with this many."""
    read_attempts_max: int = 4
    handoff_tries_max: int = 3
    """Devices that are tried in the place of one owner."""
    stall_s: float = 10.0
    """How much longer than enough others an owner may need for one chunk of an upload before it is dropped."""
    open_s: float = 60.0
    """For all that opening a stream takes; most of it is waiting for a turn, when hundreds are opened at once."""
    join_s: float = 1.0
    """How much longer than enough others an owner may need for that: nothing of the body is kept for later ones."""
    keep_alive_s: float = 10.0
    """Between two signs of life to a device that waits for more of a body: well below the stall of a stream."""
    upload_s: float = 86_400.0
    """For one upload, from its first byte to its commit; 5 GiB in a day are 62 KB/s."""
    commit_s: float = 30.0
    """For the answer to the commit of a large body, which the device puts on stable storage meanwhile."""
    copy_s: float = 60.0
    """For a large body to be brought to an owner that lacks it, or to a handoff. What takes longer, the replicator does."""
    copies_max: int = 8
    """Such copies at once; each is read from one device and sent to another."""
    stragglers_max: int = 4096
    """Calls that go on after their round is over."""


LINGER_S: Final = 3.0
"""At the end, how long the process waits for what still travels: small calls take milliseconds, and a copy of a large body, which may
take a minute, is the replicator's then."""


class Pace:
    """How long owners take just now, so that a read asks more of them where one is silent, and not where all are busy.

    What counts is the first answer of each round: one owner that is slow or dead does not make the others seem so. Without
    this, a cluster that has more to do than it can would be asked for half as much again.
    """

    def __init__(self, least_s: float) -> None:
        """Take the least time that an owner is given."""
        self._least_s: Final = least_s
        self._typical_s = 0.0

    def note(self, first_s: float) -> None:
        """Take note of how long the first answer of a round took."""
        self._typical_s += (first_s - self._typical_s) / _PACE_ROUNDS

    @property
    def hedge_s(self) -> float:
        """How long a round waits for its owners before it asks the others too."""
        return max(self._least_s, min(_HEDGE_TYPICAL * self._typical_s, _HEDGE_MOST * self._least_s))


_PACE_ROUNDS: Final = 16
"""That weigh in what is typical."""
_HEDGE_TYPICAL: Final = 4.0
"""Times the typical first answer: what is slower is the slowest of hundreds."""
_HEDGE_MOST: Final = 20.0
"""Times the least, however busy all are: one second by default."""


class Stragglers:
    """Questions that nobody waits for any more: bounded, each with its caller's deadline, awaited at shutdown for a while."""

    def __init__(self, stragglers_max: int, linger_s: float = LINGER_S) -> None:
        """Take how many may be left to themselves; those above it are cancelled, and counted."""
        self._max = stragglers_max
        self._linger_s = linger_s
        self._tasks = asyncio.TaskGroup()
        self._left: dict[asyncio.Future[Any], None] = {}
        self.dropped = 0

    async def __aenter__(self) -> Self:
        """Begin to own tasks."""
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for all of them, but not for long: who would take this process's place waits too."""
        now = asyncio.get_running_loop().time
        until = now() + self._linger_s
        while self._left and kind is None and now() < until:
            await asyncio.wait(self._left, timeout=until - now())
        for question in list(self._left):
            question.cancel()
        await self._tasks.__aexit__(kind, error, traceback)

    def spawn(self, question: Coroutine[Any, Any, A]) -> asyncio.Task[A]:
        """Begin a question of a round."""
        return self._tasks.create_task(question)

    def leave(self, question: "asyncio.Future[Any]") -> None:
        """Let a question go on by itself, if there is room."""
        if len(self._left) >= self._max:
            self.dropped += 1
            question.cancel()
            return
        self._left[question] = None
        question.add_done_callback(self._forget)

    def _forget(self, question: "asyncio.Future[Any]") -> None:
        self._left.pop(question, None)


class Round(Generic[A]):
    """One question, asked of several owners at once; used inside its context, whose end drops what was not left.

    A question is a coroutine, which costs a task, or a call that was made already, which costs none.
    """

    def __init__(self, stragglers: Stragglers, pace: Pace | None = None) -> None:
        """Take who owns the questions that are left, and who wants to know how long the first answer takes."""
        self.answers: Final[dict[DeviceId, A]] = {}
        self.is_left = False
        """The round is over, and nobody waits for the questions that still go on."""
        self._stragglers = stragglers
        self._pending: dict[DeviceId, asyncio.Future[Any]] = {}
        self._enough: Enough[A] = _never
        self._waiter: asyncio.Future[None] | None = None
        self._bug: Exception | None = None
        self._loop: Final = asyncio.get_running_loop()
        self._pace = pace
        self._began: Final = self._loop.time()

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop asking; a call that is cancelled may or may not have been done."""
        if self.is_left:
            return
        pending, self._pending = self._pending, {}
        for question in pending.values():
            question.cancel()

    def ask(self, owner: DeviceId, question: Coroutine[Any, Any, A]) -> None:
        """Ask one more owner."""
        self._ask(owner, self._stragglers.spawn(question), _as_it_is)

    def call(
        self,
        owner: DeviceId,
        called: "asyncio.Future[R]",
        read: Callable[[R], A | Coroutine[Any, Any, A]],
    ) -> None:
        """Ask one more owner by a call that is made. What its end is read as is the answer, or goes on to find it."""
        self._ask(owner, called, read)

    def _ask(self, owner: DeviceId, question: "asyncio.Future[Any]", read: Callable[[Any], Any]) -> None:
        self._pending[owner] = question
        question.add_done_callback(partial(self._hear, owner, read))

    async def until(self, enough: Enough[A], patience_s: float | None = None) -> None:
        """Return when the answers are enough, when all have answered, or when patience ends."""
        if self._is_over(enough):
            return
        waiter = self._waiter = self._loop.create_future()
        self._enough = enough
        timer = None if patience_s is None else self._loop.call_later(patience_s, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        if self._bug is not None:
            raise self._bug

    def leave(self) -> None:
        """Let those who have not answered yet be asked to the end."""
        self.is_left = True
        for question in list(self._pending.values()):
            self._stragglers.leave(question)

    def _is_over(self, enough: Enough[A]) -> bool:
        return not self._pending or enough(self.answers)

    def _hear(self, owner: DeviceId, read: Callable[[Any], Any], question: "asyncio.Future[Any]") -> None:
        if self._pending.pop(owner, None) is None or question.cancelled():
            self._wake_if_over()
            return
        try:
            answer = read(question.result())
        except Exception as bug:
            if self._waiter is None:
                raise
            self._bug = bug
            _wake(self._waiter)
            return
        if asyncio.iscoroutine(answer):
            further = self._stragglers.spawn(answer)
            self._ask(owner, further, _as_it_is)
            if self.is_left:
                self._stragglers.leave(further)
            return
        if self._pace is not None and not self.answers:
            self._pace.note(self._loop.time() - self._began)
        self.answers[owner] = answer
        self._wake_if_over()

    def _wake_if_over(self) -> None:
        if self._waiter is not None and self._is_over(self._enough):
            _wake(self._waiter)


def _never(answers: Mapping[DeviceId, Any]) -> bool:
    return False


def _as_it_is(answer: Any) -> Any:
    return answer


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
