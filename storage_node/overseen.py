"""Overseen: the calls by which an operator's tools look at a device, and keep it from healing for a while.

Owns what these calls answer. Only `pause` and `trust` change anything, and what they change is the pause's own business, and the
replicator's.

    degraded    partitions of this device with fewer sound copies than owners, the worst first
    verify      reads the body of one entry back, block by block, and says whether there was one to read
    trust       votes on a partition on an operator's word, once everything was taken from the owners that vote and answer
    pause       takes nothing from other owners until a time, or goes on
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from storage_node.errors import BodyGone
from storage_node.keys import Key
from storage_node.pause import Pausing
from storage_node.requests import MICROS_MAX, Fields
from storage_node.store import Store
from swiftlike.limits import ITEMS_MAX
from swiftlike.node_calls import Degraded, Method, Trusted, pack_list
from swiftlike.rpc.service import Call
from swiftlike.rpc.transport import Reply

Handler = Callable[[Call, Fields], Awaitable[Reply]]

_READ_TRIES: Final = 4


class Overseeing(Protocol):
    """The replicator of this device, as far as it is watched."""

    def degraded(self) -> Sequence[Degraded]:
        """Return the partitions of this device that have fewer sound copies than owners, the worst first."""

    async def trust(self, table: bytes, partition: int) -> Trusted:
        """Vote on a partition on an operator's word. Raises StorageError when an owner that votes did not hand over everything."""


class OverseenCalls:
    """The handlers of these calls."""

    def __init__(
        self,
        store: Store,
        overseeing: Callable[[], Overseeing | None],
        pausing: Callable[[], Pausing | None],
        key_of: Callable[[Fields], Key],
        place_of: Callable[[Fields], tuple[bytes, int]],
    ) -> None:
        """Take the store, the replicator and the pause once there are any, and what returns the checked key, or table and
        partition, of a call.
        """
        self._store = store
        self._overseeing = overseeing
        self._pausing = pausing
        self._key = key_of
        self._place = place_of

    def handlers(self) -> list[tuple[Method, Handler, set[str]]]:
        """Return the methods with the fields that each knows."""
        return [
            (Method.DEGRADED, self._degraded, set()),
            (Method.VERIFY, self._verify, {"table", "epoch", "path"}),
            (Method.TRUST, self._trust, {"table", "epoch", "partition"}),
            (Method.PAUSE, self._pause, {"until_us"}),
        ]

    async def _degraded(self, call: Call, fields: Fields) -> Reply:
        overseeing = self._overseeing()
        if overseeing is None:
            fields.refuse("this device has no replicator: start it as a storage node")
        return Reply(body=pack_list(overseeing.degraded()[:ITEMS_MAX]))

    async def _verify(self, call: Call, fields: Fields) -> Reply:
        key = self._key(fields)
        for _ in range(_READ_TRIES):
            opened = await self._store.open_object(key)
            if opened is None:
                return Reply(header={"read": False})
            _, body = opened
            try:
                async for _chunk in body.stream(0, body.size):
                    pass  # each chunk was held against its checksum
            except BodyGone:
                continue
            finally:
                body.release()
            return Reply(header={"read": True})
        raise BodyGone(f"{key.path!r} was replaced {_READ_TRIES} times while it was read: try again")

    async def _trust(self, call: Call, fields: Fields) -> Reply:
        table, partition = self._place(fields)
        overseeing = self._overseeing()
        if overseeing is None:
            fields.refuse("this device has no replicator: start it as a storage node")
        return Reply(header=(await overseeing.trust(table, partition))._asdict())

    async def _pause(self, call: Call, fields: Fields) -> Reply:
        pausing = self._pausing()
        if pausing is None:
            fields.refuse("this device has no jobs to pause: start it as a storage node")
        await pausing.set(fields.number("until_us", 0, MICROS_MAX))
        return Reply()
