"""Browsers' forms against a whole cluster of real processes: boto3 signs their policies, requests sends them."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from xml.etree import ElementTree

import boto3
import pytest
import requests
from botocore.config import Config

from tests.cluster.serve.clusters import Serve

BOX = "form-box"
BODY = bytes(range(256)) * 12_345
"""3 MB: above what a frame of the internal RPC holds."""


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(tmp_path_factory.mktemp("forms") / "data") as running:
        yield running


@pytest.fixture(params=["s3v4", "s3"])
def client(serve: Serve, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client that signs in one version or the other."""
    told = serve.ready["s3"]
    with closing(
        boto3.client(
            "s3",
            endpoint_url=serve.ready["endpoint"],
            aws_access_key_id=told["access_key"],
            aws_secret_access_key=told["secret_key"],
            region_name=told["region"],
            config=Config(signature_version=request.param, retries={"max_attempts": 1, "mode": "standard"}),
        )
    ) as client:
        client.create_bucket(Bucket=BOX)
        yield client


def send(form: dict[str, Any], body: bytes, **changes: str) -> requests.Response:
    return requests.post(
        form["url"],
        data=form["fields"] | changes,
        files={"file": ("my cat.png", body, "image/png")},
        allow_redirects=False,
        timeout=60,
    )


@pytest.mark.parametrize("body", [b"", b"hello", BODY], ids=["empty", "small", "large"])
def test_a_form_uploads_a_file_under_the_name_that_the_browser_gives(client: Any, body: bytes) -> None:
    fields = {"acl": "public-read", "Content-Type": "image/png", "success_action_status": "201", "x-amz-meta-a": "b"}  # fmt: skip
    conditions = [{name: value} for name, value in fields.items()]
    form = client.generate_presigned_post(BOX, "in/${filename}", fields, [*conditions, ["content-length-range", 0, len(BODY)]])  # fmt: skip
    answer = send(form, body)
    assert answer.status_code == 201, answer.text
    told = ElementTree.fromstring(answer.content)
    assert (told.findtext("Bucket"), told.findtext("Key")) == (BOX, "in/my cat.png")
    got = client.get_object(Bucket=BOX, Key="in/my cat.png")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (body, "image/png", {"a": "b"})
    assert got["ETag"] == told.findtext("ETag") == answer.headers["ETag"]
    assert requests.get(told.findtext("Location") or "", timeout=20).content == body


def test_a_form_that_the_policy_does_not_allow_uploads_nothing(client: Any) -> None:
    form = client.generate_presigned_post(BOX, "new", None, [["content-length-range", 1, 10]])
    for changes, body, code in (
        ({}, b"x" * 11, "EntityTooLarge"),
        ({}, b"", "EntityTooSmall"),
        ({"key": "other"}, b"x", "AccessDenied"),
        ({"acl": "public-read"}, b"x", "AccessDenied"),
        ({"policy": form["fields"]["policy"][:-4]}, b"x", "SignatureDoesNotMatch"),
    ):
        answer = send(form, body, **changes)
        assert ElementTree.fromstring(answer.content).findtext("Code") == code
    for key in ("new", "other"):
        with pytest.raises(client.exceptions.NoSuchKey):
            client.get_object(Bucket=BOX, Key=key)
    assert send(form, b"x").status_code == 204
    assert client.get_object(Bucket=BOX, Key="new")["Body"].read() == b"x"
    client.delete_object(Bucket=BOX, Key="new")
