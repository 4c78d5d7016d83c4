"""Listings of a bucket: ListObjects (version 1), ListObjectsV2 and ListObjectVersions.

Owns their parameters, where a page goes on, and how they are written. A page of the domain may be shorter than asked for, so
pages are fetched until this one is full; one item more than asked for says that there are more.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes

from proxy.auth.decisions import Action
from proxy.http.dates import format_iso_second, seconds_up
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.errors import invalid_argument
from proxy.s3_api.grants import owner_element
from proxy.s3_api.later import STANDARD
from proxy.s3_api.tokens import TokenRefused, read_token, write_token
from proxy.s3_api.versions import NULL_VERSION
from proxy.s3_api.xml import XML_TYPE, Element, Written, escape, write_document, write_element
from proxy.store.names import ContainerName
from proxy.store.values import ListedObject, ListedPrefix
from swiftlike.node_calls import Query

KEYS_MAX: Final = 1000
_NUMBER_MAX: Final = 2**31 - 1


class Wanted(NamedTuple):
    """What every listing of a bucket is asked."""

    prefix: bytes
    delimiter: bytes
    limit: int
    is_url: bool
    """Names are to be percent-encoded."""
    limited_by: str = "max-keys"
    """The parameter that says how many items a page has."""

    def name(self, name: bytes) -> str:
        """Return a name as this listing writes it."""
        if self.is_url:
            return quote_from_bytes(name, safe="/-._~*") if _find_unsafe(name) else name.decode("ascii")
        return name.decode("utf-8", "replace")

    def echo(self) -> list[Element]:
        """Return what every answer repeats."""
        found = [
            Element("Prefix", self.name(self.prefix)),
            Element(_ECHOED[self.limited_by], str(self.limit)),
        ]
        if self.delimiter:
            found.append(Element("Delimiter", self.name(self.delimiter)))
        if self.is_url:
            found.append(Element("EncodingType", "url"))
        return found

    def rolled(self, item: ListedPrefix) -> Element:
        """Return a common prefix as listings write it."""
        return Element("CommonPrefixes", (Element("Prefix", self.name(item.prefix)),))


_find_unsafe: Final = re.compile(rb"[^A-Za-z0-9/._~*-]").search
_ECHOED: Final = {"max-keys": "MaxKeys", "max-uploads": "MaxUploads"}


class Page(NamedTuple):
    """What was found."""

    items: list[ListedObject | ListedPrefix]
    is_truncated: bool

    @property
    def last(self) -> bytes:
        """The name after which the next page begins."""
        item = self.items[-1]
        return item.prefix if isinstance(item, ListedPrefix) else item.name


def read_number(ask: Ask, name: str, default: int, most: int) -> int:
    """Read a parameter that is a number, cut to the most there can be. Raises S3Error."""
    text = ask.text(name)
    if not text and name not in ask.request.query:
        return default
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 20:
        raise invalid_argument(f"Provided {name} not an integer or within integer range", name, text)
    number = int(text)
    if not 0 <= number <= _NUMBER_MAX:
        raise invalid_argument(f"Argument {name} must be an integer between 0 and {_NUMBER_MAX}", name, text)
    return min(number, most)


def read_wanted(ask: Ask, limited_by: str = "max-keys") -> Wanted:
    """Return what a listing is asked. Raises S3Error."""
    encoding = ask.text("encoding-type")
    if encoding not in ("", "url"):
        raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", encoding)
    return Wanted(
        ask.text("prefix").encode(),
        ask.text("delimiter").encode(),
        read_number(ask, limited_by, KEYS_MAX, KEYS_MAX),
        encoding == "url",
        limited_by,
    )


async def _fetch(ask: Ask, name: ContainerName, wanted: Wanted, after: bytes) -> Page:
    """Fetch a page that begins after a name."""
    limit = wanted.limit
    if limit == 0:
        return Page([], False)
    query = Query(prefix=wanted.prefix, delimiter=wanted.delimiter, marker=after)
    items: list[ListedObject | ListedPrefix] = []
    while len(items) <= limit:
        query = query._replace(limit=limit + 1 - len(items))
        page = await ask.around.store.containers.list(name, query, deadline=ask.deadline)
        items.extend(page.items)
        if page.more is None:
            break
        query = query._replace(marker=page.more)
    return Page(items[:limit], len(items) > limit)


async def list_objects(ask: Ask) -> Response:
    """GET of a bucket: version 1, or 2 where `list-type` says so."""
    kind = ask.text("list-type", "1")
    if kind not in ("1", "2"):
        raise invalid_argument("Invalid List Type specified in Request", "list-type", kind)
    bucket = await ask.bucket()
    ask.require(Action.READ_CONTAINER, bucket)
    wanted = read_wanted(ask)
    return await (_list_v2 if kind == "2" else _list_v1)(ask, bucket.name, wanted)


async def _list_v1(ask: Ask, name: ContainerName, wanted: Wanted) -> Response:
    marker = ask.text("marker").encode()
    page = await _fetch(ask, name, wanted, marker)
    elements: list[Element | Written] = [
        Element("Name", name.container.decode()),
        Element("Marker", wanted.name(marker)),
        *wanted.echo(),
        _truncated(page),
    ]
    if page.is_truncated and wanted.delimiter:
        elements.append(Element("NextMarker", wanted.name(page.last)))
    elements += _objects(name, wanted, page, has_owner=True)
    return _answer("ListBucketResult", elements)


async def _list_v2(ask: Ask, name: ContainerName, wanted: Wanted) -> Response:
    start_after, token = ask.text("start-after").encode(), ask.text("continuation-token")
    after = start_after
    if "continuation-token" in ask.request.query:
        try:
            after = read_token(token)
        except TokenRefused:
            raise invalid_argument(
                "The continuation token provided is incorrect", "continuation-token", token
            ) from None
    page = await _fetch(ask, name, wanted, after)
    elements: list[Element | Written] = [
        Element("Name", name.container.decode()),
        *wanted.echo(),
        Element("KeyCount", str(len(page.items))),
        _truncated(page),
    ]
    if token:
        elements.append(Element("ContinuationToken", token))
    if start_after:
        elements.append(Element("StartAfter", wanted.name(start_after)))
    if page.is_truncated:
        elements.append(Element("NextContinuationToken", write_token(page.last)))
    elements += _objects(name, wanted, page, has_owner=ask.text("fetch-owner").lower() == "true")
    return _answer("ListBucketResult", elements)


async def list_versions(ask: Ask) -> Response:
    """GET of a bucket with `versions`: of a bucket that keeps one of each key, whose name is null."""
    bucket = await ask.bucket()
    ask.require(Action.READ_CONTAINER, bucket)
    wanted = read_wanted(ask)
    marker, version = ask.text("key-marker").encode(), ask.text("version-id-marker")
    if version and not marker:
        raise invalid_argument(
            "A version-id marker cannot be specified without a key marker.", "version-id-marker", version
        )
    page = await _fetch(ask, bucket.name, wanted, marker)
    elements: list[Element | Written] = [
        Element("Name", bucket.name.container.decode()),
        Element("KeyMarker", wanted.name(marker)),
        Element("VersionIdMarker", version),
        *wanted.echo(),
        _truncated(page),
    ]
    if page.is_truncated:
        elements.append(Element("NextKeyMarker", wanted.name(page.last)))
        if not isinstance(page.items[-1], ListedPrefix):
            elements.append(Element("NextVersionIdMarker", NULL_VERSION))
    owner = write_element(owner_element(bucket.name.account))
    rest = f"<VersionId>{NULL_VERSION}</VersionId><IsLatest>true</IsLatest>{owner}</Version>"
    elements += [
        wanted.rolled(item)
        if isinstance(item, ListedPrefix)
        else Written(f"<Version>{_facts(wanted, item)}{rest}")
        for item in page.items
    ]
    return _answer("ListVersionsResult", elements)


def _answer(root: str, elements: list[Element | Written]) -> Response:
    return Response(200, [("Content-Type", XML_TYPE)], write_document(root, elements))


def _truncated(page: Page) -> Element:
    return Element("IsTruncated", "true" if page.is_truncated else "false")


def _objects(name: ContainerName, wanted: Wanted, page: Page, has_owner: bool) -> list[Element | Written]:
    owner = write_element(owner_element(name.account)) if has_owner else ""
    objects = "".join(
        f"<Contents>{_facts(wanted, item)}{owner}</Contents>"
        for item in page.items
        if not isinstance(item, ListedPrefix)
    )
    return [Written(objects)] + [wanted.rolled(item) for item in page.items if isinstance(item, ListedPrefix)]


def _facts(wanted: Wanted, item: ListedObject) -> str:
    name, size, etag, _, modified_us = item
    return (
        f"<Key>{escape(wanted.name(name))}</Key><LastModified>{iso(modified_us)}</LastModified>"
        f"<ETag>&quot;{escape(etag)}&quot;</ETag><Size>{size}</Size><StorageClass>{STANDARD}</StorageClass>"
    )


def iso(micros: int) -> str:
    """Write a time as documents do: whole seconds, the same as Last-Modified."""
    return f"{format_iso_second(seconds_up(micros))}.000Z"
