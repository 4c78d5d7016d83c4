"""kill -9 of a process under load, again and again: what it said was acknowledged is there."""

import os
import subprocess
import sys
from pathlib import Path

from storage_node.checking import ClosedDevice, check
from tests.engine.conftest import opened
from tests.engine.samples import object_key
from tests.engine.test_store_contract import body_of as read_body
from tests.engine.writer_process import SETTINGS, body_of

KILLS = int(os.environ.get("KILLS", "12"))


def write_and_kill(root: Path, first: int, lines_max: int) -> dict[int, int]:
    """Let a process write until it has acknowledged so many, kill it, and return the sizes of what it acknowledged."""
    command = [sys.executable, "-m", "tests.engine.writer_process", str(root), str(first)]
    acknowledged: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            number, size = line.split()
            acknowledged[int(number)] = int(size)
            if len(acknowledged) == lines_max:
                process.kill()
                break
        # What it had printed before it died counts too; its last line may be half a line.
        for line in process.stdout:
            if line.endswith("\n"):
                number, size = line.split()
                acknowledged[int(number)] = int(size)
    assert len(acknowledged) >= lines_max, "the writer died by itself"
    return acknowledged


async def test_a_killed_process_loses_nothing_that_it_acknowledged(root: Path) -> None:
    acknowledged: dict[int, int] = {}
    for kill in range(KILLS):
        acknowledged |= write_and_kill(root, first=kill * 100_000, lines_max=20 + kill * 37)
        closed = ClosedDevice(root, map_bytes=SETTINGS.index_map_bytes)
        assert check(closed).damage == []
        closed.close()
    async with opened(root, SETTINGS) as device:
        for number, size in acknowledged.items():
            assert await read_body(device, object_key(f"n{number}")) == body_of(number, size)
