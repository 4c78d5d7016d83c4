"""What a query of a listing speaks of: between which names its page lies, and what a name is rolled up to.

Owns the meaning of prefix, markers and delimiter, which a device that reads rows and a proxy that merges those of several
must have in common. Never sees a row.
"""

from typing import Final

from swiftlike.node_calls import Query

LAST_NAME: Final = b"\xff" * 8
"""Above every name: UTF-8 has no byte 0xff."""


def behind(prefix: bytes) -> bytes:
    """Return the least byte string above all that begin with `prefix`, which is not all 0xff."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])


def bounds(query: Query) -> tuple[bytes, bytes]:
    """Return the span of names `[low, high)` that a page may hold."""
    low, high = query.prefix, behind(query.prefix) if query.prefix else LAST_NAME
    above, below = (query.end_marker, query.marker) if query.reverse else (query.marker, query.end_marker)
    if above:
        low = max(low, above + b"\0")
    if below:
        high = min(high, below)
    return low, high


def common_prefix(name: bytes, query: Query) -> bytes | None:
    """Return what a name is rolled up to, if it is."""
    if not query.delimiter:
        return None
    at = name.find(query.delimiter, len(query.prefix))
    return None if at < 0 else name[: at + len(query.delimiter)]
