"""The connections that a process has opened: one per peer for calls, others for one stream at a time.

Owns what waits for an answer and what becomes of it when none comes. Never opens a connection: `client` does, and keeps
the books that `Owner` names.
"""

import asyncio
from collections.abc import Callable
from math import ceil
from typing import Final, Protocol

from swiftlike.limits import RPC_DEADLINE_MS_MAX, RpcLimits
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.deadlines import Deadlines
from swiftlike.rpc.errors import ConnectionFailed, ProtocolBroken, StreamEnded, WireError
from swiftlike.rpc.frames import CALL_ID_MAX, Frame, Kind, encode
from swiftlike.rpc.handshake import Channel, ClientHandshake
from swiftlike.rpc.stream import CalledStream
from swiftlike.rpc.transport import EMPTY, Address, Body, Header, Outcome, Reply, Told, done

_REPLY: Final = Kind.REPLY


class Owner(Protocol):
    """The client, as its connections see it."""

    limits: RpcLimits

    def wire_made(self, connection: "CallerConnection") -> None:
        """Know a wire, which `wire_lost` ends."""

    def wire_lost(self, connection: "CallerConnection") -> None:
        """Forget a wire."""

    def retire(self, connection: "CallerConnection") -> None:
        """Give no more work to a connection that goes on only for what it has."""

    def forget(self, connection: "CallerConnection") -> None:
        """A connection is gone, so there is room for another."""

    def unused(self) -> None:
        """A connection has nothing to do, so it could make room for another."""


class CallerConnection(Connection):
    """A connection that this process opened: the handshake, signs of life, retirement."""

    def __init__(self, owner: Owner, peer: Address) -> None:
        super().__init__(owner.limits)
        self.peer = peer
        self.trusted = False
        self.retired = False  # takes no more work
        self.used_at = self.loop.time()
        self.handle = self._shake_hands
        self._owner = owner
        self._handshake: ClientHandshake | None = None
        self._welcomed: asyncio.Future[None] = self.loop.create_future()
        self._ping: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the wire."""
        super().connection_made(transport)
        self._owner.wire_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the wire."""
        super().connection_lost(exc)
        self._owner.wire_lost(self)

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
        self._owner.forget(self)

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
            self._owner.retire(self)
            self._close_if_retired()
        elif frame.kind is not Kind.PONG:
            self.handle_trusted(frame)

    def _close_if_retired(self) -> None:
        if self.retired and self.is_unused():
            self.close(ConnectionFailed(f"{self.peer} is about to stop"))


class _Asked(asyncio.Future[Reply]):
    """What a call waits for; cancelled, it tells the peer that nobody does any more."""

    def __init__(self, connection: "CallsConnection", call_id: int) -> None:
        super().__init__(loop=connection.loop)
        self._connection = connection
        self.call_id = call_id

    def cancel(self, msg: object = None) -> bool:
        """Give it up."""
        if not super().cancel(msg):
            return False
        self._connection.give_up(self)
        return True

    def end(self, reply: Reply) -> None:
        """Say how the call ended."""
        if not self.done():
            self.set_result(reply)


class _Told:
    """A call whose reply is handed over at once."""

    __slots__ = ("_connection", "_hear", "call_id")

    def __init__(
        self, connection: "CallsConnection", call_id: int, hear: Callable[[Reply], object] | None
    ) -> None:
        self._connection = connection
        self._hear = hear
        self.call_id = call_id

    def cancel(self) -> None:
        """Give it up."""
        if self._hear is not None:
            self._hear = None
            self._connection.give_up(self)

    def end(self, reply: Reply) -> None:
        """Say how the call ended."""
        hear, self._hear = self._hear, None
        if hear is not None:
            hear(reply)


class CallsConnection(CallerConnection):
    """The one connection to a peer on which calls are multiplexed."""

    channel = Channel.CALLS

    def __init__(self, owner: Owner, peer: Address) -> None:
        super().__init__(owner, peer)
        self._last_id = 0
        self._flushed_id = 0  # calls up to this one have left, or may have
        self._pending: dict[int, _Asked | _Told] = {}
        self._deadlines = Deadlines(self.loop, self._pending, self._expire)

    def is_unused(self) -> bool:
        """Say whether no call waits here."""
        return self.trusted and not self._pending

    def ask(self, method: str, header: Header, body: Body, deadline: float) -> "asyncio.Future[Reply]":
        """Send one call, and return what will be how it ends. Cancelled, it tells the peer to stop."""
        sent = self._send_call(method, header, body, deadline)
        if isinstance(sent, Reply):
            return answered_at_once(self.loop, sent)
        asked = self._pending[sent] = _Asked(self, sent)
        self._deadlines.add(sent, deadline)
        return asked

    def tell(self, method: str, header: Header, hear: Callable[[Reply], object], deadline: float) -> Told:
        """Send one call, and have `hear` called with how it ends. What is returned gives it up."""
        sent = self._send_call(method, header, b"", deadline)
        if isinstance(sent, Reply):
            return self.loop.call_soon(hear, sent)
        told = self._pending[sent] = _Told(self, sent, hear)
        self._deadlines.add(sent, deadline)
        return told

    def _send_call(self, method: str, header: Header, body: Body, deadline: float) -> int | Reply:
        """Send one call and return its id, or how it ends without being sent. Somebody has to wait for it from now on."""
        self.used_at = now = self.loop.time()
        # Rounded up: the caller's own clock is the one that counts.
        left_ms = ceil(min((deadline - now) * 1000, RPC_DEADLINE_MS_MAX))
        refusal = self._refusal(left_ms)
        if refusal is not None:
            return refusal
        call_id = self._last_id + 1
        self.send_encoded(encode(Kind.CALL, call_id, (method, left_ms, header), body), body)
        self._last_id = call_id
        if call_id == CALL_ID_MAX:
            self.retired = True
            self._owner.retire(self)
        return call_id

    def _refusal(self, left_ms: int) -> Reply | None:
        """Return how a call ends that is not sent at all, or None."""
        if self.closed is not None:
            return not_sent("unreachable", str(self.closed))
        if left_ms <= 0:
            return not_sent("timeout", "the deadline passed before the call was sent")
        if len(self._pending) >= self.limits.calls_pending_max:
            return not_sent(
                "pending_full", f"{len(self._pending)} calls to {self.peer} wait for their answer"
            )
        if self.outbox_bytes > self.limits.outbox_bytes_max:
            return not_sent("outbox_full", f"{self.outbox_bytes} bytes wait for {self.peer} to read them")
        return None

    def _handle(self, frame: Frame) -> None:
        # Nearly all that comes: what was asked for, and somebody waits for it.
        if frame.kind is _REPLY and type(frame.header) is dict:
            asked = self._pending.pop(frame.call_id, None)
            if asked is not None:
                asked.end(done(frame.header, frame.body))
                if not self._pending:
                    self._now_unused()
                return
        super()._handle(frame)

    def handle_trusted(self, frame: Frame) -> None:
        """Give an answer to whoever waits for it."""
        reply = _reply(frame)
        asked = self._pending.pop(frame.call_id, None)
        if asked is None:
            if frame.call_id > self._last_id:
                raise ProtocolBroken(f"{frame.kind.name} for a call that was never made")
            return  # its caller has gone, or its deadline passed
        asked.end(reply)
        if not self._pending:
            self._now_unused()

    def on_flushed(self) -> None:
        """From here on, nobody may say that these calls were not sent."""
        self._flushed_id = self._last_id

    def settle_all(self, error: WireError) -> None:
        """End all pending calls: those that may have left with UNKNOWN, the others with NOT_SENT."""
        self._deadlines.stop()
        pending = dict(self._pending)
        self._pending.clear()
        for call_id, asked in pending.items():
            asked.end(self._unanswered(call_id, "lost", str(error)))

    def _expire(self, call_id: int) -> None:
        asked = self._pending.pop(call_id, None)
        if asked is None:
            return
        reply = self._unanswered(call_id, "timeout", f"{self.peer} did not answer before the deadline")
        if reply.outcome is Outcome.NOT_SENT:
            self.withdraw(Kind.CALL, call_id)
        asked.end(reply)
        self.check_life()
        if not self._pending:
            self._now_unused()

    def give_up(self, asked: _Asked | _Told) -> None:
        """Tell the peer that the caller has gone."""
        call_id = asked.call_id
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
            return not_sent(code, reason)
        return Reply(Outcome.UNKNOWN, code=code, reason=reason)

    def _now_unused(self) -> None:
        self.used_at = max(self.used_at, self.received_at)
        self._owner.unused()
        if self.retired:
            self._close_if_retired()


class StreamConnection(CallerConnection):
    """A connection on which one stream at a time travels."""

    channel = Channel.STREAMS

    def __init__(self, owner: Owner, peer: Address) -> None:
        super().__init__(owner, peer)
        self._last_id = 0
        self._stream: CalledStream | None = None

    def is_unused(self) -> bool:
        """Say whether no stream is open here."""
        return self.trusted and self._stream is None

    def open(self, method: str, header: Header, deadline: float, window_bytes: int) -> CalledStream:
        """Open a stream; raises StreamEnded when it is too late for that."""
        left_ms = ceil(min((deadline - self.loop.time()) * 1000, RPC_DEADLINE_MS_MAX))
        if self.closed is not None:
            raise StreamEnded(not_sent("unreachable", str(self.closed)))
        if left_ms <= 0:
            raise StreamEnded(not_sent("timeout", "the deadline passed before the stream was opened"))
        opening = (method, left_ms, window_bytes, header)
        head = encode(Kind.OPEN, self._last_id + 1, opening)
        self._last_id += 1
        self._stream = CalledStream(self, self._last_id, deadline, window_bytes)
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


def answered_at_once(loop: asyncio.AbstractEventLoop, reply: Reply) -> "asyncio.Future[Reply]":
    """Return the future of a call whose end is known."""
    answered: asyncio.Future[Reply] = loop.create_future()
    answered.set_result(reply)
    return answered


def not_sent(code: str, reason: str) -> Reply:
    """Return the reply of what never left this process."""
    return Reply(Outcome.NOT_SENT, code=code, reason=reason)


def _reply(frame: Frame) -> Reply:
    """Translate an answering frame; raises ProtocolBroken when it is none, or not whole."""
    match frame.kind, frame.header:
        case Kind.REPLY, dict(header):
            return done(header, frame.body)
        case Kind.FAILED, (str(code), str(reason), dict(header)):
            return Reply(Outcome.ERROR, header, b"", code, reason)
        case Kind.REFUSED, (str(code), str(reason)):
            return Reply(Outcome.BUSY if code == "busy" else Outcome.REFUSED, EMPTY, b"", code, reason)
        case Kind.ABANDONED, (str(reason),):
            return Reply(Outcome.UNKNOWN, EMPTY, b"", "abandoned", reason)
    raise ProtocolBroken(f"{frame.kind.name} is no answer, or its header is not that of one")
