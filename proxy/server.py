"""The HTTP server: the life of a request, admission, drain.

Owns what is between a connection and a dialect: transaction ids, admission, the writing of answers, the access log. Never
knows what is stored, nor how HTTP is parsed: that is `connections`'.

The life of a request: head parsed, transaction id given, admitted or told 503, its dialect chosen, its answer written,
one line logged. A bug in a dialect is a 500 with the transaction id and nothing else; the traceback is in the log.
"""

import asyncio
import logging
import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Final, Self, cast

from proxy.connections import CLOSE, KEEP, Connection, Connections, Exchange, Sent
from proxy.http.access_log import AccessLog
from proxy.http.dates import format_date
from proxy.http.errors import CodingRefused, HeadRefused, TargetRefused
from proxy.http.request import Dialect, Request
from proxy.http.response import Response, text_response, write_chunk, write_head
from proxy.http.target import parse_target, unread_target
from swiftlike.limits import HttpLimits
from swiftlike.rpc.transport import Body

log: Final = logging.getLogger("proxy.server")

_JOINED_BYTES_MAX: Final = 64 * 1024
"""Answers up to this leave in one buffer with their head; copying more costs more than a second buffer does."""
_BACKLOG: Final = 1024
_SHUTDOWN_S: Final = 0.5
"""For handlers to take note of being cancelled, after the drain."""
CLIENT_GONE: Final = 499
"""In the log only: nobody was there to be told."""


Refuse = Callable[[Request, HeadRefused], Awaitable[Response]]


class Server:
    """Serves one dialect or several on one or more sockets; usable inside its context, which drains when left."""

    def __init__(
        self,
        answer: Dialect,
        access_log: AccessLog,
        limits: HttpLimits | None = None,
        now_s: Callable[[], float] = time.time,
        turn_away: Dialect | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        """Take what answers, the log, bounds, the clock, what answers when there is no room for a request, and when its
        head cannot be heeded.
        """
        self.counts: Final[Counter[tuple[str, int]]] = Counter()
        """Requests by method and status; a method that is none of HTTP's counts as OTHER."""
        self.in_flight = 0
        self.limits: Final = limits or HttpLimits()
        self._answer = answer
        self._turn_away = turn_away or _turn_away
        self._refuse = refuse or _refuse
        self._log = access_log
        self._now_s = now_s
        self._loop = asyncio.get_running_loop()
        self._connections = Connections(self)
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
            if cast(Connection, protocol).is_idle:
                protocol.force_close()
        # A head that was parsed in this turn reaches `handle` within the next three.
        for _ in range(4):
            await asyncio.sleep(0)
        if self.in_flight:
            self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=self.limits.drain_s)
        await self._connections.shutdown(_SHUTDOWN_S)
        self._log.flush()

    # --- the life of a request ----------------------------------------------------------------------------------

    async def handle(self, exchange: Exchange) -> Sent:
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

    async def _run(self, exchange: Exchange, dialect: Dialect) -> Sent:
        started = self._loop.time()
        method, remote = exchange.method, exchange.remote
        transaction_id = self.next_transaction_id()
        body = exchange.body(self.limits.client_idle_s)
        who, raw_path, sent = "-", "-", 0
        try:
            refusal: HeadRefused | None = None
            try:
                target = parse_target(exchange.target)
                raw_path = target.raw_path
            except TargetRefused as refused:
                target, refusal = unread_target(exchange.target), refused
            if exchange.is_recoded:
                refusal = CodingRefused(
                    "Of the transfer codings, this server knows chunked alone: send it so."
                )
            request = Request(
                method,
                target,
                exchange.headers,
                body,
                transaction_id=transaction_id,
                scheme=exchange.scheme,
                remote=remote,
                deadline=started + self.limits.request_s,
            )
            if refusal is None:
                response = await dialect(request)
            else:
                response = await self._refuse(request, refusal)
                response.close |= exchange.is_recoded
            who = request.who
        except Exception:
            log.exception("%s: %s %s failed", transaction_id, method, raw_path)
            response = text_response(
                500, "Something went wrong here; the log has it under the transaction id."
            )
        close = exchange.is_last or response.close or self._draining or not body.arrived
        status = response.status
        try:
            sent = await self._send(exchange, response, transaction_id, close)
        except (ConnectionError, TimeoutError):
            status, close = CLIENT_GONE, True
            exchange.abort()
        except Exception:
            # Part of the answer may have left, so nothing can be said in its place: the client sees a short body.
            log.exception("%s: %s %s broke off its answer", transaction_id, method, raw_path)
            close = True
            exchange.abort()
        ended = self._loop.time()
        self.counts[method if method in _METHODS else "OTHER", status] += 1
        self._log.note(
            int(self._now_s() * 1_000_000),
            remote,
            who,
            method,
            raw_path,
            status,
            body.received,
            sent,
            ended - started,
            transaction_id,
        )
        return CLOSE if close else KEEP

    def next_transaction_id(self) -> str:
        """Return a new one: `tx`, this process, a number, and the second, as Swift's look."""
        return f"{self._transaction}{next(self._numbers):011x}-{int(self._now_s()):010x}"

    async def _overloaded(self, request: Request) -> Response:
        response = await self._turn_away(request)
        kept = [(name, value) for name, value in response.headers if name != "Retry-After"]
        response.headers = [*kept, ("Retry-After", str(self.limits.retry_after_s))]
        return response

    async def _send(self, exchange: Exchange, response: Response, transaction_id: str, close: bool) -> int:
        """Write an answer; return the bytes of its body. Raises ConnectionError when the client has gone."""
        stream = response.stream
        try:
            is_chunked = exchange.knows_chunks
            head = write_head(response, self.common_headers(transaction_id), close, is_chunked)
            if exchange.method == "HEAD" or not response.sends_body:
                exchange.write(head)
                return 0
            if stream is None:
                _write_whole(exchange, head, response.body)
                if exchange.is_full:
                    await exchange.wait_written(self.limits.client_idle_s)
                return len(response.body)
            exchange.write(head)
            if response.is_endless:
                return await self._send_endless(exchange, stream, is_chunked)
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

    async def _send_endless(self, exchange: Exchange, stream: AsyncIterator[Body], is_chunked: bool) -> int:
        sent = 0
        async for chunk in stream:
            if chunk:
                sent += len(chunk)
                exchange.write(write_chunk(chunk) if is_chunked else chunk)
                await exchange.wait_written(self.limits.client_idle_s)
        if is_chunked:
            exchange.write(write_chunk(b""))
            await exchange.wait_written(self.limits.client_idle_s)
        return sent

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


def _write_whole(exchange: Exchange, head: bytes, body: Body) -> None:
    if len(body) <= _JOINED_BYTES_MAX:
        exchange.write(b"".join((head, body)))
    else:
        exchange.write(head)
        exchange.write(body)


async def _refuse(request: Request, refusal: HeadRefused) -> Response:
    return text_response(refusal.status, f"{refusal}")


async def _turn_away(request: Request) -> Response:
    return text_response(503, "Too many requests are at work here: ask again.")


_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "COPY", "OPTIONS"})
