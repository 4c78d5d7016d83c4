"""A backup goes on while a device dies again and again, or hangs, and what it made is whole."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.serve.clusters import Serve, processes_of, wait_for
from tests.compat.clients import Person, assert_same, find, told

VICTIM = "--device d2 "


def pids(serve: Serve) -> list[int]:
    return [one.pid for one in processes_of(serve.group) if VICTIM in one.command]


class Killer:
    """Kills the device whenever it is there."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.kills = 0

    def __call__(self) -> None:
        for pid in pids(self._serve):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1


@contextmanager
def killed(serve: Serve) -> Iterator[Callable[[], object]]:
    killer = Killer(serve)
    yield killer
    assert killer.kills
    wait_for(lambda: pids(serve), "the device is there again", 60)


@contextmanager
def frozen(serve: Serve) -> Iterator[Callable[[], object]]:
    (pid,) = pids(serve)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: None
    finally:
        os.kill(pid, signal.SIGCONT)


def run_through(person: Person, trouble: Callable[[], object], program: str, *arguments: str) -> None:
    """Run a command to its end, with trouble all along."""
    with person.start(program, *arguments) as process:
        assert process.stdout is not None
        while True:
            trouble()
            try:
                output, _ = process.communicate(timeout=0.3)
            except subprocess.TimeoutExpired:
                continue
            break
    assert process.returncode == 0, told(program, arguments, output)


@pytest.mark.parametrize("trouble", [killed, frozen])
def test_restic_backs_up_and_restores(shared: Serve, tree: Path, tmp_path: Path, trouble: Any) -> None:
    find("restic")
    restic = Person(tmp_path, shared.ready, "restic")
    restic.environment["RESTIC_REPOSITORY"] += f"-{trouble.__name__}"
    restic.run("restic", "init")
    with trouble(shared) as make_trouble:
        run_through(restic, make_trouble, "restic", "backup", "up")
        run_through(restic, make_trouble, "restic", "check", "--read-data")
    restic.run("restic", "check", "--read-data")
    restic.run("restic", "restore", "latest", "--target", "down")
    assert_same(tree, tmp_path / "down" / "up")


@pytest.mark.parametrize("trouble", [killed, frozen])
@pytest.mark.parametrize("remote", ["s3:troubled", "swift:troubled"])
def test_rclone_synchronizes(shared: Serve, tree: Path, tmp_path: Path, trouble: Any, remote: str) -> None:
    find("rclone")
    remote = f"{remote}-{trouble.__name__}"
    rclone = Person(tmp_path, shared.ready, "rclone", ".config/rclone/rclone.conf")
    with trouble(shared) as make_trouble:
        run_through(rclone, make_trouble, "rclone", "sync", "up", remote)
    rclone.run("rclone", "check", "--download", "up", remote)
    rclone.run("rclone", "copy", remote, "down")
    assert_same(tree, tmp_path / "down")
