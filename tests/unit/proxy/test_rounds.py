"""What is left of rounds when a process ends."""

import asyncio

from proxy.cluster.rounds import Stragglers


async def test_what_is_left_is_waited_for_when_a_process_ends() -> None:
    ended = []

    async def call() -> None:
        await asyncio.sleep(0)
        ended.append("call")

    async with Stragglers(10, linger_s=3600.0) as stragglers:
        stragglers.leave(stragglers.spawn(call()))
    assert ended == ["call"]


async def test_what_takes_longer_than_a_process_may_linger_is_given_up() -> None:
    cancelled = []

    async def copy() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("copy")
            raise

    async with Stragglers(10, linger_s=0.01) as stragglers:
        stragglers.leave(stragglers.spawn(copy()))
        await asyncio.sleep(0)
    assert cancelled == ["copy"]
