"""Who must answer: tables of verdicts, and the laws that make majorities safe."""

from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.cluster.quorum import Answer, Need, Owners, Verdict, judge, owners_of, quorum
from ring.device import DeviceId

A, B, C, D, E, F = map(DeviceId, range(6))

VOTE, WITNESS, NO = Answer.VOTE, Answer.WITNESS, Answer.NO
REACHED, UNDECIDED, IMPOSSIBLE = Verdict.REACHED, Verdict.UNDECIDED, Verdict.IMPOSSIBLE

SETTLED = Owners((A, B, C))
MOVING = owners_of((A, B, D), (A, B, C))
REPLACED = owners_of((D, E, F), (A, B, C))


@pytest.mark.parametrize(
    ("owners", "need", "answers", "verdict"),
    [
        pytest.param(SETTLED, Need.WRITE, {}, UNDECIDED, id="nobody has answered"),
        pytest.param(SETTLED, Need.WRITE, {A: VOTE}, UNDECIDED, id="one of three"),
        pytest.param(SETTLED, Need.WRITE, {A: VOTE, C: VOTE}, REACHED, id="two of three"),
        pytest.param(SETTLED, Need.WRITE, {A: VOTE, B: NO}, UNDECIDED, id="the third may still agree"),
        pytest.param(SETTLED, Need.WRITE, {A: NO, B: NO}, IMPOSSIBLE, id="two of three refused"),
        pytest.param(SETTLED, Need.WRITE, {A: VOTE, B: WITNESS}, UNDECIDED, id="a non-voter counts nothing"),
        pytest.param(SETTLED, Need.READ, {A: VOTE, B: WITNESS, C: WITNESS}, IMPOSSIBLE, id="two non-voters"),
        pytest.param(SETTLED, Need.WRITE, {A: VOTE, E: VOTE, F: VOTE}, UNDECIDED, id="handoffs never count"),
        pytest.param(Owners((A,)), Need.WRITE, {A: VOTE}, REACHED, id="one replica"),
        pytest.param(Owners((A, B)), Need.WRITE, {A: VOTE, B: NO}, IMPOSSIBLE, id="two replicas need both"),
        pytest.param(
            Owners((A, B, C, D)), Need.WRITE, {A: VOTE, B: VOTE}, UNDECIDED, id="half is no majority"
        ),
        pytest.param(MOVING, Need.READ, {B: VOTE, C: VOTE}, REACHED, id="moving: old owners answer a read"),
        pytest.param(
            MOVING, Need.READ, {A: VOTE, D: VOTE}, UNDECIDED, id="moving: a new owner answers no read"
        ),
        pytest.param(
            MOVING, Need.WRITE, {A: VOTE, B: VOTE}, REACHED, id="moving: two that stay serve for both"
        ),
        pytest.param(
            MOVING, Need.WRITE, {A: VOTE, C: VOTE}, UNDECIDED, id="moving: old owners alone are too few"
        ),
        pytest.param(
            MOVING,
            Need.WRITE,
            {A: VOTE, C: VOTE, D: WITNESS},
            REACHED,
            id="moving: a new owner need not vote",
        ),
        pytest.param(
            MOVING,
            Need.WRITE,
            {A: VOTE, B: WITNESS, D: WITNESS},
            UNDECIDED,
            id="moving: an old owner must vote",
        ),
        pytest.param(MOVING, Need.WRITE, {B: NO, D: NO}, IMPOSSIBLE, id="moving: the new set cannot be had"),
        pytest.param(MOVING, Need.READ, {B: NO, D: NO}, UNDECIDED, id="moving: which a read does not need"),
        pytest.param(
            REPLACED, Need.WRITE, {A: VOTE, B: VOTE, D: WITNESS}, UNDECIDED, id="all move: both sets"
        ),
        pytest.param(
            REPLACED, Need.WRITE, {A: VOTE, B: VOTE, D: WITNESS, F: VOTE}, REACHED, id="all move: both agreed"
        ),
    ],
)
def test_a_verdict_follows_from_the_answers(
    owners: Owners, need: Need, answers: dict[DeviceId, Answer], verdict: Verdict
) -> None:
    assert judge(owners, need, answers) is verdict


@pytest.mark.parametrize(("replicas", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (16, 9)])
def test_a_quorum_is_a_majority(replicas: int, needed: int) -> None:
    assert quorum(replicas) == needed


def test_a_device_that_stands_for_several_replicas_has_one_voice() -> None:
    owners = owners_of((A, B, A), ())
    assert owners == Owners((A, B))
    assert judge(owners, Need.WRITE, {A: VOTE}) is UNDECIDED


def test_an_owner_that_stays_is_asked_once() -> None:
    assert MOVING.everyone == (A, B, C, D)


# --- laws -------------------------------------------------------------------------------------------------------

owner_sets = st.lists(
    st.sampled_from(list(map(DeviceId, range(8)))), min_size=1, max_size=5, unique=True
).map(tuple)
epochs = st.builds(owners_of, owner_sets, st.just(()) | owner_sets)


def agreeing(owners: Owners, need: Need, voters: set[DeviceId]) -> list[set[DeviceId]]:
    """All sets of owners whose agreement is enough, when these are the ones that vote."""
    return [
        set(some)
        for size in range(1, len(owners.everyone) + 1)
        for some in combinations(owners.everyone, size)
        if judge(owners, need, {owner: VOTE if owner in voters else WITNESS for owner in some}) is REACHED
    ]


@given(epochs, st.sets(st.sampled_from(list(map(DeviceId, range(8))))))
def test_any_two_quorums_of_an_epoch_share_an_owner_that_votes(owners: Owners, voters: set[DeviceId]) -> None:
    writes = agreeing(owners, Need.WRITE, voters)
    reads = agreeing(owners, Need.READ, voters)
    for write in writes:
        for other in writes + reads:
            assert write & other & voters & set(owners.voting)


@given(owner_sets, owner_sets)
def test_quorums_of_neighbouring_epochs_share_an_owner(
    before: tuple[DeviceId, ...], after: tuple[DeviceId, ...]
) -> None:
    """Before a move, during it, and after it."""
    assume(before != after)
    everyone = {*before, *after}
    settled, moving, moved = owners_of(before, ()), owners_of(after, before), owners_of(after, ())
    for earlier, later in ((settled, moving), (moving, moved), (moving, settled)):
        for write in agreeing(earlier, Need.WRITE, everyone):
            assert all(write & other for other in agreeing(later, Need.READ, everyone))
            assert all(write & other for other in agreeing(later, Need.WRITE, everyone))


@given(epochs, st.data())
def test_a_verdict_never_takes_back_what_it_said(owners: Owners, data: st.DataObject) -> None:
    answers: dict[DeviceId, Answer] = {}
    need = data.draw(st.sampled_from(Need))
    before = judge(owners, need, answers)
    for owner in data.draw(st.permutations(owners.everyone)):
        answers[owner] = data.draw(st.sampled_from(Answer))
        now = judge(owners, need, answers)
        assert before is UNDECIDED or now is before
        before = now
    assert before is not UNDECIDED
