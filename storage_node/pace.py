"""Pace: a job goes no faster than it may, however much there is to do.

Owns the arithmetic of a rate over time that passes. What is spent late is not made up for later, so that a job which was
held up does not rush on behalf of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final


class Pace:
    """At most so many of something each second."""

    def __init__(self, per_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Take the rate."""
        self._per_s: Final = per_s
        self._sleep: Final = sleep
        self._free_at = 0.0

    async def spend(self, amount: float = 1) -> None:
        """Wait until what was spent before is over, then spend; returns at once to whoever is slower than the rate."""
        now = asyncio.get_running_loop().time()
        begins_at = max(now, self._free_at)
        self._free_at = begins_at + amount / self._per_s
        if begins_at > now:
            await self._sleep(begins_at - now)
