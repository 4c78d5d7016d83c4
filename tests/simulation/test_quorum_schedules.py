"""The quorum client under random schedules: linearizable as it stands, and caught with any of its rules left out.

`SCHEDULES=5000 pytest tests/simulation/test_quorum_schedules.py` runs more of them. A failing run names the call that
replays it.
"""

import os
from typing import Final

import pytest

from tests.simulation.linearizability import Ended, Kind, is_linearizable
from tests.simulation.quorum_run import Run, run
from tests.simulation.shortcuts import Shortcut, taken

SCHEDULES: Final = int(os.environ.get("SCHEDULES", "240"))
"""Seeds with three owners; with five there are a quarter as many, and half as many in which the partition moves. As many
again have half of their bodies streamed."""

BLOCK: Final = 30
"""Seeds of one test, so that several processes share the work and none takes long."""

BLOCKS: Final = [
    pytest.param(
        owners,
        moving,
        streaming,
        first,
        id=f"{owners} owners{', moving' * moving}{', streaming' * streaming}, seeds from {first}",
    )
    for owners, moving, seeds in (
        (3, False, SCHEDULES),
        (5, False, SCHEDULES // 4),
        (3, True, SCHEDULES // 2),
    )
    for streaming in (False, True)
    for first in range(0, seeds, BLOCK)
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("owners", "moving", "streaming", "first"), BLOCKS)
def test_every_schedule_is_linearizable_and_readable_once_faults_have_stopped(
    owners: int, moving: bool, streaming: bool, first: int
) -> None:
    for seed in range(first, first + BLOCK):
        end = run(seed, owners, moving=moving, streaming=streaming)
        what = f"run(seed={seed}, owners={owners}, moving={moving}, streaming={streaming})"
        assert is_linearizable(end.history), f"{what}: {end.history}"
        assert end.is_readable, what


def test_a_seed_repeats_a_run_to_the_byte() -> None:
    assert [_fingerprint(run(seed)) for seed in (1, 2)] == [_fingerprint(run(seed)) for seed in (1, 2)]


def test_schedules_do_what_they_are_meant_to_do() -> None:
    """Every kind of operation ends in every way that it can end, or the search would be over empty ground."""
    seen = {(call.kind, call.outcome) for seed in range(40) for call in run(seed).history}
    ways = {kind: {Ended.DONE, Ended.UNKNOWN} for kind in Kind}
    ways[Kind.POST] |= {Ended.REFUSED}
    ways[Kind.SWAP] |= {Ended.REFUSED, Ended.WITHOUT_EFFECT}
    assert {(kind, way) for kind, all_ways in ways.items() for way in all_ways} <= seen


# Each search begins where one was found, and is several times as long as it takes on average from anywhere: a change to
# the code that reshuffles all schedules makes these tests slower, not red.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("shortcut", "moving", "first", "seeds_max"),
    [
        (Shortcut.MINORITY, False, 0, 100),
        (Shortcut.NO_PROMISE, False, 0, 300),
        (Shortcut.REOFFER, False, 50, 500),
        (Shortcut.NO_WRITE_BACK, False, 20, 700),
        (Shortcut.NO_BASE, False, 110, 1500),
        (Shortcut.ACROSS_BALLOTS, False, 4294, 4000),
        (Shortcut.ONE_SET, True, 65, 1500),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Shortcut) else str(value),
)
def test_leaving_a_rule_out_is_caught(shortcut: Shortcut, moving: bool, first: int, seeds_max: int) -> None:
    for seed in range(first, first + seeds_max):
        with taken(shortcut):
            history = run(seed, moving=moving).history
        if not is_linearizable(history):
            whole = run(seed, moving=moving).history
            assert is_linearizable(whole), f"seed {seed} is wrong without the shortcut too"
            return
    pytest.fail(f"{shortcut.value}: not caught in seeds {first} to {first + seeds_max - 1}")


def _fingerprint(end: Run) -> tuple[str, str]:
    return end.trace, repr(end.history)
