"""What a device does for itself while it serves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from storage_node import housekeeping
from storage_node.errors import StorageError
from storage_node.housekeeping import ROUND_S, ROUNDS_PER_DAY, keep_house


class Recorder:
    """Stands in for a device: writes down which jobs came, and fails those it is told to."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.failing: set[str] = set()

    def drop_dead_readers(self) -> int:
        self._note("readers")
        return 0

    async def sweep(self, rows_max: int) -> int:
        self._note("sweep")
        return 0 if self.jobs.count("sweep") % 3 == 0 else rows_max

    def _note(self, job: str) -> None:
        self.jobs.append(job)
        if job in self.failing:
            raise StorageError(f"{job} failed")


async def keep_for(rounds: int, device: Recorder, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Keep house for so many rounds, in no time; return what was slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        if len(slept) == rounds:
            raise asyncio.CancelledError
        slept.append(seconds)

    async def leftovers(device: Recorder, now_us: int) -> str:
        device._note(f"leftovers at {now_us}")
        return "none"

    def volumes(device: Recorder) -> list[int]:
        device._note("volumes")
        return []

    monkeypatch.setattr(housekeeping, "remove_leftovers", leftovers)
    monkeypatch.setattr(housekeeping, "worth_compacting", volumes)
    keep: Callable[..., Awaitable[None]] = keep_house
    with suppress(asyncio.CancelledError):
        await keep(device, lambda: 7, sleep)
    return slept


async def test_each_round_frees_readers_sweeps_until_nothing_is_left_and_looks_at_the_volumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Recorder()
    assert await keep_for(1, device, monkeypatch) == [ROUND_S]
    assert device.jobs == ["readers", "sweep", "sweep", "sweep", "volumes", "leftovers at 7"]


async def test_leftovers_are_removed_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Recorder()
    await keep_for(2 * ROUNDS_PER_DAY, device, monkeypatch)
    assert device.jobs.count("leftovers at 7") == 2
    assert device.jobs.count("readers") == 2 * ROUNDS_PER_DAY


async def test_a_job_that_fails_is_told_and_keeps_no_other_from_its_turn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = Recorder()
    device.failing = {"sweep"}
    with caplog.at_level(logging.ERROR):
        await keep_for(2, device, monkeypatch)
    assert device.jobs.count("volumes") == 2
    assert caplog.messages == ["sweep failed; it is tried again when it is due"] * 2
