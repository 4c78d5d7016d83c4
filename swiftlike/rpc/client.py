"""The calling end: a Transport over any network, real or simulated.

Owns the connections of one process: one for calls to each peer, a pool of them for streams, opened on use, closed when
idle, capped together. Translates every fault of the world into the outcome of a reply, and never rounds "we do not
know" to "failed". Never retries: whether a call may be repeated is known only to who makes it.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from math import ceil
from types import TracebackType
from typing import Self, TypeVar

from swiftlike.limits import RPC_DEADLINE_MS_MAX, RpcLimits
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.errors import ConnectionFailed, ProtocolBroken, StreamEnded, WireError
from swiftlike.rpc.frames import CALL_ID_MAX, Frame, Kind, encode
from swiftlike.rpc.handshake import NONCE_BYTES, Channel, ClientHandshake, check_secret
from swiftlike.rpc.network import Network
from swiftlike.rpc.stream import CalledStream
from swiftlike.rpc.transport import EMPTY, Address, Body, Header, Outcome, Reply, Stream


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
        self._calls: dict[Address, _CallsConnection] = {}
        self._attempts: dict[Address, asyncio.Task[_CallsConnection | Reply]] = {}
        self._idle_streams: dict[Address, list[_StreamConnection]] = {}
        self._stream_turns: dict[Address, asyncio.Semaphore] = {}
        # An ordered set of all open connections, and how many more are being opened.
        self._open: dict[_CallerConnection, None] = {}
        self._opening = 0
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
        return await connection.call(method, header, body, deadline)

    @asynccontextmanager
    async def open_stream(
        self, peer: Address, method: str, header: Header = EMPTY, *, deadline: float
    ) -> AsyncIterator[Stream]:
        """See `transport.Transport.open_stream`."""
        turns = self._stream_turns.get(peer)
        if turns is None:
            turns = self._stream_turns[peer] = asyncio.Semaphore(self.limits.streams_per_peer_max)
        try:
            async with asyncio.timeout_at(deadline):
                await turns.acquire()
        except TimeoutError:
            reason = f"all {self.limits.streams_per_peer_max} streams to {peer} are taken"
            raise StreamEnded(_not_sent("streams_full", reason)) from None
        try:
            connection = await self._connection_for_streams(peer, deadline)
            try:
                yield connection.open(method, header, deadline)
            finally:
                connection.release()
                if connection.closed is None:
                    self._idle_streams.setdefault(peer, []).append(connection)
                    self.unused()
        finally:
            turns.release()

    # --- what connections tell --------------------------------------------------------------------------------

    def retire(self, connection: "_CallerConnection") -> None:
        """Give no more work to a connection that goes on only for what it has."""
        if self._calls.get(connection.peer) is connection:
            del self._calls[connection.peer]
        idle = self._idle_streams.get(connection.peer)
        if idle and isinstance(connection, _StreamConnection) and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle_streams[connection.peer]

    def forget(self, connection: "_CallerConnection") -> None:
        """A connection is gone, so there is room for another."""
        self.retire(connection)
        self._open.pop(connection, None)
        self._wake_one_waiter()

    def unused(self) -> None:
        """A connection has nothing to do, so it could make room for another."""
        if self._waiting_for_room:
            self._wake_one_waiter()

    # --- opening ----------------------------------------------------------------------------------------------

    async def _connection_for_calls(self, peer: Address, deadline: float) -> "_CallsConnection | Reply":
        """Wait for the one attempt to reach `peer`, beginning it if nobody has; other callers may wait for it too."""
        if self._closed:
            return _not_sent("closed", "this process has closed its transport")
        attempt = self._attempts.get(peer)
        if attempt is None:
            attempt = self._connecting.create_task(self._attempt_calls(peer))
            self._attempts[peer] = attempt
        await asyncio.wait((attempt,), timeout=max(0.0, deadline - self._loop.time()))
        if not attempt.done():
            return _not_sent("timeout", f"the deadline passed before {peer} was reached")
        if attempt.cancelled():
            return _not_sent("closed", "this process has closed its transport")
        return attempt.result()

    async def _attempt_calls(self, peer: Address) -> "_CallsConnection | Reply":
        try:
            limit = self._loop.time() + self.limits.connect_s + self.limits.handshake_s
            connection = await self._connect(peer, partial(_CallsConnection, self, peer), limit)
            if connection.closed is None:
                self._calls[peer] = connection
            return connection
        except ConnectionFailed as error:
            return _not_sent("unreachable", str(error))
        except WireError as error:
            return _not_sent("untrusted", f"{peer}: {error}")
        finally:
            del self._attempts[peer]

    async def _connection_for_streams(self, peer: Address, deadline: float) -> "_StreamConnection":
        """Take a pooled connection, or open one; raises StreamEnded with NOT_SENT."""
        idle = self._idle_streams.get(peer)
        if idle:
            connection = idle.pop()
            if not idle:
                del self._idle_streams[peer]
            return connection
        if self._closed:
            raise StreamEnded(_not_sent("closed", "this process has closed its transport"))
        try:
            return await self._connect(peer, partial(_StreamConnection, self, peer), deadline)
        except ConnectionFailed as error:
            raise StreamEnded(_not_sent("unreachable", str(error))) from error
        except WireError as error:
            raise StreamEnded(_not_sent("untrusted", f"{peer}: {error}")) from error

    async def _connect(
        self, peer: Address, make: "Callable[[], _CallerConnectionT]", deadline: float
    ) -> "_CallerConnectionT":
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
            if connection.closed is None:
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


class _CallerConnection(Connection):
    """A connection that this process opened: the handshake, signs of life, retirement."""

    def __init__(self, client: Client, peer: Address) -> None:
        super().__init__(client.limits)
        self.peer = peer
        self.trusted = False
        self.retired = False  # takes no more work
        self.used_at = self.loop.time()
        self.handle = self._shake_hands
        self._client = client
        self._handshake: ClientHandshake | None = None
        self._welcomed: asyncio.Future[None] = self.loop.create_future()
        self._ping: asyncio.TimerHandle | None = None

    async def shake_hands(self, secret: bytes, nonce: bytes) -> None:
        """Return when both ends trust each other; raises WireError."""
        if self.closed is not None:
            raise self.closed
        self._handshake = ClientHandshake(secret, self.channel, nonce)
        self.send(Kind.HELLO, 0, self._handshake.hello)
        await self._welcomed

    channel = Channel.CALLS

    def is_unused(self) -> bool:
        """Say whether closing this connection would harm nobody."""
        raise NotImplementedError

    def settle_all(self, error: WireError) -> None:
        """End everything that waits on this connection."""
        raise NotImplementedError

    def handle_trusted(self, frame: Frame) -> None:
        """Handle a frame that is not about the connection itself."""
        raise NotImplementedError

    def check_life(self) -> None:
        """Ping a peer that did not answer in time; silence after that means that this connection is dead.

        Alive but silent is worse than dead: without this, all calls would wait for a connection that the network has
        forgotten, although a new one would work.
        """
        if self._ping is None and self.closed is None:
            self.send(Kind.PING, 0, ())
            self._ping = self.loop.call_later(self.limits.ping_s, self._judge_life, self.loop.time())

    def on_closed(self, error: WireError) -> None:
        """Settle what waits here and leave the client's books."""
        if self._ping is not None:
            self._ping.cancel()
        if not self._welcomed.done():
            self._welcomed.set_exception(error)
            self._welcomed.exception()  # whoever waits for it raises it; nobody may be waiting
        self.settle_all(error)
        self._client.forget(self)

    def _judge_life(self, pinged_at: float) -> None:
        self._ping = None
        if self.received_at < pinged_at:
            self.abort(ConnectionFailed(f"{self.peer} was silent for {self.limits.ping_s:g} s after a ping"))

    def _shake_hands(self, frame: Frame) -> None:
        if self._handshake is None:
            raise ProtocolBroken(f"{frame.kind.name} before the handshake began")
        proof = self._handshake.answer(frame)
        if proof is not None:
            self.send(Kind.PROOF, 0, proof)
            return
        self.trust()
        self.trusted = True
        self.handle = self._handle
        if not self._welcomed.done():
            self._welcomed.set_result(None)

    def _handle(self, frame: Frame) -> None:
        if frame.kind is Kind.GOODBYE:
            self.retired = True
            self._client.retire(self)
            self._close_if_retired()
        elif frame.kind is not Kind.PONG:
            self.handle_trusted(frame)

    def _close_if_retired(self) -> None:
        if self.retired and self.is_unused():
            self.close(ConnectionFailed(f"{self.peer} is about to stop"))


_CallerConnectionT = TypeVar("_CallerConnectionT", bound=_CallerConnection)


class _CallsConnection(_CallerConnection):
    """The one connection to a peer on which calls are multiplexed."""

    channel = Channel.CALLS

    def __init__(self, client: Client, peer: Address) -> None:
        super().__init__(client, peer)
        self._last_id = 0
        self._flushed_id = 0  # calls up to this one have left, or may have
        self._pending: dict[int, asyncio.Future[Reply]] = {}

    def is_unused(self) -> bool:
        """Say whether no call waits here."""
        return self.trusted and not self._pending

    async def call(self, method: str, header: Header, body: Body, deadline: float) -> Reply:
        """Send one call and wait for how it ends."""
        loop = self.loop
        self.used_at = now = loop.time()
        left_ms = ceil((deadline - now) * 1000)  # rounded up: the caller's own clock is the one that counts
        if self.closed is not None:
            return _not_sent("unreachable", str(self.closed))
        if left_ms <= 0:
            return _not_sent("timeout", "the deadline passed before the call was sent")
        if len(self._pending) >= self.limits.calls_pending_max:
            return _not_sent(
                "pending_full", f"{len(self._pending)} calls to {self.peer} wait for their answer"
            )
        if self.outbox_bytes > self.limits.outbox_bytes_max:
            return _not_sent("outbox_full", f"{self.outbox_bytes} bytes wait for {self.peer} to read them")
        call_id = self._last_id + 1
        self.send(Kind.CALL, call_id, (method, min(left_ms, RPC_DEADLINE_MS_MAX), header), body)
        self._last_id = call_id
        if call_id == CALL_ID_MAX:
            self.retired = True
            self._client.retire(self)
        answered: asyncio.Future[Reply] = loop.create_future()
        self._pending[call_id] = answered
        timer = loop.call_at(deadline, self._expire, call_id)
        try:
            return await answered
        except asyncio.CancelledError:
            self._cancel(call_id)
            raise
        finally:
            timer.cancel()

    def handle_trusted(self, frame: Frame) -> None:
        """Give an answer to whoever waits for it."""
        reply = _reply(frame)
        answered = self._pending.pop(frame.call_id, None)
        if answered is None:
            if frame.call_id > self._last_id:
                raise ProtocolBroken(f"{frame.kind.name} for a call that was never made")
            return  # its caller has gone, or its deadline passed
        if not answered.done():
            answered.set_result(reply)
        if not self._pending:
            self._now_unused()

    def on_flushed(self) -> None:
        """From here on, nobody may say that these calls were not sent."""
        self._flushed_id = self._last_id

    def settle_all(self, error: WireError) -> None:
        """End all pending calls: those that may have left with UNKNOWN, the others with NOT_SENT."""
        pending, self._pending = self._pending, {}
        for call_id, answered in pending.items():
            if not answered.done():
                answered.set_result(self._unanswered(call_id, "lost", str(error)))

    def _expire(self, call_id: int) -> None:
        answered = self._pending.pop(call_id, None)
        if answered is None or answered.done():
            return
        reply = self._unanswered(call_id, "timeout", f"{self.peer} did not answer before the deadline")
        if reply.outcome is Outcome.NOT_SENT:
            self.withdraw(Kind.CALL, call_id)
        answered.set_result(reply)
        self.check_life()
        if not self._pending:
            self._now_unused()

    def _cancel(self, call_id: int) -> None:
        """Tell the peer that the caller has gone."""
        if self._pending.pop(call_id, None) is None or self.closed is not None:
            return
        if call_id > self._flushed_id:
            self.withdraw(Kind.CALL, call_id)
        else:
            self.send(Kind.CANCEL, call_id, ())
        if not self._pending:
            self._now_unused()

    def _unanswered(self, call_id: int, code: str, reason: str) -> Reply:
        if call_id > self._flushed_id:
            return _not_sent(code, reason)
        return Reply(Outcome.UNKNOWN, code=code, reason=reason)

    def _now_unused(self) -> None:
        self._client.unused()
        if self.retired:
            self._close_if_retired()


class _StreamConnection(_CallerConnection):
    """A connection on which one stream at a time travels."""

    channel = Channel.STREAMS

    def __init__(self, client: Client, peer: Address) -> None:
        super().__init__(client, peer)
        self._last_id = 0
        self._stream: CalledStream | None = None

    def is_unused(self) -> bool:
        """Say whether no stream is open here."""
        return self.trusted and self._stream is None

    def open(self, method: str, header: Header, deadline: float) -> CalledStream:
        """Open a stream; raises StreamEnded when it is too late for that."""
        left_ms = ceil((deadline - self.loop.time()) * 1000)
        if self.closed is not None:
            raise StreamEnded(_not_sent("unreachable", str(self.closed)))
        if left_ms <= 0:
            raise StreamEnded(_not_sent("timeout", "the deadline passed before the stream was opened"))
        window_bytes = self.limits.stream_window_bytes
        opening = (method, min(left_ms, RPC_DEADLINE_MS_MAX), window_bytes, header)
        head = encode(Kind.OPEN, self._last_id + 1, opening)
        self._last_id += 1
        self._stream = CalledStream(self, self._last_id, deadline)
        self.send_encoded(head, b"")
        return self._stream

    def release(self) -> None:
        """Leave the stream: abort it if it has not ended, and keep the connection only if both ends agree on where it is."""
        stream, self._stream = self._stream, None
        self.used_at = self.loop.time()
        if stream is None or self.closed is not None:
            return
        if stream.ended is None or stream.ended.outcome in (Outcome.UNKNOWN, Outcome.NOT_SENT):
            stream.end(Reply(Outcome.UNKNOWN, code="aborted", reason="the caller left the stream"))
            self.send(Kind.CANCEL, stream.call_id, ())
            self.close(ConnectionFailed("its stream was aborted"))
        elif self.retired or self._last_id == CALL_ID_MAX:
            self.close(ConnectionFailed("it takes no more streams"))

    def handle_trusted(self, frame: Frame) -> None:
        """Feed the stream."""
        stream = self._stream
        if frame.call_id > self._last_id:
            raise ProtocolBroken(f"{frame.kind.name} for a stream that was never opened")
        if stream is None or frame.call_id != stream.call_id or stream.ended is not None:
            return  # sent before the server knew that its caller had left
        if frame.kind is Kind.DATA:
            stream.data_arrived(frame)
        elif frame.kind is Kind.CREDIT:
            stream.credit_arrived(frame)
        else:
            stream.end(_reply(frame))

    def settle_all(self, error: WireError) -> None:
        """End the open stream: what the peer did of it, nobody knows."""
        if self._stream is not None:
            self._stream.end(Reply(Outcome.UNKNOWN, code="lost", reason=str(error)))


def _not_sent(code: str, reason: str) -> Reply:
    return Reply(Outcome.NOT_SENT, code=code, reason=reason)


def _reply(frame: Frame) -> Reply:
    """Translate an answering frame; raises ProtocolBroken when it is none, or not whole."""
    match frame.kind, frame.header:
        case Kind.REPLY, dict(header):
            return Reply(Outcome.OK, header, frame.body)
        case Kind.FAILED, (str(code), str(reason), dict(header)):
            return Reply(Outcome.ERROR, header, b"", code, reason)
        case Kind.REFUSED, (str(code), str(reason)):
            return Reply(Outcome.BUSY if code == "busy" else Outcome.REFUSED, EMPTY, b"", code, reason)
        case Kind.ABANDONED, (str(reason),):
            return Reply(Outcome.UNKNOWN, EMPTY, b"", "abandoned", reason)
    raise ProtocolBroken(f"{frame.kind.name} is no answer, or its header is not that of one")
