"""The request target: path and query as they came, and percent-decoded once, as bytes.

Owns the step from the request line to names. Never normalizes: `//`, `.`, `..` and `%2F` are data. Source: RFC 9112 §3.2
(origin-form and absolute-form), RFC 3986 §2.1; a query is decoded as forms are, so that `+` is a space there.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from proxy.http.errors import TargetRefused

QUERY_ITEMS_MAX: Final = 100
"""More parameters than any call of either dialect has."""


class Target(NamedTuple):
    """Where a request goes."""

    raw_path: str
    """As it came, percent-encoded, without query."""
    raw_query: str
    """As it came, without the question mark."""
    path: bytes
    """Percent-decoded."""


def parse_target(raw: str) -> Target:
    """Split a request target.

    Raises TargetRefused when it is neither a path nor an absolute URL, or holds a percent sign without two hex digits.
    """
    if not raw.startswith("/"):
        raw = _origin_form(raw)
    raw_path, _, raw_query = raw.partition("?")
    # Nothing that a client sends has a fragment; one in the path would be taken for a part of a name.
    if "#" in raw_path:
        raise TargetRefused("a request target has no fragment")
    return Target(raw_path, raw_query, decode_percent(raw_path))


def unread_target(raw: str) -> Target:
    """Return a target that cannot be read, as it came: enough to tell whose it is, and to refuse it."""
    raw_path, _, raw_query = raw.partition("?")
    return Target(raw_path, raw_query, raw_path.encode("utf-8", "surrogateescape"))


def _origin_form(raw: str) -> str:
    """Return path and query of an absolute URL; `*`, as OPTIONS may ask for, is the root."""
    scheme, separator, rest = raw.partition("://")
    if raw == "*":
        return "/"
    if not separator or scheme.lower() not in ("http", "https"):
        raise TargetRefused("the request target is neither a path nor an http URL")
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    if not cut:
        raise TargetRefused("the request target names no host")
    found = rest[cut:]
    return found if found.startswith("/") else "/" + found


def decode_percent(raw: str) -> bytes:
    """Percent-decode once. Raises TargetRefused for a percent sign that two hex digits do not follow."""
    if "%" not in raw:
        return raw.encode("utf-8", "surrogateescape")
    decoded = unquote_to_bytes(raw.encode("utf-8", "surrogateescape"))
    # What was no escape is kept by unquote_to_bytes. Each escape shortens the text by two characters.
    if len(raw.encode("utf-8", "surrogateescape")) - len(decoded) != 2 * raw.count("%"):
        raise TargetRefused("a percent sign is not followed by two hexadecimal digits")
    return decoded


def parse_query(raw: str) -> dict[str, bytes]:
    """Decode the parameters of a query; of one that is repeated the first counts, one without `=` is empty.

    Raises TargetRefused for bad escapes, names that are not UTF-8, and more than QUERY_ITEMS_MAX parameters.
    """
    found: dict[str, bytes] = {}
    if not raw:
        return found
    items = raw.split("&")
    if len(items) > QUERY_ITEMS_MAX:
        raise TargetRefused(f"a query has at most {QUERY_ITEMS_MAX} parameters")
    for item in items:
        if not item:
            continue
        name, _, value = item.replace("+", " ").partition("=")
        try:
            found.setdefault(decode_percent(name).decode(), decode_percent(value))
        except UnicodeDecodeError:
            raise TargetRefused("the name of a parameter is not valid UTF-8") from None
    return found
