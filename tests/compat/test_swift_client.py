"""python-swiftclient against a cluster that `swiftlike serve` runs: its command line, and its library for odd names."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from swiftclient import ClientException, Connection

from tests.cluster.serve.clusters import Serve
from tests.compat.clients import Person

SWIFT = Path(sys.executable).parent / "swift"
BIG_BYTES = 3_000_000
"""Above what travels in one message, so that it is streamed."""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with Serve(tmp_path_factory.mktemp("cluster") / "data") as serve:
        yield serve.ready


class Shell:
    """A person at a terminal in a directory."""

    def __init__(self, ready: dict[str, Any], directory: Path) -> None:
        self.directory = directory
        self._environment = Person(directory, ready, "python-swiftclient").environment

    def run(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
        """Type a command; return what it says."""
        done = subprocess.run(
            [SWIFT, *arguments],
            cwd=self.directory,
            env=self._environment,
            input=stdin,
            capture_output=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stderr.decode() + done.stdout.decode()
        return (done.stdout + (done.stderr if code else b"")).decode()

    def facts(self, *arguments: str) -> dict[str, str]:
        """What `swift stat` says, by its names."""
        lines = self.run("stat", *arguments).splitlines()
        return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture
def shell(ready: dict[str, Any], tmp_path: Path) -> Shell:
    return Shell(ready, tmp_path)


@pytest.fixture
def connection(ready: dict[str, Any]) -> Iterator[Connection]:
    swift = ready["swift"]
    made = Connection(swift["auth_url"], swift["user"], swift["key"], retries=0)
    yield made
    made.close()


def test_a_directory_goes_up_and_comes_down_as_it_was(shell: Shell) -> None:
    files = {"a.txt": b"hello", "empty": b"", "sub/☃ é.bin": os.urandom(BIG_BYTES)}
    for name, body in files.items():
        path = shell.directory / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    shell.run("upload", "tree", "up")
    assert shell.run("list", "tree").splitlines() == sorted(f"up/{name}" for name in files)
    assert shell.run("upload", "tree", "up", "--skip-identical") is not None
    shell.run("download", "tree", "-D", "down")
    for name, body in files.items():
        assert (shell.directory / "down" / "up" / name).read_bytes() == body
    assert "tree" in shell.run("list").splitlines()
    facts = shell.facts("tree")
    assert (facts["Objects"], facts["Bytes"]) == ("3", str(BIG_BYTES + 5))
    shell.run("delete", "tree")
    assert "tree" not in shell.run("list").splitlines()


def test_what_is_posted_is_shown(shell: Shell) -> None:
    (shell.directory / "one").write_bytes(b"hello")
    shell.run("upload", "posted", "one", "-H", "Content-Type: text/x")
    shell.run("post", "posted", "-m", "Colour:Blue", "-r", ".r:*,.rlistings", "-w", "else:someone")
    facts = shell.facts("posted")
    assert (facts["Meta Colour"], facts["Read ACL"], facts["Write ACL"]) == (
        "Blue",
        ".r:*,.rlistings",
        "else:someone",
    )
    shell.run("post", "posted", "one", "-m", "Size:Large", "-H", "X-Delete-After: 1000")
    facts = shell.facts("posted", "one")
    assert (facts["Meta Size"], facts["Content Type"], facts["Content Length"]) == ("Large", "text/x", "5")
    assert facts["ETag"] == "5d41402abc4b2a76b9719d911017c592"
    assert "X-Delete-At" in facts
    shell.run("post", "-m", "Owner:Ann")
    assert shell.facts()["Meta Owner"] == "Ann"


def test_a_copy_takes_its_metadata_along(shell: Shell) -> None:
    (shell.directory / "one").write_bytes(b"hello")
    shell.run("upload", "source", "one", "-H", "X-Object-Meta-Kept: yes")
    shell.run("copy", "-d", "/target/two", "-m", "Added:too", "source", "one")
    facts = shell.facts("target", "two")
    assert (facts["Meta Kept"], facts["Meta Added"]) == ("yes", "too")
    assert shell.run("download", "target", "two", "-o", "-") == "hello"


def test_standard_input_goes_up(shell: Shell) -> None:
    shell.run("upload", "piped", "-", "--object-name", "in", stdin=b"from a pipe")
    assert shell.run("download", "piped", "in", "-o", "-") == "from a pipe"


def test_segments_go_up_and_their_manifest_is_refused_by_name(shell: Shell) -> None:
    (shell.directory / "large").write_bytes(os.urandom(250_000))
    told = shell.run("--retries", "0", "upload", "cut", "large", "-S", "100000", code=1)
    assert "501 Not Implemented" in told
    assert len(shell.run("list", "cut_segments").splitlines()) == 3
    assert shell.run("list", "cut") == "", "no object stands for what was not stored"


def test_listings_page_roll_up_and_turn_round(connection: Connection) -> None:
    connection.put_container("pages")
    names = [f"{letter}/{number}" for letter in "abc" for number in range(4)]
    for name in names:
        connection.put_object("pages", name, name.encode())
    _, everything = connection.get_container("pages", limit=5, full_listing=True)
    assert [row["name"] for row in everything] == names
    _, rolled = connection.get_container("pages", delimiter="/")
    assert [row["subdir"] for row in rolled] == ["a/", "b/", "c/"]
    _, inside = connection.get_container("pages", prefix="b/", marker="b/1", end_marker="b/3")
    assert [row["name"] for row in inside] == ["b/2"]
    _, turned = connection.get_container("pages", query_string="reverse=true&limit=2&format=json")
    assert [row["name"] for row in turned] == ["c/3", "c/2"]


@pytest.mark.parametrize(
    "name",
    ["a b", "//", "/a", "a/", "%41", "☃😀", "a\nb\x01", "?q=1", "#", "+&=;", "x" * 1024],
    ids=repr,
)
def test_an_odd_name_round_trips(connection: Connection, name: str) -> None:
    # Not `.` and `..`: this client's library resolves them before it asks.
    connection.put_container("odd")
    connection.put_object("odd", name, b"hello", headers={"X-Object-Meta-Name": "ü"})
    headers, body = connection.get_object("odd", name)
    assert (body, headers["x-object-meta-name"]) == (b"hello", "ü")
    assert [row["name"] for row in connection.get_container("odd")[1]] == [name]
    connection.delete_object("odd", name)
    with pytest.raises(ClientException) as missing:
        connection.head_object("odd", name)
    assert missing.value.http_status == 404


def test_a_chunked_upload_and_a_part_of_it_come_back(connection: Connection) -> None:
    connection.put_container("chunks")
    body = os.urandom(BIG_BYTES)
    pieces = iter([body[:10], body[10:70_000], body[70_000:]])
    connection.put_object("chunks", "one", pieces)
    assert connection.get_object("chunks", "one")[1] == body
    headers, part = connection.get_object("chunks", "one", headers={"Range": "bytes=1000000-1999999"})
    assert part == body[1_000_000:2_000_000]
    assert headers["content-range"] == f"bytes 1000000-1999999/{BIG_BYTES}"


def test_a_promised_etag_that_is_not_the_bodys_stores_nothing(connection: Connection) -> None:
    connection.put_container("promised")
    with pytest.raises(ClientException) as refused:
        connection.put_object("promised", "one", b"hello", etag="0" * 32)
    assert refused.value.http_status == 422
    assert connection.get_container("promised")[1] == []


def test_what_the_cluster_can_do_is_told(connection: Connection) -> None:
    assert list(connection.get_capabilities()) == ["swift"]


def test_all_that_an_account_has_is_deleted_at_once(shell: Shell) -> None:
    (shell.directory / "one").write_bytes(b"hello")
    shell.run("upload", "last", "one")
    shell.run("delete", "--all")
    assert shell.run("list") == ""
