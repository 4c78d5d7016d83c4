"""Eight shortcuts, each taken in the code that runs for as long as a context lasts.

Six are the register model's, two matter while a partition moves. Each looks right, and the simulation must catch it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any
from unittest.mock import patch

from proxy.cluster import decisions, placement, quorum, register
from proxy.cluster.decisions import FirstOffer
from proxy.cluster.quorum import Answer, Need, Owners, Verdict, distinct, judge
from ring.device import DeviceId
from storage_node import acceptor
from storage_node.acceptor import Promised, Refused
from swiftlike.entries import Entry
from swiftlike.node_calls import Found, Promise
from swiftlike.timestamps import Ballot, WriteId


class Shortcut(Enum):
    """A rule left out."""

    REOFFER = "offer again without proof that the first offer was never accepted"
    NO_WRITE_BACK = "read without writing back"
    NO_PROMISE = "acceptors forget promises"
    MINORITY = "one less than a majority suffices"
    NO_BASE = "a conditional write does not say on what it was judged"
    ONE_SET = "while a partition moves, the majority of the old owners suffices for a write"
    ACROSS_EPOCHS = "count what owners remember from an earlier epoch by the majorities of this one"
    ACROSS_BALLOTS = "count a write accepted under different ballots as one majority"


@contextmanager
def taken(shortcut: Shortcut | None) -> Iterator[None]:
    """Leave a rule out."""
    match shortcut:
        case None:
            yield
        case Shortcut.REOFFER:
            with patch.object(decisions, "is_never_accepted", lambda *_: True):
                yield
        case Shortcut.NO_WRITE_BACK:
            with patch.object(decisions, "is_agreed", _have_answered):
                yield
        case Shortcut.NO_PROMISE:
            with patch.object(acceptor, "prepare", _forgetting(acceptor.prepare)):
                yield
        case Shortcut.MINORITY:
            with (
                patch.object(quorum, "quorum", lambda replicas: replicas // 2),
                patch.object(register, "quorum", lambda replicas: replicas // 2),
            ):
                yield
        case Shortcut.NO_BASE:
            with patch.object(decisions, "base_of", lambda newest: None):
                yield
        case Shortcut.ONE_SET:
            with patch.object(
                placement, "owners_of", lambda primaries, previous: Owners(distinct(previous or primaries))
            ):
                yield
        case Shortcut.ACROSS_EPOCHS:
            with patch.object(decisions, "decide", _timeless(decisions.decide)):
                yield
        case Shortcut.ACROSS_BALLOTS:
            with patch.object(decisions, "find_held", _find_held_under_any):
                yield


def _have_answered(owners: Owners, answers: Mapping[DeviceId, Found], newest: Entry | None) -> bool:
    votes = {owner: Answer.VOTE if found.votes else Answer.NO for owner, found in answers.items()}
    return judge(owners, Need.READ, votes) is Verdict.REACHED


def _forgetting(prepare: Any) -> Any:
    def forget(*args: Any, **options: Any) -> Promised | Refused:
        answer: Promised | Refused = prepare(*args, **options)
        if isinstance(answer, Refused):
            return answer
        return answer._replace(register=answer.before)

    return forget


def _timeless(decide: Any) -> Any:
    def decide_as_in_one_epoch(
        owners: Owners, epoch: int, promises: Any, first: FirstOffer | None, *rest: Any
    ) -> Any:
        return decide(owners, first.epoch if first else epoch, promises, first, *rest)

    return decide_as_in_one_epoch


def _find_held_under_any(
    owners: Owners, promises: Mapping[DeviceId, Promise], write_id: WriteId
) -> Ballot | None:
    held = {owner: decisions.held_ballots(promise, write_id) for owner, promise in promises.items()}
    answers = {owner: Answer.VOTE if ballots else Answer.NO for owner, ballots in held.items()}
    if judge(owners, Need.WRITE, answers) is not Verdict.REACHED:
        return None
    return max(set[Ballot]().union(*held.values()))
