"""Child processes kept alive: what a parent does when one dies, lingers, is refused, or is given another job."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from swiftlike import supervision
from swiftlike.supervision import Children, Job, Patience
from tests.cluster.device.hosts import wait_until

PATIENCE = Patience(drain_s=5.0, restart_min_s=0.01, restart_max_s=0.1)
SAY = "print('ready here', flush=True)"
WAIT = "import signal; signal.pause()"
SERVE = f"{SAY}; {WAIT}"
"""A child that serves until SIGTERM."""
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
"""One that serves until it is killed."""


def never(refusals: Sequence[str]) -> None:
    raise AssertionError(f"nobody was to give up: {refusals}")


class Jobs:
    """Jobs whose children say who they are by a line in a file, one for each start."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def job(self, name: str, code: str, patience: Patience = PATIENCE) -> Job:
        """A child that runs `code`, in which `last` is the exit code before."""
        head = f"import os; open({str(self._file(name))!r}, 'a').write(f'{{os.getpid()}}\\n');"

        def arguments(last_code: int | None) -> Sequence[str]:
            return ("-c", f"{head} last = {last_code}\n{code}")

        return Job(f"child {name}", arguments, patience)

    def pids(self, name: str) -> list[int]:
        """The process ids of all starts so far."""
        file = self._file(name)
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.pids"


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def blocked_signals(pid: int) -> int:
    """A bit for each signal that a process does not hear."""
    status = Path(f"/proc/{pid}/status").read_text()
    (blocked,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk")]
    return blocked


def starts(jobs: Jobs, name: str, count: int) -> Callable[[], bool]:
    return lambda: len(jobs.pids(name)) >= count


async def test_a_child_that_is_killed_is_started_again_alone(jobs: Jobs) -> None:
    async with Children(never) as children:
        for name in ("one", "two"):
            children.adopt(name, jobs.job(name, SERVE))
        assert await children.wait_attempted() == []
        (first,) = jobs.pids("one")
        os.kill(first, signal.SIGKILL)
        await wait_until(starts(jobs, "one", 2))
        assert len(jobs.pids("two")) == 1
    for pid in (*jobs.pids("one"), *jobs.pids("two")):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_the_next_start_may_depend_on_how_the_last_one_ended(jobs: Jobs) -> None:
    async with Children(never) as children:
        children.adopt(
            "one", jobs.job("one", f"{SAY}; exit(3) if last is None else exec({WAIT!r}) if last == 3 else 0")
        )
        await wait_until(starts(jobs, "one", 2))
        os.kill(jobs.pids("one")[-1], 0)
    assert len(jobs.pids("one")) == 2


async def test_a_child_that_drained_by_itself_is_started_again_at_once(jobs: Jobs) -> None:
    patient = replace(PATIENCE, restart_min_s=3600.0, restart_max_s=3600.0)
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", f"{SAY}; exit(0) if last is None else exec({WAIT!r})", patient))
        await wait_until(starts(jobs, "one", 2))


async def test_a_child_does_not_hear_the_interrupt_that_a_terminal_sends_to_the_whole_group(
    jobs: Jobs,
) -> None:
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", SERVE))
        await children.wait_attempted()
        (pid,) = jobs.pids("one")
        assert os.getpgid(pid) == os.getpgid(0)
        assert blocked_signals(pid) & (1 << signal.SIGINT - 1)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


async def test_a_child_that_does_not_end_in_time_is_killed(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "KILL_AFTER_S", 0.0)
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", DEAF, replace(PATIENCE, drain_s=0.1)))
        await children.wait_attempted()
    with pytest.raises(ProcessLookupError):
        os.kill(jobs.pids("one")[-1], 0)


async def test_a_child_that_lingers_is_killed_so_that_another_may_take_its_job(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "KILL_AFTER_S", 0.0)
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", DEAF, replace(PATIENCE, drain_s=0.1)))
        await children.wait_attempted()
        children.reassign("one", jobs.job("one", SERVE, replace(PATIENCE, drain_s=0.1)), restart=True)
        await wait_until(starts(jobs, "one", 2))


async def test_all_reasons_are_told_when_every_first_start_is_refused(jobs: Jobs) -> None:
    told: list[str] = []
    refuse = "print('refused no disk {0}', flush=True); exit(2)"
    async with Children(told.extend) as children:
        children.adopt("one", jobs.job("one", refuse.format(1)))
        children.adopt("two", jobs.job("two", refuse.format(2)))
        children.adopt("three", jobs.job("three", "exit(7)"))
        refusals = await children.wait_attempted()
    assert sorted(refusals) == ["child three ended before it served: see its log", "no disk 1", "no disk 2"]
    assert sorted(told) == sorted(refusals)


async def test_one_that_is_refused_takes_no_other_down_and_is_tried_again(jobs: Jobs) -> None:
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", "print('refused busy'); exit(2)"))
        children.adopt("two", jobs.job("two", SERVE))
        assert await children.wait_attempted() == ["busy"]
        await wait_until(starts(jobs, "one", 3))


async def test_a_child_takes_another_job_in_another_process_or_is_only_told(
    jobs: Jobs, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    hear = (
        f"import signal; signal.signal(signal.SIGHUP, lambda *_: open({str(heard)!r}, 'w').close());"
        "from swiftlike.supervision import hear_hangups; hear_hangups()"
    )
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", f"{hear}; {SERVE}; {WAIT}"))
        await children.wait_attempted()
        children.reassign("one", jobs.job("one", SERVE), restart=False)
        await wait_until(heard.exists)
        assert len(jobs.pids("one")) == 1
        children.reassign("one", jobs.job("one", SERVE), restart=True)
        await wait_until(starts(jobs, "one", 2))


async def test_a_child_that_is_told_to_end_as_it_starts_is_followed_at_once(jobs: Jobs) -> None:
    patient = replace(PATIENCE, restart_min_s=3600.0, restart_max_s=3600.0)
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", WAIT, patient))
        await wait_until(starts(jobs, "one", 1))
        children.reassign("one", jobs.job("one", SERVE, patient), restart=True)
        assert await children.wait_attempted() == []
        assert len(jobs.pids("one")) == 2


async def test_a_child_that_is_told_to_end_while_it_is_being_made_does(jobs: Jobs) -> None:
    async with Children(never) as children, asyncio.timeout(20):
        first, second = jobs.job("one", WAIT), jobs.job("one", SERVE)

        def arguments(last_code: int | None) -> Sequence[str]:
            # The next turn of the loop comes before the process is known.
            asyncio.get_running_loop().call_soon(partial(children.reassign, "one", second, restart=True))
            return first.arguments(last_code)

        children.adopt("one", replace(first, arguments=arguments))
        assert await children.wait_attempted() == []


async def test_a_hangup_that_comes_while_a_child_starts_waits_until_it_hears_them(
    jobs: Jobs, tmp_path: Path
) -> None:
    heard, go_on = tmp_path / "heard", tmp_path / "go on"
    starting = (
        f"import pathlib, signal, time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)\n"
        f"signal.signal(signal.SIGHUP, lambda *_: open({str(heard)!r}, 'w').close())\n"
        f"from swiftlike.supervision import hear_hangups\nhear_hangups()\n{SERVE}; {WAIT}"
    )
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", starting))
        await wait_until(starts(jobs, "one", 1))
        children.reassign("one", jobs.job("one", starting), restart=False)
        go_on.touch()
        await wait_until(heard.exists)
        assert await children.wait_attempted() == []
        assert len(jobs.pids("one")) == 1


async def test_a_child_that_is_killed_as_it_starts_is_no_reason_to_give_up(jobs: Jobs) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    async with Children(never) as children:
        children.adopt("one", jobs.job("one", f"exec({kill!r}) if last is None else exec({SERVE!r})"))
        assert await children.wait_attempted() == []
        assert len(jobs.pids("one")) == 2


def test_a_process_may_open_as_many_files_as_the_hard_limit_lets_it() -> None:
    script = (
        "import resource as r\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, {hard}))\n"
        "from swiftlike.supervision import allow_descriptors\n"
        "allow_descriptors()\n"
        "print(*r.getrlimit(r.RLIMIT_NOFILE))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script.format(hard=512)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout.split() == ["512", "512"]
