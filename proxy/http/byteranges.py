"""Several ranges in one answer: multipart/byteranges.

Owns the framing, and the length of the whole before any of it is read. Never reads a body. Source: RFC 9110 §14.6.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from proxy.http.ranges import Span
from swiftlike.rpc.transport import Body

TOGETHER_BYTES: Final = 64 * 1024
"""Bytes of spans that are gathered before they leave."""


class Multipart(NamedTuple):
    """The parts of an answer and the lines between them."""

    boundary: str
    heads: tuple[bytes, ...]
    """What stands before the bytes of each span."""
    spans: tuple[Span, ...]
    tail: bytes

    @property
    def content_type(self) -> str:
        """What the whole is."""
        return f"multipart/byteranges;boundary={self.boundary}"

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return sum(map(len, self.heads)) + sum(span.size for span in self.spans) + len(self.tail)

    async def stream(self, read: Callable[[int, int], AsyncIterator[Body]]) -> AsyncIterator[Body]:
        """Yield the whole, reading each span in turn. What is short comes in one piece, so that all of it was read by then."""
        held: list[Body] = []
        held_bytes = 0
        for head, span in zip(self.heads, self.spans, strict=True):
            held.append(head)
            source: Any = read(span.start, span.stop)
            async with aclosing(source) as chunks:
                async for chunk in chunks:
                    held.append(chunk)
                    held_bytes += len(chunk)
                    if held_bytes >= TOGETHER_BYTES:
                        yield b"".join(held)
                        held, held_bytes = [], 0
        yield b"".join([*held, self.tail])


def frame(spans: Sequence[Span], body_bytes: int, content_type: str, boundary: str) -> Multipart:
    """Lay out an answer of several spans. The boundary is random, so that no body can hold it but by chance."""
    heads = []
    for at, span in enumerate(spans):
        lead = "\r\n" if at else ""
        heads.append(
            f"{lead}--{boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: {span.content_range(body_bytes)}\r\n\r\n".encode()
        )
    return Multipart(boundary, tuple(heads), tuple(spans), f"\r\n--{boundary}--\r\n".encode())
