"""Streams: two sequences of messages over a connection of their own, each under the receiver's credit.

Owns credit, the bounded queue of what has arrived, and the end by stall or deadline. Never opens a connection.

    caller                                             server
      OPEN (method, deadline_ms, window, map)   →
                                                ←        CREDIT (window)   or REFUSED
      DATA* within the credit                   →
                                                ←        DATA* within the window
      CREDIT*                                   ↔        CREDIT*
      END                                       →
                                                ←        REPLY, FAILED, REFUSED or ABANDONED

The server's reply may come at any time and ends the stream; CANCEL, or the loss of the connection, ends it as well. A
DATA frame costs its whole size. A sender waits until the credit covers the frame, and a receiver gives credit back
when its owner has taken the message, so a slow disk slows its client and nobody else. The caller gets no credit before
the server has admitted the stream, so that a refused body is never sent.
"""

import asyncio
from collections import deque

from swiftlike.limits import STREAM_MESSAGE_BYTES, RpcLimits
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.errors import FrameTooLarge, ProtocolBroken, StreamEnded
from swiftlike.rpc.frames import FIXED_BYTES, Frame, Kind, encode
from swiftlike.rpc.transport import EMPTY, Body, Header, Message, Outcome, Reply


class StreamEnd:
    """One end of one stream: the state that both ends share."""

    def __init__(self, connection: Connection, call_id: int, deadline: float, window_bytes: int) -> None:
        limits: RpcLimits = connection.limits
        self.window_bytes = window_bytes  # what the peer may send before its messages are received
        self.call_id = call_id
        self.ended: Reply | None = None  # how the stream ended, as far as this end knows
        self._connection = connection
        self._deadline = deadline
        self._stall_s = limits.stream_stall_s
        self._credit_bytes = 0  # what we may send
        self._peer_window_bytes = 0
        self._allowance_bytes = window_bytes  # what the peer may send
        self._taken_bytes = 0  # consumed by our owner and not yet given back as credit
        self._arrived: deque[tuple[Message, int]] = deque()
        self._peer_is_done = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def message_bytes(self) -> int:
        """The body of a message that leaves room for three more on their way; before the peer has spoken, the least."""
        window_bytes = self._peer_window_bytes or self._connection.limits.stream_window_bytes_min
        return min(STREAM_MESSAGE_BYTES, window_bytes // 4)

    async def send(self, body: Body = b"", header: Header = EMPTY) -> None:
        """Send one message, waiting for credit; raises StreamEnded when the stream is over or the peer stalls."""
        head = encode(Kind.DATA, self.call_id, header, body)
        cost = len(head) + len(body)
        while self.ended is None and (self._peer_window_bytes == 0 or self._credit_bytes < cost):
            self._check_fits(cost)
            await self._wait_to_write()
        if self.ended is not None:
            raise StreamEnded(self.ended)
        self._check_fits(cost)
        self._credit_bytes -= cost
        self._connection.send_encoded(head, body)

    def _check_fits(self, cost: int) -> None:
        """Refuse what could wait for credit for ever, or leave no room for what follows while it travels."""
        if 0 < self._peer_window_bytes < 2 * cost:
            raise FrameTooLarge("message", cost, self._peer_window_bytes // 2)

    async def receive(self) -> Message | None:
        """Return the next message, or None when the peer will send no more."""
        while not self._arrived:
            if self.ended is not None:
                if self.ended.outcome is Outcome.OK:
                    return None
                raise StreamEnded(self.ended)
            if self._peer_is_done:
                return None
            if self._taken_bytes:
                self._give_credit()
            await self._wait_to_read()
        message, cost = self._arrived.popleft()
        self._taken_bytes += cost
        if self._taken_bytes >= self.window_bytes // 4:
            self._give_credit()
        return message

    def __aiter__(self) -> "StreamEnd":
        """Iterate over `receive`."""
        return self

    async def __anext__(self) -> Message:
        """Return the next message of the iteration."""
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    # --- what the connection feeds in -------------------------------------------------------------------------

    def data_arrived(self, frame: Frame) -> None:
        """Queue a message; raises ProtocolBroken when the peer had no credit for it or had said END."""
        cost = FIXED_BYTES + frame.header_bytes + len(frame.body)
        self._allowance_bytes -= cost
        if self._allowance_bytes < 0:
            raise ProtocolBroken(f"the peer overdrew its credit by {-self._allowance_bytes} bytes")
        if self._peer_is_done:
            raise ProtocolBroken("DATA after END")
        if not isinstance(frame.header, dict):
            raise ProtocolBroken("the header of a DATA frame is not a map")
        self._arrived.append((Message(frame.header, frame.body), cost))
        _wake(self._reader)

    def credit_arrived(self, frame: Frame) -> None:
        """Add to what may be sent."""
        match frame.header:
            case (int(credit_bytes),) if 0 < credit_bytes < 2**32:
                self._peer_window_bytes = self._peer_window_bytes or credit_bytes
                self._credit_bytes += credit_bytes
                if self._credit_bytes > self._peer_window_bytes:
                    raise ProtocolBroken("the peer gave more credit than its window")
                _wake(self._writer)
            case _:
                raise ProtocolBroken("the header of a CREDIT frame is not a number of bytes")

    def end_arrived(self) -> None:
        """Note that the peer will send no more."""
        self._peer_is_done = True
        _wake(self._reader)

    def end(self, reply: Reply) -> None:
        """End the stream at this end; the first end counts."""
        if self.ended is None:
            self.ended = reply
            _wake(self._reader)
            _wake(self._writer)

    # --- waiting ----------------------------------------------------------------------------------------------

    async def _wait_to_read(self) -> None:
        assert self._reader is None, "a stream has one reader"
        self._reader = self._connection.loop.create_future()
        try:
            await self._wait(self._reader, "sent nothing")
        finally:
            self._reader = None

    async def _wait_to_write(self) -> None:
        assert self._writer is None, "a stream has one writer"
        self._writer = self._connection.loop.create_future()
        try:
            await self._wait(self._writer, "took nothing")
        finally:
            self._writer = None

    async def _wait(self, woken: asyncio.Future[None], fault: str) -> None:
        """Wait for the peer until it stalls or the deadline passes, either of which ends the stream."""
        loop = self._connection.loop
        stalled_at = loop.time() + self._stall_s
        if stalled_at < self._deadline:
            reply = Reply(Outcome.UNKNOWN, code="stalled", reason=f"the peer {fault} for {self._stall_s:g} s")
        else:
            reply = Reply(Outcome.UNKNOWN, code="timeout", reason=f"the peer {fault} until the deadline")
        timer = loop.call_at(min(stalled_at, self._deadline), self.end, reply)
        try:
            await woken
        finally:
            timer.cancel()

    def _give_credit(self) -> None:
        self._allowance_bytes += self._taken_bytes
        if self.ended is None and self._connection.closed is None:
            self._connection.send(Kind.CREDIT, self.call_id, (self._taken_bytes,))
        self._taken_bytes = 0


class ServedStream(StreamEnd):
    """The serving end; the reply that its handler returns ends the stream."""

    def __init__(
        self,
        connection: Connection,
        call_id: int,
        caller_window_bytes: int,
        deadline: float,
        window_bytes: int,
    ) -> None:
        super().__init__(connection, call_id, deadline, window_bytes)
        self._credit_bytes = self._peer_window_bytes = caller_window_bytes
        connection.send(Kind.CREDIT, call_id, (window_bytes,))


class CalledStream(StreamEnd):
    """The calling end; see `transport.Stream`."""

    finished = False  # we have said END

    @property
    def reply(self) -> Reply | None:
        """How the stream ended, or None while it goes on."""
        return self.ended

    async def finish(self, body: Body = b"", header: Header = EMPTY) -> Reply:
        """Send what is left, say END, drop what still arrives, and return the reply."""
        try:
            if body or header:
                await self.send(body, header)
            self.say_end()
            while await self.receive() is not None:
                pass
        except StreamEnded as end:
            return end.reply
        assert self.ended is not None
        return self.ended

    def say_end(self) -> None:
        """Tell the server, once, that no more will come."""
        if not self.finished and self._connection.closed is None:
            self.finished = True
            self._connection.send(Kind.END, self.call_id, ())


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
