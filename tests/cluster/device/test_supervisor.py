"""The supervisor and what it tells the processes that it starts; these are stand-ins that end as a test wants it."""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage_node.exits import Exit
from storage_node.supervisor import Supervisor, _cause, load_storage
from tests.cluster.device.hosts import Host, wait_until

ENDINGS = [
    ("ready", Exit.SYNC_FAILED),
    ("", 1),  # a bug, before it served
    ("refused: the votes cannot be taken away", Exit.REFUSED),
    ("ready", 1),
    ("ready", 1),
]
"""What each process says, and how it ends, one after the other; the last one serves on."""


def stand_in(directory: Path, endings: Sequence[tuple[str, int]]) -> Path:
    """Make a program that plays the process of a device; return the file in which each start leaves a line."""
    started, script = directory / "started", directory / "process"
    cases = "".join(
        f"{at}) echo '{said}'; exit {int(code)};;\n" for at, (said, code) in enumerate(endings, start=1)
    )
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {started}\ncase $(wc -l < {started}) in\n{cases}'
        "*) echo ready; exec sleep 600;;\nesac\n"
    )
    script.chmod(0o700)
    return started


async def test_after_a_failed_sync_processes_start_without_votes_until_one_has_served(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = stand_in(tmp_path, ENDINGS)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "process"))
    supervisor = Supervisor(host.config, load_storage(host.config)[0])
    running = asyncio.create_task(supervisor.run())
    await wait_until(lambda: started.exists() and len(started.read_text().splitlines()) > len(ENDINGS))
    supervisor._stopping.set()
    assert await running == 0
    told = ["--without-votes" in line for line in started.read_text().splitlines()]
    assert told == [False, True, True, True, False, False]


async def test_a_device_whose_job_ended_by_itself_is_started_again_only_after_a_while_and_the_log_says_why(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host.settings["restart_min_s"] = host.settings["restart_max_s"] = 3600.0
    host.write()
    started = stand_in(tmp_path, [("ready", Exit.TASK_ENDED)])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "process"))
    supervisor = Supervisor(host.config, load_storage(host.config)[0])
    running = asyncio.create_task(supervisor.run())

    def errors() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]

    await wait_until(lambda: errors() or (started.exists() and len(started.read_text().splitlines()) > 1))
    supervisor._stopping.set()
    assert await running == 0
    assert errors() == ["device d1: one of its jobs ended by itself: see its log; started again in 3600 s"]
    assert len(started.read_text().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGBUS])
def test_a_death_by_a_damaged_page_is_told_with_what_looks_into_it(number: signal.Signals) -> None:
    assert number.name in _cause(-number)
    assert "its index may be damaged; if that happens again, run swiftlike-device check" in _cause(-number)
    assert "check" not in _cause(-signal.SIGKILL)
