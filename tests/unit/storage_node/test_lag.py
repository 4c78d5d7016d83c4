"""What is told of an event loop's lag, by a clock on which timers are late only when they are meant to be."""

import asyncio
from contextlib import suppress

from storage_node.lag import EVERY_S, SAMPLES, LoopLag
from swiftlike.rpc.virtual_time import run_in_virtual_time


class Timers:
    """Sleeps that take longer than they should."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self.count = 0

    async def sleep(self, seconds: float) -> None:
        """Sleep too long."""
        self.count += 1
        await asyncio.sleep(seconds + self.late_s)


async def measure(timers: Timers, lag: LoopLag, late_s: float) -> float:
    """Ask once, let as many timers as follow be late, and ask again."""
    timers.late_s = late_s
    lag.recent_s()
    await asyncio.sleep(SAMPLES * (EVERY_S + late_s) + EVERY_S)
    return lag.recent_s()


def test_the_latest_of_the_last_timers_tells_how_long_calls_wait() -> None:
    async def scenario() -> None:
        timers = Timers()
        lag = LoopLag(asyncio.get_running_loop().time, timers.sleep)
        measuring = asyncio.create_task(lag.run())
        await asyncio.sleep(1)
        assert timers.count == 0, "nobody asks, nothing is measured"
        assert lag.recent_s() == 0.0
        assert abs(await measure(timers, lag, 0.03) - 0.03) < 1e-6
        await asyncio.sleep(1)
        asked = timers.count
        await asyncio.sleep(1)
        assert timers.count == asked, "nobody asks any more"
        assert lag.recent_s() == 0.0, "that was long ago"
        assert abs(await measure(timers, lag, 0.0)) < 1e-6, "what was is not told again"
        measuring.cancel()
        with suppress(asyncio.CancelledError):
            await measuring

    run_in_virtual_time(scenario())
