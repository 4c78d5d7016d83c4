"""Coroutines that begin at once: run here and now up to their first wait, and in a task only if there is one.

Owns that hand-over. A warm read never waits, so it is answered without a task, within the very turn of the loop that
brought the call. (Python 3.12 has eager tasks; this release runs on 3.11 too.)
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begin(group: asyncio.TaskGroup, coroutine: Coroutine[Any, Any, T]) -> "T | asyncio.Task[T]":
    """Run a coroutine up to its first wait: return its result, or the task of `group` that goes on with it.

    Until that wait there is no current task, so nothing before it may use `asyncio.timeout` or a task group.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return group.create_task(_Begun(coroutine, waits_for))


class _Begun(Coroutine[Any, Any, T]):
    """A coroutine that waits already: whoever runs it is told first what for."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def send(self, value: Any) -> Any:
        """Tell what is waited for, then go on."""
        if self._waits_for is None:
            return self._coroutine.send(value)
        waits_for, self._waits_for = self._waits_for, None
        return waits_for

    def throw(self, *error: Any) -> Any:
        """Interrupt it. When it was never told what it waits for, nobody else will cancel that."""
        waits_for, self._waits_for = self._waits_for, None
        if isinstance(waits_for, asyncio.Future):
            waits_for.cancel()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it."""
        self._coroutine.close()

    def __await__(self) -> Any:
        raise AssertionError("a task runs it; nobody awaits it")
