"""Placing: the epoch by which a call was placed, held against the ring in use here from the door to the answer.

Owns the refusals of calls of another epoch. Never decides who owns a key.

Answers of one round count together only within one epoch. So what a majority is counted of is compared three times: at
the door; on the writer's thread, when its turn comes, since the ring may have changed while it waited; and when it is
answered, since between its turn and its commit a reader of the next epoch, such as an owner that catches up, may have
looked here and not have found it. Past that moment, whoever reads under the next epoch does.
"""

from collections.abc import Awaitable
from typing import NamedTuple, Protocol, TypeVar

from storage_node.errors import RingChanged
from swiftlike.node_calls import Code, ring_name
from swiftlike.rpc.errors import CallFailed

T = TypeVar("T")


class Rings(Protocol):
    """The epochs that a device knows; they only rise."""

    def epoch(self, table: bytes) -> int | None:
        """Return the epoch of the ring that places a table; None when there is no such ring here. From any thread."""

    def look_for_newer(self, table: bytes) -> None:
        """A caller has a newer ring: look for it soon."""


class Placing(NamedTuple):
    """How a call was placed."""

    rings: Rings
    table: bytes
    epoch: int

    def check(self) -> None:
        """Raise CallFailed unless the ring in use here is of that very epoch."""
        ours = self.rings.epoch(self.table)
        if ours is None:
            raise CallFailed(
                Code.UNKNOWN_TABLE,
                f"this device has no ring for table {self.table!r}: give it the ring of that policy",
            )
        if self.epoch < ours:
            raise self.older()
        if self.epoch > ours:
            self.rings.look_for_newer(self.table)
            raise CallFailed(
                Code.RING_NEWER,
                f"this device has epoch {ours} of ring {ring_name(self.table)}: give it epoch {self.epoch} and ask again",
                {"epoch": ours},
            )

    def is_current(self) -> bool:
        """Say whether the ring is still of that epoch. From any thread."""
        return self.rings.epoch(self.table) == self.epoch

    async def counted(self, work: Awaitable[T]) -> T:
        """Return an answer that counts towards a majority. Raises CallFailed when the ring changed before it was there.

        RING_OLDER: nothing was kept. RING_CHANGED: what was asked for may be, and must not be counted.
        """
        try:
            answer = await work
        except RingChanged:
            raise self.older() from None
        if refusal := self.changed():
            raise refusal
        return answer

    def changed(self) -> CallFailed | None:
        """Return why an answer does not count that is there now; None where it does."""
        if self.is_current():
            return None
        return CallFailed(
            Code.RING_CHANGED,
            f"ring {ring_name(self.table)} went on from epoch {self.epoch} while this was done, so it does not "
            "count: fetch the newer ring and ask again",
            {"epoch": self.rings.epoch(self.table)},
        )

    def older(self) -> CallFailed:
        """Return why nothing was kept of what a caller placed by an older ring."""
        ours = self.rings.epoch(self.table)
        return CallFailed(
            Code.RING_OLDER,
            f"the call was placed by epoch {self.epoch} of ring {ring_name(self.table)}: fetch epoch {ours} and place it "
            "again",
            {"epoch": ours},
        )
