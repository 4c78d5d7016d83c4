"""Offers on their way to devices: those bound for one device that are made within one turn of the loop travel in one call.

Owns the batches and how their answers find back to who waits for each. Never waits for company: what one turn has goes. Never
retries, never judges an answer: how an offer failed is its answer, a NodeFailed that carries the reply.

Each offer has an outcome of its own. They share what a call has: the epoch by which they were placed, the deadline (up to
DEADLINE_STEP_S), and what becomes of a call that does not arrive or is not answered. An offer that is cancelled before it leaves
is not sent; later, it may or may not be done, as is so of a call of its own: a device does not take back what it has queued.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from swiftlike.entries import Entry, EntryDamaged, encode
from swiftlike.limits import OFFER_JOINED_BYTES_MAX, OFFERS_BATCH_BYTES_MAX, OFFERS_BATCH_MAX
from swiftlike.node_calls import Acceptance, Method
from swiftlike.node_client import NodeFailed, offer_header
from swiftlike.packed_offers import join_offers, pack_offer, reply_of, unpack_offered
from swiftlike.rpc.transport import Address, Body, Outcome, Reply, Transport
from swiftlike.timestamps import Offer

DEADLINE_STEP_S: Final = 0.1
"""Offers whose deadlines fall into one such step share a call, which ends with the first of them."""

Answer: TypeAlias = Acceptance | NodeFailed


class Offering:
    """What one write offers, the same to each owner: written down once."""

    __slots__ = ("_packed", "body", "entry_raw", "offer", "owing", "path", "table")

    def __init__(
        self,
        table: bytes,
        path: bytes,
        entry: Entry,
        body: Body | None,
        *,
        offer: Offer = Offer.FIRST,
        owing: bool = False,
    ) -> None:
        """Take an entry, and its body if that is small and not there already."""
        self.table: Final = table
        self.path: Final = path
        self.entry_raw: Final = encode(entry)
        self.body: Final = body
        self.offer: Final = offer
        self.owing: Final = owing
        self._packed: bytes | None = None

    @property
    def may_join(self) -> bool:
        """Whether it is small enough to travel with others."""
        body_bytes = 0 if self.body is None else len(self.body)
        return body_bytes + len(self.entry_raw) + len(self.path) <= OFFER_JOINED_BYTES_MAX

    @property
    def packed(self) -> bytes:
        """The offer as one of several."""
        if self._packed is None:
            self._packed = pack_offer(self.path, self.entry_raw, self.body, self.offer, owing=self.owing)
        return self._packed


class JoinedOffers:
    """The offers of one process."""

    def __init__(self, transport: Transport) -> None:
        """Take the way to the devices."""
        self._transport: Final = transport
        self._loop: Final = asyncio.get_running_loop()
        self._waiting: dict[_Bound, list[_Waiting]] = {}

    def ask(self, peer: Address, epoch: int, offering: Offering, deadline: float) -> "asyncio.Future[Answer]":
        """Offer an entry to a device under an epoch of its table's ring; return what will be its answer."""
        answered: asyncio.Future[Answer] = self._loop.create_future()
        if not offering.may_join:
            self._ask_alone(peer, epoch, offering, deadline, answered)
            return answered
        bound = _Bound(peer, offering.table, epoch, int(deadline / DEADLINE_STEP_S))
        waiting = self._waiting.get(bound)
        if waiting is None:
            waiting = self._waiting[bound] = []
            self._loop.call_soon(self._send, bound)
        waiting.append(_Waiting(offering, deadline, answered))
        return answered

    def _send(self, bound: "_Bound") -> None:
        """Send what this turn has brought."""
        for batch in _batches(self._waiting.pop(bound)):
            header = {"table": bound.table, "epoch": bound.epoch}
            body = join_offers([waiting.offering.packed for waiting in batch])
            deadline = min(waiting.deadline for waiting in batch)
            called = self._transport.ask(bound.peer, Method.OFFERS.value, header, body, deadline=deadline)
            called.add_done_callback(partial(_hear, bound.peer, [waiting.answered for waiting in batch]))

    def _ask_alone(
        self,
        peer: Address,
        epoch: int,
        offering: Offering,
        deadline: float,
        answered: "asyncio.Future[Answer]",
    ) -> None:
        """Make a call of its own, with the body as the raw one of its frame."""
        header: dict[str, Any] = {"table": offering.table, "epoch": epoch, "path": offering.path}
        header |= offer_header(offering.entry_raw, offering.offer, owing=offering.owing)
        if offering.body is not None:
            header["with_body"] = True
        body = b"" if offering.body is None else offering.body
        called = self._transport.ask(peer, Method.OFFER.value, header, body, deadline=deadline)
        called.add_done_callback(partial(_hear_alone, peer, answered))
        answered.add_done_callback(partial(_give_up, called))


class _Bound(NamedTuple):
    """Where offers travel together."""

    peer: Address
    table: bytes
    epoch: int
    step: int
    """Of their deadlines."""


class _Waiting(NamedTuple):
    """An offer that leaves at the end of this turn."""

    offering: Offering
    deadline: float
    answered: "asyncio.Future[Answer]"


def _batches(waiting: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Cut offers into batches that fit a call, without those that nobody waits for any more."""
    batch: list[_Waiting] = []
    left_bytes = OFFERS_BATCH_BYTES_MAX
    for one in waiting:
        if one.answered.done():
            continue
        offer_bytes = len(one.offering.packed)
        if batch and (len(batch) == OFFERS_BATCH_MAX or offer_bytes > left_bytes):
            yield batch
            batch, left_bytes = [], OFFERS_BATCH_BYTES_MAX
        batch.append(one)
        left_bytes -= offer_bytes
    if batch:
        yield batch


def _hear(
    peer: Address, waiting: Sequence["asyncio.Future[Answer]"], called: "asyncio.Future[Reply]"
) -> None:
    """Give each offer of a call its answer."""
    if not called.cancelled() and (bug := called.exception()) is not None:
        for answered in waiting:
            if not answered.done():
                answered.set_exception(bug)
        return
    reply = _reply_of(called)
    answers: Sequence[Answer]
    if reply.outcome is Outcome.OK:
        answers = _read(peer, reply, len(waiting))
    else:
        answers = [NodeFailed(peer, Method.OFFERS, reply)] * len(waiting)
    for answered, answer in zip(waiting, answers, strict=True):
        if not answered.done():
            answered.set_result(answer)


def _read(peer: Address, reply: Reply, count: int) -> Sequence[Answer]:
    """Read the answers to so many offers; damaged, they tell nothing about the work."""
    try:
        answers = unpack_offered(reply.body)
        if len(answers) != count:
            raise ValueError(f"{len(answers)} answers to {count} offers")
    except ValueError as error:
        unknown = Reply(Outcome.UNKNOWN, reason=f"its answer is damaged: {error}")
        return [NodeFailed(peer, Method.OFFERS, unknown)] * count
    return [
        one if isinstance(one, Acceptance) else NodeFailed(peer, Method.OFFERS, reply_of(one))
        for one in answers
    ]


def _hear_alone(peer: Address, answered: "asyncio.Future[Answer]", called: "asyncio.Future[Reply]") -> None:
    if answered.done():
        return
    reply = _reply_of(called)
    answer: Answer
    try:
        if reply.outcome is Outcome.OK:
            answer = Acceptance.of(reply.header)
        else:
            answer = NodeFailed(peer, Method.OFFER, reply)
    except EntryDamaged as error:
        unknown = Reply(Outcome.UNKNOWN, reason=f"its answer is damaged: {error}")
        answer = NodeFailed(peer, Method.OFFER, unknown)
    answered.set_result(answer)


def _reply_of(called: "asyncio.Future[Reply]") -> Reply:
    """Return how a call ended; one that was dropped may or may not have been done."""
    if called.cancelled():
        return Reply(Outcome.UNKNOWN, code="aborted", reason="the call was given up")
    return called.result()


def _give_up(called: "asyncio.Future[Reply]", answered: "asyncio.Future[Answer]") -> None:
    if answered.cancelled():
        called.cancel()
