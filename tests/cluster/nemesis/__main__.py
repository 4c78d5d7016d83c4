"""Many runs, one after the other: `make nemesis RUNS=10 SEED=0`.

Owns where a run's files are: those of one that passed are removed, those of one that failed are kept and named, with its story
and the logs of all processes. Each run is a process in namespaces of its own (`places`). Exits with 1 when a run failed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.cluster.nemesis.places import isolated

LONGEST_S: Final = 600.0
"""A run that takes longer hangs, and has failed."""


class Ended(NamedTuple):
    """How a run ended."""

    passed: bool
    story: str
    """The plan, what was done when, and what was wrong."""


def live_through(seed: int, seconds: float, directory: Path) -> Ended:
    """Live through one run whose files are in this directory."""
    command = [
        sys.executable,
        "-m",
        "tests.cluster.nemesis.run",
        "--seed",
        str(seed),
        "--seconds",
        str(seconds),
    ]
    command, environment = isolated([*command, "--directory", str(directory)])
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as hung:
        return Ended(False, f"{(hung.stdout or b'').decode()}\nnot over after {LONGEST_S:g} s")
    return Ended(done.returncode == 0, done.stdout.decode())


def main() -> int:
    """Live through runs; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument(
        "--first", type=int, default=0, help="the seed of the first; each of the others has the next"
    )
    parser.add_argument("--seconds", type=float, default=25.0, help="of troubles, in each")
    parser.add_argument("--verbose", action="store_true", help="tell the story of those that pass, too")
    options = parser.parse_args()
    failed = []
    for seed in range(options.first, options.first + options.runs):
        began = time.monotonic()
        directory = Path(tempfile.mkdtemp(prefix=f"nemesis-{seed}-"))
        ended = live_through(seed, options.seconds, directory)
        (directory / "story").write_text(ended.story)
        if options.verbose or not ended.passed:
            print(ended.story)
        told = "passed" if ended.passed else f"FAILED: its story, files and logs are in {directory}"
        print(f"seed {seed}: {told}, {time.monotonic() - began:.0f} s", flush=True)
        if ended.passed:
            shutil.rmtree(directory)
        else:
            failed.append(seed)
    print(
        f"{options.runs} runs, {len(failed)} failed{': seeds ' if failed else ''}{', '.join(map(str, failed))}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
