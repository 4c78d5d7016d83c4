"""AWS's own Python client, without a flag, against a whole cluster of real processes."""

import hashlib
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.cluster.serve.clusters import Serve, wait_for
from tests.cluster.serve.swift_client import Swift

BOX = "first-box"
BODY = bytes(range(256)) * 12_345
"""3 MB: above what a frame of the internal RPC holds, below what boto3 sends in parts."""


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(tmp_path_factory.mktemp("boto3") / "data") as running:
        yield running


def connect(serve: Serve, kind: Any = boto3.client, **options: Any) -> Any:
    told = serve.ready["s3"]
    return kind(
        "s3",
        endpoint_url=serve.ready["endpoint"],
        aws_access_key_id=told["access_key"],
        aws_secret_access_key=told["secret_key"],
        region_name=told["region"],
        config=Config(retries={"max_attempts": 1, "mode": "standard"}, **options),
    )


@pytest.fixture
def client(serve: Serve) -> Iterator[Any]:
    """A client, and a bucket that is emptied and deleted afterwards."""
    with closing(connect(serve)) as client:
        client.create_bucket(Bucket=BOX)
        yield client
        listed = client.list_objects_v2(Bucket=BOX).get("Contents", [])
        if listed:
            client.delete_objects(Bucket=BOX, Delete={"Objects": [{"Key": one["Key"]} for one in listed]})
        client.delete_bucket(Bucket=BOX)


def code_of(raised: pytest.ExceptionInfo[ClientError]) -> str:
    return str(raised.value.response["Error"]["Code"])


def fetch(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Ask for a URL as a browser would."""
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


# --- buckets ------------------------------------------------------------------------------------------------------


def test_a_bucket_is_made_found_listed_and_deleted(serve: Serve) -> None:
    with closing(connect(serve)) as client:
        client.create_bucket(Bucket="second-box")
        client.create_bucket(Bucket="second-box")
        assert client.head_bucket(Bucket="second-box")["BucketRegion"] == "us-east-1"
        assert client.get_bucket_location(Bucket="second-box")["LocationConstraint"] is None
        assert [one["Name"] for one in client.list_buckets()["Buckets"]] == ["second-box"]
        assert client.list_buckets(Prefix="x")["Buckets"] == []
        owner = client.get_bucket_acl(Bucket="second-box")
        assert [grant["Permission"] for grant in owner["Grants"]] == ["FULL_CONTROL"]
        client.get_waiter("bucket_exists").wait(Bucket="second-box", WaiterConfig={"MaxAttempts": 1})
        client.delete_bucket(Bucket="second-box")
        for call in (client.delete_bucket, client.list_objects_v2, client.get_bucket_location):
            with pytest.raises(client.exceptions.NoSuchBucket):
                call(Bucket="second-box")
        with pytest.raises(ClientError) as raised:
            client.head_bucket(Bucket="second-box")
        assert code_of(raised) == "404"


def test_what_sdks_probe_for_is_answered_as_by_an_unconfigured_bucket(client: Any) -> None:
    assert "Status" not in client.get_bucket_versioning(Bucket=BOX)
    assert "LoggingEnabled" not in client.get_bucket_logging(Bucket=BOX)
    assert client.get_bucket_request_payment(Bucket=BOX)["Payer"] == "BucketOwner"
    for call, code in (
        (client.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
        (client.get_bucket_policy, "NoSuchBucketPolicy"),
        (client.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (client.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"),
        (client.get_bucket_cors, "NoSuchCORSConfiguration"),
        (client.get_bucket_tagging, "NoSuchTagSet"),
        (client.get_public_access_block, "NoSuchPublicAccessBlockConfiguration"),
        (client.get_bucket_ownership_controls, "OwnershipControlsNotFoundError"),
        (client.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (client.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
    ):
        with pytest.raises(ClientError) as raised:
            call(Bucket=BOX)
        assert code_of(raised) == code


# --- objects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["plain", "a/b c+d&e=f?#g%20", "é/ü/日本/🪣", "//", "a/./../b", "~!*'()"])
def test_an_object_goes_in_and_comes_out_under_any_key(client: Any, key: str) -> None:
    put = client.put_object(Bucket=BOX, Key=key, Body=b"hello", Metadata={"color": "blue"}, ContentType="a/b")
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    with closing((got := client.get_object(Bucket=BOX, Key=key))["Body"]) as body:
        assert body.read() == b"hello"
    head = client.head_object(Bucket=BOX, Key=key)
    for answer in (got, head):
        assert (answer["Metadata"], answer["ContentType"]) == ({"color": "blue"}, "a/b")
        assert (answer["ContentLength"], answer["ETag"]) == (5, put["ETag"])
        assert "VersionId" not in answer
    listed = client.list_objects_v2(Bucket=BOX, Prefix=key)["Contents"]
    assert [(one["Key"], one["Size"], one["LastModified"]) for one in listed] == [
        (key, 5, head["LastModified"])
    ]
    client.delete_object(Bucket=BOX, Key=key)
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=BOX, Key=key)


def test_a_body_of_some_megabytes_is_whole_and_its_ranges_are_parts_of_it(client: Any) -> None:
    client.put_object(Bucket=BOX, Key="big", Body=BODY)
    assert client.get_object(Bucket=BOX, Key="big")["Body"].read() == BODY
    part = client.get_object(Bucket=BOX, Key="big", Range="bytes=1000000-2999999")
    assert part["ContentRange"] == f"bytes 1000000-2999999/{len(BODY)}"
    assert part["Body"].read() == BODY[1_000_000:3_000_000]
    client.copy_object(Bucket=BOX, Key="copy", CopySource={"Bucket": BOX, "Key": "big"})
    assert client.get_object(Bucket=BOX, Key="copy")["Body"].read() == BODY


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_a_checksum_is_verified_on_its_way_in_and_out(client: Any, algorithm: str) -> None:
    put = client.put_object(Bucket=BOX, Key="o", Body=BODY, ChecksumAlgorithm=algorithm)
    got = client.get_object(Bucket=BOX, Key="o", ChecksumMode="ENABLED")
    assert got["Body"].read() == BODY
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    with pytest.raises(ClientError) as raised:
        client.put_object(
            Bucket=BOX, Key="o", Body=b"x", **{f"Checksum{algorithm}": put[f"Checksum{algorithm}"]}
        )
    assert code_of(raised) == "BadDigest"
    assert client.head_object(Bucket=BOX, Key="o")["ContentLength"] == len(BODY)


def test_conditions_hold_for_reads_writes_and_copies(client: Any) -> None:
    client.put_object(Bucket=BOX, Key="o", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as raised:
        client.put_object(Bucket=BOX, Key="o", Body=b"2", IfNoneMatch="*")
    assert code_of(raised) == "PreconditionFailed"
    etag = client.head_object(Bucket=BOX, Key="o")["ETag"]
    client.put_object(Bucket=BOX, Key="o", Body=b"2", IfMatch=etag)
    with pytest.raises(ClientError) as raised:
        client.delete_object(Bucket=BOX, Key="o", IfMatch=etag)
    assert code_of(raised) == "PreconditionFailed"
    with pytest.raises(ClientError) as raised:
        client.get_object(Bucket=BOX, Key="o", IfNoneMatch=hashlib.md5(b"2").hexdigest())
    assert code_of(raised) == "304"
    with pytest.raises(ClientError) as raised:
        client.copy_object(Bucket=BOX, Key="c", CopySource=f"{BOX}/o", CopySourceIfMatch=etag)
    assert code_of(raised) == "PreconditionFailed"


def test_of_many_who_make_the_same_key_at_once_one_has_made_it(serve: Serve, client: Any) -> None:
    told: list[str] = []
    codes: list[str] = []

    def make(number: int) -> None:
        with closing(connect(serve)) as other:
            try:
                other.put_object(Bucket=BOX, Key="lock", Body=str(number).encode(), IfNoneMatch="*")
                told.append(str(number))
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(told) == 1
    assert codes == ["PreconditionFailed"] * 7
    assert client.get_object(Bucket=BOX, Key="lock")["Body"].read().decode() == told[0]


def test_metadata_is_replaced_by_a_copy_onto_itself(client: Any) -> None:
    client.put_object(Bucket=BOX, Key="o", Body=b"x", Metadata={"a": "1"})
    itself = {"Bucket": BOX, "Key": "o", "CopySource": {"Bucket": BOX, "Key": "o"}}
    with pytest.raises(ClientError) as raised:
        client.copy_object(**itself)
    assert code_of(raised) == "InvalidRequest"
    client.copy_object(**itself, MetadataDirective="REPLACE", Metadata={"b": "2"})
    got = client.get_object(Bucket=BOX, Key="o")
    assert (got["Metadata"], got["Body"].read()) == ({"b": "2"}, b"x")


def test_a_thousand_keys_are_listed_page_by_page_and_deleted_at_once(client: Any) -> None:
    keys = [f"{number % 10}/{number:04}" for number in range(60)]
    for key in keys:
        client.put_object(Bucket=BOX, Key=key, Body=b"")
    for operation in ("list_objects", "list_objects_v2"):
        pages = client.get_paginator(operation).paginate(Bucket=BOX, PaginationConfig={"PageSize": 7})
        assert [one["Key"] for page in pages for one in page.get("Contents", [])] == sorted(keys)
        pages = client.get_paginator(operation).paginate(
            Bucket=BOX, Delimiter="/", PaginationConfig={"PageSize": 3}
        )
        prefixes = [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])]
        assert prefixes == [f"{number}/" for number in range(10)]
    pages = client.get_paginator("list_object_versions").paginate(Bucket=BOX)
    assert {one["VersionId"] for page in pages for one in page["Versions"]} == {"null"}
    unknown = [f"none/{number}" for number in range(1000 - len(keys))]
    done = client.delete_objects(Bucket=BOX, Delete={"Objects": [{"Key": key} for key in keys + unknown]})
    assert len(done["Deleted"]) == 1000
    assert client.list_objects_v2(Bucket=BOX)["KeyCount"] == 0


def test_the_resource_api_works(serve: Serve, client: Any) -> None:
    resource = connect(serve, boto3.resource)
    with closing(resource.meta.client):
        bucket = resource.Bucket(BOX)
        bucket.put_object(Key="a", Body=b"1")
        bucket.Object("b").put(Body=b"2")
        resource.Object(BOX, "c").copy_from(CopySource={"Bucket": BOX, "Key": "a"})
        assert [one.key for one in bucket.objects.all()] == ["a", "b", "c"]
        assert resource.Object(BOX, "c").get()["Body"].read() == b"1"
        bucket.objects.all().delete()
        assert list(bucket.objects.all()) == []


def test_small_files_go_up_and_down(client: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("files")
    (directory / "up").write_bytes(BODY)
    client.upload_file(str(directory / "up"), BOX, "file", ExtraArgs={"Metadata": {"a": "1"}})
    client.download_file(BOX, "file", str(directory / "down"))
    assert (directory / "down").read_bytes() == BODY


# --- without a client ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_what_is_presigned_needs_no_client(serve: Serve, client: Any, version: str) -> None:
    with closing(connect(serve, signature_version=version)) as signer:
        named = {"Bucket": BOX, "Key": "a b/é"}
        url = signer.generate_presigned_url("put_object", Params=named)
        assert fetch(url, "PUT", b"hello", **{"Content-Type": ""})[0] == 200
        url = signer.generate_presigned_url("get_object", Params=named | {"ResponseContentType": "x/y"})
        assert fetch(url) == (200, b"hello")
        status, told = fetch(url.replace("Signature=", "Signature=a"))
        assert status in (400, 403), told
        assert fetch(signer.generate_presigned_url("delete_object", Params=named), "DELETE")[0] == 204


def test_nobody_in_particular_reads_what_is_public(serve: Serve, client: Any) -> None:
    client.put_object(Bucket=BOX, Key="private", Body=b"x")
    client.put_object(Bucket=BOX, Key="public", Body=b"y", ACL="public-read")
    with closing(boto3.client("s3", endpoint_url=serve.ready["endpoint"], region_name="us-east-1", config=Config(signature_version=UNSIGNED))) as anybody:  # fmt: skip
        assert anybody.get_object(Bucket=BOX, Key="public")["Body"].read() == b"y"
        with pytest.raises(ClientError) as raised:
            anybody.get_object(Bucket=BOX, Key="private")
        assert code_of(raised) == "AccessDenied"
        with pytest.raises(ClientError):
            anybody.list_objects_v2(Bucket=BOX)
        client.put_bucket_acl(Bucket=BOX, ACL="public-read-write")

        def is_open() -> bool:
            try:
                anybody.put_object(Bucket=BOX, Key="new", Body=b"z")
            except ClientError as error:
                return bool(error.response["Error"]["Code"] != "AccessDenied")
            return True

        wait_for(is_open, "every worker knows the new ACL", 10)
        assert [one["Key"] for one in anybody.list_objects_v2(Bucket=BOX)["Contents"]] == [
            "new",
            "private",
            "public",
        ]


def test_a_wrong_secret_and_an_unknown_key_are_told_apart(serve: Serve, client: Any) -> None:
    told = serve.ready["s3"]
    for access_key, code in ((told["access_key"], "SignatureDoesNotMatch"), ("nobody", "InvalidAccessKeyId")):
        wrong = boto3.client("s3", endpoint_url=serve.ready["endpoint"], aws_access_key_id=access_key, aws_secret_access_key="wrong", region_name="us-east-1")  # fmt: skip
        with closing(wrong), pytest.raises(ClientError) as raised:
            wrong.list_buckets()
        assert code_of(raised) == code


# --- with Swift ---------------------------------------------------------------------------------------------------


def test_one_store_has_two_dialects(serve: Serve, client: Any) -> None:
    with Swift.of(serve.ready) as swift:
        client.put_object(Bucket=BOX, Key="from/s3", Body=b"hello", Metadata={"color": "blue"})
        answer = swift.request("GET", BOX, "from/s3")
        assert (answer.status, answer.body, answer.headers["x-object-meta-color"]) == (200, b"hello", "blue")
        assert swift.request("PUT", BOX, "from/swift", body=b"hi", X_Object_Meta_Shape="round").status == 201
        got = client.get_object(Bucket=BOX, Key="from/swift")
        assert (got["Body"].read(), got["Metadata"]) == (b"hi", {"shape": "round"})
        assert [one["Key"] for one in client.list_objects_v2(Bucket=BOX)["Contents"]] == swift.names(BOX)
        assert swift.request("PUT", "made-by-swift").status == 201
        assert "made-by-swift" in [one["Name"] for one in client.list_buckets()["Buckets"]]
        client.put_object(Bucket="made-by-swift", Key="o", Body=b"x")
        assert swift.request("DELETE", "made-by-swift", "o").status == 204
        client.delete_bucket(Bucket="made-by-swift")
        listed = json.loads(swift.request("GET", query="format=json").body)
        assert [one["name"] for one in listed] == [BOX]


# --- uploads in parts -----------------------------------------------------------------------------------------------


LARGE = bytes(range(251)) * (40 * 1024**2 // 251)
"""40 MB, no multiple of a part."""


@pytest.mark.parametrize("threads", [1, 4])
def test_a_large_file_goes_up_in_parts_and_comes_back(client: Any, threads: int) -> None:
    config = TransferConfig(multipart_chunksize=5 * 1024**2, max_concurrency=threads)
    extra = {"Metadata": {"who": "me"}, "ContentType": "text/x"}
    client.upload_fileobj(io.BytesIO(LARGE), BOX, "large", Config=config, ExtraArgs=extra)
    head = client.head_object(Bucket=BOX, Key="large", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-8"')
    assert (head["ContentLength"], head["Metadata"], head["ContentType"]) == (
        len(LARGE),
        {"who": "me"},
        "text/x",
    )
    assert any(name.startswith("Checksum") for name in head)
    back = io.BytesIO()
    client.download_fileobj(BOX, "large", back, Config=config)
    assert back.getvalue() == LARGE
    ranged = client.get_object(Bucket=BOX, Key="large", Range=f"bytes={5 * 1024**2 - 3}-{10 * 1024**2 + 3}")
    assert ranged["Body"].read() == LARGE[5 * 1024**2 - 3 : 10 * 1024**2 + 4]


@pytest.mark.parametrize(
    ("algorithm", "coverage"),
    [
        ("CRC32", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT"),
        ("CRC32C", "FULL_OBJECT"),
        ("CRC64NVME", "FULL_OBJECT"),
        ("SHA1", "COMPOSITE"),
        ("SHA256", "COMPOSITE"),
    ],
)
def test_parts_are_summed_up_by_every_algorithm(client: Any, algorithm: str, coverage: str) -> None:
    body = LARGE[: 6 * 1024**2]
    begun = client.create_multipart_upload(
        Bucket=BOX, Key="summed", ChecksumAlgorithm=algorithm, ChecksumType=coverage
    )
    upload, field = begun["UploadId"], f"Checksum{algorithm}"
    parts = []
    for number, piece in enumerate((body[: 5 * 1024**2], body[5 * 1024**2 :]), 1):
        sent = client.upload_part(
            Bucket=BOX,
            Key="summed",
            UploadId=upload,
            PartNumber=number,
            Body=piece,
            ChecksumAlgorithm=algorithm,
        )
        parts.append({"PartNumber": number, "ETag": sent["ETag"], field: sent[field]})
    done = client.complete_multipart_upload(
        Bucket=BOX,
        Key="summed",
        UploadId=upload,
        MultipartUpload={"Parts": parts},
        ChecksumType=coverage,
        MpuObjectSize=len(body),
    )
    assert done["ChecksumType"] == coverage
    got = client.get_object(Bucket=BOX, Key="summed", ChecksumMode="ENABLED")
    assert (got[field], got["ChecksumType"]) == (done[field], coverage)
    assert got["Body"].read() == body, (
        "which the client has verified where the checksum is of the full object"
    )


def test_an_upload_that_is_given_up_leaves_nothing(client: Any) -> None:
    upload = client.create_multipart_upload(Bucket=BOX, Key="never")["UploadId"]
    where = {"Bucket": BOX, "Key": "never", "UploadId": upload}
    part = client.upload_part(**where, PartNumber=1, Body=b"x")
    client.abort_multipart_upload(**where)
    with pytest.raises(ClientError) as raised:
        client.upload_part(**where, PartNumber=2, Body=b"x")
    assert code_of(raised) == "NoSuchUpload"
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    with pytest.raises(ClientError) as raised:
        client.complete_multipart_upload(**where, MultipartUpload=parts)
    assert code_of(raised) == "NoSuchUpload"
    assert "Contents" not in client.list_objects_v2(Bucket=BOX)


def test_parts_are_copied_and_listed_and_told_of(serve: Serve, client: Any) -> None:
    body = LARGE[: 12 * 1024**2]
    client.put_object(Bucket=BOX, Key="source", Body=body)
    where = {"Bucket": BOX, "Key": "copied", "UploadId": ""}
    where["UploadId"] = client.create_multipart_upload(Bucket=BOX, Key="copied")["UploadId"]
    parts = []
    for number, start in ((1, 0), (2, 6 * 1024**2)):
        wanted = f"bytes={start}-{start + 6 * 1024**2 - 1}"
        copied = client.upload_part_copy(
            **where, PartNumber=number, CopySource={"Bucket": BOX, "Key": "source"}, CopySourceRange=wanted
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    pages = client.get_paginator("list_parts").paginate(**where, PaginationConfig={"PageSize": 1})
    listed = [one for page in pages for one in page["Parts"]]
    assert [(one["PartNumber"], one["ETag"]) for one in listed] == [
        (one["PartNumber"], one["ETag"]) for one in parts
    ]
    others = [client.create_multipart_upload(Bucket=BOX, Key=f"x/{at}")["UploadId"] for at in range(3)]
    paginator = client.get_paginator("list_multipart_uploads")
    pages = paginator.paginate(Bucket=BOX, PaginationConfig={"PageSize": 1})
    found = [one["UploadId"] for page in pages for one in page.get("Uploads", [])]
    assert found == [where["UploadId"], *others]
    rolled = client.list_multipart_uploads(Bucket=BOX, Delimiter="/")["CommonPrefixes"]
    assert rolled == [{"Prefix": "x/"}]

    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    for at, upload in enumerate(others):
        client.abort_multipart_upload(Bucket=BOX, Key=f"x/{at}", UploadId=upload)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BOX)
    assert client.get_object(Bucket=BOX, Key="copied")["Body"].read() == body
    second = client.get_object(Bucket=BOX, Key="copied", PartNumber=2)
    assert (second["PartsCount"], second["Body"].read()) == (2, body[6 * 1024**2 :])
    told = client.get_object_attributes(
        Bucket=BOX, Key="copied", ObjectAttributes=["ObjectParts", "ObjectSize", "ETag"], MaxParts=1
    )
    assert (told["ObjectSize"], told["ObjectParts"]["TotalPartsCount"]) == (len(body), 2)
    assert [one["Size"] for one in told["ObjectParts"]["Parts"]] == [6 * 1024**2]

    # The transfer manager copies what is large in parts, and what is small whole.
    config = TransferConfig(multipart_threshold=5 * 1024**2, multipart_chunksize=5 * 1024**2)
    client.copy({"Bucket": BOX, "Key": "copied"}, BOX, "again", Config=config)
    assert client.head_object(Bucket=BOX, Key="again")["ETag"].endswith('-3"')
    client.copy_object(CopySource={"Bucket": BOX, "Key": "copied"}, Bucket=BOX, Key="whole")
    whole = client.get_object(Bucket=BOX, Key="whole")
    assert whole["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    assert whole["Body"].read() == body

    with Swift.of(serve.ready) as swift:
        wanted = f"bytes={5 * 1024**2 - 2}-{5 * 1024**2 + 1}"
        answer = swift.request("GET", BOX, "again", Range=wanted)
        assert (answer.status, answer.body) == (206, body[5 * 1024**2 - 2 : 5 * 1024**2 + 2])
