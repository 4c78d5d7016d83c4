"""Real processes under seeded troubles, for a short while; `make nemesis RUNS=10` takes longer. And that the judge bites."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.cluster.nemesis.__main__ import live_through
from tests.cluster.nemesis.plans import Fault, draw
from tests.cluster.nemesis.recording import (
    ANY_METADATA,
    CALLS_MAX,
    UNKNOWN_MAX,
    Record,
    content,
    outcome_of,
    wrong_pages,
)
from tests.cluster.nemesis.run import Run
from tests.cluster.serve.swift_client import Answer
from tests.simulation.linearizability import Call, Ended, Kind, Value
from tests.simulation.seen_in_listings import Seen

SECONDS = 8.0
SEED = 925
"""Of a plan in which a disk fills and rots, a device falls silent, a host is cut off and its supervisor killed, and a worker too."""


@pytest.mark.timeout(600)
def test_whatever_goes_wrong_with_processes_disks_and_networks_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    ended = live_through(SEED, SECONDS, tmp_path)
    assert ended.passed, ended.story


def test_a_seed_draws_the_same_plan_again_and_ten_of_them_have_every_fault() -> None:
    assert draw(7, 25.0) == draw(7, 25.0)
    plans = [draw(seed, 25.0) for seed in range(10)]
    assert {trouble.fault for plan in plans for trouble in plan.troubles} == set(Fault)


def test_only_one_host_of_a_plan_loses_or_damages_what_it_holds_and_one_disk_at_most() -> None:
    for plan in (draw(seed, 60.0) for seed in range(200)):
        harmed = [one for one in plan.troubles if one.fault in (Fault.EMPTY, Fault.ROT)]
        assert {one.host for one in harmed} <= {plan.victim}
        assert sum(one.fault is Fault.EMPTY for one in harmed) <= 1
        assert all(one.at_s + one.for_s <= plan.seconds + 1 for one in plan.troubles)


# --- what answers mean ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "body", "outcome"),
    [
        pytest.param(Kind.PUT, 201, b"", Ended.DONE, id="created"),
        pytest.param(Kind.PUT, 503, b"nothing was changed", Ended.WITHOUT_EFFECT, id="too few answered"),
        pytest.param(Kind.PUT, 503, b"It is not known", Ended.UNKNOWN, id="not known"),
        pytest.param(Kind.PUT, 507, b"", Ended.WITHOUT_EFFECT, id="full"),
        pytest.param(Kind.SWAP, 412, b"", Ended.REFUSED, id="the condition does not hold"),
        pytest.param(Kind.SWAP, 404, b"NoSuchKey", Ended.REFUSED, id="nothing to replace"),
        pytest.param(Kind.DELETE, 404, b"There is no such object.", Ended.DONE, id="nothing to delete"),
        pytest.param(Kind.POST, 404, b"There is no such object.", Ended.REFUSED, id="nothing to describe"),
        pytest.param(Kind.PUT, 404, b"There is no such container.", None, id="the container is there"),
        pytest.param(Kind.PUT, 412, b"", None, id="there was no condition"),
        pytest.param(Kind.PUT, 500, b"", None, id="a bug"),
    ],
)
def test_an_answer_that_may_not_be_given_is_told_from_those_that_may(
    kind: Kind, status: int, body: bytes, outcome: Ended | None
) -> None:
    assert outcome_of(kind, Answer(status, {}, body)) is outcome


def test_a_name_is_left_alone_once_its_history_is_long_or_much_of_it_unknown() -> None:
    record = Record()
    first = record.choose(Random(0))
    for _ in range(UNKNOWN_MAX):
        record.end(record.begin(Kind.PUT, first), Ended.UNKNOWN)
    assert first not in {record.choose(Random(seed)) for seed in range(200)}
    second = record.choose(Random(0))
    for _ in range(CALLS_MAX):
        record.end(record.begin(Kind.PUT, second), Ended.DONE)
    assert second not in {record.choose(Random(seed)) for seed in range(200)}


# --- the judge bites --------------------------------------------------------------------------------------------


def _judged(tmp_path: Path, histories: dict[bytes, list[Call]], pages: Sequence[Seen] = ()) -> list[str]:
    run = Run(draw(1, SECONDS), tmp_path)
    run.record.histories.update(histories)
    run.record.pages.extend(pages)
    run._judge()
    return run.wrong


def _call(kind: Kind, number: int, began: float, found: Value | None = None) -> Call:
    return Call(kind, began, number, found=found, ended=began + 0.5, outcome=Ended.DONE)


PUT = _call(Kind.PUT, 1, 0.0)


def test_a_write_that_was_acknowledged_and_cannot_be_read_in_the_end_is_found(tmp_path: Path) -> None:
    assert _judged(tmp_path, {b"s1": [PUT, _call(Kind.READ, 0, 9.0, Value(1, 1))]}) == []
    (wrong,) = _judged(tmp_path, {b"s1": [PUT, _call(Kind.READ, 0, 9.0, None)]})
    assert wrong.startswith("the history of b's1' is not linearizable")


def test_a_deleted_object_that_comes_back_is_found(tmp_path: Path) -> None:
    gone = _call(Kind.DELETE, 0, 2.0)
    assert _judged(tmp_path, {b"s1": [PUT, gone, _call(Kind.READ, 0, 9.0, Value(1, 1))]})


def test_a_page_without_metadata_is_judged_by_its_bodies(tmp_path: Path) -> None:
    described = [PUT, _call(Kind.POST, 2, 2.0)]
    for body, is_right in ((1, True), (2, False), (-1, False)):
        page = Seen(5.0, 5.5, b"", None, {b"p1": Value(body, ANY_METADATA)})
        assert (not wrong_pages([page], {b"p1": described})) is is_right


def test_a_name_that_nobody_wrote_and_one_that_is_not_shown_are_found() -> None:
    page = Seen(5.0, 5.5, b"", None, {b"s9": Value(9, 9)})
    assert len(wrong_pages([page], {b"s1": [PUT]})) == 2


def test_bodies_tell_their_numbers_and_differ() -> None:
    assert len({content(number) for number in range(1, 500)}) == 499
    assert content(12).split()[1] == b"12"
