"""How fast something goes lately."""

import pytest

from storage_node.progress import SLOTS, WINDOW_S, Progress


def test_a_rate_is_what_was_done_over_the_time_since_it_began() -> None:
    progress = Progress(100.0)
    for second in range(60):
        progress.note(100.0 + second, 2)
    assert progress.per_s(160.0) == pytest.approx(2.0)


def test_a_second_after_the_beginning_is_not_divided_by_less_than_that() -> None:
    progress = Progress(0.0)
    progress.note(0.001, 5)
    assert progress.per_s(0.001) == 5.0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    progress = Progress(0.0)
    progress.note(1.0, 600)
    assert progress.per_s(WINDOW_S - 1) == pytest.approx(600 / (WINDOW_S - 1))
    assert progress.per_s(2 * WINDOW_S) == 0.0


def test_however_long_it_goes_on_it_remembers_no_more_than_its_slots() -> None:
    progress = Progress(0.0)
    for second in range(int(3 * WINDOW_S)):
        progress.note(float(second))
    assert progress.per_s(3 * WINDOW_S) == pytest.approx(1.0, abs=2 / SLOTS)
