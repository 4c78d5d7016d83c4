"""Objects: store, read, describe, delete.

Owns the answers of `/v1/account/container/object`, but for copies. Nothing of a body is asked for before everything that
can be refused without it has been.
"""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from proxy.auth.decisions import Action
from proxy.http.begun import begun
from proxy.http.byteranges import frame
from proxy.http.conditions import NO_CONDITIONS, Conditions, Verdict, parse_conditions, range_still_holds
from proxy.http.dates import seconds_up
from proxy.http.digests import read_md5
from proxy.http.errors import BodyTooLarge, RangeNotSatisfiable
from proxy.http.ranges import Span, resolve_ranges
from proxy.http.request import Request
from proxy.http.response import Headers, Response
from proxy.store.errors import BodyGone, ConditionFailed, NoSuchObject
from proxy.store.values import Attributes, Condition, Description, ObjectBody, ObjectInfo, Received
from proxy.swift_api.asks import Ask
from proxy.swift_api.descriptions import describe_anew, describe_new, read_delete_at_us
from proxy.swift_api.facts import last_modified, object_headers
from proxy.swift_api.refusals import PLAIN, Refusal, told
from swiftlike.limits import BODY_BYTES_MAX
from swiftlike.rpc.transport import Body

HTML: Final = ("Content-Type", "text/html; charset=UTF-8")


class ObjectUpload:
    """The body of a PUT, and what the request says of it."""

    __slots__ = ("_attributes", "_delete_at_us", "_etag", "_md5", "_request")

    def __init__(self, request: Request, attributes: Attributes, delete_at_us: int) -> None:
        """Take them. Raises DigestMalformed."""
        self._request = request
        self._attributes = attributes
        self._delete_at_us = delete_at_us
        self._etag = request.headers.get("Etag", "").strip().strip('"').lower()
        self._md5 = read_md5(request.headers.get("Content-MD5"))

    @property
    def size(self) -> int | None:
        """Bytes that were declared."""
        return self._request.body.size

    def chunks(self) -> AsyncIterator[Body]:
        """Yield the body. Raises BodyError."""
        return self._request.body.chunks(BODY_BYTES_MAX)

    def finish(self, received: Received) -> Description:
        """Compare what was promised of the body. Raises Refusal."""
        if self._etag and self._etag != received.md5:
            raise Refusal(
                422, "The body's MD5 is not the Etag that the request promised; nothing was stored."
            )
        if self._md5 is not None and self._md5.hex() != received.md5:
            raise Refusal(
                422, "The body's MD5 is not the Content-MD5 that the request promised; nothing was stored."
            )
        return Description({**self._attributes, "etag": received.md5}, self._delete_at_us)


async def store(ask: Ask) -> Response:
    """PUT: store a body."""
    await ask.require_by_acl(Action.WRITE_OBJECT)
    request = ask.request
    body = request.body
    if body.size == 0 and "Content-Length" not in request.headers:
        raise Refusal(411, "Missing Content-Length header.")
    if body.size is not None and body.size > BODY_BYTES_MAX:
        raise BodyTooLarge(BODY_BYTES_MAX)
    upload = ObjectUpload(
        request,
        describe_new(request.headers, ask.resource.name),
        read_delete_at_us(request.headers, ask.around.now_us()),
    )
    condition = write_condition(request)
    if condition is not None and not body.arrived:
        await _refuse_early(ask, condition)
    info = await ask.around.store.objects.put(
        ask.resource.of_object, upload, deadline=ask.deadline, condition=condition
    )
    return stored(info)


async def _refuse_early(ask: Ask, condition: Condition) -> None:
    """Refuse a body that is still to come when its condition does not hold now; the write judges it again.

    Raises ConditionFailed.
    """
    found: ObjectInfo | None = None
    with suppress(NoSuchObject):
        found, _ = await ask.around.store.objects.read(
            ask.resource.of_object, deadline=ask.deadline, inline_bytes=0
        )
    if not condition(found):
        raise ConditionFailed(found)


def stored(info: ObjectInfo) -> Response:
    """Return the answer to a PUT."""
    headers = [HTML, ("Etag", info.etag), ("Last-Modified", last_modified(info.modified_us))]
    return Response(201, headers)


def write_condition(request: Request) -> Condition | None:
    """Return the condition of a write, by its headers; None: there is none."""
    conditions = parse_conditions(request.headers)
    return None if conditions is NO_CONDITIONS else condition_of(conditions)


def condition_of(conditions: Conditions) -> Condition:
    """Turn conditions into one of the domain's."""

    def holds(found: ObjectInfo | None) -> bool:
        etag, modified_us = (None, 0) if found is None else (found.etag, found.modified_us)
        return conditions.judge(etag, seconds_up(modified_us), reads=False) is Verdict.GO

    return holds


async def read(ask: Ask) -> Response:
    """GET and HEAD."""
    await ask.require_by_acl(Action.READ_OBJECT)
    return await begun(lambda: _read(ask), BodyGone)


async def _read(ask: Ask) -> Response:
    request = ask.request
    objects, name = ask.around.store.objects, ask.resource.of_object
    is_head = request.method == "HEAD"
    if is_head:
        info, body = await objects.read(name, deadline=ask.deadline, inline_bytes=0)
    else:
        info, body = await objects.read(name, deadline=ask.deadline)
    headers = object_headers(info)
    modified_s = seconds_up(info.modified_us)
    conditions = parse_conditions(request.headers)
    if conditions is not NO_CONDITIONS:
        match conditions.judge(info.etag, modified_s):
            case Verdict.FAILED:
                return told(412, "The condition of the request does not hold.", headers)
            case Verdict.NOT_MODIFIED:
                return Response(304, headers)
            case Verdict.GO:
                pass
    if is_head:  # for which a range means nothing: RFC 9110 §14.2
        headers.append(("Content-Type", info.content_type))
        return Response(200, headers, length=info.size)
    header = request.headers.get("Range")
    spans: tuple[Span, ...] = ()
    if header is not None and range_still_holds(request.headers.get("If-Range"), info.etag, modified_s):
        try:
            spans = resolve_ranges(header, info.size)
        except RangeNotSatisfiable:
            headers.append(("Content-Range", f"bytes */{info.size}"))
            return told(416, "No such range.", headers)
    return _answer(info, body, headers, spans)


def _answer(info: ObjectInfo, body: ObjectBody, headers: Headers, spans: tuple[Span, ...]) -> Response:
    """Return the whole body or the spans of it that were asked for."""
    content_type = info.content_type
    if len(spans) > 1:
        parts = frame(spans, info.size, content_type, os.urandom(16).hex())
        headers.append(("Content-Type", parts.content_type))
        return Response(206, headers, stream=parts.stream(body.stream), length=parts.size)
    headers.append(("Content-Type", content_type))
    start, stop, status = 0, info.size, 200
    if spans:
        start, stop, status = *spans[0], 206
        headers.append(("Content-Range", spans[0].content_range(info.size)))
    whole = body.whole
    if whole is not None:
        return Response(status, headers, whole if not spans else memoryview(whole)[start:stop])
    return Response(status, headers, stream=body.stream(start, stop), length=stop - start)


async def describe(ask: Ask) -> Response:
    """POST: describe it anew."""
    await ask.require_by_acl(Action.WRITE_OBJECT)
    headers, name = ask.headers, ask.resource.name
    describe_anew(headers, {}, name)  # what is wrong with the headers is told without asking the cluster
    delete_at_us = read_delete_at_us(headers, ask.around.now_us())
    await ask.around.store.objects.describe(
        ask.resource.of_object,
        lambda old: Description(describe_anew(headers, old.attributes, name), delete_at_us),
        deadline=ask.deadline,
        condition=write_condition(ask.request),
    )
    return told(202, "Accepted.")


async def delete(ask: Ask) -> Response:
    """DELETE."""
    await ask.require_by_acl(Action.DELETE_OBJECT)
    was_there = await ask.around.store.objects.delete(
        ask.resource.of_object, deadline=ask.deadline, condition=write_condition(ask.request)
    )
    if not was_there:
        raise NoSuchObject
    return Response(204, [PLAIN])
