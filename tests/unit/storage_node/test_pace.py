"""A job's pace, on a clock that stands still unless it is waited for."""

import asyncio

from storage_node.pace import Pace
from swiftlike.rpc.virtual_time import run_in_virtual_time


def test_a_job_goes_as_fast_as_it_may_and_no_faster() -> None:
    async def scenario() -> float:
        pace, loop = Pace(10), asyncio.get_running_loop()
        began = loop.time()
        for _ in range(21):
            await pace.spend()
        return loop.time() - began

    assert abs(run_in_virtual_time(scenario()) - 2.0) < 1e-6


def test_a_large_amount_is_waited_for_by_whoever_comes_next() -> None:
    async def scenario() -> list[float]:
        pace, loop = Pace(100), asyncio.get_running_loop()
        began, waited = loop.time(), []
        for amount in (500, 1, 1):
            await pace.spend(amount)
            waited.append(round(loop.time() - began, 6))
        return waited

    assert run_in_virtual_time(scenario()) == [0, 5.0, 5.01]


def test_time_that_was_not_used_is_not_made_up_for() -> None:
    async def scenario() -> float:
        pace, loop = Pace(10), asyncio.get_running_loop()
        await pace.spend()
        await asyncio.sleep(100)
        began = loop.time()
        for _ in range(11):
            await pace.spend()
        return loop.time() - began

    assert abs(run_in_virtual_time(scenario()) - 1.0) < 1e-6
