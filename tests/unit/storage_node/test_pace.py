"""A job's pace, on a clock that stands still unless it is waited for."""

import asyncio

from storage_node.pace import JUDGED_EVERY_S, LAG_S, LEAST_SHARE, Pace, YieldingPace
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


def test_a_pace_that_gives_way_is_halved_while_calls_wait_and_comes_back_when_they_do_not() -> None:
    async def scenario() -> tuple[list[float], list[float]]:
        lag_s = 2 * LAG_S
        pace = YieldingPace(1000, lambda: lag_s)
        slowed: list[float] = []
        raised: list[float] = []
        for rates in (slowed, raised):
            for _ in range(100):
                await asyncio.sleep(JUDGED_EVERY_S)
                await pace.spend()
                rates.append(pace.per_s)
            lag_s = 0.0
        return slowed, raised

    slowed, raised = run_in_virtual_time(scenario())
    assert slowed[:3] == [500, 250, 250]
    assert slowed[-1] == 1000 * LEAST_SHARE, "it always comes to an end"
    assert raised == sorted(raised), "bit by bit"
    assert raised[0] < 300
    assert raised[-1] == 1000


def test_a_pace_gives_way_to_those_who_wait_elsewhere_and_only_once_for_what_was_seen_once() -> None:
    async def scenario() -> list[float]:
        pace, rates = YieldingPace(1000, lambda: 0.0), []
        pace.note(2 * LAG_S)
        pace.note(0.0)
        for _ in range(3):
            await pace.spend(0)
            await pace.spend(0)
            rates.append(pace.per_s)
            await asyncio.sleep(JUDGED_EVERY_S)
        return rates

    assert run_in_virtual_time(scenario()) == [500, 520, 540]
