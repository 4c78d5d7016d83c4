"""One accepted connection: a stranger until the handshake is done, then a channel for calls or for streams.

Owns what each frame of a caller means and how every end of a handler becomes an answer. What is admitted is decided by
`admission`; what a method does, by the service.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias, assert_never

from swiftlike.limits import RPC_DEADLINE_MS_MAX, RPC_METHOD_BYTES_MAX
from swiftlike.rpc.admission import Accepted, Admission
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.deadlines import Deadlines
from swiftlike.rpc.errors import (
    CallFailed,
    HandshakeRefused,
    ProtocolBroken,
    StreamEnded,
    VersionMismatch,
    WireError,
    WrongSecret,
)
from swiftlike.rpc.frames import Frame, Kind, encode
from swiftlike.rpc.handshake import (
    FULL,
    NONCE_BYTES,
    VERSION_MISMATCH,
    WRONG_SECRET,
    Channel,
    ServerHandshake,
)
from swiftlike.rpc.service import AsyncHandler, Call, Later, PlainHandler, StreamHandler
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Header, Outcome, Reply, failed

log: Final = logging.getLogger(__name__)

Tell: TypeAlias = Callable[["asyncio.Future[Any]"], Reply]


class Served(Accepted):
    """One accepted connection: first a stranger, then a channel for calls or for streams."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission.limits)
        self._admission = admission
        self._handshake = ServerHandshake(admission.secret, admission.entropy(NONCE_BYTES))
        self._work: _Calls | _Streams | None = None
        self.handle = self._shake_hands
        self._timer = self.loop.call_later(self.limits.handshake_s, self.deny, "its handshake took too long")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin as a stranger."""
        super().connection_made(transport)
        self._admission.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the wire."""
        super().connection_lost(exc)
        self._admission.wire_lost(self)

    def is_working(self) -> bool:
        """Say whether a call or stream of this connection is at work."""
        return self._work is not None and self._work.is_working()

    def deny(self, reason: str) -> None:
        """Drop a stranger, without a word."""
        self._admission.note_denial(self.peer_name, reason)
        self.abort(HandshakeRefused(reason))

    def on_broken(self, error: WireError) -> None:
        """Drop who sends what it must not; a stranger is told only what its operator needs."""
        if self._work is not None:
            self._admission.counters.broken += 1
            log.warning("dropped the connection from %s: %s", self.peer_name, error)
            self.abort(error)
            return
        self._admission.note_denial(self.peer_name, str(error))
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
        self._admission.forget(self)
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
        if self._admission.is_full():
            reason = f"this server already has {self.limits.served_connections_max} connections"
            self._admission.note_denial(self.peer_name, reason)
            self.send(Kind.DENIED, 0, (FULL, reason))
            self.close(HandshakeRefused(reason))
            return
        self._timer.cancel()
        self._admission.know(self)
        self.trust()
        self.send(kind, 0, header)
        match self._handshake.channel:
            case Channel.CALLS:
                self._work = _Calls(self._admission, self)
            case Channel.STREAMS:
                self._work = _Streams(self._admission, self)
            case None:
                raise AssertionError("a welcome follows a hello")
            case never:
                assert_never(never)
        self.handle = self._work.handle
        if self._admission.draining:
            self.send(Kind.GOODBYE, 0, ())


class _Calls:
    """The calls of one connection."""

    def __init__(self, admission: Admission, connection: Connection) -> None:
        self._admission = admission
        self._service = admission.service
        self._connection = connection
        self._limits = admission.limits
        self._loop = connection.loop
        self._caller = connection.peer_name
        self._last_id = 0
        self._running: dict[int, asyncio.Future[Any]] = {}
        self._deadlines = Deadlines(self._loop, self._running, self._expire)

    def is_working(self) -> bool:
        return bool(self._running)

    def stop(self) -> None:
        """Cancel all work: nobody waits for it any more."""
        self._deadlines.stop()
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
        connection, body = self._connection, frame.body
        # The time that the frame waited in this batch counts: the batch was received at received_at.
        deadline = connection.received_at + deadline_ms / 1000
        refusal = self._refusal(method, len(body), deadline)
        if refusal is not None:
            _refuse(connection, call_id, *refusal)
            return
        self._admission.counters.calls += 1
        call = Call(method, header, body, deadline, self._caller)
        plain = self._service.plain.get(method)
        result = self._run_plain(plain, call) if plain is not None else self._start_task(call)
        if type(result) is Reply:
            _answer(connection, call_id, result, self._admission)
        elif type(result) is Later:
            work, tell = result
            if work.done():
                _answer(connection, call_id, _result(self._admission, method, work, tell), self._admission)
            else:
                self._watch(call_id, call, work, tell)
        else:
            assert isinstance(result, asyncio.Future), (
                f"{method} returned neither a reply nor a future of one"
            )
            self._watch(call_id, call, result)

    def _refusal(self, method: str, body_bytes: int, deadline: float) -> tuple[str, str] | None:
        """Return the code and reason for which a call is not begun, or None."""
        admission, limits = self._admission, self._limits
        if admission.draining:
            return "draining", "this server is about to stop"
        if (
            admission.calls_in_flight >= limits.calls_in_flight_max
            or len(self._running) >= limits.calls_in_flight_per_connection_max
            or admission.bytes_in_flight + body_bytes > limits.bytes_in_flight_max
            or (self._connection.paused and self._connection.unread_bytes() > limits.replies_bytes_max)
        ):
            admission.counters.busy += 1
            return "busy", "this server has as many calls at work as it takes"
        if self._loop.time() >= deadline:
            return "late", "the deadline passed before the call was begun"
        if method not in self._service.plain and method not in self._service.awaited:
            return "unknown_method", f"this server has no call {method!r}"
        return None

    def _run_plain(self, handler: PlainHandler, call: Call) -> "Reply | asyncio.Future[Reply] | Later":
        try:
            return handler(call)
        except CallFailed as error:
            return failed(error.code, error.reason, error.header)
        except Exception:
            return _bug(self._admission, call.method)

    def _start_task(self, call: Call) -> asyncio.Task[Reply]:
        handler = self._service.awaited[call.method]
        return self._admission.handlers.create_task(_run(self._admission, handler, call))

    def _watch(self, call_id: int, call: Call, work: "asyncio.Future[Any]", tell: Tell | None = None) -> None:
        self._running[call_id] = work
        self._admission.calls_in_flight += 1
        self._admission.bytes_in_flight += len(call.body)
        self._deadlines.add(call_id, call.deadline)
        work.add_done_callback(partial(self._done, call_id, call.method, len(call.body), tell))

    def _expire(self, call_id: int) -> None:
        self._running[call_id].cancel()

    def _done(
        self,
        call_id: int,
        method: str,
        body_bytes: int,
        tell: Tell | None,
        work: "asyncio.Future[Any]",
    ) -> None:
        self._admission.calls_in_flight -= 1
        self._admission.bytes_in_flight -= body_bytes
        reply = _result(self._admission, method, work, tell)
        # Not running any more: its caller has gone, by CANCEL or with the whole connection.
        if self._running.pop(call_id, None) is not None and self._connection.closed is None:
            _answer(self._connection, call_id, reply, self._admission)
        self._admission.work_ended()


class _Streams:
    """The streams of one connection, one at a time."""

    def __init__(self, admission: Admission, connection: Connection) -> None:
        self._admission = admission
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
        handler = self._admission.service.streamed.get(method)
        if self._admission.draining:
            _refuse(self._connection, call_id, "draining", "this server is about to stop")
        elif self._admission.streams_in_flight >= self._admission.limits.streams_in_flight_max:
            self._admission.counters.busy += 1
            _refuse(self._connection, call_id, "busy", "this server has as many streams at work as it takes")
        elif deadline_ms == 0:
            _refuse(self._connection, call_id, "late", "the deadline passed before the stream was begun")
        elif handler is None:
            _refuse(self._connection, call_id, "unknown_method", f"this server has no stream {method!r}")
        else:
            deadline = self._connection.received_at + deadline_ms / 1000
            call = Call(method, header, b"", deadline, self._caller)
            ours_bytes = self._admission.limits.window_bytes(self._admission.streams_in_flight)
            stream = ServedStream(self._connection, call_id, window_bytes, deadline, ours_bytes)
            self._start(handler, call, stream)

    def _start(self, handler: StreamHandler, call: Call, stream: ServedStream) -> None:
        admission = self._admission
        admission.streams_in_flight += 1
        admission.counters.streams += 1
        self._stream = stream
        self._work = admission.handlers.create_task(_run_stream(admission, handler, call, stream))
        timer = self._connection.loop.call_at(call.deadline, self._work.cancel)
        self._work.add_done_callback(partial(self._done, stream, call.method, timer))

    def _done(
        self, stream: ServedStream, method: str, timer: asyncio.TimerHandle, work: "asyncio.Future[Reply]"
    ) -> None:
        timer.cancel()
        self._admission.streams_in_flight -= 1
        reply = _result(self._admission, method, work)
        stream.end(reply)
        if self._stream is stream and self._connection.closed is None:
            self._stream = self._work = None
            _answer(self._connection, stream.call_id, reply, self._admission)
        self._admission.work_ended()


async def _run(admission: Admission, handler: AsyncHandler, call: Call) -> Reply:
    """Run an async handler; whatever it raises becomes a reply, so that it cannot end its siblings."""
    try:
        return await handler(call)
    except CallFailed as error:
        return failed(error.code, error.reason, error.header)
    except Exception:
        return _bug(admission, call.method)


async def _run_stream(
    admission: Admission, handler: StreamHandler, call: Call, stream: ServedStream
) -> Reply:
    """Run a stream's handler; whatever it raises becomes a reply."""
    try:
        return await handler(call, stream)
    except CallFailed as error:
        return failed(error.code, error.reason, error.header)
    except StreamEnded as end:
        return end.reply
    except Exception:
        return _bug(admission, call.method)


def _result(
    admission: Admission, method: str, work: "asyncio.Future[Any]", tell: Tell | None = None
) -> Reply:
    """Return the reply of finished work, also when it was cancelled or a plain handler's future failed."""
    if work.cancelled():
        return Reply(Outcome.UNKNOWN, reason="the work was stopped at its deadline")
    if tell is not None:
        try:
            return tell(work)
        except CallFailed as refusal:
            return failed(refusal.code, refusal.reason, refusal.header)
        except Exception as bug:
            return _bug(admission, method, bug)
    error = work.exception()
    if error is None:
        reply: Reply = work.result()
        return reply
    if isinstance(error, CallFailed):
        return failed(error.code, error.reason, error.header)
    return _bug(admission, method, error)


def _bug(admission: Admission, method: str, error: BaseException | None = None) -> Reply:
    """Log what a handler must not have raised; how far it came, nobody knows."""
    admission.counters.handler_bugs += 1
    log.error("the handler of %s failed", method, exc_info=error or True)
    return Reply(Outcome.UNKNOWN, reason=f"the handler of {method} failed; see the log of the peer")


def _answer(connection: Connection, call_id: int, reply: Reply, admission: Admission) -> None:
    """Send how a call or stream ended."""
    try:
        match reply.outcome:
            case Outcome.OK:
                body = reply.body
                connection.send_encoded(encode(Kind.REPLY, call_id, reply.header, body), body)
            case Outcome.ERROR:
                connection.send(Kind.FAILED, call_id, (reply.code, reply.reason, reply.header))
            case Outcome.BUSY | Outcome.REFUSED | Outcome.NOT_SENT:
                _refuse(connection, call_id, reply.code, reply.reason)
            case Outcome.UNKNOWN:
                connection.send(Kind.ABANDONED, call_id, (reply.reason,))
            case never:
                assert_never(never)
    except Exception:  # a reply that is too large or that msgpack cannot pack: the work is done all the same
        connection.send(Kind.ABANDONED, call_id, (_bug(admission, "a reply").reason,))


def _refuse(connection: Connection, call_id: int, code: str, reason: str) -> None:
    connection.send(Kind.REFUSED, call_id, (code, reason))


def _check_opening(method: object, deadline_ms: object, header: Header) -> None:
    if not isinstance(method, str) or len(method) > RPC_METHOD_BYTES_MAX:
        raise ProtocolBroken("the method of a call is not a short string")
    if not isinstance(deadline_ms, int) or not 0 <= deadline_ms <= RPC_DEADLINE_MS_MAX:
        raise ProtocolBroken("the deadline of a call is not a number of milliseconds")
    if type(header) is not dict:
        raise ProtocolBroken("the header of a call is not a map")
