"""Catching up: how an owner that does not vote comes to remember what it must, and then votes.

Owns the order: the voters' standings; everything that enough of them hold, what stands under a promise settled first, debts
with it; once more their standings; what all have forgotten is forgotten here; then the vote. One way for all who have no
votes: a newcomer, a disk that was wiped, replaced or rebuilt, and one whose sync failed. What was taken stays taken, so an
attempt that fails is gone on with by the next.

Where too few voters are left for that, an operator may have a device vote all the same (`trust`). It first comes to remember all that
any voter does who answers, the promises as they are, since nobody is left to settle them with: as an acceptor it then stands where
those stand, and does not outvote them with less.
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from ring.device import DeviceId
from storage_node.errors import StorageError
from storage_node.forgetting import Forgetting
from storage_node.keys import ROWS_OF
from storage_node.placing import Rings
from storage_node.sharing import Shares, in_turn, is_enough
from storage_node.store import Store
from storage_node.taking import Source, Taken, Taker, heard_from, standings_of
from swiftlike.node_calls import Standing, Trusted
from swiftlike.node_client import NodeFailed
from swiftlike.rpc.transport import Outcome

log: Final = logging.getLogger(__name__)


class CatchingUp:
    """Catches up for one device."""

    def __init__(self, store: Store, rings: Rings, taker: Taker) -> None:
        self._store: Final = store
        self._rings: Final = rings
        self._taker: Final = taker
        self._forgetting: Final = Forgetting(store, taker)

    async def catch_up(
        self, shares: Shares, table: bytes, partition: int, sources: Mapping[DeviceId, Source]
    ) -> bool:
        """Take a partition from all sources that vote, and vote when they were enough; say whether this owner votes now.

        Raises RingChanged, DeviceFailed.
        """
        needs = shares.needs(partition)
        standings = await standings_of(table, partition, sources)
        if not is_enough(needs, standings.keys()):
            return False
        return await self._catch_up_from(shares, table, partition, sources, standings)

    async def trust(
        self, shares: Shares, table: bytes, partition: int, sources: Mapping[DeviceId, Source]
    ) -> Trusted:
        """Vote on a partition on an operator's word, with all that the owners hold who answer and vote, be they few.

        Raises StorageError, and does not vote, when one of those did not hand over everything, or one that is there does not say whether
        it votes: by another ring, it may be the one that is left. RingChanged, DeviceFailed.
        """
        heard = await heard_from(table, partition, sources)
        for owner, answer in heard.items():
            if isinstance(answer, NodeFailed) and answer.reply.outcome is Outcome.ERROR:
                raise StorageError(
                    f"partition {partition} does not vote, since {sources[owner].device} is there and does not say whether it "
                    f"votes ({answer.reply.reason}): give all hosts the same ring, and say it again"
                )
        answers = {owner: answer for owner, answer in heard.items() if isinstance(answer, Standing)}
        standings = {owner: standing for owner, standing in answers.items() if standing.votes}
        told = Trusted(len(standings), len(sources) - len(answers))
        if is_enough(shares.needs(partition), standings.keys()):
            if await self._catch_up_from(shares, table, partition, sources, standings):
                return told
            raise StorageError(
                f"partition {partition} has enough owners that vote, and not all of it has come yet: it votes once it has"
            )
        voters = {owner: sources[owner] for owner in standings}
        # Promises last: what has come before one would be refused once it stands here.
        for take in (partial(self._take_all, marked_too=False), self._take_promises):
            for source in voters.values():
                if not await take(table, partition, source):
                    raise StorageError(
                        f"partition {partition} does not vote, since {source.device} votes on it and did not hand over "
                        "everything: see that both are well and not paused, and say it again"
                    )
        for owner in answers.keys() - voters.keys():
            # It has no vote that could be outvoted, but what it holds is worth having.
            await self._take_all(table, partition, sources[owner], marked_too=False)
        again = await standings_of(table, partition, voters)
        if again.keys() != voters.keys():
            raise StorageError(
                f"partition {partition} does not vote, since an owner that votes on it was lost on the way: say it again"
            )
        if not await self._vote(shares, table, partition, again, list(voters.values())):
            raise StorageError(f"partition {partition} does not vote, since its ring changed: say it again")
        return told

    async def _catch_up_from(
        self,
        shares: Shares,
        table: bytes,
        partition: int,
        sources: Mapping[DeviceId, Source],
        standings: Mapping[DeviceId, Standing],
    ) -> bool:
        needs = shares.needs(partition)
        voters = {owner: sources[owner] for owner in standings}
        heard = {
            owner: voters[owner]
            for owner in in_turn(list(voters), partition)
            if await self._take_all(table, partition, voters[owner])
        }
        again = await standings_of(table, partition, heard)
        if not is_enough(needs, again.keys()):
            return False
        return await self._vote(shares, table, partition, again, list(heard.values()))

    async def _vote(
        self,
        shares: Shares,
        table: bytes,
        partition: int,
        standings: Mapping[DeviceId, Standing],
        voters: list[Source],
    ) -> bool:
        """Forget what all these voters have forgotten, then vote; False when one cannot tell, or the ring changed."""
        floor_us = max((standing.floor_us for standing in standings.values()), default=0)
        refusing_us = max((standing.refusing_us for standing in standings.values()), default=0)
        mine = self._store.standing(table, partition)
        try:
            await self._forgetting.forget(table, partition, floor_us, voters)
            if self._rings.epoch(table) != shares.ring.epoch:
                return False
            wanted = Standing(True, max(mine.floor_us, floor_us), max(mine.refusing_us, refusing_us))
            await self._store.set_standing(table, partition, wanted, seen=mine)
        except NodeFailed as failure:
            log.info("partition %d of table %r is not caught up with yet: %s", partition, table, failure)
            return False
        return True

    async def _take_all(
        self,
        table: bytes,
        partition: int,
        source: Source,
        *,
        marked_too: bool = True,
    ) -> bool:
        """Take all that one owner holds, or all but what is marked there; say whether nothing was left."""
        taken = Taken()
        try:
            taken.add(await self._taker.take_registers(table, partition, source, catching_up=True))
            if marked_too:
                taken.add(await self._taker.take_marked(table, partition, source))
            if table in ROWS_OF:
                taken.add(await self._taker.take_rows(table, partition, source))
        except NodeFailed as failure:
            return _not_all(table, partition, failure)
        return taken.left == 0

    async def _take_promises(self, table: bytes, partition: int, source: Source) -> bool:
        """Take the promises and debts of one owner as they stand there; say whether nothing was left."""
        try:
            return (await self._taker.take_marked(table, partition, source, settles=False)).left == 0
        except NodeFailed as failure:
            return _not_all(table, partition, failure)


def _not_all(table: bytes, partition: int, failure: NodeFailed) -> bool:
    log.info("partition %d of table %r was not all taken: %s", partition, table, failure)
    return False
