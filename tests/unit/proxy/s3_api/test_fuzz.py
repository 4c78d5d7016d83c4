"""Bad requests in the S3 dialect: whatever comes, signed or not, the answer is no 500, is XML, and the server goes on."""

import asyncio
import random

import pytest

from swiftlike.limits import HttpLimits
from tests.unit.proxy.s3_api.serving import S3, serve_s3, tree_of

SEEDS = 20
REQUESTS = 60
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "get", "X"]
PATHS = [
    "/", "//", "/box", "/box/", "/box/o", "/box//", "/box/%2F", "/box/é", "/box/%F0%9F%98%80", "/box/%00", "/box/%ff", "/%ff",
    "/box/" + "k" * 1100, "/Box", "/" + "b" * 300, "/box/%", "/box/%zz", "/..", "/box/..", "/other-box", "/other-box/o",
]  # fmt: skip
PARAMETERS = [
    "acl", "delete", "location", "versions", "uploads", "uploadId=x", "partNumber=0", "partNumber=1", "policy", "tagging", "versionId=null",
    "versionId=", "versionId=x", "list-type=2", "list-type=", "max-keys=-1", "max-keys=0", "max-keys=x", "max-keys=9" + "9" * 30, "prefix=%ff",
    "prefix=%00", "delimiter=%00", "delimiter=%2F", "marker=%C3", "continuation-token=", "continuation-token=AAAA", "encoding-type=url", "select",
    "response-expires=%0A", "response-content-type=%00", "X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Signature=x", "AWSAccessKeyId=x&Signature=y",
    "id=x&inventory", "attributes", "torrent", "max-buckets=0", "key-marker=a&versions", "version-id-marker=a&versions", "a=b=c&&=", "%zz",
]  # fmt: skip
HEADERS = [
    "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Range", "Content-Type", "Content-Encoding", "Content-MD5", "Expect",
    "x-amz-acl", "x-amz-copy-source", "x-amz-copy-source-if-match", "x-amz-metadata-directive", "x-amz-meta-a", "x-amz-meta-", "x-amz-date", "Date",
    "x-amz-content-sha256", "x-amz-decoded-content-length", "x-amz-trailer", "x-amz-checksum-crc32", "x-amz-checksum-sha256", "x-amz-storage-class",
    "x-amz-sdk-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode", "x-amz-expected-bucket-owner", "x-amz-security-token", "Authorization",
    "x-amz-tagging", "x-amz-nonsense", "Referer", "Host", "x-amz-checksum-algorithm",
]  # fmt: skip
VALUES = [
    "", "*", "x", "bytes=0-1", "bytes=-", "bytes=9" + "9" * 99, '"', "Sun, 99 Xxx 9999 99:99:99 GMT", "public-read", "private", "/box/o", "box/%ff",
    "box", "REPLACE", "COPY", "-1", "5", "99999999999999", "é", "\udcff\udcfe", "v" * 300, "v" * 9000, "aws-chunked", "gzip,aws-chunked",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "UNSIGNED-PAYLOAD", "e3b0", "x-amz-checksum-crc32", "AAAAAA==",
    "CRC32", "FULL_OBJECT", "COMPOSITE", "AWS a:b", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request,SignedHeaders=host,Signature=x",
    "=?UTF-8?B?DQo=?=", "=?UTF-8?B?w6k=?=", "box.objects.example", ".objects.example", "\x7f", "100-continue",
]  # fmt: skip
BODIES = [
    b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"<Delete><Object><Key>o</Key></Object></Delete>", b"<a>" * 50, b"\xff\x00" * 50,
    b"<CreateBucketConfiguration/>", b'<!DOCTYPE a [<!ENTITY b "c">]><Delete>&b;</Delete>',
]  # fmt: skip


def make(s3: S3, source: random.Random) -> tuple[str, bytes]:
    """Return a method and a bad request; every other one is soundly signed."""
    method = source.choice(METHODS[:5] if source.random() < 0.8 else METHODS)
    query = "&".join(source.choices(PARAMETERS, k=source.randrange(3)))
    path = source.choice(PATHS) + (f"?{query}" if query else "")
    headers = {source.choice(HEADERS): source.choice(VALUES) for _ in range(source.randrange(4))}
    body = source.choice(BODIES) if source.random() < 0.5 else b""
    is_signed = source.random() < 0.6 and not {"Authorization", "x-amz-date", "Date", "Host"} & set(headers)
    is_signed = is_signed and all(value.isascii() for value in headers.values()) and path.isascii()
    host = headers.pop("Host", "")
    if not is_signed:
        host = host if host.isascii() and host.isprintable() else ""
    raw_headers = {name: value for name, value in headers.items() if value != "100-continue"}
    try:
        return method, s3.write(method, path, body, "owner" if is_signed else "", raw_headers, host)
    except (UnicodeError, ValueError):
        return method, s3.write(method, "/box", body, "", {}, "")


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_request_however_bad_is_answered_with_500(seed: int) -> None:
    source = random.Random(seed)
    async with serve_s3(HttpLimits(drain_s=1.0, client_idle_s=2.0)) as s3:
        await s3.ask("PUT", "/box")
        await s3.ask("PUT", "/box/o", b"hello")
        for _ in range(REQUESTS):
            method, raw = make(s3, source)
            async with s3.serving.client() as client:
                await client.send(raw)
                async with asyncio.timeout(10):
                    answer = await client.answer(method)
            assert answer.status not in (500, 502, 503), (seed, raw, answer)
            if answer.status >= 400 and answer.body and "x-amz-request-id" in answer.headers:
                assert tree_of(answer).tag == "Error", (seed, raw, answer)
            assert b"Traceback" not in answer.body
        assert (await s3.ask("PUT", "/box")).status in (200, 409)
