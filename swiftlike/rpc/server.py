"""The server: accepts connections, trusts those that hold the secret, and answers their calls with a service.

Owns admission (how many connections, strangers, calls, streams and bytes at a time), the tasks of handlers, and the
drain. Never knows what a method means: that is the service's.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self, assert_never

from swiftlike.limits import RPC_DEADLINE_MS_MAX, RPC_METHOD_BYTES_MAX, RpcLimits
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.errors import (
    CallFailed,
    ConnectionFailed,
    HandshakeRefused,
    ProtocolBroken,
    StreamEnded,
    VersionMismatch,
    WireError,
    WrongSecret,
)
from swiftlike.rpc.frames import Frame, Kind
from swiftlike.rpc.handshake import (
    FULL,
    NONCE_BYTES,
    VERSION_MISMATCH,
    WRONG_SECRET,
    Channel,
    ServerHandshake,
    check_secret,
)
from swiftlike.rpc.network import Listener, Network
from swiftlike.rpc.service import AsyncHandler, Call, Service, StreamHandler
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Address, Header, Outcome, Reply, failed

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


class Server:
    """Serves `service` from entering its context until it is left; `drain` first to finish what is at work."""

    def __init__(
        self,
        network: Network,
        service: Service,
        secret: bytes,
        *,
        limits: RpcLimits | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.service = service
        self.secret = check_secret(secret)
        self.limits = limits or RpcLimits()
        self.entropy = entropy
        self.counters = ServerCounters()
        self.draining = False
        self.calls_in_flight = 0
        self.bytes_in_flight = 0
        self.streams_in_flight = 0
        self.handlers = asyncio.TaskGroup()
        self._network = network
        self._listeners: list[Listener] = []
        # Dictionaries used as ordered sets: what is first in them has been there longest.
        self._connections: dict[_Served, None] = {}
        self._strangers: dict[_Served, None] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._denial_logged_at = float("-inf")
        self._waiting_drain: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to own tasks."""
        await self.handlers.__aenter__()
        self._sweep_idle()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop now: cut all connections and cancel what is still at work."""
        self._stop_accepting()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections):
            connection.abort(ConnectionFailed("this server has stopped"))
        await self.handlers.__aexit__(None, None, None)

    async def listen(self, address: Address) -> Address:
        """Accept connections at `address` and return where callers reach it; raises OSError when it is taken."""
        listener = await self._network.listen(address, partial(_Served, self))
        self._listeners.append(listener)
        return listener.address

    async def drain(self, deadline: float) -> bool:
        """Accept no more, finish what is at work until `deadline`, close; return whether all of it was finished.

        Callers are told at once, and what they send from then on is answered as "draining" and not begun.
        """
        self.draining = True
        self._stop_accepting()
        for stranger in list(self._strangers):
            stranger.abort(ConnectionFailed("this server drains"))
        for connection in list(self._connections):
            connection.send(Kind.GOODBYE, 0, ())
        await self._wait_until(lambda: not self._at_work(), deadline)
        finished = not self._at_work()
        # A caller that has heard the goodbye closes by itself, so that none of its calls meets a closed door.
        goodbye_until = min(deadline, asyncio.get_running_loop().time() + self.limits.goodbye_s)
        await self._wait_until(lambda: not self._connections, goodbye_until)
        for connection in list(self._connections):
            connection.close(ConnectionFailed("this server has drained"))
        return finished

    # --- what connections ask ---------------------------------------------------------------------------------

    def admit(self, stranger: "_Served") -> None:
        """Take a newcomer in, dropping the one whose handshake has taken longest if there are too many."""
        self._connections[stranger] = None
        self._strangers[stranger] = None
        if len(self._strangers) > self.limits.strangers_max:
            oldest = next(iter(self._strangers))
            oldest.deny("too many connections are in their handshake")

    def is_full(self) -> bool:
        """Say whether one more trusted connection would be too many."""
        return len(self._connections) - len(self._strangers) >= self.limits.served_connections_max

    def know(self, connection: "_Served") -> None:
        """A stranger has proved itself."""
        self._strangers.pop(connection, None)

    def forget(self, connection: "_Served") -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)
        self._strangers.pop(connection, None)
        self.work_ended()

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
        if self._waiting_drain is not None:
            _settle(self._waiting_drain)

    # --- helpers ----------------------------------------------------------------------------------------------

    async def _wait_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Wait until `done()` or the deadline; looked at whenever work or a connection ends."""
        loop = asyncio.get_running_loop()
        while not done() and loop.time() < deadline:
            self._waiting_drain = loop.create_future()
            timer = loop.call_at(deadline, _settle, self._waiting_drain)
            try:
                await self._waiting_drain
            finally:
                timer.cancel()
                self._waiting_drain = None

    def _at_work(self) -> int:
        return self.calls_in_flight + self.streams_in_flight

    def _stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _sweep_idle(self) -> None:
        idle_s = self.limits.idle_s * self.limits.served_idle_factor
        loop = asyncio.get_running_loop()
        for connection in list(self._connections):
            if loop.time() - connection.received_at > idle_s and not connection.is_working():
                connection.close(ConnectionFailed(f"nothing was asked on it for {idle_s:g} s"))
        self._sweep = loop.call_later(idle_s / 4, self._sweep_idle)


class _Served(Connection):
    """One accepted connection: first a stranger, then a channel for calls or for streams."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.limits)
        self._server = server
        self._handshake = ServerHandshake(server.secret, server.entropy(NONCE_BYTES))
        self._work: _ServedCalls | _ServedStreams | None = None
        self.handle = self._shake_hands
        self._timer = self.loop.call_later(self.limits.handshake_s, self.deny, "its handshake took too long")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin as a stranger."""
        super().connection_made(transport)
        self._server.admit(self)

    def is_working(self) -> bool:
        """Say whether a call or stream of this connection is at work."""
        return self._work is not None and self._work.is_working()

    def deny(self, reason: str) -> None:
        """Drop a stranger, without a word."""
        self._server.note_denial(self.peer_name, reason)
        self.abort(HandshakeRefused(reason))

    def on_broken(self, error: WireError) -> None:
        """Drop who sends what it must not; a stranger is told only what its operator needs."""
        if self._work is not None:
            self._server.counters.broken += 1
            log.warning("dropped the connection from %s: %s", self.peer_name, error)
            self.abort(error)
            return
        self._server.note_denial(self.peer_name, str(error))
        match error:
            case WrongSecret():
                self.send(Kind.DENIED, 0, (WRONG_SECRET, str(error)))
                self.close(error)
            case VersionMismatch():
                reason = (
                    f"the server speaks version {error.ours} of the RPC and the client version {error.theirs}"
                )
                self.send(Kind.DENIED, 0, (VERSION_MISMATCH, f"{reason}; upgrade the older one"))
                self.close(error)
            case _:
                self.abort(error)

    def on_closed(self, error: WireError) -> None:
        """Stop everything that was asked for on this connection: its caller has gone."""
        self._timer.cancel()
        self._server.forget(self)
        if self._work is not None:
            self._work.stop()

    def pause_writing(self) -> None:
        """Read no more calls from a peer that does not read its replies."""
        super().pause_writing()
        assert self._wire is not None
        self._wire.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        super().resume_writing()
        assert self._wire is not None
        if not self.paused and self.closed is None:
            self._wire.resume_reading()

    def _shake_hands(self, frame: Frame) -> None:
        kind, header = self._handshake.answer(frame)
        if kind is not Kind.WELCOME:
            self.send(kind, 0, header)
            return
        if self._server.is_full():
            reason = f"this server already has {self.limits.served_connections_max} connections"
            self._server.note_denial(self.peer_name, reason)
            self.send(Kind.DENIED, 0, (FULL, reason))
            self.close(HandshakeRefused(reason))
            return
        self._timer.cancel()
        self._server.know(self)
        self.trust()
        self.send(kind, 0, header)
        match self._handshake.channel:
            case Channel.CALLS:
                self._work = _ServedCalls(self._server, self)
            case Channel.STREAMS:
                self._work = _ServedStreams(self._server, self)
            case None:
                raise AssertionError("a welcome follows a hello")
            case never:
                assert_never(never)
        self.handle = self._work.handle
        if self._server.draining:
            self.send(Kind.GOODBYE, 0, ())


class _ServedCalls:
    """The calls of one connection."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._service = server.service
        self._connection = connection
        self._limits = server.limits
        self._loop = connection.loop
        self._caller = connection.peer_name
        self._last_id = 0
        self._running: dict[int, asyncio.Future[Reply]] = {}

    def is_working(self) -> bool:
        return bool(self._running)

    def stop(self) -> None:
        """Cancel all work: nobody waits for it any more."""
        running = list(self._running.values())
        self._running.clear()
        for work in running:
            work.cancel()

    def handle(self, frame: Frame) -> None:
        if frame.kind is Kind.CALL:
            self._begin(frame)
        elif frame.kind is Kind.CANCEL:
            work = self._running.pop(frame.call_id, None)
            if work is not None:
                work.cancel()
        elif frame.kind is Kind.PING:
            self._connection.send(Kind.PONG, 0, ())
        else:
            raise ProtocolBroken(f"{frame.kind.name} on a connection for calls")

    def _begin(self, frame: Frame) -> None:
        call_id = frame.call_id
        if call_id <= self._last_id:
            raise ProtocolBroken(f"call {call_id} follows call {self._last_id}")
        self._last_id = call_id
        try:
            method, deadline_ms, header = frame.header
        except (TypeError, ValueError):
            raise ProtocolBroken("the header of a CALL frame has not three fields") from None
        _check_opening(method, deadline_ms, header)
        refusal = self._refusal(len(frame.body), deadline_ms)
        if refusal is not None:
            _refuse(self._connection, call_id, *refusal)
            return
        # The time that the frame waited in this batch counts: the batch was received at received_at.
        deadline = self._connection.received_at + deadline_ms / 1000
        if self._loop.time() >= deadline:
            _refuse(self._connection, call_id, "late", "the deadline passed before the call was begun")
            return
        call = Call(method, header, frame.body, deadline, self._caller)
        plain = self._service.plain.get(method)
        if plain is not None:
            self._server.counters.calls += 1
            try:
                result = plain(call)
            except CallFailed as error:
                result = failed(error.code, error.reason, error.header)
            except Exception:
                result = _bug(self._server, method)
            if type(result) is Reply:
                _answer(self._connection, call_id, result, self._server)
            else:
                assert isinstance(result, asyncio.Future), (
                    f"{method} returned neither a reply nor a future of one"
                )
                self._watch(call_id, call, result)
            return
        handler = self._service.awaited.get(method)
        if handler is None:
            _refuse(self._connection, call_id, "unknown_method", f"this server has no call {method!r}")
            return
        self._server.counters.calls += 1
        self._watch(call_id, call, self._server.handlers.create_task(_run(self._server, handler, call)))

    def _refusal(self, body_bytes: int, deadline_ms: int) -> tuple[str, str] | None:
        server, limits = self._server, self._limits
        if server.draining:
            return "draining", "this server is about to stop"
        if (
            server.calls_in_flight >= limits.calls_in_flight_max
            or len(self._running) >= limits.calls_in_flight_per_connection_max
            or server.bytes_in_flight + body_bytes > limits.bytes_in_flight_max
            or (self._connection.paused and self._connection.unread_bytes() > limits.replies_bytes_max)
        ):
            server.counters.busy += 1
            return "busy", "this server has as many calls at work as it takes"
        return None

    def _watch(self, call_id: int, call: Call, work: "asyncio.Future[Reply]") -> None:
        self._running[call_id] = work
        self._server.calls_in_flight += 1
        self._server.bytes_in_flight += len(call.body)
        timer = self._loop.call_at(call.deadline, work.cancel)
        work.add_done_callback(partial(self._done, call_id, call.method, len(call.body), timer))

    def _done(
        self,
        call_id: int,
        method: str,
        body_bytes: int,
        timer: asyncio.TimerHandle,
        work: "asyncio.Future[Reply]",
    ) -> None:
        timer.cancel()
        self._server.calls_in_flight -= 1
        self._server.bytes_in_flight -= body_bytes
        reply = _result(self._server, method, work)
        # Not running any more: its caller has gone, by CANCEL or with the whole connection.
        if self._running.pop(call_id, None) is not None and self._connection.closed is None:
            _answer(self._connection, call_id, reply, self._server)
        self._server.work_ended()


class _ServedStreams:
    """The streams of one connection, one at a time."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._caller = connection.peer_name
        self._last_id = 0
        self._stream: ServedStream | None = None
        self._work: asyncio.Task[Reply] | None = None

    def is_working(self) -> bool:
        return self._work is not None

    def stop(self) -> None:
        """Cancel the stream's handler: nobody waits for it any more."""
        work, self._work, self._stream = self._work, None, None
        if work is not None:
            work.cancel()

    def handle(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.OPEN:
                self._begin(frame)
                return
            case Kind.PING:
                self._connection.send(Kind.PONG, 0, ())
                return
            case Kind.DATA | Kind.CREDIT | Kind.END | Kind.CANCEL:
                pass
            case _:
                raise ProtocolBroken(f"{frame.kind.name} on a connection for streams")
        if self._stream is None or frame.call_id != self._stream.call_id:
            if frame.call_id > self._last_id:
                raise ProtocolBroken(f"{frame.kind.name} for a stream that was never opened")
            return  # sent before the caller knew that its stream had ended
        match frame.kind:
            case Kind.DATA:
                self._stream.data_arrived(frame)
            case Kind.CREDIT:
                self._stream.credit_arrived(frame)
            case Kind.END:
                self._stream.end_arrived()
            case _:
                self.stop()

    def _begin(self, frame: Frame) -> None:
        call_id = frame.call_id
        if self._stream is not None or call_id <= self._last_id:
            raise ProtocolBroken(f"stream {call_id} follows stream {self._last_id} too early")
        self._last_id = call_id
        try:
            method, deadline_ms, window_bytes, header = frame.header
        except (TypeError, ValueError):
            raise ProtocolBroken("the header of an OPEN frame has not four fields") from None
        _check_opening(method, deadline_ms, header)
        if not isinstance(window_bytes, int) or not 0 < window_bytes < 2**32:
            raise ProtocolBroken("the window of an OPEN frame is not a number of bytes")
        handler = self._server.service.streamed.get(method)
        if self._server.draining:
            _refuse(self._connection, call_id, "draining", "this server is about to stop")
        elif self._server.streams_in_flight >= self._server.limits.streams_in_flight_max:
            self._server.counters.busy += 1
            _refuse(self._connection, call_id, "busy", "this server has as many streams at work as it takes")
        elif deadline_ms == 0:
            _refuse(self._connection, call_id, "late", "the deadline passed before the stream was begun")
        elif handler is None:
            _refuse(self._connection, call_id, "unknown_method", f"this server has no stream {method!r}")
        else:
            deadline = self._connection.received_at + deadline_ms / 1000
            call = Call(method, header, b"", deadline, self._caller)
            self._start(handler, call, ServedStream(self._connection, call_id, window_bytes, deadline))

    def _start(self, handler: StreamHandler, call: Call, stream: ServedStream) -> None:
        server = self._server
        server.streams_in_flight += 1
        server.counters.streams += 1
        self._stream = stream
        self._work = server.handlers.create_task(_run_stream(server, handler, call, stream))
        timer = self._connection.loop.call_at(call.deadline, self._work.cancel)
        self._work.add_done_callback(partial(self._done, stream, call.method, timer))

    def _done(
        self, stream: ServedStream, method: str, timer: asyncio.TimerHandle, work: "asyncio.Future[Reply]"
    ) -> None:
        timer.cancel()
        self._server.streams_in_flight -= 1
        reply = _result(self._server, method, work)
        stream.end(reply)
        if self._stream is stream and self._connection.closed is None:
            self._stream = self._work = None
            _answer(self._connection, stream.call_id, reply, self._server)
        self._server.work_ended()


async def _run(server: Server, handler: AsyncHandler, call: Call) -> Reply:
    """Run an async handler; whatever it raises becomes a reply, so that it cannot end its siblings."""
    try:
        return await handler(call)
    except CallFailed as error:
        return failed(error.code, error.reason, error.header)
    except Exception:
        return _bug(server, call.method)


async def _run_stream(server: Server, handler: StreamHandler, call: Call, stream: ServedStream) -> Reply:
    """Run a stream's handler; whatever it raises becomes a reply."""
    try:
        return await handler(call, stream)
    except CallFailed as error:
        return failed(error.code, error.reason, error.header)
    except StreamEnded as end:
        return end.reply
    except Exception:
        return _bug(server, call.method)


def _result(server: Server, method: str, work: "asyncio.Future[Reply]") -> Reply:
    """Return the reply of finished work, also when it was cancelled or a plain handler's future failed."""
    if work.cancelled():
        return Reply(Outcome.UNKNOWN, reason="the work was stopped at its deadline")
    error = work.exception()
    if error is None:
        return work.result()
    if isinstance(error, CallFailed):
        return failed(error.code, error.reason, error.header)
    return _bug(server, method, error)


def _bug(server: Server, method: str, error: BaseException | None = None) -> Reply:
    """Log what a handler must not have raised; how far it came, nobody knows."""
    server.counters.handler_bugs += 1
    log.error("the handler of %s failed", method, exc_info=error or True)
    return Reply(Outcome.UNKNOWN, reason=f"the handler of {method} failed; see the log of the peer")


def _answer(connection: Connection, call_id: int, reply: Reply, server: Server) -> None:
    """Send how a call or stream ended."""
    try:
        match reply.outcome:
            case Outcome.OK:
                connection.send(Kind.REPLY, call_id, reply.header, reply.body)
            case Outcome.ERROR:
                connection.send(Kind.FAILED, call_id, (reply.code, reply.reason, reply.header))
            case Outcome.BUSY | Outcome.REFUSED | Outcome.NOT_SENT:
                _refuse(connection, call_id, reply.code, reply.reason)
            case Outcome.UNKNOWN:
                connection.send(Kind.ABANDONED, call_id, (reply.reason,))
            case never:
                assert_never(never)
    except Exception:  # a reply that is too large or that msgpack cannot pack: the work is done all the same
        connection.send(Kind.ABANDONED, call_id, (_bug(server, "a reply").reason,))


def _refuse(connection: Connection, call_id: int, code: str, reason: str) -> None:
    connection.send(Kind.REFUSED, call_id, (code, reason))


def _check_opening(method: object, deadline_ms: object, header: Header) -> None:
    if not isinstance(method, str) or len(method) > RPC_METHOD_BYTES_MAX:
        raise ProtocolBroken("the method of a call is not a short string")
    if not isinstance(deadline_ms, int) or not 0 <= deadline_ms <= RPC_DEADLINE_MS_MAX:
        raise ProtocolBroken("the deadline of a call is not a number of milliseconds")
    if type(header) is not dict:
        raise ProtocolBroken("the header of a call is not a map")


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
