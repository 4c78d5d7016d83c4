"""Objects of many parts over real processes: as many as the machine is given room for.

`S3_PARTS` of 5 MiB each make an object, three times as many bytes on the disk; `S3_SMALL_PARTS` are sent, listed and given up,
since no more than one of them may be in an object. Ten thousand of the former take 160 GB: that an object of so many is one,
reads as one and gives its parts back is shown in simulation (`tests/simulation/test_multipart.py`).
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.cluster.serve.clusters import Serve

BOX = "many-parts"
PARTS = int(os.environ.get("S3_PARTS", "16"))
SMALL_PARTS = int(os.environ.get("S3_SMALL_PARTS", "200"))
PART_BYTES = 5 * 1024**2
PIECE = os.urandom(PART_BYTES - 8)
AT_ONCE = 4


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Serve(tmp_path_factory.mktemp("parts") / "data") as serve:
        told = serve.ready["s3"]
        made = boto3.client(
            "s3",
            endpoint_url=serve.ready["endpoint"],
            aws_access_key_id=told["access_key"],
            aws_secret_access_key=told["secret_key"],
            region_name=told["region"],
            config=Config(max_pool_connections=AT_ONCE),
        )
        with closing(made):
            made.create_bucket(Bucket=BOX)
            yield made


def body_of(number: int) -> bytes:
    """A part that differs from all others."""
    return number.to_bytes(8, "big") + PIECE


def send_all(client: Any, upload: dict[str, str], bodies: dict[int, bytes | None]) -> list[dict[str, Any]]:
    """Send parts, a few at a time and the last first; None: as large as a part must be at least."""

    def send(number: int) -> dict[str, Any]:
        body = bodies[number] or body_of(number)
        return {
            "PartNumber": number,
            "ETag": client.upload_part(**upload, PartNumber=number, Body=body)["ETag"],
        }

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sorted(pool.map(send, sorted(bodies, reverse=True)), key=lambda part: part["PartNumber"])


def list_all(client: Any, upload: dict[str, str]) -> list[int]:
    """The numbers of all parts that stand, page by page."""
    pages = client.get_paginator("list_parts").paginate(**upload)
    return [part["PartNumber"] for page in pages for part in page.get("Parts", ())]


@pytest.mark.timeout(3600)
def test_many_parts_are_one_object(client: Any) -> None:
    named = {"Bucket": BOX, "Key": "large"}
    upload = {**named, "UploadId": client.create_multipart_upload(**named)["UploadId"]}
    numbers = [*range(1, PARTS), 10_000]
    parts = send_all(client, upload, {**dict.fromkeys(numbers), 10_000: b"the last"})
    assert list_all(client, upload) == numbers
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    size = PART_BYTES * (PARTS - 1) + len(b"the last")
    assert client.head_object(**named, PartNumber=1)["PartsCount"] == PARTS
    got = client.get_object(**named)
    assert got["ContentLength"] == size
    for number in numbers[:-1]:
        assert got["Body"].read(PART_BYTES) == body_of(number), number
    assert got["Body"].read() == b"the last"
    middle = client.get_object(**named, PartNumber=PARTS // 2)
    assert middle["Body"].read() == body_of(PARTS // 2)


@pytest.mark.timeout(3600)
def test_small_parts_are_taken_and_listed_and_are_too_small_for_an_object(client: Any) -> None:
    named = {"Bucket": BOX, "Key": "small"}
    upload = {**named, "UploadId": client.create_multipart_upload(**named)["UploadId"]}
    numbers = list(range(1, SMALL_PARTS + 1))
    parts = send_all(client, upload, {number: b"%d" % number for number in numbers})
    assert list_all(client, upload) == numbers
    with pytest.raises(ClientError) as raised:
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert raised.value.response["Error"]["Code"] == "EntityTooSmall"
    done = client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts[-1:]})
    assert done["ETag"].endswith('-1"')
    assert client.get_object(**named)["Body"].read() == b"%d" % SMALL_PARTS
