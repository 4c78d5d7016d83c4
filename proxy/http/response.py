"""One answer, and how its head is written.

Owns status, headers, the body or where it comes from, and the rules of Content-Length: every answer has one but 304, a
204 says 0, and a HEAD's is that of the GET; and but one that begins before anybody knows how long it is, which comes in
HTTP's own chunks. Never touches a socket.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from swiftlike.rpc.transport import Body

Headers = list[tuple[str, str]]

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
} | {498: "HTTP/1.1 498 Rate Limited\r\n", 499: "HTTP/1.1 499 Client Closed Request\r\n"}
_BODILESS: Final = (204, 304)


@dataclass(slots=True)
class Response:
    """What a client is told."""

    status: int
    headers: Headers = field(default_factory=list)
    """Names and values; values are written as UTF-8."""
    body: Body = b""
    stream: AsyncIterator[Body] | None = None
    """Where the body comes from instead, `length` bytes of it; closed when the answer ends, however it ends."""
    length: int | None = None
    """Content-Length: of `stream`, or of the body that a HEAD does not send; None: that of `body`, and a stream ends when it
    ends."""
    close: bool = False
    """End the connection after it."""

    @property
    def sends_body(self) -> bool:
        """Whether this status has a body at all."""
        return self.status not in _BODILESS

    @property
    def is_endless(self) -> bool:
        """Whether nobody knows yet how long the body is."""
        return self.stream is not None and self.length is None


class HeaderRefused(ValueError):
    """A header of an answer holds a line break: a bug, since nothing that a client sends may get there."""


def write_head(response: Response, common: str, close: bool, is_chunked: bool = True) -> bytes:
    """Write status line and headers. `common` are header lines that every answer has, each with its line end.

    `is_chunked`: whether the client knows chunks; to one that does not, only the end of the connection tells the end of an
    endless answer. Raises HeaderRefused.
    """
    lines = [f"{name}: {value}\r\n" for name, value in response.headers]
    status, length = response.status, response.length
    if status == 204:
        lines.append("Content-Length: 0\r\n")
    elif length is None and response.stream is not None:
        if is_chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
    elif status != 304:
        lines.append(f"Content-Length: {len(response.body) if length is None else length}\r\n")
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        raise HeaderRefused(f"a line break in the headers of a {status}")
    ending = "Connection: close\r\n\r\n" if close else "\r\n"
    return (_STATUS_LINES[status] + text + common + ending).encode()


def write_chunk(raw: Body) -> bytes:
    """Write one of HTTP's chunks; an empty one is the last. Source: RFC 9112 §7.1."""
    return b"".join((b"%x\r\n" % len(raw), raw, b"\r\n"))


def text_response(status: int, text: str) -> Response:
    """Return an answer that belongs to no dialect."""
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode())
