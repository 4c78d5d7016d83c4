"""Deliberate bugs, each in the code that runs for as long as a context lasts. The campaign must find every one of them.

Some are the register protocol's shortcuts (`shortcuts`); the others are what the rest of the store must not do either.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any
from unittest.mock import patch

from proxy.cluster.offers import OfferEnd, Offers
from proxy.cluster.quorum import Answer, Need, Owners, Verdict
from proxy.store import listings, rows
from proxy.store.payer import Payer
from ring.device import DeviceId
from storage_node import tables
from swiftlike.entries import Entry, Version
from swiftlike.node_client import NodeFailed
from swiftlike.timestamps import ZERO_BALLOT
from tests.simulation.shortcuts import Shortcut, taken
from tests.simulation.syncing_store import SyncingStore


class Mutant(Enum):
    """A bug."""

    SKIP_SYNC = "a device answers before what it wrote is on its disk"
    COUNT_HANDOFF = "a handoff's copy makes up for an owner that is missing from a majority"
    LOSE_DEBT = "a device does not remember that a row is owed"
    PAY_UNCHOSEN = "a debt is paid for what was offered, whether it was chosen or not"
    ROW_AT_ONE = "a write is answered once a single owner of the listing has its row"
    LIST_FROM_ONE = "a page is believed without asking a second owner"
    MINORITY = Shortcut.MINORITY
    NO_WRITE_BACK = Shortcut.NO_WRITE_BACK
    NO_PROMISE = Shortcut.NO_PROMISE
    REOFFER = Shortcut.REOFFER
    NO_BASE = Shortcut.NO_BASE
    ACROSS_BALLOTS = Shortcut.ACROSS_BALLOTS


@contextmanager
def mutated(mutant: Mutant | None) -> Iterator[None]:
    """Put a bug in."""
    match mutant:
        case None:
            yield
        case Mutant.SKIP_SYNC:
            with patch.object(SyncingStore, "acknowledges_early", True):
                yield
        case Mutant.COUNT_HANDOFF:
            with patch.object(Offers, "offer", _counting_handoffs(Offers.offer)):
                yield
        case Mutant.LOSE_DEBT:
            with patch.object(tables.Change, "owe", lambda *_: None):
                yield
        case Mutant.PAY_UNCHOSEN:
            with patch.object(Payer, "_chosen", _offered):
                yield
        case Mutant.ROW_AT_ONE:
            with patch.object(rows, "judge", _one_is_enough):
                yield
        case Mutant.LIST_FROM_ONE:
            with patch.object(listings, "judge", _one_is_enough):
                yield
        case _:
            with taken(mutant.value):
                yield


def _counting_handoffs(offer: Any) -> Any:
    async def count(self: Any, placement: Any, entry: Any, *rest: Any, **options: Any) -> OfferEnd:
        end: OfferEnd = await offer(self, placement, entry, *rest, **options)
        is_short = not end.is_done and end.may_be_held and end.above == ZERO_BALLOT
        if not is_short or not options.get("is_own"):
            return end
        stand_in = next(placement.handoffs(), None)
        if stand_in is None:
            return end
        body = rest[2] if len(rest) > 2 else options.get("body")
        client = self._nodes.client(placement, stand_in, self._nodes.now() + 1)
        try:
            kept = await client.offer(placement.key.table, placement.key.path, entry, body, offer=rest[0])
        except NodeFailed:
            return end
        return end._replace(is_done=kept.accepted)

    return count


async def _offered(self: Any, key: Any, version: Version, deadline: float) -> Entry | None:
    placement = self._registers.nodes.place(key)
    for device in placement.devices.values():
        try:
            client = self._registers.nodes.client(placement, device, deadline)
            found = await client.get(key.table, key.path, 0)
        except NodeFailed:
            continue
        if found.entry is not None and found.entry.version == version:
            entry: Entry = found.entry
            return entry
    return None


def _one_is_enough(owners: Owners, need: Need, answers: Mapping[DeviceId, Answer]) -> Verdict:
    if any(answer is not Answer.NO for answer in answers.values()):
        return Verdict.REACHED
    return Verdict.UNDECIDED if len(answers) < len(owners.everyone) else Verdict.IMPOSSIBLE
