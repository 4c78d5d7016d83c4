"""swiftlike-users beside a cluster that serves: what it changes, what it says, and how it ends."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster.serve.clusters import Serve, wait_for

pytestmark = pytest.mark.timeout(300)


class Ended(NamedTuple):
    """How a run of the tool ended."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        """What `--json` printed."""
        facts: dict[str, Any] = json.loads(self.out)
        return facts


class Tool:
    """The tool, on the host file of one cluster."""

    def __init__(self, config: Path, address: tuple[str, int] = ("", 0)) -> None:
        self.config = config
        self.address = address

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        command = [sys.executable, "-m", "tools.users", "--config", str(self.config), *arguments]
        run = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in run.stderr, run.stderr
        return Ended(run.returncode, run.stdout, run.stderr)

    def json(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        ended = self("--json", *arguments, stdin=stdin)
        assert ended.code == 0, ended
        return ended.facts


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    """The tool beside a cluster of three devices."""
    data = tmp_path_factory.mktemp("users") / "data"
    with Serve(data, "--workers", "2") as serve:
        yield Tool(data / "host.toml", serve.address)


def test_a_user_is_added_listed_rekeyed_and_removed(tool: Tool) -> None:
    made = tool.json("add", "flow:alice", "--role", "admin")
    assert (made["user"], made["roles"]) == ("flow:alice", ["admin"])
    assert (len(made["key"]), len(made["s3_access_key"]), len(made["s3_secret_key"])) == (32, 20, 40)
    assert tool.json("list", "flow")["users"] == [
        {"user": "flow:alice", "roles": ["admin"], "s3_access_keys": [made["s3_access_key"]], "opens": True}
    ]
    rotated = tool.json("rotate-key", "flow:alice")
    assert rotated["key"] != made["key"]
    second = tool.json("s3-key", "add", "flow:alice")
    tool.json("s3-key", "remove", "flow:alice", made["s3_access_key"])
    (listed,) = tool.json("list", "flow")["users"]
    assert listed["s3_access_keys"] == [second["s3_access_key"]]
    tool.json("remove", "flow:alice")
    assert tool.json("list", "flow")["users"] == []


def asked(tool: Tool, path: str, headers: dict[str, str], method: str = "GET") -> HTTPResponse:
    """Ask whichever worker takes the connection."""
    connection = HTTPConnection(*tool.address, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def sign_in(tool: Tool, name: str, key: str) -> HTTPResponse:
    return asked(tool, "/auth/v1.0", {"X-Auth-User": name, "X-Auth-Key": key})


def agreed(tool: Tool, status: int, path: str, headers: dict[str, str]) -> bool:
    """Whether several connections, and so both workers, get this status."""
    return all(asked(tool, path, headers).status == status for _ in range(16))


def test_what_the_tool_changes_holds_at_every_worker_within_a_second(tool: Tool) -> None:
    made = tool.json("add", "live:alice", "--role", "admin")
    answer = sign_in(tool, "live:alice", made["key"])
    assert answer.status == 200
    assert (answer.headers["X-Storage-Url"] or "").endswith("/v1/AUTH_live")
    token = {"X-Auth-Token": answer.headers["X-Auth-Token"] or ""}
    assert asked(tool, "/v1/AUTH_live/things", token, "PUT").status == 201
    assert agreed(tool, 204, "/v1/AUTH_live/things", token)
    assert agreed(tool, 403, "/v1/AUTH_demo/things", token), "another account is another's"
    key = tool.json("rotate-key", "live:alice")["key"]
    wait_for(lambda: agreed(tool, 401, "/v1/AUTH_live/things", token), "the old token has ended")
    assert sign_in(tool, "live:alice", made["key"]).status == 401
    answer = sign_in(tool, "live:alice", key)
    token = {"X-Auth-Token": answer.headers["X-Auth-Token"] or ""}
    assert agreed(tool, 204, "/v1/AUTH_live/things", token)
    tool.json("remove", "live:alice")
    wait_for(lambda: agreed(tool, 401, "/v1/AUTH_live/things", token), "the user is gone")
    assert sign_in(tool, "live:alice", key).status == 401


def test_a_user_without_a_role_does_what_acls_grant_and_no_more(tool: Tool) -> None:
    owner = tool.json("add", "acl:owner", "--role", "admin")
    guest = tool.json("add", "acl:guest")
    tokens = {
        made["user"]: {"X-Auth-Token": sign_in(tool, made["user"], made["key"]).headers["X-Auth-Token"] or ""}
        for made in (owner, guest)
    }
    things = "/v1/AUTH_acl/things"
    assert asked(tool, things, tokens["acl:owner"], "PUT").status == 201
    assert agreed(tool, 403, things, tokens["acl:guest"])
    assert agreed(tool, 401, things, {})
    grant = {**tokens["acl:owner"], "X-Container-Read": "acl:guest,.r:*", "X-Container-Write": "acl:guest"}
    assert asked(tool, things, grant, "POST").status == 204
    wait_for(lambda: agreed(tool, 204, things, tokens["acl:guest"]), "the ACL holds at every worker")
    assert asked(tool, f"{things}/one", {**tokens["acl:guest"], "Content-Length": "0"}, "PUT").status == 201
    assert asked(tool, things, tokens["acl:guest"], "DELETE").status == 403
    assert asked(tool, f"{things}/one", {}).status == 200
    assert asked(tool, things, {}).status == 401, "a listing takes .rlistings"
    refused = asked(tool, things, {**tokens["acl:owner"], "X-Container-Write": ".r:*"}, "POST")
    assert refused.status == 400


def test_a_secret_is_shown_when_it_is_made_and_never_again(tool: Tool, tmp_path: Path) -> None:
    made = tool("add", "shown:alice")
    assert made.code == 0
    lines = dict(line.rsplit(None, 1) for line in made.out.strip().splitlines()[1:])
    assert set(lines) == {"  key", "  S3 access key", "  S3 secret key"}
    given = tmp_path / "secret"
    given.write_text("given-by-hand\n")
    given.chmod(0o600)
    told = [
        tool(
            "add",
            "shown:bob",
            "--key-file",
            str(given),
            "--s3-access-key",
            "BOB",
            "--s3-secret-file",
            str(given),
        ),
        tool("rotate-key", "shown:bob", "--key-file", "-", stdin="given-by-hand\n"),
        tool("list"),
        tool("list", "shown"),
        tool("--json", "list", "shown"),
        tool("add", "shown:bob"),
    ]
    assert [one.code for one in told] == [0, 0, 0, 0, 0, 1]
    for secret in ("given-by-hand", lines["  key"], lines["  S3 secret key"]):
        assert not any(secret in one.out + one.err for one in told)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["add", "told:alice"], 1, "user told:alice exists already; remove it first, or rotate its key"),
        (["remove", "told:nobody"], 1, "there is no user told:nobody"),
        (["rotate-key", "told:nobody"], 1, "there is no user told:nobody"),
        (["s3-key", "add", "told:nobody"], 1, "there is no user told:nobody"),
        (["s3-key", "remove", "told:alice", "NONE"], 1, "user told:alice has no S3 key NONE"),
        (["add", "alice"], 2, "'alice' is no user: write account:user"),
        (["add", "to/ld:alice"], 2, "account 'to/ld' may hold letters"),
        (["add", "told:bob", "--role", "boss"], 2, "'boss' is not one of"),
        (["add", "told:bob", "--s3-access-key", "BOB"], 2, "give both the S3 access key and the file"),
        (["add", "told:bob", "--key-file", "/nowhere/key"], 2, "/nowhere/key cannot be read"),
        (["add", "told:bob", "--key-file", "/etc/hostname"], 2, "run chmod 600 /etc/hostname"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_told_in_a_sentence_and_by_the_exit_code(
    tool: Tool, arguments: list[str], code: int, sentence: str
) -> None:
    tool("add", "told:alice")
    ended = tool(*arguments)
    assert ended.code == code
    assert sentence in ended.err
    assert ended.out == ""


def test_whoever_changes_a_user_that_a_file_names_is_told_that_the_file_wins(tool: Tool) -> None:
    tool("add", "demo:demo")
    rotated = tool("rotate-key", "demo:demo")
    assert rotated.code == 0
    assert "cluster.toml names demo:demo, and its word wins when a proxy starts" in rotated.err


def test_without_its_devices_nothing_is_done_and_without_its_files_nothing_is_tried(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Serve(data, "--workers", "1"):
        tool = Tool(data / "host.toml")
        assert tool("add", "kept:alice").code == 0
    for arguments in (["list"], ["add", "kept:bob"], ["remove", "kept:alice"]):
        ended = tool(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert "too few devices answered" in ended.err
    nowhere = Tool(tmp_path / "nowhere.toml")("list")
    assert nowhere.code == 2
    assert "nowhere.toml cannot be read" in nowhere.err
    with Serve(data, "--workers", "1"):
        assert "kept:alice" in [user["user"] for user in tool.json("list")["users"]], (
            "users outlive a restart"
        )
