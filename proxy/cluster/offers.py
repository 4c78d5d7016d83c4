"""Offers: one entry offered to all owners of its key, and copies for those that are down.

A small body travels with the offer. A streamed one waits at the owners already, and the offer is made where it waits; an
owner that was dropped meanwhile is offered the entry alone, and given the body by one that holds it.

Owns the round in which an entry is accepted: which answers count, the body that an owner lacks, and the handoffs. Never
issues a ballot, never tries twice, never judges what a refusal means for the write.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from proxy.cluster.bodies import Bodies
from proxy.cluster.hints import Hints
from proxy.cluster.nodes import Nodes, is_full, is_without_effect, wants_handoff
from proxy.cluster.placement import Placement
from proxy.cluster.quorum import Answer, Need, Verdict, can_be_written_without, judge
from proxy.cluster.rounds import Patience, Round, Stragglers
from proxy.cluster.uploads import Lane, StreamedUpload
from ring.device import Device, DeviceId
from swiftlike.entries import Entry
from swiftlike.joined_offers import Offering
from swiftlike.node_calls import Acceptance
from swiftlike.node_client import NodeFailed
from swiftlike.registers import Replaced
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Offer

Content: TypeAlias = Body | StreamedUpload | None
"""The body of an offer: all of it; on its way already; or none, where it is there already or there is none."""


class Offered(NamedTuple):
    """What one owner made of an offer."""

    answer: Answer
    acceptance: Acceptance | None = None
    failure: NodeFailed | None = None
    """How the call failed; None where the owner answered."""

    @property
    def may_hold(self) -> bool:
        """Whether the entry may be there, counted or not."""
        if self.acceptance is not None:
            return self.acceptance.accepted
        return self.failure is None or not is_without_effect(self.failure)

    @property
    def lacks_body(self) -> bool:
        """Whether the owner took the entry, or would take it, and has not got its body."""
        acceptance = self.acceptance
        if acceptance is None:
            return False
        return acceptance.wants_body or (acceptance.accepted and not acceptance.whole)

    @property
    def wants_handoff(self) -> bool:
        """Whether the owner is down or full, so that another device should keep its copy meanwhile."""
        if self.acceptance is not None:
            return self.lacks_body
        return self.failure is not None and wants_handoff(self.failure)


class OfferEnd(NamedTuple):
    """What a round of offers came to."""

    is_done: bool
    replaced: Replaced | None
    above: Ballot
    is_full: bool
    """It could not be done because of owners that have no space left."""
    asked_count: int
    heard: Mapping[DeviceId, Offered]
    """What owners made of it; grows while those are heard that were slow to refuse."""

    @property
    def may_be_held(self) -> bool:
        """Whether some owner took the entry, or nobody knows; asked again later, it may be known that none did."""
        return len(self.heard) < self.asked_count or _is_perhaps_held(self.heard)


class Offers:
    """The rounds of offers of one process."""

    def __init__(
        self, nodes: Nodes, bodies: Bodies, stragglers: Stragglers, patience: Patience, hints: Hints
    ) -> None:
        self._hints: Final = hints
        self._nodes: Final = nodes
        self._bodies: Final = bodies
        self._stragglers: Final = stragglers
        self._patience: Final = patience

    async def offer(
        self,
        placement: Placement,
        entry: Entry,
        offer: Offer,
        deadline: float,
        body: Content = None,
        *,
        is_own: bool = False,
    ) -> OfferEnd:
        """Offer an entry to every owner. `is_own`: this write's, whose copies handoffs keep for owners that are down."""
        is_large = isinstance(body, StreamedUpload)
        patience_s = self._patience.commit_s if is_large else self._patience.round_s
        round_deadline = min(deadline, self._nodes.now() + patience_s)

        def verdict(offered: Mapping[DeviceId, Offered]) -> Verdict:
            answers = {owner: one.answer for owner, one in offered.items()}
            return judge(placement.owners, Need.WRITE, answers)

        held = asyncio.Event()
        is_done = False
        handoffs = placement.handoffs()  # lazy: costs nothing until one is needed
        hand_off = partial(self._hand_off, placement, entry, offer, round_deadline, body, handoffs)

        async def go_on(device: Device, one: Offered) -> Offered:
            if one.lacks_body:
                one = await self._bring(placement, device, entry, offer, one, round_deadline, body, held)
            if is_own and is_done:
                self._hint(placement, asked.answers, device, one)
                if one.wants_handoff:
                    await hand_off()
            return one

        async def offer_to(device: Device, lane: Lane) -> Offered:
            one = await self._commit(placement, lane, entry, offer, round_deadline)
            if one.answer is not Answer.NO:
                held.set()
            return await go_on(device, one)

        def read(device: Device, answer: Acceptance | NodeFailed) -> Offered | Coroutine[Any, Any, Offered]:
            one = self._offered(placement, answer)
            if one.answer is not Answer.NO:
                held.set()
                return one
            return go_on(device, one)

        key, offering = placement.key, None
        async with Round[Offered](self._stragglers) as asked:
            for owner in placement.owners.everyone:
                device = placement.devices[owner]
                lane = body.lane(device) if isinstance(body, StreamedUpload) else None
                if lane is not None:
                    asked.ask(owner, offer_to(device, lane))
                    continue
                if offering is None:
                    inline = None if isinstance(body, StreamedUpload) else body
                    offering = Offering(key.table, key.path, entry, inline, offer=offer, owing=key.owes)
                called = self._nodes.offer(placement, device, offering, round_deadline)
                asked.call(owner, called, partial(read, device))
            await asked.until(
                lambda offered: verdict(offered) is not Verdict.UNDECIDED,
                patience_s=max(0.0, deadline - self._nodes.now()),
            )
            if verdict(asked.answers) is Verdict.IMPOSSIBLE:
                # The rest cannot save the round, but may prove that it was without effect: soon, or while others are taken.
                await asked.until(_is_perhaps_held, patience_s=self._patience.hedge_s)
                if not _is_perhaps_held(asked.answers):
                    asked.leave()
            offered = dict(asked.answers)
            is_done = verdict(offered) is Verdict.REACHED
            if is_done:
                asked.leave()
                for owner, one in offered.items():
                    if not is_own:
                        continue
                    self._hint(placement, offered, placement.devices[owner], one)
                    if one.wants_handoff:
                        self._stragglers.leave(self._stragglers.spawn(hand_off()))
        full = [owner for owner, one in offered.items() if one.failure and is_full(one.failure)]
        return OfferEnd(
            is_done,
            _newest_replaced(offered.values()),
            max(
                (one.acceptance.above or ZERO_BALLOT for one in offered.values() if one.acceptance),
                default=ZERO_BALLOT,
            ),
            not can_be_written_without(placement.owners, full),
            len(placement.owners.everyone),
            asked.answers,
        )

    async def _commit(
        self, placement: Placement, lane: Lane, entry: Entry, offer: Offer, deadline: float
    ) -> Offered:
        """Offer an entry to the device that has its body already."""
        owing, epoch = placement.key.owes, placement.epoch
        try:
            acceptance = await lane.commit(entry, offer, owing=owing, epoch=epoch, deadline=deadline)
        except NodeFailed as failure:
            self._nodes.heed(placement, failure)
            return Offered(Answer.NO, failure=failure)
        return _judged(acceptance)

    def _offered(self, placement: Placement, answer: Acceptance | NodeFailed) -> Offered:
        """Return what a device made of an offer."""
        if isinstance(answer, Acceptance):
            return _judged(answer)
        self._nodes.heed(placement, answer)
        return Offered(Answer.NO, failure=answer)

    async def _bring(
        self,
        placement: Placement,
        device: Device,
        entry: Entry,
        offer: Offer,
        lacking: Offered,
        deadline: float,
        body: Content,
        held: asyncio.Event,
    ) -> Offered:
        """Bring the body to an owner that lacks only that; a streamed one once another owner holds it.

        To one that took the entry without it, by itself; to one that keeps what it has until then, with the entry.
        """
        acceptance = lacking.acceptance
        assert acceptance is not None, "who was not heard lacks nothing"
        if isinstance(body, StreamedUpload):
            deadline = self._nodes.now() + self._patience.copy_s
            try:
                async with asyncio.timeout_at(deadline):
                    await held.wait()
            except TimeoutError:
                return lacking
        if not acceptance.wants_body:
            whole = await self._bodies.fill(placement, device, entry, deadline)
            return _judged(acceptance._replace(whole=whole))
        owing = placement.key.owes
        taken = await self._bodies.bring(placement, device, entry, offer, deadline, owing=owing)
        return lacking if taken is None else _judged(taken)

    def _hint(
        self, placement: Placement, offered: Mapping[DeviceId, Offered], lacking: Device, one: Offered
    ) -> None:
        """Tell an owner that holds a write which is done of one that does not."""
        if one.answer is not Answer.NO:
            return
        holder = next((owner for owner, other in offered.items() if other.answer is not Answer.NO), None)
        if holder is not None:
            self._hints.leave(placement, placement.devices[holder], lacking)

    # --- handoffs -----------------------------------------------------------------------------------------------

    async def _hand_off(
        self,
        placement: Placement,
        entry: Entry,
        offer: Offer,
        deadline: float,
        body: Content,
        handoffs: Iterator[Device],
    ) -> None:
        """Give a copy to the next handoff, for an owner that is down or full.

        Only for a write that is done already: it never counts, so for one that is not it would be a copy that may
        yet come back. It owes nothing.
        """
        for _ in range(self._patience.handoff_tries_max):
            device = next(handoffs, None)
            if device is None:
                return
            if isinstance(body, StreamedUpload):
                copy_deadline = self._nodes.now() + self._patience.copy_s
                taken = await self._bodies.bring(placement, device, entry, Offer.COPY, copy_deadline)
                if taken is not None and taken.counts:
                    return
                continue
            offering = Offering(placement.key.table, placement.key.path, entry, body, offer=offer)
            stood_in = self._offered(
                placement, await self._nodes.offer(placement, device, offering, deadline)
            )
            if stood_in.acceptance is not None and stood_in.acceptance.counts:
                return


def _judged(acceptance: Acceptance) -> Offered:
    if not acceptance.counts:
        return Offered(Answer.NO, acceptance)
    return Offered(Answer.VOTE if acceptance.votes else Answer.WITNESS, acceptance)


def _is_perhaps_held(offered: Mapping[DeviceId, Offered]) -> bool:
    return any(one.may_hold for one in offered.values())


def _newest_replaced(offered: Iterable[Offered]) -> Replaced | None:
    """Return what an accepted entry replaced: the newest that any owner of its majority knows of."""
    replaced = [
        one.acceptance.replaced
        for one in offered
        if one.answer is Answer.VOTE and one.acceptance is not None and one.acceptance.replaced is not None
    ]
    return max(replaced, key=lambda old: old.version.ballot, default=None)
