"""Many seeds: `make simulate SEEDS=10000 FIRST=0`.

Owns the workers, the journal of what was clean, and what is told of a seed that failed: the smallest plan found that still
fails, what was wrong, and the histories. Exits with 1 when a seed failed.

The journal has a line for each clean range of a commit, so that a long campaign can be broken off and go on:

    <commit> <first> <stop>

Only a tree without changes has a journal: another's clean seeds say nothing of this one's.
"""

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from tests.simulation import plans, world
from tests.simulation.mutants import Mutant, mutated
from tests.simulation.plans import Plan

CHUNK: Final = 25
"""Seeds that a worker takes at once."""
SMALLER_TRIES_MAX: Final = 250
"""Runs spent on making one failing plan smaller."""


class Failure(NamedTuple):
    """A seed that failed."""

    seed: int
    report: str


def wrong_of(plan: Plan) -> tuple[list[str], str]:
    """Run a plan; return what is wrong and the story of it. A run that breaks down is wrong, too."""
    try:
        end = world.run(plan)
    except Exception as error:  # whatever a run may raise is what the campaign looks for
        return [f"{type(error).__name__}: {error}"], ""
    return end.wrong, end.story()


def smallest(plan: Plan) -> Plan:
    """Leave out what is not needed to fail."""
    tries = SMALLER_TRIES_MAX
    shrinks = True
    while shrinks:
        shrinks = False
        for candidate in plans.smaller(plan):
            if not tries:
                return plan
            tries -= 1
            if wrong_of(candidate)[0]:
                plan, shrinks = candidate, True
                break
    return plan


def try_seeds(seeds: range, mutant: Mutant | None = None) -> list[Failure]:
    """Run seeds in this process; a failing one is reported with its smallest plan, the others go on."""
    found = []
    with mutated(mutant), quietly():
        for seed in seeds:
            if wrong_of(plans.draw(seed))[0]:
                plan = smallest(plans.draw(seed))
                wrong, story = wrong_of(plan)
                found.append(Failure(seed, "\n".join([str(plan), *wrong, story])))
    return found


@contextmanager
def quietly() -> Iterator[None]:
    """Log nothing: troubles are what these runs are made of."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


# --- the journal ------------------------------------------------------------------------------------------------


class Journal:
    """What was clean at this commit."""

    def __init__(self, path: Path, commit: str | None) -> None:
        """Read it; without a commit nothing is read, and nothing written."""
        self._path: Final = path
        self._commit: Final = commit
        self._clean: Final[set[int]] = set()
        with suppress(FileNotFoundError):
            for line in path.read_text().splitlines() if commit else ():
                at, first, stop = line.split()
                if at == commit:
                    self._clean.update(range(int(first), int(stop)))

    def left(self, seeds: range) -> list[range]:
        """Return the ranges that are still to be run."""
        return [
            range(at, min(at + CHUNK, seeds.stop))
            for at in range(seeds.start, seeds.stop, CHUNK)
            if not self._clean.issuperset(range(at, min(at + CHUNK, seeds.stop)))
        ]

    def note(self, seeds: range) -> None:
        """Remember a range that was clean."""
        if self._commit is not None:
            with self._path.open("a") as journal:
                journal.write(f"{self._commit} {seeds.start} {seeds.stop}\n")


def commit_of_tree() -> str | None:
    """Return the commit that is checked out; None when there are changes, or no repository."""
    try:
        changes = _git("status", "--porcelain", "--untracked-files=no")
        return None if changes else _git("rev-parse", "--short=12", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# --- the command ------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--journal", type=Path, default=Path("simulate.journal"))
    options = parser.parse_args(arguments)
    commit = commit_of_tree()
    journal = Journal(options.journal, commit)
    seeds = range(options.first, options.first + options.seeds)
    todo = journal.left(seeds)
    skipped = options.seeds - sum(map(len, todo))
    print(
        f"commit {commit or 'with changes: no journal'}; seeds {seeds.start} to {seeds.stop - 1}, {skipped} clean before"
    )
    began, done, failures = time.monotonic(), 0, list[Failure]()
    for chunk, found in _results(todo, options.processes):
        done += len(chunk)
        failures += found
        if not found:
            journal.note(chunk)
        for failure in found:
            print(f"\nseed {failure.seed} FAILED\n{failure.report}\n", flush=True)
        rate = done / (time.monotonic() - began)
        print(f"\r{done} seeds, {rate:.1f}/s, {len(failures)} failed", end="", file=sys.stderr, flush=True)
    elapsed_s = max(0.001, time.monotonic() - began)
    print(f"\n{done} seeds in {elapsed_s:.0f} s = {done / elapsed_s:.1f} seeds/s; {len(failures)} failed")
    if failures:
        print("failed:", " ".join(str(failure.seed) for failure in sorted(failures)))
    return 1 if failures else 0


def _results(todo: Iterable[range], processes: int) -> Iterator[tuple[range, list[Failure]]]:
    todo = list(todo)
    with ProcessPoolExecutor(processes) as pool:
        yield from zip(todo, pool.map(try_seeds, todo), strict=True)


if __name__ == "__main__":
    sys.exit(main())
