"""The owners of a listing: a question to as many of them as it takes, and what their answers prove.

Owns whom to ask, in what order and for how long, and whose word counts; never knows what a question is about. While a partition
moves its old owners say what stands, and a majority of the new ones has to hold the same for that to outlast the move: owners
that stay count in both sets, so they are asked first.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from random import Random
from typing import Final, Generic, NamedTuple, TypeVar

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Placement
from proxy.cluster.quorum import Answer, Need, Verdict, judge, quorum
from proxy.cluster.rounds import Pace, Patience, Round, Stragglers
from proxy.cluster.witnesses import Witnesses
from proxy.store.errors import Unavailable
from ring.device import DeviceId
from swiftlike.digests import Digest
from swiftlike.node_client import NodeClient, NodeFailed

A = TypeVar("A")


class Said(NamedTuple, Generic[A]):
    """What an owner answered; None when it failed."""

    value: A | None
    votes: bool


class ListingOwners:
    """The owners of this cluster's listings."""

    def __init__(self, nodes: Nodes, stragglers: Stragglers, patience: Patience, random: Random) -> None:
        """Take how devices are called, who owns the calls, how long to wait, and what the order is drawn from."""
        self._nodes: Final = nodes
        self._stragglers: Final = stragglers
        self._patience: Final = patience
        self._random: Final = random
        self._pace: Final = Pace(patience.hedge_s)
        self._witnesses: Final = Witnesses(nodes, stragglers, patience)

    async def ask_majority(
        self,
        placement: Placement,
        question: Callable[[NodeClient], Awaitable[tuple[A, bool]]],
        deadline: float,
        among: Collection[DeviceId] | None = None,
    ) -> list[A]:
        """Return the answers of owners that vote and are a majority. Raises Unavailable."""

        def is_enough(said: Mapping[DeviceId, Said[A]]) -> bool:
            return has_quorum(placement, said)

        said = await self.ask(placement, deadline, question, question, is_enough, among=among)
        if not is_enough(said):
            raise Unavailable("too few owners of a listing answered")
        return votes(placement, said)

    async def ask(
        self,
        placement: Placement,
        deadline: float,
        first_question: Callable[[NodeClient], Awaitable[tuple[A, bool]]],
        question: Callable[[NodeClient], Awaitable[tuple[A, bool]]],
        enough: Callable[[Mapping[DeviceId, Said[A]]], bool],
        among: Collection[DeviceId] | None = None,
        first: DeviceId | None = None,
        *,
        jointly: bool = False,
    ) -> Mapping[DeviceId, Said[A]]:
        """Ask a majority, the rest when that is not enough or takes long; those are asked the first one's question too.

        `jointly`: of a partition that moves, the new owners are among the rest. Raises Unavailable when it moves, and nobody vouches
        that the move was not settled meanwhile.
        """
        owners = placement.owners
        order = [owner for owner in owners.voting if among is None or owner in among]
        self._random.shuffle(order)
        if owners.joining:
            order.sort(key=lambda owner: owner not in owners.joining)
        if first in order:
            order.remove(first)
            order.insert(0, first)
        needed = quorum(len(owners.voting))
        rest = order[needed:]
        if jointly:
            rest += [owner for owner in owners.joining if owner not in owners.voting]
        round_deadline = min(deadline, self._nodes.now() + self._patience.round_s)

        async def ask(owner: DeviceId, asked: Callable[[NodeClient], Awaitable[tuple[A, bool]]]) -> Said[A]:
            client = self._nodes.client(placement, placement.devices[owner], round_deadline)
            try:
                return Said(*await asked(client))
            except NodeFailed as failure:
                self._nodes.heed(placement, failure)
                return Said(None, votes=False)

        async with Round[Said[A]](self._stragglers, self._pace) as asked_round:
            for at, owner in enumerate(order[:needed]):
                asked_round.ask(owner, ask(owner, question if at else first_question))
            await asked_round.until(
                lambda said: enough(said) or any(not one.votes for one in said.values()),
                patience_s=self._pace.hedge_s,
            )
            if not enough(asked_round.answers):
                for owner in rest:
                    asked_round.ask(owner, ask(owner, first_question))
                is_quorum = has_joint_quorum if jointly else has_quorum
                await asked_round.until(lambda said: enough(said) or is_quorum(placement, said))
                await asked_round.until(enough, patience_s=self._patience.hedge_s)
            said = dict(asked_round.answers)
        if owners.joining:
            heard = [owner for owner, one in said.items() if one.value is not None]
            if not await self._witnesses.hear(placement, heard, deadline):
                raise Unavailable("too few new owners of a listing that moves answered")
        return said


def votes(placement: Placement, said: Mapping[DeviceId, Said[A]]) -> list[A]:
    """Return what those said whose word counts."""
    counted = (said[owner] for owner in placement.owners.voting if owner in said)
    return [one.value for one in counted if one.votes and one.value is not None]


def has_quorum(placement: Placement, said: Mapping[DeviceId, Said[A]]) -> bool:
    """Say whether enough of those have answered whose word counts."""
    answers = {owner: Answer.VOTE if one.votes else Answer.NO for owner, one in said.items()}
    return judge(placement.owners, Need.READ, answers) is Verdict.REACHED


def has_joint_quorum(placement: Placement, said: Mapping[DeviceId, Said[A]]) -> bool:
    """Say the same, and where the partition moves that so have enough of the new owners."""
    answers = {owner: _worth(one) for owner, one in said.items()}
    return judge(placement.owners, Need.WRITE, answers) is Verdict.REACHED


def is_held(
    placement: Placement, said: Mapping[DeviceId, Said[A]], digest_of: Callable[[A], Digest], digest: Digest
) -> bool:
    """Say whether a majority holds what has this digest, and where the partition moves one of the new owners, too."""
    same = {
        owner: _worth(one)
        for owner, one in said.items()
        if one.value is not None and digest_of(one.value) == digest
    }
    return judge(placement.owners, Need.WRITE, same) is Verdict.REACHED


def _worth(said: Said[A]) -> Answer:
    if said.value is None:
        return Answer.NO
    return Answer.VOTE if said.votes else Answer.WITNESS
