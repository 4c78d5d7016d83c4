"""Virtual time: an event loop whose clock leaps to whatever is due next, so that an hour of timeouts passes in no time.

Owns the clock of a simulation and its order of events. Opens no sockets and starts no threads: what a program hands to
a thread runs at once, on the loop. Given the same program, everything happens in the same order in every run: time is
virtual, ties go by order of scheduling, and tasks and futures hash by age instead of by address, so that even a set of
them is always walked in the same order. What remains is the program's own: seed its randomness, and do not walk sets
of strings.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from itertools import count
from typing import Any, Final, TypeVar

T = TypeVar("T")


WEEK_S: Final = 7 * 24 * 3600.0


class NothingLeftError(RuntimeError):
    """All tasks wait, and nothing is scheduled that could wake one of them."""


class EndlessRunError(RuntimeError):
    """The program outlived its limit of virtual time; somebody waits for what does not come, beside a clock that ticks."""


def run_in_virtual_time(main: Coroutine[Any, Any, T], limit_s: float = WEEK_S) -> T:
    """Run `main` on a new virtual loop and return its result.

    Raises NothingLeftError or EndlessRunError where a real program would hang.
    """
    with asyncio.Runner(loop_factory=partial(VirtualLoop, limit_s)) as runner:
        return runner.run(main)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0."""

    def __init__(self, limit_s: float = WEEK_S) -> None:
        self._now_s = 0.0
        self._limit_s = limit_s
        self._ages = count()
        super().__init__(_LeapingSelector(self._leap))
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now_s

    def create_future(self) -> "asyncio.Future[Any]":
        """Return a future that hashes by age."""
        return _AgedFuture(next(self._ages), self)

    def run_in_executor(  # type: ignore[override]  # the base promises the same, in types that mypy cannot match
        self, executor: object, function: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Run `function` now; a thread would bring in an order of its own."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _leap(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            raise NothingLeftError("all tasks wait, and nothing is scheduled that could wake one of them")
        self._now_s += timeout_s
        if self._now_s > self._limit_s:
            self._limit_s = float("inf")  # only the clean-up is still to run
            raise EndlessRunError(
                "the program still runs at the end of its virtual time; somebody waits in vain"
            )

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        **options: Any,
    ) -> "asyncio.Task[T]":
        return _AgedTask(next(self._ages), coro, loop, **options)


class _AgedFuture(asyncio.Future[Any]):
    def __init__(self, age: int, loop: asyncio.AbstractEventLoop) -> None:
        self._age = age
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._age


class _AgedTask(asyncio.Task[Any]):
    def __init__(self, age: int, coro: Any, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        self._age = age  # before the base, which already puts the task into a set
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._age


class _LeapingSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock. Holds the loop's own wake-up pipe and refuses everything else."""

    def __init__(self, leap: Callable[[float | None], None]) -> None:
        super().__init__()
        self._leap = leap

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Take the loop's pipe."""
        if self.get_map():
            raise RuntimeError("a program in virtual time must not open sockets; give it a simulated network")
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time until the next event pass at once."""
        self._leap(timeout)
        return []
