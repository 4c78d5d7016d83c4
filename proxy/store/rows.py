"""Rows: upserted at a majority of a listing's owners, those bound for one device in one call.

Owns the batches: what is handed in during one turn of the loop travels together, so that many small writes at once cost
each device one transaction for their rows. Never decides which row an entry has, nor what a refusal means for a write.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import Final, NamedTuple

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Key, Placement
from proxy.cluster.quorum import Answer, Need, Verdict, judge
from proxy.cluster.rounds import Patience, Stragglers
from ring.device import DeviceId
from swiftlike.limits import ROWS_BATCH_BYTES_MAX, ROWS_BATCH_MAX
from swiftlike.listed import Listed
from swiftlike.node_calls import Code, PackedRow, RowOffer, RowRefused, RowTaken, pack_row
from swiftlike.node_client import Asked, NodeClient, NodeFailed
from swiftlike.rpc.transport import Outcome, Reply
from swiftlike.timestamps import ZERO_BALLOT, Ballot

_ROW_BYTES: Final = 16
"""What a row takes beside its names and its entry, at most."""


class Upserted(Enum):
    """What became of a row."""

    TAKEN = "a majority has it"
    CLOSING = "refused: its container is being deleted, or its owners hold different entries of it: settle it"
    GONE = "refused: its incarnation of the container is gone"
    UNAVAILABLE = "too few owners answered; it may be there, and its debt stands"


class Rows:
    """The way of this process's rows to their listings."""

    def __init__(self, nodes: Nodes, stragglers: Stragglers, patience: Patience) -> None:
        """Take how devices are called, who owns the calls, and how long one may take."""
        self._nodes: Final = nodes
        self._stragglers: Final = stragglers
        self._patience: Final = patience
        self._loop: Final = asyncio.get_running_loop()
        self._waiting: dict[_Bound, list[_Row]] = {}

    async def upsert(self, listed: Listed, *, deadline: float) -> Upserted:
        """Bring a row to a majority of its listing's owners; tries again while too few answer."""
        for attempt in range(self._patience.write_attempts_max):
            if attempt:
                pause_s = self._patience.back_off_s * 2**attempt
                if self._nodes.now() + pause_s >= deadline:
                    break
                await asyncio.sleep(pause_s)
            upserted = await self._offer(listed, deadline)
            if upserted is not Upserted.UNAVAILABLE:
                return upserted
        return Upserted.UNAVAILABLE

    async def _offer(self, listed: Listed, deadline: float) -> Upserted:
        placement = self._nodes.place(Key(listed.table, listed.row.parent))
        row = _Row(placement, listed.row)
        for owner in placement.owners.everyone:
            bound = _Bound(owner, listed.table, placement.epoch)
            waiting = self._waiting.get(bound)
            if waiting is None:
                waiting = self._waiting[bound] = []
                self._loop.call_soon(self._send, bound)
            waiting.append(row)
        late = self._loop.call_at(deadline, row.end)
        try:
            await row.ended
        finally:
            late.cancel()
        return row.upserted

    def _send(self, bound: "_Bound") -> None:
        for rows in _batches(self._waiting.pop(bound)):
            self._upsert_on(bound, rows)

    def _upsert_on(self, bound: "_Bound", rows: Sequence["_Row"]) -> None:
        """Offer rows to one device; each will hear what became of it there."""
        client = self._client(bound, rows[0].placement)
        asked = client.ask_upsert_rows(bound.table, [row.packed for row in rows])
        asked.reply.add_done_callback(partial(self._hear, bound, rows, asked))
        self._stragglers.leave(asked.reply)

    def _client(self, bound: "_Bound", placement: Placement) -> NodeClient:
        deadline = self._nodes.now() + self._patience.round_s
        return self._nodes.client(placement, placement.devices[bound.device], deadline)

    def _hear(
        self,
        bound: "_Bound",
        rows: Sequence["_Row"],
        asked: Asked[list[RowTaken | RowRefused]],
        reply: "asyncio.Future[Reply]",
    ) -> None:
        """Tell each row what became of it at one device, also when the call was dropped: somebody waits for it."""
        answers: Sequence[RowTaken | RowRefused | None] = [None] * len(rows)
        try:
            if not reply.cancelled():
                answers = asked.read(reply.result())
        except NodeFailed as failure:
            self._nodes.heed(rows[0].placement, failure)
            if len(rows) > 1 and _is_of_some(failure):
                self._stragglers.leave(self._stragglers.spawn(self._upsert_each(bound, rows)))
                rows = answers = ()
        finally:
            for row, answer in zip(rows, answers, strict=True):
                row.hear(bound.device, answer)

    async def _upsert_each(self, bound: "_Bound", rows: Sequence["_Row"]) -> None:
        """Offer rows to one device one by one.

        A batch is one transaction, so one listing that takes no rows just now holds up those of all others in it.
        """
        left = deque(rows)
        try:
            while left:
                row = left[0]
                asked = self._client(bound, row.placement).ask_upsert_rows(bound.table, [row.packed])
                await asked.reply
                self._hear(bound, [left.popleft()], asked, asked.reply)
        finally:
            for row in left:
                row.hear(bound.device, None)


def _is_of_some(failure: NodeFailed) -> bool:
    """Say whether a batch failed as one of its rows alone may have."""
    return failure.reply.outcome is Outcome.ERROR and failure.reply.code == Code.STORAGE_ERROR


class _Bound(NamedTuple):
    """Where rows travel together."""

    device: DeviceId
    table: bytes
    epoch: int


class _Row:
    """One row on its way to the owners of its listing."""

    __slots__ = ("_answers", "_is_closing", "_is_refused", "ended", "packed", "placement", "upserted")

    def __init__(self, placement: Placement, offer: RowOffer) -> None:
        self.placement = placement
        self.packed: PackedRow = pack_row(offer)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.upserted = Upserted.UNAVAILABLE
        self._answers: dict[DeviceId, RowTaken | RowRefused | None] = {}
        self._is_refused = self._is_closing = False

    def hear(self, device: DeviceId, answer: RowTaken | RowRefused | None) -> None:
        """Take the answer of one owner; None when it failed."""
        if isinstance(answer, RowRefused):
            self._is_refused = True
            self._is_closing |= answer.closing
        self._answers[device] = answer
        if self.ended.done():
            return
        # Those who took it under one entry of the container count together, and only they.
        seen = {answer.container for answer in self._answers.values() if isinstance(answer, RowTaken)}
        verdicts = {self._judge(container) for container in seen or {ZERO_BALLOT}}
        if Verdict.REACHED in verdicts:
            self.upserted = Upserted.TAKEN
        elif Verdict.UNDECIDED in verdicts:
            return
        elif self._is_refused:
            self.upserted = Upserted.CLOSING if self._is_closing else Upserted.GONE
        elif len(seen) > 1:
            self.upserted = Upserted.CLOSING
        self.end()

    def end(self) -> None:
        """Let whoever waits for it go on, with what is known by now."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _judge(self, container: Ballot) -> Verdict:
        answers = {owner: _worth(answer, container) for owner, answer in self._answers.items()}
        return judge(self.placement.owners, Need.WRITE, answers)


def _worth(answer: RowTaken | RowRefused | None, container: Ballot) -> Answer:
    if not isinstance(answer, RowTaken) or answer.container != container:
        return Answer.NO
    return Answer.VOTE if answer.votes else Answer.WITNESS


def _batches(rows: list[_Row]) -> list[list[_Row]]:
    """Cut rows into batches that fit a call."""
    batches: list[list[_Row]] = [[]]
    left_bytes = ROWS_BATCH_BYTES_MAX
    for row in rows:
        row_bytes = sum(map(len, row.packed)) + _ROW_BYTES
        if batches[-1] and (len(batches[-1]) == ROWS_BATCH_MAX or row_bytes > left_bytes):
            batches.append([])
            left_bytes = ROWS_BATCH_BYTES_MAX
        batches[-1].append(row)
        left_bytes -= row_bytes
    return batches
