"""Measuring in a process of its own: what it costs is counted there, and its figures come back as JSON.

Time is CPU time, user and system, of the one call that is measured: neighbours on the same cores then cost cache
misses but no seconds. Never imports numpy, since its memory would be counted as a reader's.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent

Figures = dict[str, Any]


class MeasurementError(Exception):
    """A process that was to measure did not come back with figures; says why in one sentence."""


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time, user and system, that all threads of this process spend on a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_bytes() -> int:
    """Return the most memory that this process has had resident.

    Not `ru_maxrss`: that one survives exec, and so begins at what the parent had when it forked.
    """
    return _proc_kib("/proc/self/status", "VmHWM") * 1024


def private_bytes(process: int | str = "self") -> int:
    """Return the memory that is a process's own and no file's (`RssAnon`): mapped files are shared page cache."""
    return _proc_kib(f"/proc/{process}/status", "RssAnon") * 1024


def available_bytes() -> int:
    """Return the memory that this machine could give away without swapping."""
    return _proc_kib("/proc/meminfo", "MemAvailable") * 1024


def _proc_kib(path: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(path).read_text(), re.MULTILINE)
    assert found is not None, "Linux tells this"
    return int(found[1])


def figures_of(command: Sequence[str | Path], timeout_s: float | None = None) -> Figures:
    """Run a process that measures and return the JSON object that it prints last."""
    try:
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"not done after {timeout_s:.0f} s") from None
    if done.returncode < 0:
        raise MeasurementError(f"killed by signal {-done.returncode}")
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MeasurementError(last_line)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def figures_of_module(name: str, *arguments: str | Path, timeout_s: float | None = None) -> Figures:
    """Run a module of this package the same way."""
    return figures_of([sys.executable, "-m", f"benchmarks.{name}", *arguments], timeout_s)
