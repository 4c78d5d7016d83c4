"""The model of the S3 API that AWS's clients are made from, operation by operation: what is not there is refused, never misread."""

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest

from tests.unit.proxy.s3_api.serving import code_of, serve_s3, text_of, tree_of

MODEL: Any = botocore.session.get_session().get_service_model("s3")
THERE = frozenset(
    [
        "ListBuckets",
        "CreateBucket",
        "HeadBucket",
        "DeleteBucket",
        "GetBucketLocation",
        "GetBucketAcl",
        "PutBucketAcl",
        "GetObjectAcl",
        "PutObjectAcl",
        "ListObjects",
        "ListObjectsV2",
        "ListObjectVersions",
        "PutObject",
        "GetObject",
        "HeadObject",
        "DeleteObject",
        "DeleteObjects",
        "CopyObject",
        "GetObjectAttributes",
        "GetObjectTagging",
        "PutObjectTagging",
        "DeleteObjectTagging",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "ListParts",
        "ListMultipartUploads",
    ]
)
"""What the README says is there."""
OBEYED = frozenset(
    [
        "x-amz-acl",
        "x-amz-grant-full-control",
        "x-amz-grant-read",
        "x-amz-grant-read-acp",
        "x-amz-grant-write",
        "x-amz-grant-write-acp",
        "x-amz-checksum-algorithm",
        "x-amz-checksum-mode",
        "x-amz-checksum-type",
        "x-amz-checksum-crc32",
        "x-amz-checksum-crc32c",
        "x-amz-checksum-crc64nvme",
        "x-amz-checksum-sha1",
        "x-amz-checksum-sha256",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-copy-source",
        "x-amz-copy-source-range",
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-modified-since",
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-unmodified-since",
        "x-amz-metadata-directive",
        "x-amz-tagging",
        "x-amz-tagging-directive",
        "x-amz-expected-bucket-owner",
        "x-amz-source-expected-bucket-owner",
        "x-amz-mp-object-size",
        "x-amz-max-parts",
        "x-amz-part-number-marker",
        "x-amz-object-attributes",
    ]
)
WITHOUT_EFFECT = frozenset(
    ["x-amz-request-payer", "x-amz-bypass-governance-retention", "x-amz-optional-object-attributes"]
)
"""Nobody pays, nothing is locked, and nothing is restored here, so they change nothing about any answer."""


def headers_of_what_is_there() -> Iterator[str]:
    """Every x-amz-* header that a client can be told to send."""
    found = set()
    for name in THERE:
        shape = MODEL.operation_model(name).input_shape
        for member in () if shape is None else shape.members.values():
            if member.serialization.get("location") == "header":
                found.add(member.serialization["name"].lower())
    yield from sorted(name for name in found if name.startswith("x-amz-") and not name.endswith("-meta-"))


def test_the_model_has_what_the_readme_says_is_there() -> None:
    assert set(MODEL.operation_names) >= THERE
    assert set(headers_of_what_is_there()) >= OBEYED | WITHOUT_EFFECT


@pytest.mark.parametrize("header", sorted(set(headers_of_what_is_there()) - OBEYED - WITHOUT_EFFECT))
async def test_a_header_that_asks_for_what_is_not_there_is_refused(header: str) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/box")
        answer = await s3.ask("PUT", "/box/o", b"x", headers={header: "AAAA"})
        assert code_of(answer) in ("NotImplemented", "InvalidStorageClass", "InvalidRequest"), answer.body
        assert (await s3.ask("GET", "/box/o")).status == 404


@pytest.mark.parametrize("name", sorted(set(MODEL.operation_names) - THERE - {"ListDirectoryBuckets"}))
async def test_an_operation_that_is_not_there_changes_nothing_and_is_never_misread(name: str) -> None:
    """ListDirectoryBuckets goes to an endpoint of its own, and differs by nothing else from ListBuckets."""
    http = MODEL.operation_model(name).http
    async with serve_s3() as s3:
        await s3.ask("PUT", "/box")
        await s3.ask("PUT", "/box/o", b"body")
        before = dict(s3.store.object_infos), dict(s3.store.container_infos)
        for bucket in ("box", "new-box"):
            target = http["requestUri"].replace("{Bucket}", bucket).replace("{Key+}", "o")
            answer = await s3.ask(
                http["method"], target, b"<x/>" if http["method"] in ("PUT", "POST") else b""
            )
            assert answer.status < 500 or code_of(answer) == "NotImplemented", answer.body
            if http["method"] in ("PUT", "POST"):
                assert answer.status >= 400
            if answer.body:
                assert tree_of(answer).tag not in ("ListBucketResult", "ListAllMyBucketsResult")
                assert answer.body != b"body"
        assert before == (s3.store.object_infos, s3.store.container_infos)


@pytest.mark.parametrize("algorithm", ["SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128"])
async def test_a_checksum_that_cannot_be_verified_completes_no_upload(algorithm: str) -> None:
    async with serve_s3() as s3:
        await s3.ask("PUT", "/box")
        asked = await s3.ask("POST", "/box/o?uploads", headers={"x-amz-checksum-algorithm": algorithm})
        assert code_of(asked) == "InvalidArgument"
        upload = text_of(await s3.ask("POST", "/box/o?uploads"), "UploadId")
        etag = (await s3.ask("PUT", f"/box/o?partNumber=1&uploadId={upload}", b"x")).headers["etag"]
        facts = f"<PartNumber>1</PartNumber><ETag>{etag}</ETag>"
        head = {f"x-amz-checksum-{algorithm.lower()}": "AAAA"}
        for extra, headers in (("", head), (f"<Checksum{algorithm}>AAAA</Checksum{algorithm}>", {})):
            document = f"<CompleteMultipartUpload><Part>{facts}{extra}</Part></CompleteMultipartUpload>"
            answer = await s3.ask("POST", f"/box/o?uploadId={upload}", document.encode(), headers=headers)
            assert code_of(answer) == "InvalidRequest"
        assert (await s3.ask("GET", "/box/o")).status == 404
