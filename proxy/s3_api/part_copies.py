"""UploadPartCopy: a part that is read from an object of the cluster, all of it or one range.

Owns the grammar of that range. What a copy's source is, and what is asked of it, is `copies`'.
"""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from proxy.auth.decisions import Action
from proxy.http.ranges import Span
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import Algorithm, Summing
from proxy.s3_api.conditional import source_conditions
from proxy.s3_api.copies import RANGE, SOURCE, check_source_size, find_source, parse_source
from proxy.s3_api.descriptions import quoted
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.listings import iso
from proxy.s3_api.multipart import checksums_of, find_upload, read_part_number
from proxy.s3_api.patience import answer_patiently
from proxy.s3_api.xml import XML_TYPE, Element, write_document
from proxy.store.multipart import CHECKSUM, UploadInfo
from proxy.store.values import Description, ObjectBody, Received
from swiftlike.rpc.transport import Body

_RANGE: Final = re.compile(r"bytes=([0-9]{1,19})-([0-9]{1,19})")


def read_range(value: str | None, source_bytes: int) -> Span:
    """Return which bytes of a source are asked for. Raises S3Error."""
    if value is None:
        return Span(0, source_bytes)
    found = _RANGE.fullmatch(value)
    if found is None or int(found[1]) > int(found[2]):
        raise invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based "
            "offsets of the first and last bytes to copy",
            RANGE,
            value,
        )
    span = Span(int(found[1]), int(found[2]) + 1)
    if span.stop > source_bytes:
        raise invalid_argument(
            f"Range specified is not valid for source object of size: {source_bytes}", RANGE, value
        )
    return span


class _PartCopy:
    """Bytes on their way from an object to a part, summed up."""

    def __init__(self, body: ObjectBody, span: Span, algorithm: Algorithm) -> None:
        self._body = body
        self._span = span
        self._summing = Summing(algorithm)

    @property
    def size(self) -> int | None:
        return self._span.size

    @property
    def checksum(self) -> str:
        """Of all that was copied."""
        return self._summing.text()

    async def chunks(self) -> AsyncIterator[Body]:
        source: Any = self._body.stream(*self._span)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                self._summing.update(chunk)
                yield chunk

    def finish(self, received: Received) -> Description:
        return Description({"etag": received.md5, CHECKSUM: self.checksum})


async def copy_part(ask: Ask) -> Response:
    """PUT with `partNumber`, `uploadId` and `x-amz-copy-source`."""
    number = read_part_number(ask)
    wanted, conditions = parse_source(ask.headers[SOURCE]), source_conditions(ask.headers)
    if ask.request.body.size:
        raise S3Error("InvalidRequest", "A copy has no body of its own.")
    _, upload = await find_upload(ask, Action.WRITE_OBJECT)
    _, info, body = await find_source(ask, wanted, conditions)
    span = read_range(ask.headers.get(RANGE), info.size)
    check_source_size(span.size)
    return await answer_patiently(ask, _copy(ask, upload, number, body, span))


async def _copy(ask: Ask, upload: UploadInfo, number: int, body: ObjectBody, span: Span) -> Response:
    how = checksums_of(upload.attributes)
    part = _PartCopy(body, span, how.algorithm)
    info = await ask.around.uploads.put_part(upload, number, part, deadline=ask.deadline)
    elements = [
        Element("LastModified", iso(info.modified_us)),
        Element("ETag", quoted(info.etag)),
        Element(f"Checksum{how.algorithm.value}", part.checksum),
    ]
    return Response(200, [("Content-Type", XML_TYPE)], write_document("CopyPartResult", elements))
