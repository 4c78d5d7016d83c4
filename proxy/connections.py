"""Connections: what stands between the server and the HTTP library.

Owns the library's state machine, with a time limit on heads, error answers of our own, and a bound on connections. The one
module that knows aiohttp; docs/adr/008-http-server.md lists where that thinks otherwise than we do. Never decides what
is answered: that is the server's, seen here as `Answers`.
"""

import asyncio
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

from proxy.http.body import RequestBody
from swiftlike.limits import (
    HTTP_FIELD_BYTES_MAX,
    HTTP_FIELDS_MAX,
    HTTP_LINE_BYTES_MAX,
    HTTP_READ_BYTES,
    HttpLimits,
)

_WRITE_BUFFER_BYTES: Final = 256 * 1024
"""Unsent bytes of one connection above which its answer waits for the client."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answers(Protocol):
    """Whoever answers."""

    @property
    def limits(self) -> HttpLimits:
        """Bounds towards clients."""

    async def handle(self, exchange: "Exchange") -> "Sent":
        """Answer one request; what is returned says whether its connection may serve another."""

    def refuse_unparsed(self, remote: str) -> bytes:
        """Return the answer to what is no HTTP request."""

    def refuse_connection(self) -> bytes:
        """Return the answer to a connection above the limit, given before it asks."""


class Sent:
    """What the library gets for an answer, which has been written already."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None:
        """Nothing is left to write."""

    async def write_eof(self) -> None:
        """Nothing is left to write."""


KEEP: Final = Sent(True)
CLOSE: Final = Sent(False)


class Exchange:
    """What the library's state machine takes for a request: a parsed head, a payload and a way to answer.

    Its own request class parses and rewrites the target, and fails on some; this one only carries.
    """

    __slots__ = (
        "_task",
        "headers",
        "knows_chunks",
        "message",
        "method",
        "payload",
        "protocol",
        "target",
        "writer",
    )

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: "Connection",
        writer: Any,
        task: "asyncio.Task[None]",
    ) -> None:
        self.message = message
        self.method: Final = message.method
        """The request's method, as it came."""
        self.target: Final = message.path
        """The request's target, as it came."""
        self.headers: Final[CIMultiDictProxy[str]] = message.headers
        """The request's headers."""
        self.knows_chunks: Final[bool] = message.version >= HttpVersion11
        """Whether the client can read an answer in chunks."""
        self.payload = payload
        self.protocol = protocol
        self.writer = writer
        self._task = task

    def _finish(self) -> None:
        """The library calls it when a handler is done."""

    def _cancel(self, error: BaseException) -> None:
        """The library calls it when the connection is lost: whoever reads the body learns of it."""
        self.payload.set_exception(error)

    @property
    def is_last(self) -> bool:
        """Whether the client wants the connection to end after this, or knows no better."""
        return self.message.should_close or not self.knows_chunks

    @property
    def is_recoded(self) -> bool:
        """Whether the body came under a transfer coding besides chunks; where chunks are not the last of them, or are twice,
        the library has refused it.
        """
        return self.message.chunked and self.headers["Transfer-Encoding"].strip(" \t").lower() != "chunked"

    @property
    def scheme(self) -> str:
        """How the client reached us."""
        return "http" if self.protocol.ssl_context is None else "https"

    @property
    def remote(self) -> str:
        """The client's address."""
        return self.protocol.remote

    def body(self, idle_s: float) -> RequestBody:
        """Return the body, which invites the client to send it where the client waits for that."""
        message, headers = self.message, self.headers
        size = None if message.chunked else int(headers.get("Content-Length", 0))
        expects = "Expect" in headers and headers["Expect"].lower() == "100-continue"
        return RequestBody(
            cast(Any, self.payload),
            size,
            idle_s=idle_s,
            invite=self._invite if expects and self.knows_chunks else None,
            connected=lambda: self.protocol.connected,
        )

    def _invite(self) -> None:
        if self.protocol.transport is not None:
            self.protocol.transport.write(_CONTINUE)

    def write(self, chunk: Any) -> None:
        """Hand bytes to the connection. Raises ConnectionResetError when it has gone."""
        transport = self.protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(chunk)

    @property
    def is_full(self) -> bool:
        """Whether the client has to take something before more is written."""
        return self.protocol.writing_paused

    async def wait_written(self, idle_s: float) -> None:
        """Wait until the client has taken enough. Raises TimeoutError when it takes nothing for `idle_s`."""
        if self.is_full:
            async with asyncio.timeout(idle_s):
                await self.writer.drain()

    def abort(self) -> None:
        """End the connection at once, so that what was sent cannot be taken for whole."""
        if self.protocol.transport is not None:
            self.protocol.transport.abort()


class Connections(web.Server):
    """All connections; makes the protocol of each, with settings that must all be known to it."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(cast(Any, answers.handle), request_factory=cast(Any, Exchange))
        self._answers = answers

    def __call__(self) -> "Connection":
        return Connection(self, self._answers)


class Connection(web.RequestHandler):
    """One connection: the library's state machine, with a time limit on heads and error answers of our own."""

    __slots__ = ("_answers", "_head_timer", "remote")

    def __init__(self, manager: Connections, answers: Answers) -> None:
        limits = answers.limits
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.keepalive_s,
            access_log=cast(Any, None),
            max_line_size=HTTP_LINE_BYTES_MAX,
            max_field_size=HTTP_FIELD_BYTES_MAX,
            max_headers=HTTP_FIELDS_MAX,
            read_bufsize=HTTP_READ_BYTES,
            lingering_time=limits.linger_s,
            auto_decompress=False,
        )
        self._answers = answers
        self._head_timer: asyncio.TimerHandle | None = None
        self.remote = ""
        """The client's address, once it is connected."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of one's head."""
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or say that there are too many."""
        writable = cast(asyncio.Transport, transport)
        if self._manager is None or (len(self._manager.connections) >= self._answers.limits.connections_max):
            self._force_close = True
            writable.write(self._answers.refuse_connection())
            writable.close()
            return
        writable.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        super().connection_made(transport)
        peer = self.peername
        self.remote = peer[0] if isinstance(peer, tuple) else ""

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; what leaves the connection waiting is the beginning of a head, and has `head_s` to become whole."""
        super().data_received(data)
        if not self.is_idle:
            if self._head_timer is not None:
                self._stop_head_timer()
        elif self._head_timer is None and data:
            self._head_timer = self._loop.call_later(self._answers.limits.head_s, self._head_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self.is_idle:
            self.force_close()

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Any:
        """Answer what could not be parsed, without an echo of it; `Server.handle` leaves no other error."""
        if self.transport is not None:
            self.transport.write(self._answers.refuse_unparsed(self.remote))
        return CLOSE
