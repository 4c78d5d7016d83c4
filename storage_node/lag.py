"""Lag: how long whoever calls this process waits before anybody looks at the call, told by how late its loop's timers are.

Owns the measuring. It tells of all that calls wait for alike: a core that others have, the lock that a thread of this process
holds, a slice of work on the loop. Measures only while somebody asks, so that a device with nothing to heal stays asleep.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

EVERY_S: Final = 0.02
SAMPLES: Final = 10
"""Timers that an answer is taken from, and that follow a question: the last fifth of a second."""
STALE_S: Final = 1.0


class LoopLag:
    """The lag of one event loop. `run` it there."""

    def __init__(
        self,
        read_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take a clock that never goes back, and how to sleep."""
        self._read_s: Final = read_s
        self._sleep: Final = sleep
        self._late_s: Final[deque[float]] = deque(maxlen=SAMPLES)
        self._asked: Final = asyncio.Event()
        self._stale_at_s = float("-inf")

    def recent_s(self) -> float:
        """Return by how many seconds the latest of the last timers was late; 0.0 where none was of the last second."""
        self._asked.set()
        return max(self._late_s, default=0.0) if self._read_s() < self._stale_at_s else 0.0

    async def run(self) -> NoReturn:
        """Measure while somebody asks, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            for _ in range(SAMPLES):
                due_s = self._read_s() + EVERY_S
                await self._sleep(EVERY_S)
                woken_s = self._read_s()
                self._late_s.append(max(0.0, woken_s - due_s))
                self._stale_at_s = woken_s + STALE_S
