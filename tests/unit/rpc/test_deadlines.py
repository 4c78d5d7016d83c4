"""Deadlines of many calls under one timer: each is told at its time, and none of a call that has ended."""

import asyncio
from random import Random

import pytest

from swiftlike.rpc.deadlines import Deadlines
from swiftlike.rpc.virtual_time import run_in_virtual_time


@pytest.mark.parametrize("seed", range(20))
def test_whoever_still_waits_is_told_at_its_deadline_and_nobody_else(seed: int) -> None:
    random = Random(seed)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting: dict[int, float] = {}
        told: dict[int, float] = {}

        def expire(call_id: int) -> None:
            assert loop.time() >= waiting.pop(call_id)
            told[call_id] = loop.time()

        deadlines = Deadlines(loop, waiting, expire)
        wanted: dict[int, float] = {}
        for call_id in range(2_000):
            deadline = loop.time() + random.choice([0.5, 5.0, random.uniform(0, 10)])
            waiting[call_id] = deadline
            deadlines.add(call_id, deadline)
            if random.random() < 0.9:
                loop.call_later(random.uniform(0, 0.2), waiting.pop, call_id, None)
            else:
                wanted[call_id] = deadline
            await asyncio.sleep(random.uniform(0, 0.01))
        await asyncio.sleep(20)
        assert not waiting
        assert {call_id: told[call_id] for call_id in wanted} == pytest.approx(wanted)

    run_in_virtual_time(main())


def test_an_earlier_deadline_that_is_added_while_one_passes_is_kept() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting, told = dict.fromkeys((1, 2, 3)), list[tuple[int, float]]()
        begin = loop.time()

        def expire(call_id: int) -> None:
            del waiting[call_id]
            told.append((call_id, round(loop.time() - begin, 3)))
            if call_id == 1:
                deadlines.add(3, begin + 9)

        deadlines = Deadlines(loop, waiting, expire)
        deadlines.add(2, begin + 5)
        deadlines.add(1, begin + 1)
        await asyncio.sleep(10)
        assert told == [(1, 1.0), (2, 5.0), (3, 9.0)]

    run_in_virtual_time(main())


def test_nothing_is_told_after_the_end() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        told = list[int]()
        deadlines = Deadlines(loop, {1: None}, told.append)
        deadlines.add(1, loop.time() + 1)
        deadlines.stop()
        await asyncio.sleep(2)
        assert told == []

    run_in_virtual_time(main())
