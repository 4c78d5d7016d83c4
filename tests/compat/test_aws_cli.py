"""The AWS CLI, with the settings of the page and no flag."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.compat.clients import Person, assert_same, find


@pytest.fixture
def aws(ready: dict[str, Any], tmp_path: Path) -> Person:
    find("aws")
    return Person(tmp_path, ready, "AWS CLI")


def test_a_tree_is_synchronized_up_and_down(aws: Person, tree: Path) -> None:
    aws.run("aws", "s3", "mb", "s3://aws-sync")
    aws.run("aws", "s3", "sync", "up", "s3://aws-sync/tree")
    assert aws.run("aws", "s3", "sync", "up", "s3://aws-sync/tree") == b"", "all is there already"
    aws.run("aws", "s3", "sync", "s3://aws-sync/tree", "down")
    assert_same(tree, aws.home / "down")
    listed = aws.run("aws", "s3", "ls", "--recursive", "--summarize", "s3://aws-sync").decode()
    assert f"Total Objects: {len([one for one in tree.rglob('*') if one.is_file()])}" in listed
    (tree / "sub" / "é ☃.bin").unlink()
    said = aws.run("aws", "s3", "sync", "--delete", "up", "s3://aws-sync/tree").decode()
    assert said.strip() == "delete: s3://aws-sync/tree/sub/é ☃.bin"
    aws.run("aws", "s3", "rm", "--recursive", "s3://aws-sync/tree/sub")
    aws.run("aws", "s3", "rb", "--force", "s3://aws-sync")
    assert b"aws-sync" not in aws.run("aws", "s3", "ls")


def test_objects_are_copied_moved_piped_and_shared_by_a_url(aws: Person, tree: Path) -> None:
    body = (tree / "sub" / "é ☃.bin").read_bytes()
    aws.run("aws", "s3", "mb", "s3://aws-objects")
    aws.run("aws", "s3", "cp", "up/sub/é ☃.bin", "s3://aws-objects/a b/é")
    aws.run("aws", "s3", "cp", "s3://aws-objects/a b/é", "s3://aws-objects/copy")
    aws.run("aws", "s3", "mv", "s3://aws-objects/copy", "s3://aws-objects/moved")
    assert aws.run("aws", "s3", "cp", "s3://aws-objects/moved", "-") == body
    aws.run("aws", "s3", "cp", "-", "s3://aws-objects/piped", stdin=body)
    url = aws.run("aws", "s3", "presign", "s3://aws-objects/piped").decode().strip()
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == body
    page = json.loads(aws.run("aws", "s3api", "list-objects-v2", "--bucket", "aws-objects"))
    assert [one["Key"] for one in page["Contents"]] == ["a b/é", "moved", "piped"]


def test_a_large_object_is_copied_in_parts_on_the_server(aws: Person, tree: Path) -> None:
    body = (tree / "big").read_bytes()
    aws.run("aws", "s3", "mb", "s3://aws-parts")
    aws.run("aws", "s3", "cp", "-", "s3://aws-parts/piped", stdin=body)
    aws.run("aws", "s3", "mv", "s3://aws-parts/piped", "s3://aws-parts/moved")
    assert aws.run("aws", "s3", "cp", "s3://aws-parts/moved", "-") == body
    head = json.loads(aws.run("aws", "s3api", "head-object", "--bucket", "aws-parts", "--key", "moved"))
    assert head["ETag"].endswith('-3"')
    uploads = ("s3api", "list-multipart-uploads", "--bucket", "aws-parts")
    assert "Uploads" not in json.loads(aws.run("aws", *uploads) or "{}")
    begun = json.loads(
        aws.run("aws", "s3api", "create-multipart-upload", "--bucket", "aws-parts", "--key", "left")
    )
    assert [one["Key"] for one in json.loads(aws.run("aws", *uploads))["Uploads"]] == ["left"]
    which = ("--bucket", "aws-parts", "--key", "left", "--upload-id", begun["UploadId"])
    aws.run("aws", "s3api", "abort-multipart-upload", *which)
    assert "Uploads" not in json.loads(aws.run("aws", *uploads) or "{}")


def test_the_plain_commands_of_the_api_work(aws: Person, tree: Path) -> None:
    here = ("--bucket", "aws-api", "--key", "o")
    aws.run("aws", "s3api", "create-bucket", "--bucket", "aws-api")
    put = json.loads(
        aws.run(
            "aws",
            "s3api",
            "put-object",
            *here,
            "--body",
            "up/a.txt",
            "--checksum-algorithm",
            "SHA256",
            "--metadata",
            "color=blue",
            "--tagging",
            "shape=round",
        )
    )
    head = json.loads(aws.run("aws", "s3api", "head-object", *here, "--checksum-mode", "ENABLED"))
    assert (head["ContentLength"], head["Metadata"]) == (6, {"color": "blue"})
    assert (head["ETag"], head["ChecksumSHA256"]) == (put["ETag"], put["ChecksumSHA256"])
    facts = json.loads(
        aws.run("aws", "s3api", "get-object-attributes", *here, "--object-attributes", "ObjectSize", "ETag")
    )
    assert facts["ObjectSize"] == 6
    tags = json.loads(aws.run("aws", "s3api", "get-object-tagging", *here))
    assert tags["TagSet"] == [{"Key": "shape", "Value": "round"}]
    aws.run("aws", "s3api", "get-object", *here, "down")
    assert (aws.home / "down").read_bytes() == (tree / "a.txt").read_bytes()
    aws.run("aws", "s3api", "delete-object", *here)
    aws.run("aws", "s3api", "delete-bucket", "--bucket", "aws-api")
