"""Uploads in parts through the S3 dialect, over a server on loopback."""

import asyncio
import base64
import hashlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from proxy.s3_api import patience
from tests.unit.proxy.s3_api.serving import S3, code_of, serve_s3, text_of
from tests.unit.proxy.serving import Answer

A, B, C = b"a" * 3_000, b"b" * 2_000, b"c" * 10


def md5_of(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def etag_of(*bodies: bytes) -> str:
    """What the reference says of an etag: the MD5 of the MD5s, and their number."""
    joined = b"".join(hashlib.md5(body, usedforsecurity=False).digest() for body in bodies)
    return f'"{md5_of(joined)}-{len(bodies)}"'


def crc32_of(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


class Sent(NamedTuple):
    """A part, as it was answered."""

    number: int
    etag: str
    extra: str = ""


def document(parts: Sequence[Sent]) -> bytes:
    """The document that completes an upload."""
    inside = "".join(
        f"<Part><PartNumber>{one.number}</PartNumber><ETag>{one.etag}</ETag>{one.extra}</Part>"
        for one in parts
    )
    return f"<CompleteMultipartUpload>{inside}</CompleteMultipartUpload>".encode()


async def begin(s3: S3, path: str = "/bucket/key", **headers: str) -> str:
    """Begin an upload."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await s3.ask("POST", f"{path}?uploads", headers=fields)
    assert answer.status == 200, answer.body
    return text_of(answer, "UploadId")


async def send(
    s3: S3, upload: str, number: int, body: bytes, path: str = "/bucket/key", **headers: str
) -> Sent:
    """Send a part."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await s3.ask("PUT", f"{path}?partNumber={number}&uploadId={upload}", body, headers=fields)
    assert answer.status == 200, answer.body
    return Sent(number, answer.headers["etag"])


async def complete(
    s3: S3, upload: str, parts: Sequence[Sent] | bytes, path: str = "/bucket/key", **headers: str
) -> Answer:
    """Complete an upload."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    body = parts if isinstance(parts, bytes) else document(parts)
    return await s3.ask("POST", f"{path}?uploadId={upload}", body, headers=fields)


async def make_object(s3: S3, *bodies: bytes, path: str = "/bucket/key", **headers: str) -> Answer:
    """Make an object of parts."""
    upload = await begin(s3, path, **headers)
    parts = [await send(s3, upload, number, body, path) for number, body in enumerate(bodies, 1)]
    answer = await complete(s3, upload, parts, path)
    assert answer.status == 200, answer.body
    return answer


async def test_parts_become_an_object() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(
            s3, Content_Type="text/x", x_amz_meta_a="b", x_amz_tagging="t=1", x_amz_acl="public-read"
        )
        parts = [await send(s3, upload, number, body) for number, body in ((7, C), (1, A), (3, B))]
        assert parts[0].etag == f'"{md5_of(C)}"'
        assert (await s3.ask("GET", "/bucket/key")).status == 404
        answer = await complete(s3, upload, sorted(parts))
        assert answer.status == 200, answer.body
        assert text_of(answer, "ETag") == etag_of(A, B, C)
        assert text_of(answer, "Location").endswith("/bucket/key")
        assert (text_of(answer, "Bucket"), text_of(answer, "Key")) == ("bucket", "key")
        found = await s3.ask("GET", "/bucket/key", who="")
        assert (found.status, found.body) == (200, A + B + C)
        assert found.headers["etag"] == etag_of(A, B, C)
        assert found.headers["content-type"] == "text/x"
        assert found.headers["x-amz-meta-a"] == "b"
        assert (await s3.ask("HEAD", "/bucket/key")).headers["x-amz-tagging-count"] == "1"
        listed = await s3.ask("GET", "/bucket?list-type=2")
        assert (text_of(listed, "Contents/Size"), text_of(listed, "Contents/ETag")) == (
            str(len(A + B + C)),
            etag_of(A, B, C),
        )


@pytest.mark.parametrize(
    ("lead", "status", "body"),
    [
        ("bytes=0-9", 206, (A + B + C)[:10]),
        ("bytes=2990-3009", 206, (A + B + C)[2990:3010]),
        ("bytes=2000-", 206, (A + B + C)[2000:]),
        ("bytes=-15", 206, (A + B + C)[-15:]),
        ("bytes=5010-", 416, None),
    ],
)
async def test_ranges_go_across_parts(lead: str, status: int, body: bytes | None) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        await make_object(s3, A, B, C)
        answer = await s3.ask("GET", "/bucket/key", headers={"Range": lead})
        assert answer.status == status
        assert body is None or answer.body == body


async def test_a_part_that_is_sent_again_takes_the_place_of_the_first() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        first, second = await send(s3, upload, 1, A), await send(s3, upload, 1, B)
        assert code_of(await complete(s3, upload, [first])) == "InvalidPart"
        assert (await complete(s3, upload, [second])).status == 200
        assert (await s3.ask("GET", "/bucket/key")).body == B


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "", "1.0", "٣"])
async def test_numbers_of_parts_have_limits(number: str) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        from urllib.parse import quote

        answer = await s3.ask("PUT", f"/bucket/key?partNumber={quote(number)}&uploadId={upload}", A)
        assert (answer.status, code_of(answer)) == (400, "InvalidArgument")
        listed = document([Sent(1, "x")]).replace(b">1<", f">{number}<".encode())
        assert (await complete(s3, upload, listed)).status == 400


async def test_the_last_number_there_can_be() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        assert (await complete(s3, upload, [await send(s3, upload, 10_000, A)])).status == 200


async def test_what_a_list_of_parts_must_be() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        one, two = await send(s3, upload, 1, C), await send(s3, upload, 2, A)
        for parts, code in (
            ([two, one], "InvalidPartOrder"),
            ([two, two], "InvalidPartOrder"),
            ([one, two], "EntityTooSmall"),
            ([one, Sent(2, '"' + "0" * 32 + '"')], "InvalidPart"),
            ([Sent(1, two.etag)], "InvalidPart"),
            ([two, Sent(3, two.etag)], "InvalidPart"),
            ([], "MalformedXML"),
        ):
            assert code_of(await complete(s3, upload, parts)) == code, parts
        too_small = await complete(s3, upload, [one, two])
        assert (text_of(too_small, "MinSizeAllowed"), text_of(too_small, "PartNumber")) == ("1000", "1")
        assert (await complete(s3, upload, [Sent(2, two.etag.strip('"'))])).status == 200, "quotes or none"


async def test_uploads_that_are_over_or_another_s_are_not_there() -> None:
    async with serve_s3() as s3:
        for bucket in ("bucket", "other"):
            await s3.ask("PUT", f"/{bucket}")
        upload = await begin(s3)
        part = await send(s3, upload, 1, A)
        for path in (f"/bucket/else?uploadId={upload}", f"/other/key?uploadId={upload}",
                     f"/bucket/key?uploadId={'0' * 48}", "/bucket/key?uploadId=%00", "/bucket/key?uploadId="):  # fmt: skip
            for method, query, body in (
                ("PUT", "&partNumber=1", A),
                ("POST", "", document([part])),
                ("DELETE", "", b""),
            ):
                answer = await s3.ask(method, path + query, body)
                assert (answer.status, code_of(answer)) == (404, "NoSuchUpload"), (method, path)
        assert (await s3.ask("DELETE", f"/bucket/key?uploadId={upload}")).status == 204
        answer = await s3.ask("PUT", f"/bucket/key?uploadId={upload}&partNumber=1", A)
        assert code_of(answer) == "NoSuchUpload"
        assert code_of(await complete(s3, upload, [part])) == "NoSuchUpload"
        assert (await s3.ask("GET", "/bucket/key")).status == 404


async def test_a_completion_that_is_repeated_says_the_same() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        part = await send(s3, upload, 1, A)
        first = await complete(s3, upload, [part])
        again = await complete(s3, upload, [part])
        assert (again.status, again.body) == (200, first.body)
        assert code_of(await complete(s3, upload, [Sent(2, part.etag)])) == "NoSuchUpload"
        assert (await s3.ask("DELETE", "/bucket/key")).status == 204
        again = await complete(s3, upload, [part])
        assert (again.status, again.body) == (200, first.body), "and brings nothing back"
        assert (await s3.ask("GET", "/bucket/key")).status == 404
        assert code_of(await s3.ask("DELETE", f"/bucket/key?uploadId={upload}")) == "NoSuchUpload"


async def test_a_completion_may_have_a_condition() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        part = await send(s3, upload, 1, A)
        answer = await complete(s3, upload, [part], If_Match='"no"')
        assert (answer.status, code_of(answer)) == (404, "NoSuchKey")
        stands = (await s3.ask("PUT", "/bucket/key", B)).headers["etag"]
        answer = await complete(s3, upload, [part], If_None_Match="*")
        assert (answer.status, code_of(answer)) == (412, "PreconditionFailed")
        assert (await s3.ask("GET", "/bucket/key")).body == B
        assert (await complete(s3, upload, [part], If_Match=stands)).status == 200
        assert (await s3.ask("GET", "/bucket/key")).body == A


@pytest.mark.parametrize("coverage", ["COMPOSITE", "FULL_OBJECT", None])
async def test_checksums_of_parts_become_that_of_the_object(coverage: str | None) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        headers = {"x_amz_checksum_algorithm": "CRC32"}
        if coverage:
            headers["x_amz_checksum_type"] = coverage
        upload = await begin(s3, **headers)
        parts = []
        for number, body in ((1, A), (2, B)):
            sent = await send(s3, upload, number, body, x_amz_checksum_crc32=crc32_of(body))
            extra = f"<ChecksumCRC32>{crc32_of(body)}</ChecksumCRC32>"
            parts.append(sent._replace(extra=extra))
        wrong = parts[1]._replace(extra=f"<ChecksumCRC32>{crc32_of(A)}</ChecksumCRC32>")
        assert code_of(await complete(s3, upload, [parts[0], wrong])) == "InvalidPart"
        expected = crc32_of(A + B)
        if coverage != "FULL_OBJECT":
            joined = b"".join(base64.b64decode(crc32_of(body)) for body in (A, B))
            expected = crc32_of(joined) + "-2"
        answer = await complete(s3, upload, parts, x_amz_checksum_crc32=crc32_of(C))
        assert code_of(answer) == "BadDigest"
        answer = await complete(s3, upload, parts, x_amz_mp_object_size="1")
        assert code_of(answer) == "InvalidRequest"
        answer = await complete(
            s3, upload, parts, x_amz_checksum_crc32=expected, x_amz_mp_object_size=str(len(A + B))
        )
        assert answer.status == 200, answer.body
        assert text_of(answer, "ChecksumCRC32") == expected
        assert text_of(answer, "ChecksumType") == (coverage or "COMPOSITE")
        found = await s3.ask("HEAD", "/bucket/key", headers={"x-amz-checksum-mode": "ENABLED"})
        assert found.headers["x-amz-checksum-crc32"] == expected
        assert found.headers["x-amz-checksum-type"] == (coverage or "COMPOSITE")


@pytest.mark.parametrize(
    ("algorithm", "coverage", "code"),
    [
        ("SHA256", "FULL_OBJECT", "InvalidRequest"),
        ("CRC64NVME", "COMPOSITE", "InvalidRequest"),
        ("MD5", None, "InvalidArgument"),
        ("CRC32", "ALL", "InvalidArgument"),
        (None, "COMPOSITE", "InvalidRequest"),
    ],
)
async def test_checksums_that_no_upload_has(algorithm: str | None, coverage: str | None, code: str) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        headers = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": coverage}
        answer = await s3.ask(
            "POST", "/bucket/key?uploads", headers={name: value for name, value in headers.items() if value}
        )
        assert code_of(answer) == code


async def test_a_part_with_another_checksum_than_its_upload_s_is_refused() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3, x_amz_checksum_algorithm="SHA256")
        headers = {"x-amz-checksum-crc32": crc32_of(A)}
        answer = await s3.ask("PUT", f"/bucket/key?partNumber=1&uploadId={upload}", A, headers=headers)
        assert code_of(answer) == "InvalidRequest"
        upload = await begin(s3)
        await send(s3, upload, 1, A, x_amz_checksum_crc32=crc32_of(A))
        headers = {"x-amz-checksum-crc32": crc32_of(B)}
        answer = await s3.ask("PUT", f"/bucket/key?partNumber=2&uploadId={upload}", A, headers=headers)
        assert code_of(answer) == "BadDigest"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>", "MalformedXML"),
        (b"<CompleteMultipartUpload/>", "MalformedXML"),
        (b"<Other/>", "MalformedXML"),
        (b"<!DOCTYPE x><CompleteMultipartUpload/>", "MalformedXML"),
        (document([Sent(1, "")]).replace(b"<ETag></ETag>", b""), "MalformedXML"),
        (document([Sent(1, "x")]).replace(b"</Part>", b"<ETag>y</ETag></Part>"), "MalformedXML"),
        (document([Sent(1, "x", "<ChecksumCRC32>no</ChecksumCRC32>")]), "InvalidRequest"),
        (document([Sent(number, "x") for number in range(1, 10_002)]), "InvalidArgument"),
        (document([Sent(1, "x")] * 10_001), "MalformedXML"),
        (b"<CompleteMultipartUpload>" + b" " * 10 * 1024**2, "EntityTooLarge"),
    ],
    ids=range(11),
)
async def test_documents_that_complete_nothing(body: bytes, code: str) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        await send(s3, upload, 1, A)
        assert code_of(await complete(s3, upload, body)) == code
        assert (await s3.ask("GET", "/bucket/key")).status == 404


async def test_strangers_may_do_nothing_with_an_upload() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        part = await send(s3, upload, 1, A)
        for who in ("other", ""):
            for method, query, body in (
                ("POST", "uploads", b""),
                ("PUT", f"partNumber=1&uploadId={upload}", B),
                ("POST", f"uploadId={upload}", document([part])),
                ("DELETE", f"uploadId={upload}", b""),
            ):
                answer = await s3.ask(method, f"/bucket/key?{query}", body, who=who)
                assert (answer.status, code_of(answer)) == (403, "AccessDenied"), (who, method)
        assert (await complete(s3, upload, [part])).status == 200


async def test_a_number_without_an_upload_is_no_plain_object() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        answer = await s3.ask("PUT", "/bucket/key?partNumber=1", A)
        assert (answer.status, code_of(answer)) == (400, "InvalidArgument")
        assert (await s3.ask("GET", "/bucket/key")).status == 404


async def test_a_long_completion_keeps_the_connection_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "QUIET_S", 0.01)
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        part = await send(s3, upload, 1, A)
        go_on = asyncio.Event()
        put_manifest = s3.store.objects.put_manifest

        async def put_late(*args: object, **options: object) -> object:
            await go_on.wait()
            return await put_manifest(*args, **options)  # type: ignore[arg-type]  # as it came

        monkeypatch.setattr(s3.store.objects, "put_manifest", put_late)
        async with s3.serving.client() as client:
            await client.send(s3.write("POST", f"/bucket/key?uploadId={upload}", document([part])))
            status, fields = await client.head()
            assert (status, ("Transfer-Encoding", "chunked") in fields) == (200, True)
            first = await client.reader.readuntil(b"?>\n\r\n")
            assert first.partition(b"\r\n")[2].startswith(b"<?xml")
            assert await client.reader.readexactly(12) == b"1\r\n \r\n" * 2
            go_on.set()
            rest = await client.reader.readuntil(b"0\r\n\r\n")
            assert b"<CompleteMultipartUploadResult" in rest
            assert etag_of(A).strip('"').encode() in rest
        go_on.clear()
        # By now the status is out, so what goes wrong is told in the document.
        upload = await begin(s3)
        part = await send(s3, upload, 1, B)
        async with s3.serving.client() as client:
            raw = s3.write(
                "POST", f"/bucket/key?uploadId={upload}", document([part]), headers={"If-None-Match": "*"}
            )
            await client.send(raw)
            asyncio.get_running_loop().call_later(0.05, go_on.set)
            answer = await client.answer("POST")
            assert (answer.status, code_of(answer)) == (200, "PreconditionFailed")
            assert answer.body.count(b"<?xml") == 1
        assert (await s3.ask("GET", "/bucket/key")).body == A
