"""The body of a request, as it arrives.

Owns `100 Continue`, the limits on size and silence, and what a broken connection means. Never decides what a body is
for. Asked once: a body that was given out is gone.

`100 Continue` is written when the body is first asked for: whoever refuses a request before that never has it sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from proxy.http.errors import BodyError, BodyIncomplete, BodyMalformed, BodyTimeout, BodyTooLarge


class Payload(Protocol):
    """Where the bytes come from: the part of the HTTP library's reader that is used."""

    def is_eof(self) -> bool:
        """Whether the last byte has arrived, read or not."""

    def exception(self) -> BaseException | None:
        """What broke it."""

    def read_nowait(self, n: int = -1) -> bytes:
        """Take what has arrived."""

    async def readany(self) -> bytes:
        """Wait for more, and take it; nothing: the end."""


class RequestBody:
    """The body of one request."""

    def __init__(
        self,
        payload: Payload,
        size: int | None,
        *,
        idle_s: float,
        invite: Callable[[], None] | None = None,
        connected: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take the declared size, None for a chunked one, and what writes `100 Continue`, if the client waits for it."""
        self.size = size
        self.received = 0
        """Bytes that arrived so far, for the access log."""
        self._payload = payload
        self._idle_s = idle_s
        self._invite = invite
        self._connected = connected

    @property
    def is_empty(self) -> bool:
        """Whether it is known to have no bytes."""
        return self.size == 0

    @property
    def arrived(self) -> bool:
        """Whether all of it is here, read or not: only then may the connection be used again unread."""
        return self._payload.is_eof()

    async def chunks(self, bytes_max: int) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises BodyError; BodyTooLarge before a declared size is sent at all."""
        if self.size is not None and self.size > bytes_max:
            raise BodyTooLarge(bytes_max)
        payload = self._payload
        # A client that waits is told to go on even where nothing is to come: the AWS CLI keeps an answer without `100 Continue`
        # in mind for the connection, and misreads the next one on it.
        if self._invite is not None and (self.is_empty or not payload.is_eof()):
            self._invite()
        self._invite = None
        while True:
            try:
                chunk = payload.read_nowait() if payload.is_eof() else await self._wait()
            except asyncio.CancelledError:
                raise
            except BodyError:
                raise
            except Exception as error:
                # The reader raises errors of several families, and a plain RuntimeError where the connection has gone.
                raise self._broken(error) from error
            if not chunk:
                break
            self.received += len(chunk)
            if self.received > bytes_max:
                raise BodyTooLarge(bytes_max)
            yield chunk
        if self.size is not None and self.received != self.size:
            raise BodyIncomplete(f"{self.received} of {self.size} bytes arrived")

    async def read(self, bytes_max: int) -> bytes:
        """Return all of a body that has at most `bytes_max`. Raises BodyError."""
        return b"".join([chunk async for chunk in self.chunks(bytes_max)])

    async def _wait(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._payload.readany()
        except TimeoutError:
            raise BodyTimeout(f"nothing arrived for {self._idle_s:g} s") from None

    def _broken(self, error: Exception) -> BodyError:
        if self._connected():
            return BodyMalformed(f"the body's framing is broken: {type(error).__name__}")
        return BodyIncomplete("the client has gone")
