"""How long a read waits before it asks more owners: by what answers take just now."""

from proxy.cluster.rounds import Pace

LEAST_S = 0.05


def test_where_owners_answer_soon_a_silent_one_is_given_the_least_time() -> None:
    pace = Pace(LEAST_S)
    assert pace.hedge_s == LEAST_S
    for _ in range(100):
        pace.note(0.002)
    assert pace.hedge_s == LEAST_S


def test_where_all_are_busy_nobody_else_is_asked_before_they_are_late_for_that() -> None:
    pace = Pace(LEAST_S)
    for _ in range(100):
        pace.note(0.1)
    assert 0.39 < pace.hedge_s <= 0.4
    for _ in range(100):
        pace.note(0.002)
    assert pace.hedge_s == LEAST_S, "and that is forgotten"


def test_however_slow_all_are_the_wait_has_an_end() -> None:
    pace = Pace(LEAST_S)
    for _ in range(100):
        pace.note(30.0)
    assert pace.hedge_s == 1.0


def test_one_late_answer_among_many_changes_little() -> None:
    pace = Pace(LEAST_S)
    for _ in range(100):
        pace.note(0.002)
    pace.note(0.1)
    assert pace.hedge_s == LEAST_S
