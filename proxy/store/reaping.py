"""Reaping: what a deleted account held, removed piece by piece, and then the account.

Owns the order: the objects of a container, the container with its bucket's name, and last the account. Everything is deleted as a
client would delete it, so parts, rows and names follow; what is gone is in no listing any more, so whoever goes on needs to know
nothing. Never decides when an account is to be reaped.
"""

import asyncio
from typing import Final, NamedTuple

from proxy.cluster.register import Registers
from proxy.store.accounts import Accounts
from proxy.store.contract import Containers, Objects
from proxy.store.errors import StoreError
from proxy.store.names import ContainerName, ObjectName, account_key
from proxy.store.outcomes import known
from proxy.store.values import ListedContainer, ListedObject
from swiftlike.limits import REAPED_AT_ONCE
from swiftlike.node_calls import Query
from swiftlike.reaping import Reaped, ReapedEnd, deleted_us

PATIENCE_S: Final = 10.0
"""Of one thing that is asked of the cluster."""
_MARKERS_MAX: Final = 10_000
_CONTAINERS_PAGE: Final = 100
"""Containers looked at in one slice: those that cannot be removed now keep no other from it."""


class Reaping:
    """Removes what deleted accounts held; what a storage node's reaper asks for."""

    def __init__(
        self, registers: Registers, accounts: Accounts, containers: Containers, objects: Objects
    ) -> None:
        """Take what it stands on; containers that are deleted with their buckets' names."""
        self._registers: Final = registers
        self._accounts: Final = accounts
        self._containers: Final = containers
        self._objects: Final = objects
        self._turns = asyncio.Semaphore(REAPED_AT_ONCE)
        self._markers: dict[bytes, bytes] = {}
        """How far the listings of accounts and containers are done, by their paths; a memory of this process only."""

    async def reap(self, account: bytes, objects_max: int, *, backwards: bool = False) -> Reaped:
        """Remove up to so many objects, and the containers that are empty then; the account, if nothing is left of it.

        `backwards`: from the last container on, so that two who are at it meet in the middle. The world's faults are an
        answer, not an exception.
        """
        try:
            read = await self._registers.read(account_key(account), deadline=self._soon(), inline_bytes=0)
            if deleted_us(known(read).entry) is None:
                # A device that asks has missed what came behind the mark: let it hear of that.
                await self._registers.settle(account_key(account), deadline=self._soon())
                return Reaped(ReapedEnd.KEPT)
            query = Query(limit=_CONTAINERS_PAGE, reverse=backwards, marker=self._markers.get(account, b""))
            page = await self._accounts.list(account, query, deadline=self._soon())
            names = [row.name for row in page.items if isinstance(row, ListedContainer)]
            if not names:
                if page.more is not None:
                    self._go_on(account, page.more)
                    return Reaped(ReapedEnd.MORE)
                if self._markers.pop(account, None) is not None:
                    return Reaped(ReapedEnd.MORE)  # once more from the beginning
                await self._accounts.forget(account, deadline=self._soon())
                return Reaped(ReapedEnd.ENDED)
        except StoreError:
            return Reaped(ReapedEnd.LATER)
        removed = containers = 0
        is_clean = True
        for name in names:
            emptied = await self._empty(ContainerName(account, name), objects_max - removed)
            removed += emptied.objects
            containers += emptied.is_gone
            is_clean = is_clean and emptied.is_clean
            if is_clean and emptied.is_gone:
                self._go_on(account, name)
            if removed >= objects_max:
                break
        is_stuck = not is_clean and not removed and not containers
        return Reaped(ReapedEnd.LATER if is_stuck else ReapedEnd.MORE, removed, containers)

    def _go_on(self, place: bytes, marker: bytes) -> None:
        """Look behind a name only from now on: before it are tombstones, as many as were removed."""
        self._markers[place] = marker
        if len(self._markers) > _MARKERS_MAX:
            del self._markers[next(iter(self._markers))]

    async def _empty(self, name: ContainerName, objects_max: int) -> "_Emptied":
        """Remove up to so many objects of a container, and the container if that was all."""
        removed = 0
        try:
            while removed < objects_max:
                marker = self._markers.get(name.path, b"")
                query = Query(limit=objects_max - removed, marker=marker)
                page = await self._containers.list(name, query, deadline=self._soon())
                names = [row.name for row in page.items if isinstance(row, ListedObject)]
                if not names and page.more is None:
                    self._markers.pop(name.path, None)
                    if marker:
                        continue  # once more from the beginning
                    await self._containers.delete(name, deadline=self._soon())
                    return _Emptied(removed, is_gone=True)
                gone = await asyncio.gather(*(self._delete(ObjectName(*name, each)) for each in names))
                removed += sum(gone)
                if not all(gone):
                    return _Emptied(removed, is_clean=False)
                self._go_on(name.path, page.more or names[-1])
        except StoreError:
            # Too few owners answered; or it is gone and its account will hear of that; or something was written just now.
            return _Emptied(removed, is_clean=False)
        return _Emptied(removed)

    async def _delete(self, name: ObjectName) -> bool:
        async with self._turns:
            try:
                await self._objects.delete(name, deadline=self._soon())
            except StoreError:
                return False
            return True

    def _soon(self) -> float:
        return self._registers.nodes.now() + PATIENCE_S


class _Emptied(NamedTuple):
    """What became of one container."""

    objects: int
    is_gone: bool = False
    is_clean: bool = True
    """Nothing stood in the way."""
