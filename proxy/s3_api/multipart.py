"""Uploads in parts: begun, sent part by part, given up.

Owns what a request says of an upload and of one part. What becomes of the parts is `completing`'s.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from proxy.auth.decisions import Action
from proxy.http.response import Headers, Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import (
    COVERAGE,
    UNASKED,
    Algorithm,
    Coverage,
    PartChecksums,
    Promise,
    Summing,
    read_part_checksums,
)
from proxy.s3_api.descriptions import describe_new, quoted
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.tags import TAGGING, read_header
from proxy.s3_api.uploads import BodyReader
from proxy.s3_api.xml import XML_TYPE, Element, write_document
from proxy.store.multipart import CHECKSUM, UploadInfo
from proxy.store.values import Attributes, ContainerInfo, Description, Received
from swiftlike.limits import PARTS_MAX
from swiftlike.rpc.transport import Body

_ALGORITHM: Final = "sys:checksum-algorithm"
_NOTHING_ASKED: Final = "-"


async def begin(ask: Ask) -> Response:
    """POST with `uploads`."""
    if ask.request.body.size:
        raise S3Error("InvalidRequest", "The beginning of an upload has no body.")
    how = read_part_checksums(ask.headers)
    tags = read_header(ask.headers.get("x-amz-tagging"))
    attributes = describe_new(ask.headers) | tags
    if ask.identity.is_anonymous:
        raise S3Error(
            "AccessDenied", "Anonymous users cannot initiate multipart uploads. Please authenticate."
        )
    bucket = await ask.bucket()
    ask.require(Action.WRITE_OBJECT, bucket)
    if tags:
        ask.require(TAGGING, bucket)
    headers: Headers = [("Content-Type", XML_TYPE)]
    note = _NOTHING_ASKED
    if how.is_asked:
        attributes |= {_ALGORITHM: how.algorithm.value, COVERAGE: how.coverage.value}
        note = f"{how.algorithm.value} {how.coverage.value}"
        headers.append(("x-amz-checksum-algorithm", how.algorithm.value))
        headers.append(("x-amz-checksum-type", how.coverage.value))
    name = await ask.around.uploads.create(bucket, ask.resource.key, attributes, note, deadline=ask.deadline)
    elements = [
        Element("Bucket", bucket.name.container.decode()),
        Element("Key", ask.resource.key.decode()),
        Element("UploadId", name.id),
    ]
    return Response(200, headers, write_document("InitiateMultipartUploadResult", elements))


def checksums_of(begun: Attributes) -> PartChecksums:
    """Return how an upload is summed up, by what it was begun with."""
    algorithm = begun.get(_ALGORITHM)
    if algorithm is None:
        return PartChecksums(UNASKED, Coverage.FULL_OBJECT, False)
    return PartChecksums(Algorithm(algorithm), Coverage(begun[COVERAGE]), True)


def checksums_of_note(note: str) -> PartChecksums | None:
    """Return the same from what a listing of uploads tells; None: nothing was asked for."""
    if note == _NOTHING_ASKED:
        return None
    algorithm, coverage = note.split(" ")
    return PartChecksums(Algorithm(algorithm), Coverage(coverage), True)


def described(begun: Attributes) -> dict[str, str]:
    """Return what an object is described by whose upload was begun with this."""
    return {name: value for name, value in begun.items() if name not in (_ALGORITHM, COVERAGE)}


async def find_upload(ask: Ask, action: Action) -> tuple[ContainerInfo, UploadInfo]:
    """Return the upload that a request is about, with its bucket, where something may be done with it. Raises S3Error,
    NoSuchUpload.
    """
    bucket = await ask.bucket()
    ask.require(action, bucket)
    found = await ask.around.uploads.read_open(
        bucket, ask.resource.key, ask.text("uploadId"), deadline=ask.deadline
    )
    return bucket, found


def read_part_number(ask: Ask) -> int:
    """Return the number of the part that a request is about. Raises S3Error."""
    return check_part_number(ask.text("partNumber"), "partNumber")


def check_part_number(text: str, name: str) -> int:
    """Return a part's number. Raises S3Error."""
    if text.isascii() and text.isdecimal() and len(text) <= 6 and 1 <= int(text) <= PARTS_MAX:
        return int(text)
    raise invalid_argument(f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive", name, text)


async def send_part(ask: Ask) -> Response:
    """PUT with `partNumber` and `uploadId`."""
    number = read_part_number(ask)
    _, upload = await find_upload(ask, Action.WRITE_OBJECT)
    how = checksums_of(upload.attributes)
    reader = BodyReader(ask.request, ask.asker.proven)
    check_promise(how, reader.promise)
    part = _PartUpload(reader, how.algorithm)
    info = await ask.around.uploads.put_part(upload, number, part, deadline=ask.deadline)
    return Response(200, [("ETag", quoted(info.etag)), (how.algorithm.header, part.checksum)])


def check_promise(how: PartChecksums, promise: Promise | None) -> None:
    """Refuse a part that brings a checksum of another kind than its upload has. Raises S3Error."""
    if how.is_asked and promise is not None and promise.algorithm is not how.algorithm:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {how.algorithm.value.lower()}, "
            f"actual checksum Type: {promise.algorithm.value.lower()}",
        )


class _PartUpload:
    """A part that a client sends; summed up twice where it brings another checksum than is kept."""

    def __init__(self, body: BodyReader, algorithm: Algorithm) -> None:
        self._body = body
        is_same = body.summing.algorithm is algorithm
        self._summing = body.summing if is_same else Summing(algorithm)
        self._is_summed = is_same

    @property
    def size(self) -> int | None:
        return self._body.size

    @property
    def checksum(self) -> str:
        """Of all that came."""
        return self._summing.text()

    async def chunks(self) -> AsyncIterator[Body]:
        source: Any = self._body.chunks()
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                if not self._is_summed:
                    self._summing.update(chunk)
                yield chunk

    def finish(self, received: Received) -> Description:
        self._body.check(received.md5)
        return Description({"etag": received.md5, CHECKSUM: self.checksum})


async def abort(ask: Ask) -> Response:
    """DELETE with `uploadId`."""
    bucket = await ask.bucket()
    ask.require(Action.WRITE_OBJECT, bucket)
    await ask.around.uploads.abort(bucket, ask.resource.key, ask.text("uploadId"), deadline=ask.deadline)
    return Response(204)
