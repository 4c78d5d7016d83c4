"""CopyObject: an object stored under another name, or described anew under its own.

Owns what of a request speaks of the source and what of the copy. The copy keeps the checksum of its source, unless another
algorithm is asked for: then it is summed up on its way.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from proxy.auth.decisions import Action
from proxy.http.conditions import Conditions
from proxy.http.errors import TargetRefused
from proxy.http.response import Response
from proxy.http.target import decode_percent, parse_query
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import UNASKED, Algorithm, Summing, coverage_of, kept, read_algorithm
from proxy.s3_api.conditional import (
    condition_of,
    holds_of_source,
    refusal_of,
    source_conditions,
    write_conditions,
)
from proxy.s3_api.descriptions import describe_new, quoted, read_acl
from proxy.s3_api.errors import S3Error, invalid_argument, not_implemented
from proxy.s3_api.grants import ATTRIBUTE as GRANTS
from proxy.s3_api.listings import iso
from proxy.s3_api.patience import answer_patiently
from proxy.s3_api.resources import check_key
from proxy.s3_api.tags import ATTRIBUTE as TAGS
from proxy.s3_api.tags import TAGGING, read_header
from proxy.s3_api.versions import NULL_VERSION
from proxy.s3_api.xml import XML_TYPE, Element, write_document
from proxy.store.errors import ConditionFailed, NoSuchObject
from proxy.store.names import ObjectName
from proxy.store.values import Attributes, Condition, Description, ObjectBody, ObjectInfo, Received
from swiftlike.limits import BODY_BYTES_MAX
from swiftlike.rpc.transport import Body

SOURCE: Final = "x-amz-copy-source"
RANGE: Final = "x-amz-copy-source-range"
_COPY, _REPLACE = "COPY", "REPLACE"


class Source(NamedTuple):
    """What is to be copied."""

    bucket: bytes
    key: bytes


def parse_source(header: str) -> Source:
    """Read `x-amz-copy-source`: bucket/key, percent-encoded, with or without a slash before it. Raises S3Error."""
    path, question, query = header.partition("?")
    try:
        bucket, slash, key = decode_percent(path).removeprefix(b"/").partition(b"/")
        version = parse_query(query).get("versionId", b"null") if question else b"null"
    except TargetRefused:
        raise invalid_argument("The copy source must be percent-encoded", SOURCE, header) from None
    if not bucket or not slash or not key:
        raise invalid_argument("Copy Source must mention the source bucket and key", SOURCE, header)
    if version != NULL_VERSION.encode():
        raise S3Error("NoSuchVersion", facts={"VersionId": version[:100].decode("utf-8", "replace")})
    return Source(bucket, check_key(key))


def check_source_size(size: int) -> None:
    """Refuse to copy more than one body may have. Raises S3Error."""
    if size > BODY_BYTES_MAX:
        raise S3Error(
            "InvalidRequest",
            f"The specified copy source is larger than the maximum allowable size for a copy source: {BODY_BYTES_MAX}",
        )


async def find_source(
    ask: Ask, wanted: Source, conditions: Conditions | None
) -> tuple[ObjectName, ObjectInfo, ObjectBody]:
    """Return what is to be copied, where the asker may read it and the conditions hold. Raises S3Error."""
    bucket = await ask.find_bucket(wanted.bucket, "x-amz-source-expected-bucket-owner")
    name = ObjectName(*bucket.name, wanted.key)
    found, body = await ask.find_object(name, bucket)
    if conditions is not None and not holds_of_source(conditions, found):
        raise S3Error("PreconditionFailed", facts={"Condition": "x-amz-copy-source-If-*"})
    return name, found, body


def _directive(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, _COPY)
    if value not in (_COPY, _REPLACE):
        raise invalid_argument(f"Unknown {name}.", name, value)
    return value


class _Copy:
    """A body on its way from one object to another, summed up."""

    def __init__(
        self,
        info: ObjectInfo,
        body: ObjectBody,
        attributes: Attributes,
        summing: Summing,
        delete_at_us: int,
    ) -> None:
        self._info = info
        self._body = body
        self._attributes = attributes
        self._summing = summing
        self._delete_at_us = delete_at_us

    @property
    def size(self) -> int | None:
        return self._info.size

    async def chunks(self) -> AsyncIterator[Body]:
        if (whole := self._body.whole) is not None:
            self._summing.update(whole)
            yield whole
            return
        source: Any = self._body.stream(0, self._info.size)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                self._summing.update(chunk)
                yield chunk

    def finish(self, received: Received) -> Description:
        summing = self._summing
        return Description(
            {**self._attributes, "etag": received.md5, summing.algorithm.attribute: summing.text()},
            self._delete_at_us,
        )


async def copy(ask: Ask) -> Response:
    """PUT with `x-amz-copy-source`."""
    headers = ask.headers
    wanted = parse_source(headers[SOURCE])
    if ask.request.body.size:
        raise S3Error("InvalidRequest", "A copy has no body of its own.")
    if RANGE in headers:
        raise not_implemented(f"{RANGE} of a copy that is no part of an upload")
    is_replaced = _directive(headers, "x-amz-metadata-directive") == _REPLACE
    are_tags_replaced = _directive(headers, "x-amz-tagging-directive") == _REPLACE
    named = _read_algorithm(headers)
    fresh = describe_new(headers) if is_replaced else read_acl(headers)
    fresh |= read_header(headers.get("x-amz-tagging")) if are_tags_replaced else {}
    source_only, target_only = source_conditions(headers), write_conditions(headers)

    bucket = await ask.bucket()
    ask.require(Action.WRITE_OBJECT, bucket)
    if TAGS in fresh:
        ask.require(TAGGING, bucket)
    target = ask.object_in(bucket)
    source, found, body = await find_source(ask, wanted, source_only)
    is_changed = is_replaced or are_tags_replaced or "x-amz-storage-class" in headers
    if source == target and not is_changed:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
            "metadata, storage class, website redirect location or encryption attributes.",
        )
    if not are_tags_replaced and TAGS in found.attributes:
        # A copy reads the tags of its source, and writes those of its target.
        ask.require(TAGGING, await ask.find_bucket(wanted.bucket, "x-amz-source-expected-bucket-owner"))
        ask.require(TAGGING, bucket)
    held = dict(kept(found.attributes))
    algorithm = named or next(iter(held), UNASKED)
    is_written = source != target or algorithm not in held
    if is_written:
        check_source_size(found.size)

    def describe(info: ObjectInfo) -> dict[str, str]:
        of_source = {} if is_replaced else info.attributes
        shown = {name: value for name, value in of_source.items() if _is_shown(name)}
        if not are_tags_replaced and TAGS in info.attributes:
            shown[TAGS] = info.attributes[TAGS]
        return {**shown, **fresh}

    async def work() -> Response:
        try:
            if not is_written:
                return _answer(await _describe_anew(ask, target, describe, source_only, target_only))
            delete_at_us = found.delete_at_us if source == target else 0
            upload = _Copy(found, body, describe(found), Summing(algorithm), delete_at_us)
            condition = condition_of(target_only)
            if source == target:
                condition = _while_it_stands(found, condition)
            objects = ask.around.store.objects
            return _answer(await objects.put(target, upload, deadline=ask.deadline, condition=condition))
        except NoSuchObject:
            raise S3Error("NoSuchKey", facts={"Key": wanted.key.decode()}) from None
        except ConditionFailed as failed:
            if is_written and source == target and not _is_still(found, failed.current):
                raise S3Error(
                    "ServiceUnavailable", "The object was replaced while it was copied. Please try again."
                ) from None
            raise refusal_of(failed, target_only) from None

    return await answer_patiently(ask, work())


def _answer(copied: ObjectInfo) -> Response:
    elements = [
        Element("LastModified", iso(copied.modified_us)),
        Element("ETag", quoted(copied.etag)),
    ]
    sums = kept(copied.attributes)
    elements += [Element(f"Checksum{one.value}", text) for one, text in sums]
    if sums:
        elements.append(Element("ChecksumType", coverage_of(copied.attributes)))
    return Response(200, [("Content-Type", XML_TYPE)], write_document("CopyObjectResult", elements))


def _read_algorithm(headers: Mapping[str, str]) -> Algorithm | None:
    value = headers.get("x-amz-checksum-algorithm")
    return None if value is None else read_algorithm("x-amz-checksum-algorithm", value)


def _is_shown(attribute: str) -> bool:
    return attribute == "type" or attribute.startswith(("meta:", "header:"))


def _is_still(found: ObjectInfo, current: ObjectInfo | None) -> bool:
    return current is not None and current.write_id == found.write_id


def _while_it_stands(found: ObjectInfo, condition: Condition | None) -> Condition:
    """Return a condition that holds over what was read, and over nothing that was written since."""
    return lambda current: _is_still(found, current) and (condition is None or condition(current))


async def _describe_anew(
    ask: Ask,
    name: ObjectName,
    describe: Callable[[ObjectInfo], dict[str, str]],
    source_only: Conditions | None,
    target_only: Conditions | None,
) -> ObjectInfo:
    """Copy an object onto itself: its body stays, with all that is said of the body."""

    def keep_body(old: ObjectInfo) -> Description:
        of_body = {
            name: value
            for name, value in old.attributes.items()
            if name == "etag" or (name.startswith("sys:") and name not in (GRANTS, TAGS))
        }
        return Description({**of_body, **describe(old)}, old.delete_at_us)

    conditions = [condition_of(one) for one in (source_only, target_only) if one is not None]

    def holds(current: ObjectInfo | None) -> bool:
        return all(each is None or each(current) for each in conditions)

    return await ask.around.store.objects.describe(name, keep_body, deadline=ask.deadline, condition=holds)
