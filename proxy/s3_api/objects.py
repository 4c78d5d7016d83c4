"""Objects: put, get, look, delete, one or a thousand at once.

Owns the answers of `/bucket/key`, but for copies and sub-resources. Nothing of a body is asked for before everything that can
be refused without it has been.
"""

from typing import Final

from proxy.auth.decisions import Action
from proxy.http.begun import begun
from proxy.http.conditions import NO_CONDITIONS, Verdict, parse_conditions, range_still_holds
from proxy.http.dates import seconds_up
from proxy.http.errors import RangeNotSatisfiable
from proxy.http.ranges import Span, resolve_ranges
from proxy.http.response import Headers, Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.buckets import read_new_acl
from proxy.s3_api.conditional import (
    condition_of,
    delete_conditions,
    refusal_of,
    refusal_of_delete,
    write_conditions,
)
from proxy.s3_api.descriptions import (
    OVERRIDES,
    checksum_headers,
    checksum_headers_of_part,
    describe_new,
    object_headers,
    quoted,
    text_of,
)
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.grants import ATTRIBUTE as GRANTS
from proxy.s3_api.grants import read_grants, write_policy
from proxy.s3_api.tags import ATTRIBUTE as TAGS
from proxy.s3_api.tags import TAGGING, read_header, read_tags
from proxy.s3_api.uploads import BodyReader, S3Upload
from proxy.s3_api.versions import check_version
from proxy.s3_api.xml import XML_TYPE
from proxy.store.errors import BodyGone, ConditionFailed
from proxy.store.manifest_bodies import manifest_of
from proxy.store.manifests import Manifest
from proxy.store.values import Attributes, Description, ObjectBody, ObjectInfo
from swiftlike.limits import RPC_BODY_BYTES_MAX

_PARTS_MAX: Final = 10_000


async def store(ask: Ask) -> Response:
    """PUT."""
    bucket = await ask.bucket()
    ask.require(Action.WRITE_OBJECT, bucket)
    conditions = write_conditions(ask.headers)
    tags = read_header(ask.headers.get("x-amz-tagging"))
    if tags:
        ask.require(TAGGING, bucket)
    attributes = describe_new(ask.headers) | tags
    upload = S3Upload(BodyReader(ask.request, ask.asker.proven), attributes)
    try:
        info = await ask.around.store.objects.put(
            ask.object_in(bucket), upload, deadline=ask.deadline, condition=condition_of(conditions)
        )
    except ConditionFailed as failed:
        raise refusal_of(failed, conditions) from None
    return Response(200, [("ETag", quoted(info.etag)), *checksum_headers(info.attributes)])


async def read(ask: Ask) -> Response:
    """GET and HEAD."""
    return await begun(lambda: _read(ask), BodyGone)


async def _read(ask: Ask) -> Response:
    check_version(ask)
    overrides = _read_overrides(ask)
    part = _read_part(ask)
    bucket = await ask.bucket()
    request = ask.request
    is_head = request.method == "HEAD"
    info, body = await ask.find_object(
        ask.object_in(bucket), bucket, inline_bytes=0 if is_head else RPC_BODY_BYTES_MAX
    )
    conditions = parse_conditions(request.headers)
    modified_s = seconds_up(info.modified_us)
    if conditions is not NO_CONDITIONS:
        match conditions.judge(info.etag, modified_s):
            case Verdict.FAILED:
                names = ("If-Match", "If-Unmodified-Since")
                name = next(name for name in names if name in request.headers)
                raise S3Error("PreconditionFailed", facts={"Condition": name})
            case Verdict.NOT_MODIFIED:
                return Response(304, object_headers(info, overrides, False))
            case Verdict.GO:
                pass
    manifest = await manifest_of(body) if part else None
    span = _span(ask, info, modified_s) if not part else _span_of_part(info, manifest, part)
    is_whole = span is None or span == Span(0, info.size)
    asks_checksums = request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    headers = object_headers(info, overrides, asks_checksums and is_whole and manifest is None)
    if manifest is not None:
        headers.append(("x-amz-mp-parts-count", str(len(manifest.parts))))
        if asks_checksums:
            headers += checksum_headers_of_part(info.attributes, manifest.parts[part - 1].checksum)
    tags = info.attributes.get(TAGS)
    if tags and ask.may(TAGGING, bucket):
        headers.append(("x-amz-tagging-count", str(len(read_tags(tags)))))
    return _answer(info, body, headers, span, is_head)


def _read_overrides(ask: Ask) -> Attributes:
    """Return what parameters say an answer's headers shall be. Raises S3Error."""
    found = {}
    if "response-" in ask.request.target.raw_query:
        for name, attribute in OVERRIDES.items():
            if name in ask.request.query:
                found[attribute] = _header_value(name, ask.text(name))
    if found and ask.identity.is_anonymous:
        raise S3Error(
            "InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests."
        )
    return found


def _header_value(name: str, value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise invalid_argument("A header has one line.", name, value)
    return text_of(name, value)


def _read_part(ask: Ask) -> int:
    """Return the part that is asked for; zero: none is. Raises S3Error."""
    text = ask.text("partNumber")
    if not text:
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or not 1 <= int(text) <= _PARTS_MAX:
        raise invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive", "partNumber", text
        )
    if "Range" in ask.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    return int(text)


def _span_of_part(info: ObjectInfo, manifest: Manifest | None, part: int) -> Span | None:
    """Return the bytes of a part; None: all there are, which are none. An object put whole has one part. Raises S3Error."""
    count = 1 if manifest is None else len(manifest.parts)
    if part > count:
        raise S3Error("InvalidPartNumber", facts={"ActualPartCount": str(count)})
    if not info.size:
        return None
    return Span(0, info.size) if manifest is None else Span(*manifest.span(part))


def _span(ask: Ask, info: ObjectInfo, modified_s: int) -> Span | None:
    """Return the bytes to send; None: all of them. Raises S3Error."""
    header = ask.headers.get("Range")
    if header is None or not range_still_holds(ask.headers.get("If-Range"), info.etag, modified_s):
        return None
    if "," in header:
        return None  # S3 honours a single range only, and sends everything for more
    try:
        spans = resolve_ranges(header, info.size)
    except RangeNotSatisfiable:
        facts = {"RangeRequested": header[:100], "ActualObjectSize": str(info.size)}
        unsatisfied = [("Content-Range", f"bytes */{info.size}")]
        raise S3Error("InvalidRange", facts=facts, headers=unsatisfied) from None
    return spans[0] if spans else None


def _answer(
    info: ObjectInfo, body: ObjectBody, headers: Headers, span: Span | None, is_head: bool
) -> Response:
    start, stop = (0, info.size) if span is None else span
    status = 200 if span is None else 206
    if span is not None and span.size:  # no Content-Range can name a part of no bytes
        headers.append(("Content-Range", span.content_range(info.size)))
    if is_head:
        return Response(status, headers, length=stop - start)
    whole = body.whole
    if whole is not None:
        return Response(status, headers, memoryview(whole)[start:stop])
    return Response(status, headers, stream=body.stream(start, stop), length=stop - start)


async def delete(ask: Ask) -> Response:
    """DELETE: there is no such object afterwards, whether there was or not."""
    check_version(ask)
    bucket = await ask.bucket()
    ask.require(Action.DELETE_OBJECT, bucket)
    conditions = delete_conditions(ask.headers)
    try:
        await ask.around.store.objects.delete(
            ask.object_in(bucket), deadline=ask.deadline, condition=condition_of(conditions)
        )
    except ConditionFailed:
        raise refusal_of_delete() from None
    return Response(204)


# --- ACLs -----------------------------------------------------------------------------------------------------------


async def show_acl(ask: Ask) -> Response:
    """GET of an object's `acl`."""
    check_version(ask)
    bucket = await ask.bucket()
    info, _ = await ask.find_object(ask.object_in(bucket), bucket, Action.READ_OBJECT_ACL, inline_bytes=0)
    grants = read_grants(info.attributes.get(GRANTS, ""))
    return Response(200, [("Content-Type", XML_TYPE)], write_policy(bucket.name.account, grants))


async def write_acl(ask: Ask) -> Response:
    """PUT of an object's `acl`."""
    check_version(ask)
    bucket = await ask.bucket()
    name = ask.object_in(bucket)
    info, _ = await ask.find_object(name, bucket, Action.WRITE_OBJECT_ACL, inline_bytes=0)
    acl = await read_new_acl(ask, bucket.name.account)

    def describe(old: ObjectInfo) -> Description:
        kept = {attribute: value for attribute, value in old.attributes.items() if attribute != GRANTS}
        return Description(kept | acl, old.delete_at_us, is_modified=False)

    def is_still(found: ObjectInfo | None) -> bool:
        return found is not None and found.write_id == info.write_id

    try:
        await ask.around.store.objects.describe(name, describe, deadline=ask.deadline, condition=is_still)
    except ConditionFailed:
        raise S3Error(
            "ServiceUnavailable", "The object was replaced while its ACL was written. Please try again."
        ) from None
    return Response(200)
