"""Freshness: values that are looked up, remembered for a moment, and asked for once however many want them.

Owns age, bound and the sharing of one look-up. Time comes from the event loop. Never knows what is looked up.

A value is served until it is `age_max_s` old, counted from when its look-up *began*, so nobody sees anything older than that.
From half of that age on, whoever uses a value starts a look-up of the next one and does not wait for it: what is in steady
use costs one look-up now and then, and keeps no request waiting. Nothing is remembered of what was not found.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Final, Generic, NamedTuple, Self, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LOOKUP_S: Final = 10.0
"""What a look-up may take: as long as the most patient of those who may come to wait for it."""


class _Remembered(NamedTuple, Generic[V]):
    value: V
    began: float


class Fresh(Generic[K, V]):
    """Look-ups of values by key; usable inside its context, which owns those under way."""

    def __init__(
        self, look_up: Callable[[K, float], Awaitable[V | None]], age_max_s: float, values_max: int
    ) -> None:
        """Take how a value is looked up by its key and a deadline, how old it may be, and how many are remembered."""
        self._look_up = look_up
        self._age_max_s = age_max_s
        self._values_max = values_max
        self._values: OrderedDict[K, _Remembered[V]] = OrderedDict()
        self._under_way: dict[K, asyncio.Task[V | None]] = {}
        self._tasks: set[asyncio.Task[V | None]] = set()

    async def __aenter__(self) -> Self:
        """Begin to own look-ups."""
        self._now = asyncio.get_running_loop().time
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End those under way: nobody waits for them any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def young(self, key: K) -> V | None:
        """Return a value that is remembered and young enough, as `get` does; None: only `get` can tell."""
        remembered = self._values.get(key)
        if remembered is None:
            return None
        age_s = self._now() - remembered.began
        if age_s >= self._age_max_s:
            return None
        self._values.move_to_end(key)
        if age_s >= self._age_max_s / 2:
            self._start(key)
        return remembered.value

    async def get(self, key: K, *, deadline: float) -> V | None:
        """Return the value, at most `age_max_s` old; None when there is none.

        Raises what the look-up raises, and TimeoutError when the deadline passes first.
        """
        if (value := self.young(key)) is not None:
            return value
        task = self._start(key)
        async with asyncio.timeout_at(deadline):
            # Shielded: the first to give up must not take the answer from the others.
            return await asyncio.shield(task)

    def forget(self, key: K) -> None:
        """Look the value up anew, from now on; a look-up under way began before and is not remembered."""
        self._values.pop(key, None)
        self._under_way.pop(key, None)

    def _start(self, key: K) -> "asyncio.Task[V | None]":
        """Return the look-up under way, or begin one."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._run(key))
            self._under_way[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._finish(key, done))
        return task

    async def _run(self, key: K) -> V | None:
        began = self._now()
        value = await self._look_up(key, began + LOOKUP_S)
        if self._under_way.get(key) is asyncio.current_task():
            if value is None:
                self._values.pop(key, None)
            else:
                self._remember(key, _Remembered(value, began))
        return value

    def _remember(self, key: K, remembered: _Remembered[V]) -> None:
        self._values[key] = remembered
        self._values.move_to_end(key)
        if len(self._values) > self._values_max:
            self._values.popitem(last=False)

    def _finish(self, key: K, task: "asyncio.Task[V | None]") -> None:
        self._tasks.discard(task)
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # whoever waits was told; nobody waits for one that was begun ahead of need
