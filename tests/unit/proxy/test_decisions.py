"""What follows a prepare, and what a read may believe: a row per rule, in the order in which they are applied."""

from collections.abc import Mapping

import pytest

from proxy.cluster.decisions import (
    NO_CHANGE,
    Carry,
    Change,
    Finished,
    FirstOffer,
    Make,
    Nothing,
    Outcome,
    Undecidable,
    decide,
    is_agreed,
    is_present,
    newest_found,
    unconditional,
)
from proxy.cluster.quorum import Owners
from ring.device import DeviceId
from swiftlike.entries import Entry
from swiftlike.node_calls import Found, Promise
from swiftlike.registers import Register, Replaced
from swiftlike.timestamps import NO_INCARNATION, Ballot, Timestamp, WriteId

A, B, C, D = map(DeviceId, range(4))
OWNERS = Owners((A, B, C))


def ballot(micros: int, incarnation: bytes = NO_INCARNATION) -> Ballot:
    return Ballot.of(micros, 1, incarnation)


def write_id(number: int) -> WriteId:
    return WriteId(bytes(Timestamp.of(number, 9)))


def entry(number: int, micros: int, *, base: Entry | None = None, tombstone: bool = False) -> Entry:
    version = None if base is None else base.version
    return Entry(ballot(micros), write_id(number), 0, tombstone, base=version)


def register(*entries: Entry, since_us: int | None = 0) -> Register:
    """A register that accepted these one after another."""
    if not entries:
        return Register(None, (), since_us)
    replaced = [Replaced(old.version, old.base, live=not old.tombstone) for old in reversed(entries[:-1])]
    return Register(entries[-1], tuple(replaced), since_us)


def promise(*entries: Entry, since_us: int | None = 0, whole: bool = True, votes: bool = True) -> Promise:
    return Promise(register(*entries, since_us=since_us), whole, votes)


OLD = entry(1, 10)
MINE = entry(2, 20)
OTHER = entry(3, 30)
NOW = ballot(100)
FIRST = FirstOffer(MINE.version, 5)
PROMISES = Mapping[DeviceId, Promise]


def under(one: Entry, at: Ballot) -> Entry:
    return one._replace(ballot=at)


@pytest.mark.parametrize(
    ("promises", "step"),
    [
        pytest.param(
            {A: promise(OLD, MINE), B: promise(OLD, MINE)},
            Finished(MINE.ballot, replaced_live=True),
            id="a majority holds my write: done",
        ),
        pytest.param(
            {A: promise(OLD, MINE, OTHER), B: promise(MINE, OTHER)},
            Finished(MINE.ballot, replaced_live=True),
            id="a majority held my write before something newer: done",
        ),
        pytest.param(
            {A: promise(MINE, whole=False), B: promise(MINE)},
            Carry(under(MINE, NOW), Outcome.DONE),
            id="one of them lacks the body: not held, carried through",
        ),
        pytest.param(
            {A: promise(under(MINE, ballot(25))), B: promise(MINE)},
            Carry(under(MINE, NOW), Outcome.DONE),
            id="a majority held it, under different ballots: carried through",
        ),
        pytest.param(
            {A: promise(OLD), B: promise(MINE)},
            Carry(under(MINE, NOW), Outcome.DONE),
            id="the newest is mine: carried through",
        ),
        pytest.param(
            {A: promise(OLD), B: promise(OLD, entry(3, 30, base=MINE))},
            Carry(under(entry(3, 30, base=MINE), NOW), Outcome.DONE),
            id="the newest was judged on mine: carried through",
        ),
        pytest.param(
            {A: promise(OLD), B: promise(OLD)},
            Make(under(MINE, NOW), replaced_live=True),
            id="a majority never accepted it: offered again",
        ),
        pytest.param(
            {A: promise(), B: promise()},
            Make(under(MINE, NOW), replaced_live=False),
            id="nothing was ever written: offered again",
        ),
        pytest.param(
            {A: promise(OLD, OTHER), B: promise(OTHER, since_us=None)},
            Undecidable(),
            id="one owner's memory does not reach back: not decidable",
        ),
        pytest.param(
            {A: promise(OLD, MINE, OTHER), B: promise(OLD, OTHER)},
            Undecidable(),
            id="one owner accepted it and something newer replaced it: not decidable",
        ),
        pytest.param(
            {A: promise(OLD, entry(4, 40, base=OTHER)), B: promise(OLD, entry(4, 40, base=OTHER))},
            Undecidable(),
            id="the newest was judged on something that came after my first offer: not decidable",
        ),
    ],
)
def test_a_write_that_was_offered_before_is_judged_by_the_rules_in_order(
    promises: PROMISES, step: object
) -> None:
    change = unconditional(MINE)
    assert decide(OWNERS, 5, promises, FIRST, change, NOW) == step


def test_owners_that_do_not_vote_are_no_evidence() -> None:
    promises = {A: promise(OLD), B: promise(OLD), C: promise(OLD, MINE, OTHER, votes=False)}
    assert decide(OWNERS, 5, promises, FIRST, unconditional(MINE), NOW) == Make(
        under(MINE, NOW), replaced_live=True
    )
    assert decide(OWNERS, 5, promises, None, NO_CHANGE, NOW) == Carry(under(OLD, NOW), Outcome.REFUSED)


def test_while_a_partition_moves_a_write_is_held_only_by_both_sets() -> None:
    moving = Owners((A, B, C), (A, B, D))
    held = {A: promise(MINE), C: promise(MINE)}
    change = unconditional(MINE)
    assert isinstance(decide(moving, 5, held, FIRST, change, NOW), Carry)
    held[D] = promise(MINE, votes=False)
    assert decide(moving, 5, held, FIRST, change, NOW) == Finished(MINE.ballot, replaced_live=False)


def test_what_is_remembered_from_an_earlier_epoch_does_not_prove_that_a_write_is_done() -> None:
    """They may have accepted it while they were joining, when the old owners had a say too."""
    change = unconditional(MINE)
    remembered = {A: promise(OLD, MINE, OTHER), B: promise(OLD, MINE, OTHER)}
    assert isinstance(decide(OWNERS, 5, remembered, FIRST, change, NOW), Finished)
    assert decide(OWNERS, 6, remembered, FIRST, change, NOW) == Undecidable()


def test_that_a_write_was_never_done_follows_from_the_memory_of_the_next_epoch_and_of_no_later_one() -> None:
    change = unconditional(MINE)
    never = {A: promise(OLD, OTHER), B: promise(OLD, OTHER)}
    assert isinstance(decide(OWNERS, 6, never, FIRST, change, NOW), Make)
    assert decide(OWNERS, 7, never, FIRST, change, NOW) == Undecidable()


def test_a_write_that_is_the_newest_is_carried_through_in_any_epoch() -> None:
    promises = {A: promise(OLD), B: promise(MINE)}
    step = decide(OWNERS, 9, promises, FIRST, unconditional(MINE), NOW)
    assert step == Carry(under(MINE, NOW), Outcome.DONE)


IF_ABSENT = Change(lambda newest, at: None if is_present(newest, at.micros) else MINE)


@pytest.mark.parametrize(
    ("promises", "step"),
    [
        pytest.param({A: promise(), B: promise()}, Make(under(MINE, NOW), replaced_live=False), id="absent"),
        pytest.param(
            {A: promise(OLD), B: promise()},
            Carry(under(OLD, NOW), Outcome.REFUSED),
            id="there: carried, then refused",
        ),
        pytest.param(
            {A: promise(entry(1, 10, tombstone=True)), B: promise()},
            Make(under(entry(2, 20, base=entry(1, 10)), NOW), replaced_live=False),
            id="deleted: written, and judged on the tombstone",
        ),
    ],
)
def test_a_condition_is_judged_on_the_newest_entry(promises: PROMISES, step: object) -> None:
    assert decide(OWNERS, 5, promises, None, IF_ABSENT, NOW) == step


def test_settling_carries_the_newest_through_and_nothing_where_nothing_is() -> None:
    promises = {A: promise(OLD), B: promise(OLD, OTHER)}
    assert decide(OWNERS, 5, promises, None, NO_CHANGE, NOW) == Carry(under(OTHER, NOW), Outcome.REFUSED)
    assert decide(OWNERS, 5, {A: promise(), B: promise()}, None, NO_CHANGE, NOW) == Nothing()


def test_an_object_of_an_older_incarnation_is_absent_and_is_not_carried_into_the_new_container() -> None:
    at = ballot(100, Timestamp.of(50, 1))
    promises = {A: promise(OLD), B: promise(OLD)}
    assert decide(OWNERS, 5, promises, None, NO_CHANGE, at) == Nothing()
    assert decide(OWNERS, 5, promises, None, IF_ABSENT, at) == Make(
        MINE._replace(ballot=at, base=OLD.version), replaced_live=False
    )


def test_a_due_object_counts_as_absent() -> None:
    due = OLD._replace(delete_at=100)
    assert is_present(due, 99)
    assert not is_present(due, 100)


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "newest", "agreed"),
    [
        pytest.param({A: (OLD, True, True), B: (OLD, True, True)}, OLD, True, id="all of one version"),
        pytest.param({A: (None, True, True), B: (None, True, True)}, None, True, id="nothing at a majority"),
        pytest.param({A: (OLD, True, True), B: (OTHER, True, True)}, OTHER, False, id="two versions"),
        pytest.param({A: (OLD, True, True), B: (None, True, True)}, OLD, False, id="one lacks it"),
        pytest.param({A: (OLD, False, True), B: (OLD, True, True)}, OLD, False, id="one lacks the body"),
        pytest.param(
            {A: (OLD, True, True), B: (OTHER, True, False)}, OLD, False, id="a non-voter is not believed"
        ),
        pytest.param(
            {A: (OLD, True, True), B: (OTHER, True, True), C: (OTHER, True, True)},
            OTHER,
            True,
            id="the third agrees",
        ),
    ],
)
def test_a_read_believes_what_a_majority_holds(
    answers: dict[DeviceId, tuple[Entry | None, bool, bool]], newest: Entry | None, agreed: bool
) -> None:
    found = {owner: Found(*answer) for owner, answer in answers.items()}
    assert newest_found(found) == newest
    assert is_agreed(OWNERS, found, newest) is agreed
