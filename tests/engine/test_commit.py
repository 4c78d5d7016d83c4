"""The queue of the group commit: who waits outside comes in by turns, and nobody's turn is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from threading import Semaphore
from typing import Any

import pytest

from storage_node.commit import GroupCommit
from storage_node.errors import DeviceFailed, OutcomeUnknown
from storage_node.operations import Operation
from storage_node.store import Outcome


class Weighed:
    """An operation of some weight that does nothing."""

    spends_reserve = False

    def __init__(self, body_bytes: int) -> None:
        self.body_bytes = body_bytes

    def apply(self, change: Any, bodies: Any) -> Any:
        raise AssertionError("nobody applies it")


class Held:
    """Commits one batch each time that it is let go."""

    def __init__(self) -> None:
        self.let_go = Semaphore(0)
        self.fails = False

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        assert self.let_go.acquire(timeout=20)
        if self.fails:
            raise DeviceFailed("a sync failed")
        return [Outcome(operation) for operation in operations]


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
async def writer(held: Held, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GroupCommit]:
    """A queue for three operations of 10 bytes in all, of which one is committed at a time."""
    monkeypatch.setattr("storage_node.commit.QUEUED_OPERATIONS_MAX", 3)
    monkeypatch.setattr("storage_node.commit.QUEUED_BYTES_MAX", 10)
    monkeypatch.setattr("storage_node.commit.BATCH_OPERATIONS_MAX", 1)
    writer = GroupCommit(held, lambda failure: None)
    writer.start()
    yield writer
    for _ in range(100):
        held.let_go.release()
    await writer.stop()


class Callers:
    """Calls under way, and who of them has come in."""

    def __init__(self, writer: GroupCommit) -> None:
        self._writer = writer
        self._changed = asyncio.Event()
        self.inside: list[str] = []
        self.answers: list[asyncio.Future[Any]] = []

    def call(self, name: str, body_bytes: int = 1) -> "asyncio.Task[None]":
        return asyncio.create_task(self._call(name, body_bytes))

    async def _call(self, name: str, body_bytes: int) -> None:
        self.answers.append(await self._writer.enqueue(Weighed(body_bytes)))
        self.inside.append(name)
        self._changed.set()

    async def until(self, *names: str) -> None:
        """Wait until these have come in, and see that no other does."""
        async with asyncio.timeout(20):
            while len(self.inside) < len(names):
                self._changed.clear()
                await self._changed.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.inside == list(names)


async def test_each_commit_lets_in_as_many_as_fit_in_the_order_in_which_they_came(
    writer: GroupCommit, held: Held
) -> None:
    callers = Callers(writer)
    calls = [callers.call(name) for name in "abcdef"]
    await callers.until("a", "b", "c")
    held.let_go.release()
    await callers.until("a", "b", "c", "d")
    held.let_go.release()
    held.let_go.release()
    await callers.until("a", "b", "c", "d", "e", "f")
    await asyncio.gather(*calls)


async def test_a_large_one_at_the_head_is_not_overtaken_by_small_ones_behind_it(
    writer: GroupCommit, held: Held
) -> None:
    callers = Callers(writer)
    calls = [callers.call("a", 6), callers.call("large", 9), callers.call("small", 1)]
    await callers.until("a")
    held.let_go.release()
    await callers.until("a", "large", "small")
    await asyncio.gather(*calls)


async def test_one_that_gives_up_at_the_head_lets_those_behind_it_in(writer: GroupCommit) -> None:
    callers = Callers(writer)
    calls = [callers.call("a", 6), callers.call("large", 9), callers.call("small", 1)]
    await callers.until("a")
    calls[1].cancel()
    await callers.until("a", "small")
    await asyncio.gather(*calls, return_exceptions=True)
    assert writer.queued == 2


async def test_a_turn_that_is_given_to_one_who_is_cancelled_at_that_moment_goes_to_the_next(
    writer: GroupCommit, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = Callers(writer)
    calls = [callers.call(name) for name in "abcde"]
    await callers.until("a", "b", "c")
    admit = writer._admit

    def admit_and_cancel() -> None:
        admit()
        if not calls[3].cancelling():
            calls[3].cancel()

    monkeypatch.setattr(writer, "_admit", admit_and_cancel)
    held.let_go.release()
    await asyncio.gather(calls[3], return_exceptions=True)
    assert calls[3].cancelled()
    await callers.until("a", "b", "c", "e")
    await asyncio.gather(*calls, return_exceptions=True)


async def test_when_the_device_fails_all_who_wait_are_told(writer: GroupCommit, held: Held) -> None:
    callers = Callers(writer)
    calls = [callers.call(name) for name in "abcdef"]
    await callers.until("a", "b", "c")
    held.fails = True
    held.let_go.release()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[3:]] == [DeviceFailed] * 3
    answers = await asyncio.gather(*callers.answers, return_exceptions=True)
    assert all(isinstance(answer, DeviceFailed) for answer in answers)
    assert writer.queued == 0


async def test_a_group_is_let_in_as_a_whole_and_committed_in_one_batch(
    writer: GroupCommit, held: Held
) -> None:
    batches: list[int] = []
    commit = held.commit

    def note(operations: Sequence[Operation]) -> list[Outcome]:
        batches.append(len(operations))
        return commit(operations)

    held.commit = note  # type: ignore[method-assign]
    one = await writer.enqueue(Weighed(6))
    refused = Outcome(None, ValueError("it never became an operation"))
    first, second = Weighed(3), Weighed(3)
    group = writer.enqueue_all([first, refused, second])
    assert writer.queued == 1
    held.let_go.release()
    await one
    held.let_go.release()
    assert await group == [Outcome(first), refused, Outcome(second)]
    assert batches == [1, 2]
    assert writer.queued == 0


async def test_a_group_of_which_nothing_is_left_to_do_is_answered_at_once(writer: GroupCommit) -> None:
    refused = Outcome(None, ValueError("no"))
    assert await writer.enqueue_all([refused]) == [refused]
    assert writer.queued == 0


async def test_a_group_that_is_given_up_outside_is_not_queued_and_lets_those_behind_it_in(
    writer: GroupCommit,
) -> None:
    callers = Callers(writer)
    calls = [callers.call("a", 6)]
    await callers.until("a")
    group = writer.enqueue_all([Weighed(9)])
    calls.append(callers.call("small", 1))
    await callers.until("a")
    group.cancel()
    await callers.until("a", "small")
    await asyncio.gather(*calls)
    assert writer.queued == 2


async def test_a_group_that_is_let_in_and_given_up_at_that_moment_gives_its_room_to_the_next(
    writer: GroupCommit, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = Callers(writer)
    calls = [callers.call("a", 6)]
    await callers.until("a")
    group = writer.enqueue_all([Weighed(9)])
    calls.append(callers.call("small", 2))
    admit = writer._admit

    def admit_and_cancel() -> None:
        admit()
        group.cancel()

    monkeypatch.setattr(writer, "_admit", admit_and_cancel)
    held.let_go.release()
    await callers.until("a", "small")
    await asyncio.gather(*calls)
    assert group.cancelled()
    assert writer.queued == 1


async def test_when_the_device_fails_groups_are_told_wherever_they_wait(
    writer: GroupCommit, held: Held
) -> None:
    groups = [writer.enqueue_all([Weighed(4), Weighed(4)]) for _ in range(3)]
    held.fails = True
    held.let_go.release()
    outcomes = await asyncio.gather(*groups, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, DeviceFailed, DeviceFailed]
    late = writer.enqueue_all([Weighed(1)])
    with pytest.raises(DeviceFailed):
        await late
    assert writer.queued == 0
