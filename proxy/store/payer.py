"""The payer: one debt that its writer did not pay, paid for the device that holds it.

Owns the order: what is chosen at the key is made certain first, then its row is brought to its listing, then the debt is
cleared at all owners; or the debt is dropped, where the container's incarnation is gone. A device's updater asks for it,
and neither knows the other: the composition root brings them together.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from proxy.cluster.decisions import Outcome
from proxy.cluster.placement import Key
from proxy.cluster.register import Registers
from proxy.store.containers import Containers
from proxy.store.errors import NoSuchContainer, StoreError
from proxy.store.freeing import LateParts
from proxy.store.names import ContainerName, ObjectName
from proxy.store.object_listing import ListedEnd, ObjectListing
from proxy.store.rows import Rows, Upserted
from proxy.store.usage import UsageCarrier
from ring.device import Device
from swiftlike.entries import Entry, Version
from swiftlike.listed import Payment, row_of, split_path
from swiftlike.node_calls import CONTAINERS
from swiftlike.node_client import NodeFailed
from swiftlike.timestamps import NO_INCARNATION


class Payer:
    """Pays what others left unpaid; what a storage node's updater asks for."""

    def __init__(
        self,
        registers: Registers,
        containers: Containers,
        listing: ObjectListing,
        rows: Rows,
        usage: UsageCarrier,
        late_parts: LateParts,
    ) -> None:
        """Take what it stands on."""
        self._late_parts: Final = late_parts
        self._registers: Final = registers
        self._containers: Final = containers
        self._usage: Final = usage
        self._listing: Final = listing
        self._rows: Final = rows

    async def pay(self, table: bytes, path: bytes, version: Version, timeout_s: float) -> Payment:
        """Pay the debt of a key, owed by this version; the world's faults are an answer, not an exception."""
        deadline = self._registers.nodes.now() + timeout_s
        incarnation = NO_INCARNATION if table == CONTAINERS else version.ballot.incarnation
        key = Key(table, path, incarnation, owes=True)
        try:
            chosen = await self._chosen(key, version, deadline)
            if chosen is None:
                return Payment.LATER
            if chosen.ballot.incarnation > incarnation:
                # Of a newer container: that write owes its own row, and the old one's listing is gone.
                end = ListedEnd.GONE
            elif table == CONTAINERS:
                upserted = await self._rows.upsert(row_of(table, path, chosen), deadline=deadline)
                end = ListedEnd.LISTED if upserted is Upserted.TAKEN else ListedEnd.UNKNOWN
            else:
                parts = split_path(path)
                container = ContainerName(parts.account, parts.container)
                await self._late_parts.mark(ObjectName(*parts), chosen, deadline=deadline)
                end = await self._listing.list(key, container, chosen, chosen.write_id, deadline=deadline)
                if end is ListedEnd.LISTED:
                    await self._mark(container, deadline)
        except StoreError:
            return Payment.LATER
        if end is ListedEnd.UNKNOWN:
            return Payment.LATER
        await self._clear(key, dict.fromkeys((version, chosen.version)), deadline)
        return Payment.PAID if end is ListedEnd.LISTED else Payment.DROPPED

    async def _mark(self, name: ContainerName, deadline: float) -> None:
        """Have the account hear of what its container holds now: the writer, which would have seen to it, is gone."""
        try:
            info, _ = await self._containers.look(name, deadline=deadline)
        except NoSuchContainer:
            return
        self._usage.mark(info)

    async def _chosen(self, key: Key, version: Version, deadline: float) -> Entry | None:
        """Return what is chosen at a key; None when nobody can say now.

        What a majority holds is chosen. If that is not what owes, the key is settled: the device may hold an entry that
        was offered to few, and whose writer is dead. If no owner holds that one, all that hear of this promise never
        will.
        """
        read = await self._registers.read(key, deadline=deadline, inline_bytes=0)
        if read.is_known and read.entry is not None:
            is_newer = read.entry.ballot.incarnation > key.incarnation
            if read.entry.version == version or (is_newer and key.incarnation != NO_INCARNATION):
                return read.entry
        settled = await self._registers.settle(key, above=version.ballot, deadline=deadline)
        return settled.entry if settled.outcome is Outcome.REFUSED else None

    async def _clear(self, key: Key, versions: Iterable[Version], deadline: float) -> None:
        """Clear the debts at all owners; at one that does not answer, its own updater does."""
        nodes, placement = self._registers.nodes, self._registers.nodes.place(key)
        debts = [(key.path, version) for version in versions]

        async def clear(device: Device) -> None:
            try:
                await nodes.client(placement, device, deadline).pay(key.table, debts)
            except NodeFailed as failure:
                nodes.heed(placement, failure)

        async with asyncio.TaskGroup() as payments:
            for device in placement.devices.values():
                payments.create_task(clear(device))
