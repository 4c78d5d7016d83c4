"""Timestamps, ballots and the clock that issues them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlike.limits import CLOCK_AHEAD_FIRST_US, CLOCK_AHEAD_PASSING_US, RECLAIM_AGE_US
from swiftlike.timestamps import Ballot, Clock, ClockAhead, Offer, Timestamp, refuse_ballot

NOW_US = 1_700_000_000_000_000
words = st.integers(0, 2**64 - 1)


@given(words, words, words, words)
def test_a_ballot_gives_back_what_it_was_made_of(micros: int, writer: int, born: int, creator: int) -> None:
    ballot = Ballot.of(micros, writer, Timestamp.of(born, creator))
    assert (ballot.micros, ballot.writer) == (micros, writer)
    assert (ballot.incarnation.micros, ballot.incarnation.writer) == (born, creator)
    assert ballot.timestamp == Timestamp.of(micros, writer)


@given(*[st.tuples(words, words, words, words)] * 2)
def test_ballots_order_by_incarnation_then_time_then_writer(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    def ballot(born: int, creator: int, micros: int, writer: int) -> Ballot:
        return Ballot.of(micros, writer, Timestamp.of(born, creator))

    assert (ballot(*one) < ballot(*other)) == (one < other)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.none() | st.integers(0, 10**9)), max_size=30))
def test_a_clock_never_issues_the_same_or_an_earlier_timestamp(steps: list[tuple[int, int | None]]) -> None:
    host = [0]
    clock = Clock(lambda: host[0], writer=3)
    issued = [Timestamp.of(0, 0)]
    for now_us, seen_us in steps:
        host[0] = now_us
        if seen_us is not None:
            clock.follow(seen_us)
        issued.append(clock.issue())
        assert issued[-1] > issued[-2]
        assert clock.now_us() >= issued[-1].micros


@given(st.lists(st.tuples(st.integers(0, 10**6), st.none() | st.integers(0, 240)), max_size=40))
def test_a_clock_issues_no_timestamp_twice_however_far_ahead_it_must_pass(
    steps: list[tuple[int, int | None]],
) -> None:
    host = [NOW_US]
    clock = Clock(lambda: host[0], writer=3)
    issued: list[Timestamp] = []
    for elapsed_us, ahead_s in steps:
        host[0] += elapsed_us
        if ahead_s is None:
            issued.append(clock.issue())
        else:
            issued.append(clock.issue_above(Ballot.of(NOW_US + ahead_s * 1_000_000, 77)))
    assert len(set(issued)) == len(issued)


def test_a_clock_that_comes_to_a_time_it_has_issued_ahead_steps_over_it() -> None:
    host = [NOW_US]
    clock = Clock(lambda: host[0], writer=3)
    ahead = clock.issue_above(Ballot.of(NOW_US + 2 * CLOCK_AHEAD_FIRST_US, 77))
    host[0] = ahead.micros
    assert clock.issue() > ahead


def test_a_clock_follows_what_it_sees_by_at_most_a_minute() -> None:
    clock = Clock(lambda: NOW_US, writer=1)
    clock.follow(NOW_US + 10**15)
    assert clock.now_us() == NOW_US + CLOCK_AHEAD_FIRST_US


def test_a_refused_ballot_is_passed_up_to_five_minutes_ahead_and_no_further() -> None:
    clock = Clock(lambda: NOW_US, writer=1)
    refused = Ballot.of(NOW_US + CLOCK_AHEAD_PASSING_US - 1, 77)
    assert clock.issue_above(refused) > refused.timestamp
    assert clock.now_us() <= NOW_US + CLOCK_AHEAD_FIRST_US, "the bad clock did not drag this one along"
    with pytest.raises(ClockAhead, match="set the clock of the host of writer 000000000000004d"):
        clock.issue_above(Ballot.of(NOW_US + CLOCK_AHEAD_PASSING_US, 77))


@pytest.mark.parametrize(
    ("offer", "off_us", "taken"),
    [
        (Offer.FIRST, CLOCK_AHEAD_FIRST_US, True),
        (Offer.FIRST, CLOCK_AHEAD_FIRST_US + 1, False),
        (Offer.FIRST, -RECLAIM_AGE_US // 2, True),
        (Offer.FIRST, -RECLAIM_AGE_US // 2 - 1, False),
        (Offer.PASSING, CLOCK_AHEAD_PASSING_US, True),
        (Offer.PASSING, CLOCK_AHEAD_PASSING_US + 1, False),
        (Offer.COPY, -10 * RECLAIM_AGE_US, True),
        (Offer.COPY, CLOCK_AHEAD_PASSING_US + 1, False),
    ],
)
def test_how_far_a_ballot_may_be_from_a_devices_clock(offer: Offer, off_us: int, taken: bool) -> None:
    plain, led = Ballot.of(NOW_US + off_us, 1), Ballot.of(NOW_US, 1, Timestamp.of(NOW_US + off_us, 1))
    assert (refuse_ballot(plain, offer, NOW_US, RECLAIM_AGE_US) is None) is taken
    if off_us > 0:
        assert (refuse_ballot(led, offer, NOW_US, RECLAIM_AGE_US) is None) is taken, (
            "an incarnation is bound too"
        )
