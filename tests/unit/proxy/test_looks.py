"""Looks: how long they wait, under one timer."""

import asyncio

from proxy.cluster.looks import Waits
from swiftlike.rpc.virtual_time import run_in_virtual_time


async def woken_after(waits: Waits, patience_s: float) -> float:
    """Wait for nothing but the end of patience."""
    loop = asyncio.get_running_loop()
    began, waiter = loop.time(), loop.create_future()
    waits.begin(waiter, patience_s)
    await waiter
    return loop.time() - began


def test_each_wait_ends_when_its_patience_does() -> None:
    async def main() -> None:
        waits = Waits(asyncio.get_running_loop())
        async with asyncio.TaskGroup() as group:
            tasks = []
            for _ in range(5):
                tasks.append(group.create_task(woken_after(waits, 0.5)))
                await asyncio.sleep(0.125)
        assert [task.result() for task in tasks] == [0.5] * 5
        assert await woken_after(waits, 0.25) == 0.25

    run_in_virtual_time(main())


def test_a_wait_that_ended_is_not_woken_and_holds_up_nobody() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waits = Waits(loop)
        ended: asyncio.Future[None] = loop.create_future()
        waits.begin(ended, 0.5)
        await asyncio.sleep(0.25)
        waits.end(ended)
        waits.end(ended)
        assert await woken_after(waits, 0.5) == 0.5
        assert not ended.done()

    run_in_virtual_time(main())


def test_a_shorter_wait_is_held_up_by_those_before_it_at_most() -> None:
    async def main() -> None:
        waits = Waits(asyncio.get_running_loop())
        async with asyncio.TaskGroup() as group:
            long = group.create_task(woken_after(waits, 1.0))
            await asyncio.sleep(0)
            short = group.create_task(woken_after(waits, 0.25))
        assert (long.result(), short.result()) == (1.0, 1.0)

    run_in_virtual_time(main())
