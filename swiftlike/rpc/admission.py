"""Admission: what all connections of one server share, and how much of everything they may have at a time.

Owns the counts of strangers, connections, calls, streams and bytes, and the tasks of handlers. Never reads a frame.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swiftlike.limits import RpcLimits
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.handshake import check_secret
from swiftlike.rpc.service import Service

log: Final = logging.getLogger(__name__)

DENIALS_LOGGED_PER_S: Final = 1.0
"""So that a port scanner cannot fill the disk with our log."""


@dataclass(slots=True)
class ServerCounters:
    """What a server has done since it started, for metrics."""

    calls: int = 0
    streams: int = 0
    busy: int = 0
    denied: int = 0
    """Strangers that did not prove themselves, in whatever way they failed."""
    broken: int = 0
    """Trusted connections dropped for what they sent."""
    handler_bugs: int = 0


class Accepted(Connection):
    """A connection as admission sees it."""

    def deny(self, reason: str) -> None:
        """Drop a stranger, without a word."""
        raise NotImplementedError

    def is_working(self) -> bool:
        """Say whether a call or stream of this connection is at work."""
        raise NotImplementedError


class Admission:
    """The books of one server."""

    def __init__(
        self, service: Service, secret: bytes, limits: RpcLimits, entropy: Callable[[int], bytes]
    ) -> None:
        self.service = service
        self.secret = check_secret(secret)
        self.limits = limits
        self.entropy = entropy
        self.counters = ServerCounters()
        self.handlers = asyncio.TaskGroup()
        self.draining = False
        self.calls_in_flight = 0
        self.bytes_in_flight = 0
        self.streams_in_flight = 0
        # Dictionaries used as ordered sets: what is first in them has been there longest.
        self.connections: dict[Accepted, None] = {}
        self.strangers: dict[Accepted, None] = {}
        self.wires: dict[Accepted, None] = {}  # also of connections that are closed and still sending
        self._denial_logged_at = float("-inf")
        self._waiting: asyncio.Future[None] | None = None  # a drain, for the next end of anything

    def admit(self, stranger: Accepted) -> None:
        """Take a newcomer in, dropping the one whose handshake has taken longest if there are too many."""
        self.wires[stranger] = None
        self.connections[stranger] = None
        self.strangers[stranger] = None
        if len(self.strangers) > self.limits.strangers_max:
            oldest = next(iter(self.strangers))
            oldest.deny("too many connections are in their handshake")

    def is_full(self) -> bool:
        """Say whether one more trusted connection would be too many."""
        return len(self.connections) - len(self.strangers) >= self.limits.served_connections_max

    def know(self, connection: Accepted) -> None:
        """A stranger has proved itself."""
        self.strangers.pop(connection, None)

    def forget(self, connection: Accepted) -> None:
        """A connection is gone."""
        self.connections.pop(connection, None)
        self.strangers.pop(connection, None)
        self.work_ended()

    def wire_lost(self, connection: Accepted) -> None:
        """The wire of a connection is no more."""
        self.wires.pop(connection, None)

    def note_denial(self, peer_name: str, reason: str) -> None:
        """Count a stranger that did not prove itself, and log it unless the last was a moment ago."""
        self.counters.denied += 1
        now = asyncio.get_running_loop().time()
        if now - self._denial_logged_at >= 1 / DENIALS_LOGGED_PER_S:
            self._denial_logged_at = now
            log.warning(
                "refused a connection from %s: %s (%d refused so far)",
                peer_name,
                reason,
                self.counters.denied,
            )

    def work_ended(self) -> None:
        """Let a waiting drain look again."""
        if self._waiting is not None:
            _settle(self._waiting)

    def at_work(self) -> int:
        """Return how many calls and streams are at work."""
        return self.calls_in_flight + self.streams_in_flight

    async def wait_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Wait until `done()` or the deadline; looked at whenever work or a connection ends."""
        loop = asyncio.get_running_loop()
        while not done() and loop.time() < deadline:
            self._waiting = loop.create_future()
            timer = loop.call_at(deadline, _settle, self._waiting)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
