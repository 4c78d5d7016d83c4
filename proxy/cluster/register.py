"""Registers: the coordinator of one key's writes and reads, over the owners that its ring names.

Owns the order of the rounds and every wait between them. What answers mean is `decisions`', who must answer `quorum`'s.
Time, randomness and the clock that issues ballots are handed in. Never keeps anything between two calls but that clock,
so any proxy may coordinate any key at any time, and may die while it does.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from random import Random
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias, assert_never

from proxy.cluster import decisions
from proxy.cluster.bodies import Bodies
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
from proxy.cluster.hints import Hints
from proxy.cluster.looks import Look, Waits
from proxy.cluster.nodes import Nodes
from proxy.cluster.offers import Content, OfferEnd, Offers
from proxy.cluster.placement import Key, Placement, Rings, tcp_address
from proxy.cluster.quorum import Answer, Need, Verdict, judge, quorum
from proxy.cluster.rounds import Pace, Patience, Round, Stragglers
from proxy.cluster.uploads import StreamedUpload
from proxy.cluster.witnesses import Witnesses
from ring.device import Device, DeviceId
from swiftlike.entries import Entry
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.node_calls import Found, Promise
from swiftlike.node_client import NodeFailed
from swiftlike.rpc.transport import Address, Body, Transport
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Clock, ClockAhead, Offer, WriteId

Inspect: TypeAlias = Callable[[Placement, tuple[DeviceId, ...]], Awaitable[bool]]
"""Whether a closing write may go on, by what the owners hold that have promised to take no rows meanwhile: a majority, under
this placement. Asked again on each attempt, and within the write's deadline."""


@dataclass(frozen=True, slots=True)
class Written:
    """How a write ended."""

    outcome: Outcome
    entry: Entry | None = None
    """Done: what was written, or what was judged on it and carried through since; None when it is forgotten already
    what exactly was chosen. Refused: what the condition was judged on; None when nothing stands there."""
    replaced_live: bool = False
    """Done: whether something was there for clients before."""
    above: Ballot = ZERO_BALLOT
    """The highest ballot that stood in the way; one of a newer incarnation says that the container was made anew."""
    is_full: bool = False
    """Not done: because of owners that have only their reserve of space left."""


class Read(NamedTuple):
    """What stands at a key. A NamedTuple, since every read makes one."""

    placement: Placement
    is_known: bool
    """False: no majority could say. Nothing else here means anything then."""
    entry: Entry | None = None
    body: Body | None = None
    """The whole body, where it is small enough for what the caller asked, and came."""
    holders: tuple[DeviceId, ...] = ()
    """Owners to stream that body from: first those that are known to hold it, unless it came along."""


class Registers:
    """Coordinates registers; usable inside its context, which owns the calls that outlive their round."""

    def __init__(
        self,
        transport: Transport,
        rings: Rings,
        clock: Clock,
        random: Random,
        patience: Patience | None = None,
        address_of: Callable[[Device], Address] = tcp_address,
        *,
        leaves_hints: bool = False,
    ) -> None:
        """Take the way to the devices, the rings, this process's clock, and what jitter is drawn from.

        `leaves_hints`: owners that missed something are compared with the others soon.
        """
        self.patience: Final = patience or Patience()
        self.nodes: Final = Nodes(transport, rings, address_of)
        self.bodies: Final = Bodies(self.nodes, self.patience)
        self.clock: Final = clock
        self._random = random
        self._stragglers = Stragglers(self.patience.stragglers_max)
        self.hints: Final = Hints(self.nodes, self._stragglers, is_on=leaves_hints)
        self._pace: Final = Pace(self.patience.hedge_s)
        self._waits: Final = Waits(asyncio.get_running_loop())
        self._witnesses = Witnesses(self.nodes, self._stragglers, self.patience)
        self._offers = Offers(self.nodes, self.bodies, self._stragglers, self.patience, self.hints)

    async def __aenter__(self) -> Self:
        """Begin to own calls."""
        await self._stragglers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the calls that still go on; each has its deadline."""
        await self._stragglers.__aexit__(kind, error, traceback)

    def new_write_id(self) -> WriteId:
        """Return the name of a write that is about to begin; its time is what clients are shown."""
        return WriteId(bytes(self.clock.issue()))

    # --- writing ------------------------------------------------------------------------------------------------

    async def write(self, key: Key, entry: Entry, body: Content = None, *, deadline: float) -> Written:
        """Write unconditionally: one round trip, and the two rounds where that does not get a majority.

        The entry's ballot is filled in. A small body comes along, a large one is on its way already (`open_upload`);
        without one, the entry's body is there already.
        """
        entry = entry._replace(ballot=self._ballot(key), base=None)
        placement = self.nodes.place(key)
        end = await self._offers.offer(placement, entry, Offer.FIRST, deadline, body, is_own=True)
        if end.is_done:
            live = decisions.was_live(end.replaced, key.incarnation)
            return Written(Outcome.DONE, entry, live, end.above)
        perhaps = _PerhapsHeld()
        perhaps.offered(entry, placement, end)
        return await self._decide(key, decisions.unconditional(entry), perhaps, end.above, deadline, body)

    async def write_if(self, key: Key, condition: Judge, body: Content = None, *, deadline: float) -> Written:
        """Write what `condition` makes of the newest entry, or nothing when it refuses. Two rounds."""
        change = Change(condition)
        return await self._decide(key, change, _PerhapsHeld(), ZERO_BALLOT, deadline, body)

    @asynccontextmanager
    async def open_upload(
        self, key: Key, body_id: WriteId, size: int | None = None
    ) -> AsyncIterator[StreamedUpload]:
        """Send a large body to all owners of a key, piece by piece; then `write` or `write_if` it, within this context.

        Raises TooFewOwners, here or from `send`, when they are not enough to store it. `body_id` is the write id of the
        entry that will be written, `size` the length that the client has declared. Leaving without having written it
        leaves nothing anywhere.
        """
        upload = StreamedUpload(
            self.nodes, self.nodes.place(key), body_id, size, self.patience, self._stragglers
        )
        try:
            await upload.open()
            yield upload
        finally:
            upload.close()

    async def write_closing(
        self, key: Key, condition: Judge, inspect: Inspect, *, deadline: float
    ) -> Written:
        """Write as `write_if` does while the owners take no rows, and only if `inspect` finds that it may be so.

        How a container is deleted: the first round is a closing prepare, `inspect` looks for rows at those that promised,
        `condition` makes the tombstone. REFUSED also when `inspect` said no. Whatever does not end in the tombstone
        releases the owners again, as far as they can be reached; any later settle does as well.
        """
        change = Change(condition)
        is_over = False
        try:
            written = await self._decide(key, change, _PerhapsHeld(), ZERO_BALLOT, deadline, inspect=inspect)
            is_over = written.outcome in (Outcome.DONE, Outcome.REFUSED)
            return written
        finally:
            if not is_over:
                self._stragglers.leave(
                    self._stragglers.spawn(self.settle(key, deadline=self._round_deadline(inf)))
                )

    async def settle(self, key: Key, *, deadline: float, above: Ballot = ZERO_BALLOT) -> Written:
        """Carry the newest entry through, above whatever promise stands in its way.

        REFUSED is the good end, with the entry that is chosen now; None when nothing stands there. What was offered under a
        ballot up to `above`, and no owner that was heard holds, cannot be chosen any more then.
        """
        return await self._decide(key, decisions.NO_CHANGE, _PerhapsHeld(), above, deadline)

    async def _decide(
        self,
        key: Key,
        change: Change,
        perhaps: "_PerhapsHeld",
        above: Ballot,
        deadline: float,
        body: Content = None,
        inspect: Inspect | None = None,
    ) -> Written:
        """Take the two rounds until they end."""
        offered: dict[Ballot, Entry] = {}
        is_full = False
        for attempt in range(self.patience.write_attempts_max):
            if attempt and not await self._back_off(attempt, deadline):
                break
            if above.incarnation > key.incarnation:
                break  # the container was made anew: no ballot of this incarnation passes
            try:
                ballot = self._ballot(key, above)
            except ClockAhead:
                break
            placement = self.nodes.place(key)
            promises, verdict = await self._prepare(
                placement, ballot, deadline, closing=inspect is not None, seeks=change is decisions.NO_CHANGE
            )
            above = max([above, *(promise.above or ZERO_BALLOT for promise in promises.values())])
            if verdict is not Verdict.REACHED:
                continue
            is_so = inspect is None or await inspect(placement, _voters(placement, promises))
            step = decisions.decide(
                placement.owners,
                placement.epoch,
                promises,
                perhaps.first,
                change if is_so else decisions.NO_CHANGE,
                ballot,
            )
            match step:
                case Finished(held_ballot, live):
                    return Written(Outcome.DONE, _entry_under(held_ballot, offered, promises), live, above)
                case Nothing():
                    return Written(Outcome.REFUSED, None, above=above)
                case Undecidable():
                    continue
                case Carry(entry, outcome, live):
                    end = await self._offers.offer(placement, entry, Offer.PASSING, deadline)
                case Make(entry, live):
                    outcome = Outcome.DONE
                    offered[ballot] = entry
                    end = await self._offers.offer(
                        placement, entry, Offer.PASSING, deadline, body, is_own=True
                    )
                    perhaps.offered(entry, placement, end)
                case _:
                    assert_never(step)
            above, is_full = max(above, end.above), end.is_full
            if end.is_done:
                return Written(outcome, entry, live, above)
        outcome = Outcome.CONFLICT if perhaps.first is None else Outcome.UNKNOWN
        return Written(outcome, above=above, is_full=is_full)

    async def _prepare(
        self, placement: Placement, ballot: Ballot, deadline: float, *, closing: bool, seeks: bool
    ) -> tuple[dict[DeviceId, Promise], Verdict]:
        """Ask every owner for a promise; return those that were heard, refusals too, and whether they are enough.

        `seeks`: an entry that few hold is what this is about, so while those that were heard hold none, the others have
        their time to answer, too.
        """
        round_deadline = self._round_deadline(deadline)

        async def prepare(device: Device) -> Promise:
            client = self.nodes.client(placement, device, round_deadline)
            try:
                return await client.prepare(placement.key.table, placement.key.path, ballot, closing=closing)
            except NodeFailed as failure:
                self.nodes.heed(placement, failure)
                return Promise(None, whole=False, votes=False)

        def verdict(promises: Mapping[DeviceId, Promise]) -> Verdict:
            answers = {owner: _worth_of_promise(promise) for owner, promise in promises.items()}
            return judge(placement.owners, Need.WRITE, answers)

        async with Round[Promise](self._stragglers) as asked:
            for owner in placement.owners.everyone:
                asked.ask(owner, prepare(placement.devices[owner]))
            await asked.until(lambda promises: verdict(promises) is not Verdict.UNDECIDED)
            if seeks and not any(_holds_entry(promise) for promise in asked.answers.values()):
                await asked.until(lambda _: False, patience_s=self.patience.hedge_s)
            promises = dict(asked.answers)
        for promise in promises.values():
            if promise.register is not None and promise.register.entry is not None:
                self.clock.follow(promise.register.entry.ballot.micros)
        return promises, verdict(promises)

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self, key: Key, *, deadline: float, inline_bytes: int = RPC_BODY_BYTES_MAX) -> Read:
        """Read what stands at a key, and its body where that is no longer than `inline_bytes` (0: never).

        What is returned is held by a majority, so that no later read sees anything older.
        """
        placement = self.nodes.place(key)
        for attempt in range(self.patience.read_attempts_max):
            if attempt:
                if not await self._back_off(attempt, deadline):
                    break
                placement = self.nodes.place(key)
            found, is_agreed = await self._ask_what_stands(placement, inline_bytes, deadline)
            if not is_agreed and judge(placement.owners, Need.READ, _votes_of(found)) is not Verdict.REACHED:
                continue
            newest = decisions.newest_found(found)
            if newest is None:
                voting = [owner for owner, one in found.items() if one.votes]
                if placement.owners.joining and not await self._witnesses.hear(placement, voting, deadline):
                    continue
                return Read(placement, is_known=True)
            self.clock.follow(newest.ballot.micros)
            if len(found) > quorum(len(placement.owners.voting)):
                self._hint_behind(placement, newest, found)
            if is_agreed:
                return await self._with_body(placement, newest, found, inline_bytes, deadline)
            end = await self._offers.offer(placement, newest, Offer.COPY, deadline)
            if end.is_done:
                return await self._with_body(placement, newest, found, inline_bytes, deadline)
            incarnation = max(key.incarnation, newest.ballot.incarnation)
            settled = await self.settle(key._replace(incarnation=incarnation), deadline=deadline)
            if settled.outcome is Outcome.REFUSED:
                return await self._with_body(placement, settled.entry, found, inline_bytes, deadline)
        return Read(placement, is_known=False)

    def _hint_behind(self, placement: Placement, newest: Entry, found: Mapping[DeviceId, Found]) -> None:
        """Have an owner that answered with something older, or lacks the body, compare its partition with the others."""
        for owner, one in found.items():
            if one.votes and (one.entry is None or one.entry.version != newest.version or not one.whole):
                self.hints.leave(placement, placement.devices[owner], None)
                return

    async def _ask_what_stands(
        self, placement: Placement, inline_bytes: int, deadline: float
    ) -> tuple[dict[DeviceId, Found], bool]:
        """Ask a majority, one of them for the body; ask the rest when those fail, differ, or take long.

        Return what they said, and whether a majority holds the newest of it: of a partition that moves, where a majority of
        the new owners has to, too, nobody says so but a write-back.
        """
        owners = placement.owners
        voting = owners.voting
        # Any of them first and whoever follows it: each owner has its share, of the bodies and of the rest.
        first = int(self._random.random() * len(voting))
        order = voting[first:] + voting[:first]
        needed = quorum(len(order))
        round_deadline = self._round_deadline(deadline)

        def has_quorum(found: Mapping[DeviceId, Found]) -> bool:
            return judge(owners, Need.READ, _votes_of(found)) is not Verdict.UNDECIDED

        def is_agreed(found: Mapping[DeviceId, Found]) -> bool:
            return not owners.joining and decisions.is_agreed(owners, found, decisions.newest_found(found))

        look = Look(self.nodes, placement, self._pace, self._waits)
        try:
            wanted_bytes = inline_bytes
            for owner in order[:needed]:
                look.ask(owner, wanted_bytes, round_deadline)
                wanted_bytes = 0
            await look.until(look.has_abstention, patience_s=self._pace.hedge_s)
            if is_agreed(look.found):
                return look.found, True
            for owner in order[needed:]:
                look.ask(owner, inline_bytes, round_deadline)
            await look.until(has_quorum)
            await look.until(is_agreed, patience_s=self.patience.hedge_s)
            return look.found, is_agreed(look.found)
        finally:
            look.stop()

    async def _with_body(
        self,
        placement: Placement,
        entry: Entry | None,
        found: Mapping[DeviceId, Found],
        inline_bytes: int,
        deadline: float,
    ) -> Read:
        """Return an entry with its body, from whoever sent it along or else holds it."""
        if entry is None or not entry.has_body:
            return Read(placement, is_known=True, entry=entry)
        for one in found.values():
            if one.body is not None and one.entry is not None and one.entry.body_id == entry.body_id:
                return Read(placement, True, entry, one.body, placement.owners.everyone)
        same = {
            owner: one
            for owner, one in found.items()
            if one.entry and one.entry.body_id == entry.body_id and one.whole
        }
        holders = (*same, *(owner for owner in placement.owners.everyone if owner not in same))
        body: Body | None = None
        if 0 < inline_bytes >= entry.size:
            body = await self.bodies.fetch(placement, entry, holders, self._round_deadline(deadline))
        return Read(placement, is_known=True, entry=entry, body=body, holders=holders)

    # --- time ---------------------------------------------------------------------------------------------------

    def _ballot(self, key: Key, above: Ballot = ZERO_BALLOT) -> Ballot:
        """Issue a ballot that passes what stood in the way. Raises ClockAhead when that is too far ahead."""
        stamp = self.clock.issue() if above == ZERO_BALLOT else self.clock.issue_above(above)
        return Ballot(key.incarnation + stamp)

    def _round_deadline(self, deadline: float) -> float:
        return min(deadline, self.nodes.now() + self.patience.round_s)

    async def _back_off(self, attempt: int, deadline: float) -> bool:
        """Pause before another attempt, longer each time; False when the deadline does not allow one."""
        pause_s = self._random.random() * self.patience.back_off_s * 2**attempt
        if self.nodes.now() + pause_s >= deadline:
            return False
        await asyncio.sleep(pause_s)
        return True


class _PerhapsHeld:
    """The offers of one write that some owner may have taken."""

    def __init__(self) -> None:
        self._first: FirstOffer | None = None
        self._ends: list[OfferEnd] = []

    def offered(self, entry: Entry, placement: Placement, end: OfferEnd) -> None:
        """Take note of how an offer ended that was not done."""
        if end.may_be_held:
            self._first = self.first or FirstOffer(entry.version, placement.epoch)
            self._ends.append(end)

    @property
    def first(self) -> FirstOffer | None:
        """The first of them; None as soon as it is known that no owner took any."""
        if self._first is not None and not any(end.may_be_held for end in self._ends):
            self._first, self._ends = None, []
        return self._first


def _voters(placement: Placement, promises: Mapping[DeviceId, Promise]) -> tuple[DeviceId, ...]:
    """Return who promised and votes: a majority of the owners whose word counts."""
    return tuple(
        owner
        for owner in placement.owners.voting
        if owner in promises and _worth_of_promise(promises[owner]) is Answer.VOTE
    )


def _worth_of_promise(promise: Promise) -> Answer:
    if promise.register is None:
        return Answer.NO
    return Answer.VOTE if promise.votes else Answer.WITNESS


def _entry_under(
    ballot: Ballot, offered: Mapping[Ballot, Entry], promises: Mapping[DeviceId, Promise]
) -> Entry | None:
    """Return what was written under a ballot: by this coordinator, or by another that carried it through."""
    if ballot in offered:
        return offered[ballot]
    registers = [promise.register for promise in promises.values() if promise.register is not None]
    return next((one.entry for one in registers if one.entry and one.ballot == ballot), None)


def _votes_of(found: Mapping[DeviceId, Found]) -> dict[DeviceId, Answer]:
    """Count whoever said what stands there; whether they agree is another question."""
    return {owner: Answer.VOTE if one.votes else Answer.NO for owner, one in found.items()}


def _holds_entry(promise: Promise) -> bool:
    return promise.register is not None and promise.register.entry is not None
