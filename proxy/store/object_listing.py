"""The row that an object's entry owes: brought to its container, whatever becomes of the container meanwhile.

Owns what a refused row means, for a write that is about to be acknowledged and for a debt that is paid long afterwards: a
container whose delete came to nothing is settled, so that it takes rows again; where the incarnation is gone, the object
goes too. Never pays a debt.
"""

import asyncio
from enum import Enum
from typing import Final

from proxy.cluster.placement import Key
from proxy.cluster.register import Registers
from proxy.store.containers import Containers
from proxy.store.errors import NoSuchContainer, StoreError
from proxy.store.names import ContainerName
from proxy.store.rows import Rows, Upserted
from proxy.store.values import micros_of
from swiftlike.entries import Entry
from swiftlike.listed import row_of
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Timestamp, WriteId

TRIES_MAX: Final = 6
"""Times that a refused row is offered again while its container is still there."""
PAUSE_S: Final = 0.01
"""Before the second of those; twice as long before each further one."""


class ListedEnd(Enum):
    """What became of an entry's row."""

    LISTED = "a majority of the container's owners has it"
    GONE = "the container is gone, and the object with it"
    UNKNOWN = "too few owners answered, or they refuse it still"


class ObjectListing:
    """The way of objects into their containers' listings."""

    def __init__(self, registers: Registers, containers: Containers, rows: Rows) -> None:
        """Take what it stands on."""
        self._registers: Final = registers
        self._containers: Final = containers
        self._rows: Final = rows

    async def list(
        self, key: Key, container: ContainerName, entry: Entry, write_id: WriteId, *, deadline: float
    ) -> ListedEnd:
        """Bring the row of what is chosen at a key to its container. `write_id` is what goes if the container is gone."""
        listed = row_of(key.table, key.path, entry)
        for attempt in range(TRIES_MAX):
            upserted = await self._rows.upsert(listed, deadline=deadline)
            if upserted is Upserted.TAKEN:
                return ListedEnd.LISTED
            if upserted is Upserted.UNAVAILABLE:
                break
            try:
                is_there = await self._is_still_there(container, key.incarnation, upserted, attempt, deadline)
            except StoreError:
                break  # the object is written by now: that nobody can say how its container stands undoes nothing
            if not is_there:
                await self._remove(key, write_id, deadline)
                return ListedEnd.GONE
            await asyncio.sleep(PAUSE_S * 2**attempt)
        return ListedEnd.UNKNOWN

    async def _is_still_there(
        self,
        name: ContainerName,
        incarnation: Timestamp,
        upserted: Upserted,
        attempt: int,
        deadline: float,
    ) -> bool:
        """Look again at a container that refused a row. A delete that came to nothing is lifted at the second time."""
        try:
            if upserted is Upserted.CLOSING and attempt:
                again = await self._containers.settle(name, deadline=deadline)
            else:
                again = await self._containers.read(name, deadline=deadline, max_age_s=0)
        except NoSuchContainer:
            return False
        return again.incarnation == incarnation

    async def _remove(self, key: Key, write_id: WriteId, deadline: float) -> None:
        """Delete what this very write left behind. If that fails, it is out of sight still, and the debt stands for it."""
        tombstone = tombstone_of(self._registers.new_write_id(), key.table[1])

        def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
            is_it = newest is not None and newest.write_id == write_id and not newest.tombstone
            return tombstone if is_it else None

        await self._registers.write_if(key._replace(owes=False), judge, deadline=deadline)


def tombstone_of(write_id: WriteId, policy: int) -> Entry:
    """Return the entry of a deletion."""
    return Entry(ZERO_BALLOT, write_id, micros_of(write_id), tombstone=True, policy=policy)
