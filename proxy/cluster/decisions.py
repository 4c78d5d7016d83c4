"""The register protocol's decisions: what the answers of a round mean, and what a coordinator does next.

Pure: values in, the next step out. Never asks anybody, never issues a ballot, never reads a clock. The rules, and their
order, are those of the register protocol in docs/architecture.md, to the letter; the simulation runs these very functions,
and shows that leaving one out is caught.

Only owners that vote are evidence. One that has still to catch up may hold an entry that everybody else has agreed to
forget; to carry that through would bring a deleted object back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from proxy.cluster.quorum import Answer, Need, Owners, Verdict, is_majority, judge
from ring.device import DeviceId
from swiftlike.entries import Entry, Version
from swiftlike.node_calls import Found, Promise
from swiftlike.registers import Register, Replaced, never_accepted
from swiftlike.timestamps import Ballot, Timestamp, WriteId

Judge: TypeAlias = Callable[[Entry | None, Ballot], Entry | None]
"""A condition with its write. Given the newest entry (None: nothing of this incarnation) and the ballot that an offer would
get: the entry to write, whose ballot and base are filled in, or None to refuse. Pure, and asked again on each attempt."""


class Outcome(Enum):
    """How a write ended."""

    DONE = "done"
    REFUSED = "its condition does not hold; without effect"
    CONFLICT = "others stood in the way, or too few owners answered; provably without effect"
    UNKNOWN = "it may have been done, or may be done yet; never round this to failed"


@dataclass(frozen=True, slots=True)
class FirstOffer:
    """The lowest ballot under which a write was ever offered, and the epoch in which that was."""

    version: Version
    epoch: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The write was done before: a majority held it under one ballot."""

    ballot: Ballot
    replaced_live: bool


@dataclass(frozen=True, slots=True)
class Carry:
    """Offer what stands already under the new ballot; then the write has ended."""

    entry: Entry
    outcome: Outcome
    replaced_live: bool = False


@dataclass(frozen=True, slots=True)
class Make:
    """Offer the write itself."""

    entry: Entry
    replaced_live: bool


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing stands at the key, so there is nothing to carry through: the write is refused."""


@dataclass(frozen=True, slots=True)
class Undecidable:
    """These owners cannot tell whether the write was done: ask again."""


Step: TypeAlias = Finished | Carry | Make | Nothing | Undecidable


# --- what is offered --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """What a write wants to become of a key."""

    judge: Judge
    is_conditional: bool = True
    """Whether the entry names the one that it was judged on."""


def unconditional(entry: Entry) -> Change:
    """Write this, whatever stands there."""
    return Change(lambda newest, ballot: entry, is_conditional=False)


NO_CHANGE: Final = Change(lambda newest, ballot: None)
"""Write nothing: what settles a key."""


def base_of(newest: Entry | None) -> Version | None:
    """Return what a conditional write names as the entry that it was judged on."""
    return None if newest is None else newest.version


# --- the two rounds ---------------------------------------------------------------------------------------------


def decide(
    owners: Owners,
    epoch: int,
    promises: Mapping[DeviceId, Promise],
    first: FirstOffer | None,
    change: Change,
    ballot: Ballot,
) -> Step:
    """Say what follows a prepare that a majority promised.

    `first` is None for a write that nobody can hold, since it was never offered. `ballot` is the prepared one, and leads
    with the incarnation that the write belongs to.

    What owners remember counts by the majorities of the epoch in which it was accepted, and is judged by those of this
    one. A majority of today's owners that once accepted a write while they were joining chose nothing, since the old
    owners had a say; so only a write of this very epoch is known to be done from memory alone. That it was never done
    follows from the memory of the next epoch too, whose majorities meet those of this one, but of no later one.
    """
    evidence = {owner: promise for owner, promise in promises.items() if promise.votes}
    newest = max(
        (
            promise.register.entry
            for promise in evidence.values()
            if promise.register and promise.register.entry
        ),
        key=lambda entry: entry.ballot,
        default=None,
    )
    if first is not None:
        write_id = first.version.write_id
        held_ballot = find_held(owners, promises, write_id) if first.epoch == epoch else None
        if held_ballot is not None:
            return Finished(held_ballot, _replaced_live(evidence, write_id, ballot.incarnation))
        if newest is not None and write_id in (newest.write_id, newest.base and newest.base.write_id):
            live = _replaced_live(evidence, write_id, ballot.incarnation)
            return Carry(newest._replace(ballot=ballot), Outcome.DONE, live)
        if epoch > first.epoch + 1 or not is_never_accepted(owners, evidence, first.version):
            return Undecidable()
    # The object of a container that is gone is absent, and must not be carried into the container of today.
    is_gone = newest is not None and newest.ballot.incarnation < ballot.incarnation
    seen = None if is_gone else newest
    entry = change.judge(seen, ballot)
    if entry is not None:
        base = base_of(newest) if change.is_conditional else None
        return Make(entry._replace(ballot=ballot, base=base), is_present(seen, ballot.micros))
    return Nothing() if seen is None else Carry(seen._replace(ballot=ballot), Outcome.REFUSED)


def find_held(owners: Owners, promises: Mapping[DeviceId, Promise], write_id: WriteId) -> Ballot | None:
    """Return the ballot, one and the same, under which a majority holds or remembers a write with its body."""
    ballots = {owner: held_ballots(promise, write_id) for owner, promise in promises.items()}
    for ballot in sorted(set[Ballot]().union(*ballots.values()), reverse=True):
        answers = {
            owner: _worth(promises[owner].votes, yes=ballot in held) for owner, held in ballots.items()
        }
        if judge(owners, Need.WRITE, answers) is Verdict.REACHED:
            return ballot
    return None


def held_ballots(promise: Promise, write_id: WriteId) -> set[Ballot]:
    """Return the ballots under which an owner holds or remembers a write with its body."""
    return {
        old.version.ballot
        for old in _memory(promise.register, whole=promise.whole)
        if old.version.write_id == write_id and old.whole
    }


def is_never_accepted(owners: Owners, evidence: Mapping[DeviceId, Promise], first: Version) -> bool:
    """Say whether a majority has definitely never accepted a write."""
    answers = {
        owner: _worth(
            promise.votes, yes=promise.register is not None and never_accepted(promise.register, first)
        )
        for owner, promise in evidence.items()
    }
    return judge(owners, Need.READ, answers) is Verdict.REACHED


# --- reading ----------------------------------------------------------------------------------------------------


def newest_found(answers: Mapping[DeviceId, Found]) -> Entry | None:
    """Return the newest entry among the answers of owners that vote."""
    newest: Entry | None = None
    for entry, _, votes, _ in answers.values():
        if votes and entry is not None and (newest is None or entry.ballot > newest.ballot):
            newest = entry
    return newest


def is_agreed(owners: Owners, answers: Mapping[DeviceId, Found], newest: Entry | None) -> bool:
    """Say whether a majority holds the newest entry, with its body: then no later read can see an older one."""
    # Counted, not judged as answers that may still come: every read asks this, and only of what is there.
    agreeing = 0
    for owner in owners.voting:
        found = answers.get(owner)
        if found is not None and found.votes and found.whole and _is_same(found.entry, newest):
            agreeing += 1
    return is_majority(owners, agreeing)


def _is_same(one: Entry | None, other: Entry | None) -> bool:
    """Say whether two entries are of one version."""
    if one is other:
        return True
    return one is not None and other is not None and one.version == other.version


def is_present(entry: Entry | None, now_us: int) -> bool:
    """Say whether an entry is there for clients: no tombstone, and not due for deletion."""
    return entry is not None and not entry.tombstone and not 0 < entry.delete_at <= now_us


def was_live(replaced: Replaced | None, incarnation: Timestamp) -> bool:
    """Say whether what a write replaced was there for clients of this incarnation."""
    return replaced is not None and replaced.live and replaced.version.ballot.incarnation >= incarnation


# --- helpers ----------------------------------------------------------------------------------------------------


def _worth(votes: bool, *, yes: bool) -> Answer:
    if not yes:
        return Answer.NO
    return Answer.VOTE if votes else Answer.WITNESS


def _memory(register: Register | None, *, whole: bool = True) -> list[Replaced]:
    """Return what an owner holds and remembers, newest first."""
    if register is None:
        return []
    if register.entry is None:
        return list(register.replaced)
    return [Replaced(register.entry.version, register.entry.base, whole=whole), *register.replaced]


def _replaced_live(evidence: Mapping[DeviceId, Promise], write_id: WriteId, incarnation: Timestamp) -> bool:
    """Say whether a write that was done earlier replaced something live, as far as anybody remembers."""
    replaced: list[Replaced] = []
    for promise in evidence.values():
        memory = _memory(promise.register)
        places = [at for at, old in enumerate(memory) if old.version.write_id == write_id]
        if places and places[-1] + 1 < len(memory):
            replaced.append(memory[places[-1] + 1])
    newest = max(replaced, key=lambda old: old.version.ballot, default=None)
    return was_live(newest, incarnation)
