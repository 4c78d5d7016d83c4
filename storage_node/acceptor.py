"""The acceptor: what one owner of a key answers to an offer or a prepare.

Pure: values in, values out. Never touches an index, a body or a clock. The rules are those of the register protocol
in docs/architecture.md, to the letter; the model test drives these very functions through random schedules.
"""

from typing import NamedTuple

from swiftlike.entries import Entry, Version
from swiftlike.limits import REMEMBERED_MAX
from swiftlike.node_calls import RowRefused, Standing
from swiftlike.registers import Register, Replaced
from swiftlike.timestamps import NO_INCARNATION, Ballot, Timestamp


class Accepted(NamedTuple):
    """The offer is held now, and was not before."""

    register: Register


class Known(NamedTuple):
    """The offer was held or remembered already; nothing is to be written."""

    before: Replaced | None
    """What it replaced then, as far as that is remembered."""
    whole: bool | None
    """For one that was replaced since: whether its body was there. None: it is what the register holds now."""


class Promised(NamedTuple):
    """Offers below the prepared ballot will be refused. `before` is what the owner held and remembered."""

    register: Register
    before: Register


class Refused(NamedTuple):
    """Something newer stands there; a ballot must be above this one to pass."""

    above: Ballot


class WantsBody(NamedTuple):
    """It would be accepted if its body came along: one that is here is not let go of for one that may never come."""


def accept(
    held: Register | None,
    entry: Entry,
    standing: Standing,
    *,
    oldest_us: int = 0,
    from_voter: bool = False,
    whole: bool = True,
    brings_body: bool = True,
) -> Accepted | Known | Refused | WantsBody:
    """Decide on an offered entry.

    `oldest_us` is now less the reclaim age: what is older, an owner that does not vote takes only as a copy
    `from_voter`. `whole` says whether the body of the entry held so far is there, `brings_body` whether that of the offered
    one comes along, or it needs none.
    """
    # A register that holds but a promise holds no entry, so the floor stands for it too.
    absent = held is None or held.entry is None
    if absent and (refused := _below_floor(entry.ballot, standing, oldest_us, from_voter=from_voter)):
        return refused
    if held is None:
        return Accepted(Register(entry, (), unwritten(standing).since_us))
    if known := _recall(held, entry.version):
        return known
    if entry.ballot <= held.ballot or entry.ballot < held.promised:
        return Refused(held.outstanding)
    if held.entry is None:
        return Accepted(Register(entry, (), held.since_us))
    if (
        not brings_body
        and held.entry.body_id != entry.body_id
        and not may_take_without_body(held.entry, whole=whole, catching_up=from_voter)
    ):
        return WantsBody()
    if from_voter and not standing.votes:
        # Between what it held and this it may have accepted others and lost them: of a key that it takes, its memory
        # starts here.
        return Accepted(Register(entry, (), None))
    replaced, since_us = (_as_replaced(held.entry, entry, whole=whole), *held.replaced), held.since_us
    if len(replaced) > REMEMBERED_MAX:
        replaced, since_us = replaced[:REMEMBERED_MAX], None
    return Accepted(_kept_for_long_enough(Register(entry, replaced, since_us), standing))


def prepare(
    held: Register | None, ballot: Ballot, standing: Standing, *, oldest_us: int = 0, closing: bool = False
) -> Promised | Refused:
    """Decide on a prepare.

    A closing promise outlives it: whoever prepared may die before anything is offered, and a row that was let in between
    would be lost with the container once somebody carries the tombstone of one owner through. An accept lifts it.
    """
    if held is None or held.entry is None:
        if refused := _below_floor(ballot, standing, oldest_us):
            return refused
        held = held or unwritten(standing)
    if ballot <= held.promised or ballot <= held.ballot:
        return Refused(held.outstanding)
    return Promised(held._replace(promised=ballot, closing=closing or held.closing), held)


def may_take_without_body(held: Entry | None, *, whole: bool, catching_up: bool) -> bool:
    """Say whether an entry whose body nobody brings may replace what is held here.

    Never where a body would be let go of for it: the new one may be lost for ever, and unchosen. Who catches up takes
    every entry, since it is asked for order, and has nobody's only body.
    """
    return catching_up or held is None or held.size == 0 or not held.has_body or not whole


def unwritten(standing: Standing) -> Register:
    """Return what stands for an absent key: nothing was accepted since the floor, if the owner votes; else who knows."""
    return Register(None, (), standing.floor_us if standing.votes else None)


def refuse_row(container: Register | None, ballot: Ballot, standing: Standing) -> RowRefused | None:
    """Say why a container refuses a row; None when it takes it.

    An owner that has not heard of the container takes the row: it may have missed the creation.
    """
    incarnation = ballot.incarnation
    if container is None:
        forgotten = standing.votes and incarnation.micros < standing.floor_us
        return RowRefused(closing=False, incarnation=NO_INCARNATION) if forgotten else None
    known = NO_INCARNATION if container.entry is None else container.entry.incarnation
    if container.closing or (container.entry is not None and not takes_rows(container.entry, incarnation)):
        return RowRefused(container.closing, known)
    return None


def takes_rows(container: Entry, incarnation: Timestamp) -> bool:
    """Say whether a container's entry leaves room for rows of this incarnation: it is not of a newer one, nor its tombstone."""
    if container.tombstone:
        return incarnation > container.incarnation
    return incarnation >= container.incarnation


def is_below_floor(ballot: Ballot, standing: Standing) -> bool:
    """Say whether an owner that votes takes this ballot only for what it holds."""
    return standing.votes and ballot.micros < max(standing.floor_us, standing.refusing_us)


def _recall(held: Register, version: Version) -> Known | None:
    """Find a write that was accepted under this very ballot, as far back as memory reaches."""
    if held.entry is not None and held.entry.version == version:
        return Known(held.replaced[0] if held.replaced else None, None)
    for at, old in enumerate(held.replaced):
        if old.version == version:
            return Known(held.replaced[at + 1] if at + 1 < len(held.replaced) else None, old.whole)
    return None


def _as_replaced(old: Entry, new: Entry, *, whole: bool) -> Replaced:
    """Keep of an entry what is remembered; whether it was due is judged by the time of what replaces it."""
    due = 0 < old.delete_at <= new.ballot.micros
    return Replaced(old.version, old.base, not old.tombstone and not due, whole)


def _kept_for_long_enough(register: Register, standing: Standing) -> Register:
    """Have a tombstone that came late outlive the floor that is being settled, or is in force.

    When the owners were found equal, this one was not among what they held: forgotten under that floor by those whom it has
    reached, it would leave what it deleted at the others. Under a promise at the floor it goes with a later one, before
    which all hold it; and whoever settles the key meanwhile brings it to them.
    """
    entry = register.entry
    lowest_us = max(standing.floor_us, standing.refusing_us)
    if entry is None or not entry.tombstone or not standing.votes or entry.ballot.micros >= lowest_us:
        return register
    return register._replace(promised=Ballot.of(lowest_us, 0, entry.ballot.incarnation))


def _below_floor(
    ballot: Ballot, standing: Standing, oldest_us: int, *, from_voter: bool = False
) -> Refused | None:
    """Refuse what may be a late copy of something forgotten: a ballot below the floor, for a key that is not held."""
    lowest_us = max(standing.floor_us, standing.refusing_us)
    if not standing.votes:
        if from_voter:
            return None
        lowest_us = max(lowest_us, oldest_us)
    return Refused(Ballot.of(lowest_us, 0, ballot.incarnation)) if ballot.micros < lowest_us else None
