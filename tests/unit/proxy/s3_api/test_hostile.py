"""Hostile bodies in the S3 dialect: the right code, nothing stored, memory that does not grow with what comes, and no traceback."""

import asyncio
import logging
import tracemalloc
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from hashlib import md5

import pytest

from tests.unit.proxy.s3_api.serving import S3, code_of, serve_s3
from tests.unit.proxy.serving import Answer

MIB = 1024 * 1024
SENT_BYTES = 48 * MIB
KEPT_BYTES_MAX = 12 * MIB
"""More than the buffers of two ends of a connection take, a quarter of what is sent."""
BOUNDARY = "b0undary"


@pytest.fixture
async def s3(caplog: pytest.LogCaptureFixture) -> AsyncIterator[S3]:
    with caplog.at_level(logging.ERROR):
        async with serve_s3() as running:
            await running.ask("PUT", "/box")
            await running.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read-write"})
            yield running
            assert not [name for name in running.store.object_infos if name.container == b"box"]
    assert not caplog.records, "whatever comes, nothing fails in an unforeseen way"


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < KEPT_BYTES_MAX, f"{peak / MIB:.1f} MiB were held at once"


async def pour(s3: S3, head: str, beginning: bytes, piece: bytes, size: int = SENT_BYTES) -> Answer | None:
    """Send a body without end, or until the answer comes; None: the connection ended before all of it was read."""
    async with s3.serving.client() as client:
        await client.send(f"{head}Host: h\r\nContent-Length: {size}\r\n\r\n".encode() + beginning)
        answer = asyncio.ensure_future(client.answer())
        left = size - len(beginning)
        try:
            while left and not answer.done():
                await client.send(piece[:left])
                left -= min(left, len(piece))
            return await answer
        except (ConnectionError, asyncio.IncompleteReadError):
            answer.cancel()
            return None


CHUNKED = (
    "PUT /box/o HTTP/1.1\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"
    "x-amz-decoded-content-length: 50331648\r\nx-amz-trailer: x-amz-checksum-crc32\r\n"
)
FORM = f"POST /box HTTP/1.1\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
KEY = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="key"\r\n\r\n'.encode()
ENDLESS: dict[str, tuple[str, bytes, bytes, str]] = {
    "a chunk's head without end": (CHUNKED, b"5;", b"a" * 65536, "IncompleteBody"),
    "a trailer without end": (CHUNKED.replace("50331648", "0"), b"0\r\n", b"a" * 65536, "EntityTooLarge"),
    "trailers without end": (CHUNKED.replace("50331648", "0"), b"0\r\n", b"a:b\r\n" * 10_000, "EntityTooLarge"),
    "a size that nothing has": (CHUNKED, b"fffffffffffffff\r\n", b"a" * 65536, "IncompleteBody"),
    "a field without end": (FORM, KEY, b"a" * 65536, "MaxPostPreDataLengthExceededError"),
    "fields without end": (FORM, b"", KEY + b"\r\n", "InvalidArgument"),
    "a form that never begins": (FORM, b"", b"a" * 65536, "MalformedPOSTRequest"),
    "a part's header without end": (FORM, KEY[:20], b"a" * 65536, "MaxPostPreDataLengthExceededError"),
    "XML": ("POST /box?delete HTTP/1.1\r\nContent-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n", b"<Delete>", b"<a>" * 9000, "EntityTooLarge"),
}  # fmt: skip


@pytest.mark.parametrize("what", ENDLESS)
async def test_what_has_no_end_is_refused_within_bounded_memory(s3: S3, what: str) -> None:
    head, beginning, piece, code = ENDLESS[what]
    with bounded_memory():
        answer = await pour(s3, head, beginning, piece)
    assert answer is not None
    assert (answer.status, code_of(answer)) == (400, code)


@pytest.mark.parametrize(
    "document",
    [
        b"<Delete>" + b"<Object>" * 11 + b"</Object>" * 11 + b"</Delete>",
        b"<Delete>" + b"<a/>" * 50_001 + b"</Delete>",
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&b;</Key></Object></Delete>',
        b'<!DOCTYPE Delete SYSTEM "http://127.0.0.1/x.dtd"><Delete/>',
        '<?xml version="1.0" encoding="UTF-16"?><Delete/>'.encode("utf-16"),
        b'<?xml version="1.0" encoding="nonsense"?><Delete/>',
        b"<Delete><Object><Key>a</Key></Object></Delete><Delete/>",
        b"<Delete><Object><Key>\x01</Key></Object></Delete>",
        b"<Delete><Object><Key>&#0;</Key></Object></Delete>",
        b"<Delete>\xff</Delete>",
        b"\x00",
        b"<" * 100_000,
    ],
)
async def test_a_hostile_document_deletes_nothing(s3: S3, document: bytes) -> None:
    length = f"Content-Length: {len(document)}\r\nx-amz-trailer: \r\nContent-MD5: "
    raw = f"POST /box?delete HTTP/1.1\r\nHost: h\r\n{length}{b64encode(md5(document).digest()).decode()}\r\n\r\n"
    async with s3.serving.client() as client:
        await client.send(raw.encode() + document)
        answer = await client.answer()
    assert (answer.status, code_of(answer)) == (400, "MalformedXML")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-meta-a": "v" * 8192}, "MetadataTooLarge"),
        ({"Cache-Control": "v" * 8193}, "InvalidArgument"),
        ({"Content-Type": "v" * 16_000}, "InvalidArgument"),
        ({"x-amz-acl": "v" * 8192}, "InvalidArgument"),
        ({"x-amz-tagging": "v" * 8192}, "InvalidTag"),
        ({"x-amz-tagging": "&".join(["a=b"] * 2000)}, "BadRequest"),
        ({"x-amz-grant-read": ",".join(["id=x"] * 1500 + ["id"])}, "InvalidArgument"),
        ({"x-amz-grant-read": ",".join(f"id={number}" for number in range(101))}, "MalformedACLError"),
        ({"x-amz-copy-source": "/box/" + "k" * 8000}, "KeyTooLongError"),
        ({"x-amz-checksum-crc32": "v" * 8192}, "InvalidRequest"),
        ({"x-amz-checksum-algorithm": "MD4", "x-amz-copy-source": "/box/a"}, "InvalidArgument"),
        ({"x-amz-sdk-checksum-algorithm": "v" * 8192}, "InvalidArgument"),
        ({"Content-MD5": "v" * 8192}, "InvalidDigest"),
        ({"Authorization": "v" * 8192}, "InvalidArgument"),
        ({"Authorization": "AWS4-HMAC-SHA256 " + "," * 8000}, "AuthorizationHeaderMalformed"),
        ({"Authorization": "AWS4-HMAC-SHA512 Credential=a"}, "InvalidArgument"),
        ({"x-amz-decoded-content-length": "9" * 8000, "Content-Encoding": "aws-chunked"}, "InvalidArgument"),
        ({"If-None-Match": '"' + "v" * 8000 + '"'}, "NotImplemented"),
        ({"x-amz-storage-class": "v" * 8192}, "InvalidStorageClass"),
    ],
)
async def test_a_header_of_eight_kilobytes_or_an_unknown_algorithm_is_refused(
    s3: S3, headers: dict[str, str], code: str
) -> None:
    answer = await s3.ask("PUT", "/box/o", b"" if "x-amz-copy-source" in headers else b"x", "", headers)
    assert (answer.status // 100, code_of(answer)) == (5 if code == "NotImplemented" else 4, code)
    assert len(answer.body) < 4096, "what came is not sent back at length"
