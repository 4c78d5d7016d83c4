"""Whole clusters under seeded troubles, and the proof that the search bites.

`make simulate SEEDS=10000` runs many more. A failing run names its seed: `world.run(plans.draw(seed))` replays it.
"""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.simulation import campaign, plans, world
from tests.simulation.campaign import Journal, main, smallest, try_seeds, wrong_of
from tests.simulation.linearizability import Call, Ended, Kind, Value
from tests.simulation.mutants import Mutant, mutated
from tests.simulation.pins import SEEDS_MAX, pins, search
from tests.simulation.plans import FORGETFUL_S, LARGE, WEEK_S, WIDE, Fault, Order
from tests.simulation.seen_in_listings import Seen, wrong_in

SEEDS: Final = int(os.environ.get("SEEDS", "120"))
BLOCK: Final = 20
"""Seeds of one test, so that several processes share the work and none takes long."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", [*range(0, SEEDS, BLOCK), *range(WIDE, WIDE + SEEDS // 2, BLOCK)])
def test_whatever_goes_wrong_nothing_acknowledged_is_lost_and_every_history_is_linearizable(
    first: int,
) -> None:
    for failure in try_seeds(range(first, first + BLOCK)):
        pytest.fail(f"seed {failure.seed}\n{failure.report}")


def test_a_seed_repeats_a_run_to_the_byte() -> None:
    first, second = (world.run(plans.draw(11)) for _ in range(2))
    assert (first.trace, first.story()) == (second.trace, second.story())


def test_plans_have_every_trouble_and_runs_every_ending() -> None:
    drawn = [plans.draw(first + seed) for first in (0, WIDE) for seed in range(200)]
    assert {trouble.fault for plan in drawn for trouble in plan.troubles} == set(Fault)
    assert {task.order for plan in drawn for task in plan.tasks} == set(Order)
    assert {plan.age_s for plan in drawn} == {WEEK_S, FORGETFUL_S}
    assert max(max(plan.skews_s) - min(plan.skews_s) for plan in drawn) > 120
    assert any(plan.doom_s is not None for plan in drawn)
    assert any(step.number > LARGE for plan in drawn for steps in plan.clients for step in steps)
    histories = [world.run(plan).histories for plan in (*drawn[:20], *drawn[200:220])]
    seen = {(call.kind, call.outcome) for each in histories for history in each.values() for call in history}
    ways = {kind: {Ended.DONE, Ended.UNKNOWN} for kind in Kind}
    ways[Kind.SWAP] |= {Ended.REFUSED}
    ways[Kind.POST] |= {Ended.REFUSED}
    assert {(kind, way) for kind, all_ways in ways.items() for way in all_ways} <= seen


def test_every_smaller_plan_leaves_something_out() -> None:
    plan = plans.draw(5)
    size = _size(plan)
    assert all(_size(each) < size for each in plans.smaller(plan))
    assert any(not each.troubles for each in plans.smaller(plan))


def _size(plan: plans.Plan) -> int:
    return len(plan.troubles) + len(plan.tasks) + sum(map(len, plan.clients))


# --- listings ---------------------------------------------------------------------------------------------------

OLD, NEW = Value(1, 1), Value(2, 2)


def _call(kind: Kind, number: int, began: float, ended: float, outcome: Ended = Ended.DONE) -> Call:
    return Call(kind, began, number, ended=ended, outcome=outcome)


@pytest.mark.parametrize(
    ("history", "shown", "is_right"),
    [
        pytest.param([], None, True, id="nothing was written"),
        pytest.param([_call(Kind.PUT, 1, 0, 1)], OLD, True, id="an answered put"),
        pytest.param([_call(Kind.PUT, 1, 0, 1)], None, False, id="an answered put is missing"),
        pytest.param([_call(Kind.PUT, 1, 5, 20)], None, True, id="a put under way may be missing"),
        pytest.param([_call(Kind.PUT, 1, 5, 20)], OLD, True, id="or be there"),
        pytest.param([_call(Kind.PUT, 1, 0, 1), _call(Kind.PUT, 2, 2, 3)], OLD, False, id="the older of two"),
        pytest.param(
            [_call(Kind.PUT, 1, 0, 3), _call(Kind.PUT, 2, 2, 4)], OLD, True, id="one of two at once"
        ),
        pytest.param([_call(Kind.PUT, 1, 0, 1), _call(Kind.DELETE, 0, 2, 3)], OLD, False, id="a deleted one"),
        pytest.param(
            [_call(Kind.PUT, 1, 0, 1, Ended.UNKNOWN), _call(Kind.PUT, 2, 2, 3)], NEW, True, id="the known one"
        ),
        pytest.param(
            [_call(Kind.PUT, 1, 0, 1, Ended.WITHOUT_EFFECT)], OLD, False, id="one that was not done"
        ),
        pytest.param(
            [_call(Kind.PUT, 1, 0, 1), _call(Kind.POST, 2, 2, 3)], Value(1, 2), True, id="described anew"
        ),
        pytest.param(
            [_call(Kind.PUT, 1, 0, 1), _call(Kind.POST, 2, 2, 3)], OLD, False, id="described as before"
        ),
    ],
)
def test_a_page_shows_what_could_be_the_last_word_on_each_name(
    history: list[Call], shown: Value | None, is_right: bool
) -> None:
    page = Seen(10.0, 11.0, b"", None, {} if shown is None else {b"a": shown})
    assert (not wrong_in(page, {b"a": history})) is is_right


def test_a_page_is_not_judged_by_names_that_it_does_not_reach() -> None:
    history = {name: [_call(Kind.PUT, 1, 0, 1)] for name in (b"a", b"b", b"c")}
    assert not wrong_in(Seen(10.0, 11.0, b"a", b"b", {b"b": OLD}), history)
    assert wrong_in(Seen(10.0, 11.0, b"a", None, {b"b": OLD}), history)


# --- the search bites -------------------------------------------------------------------------------------------


PINS: Final = pins()
"""Where each bug was found. The search goes on for a thousand seeds from there: a change that reshuffles all schedules makes
these tests slower, not red, and `make pins` makes them fast again."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("mutant", "first"),
    [pytest.param(mutant, first, id=mutant.name.lower()) for mutant, first in PINS.items()],
)
def test_a_deliberate_bug_is_found(mutant: Mutant, first: int) -> None:
    found = search(mutant, range(first, first + SEEDS_MAX))
    assert found is not None, f"{mutant.value}: not found in {SEEDS_MAX} seeds from {first} on"


# --- the campaign -----------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_failing_seed_is_told_with_a_smaller_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "SMALLER_TRIES_MAX", 12)
    seed = PINS[Mutant.LIST_FROM_ONE]
    (failure,) = try_seeds(range(seed, seed + 1), Mutant.LIST_FROM_ONE)
    assert failure.seed == seed
    assert "is listed" in failure.report or "a listing from" in failure.report
    with mutated(Mutant.LIST_FROM_ONE), campaign.quietly():
        least = smallest(plans.draw(seed))
        assert _size(least) < _size(plans.draw(seed))
        assert wrong_of(least)[0]


def test_a_journal_skips_what_was_clean_at_this_commit_and_only_that(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    seeds = range(75)
    assert Journal(path, "abc").left(seeds) == [range(25), range(25, 50), range(50, 75)]
    Journal(path, "abc").note(range(25, 50))
    assert Journal(path, "abc").left(seeds) == [range(25), range(50, 75)]
    assert Journal(path, "def").left(seeds) == [range(25), range(25, 50), range(50, 75)]
    Journal(path, None).note(range(25))
    assert Journal(path, "abc").left(seeds) == [range(25), range(50, 75)]


def test_the_command_runs_seeds_and_says_how_many_a_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds", "2", "--processes", "1", "--journal", str(tmp_path / "journal")]
    assert main(options) == 0
    assert "seeds/s; 0 failed" in capsys.readouterr().out
