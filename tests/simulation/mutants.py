"""Deliberate bugs, each in the code that runs for as long as a context lasts. The campaign must find every one of them.

Some are the register protocol's shortcuts (`shortcuts`); the others are what the rest of the store must not do either.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

from proxy.cluster import decisions, placement
from proxy.cluster.offers import OfferEnd, Offers
from proxy.cluster.quorum import Answer, Need, Owners, Verdict, distinct
from proxy.store import listing_owners, rows
from proxy.store.payer import Payer
from ring.device import DeviceId
from ring.ring import Ring
from storage_node import catching_up, reclaimer, tables
from storage_node.keys import Key
from storage_node.reclaiming import Enforce, OwnerSeen, Step, Wait
from storage_node.sharing import shares_of
from storage_node.taking import Source, Taken, Taker
from swiftlike.entries import Entry, Version
from swiftlike.node_calls import Standing
from swiftlike.node_client import NodeFailed
from swiftlike.registers import Register, Replaced
from swiftlike.timestamps import ZERO_BALLOT
from tests.simulation import world_processes
from tests.simulation.shortcuts import Shortcut, taken
from tests.simulation.syncing_store import SyncingStore


class Mutant(Enum):
    """A bug; for those that are hard to find, the shortest story that shows it, with owners 0, 1 and 2."""

    SKIP_SYNC = "a device answers before what it wrote is on its disk"
    COUNT_HANDOFF = "a handoff's copy makes up for an owner that is missing from a majority"
    LOSE_DEBT = "a device does not remember that a row is owed"
    PAY_UNCHOSEN = "a debt is paid for what was offered, whether it was chosen or not"
    """Only 0 takes a write before its proxy dies, and falls silent. It comes back, compares nothing yet, and pays: the write is
    listed. A read that asks 1 and 2 does not find it."""
    WIPED_VOTES = "a disk that was replaced votes at once"
    CATCH_UP_FROM_ONE = "an owner votes once a single other has handed over what it holds"
    """0 and 1 take a write that misses 2. The disk of 1 is replaced while 0 is gone, and 1 votes with what 2 has: a read that asks
    them does not find the write."""
    PROMISES_VANISH = "who catches up has nothing settled that stands under a promise"
    """0 and 1 promise a swap whose offers are held up. The disk of 1 is replaced, and takes all that 0 and 2 have accepted. A
    write by a slower clock, below that promise, is taken by 1 and 2. Then the offers arrive, and the swap replaces what it was
    not judged on."""
    FORGET_MOVING = "while a partition moves, only its new owners are asked"
    RECLAIM_EARLY = "a floor is in force as soon as it is old enough, whatever the owners hold"
    ROW_AT_ONE = "a write is answered once a single owner of the listing has its row"
    LIST_FROM_ONE = "a page is believed without asking a second owner"
    MINORITY = Shortcut.MINORITY
    NO_WRITE_BACK = Shortcut.NO_WRITE_BACK
    NO_PROMISE = Shortcut.NO_PROMISE
    REOFFER = Shortcut.REOFFER
    NO_BASE = Shortcut.NO_BASE
    BASE_WITHOUT_BALLOT = (
        "a write is taken to be undone although something was judged on what is newer than it"
    )
    """Only 0 takes a write, only 0 takes what is then judged on it, and 1 and 2 take what is judged on that. Asked without 0, they
    have not heard of the write, and it is made again, over what was built on it."""
    ONE_SET = Shortcut.ONE_SET
    """New owners have caught up, and one more write comes to the old ones alone before the move is settled. A read that asks two new
    owners does not find it."""
    ACROSS_BALLOTS = Shortcut.ACROSS_BALLOTS
    """0 takes a write, 2 a newer one, and 1 the first again, carried through under a ballot newer still, which gets no further. 0
    and 1 together look as if they had chosen the first; a read that asks 0 and 2 finds the second."""


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
            with patch.object(Payer, "_chosen", _offered_or(Payer._chosen)):
                yield
        case Mutant.ROW_AT_ONE:
            with patch.object(rows, "judge", _one_is_enough):
                yield
        case Mutant.LIST_FROM_ONE:
            with patch.object(listing_owners, "judge", _one_is_enough):
                yield
        case Mutant.WIPED_VOTES:
            with patch.object(world_processes, "founding_partitions", _owned):
                yield
        case Mutant.CATCH_UP_FROM_ONE:
            with patch.object(catching_up, "is_enough", lambda needs, heard: bool(heard)):
                yield
        case Mutant.PROMISES_VANISH:
            with patch.object(Taker, "take_marked", _taking_debts_only):
                yield
        case Mutant.FORGET_MOVING:
            with patch.object(
                placement, "owners_of", lambda primaries, previous: Owners(distinct(primaries))
            ):
                yield
        case Mutant.RECLAIM_EARLY:
            with patch.object(reclaimer, "decide", _hasty):
                yield
        case Mutant.BASE_WITHOUT_BALLOT:
            with patch.object(decisions, "never_accepted", _never_accepted_by_write_ids):
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


def _offered_or(chosen: Any) -> Any:
    async def look(self: Any, key: Any, version: Version, deadline: float) -> Entry | None:
        placement = self._registers.nodes.place(key)
        for device in placement.devices.values():
            try:
                client = self._registers.nodes.client(placement, device, deadline)
                found = await client.get(key.table, key.path, 0)
            except NodeFailed:
                continue
            entry: Entry | None = found.entry
            if entry is not None and entry.version == version:
                return entry
        return cast(Entry | None, await chosen(self, key, version, deadline))

    return look


def _one_is_enough(owners: Owners, need: Need, answers: Mapping[DeviceId, Answer]) -> Verdict:
    if any(answer is not Answer.NO for answer in answers.values()):
        return Verdict.REACHED
    return Verdict.UNDECIDED if len(answers) < len(owners.everyone) else Verdict.IMPOSSIBLE


def _owned(ring: Ring, uuid: UUID) -> Sequence[int]:
    return sorted(shares_of(ring, uuid).owned)


async def _taking_debts_only(self: Any, table: bytes, partition: int, source: Source) -> Taken:
    power = self._store.layout.part_powers[table]
    after: bytes | None = b""
    while after is not None:
        marked, after, _ = await source.client.versions(table, power, partition, after, marked=True)
        owed = [(Key(table, held.path), held.version) for held in marked if held.owes and held.version]
        if owed:
            await self._store.owe(owed)
    return Taken()


def _hasty(owners: Collection[OwnerSeen | None], highest_us: int, least_us: int) -> Step:
    standings: list[Standing] = [owner.standing for owner in owners if owner is not None]
    if max(standing.floor_us for standing in standings) + least_us > highest_us:
        return Wait.SETTLED
    return Enforce(highest_us)


def _never_accepted_by_write_ids(held: Register, first: Version) -> bool:
    memory = [Replaced(held.entry.version, held.entry.base)] if held.entry is not None else []
    memory += held.replaced
    since = [old for old in memory if old.version.ballot >= first.ballot]
    reaches_back = len(since) < len(memory) or (
        held.since_us is not None and held.since_us < first.ballot.micros
    )
    named = {old.version.write_id for old in since} | {old.base.write_id for old in since if old.base}
    return reaches_back and first.write_id not in named
