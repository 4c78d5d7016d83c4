"""Expiring: one object that a device found due, deleted through its register, row included.

Owns what may be deleted: the very write that the device holds, only if that is what is chosen and due, by compare-and-swap,
so that whatever was written or described anew since stays. The object need not be reachable any more: its container may be
gone, or have been made anew, since due objects do not keep one from being deleted.

Where something else is chosen it is carried through to all owners, so that a device which missed it learns of it and does
not ask again.
"""

from typing import Final

from proxy.cluster.decisions import Outcome
from proxy.cluster.placement import Key
from proxy.cluster.register import Registers, Written
from proxy.store.containers import Containers
from proxy.store.debts import Debts
from proxy.store.errors import StoreError
from proxy.store.names import ContainerName
from proxy.store.object_listing import ListedEnd, ObjectListing, tombstone_of
from proxy.store.outcomes import known
from proxy.store.replacing import Replacing
from proxy.store.upload_names import UploadName
from proxy.store.usage import UsageCarrier
from swiftlike.entries import Entry, Version
from swiftlike.expiry import Expiry
from swiftlike.listed import split_path
from swiftlike.timestamps import Ballot


class Expiring:
    """Deletes what is due; what a storage node's expirer asks for."""

    def __init__(
        self,
        registers: Registers,
        containers: Containers,
        listing: ObjectListing,
        replacing: Replacing,
        debts: Debts,
        usage: UsageCarrier,
    ) -> None:
        """Take what it stands on."""
        self._registers: Final = registers
        self._containers: Final = containers
        self._listing: Final = listing
        self._replacing: Final = replacing
        self._debts: Final = debts
        self._usage: Final = usage

    async def expire(self, table: bytes, path: bytes, version: Version, timeout_s: float) -> Expiry:
        """Delete an object if this version of it is chosen and due; the world's faults are an answer, not an exception."""
        deadline = self._registers.nodes.now() + timeout_s
        key = Key(table, path, version.ballot.incarnation, owes=True)
        try:
            written = await self._delete(key, version, deadline)
            if written.outcome is Outcome.DONE:
                await self._list(key, written.entry, deadline)
                return Expiry.DELETED
            if written.above.incarnation > key.incarnation:
                # The container was made anew, and something was written there: let this device hear of that.
                newer = key._replace(incarnation=written.above.incarnation)
                written = await self._registers.settle(newer, deadline=deadline)
        except StoreError:
            return Expiry.LATER
        return Expiry.KEPT if written.outcome is Outcome.REFUSED else Expiry.LATER

    async def _delete(self, key: Key, version: Version, deadline: float) -> Written:
        tombstone = tombstone_of(self._registers.new_write_id(), key.table[1])

        def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
            is_it = newest is not None and newest.write_id == version.write_id and not newest.tombstone
            is_due = newest is not None and 0 < newest.delete_at <= ballot.micros
            return tombstone if is_it and is_due else None

        parts = split_path(key.path)
        bucket = ContainerName(parts.account, parts.container)
        upload = UploadName(bucket, key.incarnation, key.table[1], parts.name, "")
        return await self._replacing.write_if(key, upload, judge, deadline=deadline)

    async def _list(self, key: Key, entry: Entry | None, deadline: float) -> None:
        """Bring the row to its listing, and clear the debt; whatever does not come to its end here, an updater pays."""
        parts = split_path(key.path)
        name = ContainerName(parts.account, parts.container)
        try:
            if entry is None:  # what was written was replaced since; that one stands now
                entry = known(await self._registers.read(key, deadline=deadline, inline_bytes=0)).entry
                assert entry is not None, "what was written leaves a tombstone at least"
            end = await self._listing.list(key, name, entry, entry.write_id, deadline=deadline)
            if end is ListedEnd.UNKNOWN:
                return
            self._debts.pay_later(key, entry.version)
            if end is ListedEnd.LISTED:
                container, _ = await self._containers.look(name, deadline=deadline)
                self._usage.mark(container)
        except StoreError:
            return  # the tombstone stands and owes its row; of a container that is gone nobody counts what it holds
