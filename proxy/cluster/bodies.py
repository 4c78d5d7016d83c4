"""Bodies: bringing one to a copy that lacks it, and reading one from whoever is left.

Owns the way from owner to owner at one body id. Never decides which version is right: an entry names its body, and a
body id names the same bytes for ever, so any owner that holds it can go on where another one died.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Final

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Placement
from proxy.cluster.rounds import Patience
from ring.device import Device, DeviceId
from swiftlike.entries import Entry
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.node_calls import Acceptance
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import Offer


class BodyUnavailable(Exception):
    """No owner that answers holds this body; `sent_bytes` of it were read before."""

    def __init__(self, entry: Entry, sent_bytes: int) -> None:
        super().__init__(
            f"no owner that answers holds body {entry.body_id.hex()} from byte {sent_bytes} on: "
            "begin the read again if none of it was sent, or wait until the owners are back"
        )
        self.sent_bytes = sent_bytes


class Bodies:
    """The bodies of a cluster's objects."""

    def __init__(self, nodes: Nodes, patience: Patience) -> None:
        self._nodes: Final = nodes
        self._copies = asyncio.Semaphore(patience.copies_max)

    async def fetch(
        self, placement: Placement, entry: Entry, holders: Iterable[DeviceId], deadline: float
    ) -> Body | None:
        """Fetch a small body from the first of `holders` that has it; None when none of them does."""
        assert entry.size <= RPC_BODY_BYTES_MAX, "a larger body is streamed"
        if entry.size == 0:
            return b""
        for holder in holders:
            client = self._nodes.client(placement, placement.devices[holder], deadline)
            try:
                found = await client.get(placement.key.table, placement.key.path)
            except NodeFailed as failure:
                self._nodes.heed(placement, failure)
                continue
            if found.body is not None and found.entry is not None and found.entry.body_id == entry.body_id:
                return found.body
        return None

    async def fill(self, placement: Placement, lacking: Device, entry: Entry, deadline: float) -> bool:
        """Bring a body to an owner that accepted its entry without it; say whether it is whole now."""
        key = placement.key
        others = [owner for owner in placement.owners.everyone if owner != lacking.id]
        target = self._nodes.client(placement, lacking, deadline)
        try:
            if entry.size <= RPC_BODY_BYTES_MAX:
                body = await self.fetch(placement, entry, others, deadline)
                return body is not None and await target.fill(key.table, key.path, entry.body_id, body)
            async with self._copying(placement, entry, others, deadline) as chunks:
                return await target.fill_stream(key.table, key.path, entry.body_id, chunks, entry.size)
        except NodeFailed as failure:
            self._nodes.heed(placement, failure)
        except (BodyUnavailable, TimeoutError):
            pass  # whoever holds it is down; the entry there does not count, and the caller hears just that
        return False

    async def bring(
        self,
        placement: Placement,
        target: Device,
        entry: Entry,
        offer: Offer,
        deadline: float,
        *,
        owing: bool = False,
    ) -> Acceptance | None:
        """Offer an entry with its body to a device that has neither; None when the body could not be brought."""
        key = placement.key
        others = [owner for owner in placement.owners.everyone if owner != target.id]
        client = self._nodes.client(placement, target, deadline)
        try:
            if entry.size <= RPC_BODY_BYTES_MAX:
                body = await self.fetch(placement, entry, others, deadline)
                if body is None:
                    return None
                return await client.offer(key.table, key.path, entry, body, offer=offer, owing=owing)
            async with (
                self._copying(placement, entry, others, deadline) as chunks,
                client.put_stream(key.table, key.path, entry.body_id, entry.size) as stream,
            ):
                async for chunk in chunks:
                    await stream.send(chunk)
                return await stream.commit(entry, offer=offer, owing=owing)
        except NodeFailed as failure:
            self._nodes.heed(placement, failure)
        except (BodyUnavailable, TimeoutError):
            pass  # as above: one copy fewer until the owner is back
        return None

    @asynccontextmanager
    async def _copying(
        self, placement: Placement, entry: Entry, holders: Iterable[DeviceId], deadline: float
    ) -> AsyncIterator[AsyncIterator[Body]]:
        """Wait for a turn, then stream a whole body."""
        async with asyncio.timeout_at(deadline), self._copies:
            chunks = self.stream(placement, entry, holders, 0, entry.size, deadline)
            async with aclosing(chunks):
                yield chunks

    async def stream(
        self,
        placement: Placement,
        entry: Entry,
        holders: Iterable[DeviceId],
        start: int,
        stop: int,
        deadline: float,
    ) -> AsyncGenerator[Body]:
        """Yield the bytes `[start, stop)` of a body. An owner that dies is replaced at the same offset and body.

        Raises BodyUnavailable when no holder is left. Close it (`aclosing`) when leaving before the end.
        """
        at = start
        for holder in holders:
            if at == stop:
                return
            client = self._nodes.client(placement, placement.devices[holder], deadline)
            try:
                async for chunk in _chunks(client, placement, entry, at, stop):
                    at += len(chunk)
                    yield chunk
            except NodeFailed as failure:
                self._nodes.heed(placement, failure)
        if at < stop:
            raise BodyUnavailable(entry, at - start)


async def _chunks(
    client: NodeClient, placement: Placement, entry: Entry, start: int, stop: int
) -> AsyncIterator[Body]:
    key = placement.key
    async with client.get_stream(key.table, key.path, start, stop, body_id=entry.body_id) as (_, chunks):
        async for chunk in chunks:
            yield chunk
