"""One connection of the RPC, at either end: bytes in become frames, frames out become one write per loop turn.

Owns the handshake's place at the start, the outbox and the moment of its flush, and the end of the connection.
Never knows what a call or a stream is: `client` and `server` say what frames mean. Works on any event loop and over
anything that is an `asyncio.Transport`: TCP, a Unix socket, TLS, or a simulated wire.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from socket import AF_UNIX, SO_SNDBUF, SOL_SOCKET
from typing import cast

from swiftlike.limits import RPC_HANDSHAKE_BYTES_MAX, RPC_UNIX_SEND_BYTES, RpcLimits
from swiftlike.rpc.errors import ConnectionFailed, FrameTooLarge, WireError
from swiftlike.rpc.frames import FIXED, Frame, FrameDecoder, Kind, encode
from swiftlike.rpc.transport import Body

_OUTBOX_FLUSH_BYTES = 256 * 1024


class Connection(asyncio.BufferedProtocol):
    """What both ends share. A subclass sets `handle` and defines `on_closed`."""

    handle: Callable[[Frame], None]
    """What frames mean at present; a WireError raised by it ends the connection."""

    def __init__(self, limits: RpcLimits) -> None:
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.closed: WireError | None = None  # why this connection is of no more use
        self.received_at = self.loop.time()  # when the peer last gave a sign of life
        self.outbox_bytes = 0
        self.paused = False  # the peer does not keep up with reading
        self._decoder = FrameDecoder()
        self._strange_bytes: int | None = 0  # received so far, None once the peer is trusted
        self._outbox: list[Body] = []
        self._flush_scheduled = False
        self._wire: asyncio.Transport | None = None
        self._gone: asyncio.Future[None] = self.loop.create_future()

    # --- what a subclass says ---------------------------------------------------------------------------------

    def on_closed(self, error: WireError) -> None:
        """Settle everything that hung on this connection; called exactly once."""
        raise NotImplementedError

    def on_flushed(self) -> None:
        """Note that everything sent so far has left this process, or is about to whatever happens."""

    # --- what a subclass does ---------------------------------------------------------------------------------

    @property
    def peer_name(self) -> str:
        """Name the other end for logs and messages."""
        name = self._wire.get_extra_info("peername") if self._wire is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "unix socket")

    def trust(self) -> None:
        """Admit frames of full size: the handshake is done."""
        self._strange_bytes = None
        self._decoder.trust()

    def send(self, kind: Kind, call_id: int, header: object, body: Body = b"") -> None:
        """Put one frame into the outbox, which leaves at the end of this loop turn.

        Raises FrameTooLarge and leaves the connection as it was.
        """
        self.send_encoded(encode(kind, call_id, header, body), body)

    def send_encoded(self, head: bytes, body: Body) -> None:
        """Put a frame into the outbox whose head `encode` has made."""
        outbox = self._outbox
        outbox.append(head)
        if body:
            outbox.append(body)
        self.outbox_bytes += len(head) + len(body)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_turn)

    def withdraw(self, kind: Kind, call_id: int) -> None:
        """Take a frame back that is still in the outbox; rare, so it may walk the whole of it."""
        kept: list[Body] = []
        parts = iter(self._outbox)
        for head in parts:
            _, _, found_kind, found_id, _, body_bytes, _ = FIXED.unpack_from(head)
            frame = [head, next(parts)] if body_bytes else [head]
            if (found_kind, found_id) == (kind, call_id):
                self.outbox_bytes -= sum(map(len, frame))
            else:
                kept += frame
        self._outbox = kept

    def flush(self) -> None:
        """Hand the outbox to the wire in one piece, unless the peer does not keep up."""
        if self.paused or not self._outbox or self.closed is not None:
            return
        assert self._wire is not None
        outbox = self._outbox
        self._outbox = []
        self.outbox_bytes = 0
        self.on_flushed()
        if len(outbox) == 1:
            self._wire.write(outbox[0])
        else:
            self._wire.writelines(outbox)

    def unread_bytes(self) -> int:
        """Return how much this end has sent and the peer's host has not taken."""
        return self.outbox_bytes + (self._wire.get_write_buffer_size() if self._wire is not None else 0)

    def close(self, error: WireError) -> None:
        """End the connection once what was sent has left."""
        if self.closed is not None:
            return
        self.flush()
        self._end(error)
        if self._wire is not None:
            if self._wire.get_write_buffer_size():  # do not wait for ever for a peer that does not read
                self.loop.call_later(self.limits.handshake_s, self._wire.abort)
            self._wire.close()

    def abort(self, error: WireError) -> None:
        """End the connection now; what was not taken by the peer's host is lost."""
        if self.closed is None:
            self._end(error)
        if self._wire is not None:
            self._wire.abort()

    @staticmethod
    async def wait_gone(connections: "Collection[Connection]", patience_s: float) -> None:
        """Return when the wires of closed connections are no more; abort those that need longer than `patience_s`."""
        wires = [connection._gone for connection in connections]
        if not wires:
            return
        late = asyncio.get_running_loop().call_later(
            patience_s, _abort_all, [connection for connection in connections if not connection._gone.done()]
        )
        try:
            await asyncio.wait(wires)
        finally:
            late.cancel()

    # --- what the event loop calls ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the wire."""
        self._wire = cast("asyncio.Transport", transport)
        self._wire.set_write_buffer_limits(high=self.limits.write_buffer_bytes)
        sock = self._wire.get_extra_info("socket")  # none in a simulated network
        if sock is not None and sock.family == AF_UNIX:
            sock.setsockopt(SOL_SOCKET, SO_SNDBUF, RPC_UNIX_SEND_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go."""
        return self._decoder.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the frames that are complete now, and answer them all with one write."""
        self.received_at = self.loop.time()
        # What is sent meanwhile leaves at the end of this, and needs no turn of its own.
        was_scheduled, self._flush_scheduled = self._flush_scheduled, True
        try:
            if self._strange_bytes is not None:
                self._strange_bytes += nbytes
                if self._strange_bytes > RPC_HANDSHAKE_BYTES_MAX:
                    raise FrameTooLarge("handshake", self._strange_bytes, RPC_HANDSHAKE_BYTES_MAX)
            for frame in self._decoder.received(nbytes):
                if self.closed is not None:
                    return
                self.handle(frame)
                if self.outbox_bytes > _OUTBOX_FLUSH_BYTES:
                    self.flush()
        except WireError as error:
            self.on_broken(error)
            return
        finally:
            self._flush_scheduled = was_scheduled
        self.flush()

    def on_broken(self, error: WireError) -> None:
        """End a connection on which the peer sent what it must not."""
        self.abort(error)

    def eof_received(self) -> bool:
        """Close when the peer does: half-open connections have no use here."""
        return False

    def pause_writing(self) -> None:
        """Keep frames in the outbox while the peer does not read."""
        self.paused = True

    def resume_writing(self) -> None:
        """Go on, with everything that has gathered."""
        self.paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what hung on this connection, whose wire is no more."""
        if not self._gone.done():
            self._gone.set_result(None)
        if self.closed is None:
            midway = " in the middle of a frame" if self._decoder.midway else ""
            cause = f": {exc}" if exc is not None else ""
            self._end(ConnectionFailed(f"the connection was closed by the other end{midway}{cause}"))

    # --- helpers ----------------------------------------------------------------------------------------------

    def _flush_turn(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def _end(self, error: WireError) -> None:
        self.closed = error
        self.on_closed(error)
        self._outbox.clear()
        self.outbox_bytes = 0


def _abort_all(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.abort(ConnectionFailed("the other end did not take what was left to send"))
