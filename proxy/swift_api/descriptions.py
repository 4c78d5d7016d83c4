"""The headers that describe an object or a container beside user metadata.

Owns which of them are kept, Content-Type and its guess, and the time at which an object is due. The time is handed in.
"""

from mimetypes import MimeTypes
from typing import Final

from multidict import CIMultiDictProxy

from proxy.auth.acls import AclRefused, parse_acl
from proxy.store.values import Attributes
from proxy.swift_api.metadata import read_metadata, text_of, without_empty
from proxy.swift_api.refusals import Refusal

UNKNOWN_TYPE: Final = "application/octet-stream"
KEPT_HEADERS: Final = (
    "Content-Encoding",
    "Content-Disposition",
    "Cache-Control",
    "Content-Language",
    "Expires",
    "X-Robots-Tag",
)
"""Given back as they came."""
_KEPT: Final = {f"header:{name.lower()}": name for name in KEPT_HEADERS}
_ACLS: Final = (("Container-Read", "sys:read-acl", False), ("Container-Write", "sys:write-acl", True))
KEPT_BYTES_MAX: Final = 48 * 1024
"""All headers that are kept of one object: with metadata and what S3 keeps beside it, an entry has room for 64 KiB."""
_TRUE: Final = frozenset({"true", "1", "yes", "on", "t", "y"})
_DIGITS_MAX: Final = 10
_MICROS: Final = 1_000_000
# The table of this release of Python and nothing of the host, so that every proxy guesses alike.
_TYPES: Final = MimeTypes()


def is_true(value: str | None) -> bool:
    """Read a header that says yes."""
    return value is not None and value.strip().lower() in _TRUE


def guess_type(name: bytes) -> str:
    """Guess what an object is by the end of its name. A compressed one is what it was compressed to."""
    try:
        guessed, encoding = _TYPES.guess_type(name.decode(), strict=False)
    except ValueError:
        return UNKNOWN_TYPE  # a name that reads as a URL, and a broken one
    if encoding is not None:
        return {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}.get(
            encoding, UNKNOWN_TYPE
        )
    return guessed or UNKNOWN_TYPE


def describe_new(headers: CIMultiDictProxy[str], name: bytes) -> dict[str, str]:
    """Return what the headers of a PUT say about a new object, but for its etag. Raises Refusal."""
    attributes = _describe(headers)
    given = headers.get("Content-Type", "")
    if not given or is_true(headers.get("X-Detect-Content-Type")):
        given = guess_type(name)
    attributes["type"] = text_of("Content-Type", given)
    return attributes


def describe_anew(headers: CIMultiDictProxy[str], old: Attributes, name: bytes) -> dict[str, str]:
    """Return what the headers of a POST make of an object: all is replaced but the etag, what is no client's, and a type
    that is not sent. Raises Refusal.
    """
    attributes = {
        key: value for key, value in old.items() if key in ("etag", "type") or key.startswith("sys:")
    }
    attributes.update(_describe(headers))
    if is_true(headers.get("X-Detect-Content-Type")):
        attributes["type"] = guess_type(name)
    elif given := headers.get("Content-Type", ""):
        attributes["type"] = text_of("Content-Type", given)
    return attributes


def describe_copy(headers: CIMultiDictProxy[str], source: Attributes, name: bytes) -> dict[str, str]:
    """Return what a copy is described by: as its source, and what the request says wins. Raises Refusal."""
    attributes = _describe(headers)
    if not is_true(headers.get("X-Fresh-Metadata")):
        kept = {key: value for key, value in source.items() if key.startswith(("meta:", "header:"))}
        attributes = without_empty(kept | attributes)
    attributes["type"] = source.get("type", UNKNOWN_TYPE)
    if is_true(headers.get("X-Detect-Content-Type")):
        attributes["type"] = guess_type(name)
    elif given := headers.get("Content-Type", ""):
        attributes["type"] = text_of("Content-Type", given)
    return attributes


def _describe(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    attributes = without_empty(read_metadata(headers, "Object"))
    for attribute, header in _KEPT.items():
        value = headers.get(header)
        if value:
            attributes[attribute] = text_of(header, value)
    if sum(len(value.encode()) for value in attributes.values()) > KEPT_BYTES_MAX:
        raise Refusal(400, f"The headers that describe the object are over {KEPT_BYTES_MAX} bytes in all")
    return attributes


def kept_header(attribute: str) -> str | None:
    """Return the header that an attribute is given back as."""
    return _KEPT.get(attribute)


def read_delete_at_us(headers: CIMultiDictProxy[str], now_us: int) -> int:
    """Return when an object is due by its headers, in microseconds; zero: never. Raises Refusal."""
    after, at = headers.get("X-Delete-After"), headers.get("X-Delete-At")
    if after is not None:
        due_us = now_us + _seconds("X-Delete-After", after) * _MICROS
        # Whole seconds: what is shown as X-Delete-At, sent back, is the same moment.
        due_us -= due_us % _MICROS
        header = "X-Delete-After"
    elif at is not None:
        due_us, header = _seconds("X-Delete-At", at) * _MICROS, "X-Delete-At"
    else:
        return 0
    if due_us <= now_us - now_us % _MICROS:
        raise Refusal(400, f"{header} in past")
    if due_us >= 10**_DIGITS_MAX * _MICROS:  # shown as X-Delete-At, it could not be sent back
        raise Refusal(400, f"{header} is later than any X-Delete-At of {_DIGITS_MAX} digits")
    return due_us


def _seconds(header: str, value: str) -> int:
    text = value.strip()
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit():
        raise Refusal(400, f"Non-integer {header}")
    if len(digits) > _DIGITS_MAX:
        raise Refusal(400, f"{header} has more than {_DIGITS_MAX} digits; it counts seconds")
    return int(text)


def read_container(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return what headers change about a container: metadata and ACLs, empty where removed. Raises Refusal."""
    changes = read_metadata(headers, "Container")
    for header, attribute, is_write in _ACLS:
        value = headers.get(f"X-{header}")
        if value is not None:
            try:
                changes[attribute] = str(parse_acl(text_of(f"X-{header}", value), is_write=is_write))
            except AclRefused as error:
                raise Refusal(400, f"X-{header}: {error}") from None
        elif f"X-Remove-{header}" in headers:
            changes[attribute] = ""
    return changes
