"""Who must answer before an outcome may be promised, and whether enough have.

Owns the arithmetic of majorities, also of the joint ones while a partition is moving. Pure: it never asks anybody, and
sees devices only as ids. Answers of one epoch only may be judged together: whoever asks gives each device the epoch, and
a device under another one refuses.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ring.device import DeviceId


class Answer(Enum):
    """What one owner's answer is worth. An owner that has not answered yet has none."""

    VOTE = "yes, from an owner that votes"
    WITNESS = "yes, from an owner that has still to catch up"
    NO = "refused, failed or unknown: never part of a majority"


class Need(Enum):
    """What is asked for."""

    READ = "what stands at a key"
    WRITE = "a prepare or an accept"


class Verdict(Enum):
    """What the answers so far amount to."""

    REACHED = "enough have answered"
    UNDECIDED = "the owners still to answer can make it enough"
    IMPOSSIBLE = "they no longer can"


@dataclass(frozen=True, slots=True)
class Owners:
    """The owners of one partition under one epoch, each named once."""

    voting: tuple[DeviceId, ...]
    """Whose majority counts, and only their votes: the owners, or the previous ones while the partition is moving."""
    joining: tuple[DeviceId, ...] = ()
    """While it is moving: the new owners, of which a majority must take every write, whether it votes or not."""

    @property
    def everyone(self) -> tuple[DeviceId, ...]:
        """All of them; one that stays is in both sets, is asked once, and serves for both."""
        return distinct((*self.voting, *self.joining)) if self.joining else self.voting


# Tuples and names of our own: every answer of every round is judged, and a member of an Enum is slow to look up and to hash.
_VOTES: Final = (Answer.VOTE,)
_TAKEN: Final = (Answer.VOTE, Answer.WITNESS)
_REACHED: Final = Verdict.REACHED
_UNDECIDED: Final = Verdict.UNDECIDED


def quorum(replicas: int) -> int:
    """Return the least number of `replicas` that is a majority."""
    return replicas // 2 + 1


def owners_of(primaries: Collection[DeviceId], previous: Collection[DeviceId]) -> Owners:
    """Return who must answer: `previous` are the owners before a move that is not over, else nobody.

    A device that a small ring names for several replicas is one device, and has one voice.
    """
    if not previous:
        return Owners(distinct(primaries))
    return Owners(distinct(previous), distinct(primaries))


def judge(owners: Owners, need: Need, answers: Mapping[DeviceId, Answer]) -> Verdict:
    """Say whether the answers so far are enough; what a handoff says is not among the owners' and never counts."""
    verdict = _judge_set(owners.voting, _VOTES, answers)
    if need is Need.WRITE and owners.joining:
        joining = judge_joining(owners, answers)
        # The worse of the two.
        if verdict is _REACHED or joining is Verdict.IMPOSSIBLE:
            return joining
    return verdict


def is_majority(owners: Owners, votes: int) -> bool:
    """Say whether so many votes of owners whose majority counts are enough for a read."""
    return votes >= quorum(len(owners.voting))


def judge_joining(owners: Owners, answers: Mapping[DeviceId, Answer]) -> Verdict:
    """Say whether the answers so far are a majority of the new owners of a partition that moves, whatever these hold."""
    return _judge_set(owners.joining, _TAKEN, answers) if owners.joining else _REACHED


def can_be_written_without(owners: Owners, missing: Collection[DeviceId]) -> bool:
    """Say whether a write can still be done when these owners do not take it."""
    answers = {owner: Answer.NO if owner in missing else Answer.VOTE for owner in owners.everyone}
    return judge(owners, Need.WRITE, answers) is Verdict.REACHED


def _judge_set(
    owners: Collection[DeviceId], wanted: Collection[Answer], answers: Mapping[DeviceId, Answer]
) -> Verdict:
    counted = pending = 0
    for owner in owners:
        answer = answers.get(owner)
        if answer is None:
            pending += 1
        elif answer in wanted:
            counted += 1
    needed = quorum(len(owners))
    if counted >= needed:
        return _REACHED
    return _UNDECIDED if counted + pending >= needed else Verdict.IMPOSSIBLE


def distinct(owners: Collection[DeviceId]) -> tuple[DeviceId, ...]:
    """Return each owner once, in order."""
    return tuple(dict.fromkeys(owners))
