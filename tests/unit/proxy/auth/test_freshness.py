"""Look-ups that are shared and remembered for a moment, in virtual time."""

import asyncio

import pytest

from proxy.auth.freshness import Fresh
from proxy.store.errors import Unavailable
from tests.unit.proxy.auth.virtual import in_virtual_time


class Source:
    """What is looked up: a value per key that changes, and that takes its time."""

    def __init__(self, takes_s: float = 0.1) -> None:
        self.takes_s = takes_s
        self.values: dict[str, int] = {"a": 0}
        self.asked: list[tuple[str, float]] = []
        self.error: Exception | None = None

    async def look_up(self, key: str, deadline: float) -> int | None:
        now = asyncio.get_running_loop().time()
        assert deadline > now
        self.asked.append((key, round(now, 3)))
        value = self.values.get(key)
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return value


def now() -> float:
    return asyncio.get_running_loop().time()


async def get(fresh: Fresh[str, int], key: str = "a", patience_s: float = 5) -> int | None:
    return await fresh.get(key, deadline=now() + patience_s)


@in_virtual_time
async def test_a_thousand_who_ask_at_once_cost_one_look_up() -> None:
    source = Source()
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        assert await asyncio.gather(*(get(fresh) for _ in range(1000))) == [0] * 1000
        assert await get(fresh) == 0
    assert source.asked == [("a", 0.0)]


@in_virtual_time
async def test_a_value_is_never_older_than_its_age_counted_from_the_beginning_of_the_look_up() -> None:
    source = Source(takes_s=0.4)
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        assert await get(fresh) == 0
        source.values["a"] = 1  # at 0.4: what is remembered is as of 0.0
        await asyncio.sleep(0.55)
        assert await get(fresh) == 0
        assert now() == pytest.approx(0.95), "nobody waited"
        await asyncio.sleep(0.06)
        assert await get(fresh) == 1, "at 1.01 the old value is too old"


@in_virtual_time
async def test_a_value_in_steady_use_is_looked_up_ahead_and_keeps_nobody_waiting() -> None:
    source = Source(takes_s=0.1)
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        await get(fresh)
        for _ in range(500):
            began = now()
            await get(fresh)
            assert now() == began
            await asyncio.sleep(0.01)
    assert 8 <= len(source.asked) <= 11, "5 s, one look-up each half second"


@in_virtual_time
async def test_a_value_that_nobody_uses_is_not_looked_up() -> None:
    source = Source()
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        await get(fresh)
        await asyncio.sleep(60)
        assert len(source.asked) == 1
        await get(fresh)
    assert len(source.asked) == 2


@in_virtual_time
async def test_what_was_not_found_is_asked_for_again_and_found_at_once_when_it_comes() -> None:
    source = Source()
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        assert await get(fresh, "b") is None
        source.values["b"] = 7
        assert await get(fresh, "b") == 7
        del source.values["b"]
        await asyncio.sleep(0.6)
        assert await get(fresh, "b") == 7, "for a moment yet"
        await asyncio.sleep(0.2)
        assert await get(fresh, "b") is None


@in_virtual_time
async def test_one_who_gives_up_does_not_take_the_answer_from_the_others() -> None:
    source = Source(takes_s=1.0)
    async with Fresh[str, int](source.look_up, 5.0, 10) as fresh:
        hasty = asyncio.create_task(get(fresh, patience_s=0.5))
        cancelled = asyncio.create_task(get(fresh))
        patient = asyncio.create_task(get(fresh))
        await asyncio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(TimeoutError):
            await hasty
        assert await patient == 0
    assert len(source.asked) == 1


@in_virtual_time
async def test_a_failure_is_told_to_all_who_wait_and_not_remembered() -> None:
    source = Source()
    source.error = Unavailable("not now")
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        ends = await asyncio.gather(*(get(fresh) for _ in range(3)), return_exceptions=True)
        assert [type(end) for end in ends] == [Unavailable] * 3
        source.error = None
        assert await get(fresh) == 0


@in_virtual_time
async def test_a_look_up_ahead_that_fails_leaves_the_value_until_it_is_too_old() -> None:
    source = Source()
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        await get(fresh)
        source.error = Unavailable("not now")
        await asyncio.sleep(0.6)
        assert await get(fresh) == 0
        await asyncio.sleep(0.2)
        assert await get(fresh) == 0
        await asyncio.sleep(0.3)
        with pytest.raises(Unavailable):
            await get(fresh)


@in_virtual_time
async def test_what_is_forgotten_is_looked_up_anew_even_while_an_older_look_up_is_under_way() -> None:
    source = Source(takes_s=1.0)
    async with Fresh[str, int](source.look_up, 5.0, 10) as fresh:
        before = asyncio.create_task(get(fresh))
        await asyncio.sleep(0.5)
        source.values["a"] = 1
        fresh.forget("a")
        assert await get(fresh) == 1
        assert await before == 0
        assert await get(fresh) == 1, "the older answer, which came first or last, is not remembered"
    assert len(source.asked) == 2


@in_virtual_time
async def test_only_so_many_are_remembered_and_those_used_last_stay() -> None:
    source = Source(takes_s=0.0)
    source.values = {name: at for at, name in enumerate("abcd")}
    async with Fresh[str, int](source.look_up, 100.0, 3) as fresh:
        for name in "abcadab":
            await get(fresh, name)
    assert [name for name, _ in source.asked] == list("abcdb")


@in_virtual_time
async def test_look_ups_end_with_their_owner() -> None:
    source = Source(takes_s=1000.0)
    async with Fresh[str, int](source.look_up, 1.0, 10) as fresh:
        waiting = asyncio.create_task(get(fresh, patience_s=2000))
        await asyncio.sleep(0.1)
    assert now() == pytest.approx(0.1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
