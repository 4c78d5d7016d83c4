"""Listings: which page is asked for, and how it is written.

Owns the parameters of Swift's listings, the choice of a format, and the three formats. Fetching pages is handed in: one
of the domain's may be shorter than asked for, and a client takes a short page for the last, so pages are fetched until
this one is full.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from json.encoder import encode_basestring_ascii as quote_json  # the C one, where there is one
from typing import Final, NamedTuple, Protocol, TypeVar

from proxy.http.dates import format_iso
from proxy.http.request import Request
from proxy.store.listed_rows import ListedRows
from proxy.store.values import ListedContainer, ListedObject, ListedPrefix
from proxy.swift_api.descriptions import is_true
from proxy.swift_api.refusals import Refusal
from swiftlike.limits import LISTING_ROWS_MAX
from swiftlike.node_calls import Query

_SLASH: Final = b"/"
_STEP_ROWS: Final = 64
"""How many are fetched behind a directory that was passed over: the next thing may well be another one."""
_DIGITS_MAX: Final = 9
_TEXT_PARAMETERS: Final = ("prefix", "marker", "end_marker", "delimiter", "path")
_ACCEPT_BYTES_MAX: Final = 1_000


class Format(Enum):
    """How a listing is written."""

    PLAIN = "text/plain"
    JSON = "application/json"
    XML = "application/xml"
    TEXT_XML = "text/xml"
    """The same under the other name, for whoever accepts only that."""

    @property
    def content_type(self) -> str:
        """What the answer says it is."""
        return f"{self.value}; charset=utf-8"


_NAMED: Final = {"plain": Format.PLAIN, "json": Format.JSON, "xml": Format.XML}
_RANGES: Final = {
    "text/plain": Format.PLAIN,
    "application/json": Format.JSON,
    "application/xml": Format.XML,
    "text/xml": Format.TEXT_XML,
    "text/*": Format.PLAIN,
    "application/*": Format.JSON,
    "*/*": Format.PLAIN,
}


class Wanted(NamedTuple):
    """The page that a request asks for."""

    query: Query
    format: Format
    directory: bytes | None = None
    """Of the parameter `path`: what the names begin with; this itself is left out, and so is what lies deeper."""


def parse_wanted(request: Request) -> Wanted:
    """Read the parameters of a listing. Raises Refusal."""
    given = request.query
    wanted_format = choose_format(given, request.headers.get("Accept"))
    if not given:
        return Wanted(Query(limit=LISTING_ROWS_MAX), wanted_format)
    for name in _TEXT_PARAMETERS:
        _check_text(name, given.get(name, b""))
    prefix, delimiter, directory = given.get("prefix", b""), given.get("delimiter", b""), None
    if "path" in given:
        path = given["path"]
        prefix, delimiter = (path.rstrip(_SLASH) + _SLASH if path else b""), b""
        directory = prefix
    query = Query(
        prefix=prefix,
        marker=given.get("marker", b""),
        end_marker=given.get("end_marker", b""),
        delimiter=delimiter,
        reverse=is_true(given.get("reverse", b"").decode("latin-1")),
        limit=_limit(given.get("limit", b"")),
    )
    return Wanted(query, wanted_format, directory)


def _check_text(name: str, value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError:
        raise Refusal(400, f'"{name}" parameter not valid UTF-8') from None
    if b"\0" in value:
        raise Refusal(400, f'"{name}" parameter contains a NUL')


def _limit(value: bytes) -> int:
    """Read `limit`; what is no number is ignored, as Swift does."""
    if not value.isdigit():
        return LISTING_ROWS_MAX
    if len(value) > _DIGITS_MAX or int(value) > LISTING_ROWS_MAX:
        raise Refusal(412, f"Maximum limit is {LISTING_ROWS_MAX}")
    return int(value)


def choose_format(given: Mapping[str, bytes], accept: str | None) -> Format:
    """Choose by the parameter `format`, else by Accept, else plain. Raises Refusal when none is acceptable."""
    if "format" in given:
        return _NAMED.get(given["format"].decode("latin-1").lower(), Format.PLAIN)
    if not accept or accept == "*/*":
        return Format.PLAIN
    best, best_quality = None, 0.0
    for item in accept[:_ACCEPT_BYTES_MAX].split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        found, quality = _RANGES.get(media), _quality(parameters)
        if found is not None and quality > best_quality:
            best, best_quality = found, quality
    if best is None:
        raise Refusal(406, "A listing is text/plain, application/json or application/xml.")
    return best


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


Item = TypeVar("Item", ListedObject | ListedPrefix, ListedContainer | ListedPrefix)
ItemsCo = TypeVar("ItemsCo", ListedObject | ListedPrefix, ListedContainer | ListedPrefix, covariant=True)


class PageOf(Protocol[ItemsCo]):
    """A page of the domain."""

    @property
    def items(self) -> Sequence[ItemsCo]:
        """What it holds."""

    @property
    def more(self) -> bytes | None:
        """The marker of the next page."""


async def fetch_page(wanted: Wanted, fetch: Callable[[Query], Awaitable[PageOf[Item]]]) -> Sequence[Item]:
    """Fetch until the page is full or the listing ends."""
    if wanted.directory is not None:
        return await _fetch_directory(wanted.query, wanted.directory, fetch)
    query, items = wanted.query, list[Item]()
    limit = query.limit
    while len(items) < limit:
        page = await fetch(query._replace(limit=limit - len(items)))
        if not items and (page.more is None or len(page.items) == limit):
            return page.items
        if query.names_only:  # which are nothing that could be put together with others: ask again
            query = query._replace(names_only=False)
            continue
        items.extend(page.items)
        if page.more is None:
            break
        query = query._replace(marker=page.more)
    return items


async def _fetch_directory(
    query: Query, directory: bytes, fetch: Callable[[Query], Awaitable[PageOf[Item]]]
) -> Sequence[Item]:
    """Fetch what lies right in a directory: names with no slash behind its own, or with one that is their end.

    A delimiter would roll `d/e/` and `d/e/f` up into the same, so names are asked for one by one, and the rest of a
    directory is passed over wherever a page ends in it.
    """
    items = list[Item]()
    limit, rows = query.limit, query.limit
    query = query._replace(names_only=False)
    while len(items) < limit:
        page = await fetch(query._replace(limit=rows))
        deeper = b""
        for item in page.items:
            assert not isinstance(item, ListedPrefix), "without a delimiter nothing is rolled up"
            name = item.name
            end = name.find(_SLASH, len(directory)) + 1
            deeper = name[:end] if 0 < end < len(name) else b""
            if not deeper and name != directory:
                items.append(item)
        if page.more is None:
            break
        marker = page.more
        if not deeper:
            rows = min(2 * rows, LISTING_ROWS_MAX)
        elif query.reverse:  # the directory's own name is still to come
            marker, rows = min(marker, deeper + b"\0"), _STEP_ROWS
        else:  # no name has the byte 0xff
            marker, rows = max(marker, deeper + b"\xff"), _STEP_ROWS
        query = query._replace(marker=marker)
    return items[:limit]


# --- how they are written -----------------------------------------------------------------------------------------


def write_objects(format_: Format, container: bytes, items: Sequence[ListedObject | ListedPrefix]) -> bytes:
    """Write a page of a container's listing."""
    match format_:
        case Format.PLAIN:
            return _plain(items)
        case Format.JSON:
            return f"[{', '.join(map(_json_object, items))}]".encode("ascii")
        case Format.XML | Format.TEXT_XML:
            rows = "".join(map(_xml_object, items))
            return f'{_XML}<container name="{_xml(container.decode())}">{rows}</container>'.encode()


def write_containers(
    format_: Format, account: bytes, items: Sequence[ListedContainer | ListedPrefix]
) -> bytes:
    """Write a page of an account's listing."""
    match format_:
        case Format.PLAIN:
            return _plain(items)
        case Format.JSON:
            return f"[{', '.join(map(_json_container, items))}]".encode("ascii")
        case Format.XML | Format.TEXT_XML:
            rows = "".join(map(_xml_container, items))
            return f'{_XML}<account name="{_xml(account.decode())}">{rows}</account>'.encode()


def _plain(items: Sequence[ListedObject | ListedContainer | ListedPrefix]) -> bytes:
    if isinstance(items, ListedRows):
        names = items.names
    else:
        names = [item.prefix if isinstance(item, ListedPrefix) else item.name for item in items]
    return b"\n".join([*names, b""])


def _json_object(item: ListedObject | ListedPrefix) -> str:
    if isinstance(item, ListedPrefix):
        return f'{{"subdir": {quote_json(item.prefix.decode())}}}'
    name, size, etag, content_type, modified_us = item
    return (
        f'{{"name": {quote_json(name.decode())}, "hash": {quote_json(etag)}, "bytes": {size}, '
        f'"content_type": {quote_json(content_type)}, "last_modified": "{format_iso(modified_us)}"}}'
    )


def _json_container(item: ListedContainer | ListedPrefix) -> str:
    if isinstance(item, ListedPrefix):
        return f'{{"subdir": {quote_json(item.prefix.decode())}}}'
    return (
        f'{{"name": {quote_json(item.name.decode())}, "count": {item.objects}, "bytes": {item.bytes}, '
        f'"last_modified": "{format_iso(item.modified_us)}"}}'
    )


_XML: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
# A name may hold control characters, which XML 1.0 has no way to write. References to them are what other stores send;
# tab and line ends must be references, or a parser takes them for spaces.
_XML_ESCAPES: Final = {code: f"&#{code};" for code in range(32)} | {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
}

_find_odd: Final = re.compile(r'[&<>"\x00-\x1f]').search


def _xml(text: str) -> str:
    return text.translate(_XML_ESCAPES) if _find_odd(text) else text


def _xml_object(item: ListedObject | ListedPrefix) -> str:
    if isinstance(item, ListedPrefix):
        return _xml_prefix(item)
    name, size, etag, content_type, modified_us = item
    return (
        f"<object><name>{_xml(name.decode())}</name><hash>{_xml(etag)}</hash><bytes>{size}</bytes>"
        f"<content_type>{_xml(content_type)}</content_type>"
        f"<last_modified>{format_iso(modified_us)}</last_modified></object>"
    )


def _xml_container(item: ListedContainer | ListedPrefix) -> str:
    if isinstance(item, ListedPrefix):
        return _xml_prefix(item)
    return (
        f"<container><name>{_xml(item.name.decode())}</name><count>{item.objects}</count><bytes>{item.bytes}</bytes>"
        f"<last_modified>{format_iso(item.modified_us)}</last_modified></container>"
    )


def _xml_prefix(item: ListedPrefix) -> str:
    name = _xml(item.prefix.decode())
    return f'<subdir name="{name}"><name>{name}</name></subdir>'
