"""User metadata: how it stands in headers, its limits, and what POST does to it.

Owns the prefix of each kind and Swift's limits in Swift's words. Names are lower case inside and in Title-Case on the wire;
values are UTF-8 and travel as they are, never percent-decoded. An account and a container add up what each POST brings,
and remove what comes empty or is named by `X-Remove-…`; an object's is replaced as a whole.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from multidict import CIMultiDictProxy

from proxy.http.response import Headers
from proxy.store.values import Attributes
from proxy.swift_api.later import refuse_metadata
from proxy.swift_api.refusals import Refusal

NAME_BYTES_MAX: Final = 128
VALUE_BYTES_MAX: Final = 256
ITEMS_MAX: Final = 90
TOTAL_BYTES_MAX: Final = 4096
HEADER_BYTES_MAX: Final = 8192

META: Final = "meta:"
"""What the attributes of user metadata begin with."""


def text_of(name: str, value: str) -> str:
    """Return a header's value that is to be kept. Raises Refusal when it is not UTF-8 or too long."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Refusal(400, f"The value of {name} must be valid UTF-8") from None
    if size > HEADER_BYTES_MAX:
        raise Refusal(400, f"The value of {name} is longer than {HEADER_BYTES_MAX} bytes")
    return value


def read_metadata(headers: CIMultiDictProxy[str], kind: str) -> dict[str, str]:
    """Return the user metadata of a request as attributes, empty values and removals included as empty.

    `kind` is Account, Container or Object. Raises Refusal.
    """
    prefix, removing = f"x-{kind.lower()}-meta-", f"x-remove-{kind.lower()}-meta-"
    found: dict[str, str] = {}
    for header, value in headers.items():
        name = header.lower()
        if name.startswith(prefix):
            name = name[len(prefix) :]
            _check_item(name, value)
            if value:  # without one, it is removed
                refuse_metadata(kind, name)
            found[META + name] = value
        elif name.startswith(removing):
            found.setdefault(META + name[len(removing) :], "")
    return found


def _check_item(name: str, value: str) -> None:
    if not name:
        raise Refusal(400, "Metadata name cannot be empty")
    if len(name) > NAME_BYTES_MAX:
        raise Refusal(400, f"Metadata name too long: it has {len(name)} bytes of at most {NAME_BYTES_MAX}")
    size = len(text_of("metadata", value).encode())
    if size > VALUE_BYTES_MAX:
        raise Refusal(400, f"Metadata value longer than {VALUE_BYTES_MAX}: it has {size} bytes")


def check_total(attributes: Attributes) -> None:
    """Refuse more metadata than one thing may have. Raises Refusal."""
    items, size = 0, 0
    for name, value in attributes.items():
        if name.startswith(META):
            items += 1
            size += len(name) - len(META) + len(value.encode())
    if items > ITEMS_MAX:
        raise Refusal(400, f"Too many metadata items; max {ITEMS_MAX}")
    if size > TOTAL_BYTES_MAX:
        raise Refusal(400, f"Total metadata too large; max {TOTAL_BYTES_MAX}")


def merge(old: Attributes, changes: Mapping[str, str]) -> dict[str, str]:
    """Return attributes with changes in place; an empty value removes. Raises Refusal when they become too many."""
    merged = {name: value for name, value in (*old.items(), *changes.items()) if changes.get(name) != ""}
    check_total(merged)
    return merged


def without_empty(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that have a value: what an object is described by. Raises Refusal when they are too many."""
    kept = {name: value for name, value in attributes.items() if value}
    check_total(kept)
    return kept


def add_metadata(headers: Headers, attributes: Attributes, kind: str) -> None:
    """Add the headers that show user metadata."""
    for name, value in attributes.items():
        if name.startswith(META):
            headers.append((_shown(kind, name), value))


@lru_cache(4096)
def _shown(kind: str, name: str) -> str:
    return f"X-{kind}-Meta-{name[len(META) :].title()}"
