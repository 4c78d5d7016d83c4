"""Deadlines: of all calls of one connection, under one timer.

Owns which of them ends next, and the timer. Never decides what an end means. A timer for each call would cost as much as
writing the call does, and nearly all are cancelled: here a deadline is a number in a heap, and one that was met is dropped
when its time comes, or when most of them are of calls that have ended.
"""

import asyncio
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

_DROPPED_MIN = 256
"""Deadlines of ended calls that are not worth a look through all of them."""


class Deadlines:
    """The deadlines of calls by their id."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, waiting: Mapping[int, Any], expire: Callable[[int], None]
    ) -> None:
        """Take what waits, by id, and what is told of a deadline that passes while its call still does."""
        self._loop = loop
        self._waiting = waiting
        self._expire = expire
        self._heap: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def add(self, call_id: int, deadline: float) -> None:
        """End this call at its deadline, on the loop's clock, unless it has ended by then."""
        heap = self._heap
        heappush(heap, (deadline, call_id))
        if self._timer is None or deadline < self._timer_at:
            self._set_timer(deadline)
        elif len(heap) > 2 * len(self._waiting) + _DROPPED_MIN:
            self._heap = [item for item in heap if item[1] in self._waiting]
            heapify(self._heap)

    def stop(self) -> None:
        """Tell of nothing more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(deadline, self._pass), deadline

    def _pass(self) -> None:
        # An event loop may call a little early, by what its clock resolves.
        passed_at = max(self._loop.time(), self._timer_at)
        self._timer = None
        while self._heap and (self._heap[0][0] <= passed_at or self._heap[0][1] not in self._waiting):
            _, call_id = heappop(self._heap)
            if call_id in self._waiting:
                self._expire(call_id)
        self._await_next()

    def _await_next(self) -> None:
        if self._heap and (self._timer is None or self._heap[0][0] < self._timer_at):
            self._set_timer(self._heap[0][0])
