"""Usage: what containers hold, carried to the listings of their accounts a moment after it changed.

Owns which containers this process has written to, and when each was counted last. A count is made under a timestamp that
was issued before it began, so that of two counts the one that began later wins; where another process stands with a later
timestamp and other numbers, its time is followed, and the count is made again. Losing what stands here costs nothing but
time: the next write of the container, from any process, carries the whole.
"""

import asyncio
import logging
from typing import Final

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Key
from proxy.store.errors import StoreError, Unavailable
from proxy.store.listings import Listing, Listings
from proxy.store.names import ContainerName
from proxy.store.rows import Rows, Upserted
from proxy.store.values import ContainerInfo
from swiftlike.limits import CONTAINERS_DIRTY_MAX
from swiftlike.listed import Listed, counted
from swiftlike.node_calls import ACCOUNTS, RowOffer
from swiftlike.timestamps import Clock

PAUSE_S: Final = 0.25
"""Between two rounds of counting."""
LAST_LOOK_S: Final = 5.0
"""After a container's last write: once more, for what other processes wrote and counted at the same time."""
AT_ONCE: Final = 16
"""Containers that are counted at the same time."""
TRIES_MAX: Final = 4
PATIENCE_S: Final = 5.0

log = logging.getLogger(__name__)


class UsageCarrier:
    """The containers whose accounts are still to hear of them."""

    def __init__(self, nodes: Nodes, clock: Clock, listings: Listings, rows: Rows) -> None:
        """Take what counts, and what brings the count to its row."""
        self._nodes: Final = nodes
        self._clock: Final = clock
        self._listings: Final = listings
        self._rows: Final = rows
        self._dirty: dict[ContainerName, ContainerInfo] = {}
        self._last_looks: dict[ContainerName, tuple[float, ContainerInfo]] = {}
        self._some = asyncio.Event()
        self.dropped = 0
        """Left as they are, since too many waited."""
        self.failed = 0
        """Counts that could not be made or brought; they are made again."""

    def mark(self, container: ContainerInfo) -> None:
        """A row of this container was written."""
        if len(self._dirty) >= CONTAINERS_DIRTY_MAX and container.name not in self._dirty:
            self.dropped += 1
            return
        self._dirty[container.name] = container
        self._some.set()

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await self._wait_for_work()
            await asyncio.sleep(PAUSE_S)
            await self.flush()

    async def flush(self, *, is_last: bool = False) -> None:
        """Count what is to be counted now; `is_last`: without waiting for the time of a last look."""
        now = self._nodes.now()
        dirty, self._dirty = self._dirty, {}
        self._some.clear()
        for name, container in dirty.items():
            self._last_looks.pop(name, None)  # to the end of the order, which is that of time
            self._last_looks[name] = (now + LAST_LOOK_S, container)
        due = dict(dirty)
        for name, (at, container) in list(self._last_looks.items()):
            if at > now and not is_last and len(self._last_looks) <= CONTAINERS_DIRTY_MAX:
                break
            del self._last_looks[name]
            due[name] = container
        gate = asyncio.Semaphore(AT_ONCE)
        failed = self.failed
        async with asyncio.TaskGroup() as counts:
            for container in due.values():
                counts.create_task(self._carry_gated(gate, container))
        if self.failed > failed:
            log.warning(
                "the usage of %d containers did not reach their accounts; it is tried again in %g s",
                self.failed - failed,
                LAST_LOOK_S,
            )

    async def _wait_for_work(self) -> None:
        next_look = next(iter(self._last_looks.values()), None)
        timeout_s = None if next_look is None else max(0.0, next_look[0] - self._nodes.now())
        try:
            async with asyncio.timeout(timeout_s):
                await self._some.wait()
        except TimeoutError:
            return

    async def _carry_gated(self, gate: asyncio.Semaphore, container: ContainerInfo) -> None:
        async with gate:
            try:
                await self._carry(container)
            except StoreError:
                self.failed += 1
                again_at = self._nodes.now() + LAST_LOOK_S
                self._last_looks.setdefault(container.name, (again_at, container))

    async def _carry(self, container: ContainerInfo) -> None:
        account, name = container.name.account, container.name.container
        deadline = self._nodes.now() + PATIENCE_S
        for _ in range(TRIES_MAX):
            stamp = self._clock.issue()
            usage = await self._listings.usage_of_container(container, deadline=deadline)
            row = counted(container.entry, stamp, usage.objects, usage.bytes)
            listed = Listed(ACCOUNTS, RowOffer(account, name, row))
            if await self._rows.upsert(listed, deadline=deadline) is not Upserted.TAKEN:
                raise Unavailable("too few owners took the row")
            stands = await self._listings.row(Listing(Key(ACCOUNTS, account)), name, deadline=deadline)
            if stands is None or stands.ballot <= row.ballot or stands.tombstone:
                return
            if stands.ballot.incarnation != row.ballot.incarnation:
                return  # the container was made anew
            if (stands.objects, stands.size) == (row.objects, row.size):
                return
            self._clock.follow(stands.ballot.micros)
