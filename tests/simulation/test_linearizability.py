"""The checker itself: it tells possible histories from impossible ones."""

from dataclasses import replace
from random import Random

import pytest

from tests.simulation.linearizability import Call, Ended, Kind, Value, is_linearizable, values_after

ONE, TWO = Value(1, 1), Value(2, 2)


def put(number: int, began: float, ended: float) -> Call:
    return Call(Kind.PUT, began, number, ended=ended, outcome=Ended.DONE)


def read(found: Value | None, began: float, ended: float) -> Call:
    return Call(Kind.READ, began, found=found, ended=ended, outcome=Ended.DONE)


def delete(began: float, ended: float) -> Call:
    return Call(Kind.DELETE, began, ended=ended, outcome=Ended.DONE)


def post(number: int, began: float, ended: float, outcome: Ended = Ended.DONE) -> Call:
    return Call(Kind.POST, began, number, ended=ended, outcome=outcome)


def swap(
    expected: Value | None, number: int, began: float, ended: float, outcome: Ended = Ended.DONE
) -> Call:
    return Call(Kind.SWAP, began, number, expected, ended=ended, outcome=outcome)


UNKNOWN_PUT = Call(Kind.PUT, 0, 1)


@pytest.mark.parametrize(
    ("history", "possible"),
    [
        pytest.param([], True, id="nothing happened"),
        pytest.param([read(None, 0, 1)], True, id="nothing was written, nothing is read"),
        pytest.param([put(1, 0, 1), read(None, 2, 3)], False, id="a finished write is not seen"),
        pytest.param([put(1, 0, 4), read(ONE, 1, 2), read(None, 2.5, 3)], False, id="seen, and then unseen"),
        pytest.param(
            [put(1, 0, 9), read(None, 1, 2), read(ONE, 3, 4)], True, id="takes effect while it runs"
        ),
        pytest.param([put(1, 0, 1), put(2, 2, 3), read(ONE, 4, 5)], False, id="the older one is read"),
        pytest.param(
            [put(1, 0, 3), put(2, 1, 2), read(ONE, 4, 5)], True, id="overlapping writes in either order"
        ),
        pytest.param(
            [put(1, 0, 9), put(2, 0, 9), read(ONE, 1, 2), read(TWO, 3, 4), read(ONE, 5, 6)],
            False,
            id="a write happens once",
        ),
        pytest.param([UNKNOWN_PUT, read(ONE, 5, 6)], True, id="an unknown write may take effect late"),
        pytest.param([UNKNOWN_PUT, read(None, 5, 6)], True, id="or never"),
        pytest.param([UNKNOWN_PUT, read(ONE, 5, 6), read(None, 7, 8)], False, id="but is not taken back"),
        pytest.param(
            [replace(UNKNOWN_PUT, outcome=Ended.WITHOUT_EFFECT), read(ONE, 5, 6)],
            False,
            id="what was without effect is not seen",
        ),
        pytest.param([put(1, 0, 1), delete(2, 3), read(ONE, 4, 5)], False, id="a deleted object is read"),
        pytest.param([swap(None, 1, 0, 1), swap(None, 2, 2, 3)], False, id="two swaps of one value"),
        pytest.param(
            [put(1, 0, 1), swap(ONE, 2, 2, 3, Ended.REFUSED)], False, id="refused, though it matched"
        ),
        pytest.param(
            [put(1, 0, 1), swap(TWO, 3, 2, 3, Ended.REFUSED)], True, id="refused, and it did not match"
        ),
        pytest.param(
            [put(1, 0, 1), post(2, 2, 3), read(Value(1, 2), 4, 5)], True, id="a post keeps the body"
        ),
        pytest.param([put(1, 0, 1), post(2, 2, 3), read(TWO, 4, 5)], False, id="a post brings a body"),
        pytest.param([post(1, 0, 1)], False, id="a post of nothing"),
        pytest.param([post(1, 0, 1, Ended.REFUSED)], True, id="a post of nothing is refused"),
        pytest.param(
            [put(1, 0, 1), put(2, 2, 9), post(3, 2, 9), read(Value(1, 3), 10, 11)],
            False,
            id="a post of the body that was replaced",
        ),
    ],
)
def test_the_checker_tells_possible_histories_from_impossible_ones(
    history: list[Call], possible: bool
) -> None:
    assert is_linearizable(history) is possible


def test_every_history_of_a_register_that_does_one_thing_after_another_is_possible_whatever_overlaps() -> (
    None
):
    for seed in range(100):
        assert is_linearizable(honest_history(Random(seed))), f"seed {seed}"


def test_an_honest_history_with_one_read_of_a_value_that_never_was_is_impossible() -> None:
    for seed in range(100):
        history = honest_history(Random(seed))
        reads = [call for call in history if call.kind is Kind.READ]
        if reads:
            reads[-1].found = Value(999, 999)
            assert not is_linearizable(history), f"seed {seed}"


def honest_history(random: Random) -> list[Call]:
    """Calls that take effect at a moment of their own, within a time that their clients saw as longer."""
    history: list[Call] = []
    value: Value | None = None
    for number in range(1, 25):
        expected = random.choice([value, None, ONE])
        began, ended = number - random.random() * 3, number + random.random() * 3
        call = Call(random.choice(list(Kind)), began, number, expected, value, ended)
        done = values_after(replace(call, outcome=Ended.DONE), value)
        call.outcome = Ended.DONE if done else Ended.REFUSED
        value = done[0] if done else value
        if random.random() < 0.1 and call.kind is not Kind.READ:
            call.outcome, call.ended = Ended.UNKNOWN, float("inf")
        history.append(call)
    return history
