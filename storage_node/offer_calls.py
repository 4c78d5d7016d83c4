"""Offers as they are called: one, or several in one call, answered without a task.

Owns how these calls are read and how each offer in them is answered: one that is wrong, refused or fails does so alone.
Never decides what an acceptor accepts. A call waits for nothing but the writer's batch, so its end is told by the future of that.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from storage_node.errors import StorageError
from storage_node.keys import Key
from storage_node.placing import Placing
from storage_node.requests import Fields, is_path
from storage_node.store import Offered, Outcome, Store
from swiftlike.limits import OFFERS_BATCH_MAX
from swiftlike.node_calls import OFFERS, Acceptance, Method, pack_list
from swiftlike.packed_offers import FROM_VOTER, OWING, OfferFailed, pack_offered, reply_of
from swiftlike.rpc.errors import CallFailed
from swiftlike.rpc.service import Call, Later
from swiftlike.rpc.transport import Reply, failed

log: Final = logging.getLogger(__name__)

_FLAGS: Final = OWING | FROM_VOTER


class OfferCalls:
    """The handlers of offers."""

    def __init__(
        self,
        store: Store,
        placing: Callable[[bytes, Fields], Placing],
        reply_to: Callable[[StorageError], Reply],
        counts: Counter[tuple[str, str]],
    ) -> None:
        """Take the store, what checks how a call was placed, what translates errors, and where ends are counted."""
        self._store: Final = store
        self._placing: Final = placing
        self._reply_to: Final = reply_to
        self._counts: Final = counts

    # --- one ------------------------------------------------------------------------------------------------------

    def offer(self, call: Call) -> Reply | Later:
        """Offer an entry, with its body if that is small."""
        try:
            fields = Fields(call, _OFFER)
            table = fields.table()
            placing = self._placing(table, fields)
            offered = Offered(
                Key(table, fields.path(table)),
                fields.entry(),
                fields.offer(),
                octets(call) if fields.flag("with_body") else None,
                fields.flag("owing"),
                fields.flag("from_voter"),
                placing.is_current,
            )
        except CallFailed as refusal:
            return self._refused(Method.OFFER.value, refusal)
        return Later(self._store.offer_all((offered,)), partial(self._tell_one, placing))

    def _tell_one(self, placing: Placing, work: "asyncio.Future[Sequence[Outcome]]") -> Reply:
        try:
            (outcome,) = work.result()
        except StorageError as error:
            reply = self._reply_to(error)
            self._counts["offer", reply.code or "unknown"] += 1
            return reply
        answer = self._answer(placing, placing.changed(), outcome)
        if isinstance(answer, Acceptance):
            return Reply(header=answer.header())
        return reply_of(answer)

    # --- several --------------------------------------------------------------------------------------------------

    def offers(self, call: Call) -> Reply | Later:
        """Offer several entries of one table, each by itself: they share the call, and the writer's batch."""
        try:
            fields = Fields(call, _PLACED)
            table = fields.table()
            placing = self._placing(table, fields)
            items = fields.offers()
            if not 1 <= len(items) <= OFFERS_BATCH_MAX:
                fields.refuse(
                    f"the body must be 1 to {OFFERS_BATCH_MAX} offers: make another call for the rest"
                )
        except CallFailed as refusal:
            return self._refused(Method.OFFERS.value, refusal)
        self._counts["offers", "ok"] += 1
        offered: list[Offered] = []
        wrong: dict[int, OfferFailed] = {}
        for at, item in enumerate(items):
            try:
                offered.append(_read(fields, table, placing, item))
            except CallFailed as refusal:
                wrong[at] = self._failed(OfferFailed(refusal.code, refusal.reason))
        return Later(self._store.offer_all(offered), partial(self._tell_all, placing, wrong))

    def _tell_all(
        self, placing: Placing, wrong: dict[int, OfferFailed], work: "asyncio.Future[Sequence[Outcome]]"
    ) -> Reply:
        try:
            outcomes = work.result()
        except StorageError as error:
            reply = self._reply_to(error)
            self._counts["offer", reply.code or "unknown"] += 1
            return reply
        changed = placing.changed()
        answers = [self._answer(placing, changed, outcome) for outcome in outcomes]
        for at, failure in wrong.items():
            answers.insert(at, failure)  # in order, so that each finds its place
        return Reply(body=pack_list(map(pack_offered, answers)))

    # --- what both answer -----------------------------------------------------------------------------------------

    def _answer(
        self, placing: Placing, changed: CallFailed | None, outcome: Outcome
    ) -> Acceptance | OfferFailed:
        """Return what one offer is told, now that it is done; it counts only if the ring has not `changed`."""
        acceptance, error = outcome
        if error is not None:
            if not isinstance(error, StorageError):
                self._counts["offer", "bug"] += 1
                log.error("an offer failed in a way that nobody foresaw", exc_info=error)
                return OfferFailed("", "the offer failed; see the log of the device")
            reply = self._reply_to(error)
            return self._failed(OfferFailed(reply.code, reply.reason))
        refusal = placing.older() if acceptance is None else changed
        if refusal is not None:
            return self._failed(OfferFailed(refusal.code, refusal.reason, refusal.header["epoch"] or 0))
        self._counts["offer", "ok"] += 1
        answer: Acceptance = acceptance
        return answer

    def _failed(self, failure: OfferFailed) -> OfferFailed:
        self._counts["offer", failure.code or "unknown"] += 1
        return failure

    def _refused(self, method: str, refusal: CallFailed) -> Reply:
        self._counts[method, refusal.code] += 1
        return failed(refusal.code, refusal.reason, refusal.header)


_PLACED: Final = frozenset({"table", "epoch"})
_OFFER: Final = _PLACED | {"path", "entry", "offer", "owing", "from_voter", "with_body"}


def _read(fields: Fields, table: bytes, placing: Placing, item: tuple[Any, ...]) -> Offered:
    """Return one of several offers. Raises CallFailed."""
    path, raw, body, circumstances, flags = item
    if not is_path(table, path):
        fields.refuse(f"a path of an offer is none of table {table!r}")
    offer = OFFERS.get(circumstances)
    if offer is None or not 0 <= flags <= _FLAGS:
        fields.refuse("the circumstances or the flags of an offer are not known to this release")
    return Offered(
        Key(table, path),
        fields.decode_entry(raw),
        offer,
        body,
        flags & OWING != 0,
        flags & FROM_VOTER != 0,
        placing.is_current,
        raw,
    )


def octets(call: Call) -> bytes | memoryview:
    """Return the body of a call, as a store takes it."""
    return memoryview(call.body) if isinstance(call.body, bytearray) else call.body
