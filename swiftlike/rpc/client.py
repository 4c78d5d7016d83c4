"""The calling end: a Transport over any network, real or simulated.

Owns the connections of one process: one for calls to each peer, a pool of them for streams, opened on use, closed when
idle, capped together. Translates every fault of the world into the outcome of a reply, and never rounds "we do not
know" to "failed". Never retries: whether a call may be repeated is known only to who makes it.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from swiftlike.limits import RpcLimits
from swiftlike.rpc.called import (
    CallerConnection,
    CallsConnection,
    StreamConnection,
    answered_at_once,
    not_sent,
)
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.errors import ConnectionFailed, StreamEnded, WireError
from swiftlike.rpc.handshake import NONCE_BYTES, check_secret
from swiftlike.rpc.network import Network
from swiftlike.rpc.transport import EMPTY, Address, Body, Header, Reply, Stream, Told

CallerConnectionT = TypeVar("CallerConnectionT", bound=CallerConnection)


class Client:
    """The Transport of one process; usable inside its context."""

    def __init__(
        self,
        network: Network,
        secret: bytes,
        *,
        limits: RpcLimits | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.limits = limits or RpcLimits()
        self.now = asyncio.get_running_loop().time
        self._loop = asyncio.get_running_loop()
        self._network = network
        self._secret = check_secret(secret)
        self._entropy = entropy
        self._connecting = asyncio.TaskGroup()
        self._closed = False
        self._calls: dict[Address, CallsConnection] = {}
        self._attempts: dict[Address, asyncio.Task[CallsConnection | Reply]] = {}
        self._idle_streams: dict[Address, list[StreamConnection]] = {}
        self._stream_turns: dict[Address, asyncio.Semaphore] = {}
        # An ordered set of all open connections, and how many more are being opened.
        self._open: dict[CallerConnection, None] = {}
        self._opening = 0
        self._waiting_for_peers = 0
        self._waiting_for_turns = 0
        self._streams_open = 0
        self._connecting_turns: dict[Address, asyncio.Semaphore] = {}
        # Of every connection, also of those that are closed and still sending.
        self._wires: dict[CallerConnection, None] = {}
        self._waiting_for_room: deque[asyncio.Future[None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Begin to own connections."""
        await self._connecting.__aenter__()
        self._sweep_idle()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close everything; what is still pending ends as NOT_SENT or UNKNOWN."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for attempt in list(self._attempts.values()):
            attempt.cancel()
        for connection in list(self._open):
            connection.close(ConnectionFailed("this process has closed its transport"))
        await self._connecting.__aexit__(None, None, None)
        await Connection.wait_gone(list(self._wires), self.limits.goodbye_s)

    async def call(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> Reply:
        """See `transport.Transport.call`."""
        connection = self._calls.get(peer)
        if connection is None:
            found = await self._connection_for_calls(peer, deadline)
            if isinstance(found, Reply):
                return found
            connection = found
        return await connection.ask(method, header, body, deadline)

    def ask(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> "asyncio.Future[Reply]":
        """See `transport.Transport.ask`."""
        connection = self._calls.get(peer)
        if connection is not None:
            return connection.ask(method, header, body, deadline)
        if self._closed:
            return answered_at_once(self._loop, not_sent("closed", "this process has closed its transport"))
        answered: asyncio.Future[Reply] = self._loop.create_future()
        task = self._connecting.create_task(
            self._answer(answered, self.call(peer, method, header, body, deadline=deadline))
        )
        answered.add_done_callback(lambda _: task.cancel())
        return answered

    def tell(
        self, peer: Address, method: str, header: Header, hear: Callable[[Reply], object], *, deadline: float
    ) -> Told:
        """See `transport.Transport.tell`."""
        connection = self._calls.get(peer)
        if connection is not None:
            return connection.tell(method, header, hear, deadline)
        answered = self.ask(peer, method, header, deadline=deadline)
        answered.add_done_callback(lambda done: done.cancelled() or hear(_ended(done)))
        return answered

    async def _answer(self, answered: "asyncio.Future[Reply]", call: Coroutine[Any, Any, Reply]) -> None:
        """Make a call whose connection is not there yet."""
        try:
            reply = await call
            if not answered.done():
                answered.set_result(reply)
        except WireError as error:
            if not answered.done():
                answered.set_exception(error)
        finally:
            answered.cancel()  # where nothing above was reached: this process ends

    @asynccontextmanager
    async def open_stream(
        self, peer: Address, method: str, header: Header = EMPTY, *, deadline: float
    ) -> AsyncIterator[Stream]:
        """See `transport.Transport.open_stream`."""
        turns = self._stream_turns.get(peer)
        if turns is None:
            turns = self._stream_turns[peer] = asyncio.Semaphore(self.limits.streams_per_peer_max)
        full = not_sent("streams_full", f"all {self.limits.streams_per_peer_max} streams to {peer} are taken")
        if self._waiting_for_turns >= self.limits.streams_waiting_max:
            raise StreamEnded(full)
        self._waiting_for_turns += 1
        try:
            async with asyncio.timeout_at(deadline):
                await turns.acquire()
        except TimeoutError:
            raise StreamEnded(full) from None
        finally:
            self._waiting_for_turns -= 1
        try:
            connection = await self._connection_for_streams(peer, deadline)
            try:
                window_bytes = self.limits.window_bytes(self._streams_open)
                self._streams_open += 1
                try:
                    yield connection.open(method, header, deadline, window_bytes)
                finally:
                    self._streams_open -= 1
            finally:
                connection.release()
                if connection.closed is None:
                    self._idle_streams.setdefault(peer, []).append(connection)
                    self.unused()
        finally:
            turns.release()

    # --- what connections tell --------------------------------------------------------------------------------

    def wire_made(self, connection: CallerConnection) -> None:
        """Know a wire, which `wire_lost` ends."""
        self._wires[connection] = None

    def wire_lost(self, connection: CallerConnection) -> None:
        """Forget a wire."""
        self._wires.pop(connection, None)

    def retire(self, connection: CallerConnection) -> None:
        """Give no more work to a connection that goes on only for what it has."""
        if self._calls.get(connection.peer) is connection:
            del self._calls[connection.peer]
        idle = self._idle_streams.get(connection.peer)
        if idle and isinstance(connection, StreamConnection) and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle_streams[connection.peer]

    def forget(self, connection: CallerConnection) -> None:
        """A connection is gone, so there is room for another."""
        self.retire(connection)
        self._open.pop(connection, None)
        self._wake_one_waiter()

    def unused(self) -> None:
        """A connection has nothing to do, so it could make room for another."""
        if self._waiting_for_room:
            self._wake_one_waiter()

    # --- opening ----------------------------------------------------------------------------------------------

    async def _connection_for_calls(self, peer: Address, deadline: float) -> CallsConnection | Reply:
        """Wait for the one attempt to reach `peer`, beginning it if nobody has; other callers may wait for it too."""
        if self._closed:
            return not_sent("closed", "this process has closed its transport")
        attempt = self._attempts.get(peer)
        if attempt is None:
            attempt = self._connecting.create_task(self._attempt_calls(peer))
            self._attempts[peer] = attempt
        if self._waiting_for_peers >= self.limits.calls_pending_max:
            return not_sent(
                "pending_full", f"{self._waiting_for_peers} calls wait for their peer to be reached"
            )
        self._waiting_for_peers += 1
        try:
            await asyncio.wait((attempt,), timeout=max(0.0, deadline - self._loop.time()))
        finally:
            self._waiting_for_peers -= 1
        if not attempt.done():
            return not_sent("timeout", f"the deadline passed before {peer} was reached")
        if attempt.cancelled():
            return not_sent("closed", "this process has closed its transport")
        return attempt.result()

    async def _attempt_calls(self, peer: Address) -> CallsConnection | Reply:
        try:
            limit = self._loop.time() + self.limits.connect_s + self.limits.handshake_s
            connection = await self._connect(peer, partial(CallsConnection, self, peer), limit)
            if connection.closed is None:
                self._calls[peer] = connection
            return connection
        except ConnectionFailed as error:
            return not_sent("unreachable", str(error))
        except WireError as error:
            return not_sent("untrusted", f"{peer}: {error}")
        finally:
            del self._attempts[peer]

    async def _connection_for_streams(self, peer: Address, deadline: float) -> StreamConnection:
        """Take a pooled connection, or open one; raises StreamEnded with NOT_SENT."""
        idle = self._idle_streams.get(peer)
        if idle:
            connection = idle.pop()
            if not idle:
                del self._idle_streams[peer]
            return connection
        if self._closed:
            raise StreamEnded(not_sent("closed", "this process has closed its transport"))
        turns = self._connecting_turns.get(peer)
        if turns is None:
            turns = self._connecting_turns[peer] = asyncio.Semaphore(self.limits.connecting_per_peer_max)
        try:
            async with asyncio.timeout_at(deadline), turns:
                return await self._connect(peer, partial(StreamConnection, self, peer), deadline)
        except TimeoutError:
            raise StreamEnded(not_sent("timeout", f"the deadline passed before {peer} was reached")) from None
        except ConnectionFailed as error:
            raise StreamEnded(not_sent("unreachable", str(error))) from error
        except WireError as error:
            raise StreamEnded(not_sent("untrusted", f"{peer}: {error}")) from error

    async def _connect(
        self, peer: Address, make: Callable[[], CallerConnectionT], deadline: float
    ) -> CallerConnectionT:
        """Open a connection and shake hands; raises ConnectionFailed or another WireError."""
        await self._wait_for_room(peer, deadline)
        self._opening += 1
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + self.limits.connect_s)):
                connection = await self._network.connect(peer, make)
        except TimeoutError:
            raise ConnectionFailed(f"{peer} did not answer in time") from None
        except OSError as error:
            raise ConnectionFailed(f"no connection to {peer}: {error}") from error
        else:
            if self._closed:
                connection.abort(ConnectionFailed("this process has closed its transport"))
            elif connection.closed is None:
                self._open[connection] = None
        finally:
            self._opening -= 1
            self.unused()
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + self.limits.handshake_s)):
                await connection.shake_hands(self._secret, self._entropy(NONCE_BYTES))
        except TimeoutError:
            raise ConnectionFailed(f"{peer} did not shake hands in time") from None
        finally:
            if not connection.trusted:
                connection.abort(ConnectionFailed("the handshake was not finished"))
        return connection

    async def _wait_for_room(self, peer: Address, deadline: float) -> None:
        """Return when one more connection may be opened, closing the one unused longest if need be."""
        while len(self._open) + self._opening >= self.limits.connections_max:
            unused = [connection for connection in self._open if connection.is_unused()]
            if unused:
                oldest = min(unused, key=lambda connection: connection.used_at)
                oldest.close(ConnectionFailed("it made room for another connection"))
                continue
            waiter = self._loop.create_future()
            self._waiting_for_room.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                maximum = self.limits.connections_max
                raise ConnectionFailed(
                    f"no connection to {peer}: this process has {maximum}, the most it may open, all in use"
                ) from None
            finally:
                if waiter in self._waiting_for_room:
                    self._waiting_for_room.remove(waiter)

    def _wake_one_waiter(self) -> None:
        while self._waiting_for_room:
            waiter = self._waiting_for_room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _sweep_idle(self) -> None:
        idle_since = self._loop.time() - self.limits.idle_s
        for connection in list(self._open):
            if connection.is_unused() and connection.used_at <= idle_since:
                connection.close(ConnectionFailed(f"it was not used for {self.limits.idle_s:g} s"))
        self._sweep = self._loop.call_later(self.limits.idle_s / 4, self._sweep_idle)


def _ended(call: "asyncio.Future[Reply]") -> Reply:
    """Return how a call ended; one that could not be made was not sent."""
    error = call.exception()
    return call.result() if error is None else not_sent("not_made", str(error))
