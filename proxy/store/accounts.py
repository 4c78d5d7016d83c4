"""Accounts: registers of their own, listed nowhere, which list their containers.

Owns that an account comes to be with its first container, and what a deleted one is: it stands there with a mark, for the
reaper, until all that it held is removed.
"""

from collections import OrderedDict
from typing import Final

from proxy.cluster.decisions import Judge, is_present
from proxy.cluster.register import Registers
from proxy.store.errors import AccountDeleted, NoSuchAccount
from proxy.store.listings import Listings
from proxy.store.names import account_key
from proxy.store.outcomes import is_done, known, write_wish
from proxy.store.values import (
    AccountInfo,
    Attributes,
    ContainerPage,
    Describe,
    ListedContainer,
    ListedPrefix,
    Usage,
    attributes_of,
    micros_of,
)
from swiftlike.entries import Entry, pack_metadata
from swiftlike.node_calls import Query
from swiftlike.reaping import DELETED, deleted_us
from swiftlike.timestamps import Ballot, WriteId

CACHED_S: Final = 1.0
"""How long an account is believed not to be deleted."""
ACCOUNTS_CACHED_MAX: Final = 10_000


class Accounts:
    """The accounts of the cluster."""

    def __init__(self, registers: Registers, listings: Listings) -> None:
        """Take the registers, and who reads listings."""
        self._registers: Final = registers
        self._listings: Final = listings
        self._lived: Final[OrderedDict[bytes, float]] = OrderedDict()
        """Accounts that were not deleted, and when that was asked, the earliest first."""

    async def read(self, account: bytes, *, deadline: float) -> AccountInfo:
        """Return an account; one that is not written yet has no attributes. Raises AccountDeleted, Unavailable."""
        read = known(await self._registers.read(account_key(account), deadline=deadline, inline_bytes=0))
        if read.entry is None or read.entry.tombstone:
            return AccountInfo(account, None, {})
        attributes = attributes_of(read.entry)
        if DELETED in attributes:
            raise AccountDeleted
        return AccountInfo(account, read.entry, attributes)

    async def expect_alive(self, account: bytes, *, deadline: float) -> None:
        """Go on if an account was not deleted a second ago: what is written to one that was would be removed with it.

        Raises AccountDeleted, Unavailable.
        """
        now = self._registers.nodes.now()
        if self._lived.get(account, -CACHED_S) > now - CACHED_S:
            return
        await self.read(account, deadline=deadline)
        self._lived[account] = now
        self._lived.move_to_end(account)
        if len(self._lived) > ACCOUNTS_CACHED_MAX:
            self._lived.popitem(last=False)

    async def usage(self, account: bytes, *, deadline: float) -> Usage:
        """Return what an account holds in all its containers; what was written within the last second may be missing."""
        return await self._listings.usage_of_account(account, deadline=deadline)

    async def write(self, account: bytes, describe: Describe, *, deadline: float) -> bool:
        """Describe an account anew; say whether it was created. One that is described so already is not written again.

        Raises AccountDeleted, Unavailable, OutcomeUnknown.
        """
        is_new = is_deleted = False

        def judge_for(write_id: WriteId) -> Judge:
            def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
                nonlocal is_new, is_deleted
                is_new = newest is None or newest.tombstone
                before: Attributes = {} if newest is None or is_new else attributes_of(newest)
                is_deleted = DELETED in before
                if is_deleted:
                    return None
                described = dict(describe(before))
                if described == before and not is_new:
                    return None
                # What clients are shown is when the account came to be, not when it was described last.
                created_us = micros_of(write_id) if newest is None or is_new else newest.modified
                return Entry(ballot, write_id, created_us, metadata=pack_metadata(described), objects=0)

            return judge

        written = await write_wish(self._registers, account_key(account), judge_for, deadline=deadline)
        if not is_done(written) and is_deleted:
            raise AccountDeleted
        return is_new

    async def ensure(self, account: bytes, *, deadline: float) -> None:
        """Make sure that an account is there. Raises AccountDeleted, Unavailable, OutcomeUnknown."""
        if (await self.read(account, deadline=deadline)).entry is None:
            await self.write(account, lambda attributes: attributes, deadline=deadline)

    async def delete(self, account: bytes, *, deadline: float) -> None:
        """Mark an account for the reaper, which removes what it holds, and then the account.

        Raises NoSuchAccount, AccountDeleted, Unavailable, OutcomeUnknown.
        """
        write_id = self._registers.new_write_id()
        modified = micros_of(write_id)
        is_deleted = False

        def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
            nonlocal is_deleted
            if newest is None or not is_present(newest, ballot.micros):
                return None
            attributes = attributes_of(newest)
            is_deleted = DELETED in attributes
            if is_deleted:
                return None
            metadata = pack_metadata(attributes | {DELETED: str(modified)})
            return newest._replace(write_id=write_id, modified=modified, metadata=metadata)

        if not is_done(await self._registers.write_if(account_key(account), judge, deadline=deadline)):
            raise AccountDeleted if is_deleted else NoSuchAccount

    async def forget(self, account: bytes, *, deadline: float) -> bool:
        """Remove an account that is marked and lists nothing any more; False where it is not marked.

        Its name may then be used again. Raises Unavailable, OutcomeUnknown.
        """
        write_id = self._registers.new_write_id()
        modified = int.from_bytes(write_id[:8], "big")

        def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
            if deleted_us(newest) is None:
                return None
            return Entry(ballot, write_id, modified, tombstone=True, objects=0)

        return is_done(await self._registers.write_if(account_key(account), judge, deadline=deadline))

    async def list(self, account: bytes, query: Query, *, deadline: float) -> ContainerPage:
        """Return a page of an account's containers."""
        page = await self._listings.page_of_account(account, query, deadline=deadline)
        items = tuple(
            ListedPrefix(row.name)
            if row.entry is None
            else ListedContainer(
                row.name, row.entry.objects, row.entry.size, row.entry.policy, row.entry.modified
            )
            for row in page.rows
        )
        return ContainerPage(items, page.more)
