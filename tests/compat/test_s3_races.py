"""Conditional writes and deletions of one key, and ends of one upload, many at once through both workers of a cluster of real
processes: one has its way.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.cluster.serve.clusters import Serve

BOX = "race-box"
AT_ONCE = 8


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(tmp_path_factory.mktemp("races") / "data") as running:
        yield running


def connect(serve: Serve) -> Any:
    told = serve.ready["s3"]
    return boto3.client(
        "s3",
        endpoint_url=serve.ready["endpoint"],
        aws_access_key_id=told["access_key"],
        aws_secret_access_key=told["secret_key"],
        region_name=told["region"],
        config=Config(retries={"max_attempts": 1, "mode": "standard"}),
    )


def codes_of(serve: Serve, act: Callable[[Any, int], Any]) -> Counter[str]:
    """Act through many clients, each with a connection of its own; return what became of it."""
    codes: list[str] = []
    together = threading.Barrier(AT_ONCE, timeout=30)

    def run(number: int) -> None:
        with closing(connect(serve)) as client:
            together.wait()
            try:
                act(client, number)
                codes.append("done")
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return Counter(codes)


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_conditional_writes_and_deletions_at_once_one_has_its_way(serve: Serve, attempt: int) -> None:
    key = f"key-{attempt}"
    one_of_all = Counter({"done": 1, "PreconditionFailed": AT_ONCE - 1})
    with closing(connect(serve)) as client:
        client.create_bucket(Bucket=BOX)
        named = {"Bucket": BOX, "Key": key}

        def make(other: Any, number: int) -> None:
            other.put_object(**named, Body=str(number).encode(), IfNoneMatch="*")

        assert codes_of(serve, make) == one_of_all
        etag = client.head_object(**named)["ETag"]

        def replace(other: Any, number: int) -> None:
            other.put_object(**named, Body=f"again {number}".encode(), IfMatch=etag)

        assert codes_of(serve, replace) == one_of_all
        etag = client.head_object(**named)["ETag"]

        def delete(other: Any, number: int) -> None:
            other.delete_object(**named, IfMatch=etag)

        assert codes_of(serve, delete) == one_of_all
        with pytest.raises(client.exceptions.NoSuchKey):
            client.get_object(**named)


@pytest.mark.parametrize("attempt", range(8))
def test_of_many_who_end_one_upload_at_once_one_has_its_way(serve: Serve, attempt: int) -> None:
    """A third gives it up, a third completes it with one of its parts, a third with the other."""
    named = {"Bucket": BOX, "Key": f"upload-{attempt}"}
    with closing(connect(serve)) as client:
        client.create_bucket(Bucket=BOX)
        upload = {**named, "UploadId": client.create_multipart_upload(**named)["UploadId"]}
        parts = [
            {
                "PartNumber": number,
                "ETag": client.upload_part(**upload, PartNumber=number, Body=b"%d" % number)["ETag"],
            }
            for number in (1, 7)
        ]
        told: list[str] = []

        def end(other: Any, number: int) -> None:
            if number % 3 == 0:
                other.abort_multipart_upload(**upload)
                told.append("")
                return
            chosen = parts[:1] if number % 3 == 1 else parts[1:]
            done = other.complete_multipart_upload(**upload, MultipartUpload={"Parts": chosen})
            told.append(done["ETag"])

        codes = codes_of(serve, end)
        assert set(codes) <= {"done", "NoSuchUpload", "OperationAborted"}, codes
        assert codes["done"] == len(told) >= 1
        (winner,) = set(told)
        if winner:
            assert client.head_object(**named)["ETag"] == winner
        else:
            with pytest.raises(client.exceptions.NoSuchKey):
                client.get_object(**named)
        assert "Uploads" not in client.list_multipart_uploads(Bucket=BOX, Prefix=named["Key"])
        with pytest.raises(client.exceptions.NoSuchUpload):
            client.list_parts(**upload)
