"""Uploads in parts through the S3 dialect, over a server on loopback."""

import asyncio
import base64
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import pytest

from proxy.s3_api import patience
from tests.unit.proxy.s3_api.serving import S3, code_of, serve_s3, text_of, texts_of
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


async def test_while_an_upload_is_being_completed_it_cannot_be_ended_otherwise() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3)
        parts = [await send(s3, upload, number, body) for number, body in enumerate((A, B), 1)]
        put_manifest = s3.store.objects.put_manifest
        began, goes_on = asyncio.Event(), asyncio.Event()

        async def wait(*args: Any, **options: Any) -> Any:
            began.set()
            await goes_on.wait()
            return await put_manifest(*args, **options)

        s3.store.objects.put_manifest = wait  # type: ignore[method-assign]  # so that others come in between
        slow = asyncio.ensure_future(complete(s3, upload, parts))
        await began.wait()
        for other in (
            await s3.ask("DELETE", f"/bucket/key?uploadId={upload}"),
            await complete(s3, upload, parts[:1]),
        ):
            assert (other.status, code_of(other)) == (409, "OperationAborted")
            assert "being completed" in text_of(other, "Message")
        listed = await s3.ask("GET", "/bucket?uploads")
        assert texts_of(listed, "Upload/UploadId") == [upload]
        assert (await s3.ask("GET", f"/bucket/key?uploadId={upload}")).status == 200
        goes_on.set()
        assert (await slow).status == 200
        assert code_of(await s3.ask("DELETE", f"/bucket/key?uploadId={upload}")) == "NoSuchUpload"
        assert code_of(await complete(s3, upload, parts[:1])) == "NoSuchUpload"
        assert text_of(await complete(s3, upload, parts), "ETag") == etag_of(A, B)


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


async def test_nobody_in_particular_begins_no_upload_where_he_may_write() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket", headers={"x-amz-acl": "public-read-write"})
        assert (await s3.ask("PUT", "/bucket/small", A, who="")).status == 200
        answer = await s3.ask("POST", "/bucket/key?uploads", who="")
        assert (answer.status, code_of(answer)) == (403, "AccessDenied")
        assert "authenticate" in text_of(answer, "Message")
        assert (await s3.ask("POST", "/bucket/key?uploads", who="other")).status == 200


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


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("bytes=0-0", ""),
        ("bytes=10-4999", ""),
        ("", ""),
        ("bytes=0-5010", "InvalidArgument"),
        ("bytes=5010-5011", "InvalidArgument"),
        ("bytes=5-", "InvalidArgument"),
        ("bytes=-5", "InvalidArgument"),
        ("bytes=5-4", "InvalidArgument"),
        ("0-5", "InvalidArgument"),
        ("bytes=0-1,3-4", "InvalidArgument"),
    ],
)
async def test_a_part_is_copied_from_an_object_or_a_range_of_it(wanted: str, code: str) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        await make_object(s3, A, B, C, path="/bucket/source")
        whole = A + B + C
        upload = await begin(s3, x_amz_checksum_algorithm="CRC32")
        headers = {"x-amz-copy-source": "/bucket/source"}
        if wanted:
            headers["x-amz-copy-source-range"] = wanted
        answer = await s3.ask("PUT", f"/bucket/key?partNumber=1&uploadId={upload}", headers=headers)
        assert (code_of(answer) if answer.status != 200 else "") == code
        if code:
            return
        first, _, last = (wanted.removeprefix("bytes=") or f"0-{len(whole) - 1}").partition("-")
        expected = whole[int(first) : int(last) + 1]
        assert text_of(answer, "ETag") == f'"{md5_of(expected)}"'
        assert text_of(answer, "ChecksumCRC32") == crc32_of(expected)
        done = await complete(s3, upload, [Sent(1, text_of(answer, "ETag"))])
        assert text_of(done, "ETag") == etag_of(expected)
        assert (await s3.ask("GET", "/bucket/key")).body == expected


async def test_the_source_of_a_part_must_be_there_and_as_it_is_said_to_be() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        etag = (await s3.ask("PUT", "/bucket/source", A)).headers["etag"]
        upload = await begin(s3)
        path = f"/bucket/key?partNumber=1&uploadId={upload}"
        source = {"x-amz-copy-source": "bucket/source"}
        for headers, code in (
            ({"x-amz-copy-source": "bucket/none"}, "NoSuchKey"),
            ({"x-amz-copy-source": "none/source"}, "NoSuchBucket"),
            (source | {"x-amz-copy-source-if-match": '"x"'}, "PreconditionFailed"),
            (source | {"x-amz-copy-source-if-none-match": etag}, "PreconditionFailed"),
        ):
            assert code_of(await s3.ask("PUT", path, headers=headers)) == code
        answer = await s3.ask("PUT", path, headers=source | {"x-amz-copy-source-if-match": etag})
        assert answer.status == 200
        missing = f"/bucket/key?partNumber=1&uploadId={'0' * 48}"
        assert code_of(await s3.ask("PUT", missing, headers=source)) == "NoSuchUpload"
        # Outside of uploads, a range is refused, and not left out.
        headers = source | {"x-amz-copy-source-range": "bytes=0-1"}
        assert code_of(await s3.ask("PUT", "/bucket/key", headers=headers)) == "NotImplemented"


async def test_a_copy_of_an_object_of_parts_is_whole() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        await make_object(s3, A, B, path="/bucket/source", x_amz_checksum_algorithm="CRC32", x_amz_meta_a="b")
        answer = await s3.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "bucket/source"})
        assert text_of(answer, "ETag") == f'"{md5_of(A + B)}"'
        assert text_of(answer, "ChecksumCRC32") == crc32_of(A + B)
        assert text_of(answer, "ChecksumType") == "FULL_OBJECT"
        assert (await s3.ask("DELETE", "/bucket/source")).status == 204
        found = await s3.ask("GET", "/bucket/copy", headers={"x-amz-checksum-mode": "ENABLED"})
        assert (found.body, found.headers["x-amz-meta-a"]) == (A + B, "b")
        assert found.headers["x-amz-checksum-type"] == "FULL_OBJECT"
        assert "x-amz-mp-parts-count" not in (await s3.ask("HEAD", "/bucket/copy?partNumber=1")).headers


async def test_an_object_of_parts_that_is_described_anew_keeps_its_parts() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        await make_object(s3, A, B)
        headers = {
            "x-amz-copy-source": "bucket/key",
            "x-amz-metadata-directive": "REPLACE",
            "x-amz-meta-a": "b",
        }
        answer = await s3.ask("PUT", "/bucket/key", headers=headers)
        assert text_of(answer, "ETag") == etag_of(A, B)
        tagging = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
        assert (await s3.ask("PUT", "/bucket/key?tagging", tagging)).status == 200
        found = await s3.ask("GET", "/bucket/key")
        assert (found.body, found.headers["x-amz-meta-a"]) == (A + B, "b")
        assert (await s3.ask("HEAD", "/bucket/key?partNumber=2")).headers["x-amz-mp-parts-count"] == "2"


# --- listings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_items", [3, 10_000])
async def test_parts_are_listed_page_by_page(page_items: int) -> None:
    async with serve_s3(page_items=page_items) as s3:
        await s3.ask("PUT", "/bucket")
        upload = await begin(s3, x_amz_checksum_algorithm="CRC32")
        numbers = [1, 2, 9, 10, 11, 100, 9_999, 10_000]
        for number in numbers:
            await send(s3, upload, number, b"old")
        for number in numbers[::3]:
            await send(s3, upload, number, A)
        path = f"/bucket/key?uploadId={upload}"
        answer = await s3.ask("GET", path)
        assert texts_of(answer, "Part/PartNumber") == [str(number) for number in numbers]
        sizes = [3_000 if at % 3 == 0 else 3 for at in range(8)]
        assert texts_of(answer, "Part/Size") == [str(size) for size in sizes]
        assert texts_of(answer, "Part/ChecksumCRC32")[0] == crc32_of(A)
        assert text_of(answer, "ChecksumAlgorithm") == "CRC32"
        assert text_of(answer, "IsTruncated") == "false"
        assert (text_of(answer, "Initiator/ID"), text_of(answer, "Owner/ID")) == ("AUTH_test", "AUTH_test")
        for limit in (1, 3, 8):
            found, marker = [], "0"
            for _ in range(9):
                answer = await s3.ask("GET", f"{path}&max-parts={limit}&part-number-marker={marker}")
                page = texts_of(answer, "Part/PartNumber")
                assert len(page) <= limit
                assert text_of(answer, "PartNumberMarker") == marker
                found += page
                marker = text_of(answer, "NextPartNumberMarker")
                if text_of(answer, "IsTruncated") == "false":
                    break
            assert found == [str(number) for number in numbers]
        assert texts_of(await s3.ask("GET", f"{path}&max-parts=0"), "Part") == []
        assert texts_of(await s3.ask("GET", f"{path}&part-number-marker=10000"), "Part") == []
        assert code_of(await s3.ask("GET", f"{path}&max-parts=x")) == "InvalidArgument"
        assert code_of(await s3.ask("GET", f"/bucket/other?uploadId={upload}")) == "NoSuchUpload"
        assert (await s3.ask("GET", path, who="other")).status == 403


KEYS = ["a", "a", "a", "a!", "a/", "a/b", "a/b/c", "b", "b c", "é", "z\n"]


@pytest.mark.parametrize(("limit", "page_items"), [(1, 10_000), (2, 2), (5, 3), (1_000, 10_000)])
@pytest.mark.parametrize(
    ("query", "keys", "prefixes"),
    [
        ("", KEYS, []),
        ("&prefix=a", KEYS[:7], []),
        ("&delimiter=%2F", [key for key in KEYS if "/" not in key], ["a/"]),
        ("&delimiter=%2F&prefix=a%2F", ["a/", "a/b"], ["a/b/"]),
        ("&delimiter=%2F&prefix=a%2Fb", ["a/b"], ["a/b/"]),
        ("&prefix=none", [], []),
    ],
)
async def test_uploads_are_listed_page_by_page(
    query: str, keys: list[str], prefixes: list[str], limit: int, page_items: int
) -> None:
    async with serve_s3(page_items=page_items) as s3:
        await s3.ask("PUT", "/bucket")
        ids = [await begin(s3, f"/bucket/{quote(key)}") for key in KEYS]
        over = await begin(s3, "/bucket/a")
        await s3.ask("DELETE", f"/bucket/a?uploadId={over}")
        done = await begin(s3, "/bucket/b")
        await complete(s3, done, [await send(s3, done, 1, A, "/bucket/b")], "/bucket/b")
        found, rolled, seen = list[str](), list[str](), list[str]()
        markers = ""
        for _ in range(20):
            answer = await s3.ask(
                "GET", f"/bucket?uploads&encoding-type=url&max-uploads={limit}{query}{markers}"
            )
            assert answer.status == 200, answer.body
            page = [unquote(text) for text in texts_of(answer, "Upload/Key")]
            more = [unquote(text) for text in texts_of(answer, "CommonPrefixes/Prefix")]
            assert len(page) + len(more) <= limit
            found, rolled, seen = found + page, rolled + more, seen + texts_of(answer, "Upload/UploadId")
            if text_of(answer, "IsTruncated") == "false":
                break
            marker, upload = text_of(answer, "NextKeyMarker"), text_of(answer, "NextUploadIdMarker")
            markers = f"&key-marker={quote(unquote(marker), safe='')}&upload-id-marker={upload}"
        assert found == sorted(keys, key=str.encode)
        assert rolled == prefixes
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(ids)


async def test_what_a_list_of_uploads_may_be_asked() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        assert texts_of(await s3.ask("GET", "/bucket?uploads"), "Upload") == []
        await begin(s3, x_amz_checksum_algorithm="SHA256")
        answer = await s3.ask("GET", "/bucket?uploads")
        assert (text_of(answer, "Upload/ChecksumAlgorithm"), text_of(answer, "MaxUploads")) == (
            "SHA256",
            "1000",
        )
        assert text_of(answer, "Upload/Initiated").endswith("Z")
        assert texts_of(await s3.ask("GET", "/bucket?uploads&max-uploads=0"), "Upload") == []
        assert code_of(await s3.ask("GET", "/bucket?uploads&max-uploads=x")) == "InvalidArgument"
        assert code_of(await s3.ask("GET", "/bucket?uploads&encoding-type=x")) == "InvalidArgument"
        assert code_of(await s3.ask("GET", "/none?uploads")) == "NoSuchBucket"
        assert (await s3.ask("GET", "/bucket?uploads", who="other")).status == 403
        assert text_of(await s3.ask("GET", "/bucket?uploads&upload-id-marker=x"), "UploadIdMarker") == ""


# --- parts of what is there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_one_part_is_read_by_its_number(method: str) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        await make_object(s3, A, B, C, x_amz_checksum_algorithm="CRC32")
        at = 0
        for number, body in enumerate((A, B, C), 1):
            answer = await s3.ask(
                method, f"/bucket/key?partNumber={number}", headers={"x-amz-checksum-mode": "ENABLED"}
            )
            assert (answer.status, answer.body) == (206, body if method == "GET" else b"")
            assert answer.headers["content-length"] == str(len(body))
            assert answer.headers["content-range"] == f"bytes {at}-{at + len(body) - 1}/5010"
            assert answer.headers["x-amz-mp-parts-count"] == "3"
            assert answer.headers["x-amz-checksum-crc32"] == crc32_of(body)
            at += len(body)
        answer = await s3.ask(method, "/bucket/key?partNumber=4")
        assert answer.status == 416
        assert method == "HEAD" or code_of(answer) == "InvalidPartNumber"
        await make_object(s3, A, b"", path="/bucket/empty")
        answer = await s3.ask(method, "/bucket/empty?partNumber=2")
        assert (answer.status, answer.headers["content-length"], answer.body) == (206, "0", b"")
        assert "content-range" not in answer.headers
        await s3.ask("PUT", "/bucket/whole", A)
        answer = await s3.ask(method, "/bucket/whole?partNumber=1")
        assert (answer.status, "x-amz-mp-parts-count" in answer.headers) == (206, False)


async def test_the_attributes_of_an_object_tell_its_parts() -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/bucket")
        await make_object(s3, A, B, C, x_amz_checksum_algorithm="CRC32")
        wanted = {"x-amz-object-attributes": "ETag,Checksum,ObjectParts,ObjectSize"}
        answer = await s3.ask("GET", "/bucket/key?attributes", headers=wanted)
        assert text_of(answer, "ETag") == etag_of(A, B, C).strip('"')
        assert text_of(answer, "ObjectSize") == "5010"
        assert text_of(answer, "Checksum/ChecksumType") == "COMPOSITE"
        assert text_of(answer, "ObjectParts/PartsCount") == "3"
        assert texts_of(answer, "ObjectParts/Part/Size") == ["3000", "2000", "10"]
        assert texts_of(answer, "ObjectParts/Part/ChecksumCRC32") == [crc32_of(body) for body in (A, B, C)]
        assert text_of(answer, "ObjectParts/IsTruncated") == "false"
        paged = wanted | {"x-amz-max-parts": "1", "x-amz-part-number-marker": "1"}
        answer = await s3.ask("GET", "/bucket/key?attributes", headers=paged)
        assert texts_of(answer, "ObjectParts/Part/PartNumber") == ["2"]
        assert text_of(answer, "ObjectParts/NextPartNumberMarker") == "2"
        assert text_of(answer, "ObjectParts/IsTruncated") == "true"
        answer = await s3.ask("GET", "/bucket/key?attributes", headers=wanted | {"x-amz-max-parts": "x"})
        assert code_of(answer) == "InvalidArgument"
        await s3.ask("PUT", "/bucket/whole", A)
        answer = await s3.ask("GET", "/bucket/whole?attributes", headers=wanted)
        assert texts_of(answer, "ObjectParts") == []
