"""Closing: a write that is made only once its owners have stopped taking rows, and have none.

Owns the order: a closing prepare, which from then on refuses rows at those that promise; the question whether their
listing is empty; then the offer, or a settle, which lets rows in again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from random import Random
from typing import Final, assert_never

from proxy.cluster import decisions
from proxy.cluster.decisions import (
    Carry,
    Change,
    Finished,
    FirstOffer,
    Judge,
    Make,
    Nothing,
    Outcome,
    Undecidable,
)
from proxy.cluster.offers import Offers
from proxy.cluster.placement import Key, Placement
from proxy.cluster.quorum import Answer, Need, Verdict, judge
from proxy.cluster.register import Registers, Written
from proxy.cluster.rounds import Round, Stragglers
from ring.device import Device, DeviceId
from swiftlike.node_calls import Promise
from swiftlike.node_client import NodeFailed
from swiftlike.timestamps import ZERO_BALLOT, Ballot, ClockAhead, Offer

IsEmpty = Callable[[Collection[DeviceId]], Awaitable[bool]]


class Closing:
    """Makes such writes."""

    def __init__(self, registers: Registers, stragglers: Stragglers, random: Random) -> None:
        """Take the registers, who owns the calls, and what jitter is drawn from."""
        self._registers: Final = registers
        self._nodes: Final = registers.nodes
        self._patience: Final = registers.patience
        self._stragglers: Final = stragglers
        self._random: Final = random
        self._offers: Final = Offers(registers.nodes, registers.bodies, stragglers, registers.patience)

    async def write_if(self, key: Key, condition: Judge, is_empty: IsEmpty, *, deadline: float) -> Written:
        """Write on a condition, once `is_empty` has said so of those that promised; REFUSED when either does not hold.

        However this ends, rows are let in again unless the write was made. `is_empty` may raise; that lets them in too.
        """
        change, first, above = Change(condition), None, ZERO_BALLOT
        for attempt in range(self._patience.write_attempts_max):
            if attempt:
                await asyncio.sleep(self._random.random() * self._patience.back_off_s * 2**attempt)
            if self._nodes.now() >= deadline:
                break
            clock = self._registers.clock
            try:
                stamp = clock.issue() if above == ZERO_BALLOT else clock.issue_above(above)
            except ClockAhead:
                break
            ballot, placement = Ballot(key.incarnation + stamp), self._nodes.place(key)
            promises, verdict = await self._prepare(placement, ballot, deadline)
            above = max([above, *(promise.above or ZERO_BALLOT for promise in promises.values())])
            if verdict is not Verdict.REACHED:
                continue
            step = decisions.decide(placement.owners, placement.epoch, promises, first, change, ballot)
            match step:
                case Make(entry, live):
                    if not await self._is_empty(key, promises, is_empty, deadline):
                        return await self._release(key, first, deadline)
                    end = await self._offers.offer(placement, entry, Offer.PASSING, deadline, is_own=True)
                    if first is None and end.may_be_held:
                        first = FirstOffer(entry.version, placement.epoch)
                    above = max(above, end.above)
                    if end.is_done:
                        return Written(Outcome.DONE, entry, live, above)
                case Finished(held_ballot, live):
                    settled = await self._release(key, first, deadline)
                    return Written(Outcome.DONE, settled.entry, live, held_ballot)
                case Carry(entry, outcome, live):
                    end = await self._offers.offer(placement, entry, Offer.PASSING, deadline)
                    above = max(above, end.above)
                    if end.is_done:
                        return Written(outcome, entry, live, above)
                case Nothing():
                    return await self._release(key, first, deadline)
                case Undecidable():
                    continue
                case _:
                    assert_never(step)
        await self._registers.settle(key, deadline=max(deadline, self._nodes.now() + self._patience.round_s))
        return Written(Outcome.UNKNOWN if first else Outcome.CONFLICT, above=above)

    async def _is_empty(
        self, key: Key, promises: Mapping[DeviceId, Promise], is_empty: IsEmpty, deadline: float
    ) -> bool:
        promised = [owner for owner, one in promises.items() if one.register is not None and one.votes]
        try:
            return await is_empty(promised)
        except BaseException:
            await self._registers.settle(key, deadline=deadline)
            raise

    async def _release(self, key: Key, first: FirstOffer | None, deadline: float) -> Written:
        """Lift the promise by one above it that is not closing, and carry what stands through."""
        settled = await self._registers.settle(key, deadline=deadline)
        return settled if settled.outcome is Outcome.REFUSED else Written(Outcome.REFUSED)

    async def _prepare(
        self, placement: Placement, ballot: Ballot, deadline: float
    ) -> tuple[dict[DeviceId, Promise], Verdict]:
        round_deadline = min(deadline, self._nodes.now() + self._patience.round_s)

        async def prepare(device: Device) -> Promise:
            client = self._nodes.client(placement, device, round_deadline)
            try:
                return await client.prepare(placement.key.table, placement.key.path, ballot, closing=True)
            except NodeFailed as failure:
                self._nodes.heed(placement, failure)
                return Promise(None, whole=False, votes=False)

        def verdict(promises: Mapping[DeviceId, Promise]) -> Verdict:
            answers = {owner: _worth(promise) for owner, promise in promises.items()}
            return judge(placement.owners, Need.WRITE, answers)

        async with Round[Promise](self._stragglers) as asked:
            for owner in placement.owners.everyone:
                asked.ask(owner, prepare(placement.devices[owner]))
            await asked.until(lambda promises: verdict(promises) is not Verdict.UNDECIDED)
            promises = dict(asked.answers)
        for promise in promises.values():
            if promise.register is not None and promise.register.entry is not None:
                self._registers.clock.follow(promise.register.entry.ballot.micros)
        return promises, verdict(promises)


def _worth(promise: Promise) -> Answer:
    if promise.register is None:
        return Answer.NO
    return Answer.VOTE if promise.votes else Answer.WITNESS
