"""s3cmd, with the settings of the page and no flag."""

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.compat.clients import Person, assert_same, find


@pytest.fixture
def s3cmd(ready: dict[str, Any], tmp_path: Path) -> Person:
    find("s3cmd")
    return Person(tmp_path, ready, "s3cmd", ".s3cfg")


def test_a_tree_is_synchronized_up_and_down(s3cmd: Person, tree: Path) -> None:
    s3cmd.run("s3cmd", "mb", "s3://s3cmd-sync")
    s3cmd.run("s3cmd", "sync", "up/", "s3://s3cmd-sync/tree/")
    said = s3cmd.run("s3cmd", "sync", "up/", "s3://s3cmd-sync/tree/")
    assert b"upload:" not in said, "all is there already"
    (s3cmd.home / "down").mkdir()
    s3cmd.run("s3cmd", "sync", "s3://s3cmd-sync/tree/", "down/")
    assert_same(tree, s3cmd.home / "down")
    assert b"tree/big" not in s3cmd.run("s3cmd", "multipart", "s3://s3cmd-sync"), "nothing is under way"
    s3cmd.run("s3cmd", "del", "--recursive", "s3://s3cmd-sync/tree/sub/")
    names = {line.rpartition("/")[2] for line in s3cmd.run("s3cmd", "ls", "-r", "s3://s3cmd-sync").decode().splitlines()}  # fmt: skip
    assert names == {"a.txt", "big", "empty"}
    s3cmd.run("s3cmd", "rb", "--recursive", "--force", "s3://s3cmd-sync")
    assert b"s3cmd-sync" not in s3cmd.run("s3cmd", "ls")


def test_objects_are_copied_moved_described_and_shared(s3cmd: Person, tree: Path) -> None:
    body = (tree / "a.txt").read_bytes()
    s3cmd.run("s3cmd", "mb", "s3://s3cmd-objects")
    s3cmd.run("s3cmd", "put", "up/a.txt", "s3://s3cmd-objects/a b+é")
    s3cmd.run("s3cmd", "cp", "s3://s3cmd-objects/a b+é", "s3://s3cmd-objects/copy")
    s3cmd.run("s3cmd", "mv", "s3://s3cmd-objects/copy", "s3://s3cmd-objects/moved")
    s3cmd.run("s3cmd", "modify", "--add-header=x-amz-meta-color:blue", "s3://s3cmd-objects/moved")
    assert b"x-amz-meta-color: blue" in s3cmd.run("s3cmd", "info", "s3://s3cmd-objects/moved")
    assert s3cmd.run("s3cmd", "get", "--quiet", "s3://s3cmd-objects/moved", "-") == body
    url = s3cmd.run("s3cmd", "signurl", "s3://s3cmd-objects/moved", "+600").decode().strip()
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == body
    s3cmd.run("s3cmd", "setacl", "--acl-public", "s3://s3cmd-objects/moved")
    with urllib.request.urlopen(url.partition("?")[0], timeout=20) as answer:
        assert answer.read() == body, "anybody may read it now"
