"""Uploads: one body on its way to all owners of its key at once, at the pace of the slowest that keeps up.

Owns a stream to each owner, the one chunk that is under way, and whom it is worth waiting for. Never issues a ballot and
never decides what an answer means: the body is committed by writing it (`Registers.write`, `write_if`), which offers it
on these streams, under the placement of that moment, and as often as it takes.

An owner that fails, or that stalls while enough others go on, is dropped; its copy is made later, from one that holds
the body. Nothing is queued: a chunk that is larger than what an owner's window takes waits in its sender's hands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final, TypeVar

from proxy.cluster.nodes import Nodes, is_full
from proxy.cluster.placement import Placement
from proxy.cluster.quorum import Answer, Need, Verdict, can_be_written_without, judge
from proxy.cluster.rounds import Patience, Round, Stragglers
from ring.device import Device, DeviceId
from swiftlike.entries import Entry
from swiftlike.limits import STREAM_MESSAGE_BYTES
from swiftlike.node_calls import Acceptance, Method
from swiftlike.node_client import NodeClient, NodeFailed, PutStream
from swiftlike.rpc.transport import Body, Outcome, Reply
from swiftlike.timestamps import Offer, WriteId

T = TypeVar("T")


class TooFewOwners(Exception):
    """So many owners are down, full or too slow that a body cannot be stored; nothing of it is."""

    def __init__(self, *, is_full: bool) -> None:
        """`is_full`: those that have no space left are enough to make it impossible."""
        why = "have only their reserve of space left" if is_full else "are down, full or too slow"
        super().__init__(f"too many owners {why}: nothing was stored; send the body again later")
        self.is_full = is_full


class Lane:
    """The way of a body to one owner. One thing at a time is done on it; what fails, or is cut short, ends it."""

    def __init__(self, client: NodeClient, device: Device) -> None:
        self.device: Final = device
        self.failure: NodeFailed | None = None
        """Why it ended early; None while it is open, and once the owner has accepted the body."""
        self._client = client
        self._stream: PutStream | None = None
        self._holder: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()
        self._given_up = False

    @property
    def is_open(self) -> bool:
        """Whether the owner takes more of the body, or a commit."""
        return self._stream is not None and self._stream.is_open and not self._ended.is_set()

    @property
    def message_bytes(self) -> int:
        """What the owner takes in one message; with fewer streams open it is more."""
        return STREAM_MESSAGE_BYTES if self._stream is None else self._stream.message_bytes

    async def open(
        self, placement: Placement, body_id: WriteId, size: int | None, patience: Patience, owner: Stragglers
    ) -> bool:
        """Open the stream, and say whether the device takes the body. `owner` owns the task that holds it open."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._holder = owner.spawn(self._hold(placement, body_id, size, patience, opened))
        await opened
        return self.is_open

    async def send(self, chunk: Body) -> bool:
        """Send more of the body, and say whether the device took it."""
        try:
            await self._do(lambda stream: stream.send(chunk))
        except NodeFailed:
            return False
        return True

    async def commit(
        self, entry: Entry, offer: Offer, *, owing: bool, epoch: int, deadline: float
    ) -> Acceptance:
        """Offer the entry that the body belongs to; refused, the body may be offered again. Raises NodeFailed."""

        async def commit(stream: PutStream) -> Acceptance:
            async with asyncio.timeout_at(deadline):
                return await stream.commit(entry, offer=offer, owing=owing, epoch=epoch)

        return await self._do(commit)

    def give_up(self) -> None:
        """End it, once what is under way on it has ended: nobody will send or commit more."""
        self._given_up = True
        if not self._turn.locked():
            self._end()

    def drop(self, code: str, reason: str) -> None:
        """End it at once: the device is too slow."""
        self._fail(Reply(Outcome.UNKNOWN, code=code, reason=reason))

    async def _do(self, work: Callable[[PutStream], Awaitable[T]]) -> T:
        async with self._turn:
            if self._stream is None or not self.is_open:
                raise self.failure or self._failed(Reply(Outcome.NOT_SENT, code="ended", reason="it ended"))
            try:
                return await work(self._stream)
            except NodeFailed as failure:
                if not self._stream.is_open:
                    self.failure = failure
                raise
            except TimeoutError:
                self.drop("timeout", "the device did not answer before the deadline")
                assert self.failure is not None
                raise self.failure from None
            except asyncio.CancelledError:
                self.drop("left", "the message was cut short")
                raise
            finally:
                if self._given_up or not self._stream.is_open:
                    self._end()

    async def _hold(
        self,
        placement: Placement,
        body_id: WriteId,
        size: int | None,
        patience: Patience,
        opened: "asyncio.Future[None]",
    ) -> None:
        """Hold the stream open until the lane ends, and tell a device that waits for its caller that we are here."""
        key = placement.key
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(patience.open_s):
                    self._stream = await stack.enter_async_context(
                        self._client.put_stream(key.table, key.path, body_id, size)
                    )
                _wake(opened)
                while not self._ended.is_set():
                    try:
                        async with asyncio.timeout(patience.keep_alive_s):
                            await self._ended.wait()
                    except TimeoutError:
                        if not self._turn.locked():
                            await self._do(lambda stream: stream.send(b""))
        except NodeFailed as failure:
            self.failure = self.failure or failure
        except TimeoutError:
            self._fail(Reply(Outcome.NOT_SENT, code="timeout", reason="it was not opened in time"))
        finally:
            self._ended.set()
            _wake(opened)

    def _fail(self, reply: Reply) -> None:
        self.failure = self.failure or self._failed(reply)
        self._end()

    def _failed(self, reply: Reply) -> NodeFailed:
        return NodeFailed(self._client.peer, Method.OFFER_STREAM, reply)

    def _end(self) -> None:
        self._ended.set()
        if self._stream is None and self._holder is not None:
            self._holder.cancel()  # it waits for nothing else


class StreamedUpload:
    """A body on its way to the owners of its key; see `Registers.open_upload`."""

    def __init__(
        self,
        nodes: Nodes,
        placement: Placement,
        body_id: WriteId,
        size: int | None,
        patience: Patience,
        stragglers: Stragglers,
    ) -> None:
        """Take where it goes, its name, and how long it will be, if that is known."""
        self.body_id: Final = body_id
        self.sent_bytes = 0
        self._size = size
        self._placement = placement
        self._patience = patience
        self._stragglers = stragglers
        deadline = nodes.now() + patience.upload_s
        self._lanes = {
            owner: Lane(nodes.client(placement, placement.devices[owner], deadline), placement.devices[owner])
            for owner in placement.owners.everyone
        }

    async def open(self) -> None:
        """Ask all owners whether they take the body. Raises TooFewOwners."""
        async with Round[bool](self._stragglers) as asked:
            for owner, lane in self._lanes.items():
                opening = lane.open(
                    self._placement, self.body_id, self._size, self._patience, self._stragglers
                )
                asked.ask(owner, opening)
            await self._wait_for(asked, list(self._lanes), self._patience.join_s)

    @property
    def piece_bytes(self) -> int:
        """How much of the body is best sent at once: what travels in one message to each owner."""
        return min((lane.message_bytes for lane in self._lanes.values()), default=0)

    async def send(self, chunk: Body) -> None:
        """Send more of the body to all owners that keep up, and return when each has taken it. Raises TooFewOwners.

        The chunk is shared by all of them, and must not change afterwards.
        """
        live = [owner for owner, lane in self._lanes.items() if lane.is_open]
        async with Round[bool](self._stragglers) as asked:
            for owner in live:
                asked.ask(owner, self._lanes[owner].send(chunk))
            await self._wait_for(asked, live, self._patience.stall_s)
        self.sent_bytes += len(chunk)

    async def _wait_for(self, asked: Round[bool], live: list[DeviceId], patience_s: float) -> None:
        """Wait for enough owners, and then a while for the others; drop whoever needs longer than that."""
        gone = dict.fromkeys((owner for owner in self._lanes if owner not in live), False)
        await asked.until(lambda heard: self._verdict({**gone, **heard}) is not Verdict.UNDECIDED)
        if self._verdict({**gone, **asked.answers}) is Verdict.REACHED:
            await asked.until(lambda heard: len(heard) == len(live), patience_s)
        for owner in live:
            if owner not in asked.answers:
                self._lanes[owner].drop("stalled", f"it needed {patience_s:g} s longer than the others")
        if self._verdict({**gone, **asked.answers}) is not Verdict.REACHED:
            failures = (self._lanes[owner].failure for owner in self._lanes)
            raise TooFewOwners(is_full=self._is_full()) from next(filter(None, failures), None)

    def lane(self, device: Device) -> Lane | None:
        """Return the open lane to a device, if it is still the one to which it was opened."""
        lane = self._lanes.get(device.id)
        if lane is None or not lane.is_open:
            return None
        return lane if _identity(lane.device) == _identity(device) else None

    def close(self) -> None:
        """Give up what was not accepted; a commit that is under way goes on to its end."""
        for lane in self._lanes.values():
            lane.give_up()

    def _verdict(self, taken: Mapping[DeviceId, bool]) -> Verdict:
        # Whether they vote is known at the commit only.
        answers = {owner: Answer.VOTE if is_taken else Answer.NO for owner, is_taken in taken.items()}
        return judge(self._placement.owners, Need.WRITE, answers)

    def _is_full(self) -> bool:
        full = [owner for owner, lane in self._lanes.items() if lane.failure and is_full(lane.failure)]
        return not can_be_written_without(self._placement.owners, full)


def _identity(device: Device) -> tuple[object, ...]:
    return device.host, device.port, device.uuid


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
