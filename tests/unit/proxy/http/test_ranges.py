"""Range: the table of RFC 9110 §14.1, and the framing of several."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.byteranges import frame
from proxy.http.errors import RangeNotSatisfiable
from proxy.http.ranges import Span, resolve_ranges
from swiftlike.limits import RANGES_MAX
from swiftlike.rpc.transport import Body


@pytest.mark.parametrize(
    ("header", "size", "spans"),
    [
        ("bytes=0-0", 10, [(0, 1)]),
        ("bytes=0-9", 10, [(0, 10)]),
        ("bytes=0-99", 10, [(0, 10)]),
        ("bytes=5-", 10, [(5, 10)]),
        ("bytes=-3", 10, [(7, 10)]),
        ("bytes=-99", 10, [(0, 10)]),
        ("BYTES = 1-2", 10, [(1, 3)]),
        ("bytes=1-2, 4-5", 10, [(1, 3), (4, 6)]),
        ("bytes=4-5,1-2", 10, [(4, 6), (1, 3)]),
        ("bytes=1-2,,\t4-5,", 10, [(1, 3), (4, 6)]),
        ("bytes=1-2,20-30", 10, [(1, 3)]),
        ("bytes=1-2,-0", 10, [(1, 3)]),
        ("bytes=0-5,4-6,0-2", 10, [(0, 6), (4, 7), (0, 3)]),
        ("bytes=0-99999999999999999999999999999999", 10, [(0, 10)]),
        ("bytes=-99999999999999999999999999999999", 10, [(0, 10)]),
        # Not a range that we honour: everything is sent.
        ("lines=1-2", 10, []),
        ("bytes", 10, []),
        ("bytes=", 10, []),
        ("bytes=,", 10, []),
        ("bytes=-", 10, []),
        ("bytes=a-b", 10, []),
        ("bytes=1-2,x", 10, []),
        ("bytes=2-1", 10, []),
        ("bytes=1--2", 10, []),
        ("bytes=+1-2", 10, []),
        ("bytes=1 - 2", 10, []),
        ("bytes=١-٢", 10, []),
        ("bytes=-5", 0, []),
    ],
)
def test_a_range_is_the_spans_that_lie_in_the_body(
    header: str, size: int, spans: list[tuple[int, int]]
) -> None:
    assert resolve_ranges(header, size) == tuple(Span(*span) for span in spans)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=10-", 10),
        ("bytes=10-11", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-0", 0),
        ("bytes=10-,20-30", 10),
        ("bytes=99999999999999999999999999999999-", 10),
        ("bytes=" + ",".join(["0-0"] * (RANGES_MAX + 1)), 10),
        ("bytes=0-,0-,0-,0-", 10),
        ("bytes=0-9,1-2,4-5,7-8", 10),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_range_beyond_the_body_is_not_satisfiable(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        resolve_ranges(header, size)


@given(st.text(max_size=30), st.integers(0, 100))
def test_whatever_a_range_says_its_spans_lie_in_the_body(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            spans = resolve_ranges(header, size)
        except RangeNotSatisfiable:
            continue
        assert all(0 <= span.start < span.stop <= size for span in spans)


async def test_several_ranges_are_framed_and_as_long_as_was_said() -> None:
    body = b"0123456789"

    async def read(start: int, stop: int) -> AsyncIterator[Body]:
        yield body[start:stop]

    parts = frame([Span(0, 2), Span(8, 10)], len(body), "text/x", "B")
    whole = b"".join([bytes(chunk) async for chunk in parts.stream(read)])
    assert whole == (
        b"--B\r\nContent-Type: text/x\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n"
        b"--B\r\nContent-Type: text/x\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--B--\r\n"
    )
    assert parts.size == len(whole)
