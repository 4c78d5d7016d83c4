"""The supervisor and what it tells the processes that it starts; these are stand-ins that end as a test wants it."""

import asyncio
import sys
from pathlib import Path

import pytest

from storage_node.exits import Exit
from storage_node.supervisor import Supervisor, load_storage
from tests.cluster.device.hosts import Host, wait_until

ENDINGS = [
    ("ready", Exit.SYNC_FAILED),
    ("", 1),  # a bug, before it served
    ("refused: the votes cannot be taken away", Exit.REFUSED),
    ("ready", 1),
    ("ready", 1),
]
"""What each process says, and how it ends, one after the other; the last one serves on."""


async def test_after_a_failed_sync_processes_start_without_votes_until_one_has_served(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    script = tmp_path / "process"
    cases = "".join(
        f"{at}) echo '{said}'; exit {int(code)};;\n" for at, (said, code) in enumerate(ENDINGS, start=1)
    )
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {started}\ncase $(wc -l < {started}) in\n{cases}'
        "*) echo ready; exec sleep 600;;\nesac\n"
    )
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    supervisor = Supervisor(host.config, load_storage(host.config)[0])
    running = asyncio.create_task(supervisor.run())
    await wait_until(lambda: started.exists() and len(started.read_text().splitlines()) > len(ENDINGS))
    supervisor._stopping.set()
    assert await running == 0
    told = ["--without-votes" in line for line in started.read_text().splitlines()]
    assert told == [False, True, True, True, False, False]
