"""Looks: what stands at a key, asked of its owners for a read.

Owns the calls of one read and what was heard of them so far. Never decides whom to ask, nor what is enough. A read is all
that most clients want, so what `rounds` does for any question is done here for this one: without a future, a task or a timer
for each.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeAlias

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Placement
from proxy.cluster.rounds import Pace
from ring.device import DeviceId
from swiftlike.entries import Entry, decode
from swiftlike.node_calls import Found, Method
from swiftlike.node_client import NodeFailed, read_found
from swiftlike.rpc.transport import Address, Reply, Told

Enough: TypeAlias = Callable[[Mapping[DeviceId, Found]], bool]

_GET: Final = str(Method.GET)
_SILENT: Final = Found(None, whole=False, votes=False)


class Waits:
    """The moments at which looks stop to wait, under one timer: nearly all have heard enough long before.

    They wait equally long, but for what `Pace` changes; so one that is to stop earlier than another that began before may
    wait as long as that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the loop, whose clock counts."""
        self.loop: Final = loop
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, waiter: "asyncio.Future[None]", patience_s: float) -> None:
        """Wake a waiter after some time, unless `end` comes first."""
        at = self._waiting[waiter] = self.loop.time() + patience_s
        if self._timer is None:
            self._timer = self.loop.call_at(at, self._pass)

    def end(self, waiter: "asyncio.Future[None]") -> None:
        """Wake it no more."""
        self._waiting.pop(waiter, None)

    def _pass(self) -> None:
        self._timer = None
        now = self.loop.time()
        for waiter, at in list(self._waiting.items()):
            if at > now:
                self._timer = self.loop.call_at(at, self._pass)
                return
            del self._waiting[waiter]
            _wake(waiter)


class Look:
    """The calls of one read; `stop` them in the end."""

    __slots__ = (
        "_abstained",
        "_asked",
        "_began",
        "_bug",
        "_enough",
        "_entry",
        "_loop",
        "_nodes",
        "_pace",
        "_placement",
        "_raw",
        "_waiter",
        "_waits",
        "found",
    )

    def __init__(self, nodes: Nodes, placement: Placement, pace: Pace, waits: Waits) -> None:
        """Take how owners are called, who they are, and who wants to know how long the first of them takes."""
        self.found: Final[dict[DeviceId, Found]] = {}
        """What they said; a call that failed says that nothing is known there, without a vote."""
        self._nodes = nodes
        self._placement = placement
        self._pace = pace
        self._waits = waits
        self._loop = waits.loop
        self._began = self._loop.time()
        self._asked: dict[DeviceId, Told] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._enough: Enough = _never
        self._bug: Exception | None = None
        self._abstained = False
        self._raw = b""
        self._entry: Entry | None = None

    def ask(self, owner: DeviceId, inline_bytes: int, deadline: float) -> None:
        """Ask an owner, for its body too if that is no longer than `inline_bytes`."""
        placement, nodes = self._placement, self._nodes
        key, peer = placement.key, nodes.address_of(placement.devices[owner])
        self._asked[owner] = nodes.transport.tell(
            peer,
            _GET,
            {
                "table": key.table,
                "epoch": placement.ring.epoch,
                "path": key.path,
                "inline_bytes": inline_bytes,
            },
            partial(self._hear, owner, peer),
            deadline=deadline,
        )

    async def until(self, enough: Enough, patience_s: float | None = None) -> None:
        """Return when what was heard is enough, when all have answered, or when patience ends."""
        if not self._asked or enough(self.found):
            return
        waiter = self._waiter = self._loop.create_future()
        self._enough = enough
        if patience_s is not None:
            self._waits.begin(waiter, patience_s)
        try:
            await waiter
        finally:
            self._waiter = None
            if patience_s is not None:
                self._waits.end(waiter)
        if self._bug is not None:
            raise self._bug

    def has_abstention(self, found: Mapping[DeviceId, Found]) -> bool:
        """Say whether somebody answered whose word does not count, so that others have to be asked."""
        return self._abstained

    def stop(self) -> None:
        """Wait for nobody any more."""
        asked, self._asked = self._asked, {}
        for call in asked.values():
            call.cancel()

    def _hear(self, owner: DeviceId, peer: Address, reply: Reply) -> None:
        self._asked.pop(owner, None)
        try:
            found = read_found(peer, reply, self._decode)
        except NodeFailed as failure:
            self._nodes.heed(self._placement, failure)
            found = _SILENT
        except Exception as bug:
            self._bug = bug
            if self._waiter is not None:
                _wake(self._waiter)
            return
        if not self.found:
            self._pace.note(self._loop.time() - self._began)
        self.found[owner] = found
        if not found.votes:
            self._abstained = True
        if self._waiter is not None and (not self._asked or self._enough(self.found)):
            _wake(self._waiter)

    def _decode(self, raw: bytes) -> Entry:
        """Decode an entry; owners that agree send the same bytes."""
        if self._entry is None or raw != self._raw:
            self._raw, self._entry = raw, decode(raw)
        return self._entry


def _never(found: Mapping[DeviceId, Found]) -> bool:
    return False


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
