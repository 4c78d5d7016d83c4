"""Range: which bytes of a body are asked for.

Owns the grammar and its limits. Never reads a body. Source: RFC 9110 §14.1 and §14.2.
"""

from typing import Final, NamedTuple

from proxy.http.errors import RangeNotSatisfiable
from swiftlike.limits import RANGE_OVERLAPS_MAX, RANGES_MAX

_DIGITS_MAX: Final = 20
"""Longer numbers are beyond any body, and cost time to parse."""


class Span(NamedTuple):
    """Bytes `[start, stop)` of a body."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.stop - self.start

    def content_range(self, body_bytes: int) -> str:
        """Write the header that says which bytes of how many these are; its end is inclusive."""
        return f"bytes {self.start}-{self.stop - 1}/{body_bytes}"


def resolve_ranges(header: str, body_bytes: int) -> tuple[Span, ...]:
    """Turn a Range header into the spans to send, in header order, clipped to the body.

    An empty tuple means "not a range we honour: send everything". Raises RangeNotSatisfiable when every span lies beyond
    the body, when there are more than RANGES_MAX, and when more than RANGE_OVERLAPS_MAX begin within another one, since
    such a request asks for more bytes than there are (RFC 9110 §14.2).
    """
    unit, equals, text = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    specs = text.split(",")
    if len(specs) > RANGES_MAX:
        raise RangeNotSatisfiable(f"more than {RANGES_MAX} ranges")
    spans: list[Span] = []
    asked = 0
    for spec in specs:
        stripped = spec.strip(" \t")
        if not stripped:
            continue  # lists may have empty elements
        first, dash, last = stripped.partition("-")
        if not dash or not _is_number(first) or not _is_number(last) or first == last == "":
            return ()
        asked += 1
        if first == "":
            wanted = _number(last)
            if wanted and body_bytes == 0:
                return ()  # satisfied by all of nothing, which no Content-Range can name
            start, stop = max(0, body_bytes - wanted), body_bytes
        else:
            start = _number(first)
            if last != "" and _number(last) < start:
                return ()
            stop = body_bytes if last == "" else min(_number(last) + 1, body_bytes)
        if start < stop:
            spans.append(Span(start, stop))
    if not asked:
        return ()
    if not spans:
        raise RangeNotSatisfiable(f"no range asked for begins within {body_bytes} bytes")
    if len(spans) > 1 and _overlaps(spans) > RANGE_OVERLAPS_MAX:
        raise RangeNotSatisfiable(f"more than {RANGE_OVERLAPS_MAX} ranges overlap")
    return tuple(spans)


def _overlaps(spans: list[Span]) -> int:
    """Count the spans that begin within what those before them cover."""
    count = reached = 0
    for span in sorted(spans):
        count += span.start < reached
        reached = max(reached, span.stop)
    return count


def _is_number(text: str) -> bool:
    return text == "" or (text.isascii() and text.isdigit())


def _number(text: str) -> int:
    return int(text) if len(text) <= _DIGITS_MAX else 10**_DIGITS_MAX
