"""Pace: a job goes no faster than it may, however much there is to do.

Owns the arithmetic of a rate over time that passes, and how a rate gives way while calls wait. What is spent late is not made up
for later, so that a job which was held up does not rush on behalf of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

JUDGED_EVERY_S: Final = 0.1
LAG_S: Final = 0.01
"""From this lag on, whoever calls is kept waiting: a rate is halved."""
LEAST_SHARE: Final = 1 / 4
"""Of its rate healing keeps so much however long calls wait, so that it always comes to an end."""
RAISED_SHARE: Final = 1 / 50
"""Of its rate a job gets back so much each time that nobody waited: the whole of it within five seconds."""


class Pace:
    """At most so many of something each second."""

    def __init__(self, per_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Take the rate."""
        self.per_s = per_s
        """The rate that holds now."""
        self._sleep: Final = sleep
        self._free_at = 0.0

    async def spend(self, amount: float = 1) -> None:
        """Wait until what was spent before is over, then spend; returns at once to whoever is slower than the rate."""
        now = asyncio.get_running_loop().time()
        begins_at = max(now, self._free_at)
        self._free_at = begins_at + amount / self.per_s
        if begins_at > now:
            await self._sleep(begins_at - now)


class YieldingPace(Pace):
    """At most so many of something each second, and fewer while whoever calls has to wait: halved at once, raised bit by bit."""

    def __init__(
        self,
        per_s: float,
        read_lag_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        least_share: float = LEAST_SHARE,
    ) -> None:
        """Take the highest rate, how long calls wait here, and how much of the rate is kept however long that is."""
        super().__init__(per_s, sleep)
        self._most: Final = per_s
        self._least: Final = per_s * least_share
        self._read_lag_s: Final = read_lag_s
        self._lag_elsewhere_s = 0.0
        self._judged_at = float("-inf")

    def note(self, lag_s: float) -> None:
        """Take note of how long calls wait at another device, for which this job is work too."""
        self._lag_elsewhere_s = max(self._lag_elsewhere_s, lag_s)

    async def spend(self, amount: float = 1) -> None:
        """Wait until what was spent before is over, then spend."""
        now = asyncio.get_running_loop().time()
        if now >= self._judged_at + JUDGED_EVERY_S:
            self._judged_at = now
            lag_s, self._lag_elsewhere_s = max(self._read_lag_s(), self._lag_elsewhere_s), 0.0
            if lag_s > LAG_S:
                self.per_s = max(self._least, self.per_s / 2)
            else:
                self.per_s = min(self._most, self.per_s + self._most * RAISED_SHARE)
        await super().spend(amount)
