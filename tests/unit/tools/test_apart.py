"""A function in a process of its own: what it returns, raises, or dies of."""

import os
import signal

import pytest

from storage_node.errors import IndexDamaged, StorageError
from tools.apart import Died, apart


def damaged(what: str) -> None:
    raise IndexDamaged(what)


def die_by(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_what_it_returns_or_is_expected_to_raise_comes_back() -> None:
    assert apart((), os.path.join, "a", "b") == "a/b"
    with pytest.raises(IndexDamaged, match="page 6"):
        apart((StorageError,), damaged, "page 6")


@pytest.mark.parametrize(
    ("number", "of_damage"), [(signal.SIGABRT, True), (signal.SIGBUS, True), (signal.SIGKILL, False)]
)
def test_only_some_deaths_are_those_of_damage(number: signal.Signals, of_damage: bool) -> None:
    with pytest.raises(Died, match=f"was killed by {number.name}") as died:
        apart((StorageError,), die_by, number)
    assert died.value.of_damage is of_damage


def test_a_bug_is_no_answer_and_shows_where_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Died, match="ended with code 1") as died:
        apart((StorageError,), os.strerror, "no number")
    assert not died.value.of_damage
    assert "TypeError" in capfd.readouterr().err
