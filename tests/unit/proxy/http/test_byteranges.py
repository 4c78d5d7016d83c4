"""Several ranges in one answer: their framing, and when they leave."""

from collections.abc import AsyncIterator

import pytest

from proxy.http.byteranges import TOGETHER_BYTES, frame
from proxy.http.ranges import Span
from swiftlike.rpc.transport import Body

BODY = bytes(range(256)) * 1024


class Gone(Exception):
    pass


async def read(start: int, stop: int) -> AsyncIterator[Body]:
    for at in range(start, stop, 10_000):
        yield BODY[at : min(stop, at + 10_000)]


@pytest.mark.parametrize(
    "spans", [(Span(0, 9), Span(100, 103)), (Span(0, 150_000), Span(7, 8), Span(9, 90_000))]
)
async def test_the_parts_add_up_to_what_was_announced(spans: tuple[Span, ...]) -> None:
    parts = frame(spans, len(BODY), "text/x", "b")
    pieces = [bytes(piece) async for piece in parts.stream(read)]
    found = b"".join(pieces)
    assert len(found) == parts.size
    bodies = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in found.split(b"--b")[1:-1]]
    assert bodies == [BODY[span.start : span.stop] for span in spans]
    assert all(len(piece) < TOGETHER_BYTES + 20_000 for piece in pieces)


async def test_of_short_parts_nothing_leaves_before_all_of_them_are_read() -> None:
    async def read_once(start: int, stop: int) -> AsyncIterator[Body]:
        if start:
            raise Gone
        yield BODY[start:stop]

    parts = frame((Span(0, 9), Span(100, 103)), len(BODY), "text/x", "b")
    with pytest.raises(Gone):
        await anext(parts.stream(read_once))
    assert len([piece async for piece in parts.stream(read)]) == 1
