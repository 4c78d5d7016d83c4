"""Virtual time: what is due happens in order and at once, and the same in every run."""

import asyncio
import time

import pytest

from swiftlike.rpc.virtual_time import EndlessRunError, NothingLeftError, run_in_virtual_time


def test_an_hour_passes_in_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began_s = time.monotonic()
    assert run_in_virtual_time(main()) == pytest.approx(3600)
    assert time.monotonic() - began_s < 60


def test_timeouts_happen_at_their_virtual_moment() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(main()) == pytest.approx(5)


def test_waiting_for_what_can_never_happen_is_an_error_and_no_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeftError, match="nothing is scheduled"):
        run_in_virtual_time(main())


def test_a_program_that_never_ends_is_stopped_at_its_limit() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def tick() -> None:
            loop.call_later(1, tick)

        tick()
        await asyncio.Event().wait()

    with pytest.raises(EndlessRunError, match="waits in vain"):
        run_in_virtual_time(main(), limit_s=100)


def test_what_is_given_to_a_thread_runs_on_the_loop_and_may_fail() -> None:
    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(sum, [1, 2, 3])

    assert run_in_virtual_time(main()) == 6


def test_real_sockets_are_refused() -> None:
    async def main() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises(RuntimeError, match="must not open sockets"):
        run_in_virtual_time(main())


def test_a_set_of_tasks_or_futures_is_walked_in_the_same_order_in_every_run() -> None:
    async def main() -> list[list[str]]:
        tasks = [asyncio.create_task(asyncio.sleep(0), name=f"t{n}") for n in range(200)]
        waste = [bytearray(n) for n in range(1000)]  # so that addresses differ from run to run
        futures = [asyncio.get_running_loop().create_future() for _ in tasks]
        order = [
            [task.get_name() for task in set(tasks)],
            [str(futures.index(future)) for future in set(futures)],
        ]
        await asyncio.gather(*tasks)
        del waste
        return order

    assert run_in_virtual_time(main()) == run_in_virtual_time(main())
