"""The body of a PUT: unwrapped from its chunks, summed up, and held against all that was promised of it.

Owns the order of refusals: what is wrong with the head before a byte is asked for, the rest once all has come, when nothing is
stored yet. Nothing of a body is kept here.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from hashlib import md5, sha256
from typing import Any, Final

from proxy.http.digests import read_md5
from proxy.http.errors import DigestMalformed
from proxy.http.request import Request
from proxy.s3_api.checksums import (
    UNASKED,
    Promise,
    Summing,
    check_form,
    read_promise,
    read_trailers,
)
from proxy.s3_api.chunks import ChunkedBody
from proxy.s3_api.descriptions import is_chunked
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.signatures import Payload, Proven
from proxy.store.values import Attributes, Description, Received
from swiftlike.limits import BODY_BYTES_MAX
from swiftlike.rpc.transport import Body

_FRAMING_PER_CHUNK: Final = 8
"""Times the data that a body in chunks may take: one-byte chunks are refused, not stored for the bytes around them."""
_FRAMING_BYTES: Final = 64 * 1024
_CONTENT_SHA256: Final = "x-amz-content-sha256"
_DIGITS_MAX: Final = 16


def payload_of(headers: Mapping[str, str], proven: Proven | None) -> Proven:
    """Return how a body is covered; one that no version 4 signature speaks of may still come in chunks. Raises S3Error."""
    if proven is not None and proven.payload is not Payload.UNSIGNED:
        return proven
    text = headers.get(_CONTENT_SHA256, "")
    if text == Payload.UNSIGNED_AND_TRAILER.value or is_chunked(headers.get("Content-Encoding")):
        return Proven(Payload.UNSIGNED_AND_TRAILER)
    if text.startswith("STREAMING-"):
        raise S3Error("InvalidRequest", "Chunks can be signed only in a request that is signed, too.")
    return Proven(Payload.UNSIGNED)


class BodyReader:
    """A body as it comes, and what was promised of it."""

    def __init__(
        self,
        request: Request,
        proven: Proven | None,
        bytes_max: int = BODY_BYTES_MAX,
        *,
        is_summed: bool = True,
    ) -> None:
        """Read the head. `is_summed`: checksums in it are of this body, and not of something else. Raises S3Error."""
        headers = request.headers
        self._request = request
        self._bytes_max = bytes_max
        self._proven = payload_of(headers, proven)
        trailers = read_trailers(headers.get("x-amz-trailer"))
        self.size: Final = self._declared_size(headers)
        self._chunks: ChunkedBody | None = None
        if self._proven.payload.is_chunked:
            self._chunks = ChunkedBody(self._proven, self.size, trailers)
        elif trailers:
            raise S3Error("InvalidRequest", "x-amz-trailer needs a body in chunks.")
        self.promise: Final = read_promise(headers, trailers) if is_summed else None
        self.summing: Final = Summing(UNASKED if self.promise is None else self.promise.algorithm)
        self._md5 = promised_md5(headers)
        self._sha256 = sha256() if self._proven.payload is Payload.SIGNED else None

    def _declared_size(self, headers: Mapping[str, str]) -> int:
        if self._proven.payload.is_chunked:
            text = headers.get("x-amz-decoded-content-length")
            if text is None:
                raise S3Error("MissingContentLength")
            if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS_MAX:
                raise invalid_argument("", "x-amz-decoded-content-length", text)
            size = int(text)
        elif self._request.body.size is None or (
            "Content-Length" not in headers and self._request.method == "PUT"
        ):
            raise S3Error("MissingContentLength")
        else:
            size = self._request.body.size
        if size > self._bytes_max:
            facts = {"ProposedSize": str(size), "MaxSizeAllowed": str(self._bytes_max)}
            raise S3Error("EntityTooLarge", facts=facts)
        return size

    async def chunks(self) -> AsyncIterator[Body]:
        """Yield the body. Raises BodyError, SignatureRefused."""
        wrapped = self._chunks
        bytes_max = self.size if wrapped is None else self.size * _FRAMING_PER_CHUNK + _FRAMING_BYTES
        source: Any = self._request.body.chunks(bytes_max)
        async with aclosing(source) as came:
            async for raw in came:
                if wrapped is None:
                    self._take(raw)
                    yield raw
                    continue
                for piece in wrapped.feed(raw):
                    self._take(piece)
                    yield piece

    def _take(self, chunk: Body) -> None:
        self.summing.update(chunk)
        if self._sha256 is not None:
            self._sha256.update(chunk)

    def check(self, received_md5: str) -> None:
        """Hold all that came against all that was promised. Raises S3Error, SignatureRefused."""
        trailers = {} if self._chunks is None else self._chunks.finish()
        if self._sha256 is not None and self._sha256.hexdigest() != self._proven.sha256:
            facts = {
                "ClientComputedContentSHA256": self._proven.sha256,
                "S3ComputedContentSHA256": self._sha256.hexdigest(),
            }
            raise S3Error("XAmzContentSHA256Mismatch", facts=facts)
        check_md5(self._md5, received_md5)
        check_promise(self.promise, self.summing, trailers)

    async def read_checked(self) -> bytes:
        """Return all of a small body, once it is what was promised. Raises S3Error, BodyError, SignatureRefused."""
        source: Any = self.chunks()
        async with aclosing(source) as chunks:
            raw = b"".join([chunk async for chunk in chunks])
        self.check(md5(raw, usedforsecurity=False).hexdigest())
        return raw


class S3Upload:
    """An object that a client sends."""

    __slots__ = ("_attributes", "_body")

    def __init__(self, body: BodyReader, attributes: Attributes) -> None:
        """Take the body and what the head says of it."""
        self._body = body
        self._attributes = attributes

    @property
    def size(self) -> int | None:
        """Bytes of the body, without what is around its chunks."""
        return self._body.size

    def chunks(self) -> AsyncIterator[Body]:
        """Yield the body. Raises BodyError, SignatureRefused."""
        return self._body.chunks()

    def finish(self, received: Received) -> Description:
        """Describe it, once it is what was promised. Raises S3Error, SignatureRefused."""
        self._body.check(received.md5)
        summing = self._body.summing
        return Description(
            {**self._attributes, "etag": received.md5, summing.algorithm.attribute: summing.text()}
        )


def promised_md5(headers: Mapping[str, str]) -> bytes | None:
    """Return what Content-MD5 promises. Raises S3Error."""
    value = headers.get("Content-MD5")
    try:
        return read_md5(value)
    except DigestMalformed:
        raise S3Error("InvalidDigest", facts={"Content-MD5": (value or "")[:100]}) from None


def check_md5(promised: bytes | None, received_md5: str) -> None:
    """Hold a body against its Content-MD5, where one was promised. Raises S3Error."""
    if promised is not None and promised.hex() != received_md5:
        facts = {"ExpectedDigest": promised.hex(), "CalculatedDigest": received_md5}
        raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.", facts)


def check_promise(promise: Promise | None, summing: Summing, trailers: Mapping[str, str]) -> None:
    """Hold a body's checksum against what was promised of it, ahead of it or behind. Raises S3Error."""
    if promise is None:
        return
    algorithm, promised = promise.algorithm, promise.text
    if promise.is_trailer:
        promised = check_form(algorithm, trailers.get(algorithm.header, ""))
    if promised != summing.text():
        raise S3Error(
            "BadDigest", f"The {algorithm.value} you specified did not match the calculated checksum."
        )
