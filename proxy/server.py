"""The HTTP server: connections, the life of a request, limits, drain.

Owns everything between a socket and a dialect: transaction ids, admission, time limits on heads, bodies and answers, the
writing of answers, the access log. The one module that knows aiohttp, of which it uses the parser and the connection's
state machine; docs/adr/008-http-server.md lists where that thinks otherwise than we do. Never knows what is stored.

The life of a request: head parsed, transaction id given, admitted or told 503, its dialect chosen, its answer written,
one line logged. A bug in a dialect is a 500 with the transaction id and nothing else; the traceback is in the log.
"""

import asyncio
import logging
import os
import ssl
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, Final, Self, cast

from aiohttp import web
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader

from proxy.http.access_log import AccessLog
from proxy.http.body import RequestBody
from proxy.http.dates import format_date
from proxy.http.errors import TargetRefused
from proxy.http.request import Dialect, Request
from proxy.http.response import Response, write_head
from proxy.http.target import parse_target
from swiftlike.limits import (
    HTTP_FIELD_BYTES_MAX,
    HTTP_FIELDS_MAX,
    HTTP_LINE_BYTES_MAX,
    HTTP_READ_BYTES,
    HttpLimits,
)

log: Final = logging.getLogger("proxy.server")

_JOINED_BYTES_MAX: Final = 64 * 1024
"""Answers up to this leave in one buffer with their head; copying more costs more than a second buffer does."""
_WRITE_BUFFER_BYTES: Final = 256 * 1024
"""Unsent bytes of one connection above which its answer waits for the client."""
_BACKLOG: Final = 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SHUTDOWN_S: Final = 0.5
"""For handlers to take note of being cancelled, after the drain."""
CLIENT_GONE: Final = 499
"""In the log only: nobody was there to be told."""


class Server:
    """Serves one dialect or several on one or more sockets; usable inside its context, which drains when left."""

    def __init__(
        self,
        answer: Dialect,
        access_log: AccessLog,
        limits: HttpLimits | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Final[Counter[tuple[str, int]]] = Counter()
        """Requests by method and status; a method that is none of HTTP's counts as OTHER."""
        self.in_flight = 0
        self.limits: Final = limits or HttpLimits()
        self._answer = answer
        self._log = access_log
        self._now_s = now_s
        self._loop = asyncio.get_running_loop()
        self._connections = _Connections(self)
        self._listeners: list[asyncio.Server] = []
        self._draining = False
        self._idle: asyncio.Future[None] | None = None
        self._transaction = f"tx{os.urandom(5).hex()}"
        self._numbers = count(1)

    async def __aenter__(self) -> Self:
        """Begin; `listen` opens the doors."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain and close."""
        await self.drain()

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections.connections)

    async def listen(
        self, host: str, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None
    ) -> int:
        """Accept connections; return the port. Raises OSError when the address cannot be had."""
        listener = await self._loop.create_server(
            self._connections, host, port, reuse_port=reuse_port, backlog=_BACKLOG, ssl=tls
        )
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def drain(self) -> None:
        """Stop accepting, let what is at work finish for `drain_s`, then end every connection.

        Connections in the middle of a request are left alone: aiohttp's own close would drop the rest of their body.
        Every answer from now on ends its connection.
        """
        self._draining = True
        for listener in self._listeners:
            listener.close()
        for protocol in self._connections.connections:
            if cast(_Connection, protocol).is_idle:
                protocol.force_close()
        for _ in range(4):
            await asyncio.sleep(
                0
            )  # a head that was parsed in this turn reaches `handle` within the next three
        if self.in_flight:
            self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=self.limits.drain_s)
        await self._connections.shutdown(_SHUTDOWN_S)
        self._log.flush()

    # --- the life of a request ----------------------------------------------------------------------------------

    async def handle(self, exchange: "_Exchange") -> "_Sent":
        """Answer one request, whatever happens; return whether its connection may serve another."""
        if self.in_flight >= self.limits.requests_in_flight_max:
            return await self._run(exchange, self._overloaded)
        self.in_flight += 1
        try:
            return await self._run(exchange, self._answer)
        finally:
            self.in_flight -= 1
            if self._idle is not None and not self.in_flight and not self._idle.done():
                self._idle.set_result(None)

    async def _run(self, exchange: "_Exchange", dialect: Dialect) -> "_Sent":
        started = self._loop.time()
        message = exchange.message
        transaction_id = self.next_transaction_id()
        body = exchange.body(self.limits.client_idle_s)
        who, raw_path, sent = "-", "-", 0
        try:
            target = parse_target(message.path)
            raw_path = target.raw_path
            request = Request(
                message.method,
                target,
                message.headers,
                body,
                transaction_id=transaction_id,
                scheme=exchange.scheme,
                remote=exchange.remote,
                deadline=started + self.limits.request_s,
            )
            response = await dialect(request)
            who = request.who
        except TargetRefused as refusal:
            response = text_response(400, f"{refusal}")
        except Exception:
            log.exception("%s: %s %s failed", transaction_id, message.method, raw_path)
            response = text_response(
                500, "Something went wrong here; the log has it under the transaction id."
            )
        close = (
            message.should_close
            or message.version < HttpVersion11
            or response.close
            or self._draining
            or not body.arrived
        )
        status = response.status
        try:
            sent = await self._send(exchange, response, transaction_id, close)
        except (ConnectionError, TimeoutError):
            status, close = CLIENT_GONE, True
            exchange.abort()
        except Exception:
            # Part of the answer may have left, so nothing can be said in its place: the client sees a short body.
            log.exception("%s: %s %s broke off its answer", transaction_id, message.method, raw_path)
            close = True
            exchange.abort()
        ended = self._loop.time()
        self.counts[message.method if message.method in _METHODS else "OTHER", status] += 1
        self._log.note(
            int(self._now_s() * 1_000_000),
            exchange.remote,
            who,
            message.method,
            raw_path,
            status,
            body.received,
            sent,
            ended - started,
            transaction_id,
        )
        return _CLOSE if close else _KEEP

    def next_transaction_id(self) -> str:
        """Return a new one: `tx`, this process, a number, and the second, as Swift's look."""
        return f"{self._transaction}{next(self._numbers):011x}-{int(self._now_s()):010x}"

    async def _overloaded(self, request: Request) -> Response:
        response = text_response(503, "Too many requests are at work here: ask again.")
        response.headers.append(("Retry-After", str(self.limits.retry_after_s)))
        return response

    async def _send(self, exchange: "_Exchange", response: Response, transaction_id: str, close: bool) -> int:
        """Write an answer; return the bytes of its body. Raises ConnectionError when the client has gone."""
        stream = response.stream
        try:
            head = write_head(response, self.common_headers(transaction_id), close)
            if exchange.message.method == "HEAD" or not response.sends_body:
                exchange.write(head)
                return 0
            if stream is None:
                return await self._send_whole(exchange, head, response)
            exchange.write(head)
            sent, length = 0, response.length
            async for chunk in stream:
                sent += len(chunk)
                if length is None or sent > length:
                    raise ValueError(f"the body of an answer passed its declared {length} bytes")
                exchange.write(chunk)
                await exchange.wait_written(self.limits.client_idle_s)
            if sent != length:
                raise ValueError(f"the body of an answer had {sent} of {length} declared bytes")
            return sent
        finally:
            if stream is not None and (end := getattr(stream, "aclose", None)) is not None:
                await end()

    async def _send_whole(self, exchange: "_Exchange", head: bytes, response: Response) -> int:
        body = response.body
        if len(body) <= _JOINED_BYTES_MAX:
            exchange.write(b"".join((head, body)))
        else:
            exchange.write(head)
            exchange.write(body)
        await exchange.wait_written(self.limits.client_idle_s)
        return len(body)

    def common_headers(self, transaction_id: str) -> str:
        """Return the header lines that every answer has."""
        return (
            f"X-Trans-Id: {transaction_id}\r\nX-Openstack-Request-Id: {transaction_id}\r\n"
            f"Date: {format_date(int(self._now_s()))}\r\n"
        )

    def refuse_unparsed(self, remote: str) -> bytes:
        """Return the answer to what is no HTTP request; it holds nothing of what came."""
        transaction_id = self.next_transaction_id()
        response = text_response(400, "This is not a well-formed HTTP request.")
        self.counts["OTHER", 400] += 1
        self._log.note(int(self._now_s() * 1_000_000), remote, "-", "-", "-", 400, 0, 0, 0.0, transaction_id)
        return write_head(response, self.common_headers(transaction_id), True) + bytes(response.body)

    def refuse_connection(self) -> bytes:
        """Return the answer to a connection above the limit, given before it asks."""
        response = text_response(503, "Too many connections are open here: ask again.")
        response.headers.append(("Retry-After", str(self.limits.retry_after_s)))
        self.counts["OTHER", 503] += 1
        return write_head(response, self.common_headers(self.next_transaction_id()), True) + bytes(
            response.body
        )


_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "COPY", "OPTIONS"})


def text_response(status: int, text: str) -> Response:
    """Return an answer that belongs to no dialect."""
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode())


# --- what stands between us and the HTTP library ------------------------------------------------------------------


class _Sent:
    """What the library gets for an answer, which has been written already."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None:
        """Nothing is left to write."""

    async def write_eof(self) -> None:
        """Nothing is left to write."""


_KEEP: Final = _Sent(True)
_CLOSE: Final = _Sent(False)


class _Exchange:
    """What the library's state machine takes for a request: a parsed head, a payload and a way to answer.

    Its own request class parses and rewrites the target, and fails on some; this one only carries.
    """

    __slots__ = ("_task", "message", "payload", "protocol", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: "_Connection",
        writer: Any,
        task: "asyncio.Task[None]",
    ) -> None:
        self.message = message
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
    def scheme(self) -> str:
        return "http" if self.protocol.ssl_context is None else "https"

    @property
    def remote(self) -> str:
        peer = self.protocol.peername
        return peer[0] if isinstance(peer, tuple) else ""

    def body(self, idle_s: float) -> RequestBody:
        """Return the body, which invites the client to send it where the client waits for that."""
        message = self.message
        headers = message.headers
        size = None if message.chunked else int(headers.get("Content-Length", 0))
        expects = "Expect" in headers and headers["Expect"].lower() == "100-continue"
        return RequestBody(
            cast(Any, self.payload),
            size,
            idle_s=idle_s,
            invite=self._invite if expects and message.version >= HttpVersion11 else None,
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

    async def wait_written(self, idle_s: float) -> None:
        """Wait until the client has taken enough. Raises TimeoutError when it takes nothing for `idle_s`."""
        if self.protocol.writing_paused:
            async with asyncio.timeout(idle_s):
                await self.writer.drain()

    def abort(self) -> None:
        """End the connection at once, so that what was sent cannot be taken for whole."""
        if self.protocol.transport is not None:
            self.protocol.transport.abort()


class _Connections(web.Server):
    """All connections; makes the protocol of each, with settings that must all be known to it."""

    def __init__(self, server: Server) -> None:
        super().__init__(cast(Any, server.handle), request_factory=cast(Any, _Exchange))
        self._server = server

    def __call__(self) -> "_Connection":
        return _Connection(self, self._server)


class _Connection(web.RequestHandler):
    """One connection: the library's state machine, with a time limit on heads and error answers of our own."""

    __slots__ = ("_head_timer", "_server")

    def __init__(self, manager: _Connections, server: Server) -> None:
        limits = server.limits
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
        self._server = server
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of one's head."""
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or say that there are too many."""
        writable = cast(asyncio.Transport, transport)
        if self._server.connections >= self._server.limits.connections_max:
            self._force_close = True
            writable.write(self._server.refuse_connection())
            writable.close()
            return
        writable.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        super().connection_made(transport)

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
            self._head_timer = self._loop.call_later(self._server.limits.head_s, self._head_late)

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
            peer = self.peername
            self.transport.write(self._server.refuse_unparsed(peer[0] if isinstance(peer, tuple) else ""))
        return _CLOSE
