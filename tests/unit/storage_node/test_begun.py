"""Coroutines that begin at once: answered without a task when they need not wait, and cancelled like any other when they must."""

import asyncio

import pytest

from storage_node.begun import begin


async def test_what_waits_for_nothing_is_answered_without_a_task() -> None:
    async def work() -> int:
        return 7

    async with asyncio.TaskGroup() as group:
        assert begin(group, work()) == 7


async def test_what_raises_before_it_waits_raises_at_once() -> None:
    async def work() -> int:
        raise LookupError("at once")

    async with asyncio.TaskGroup() as group:
        with pytest.raises(LookupError, match="at once"):
            begin(group, work())


async def test_what_waits_goes_on_in_a_task_with_what_it_waited_for() -> None:
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()

    async def work() -> tuple[int, int]:
        return await first, await second

    async with asyncio.TaskGroup() as group:
        task = begin(group, work())
        assert isinstance(task, asyncio.Task)
        first.set_result(1)
        await asyncio.sleep(0)
        second.set_result(2)
        assert await task == (1, 2)


async def test_an_error_of_what_it_waits_for_arrives_where_it_waits() -> None:
    future = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await future
        except OSError as error:
            return f"met {error}"
        return "nothing"

    async with asyncio.TaskGroup() as group:
        task = begin(group, work())
        assert isinstance(task, asyncio.Task)
        future.set_exception(OSError("EIO"))
        assert await task == "met EIO"


@pytest.mark.parametrize("turns", [0, 1, 2], ids=["before the task has run", "as it runs", "while it waits"])
async def test_a_cancelled_one_cleans_up_and_cancels_what_it_waits_for(turns: int) -> None:
    future = asyncio.get_running_loop().create_future()
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await future
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    async with asyncio.TaskGroup() as group:
        task = begin(group, work())
        assert isinstance(task, asyncio.Task)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
    assert task.cancelled()
    assert future.cancelled()
    assert cleaned == ["up"]
