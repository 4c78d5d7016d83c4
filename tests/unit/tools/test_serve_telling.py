"""What `swiftlike serve` prints when it is ready."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from swiftlike.user_config import UserConfig
from tools.serve.telling import Ready, as_json, as_page, endpoint

USER = UserConfig("acme", "alice", "it's$5", ("admin",), "AKALICE", "looking/glass")
READY = Ready("http://127.0.0.1:8080", USER, "us-east-1", 4711, Path("/srv/data"), 3, 3, 2)


def test_programs_get_one_line_with_everything_to_sign_in() -> None:
    line = as_json(READY)
    assert "\n" not in line
    assert json.loads(line) == {
        "endpoint": "http://127.0.0.1:8080",
        "swift": {"auth_url": "http://127.0.0.1:8080/auth/v1.0", "user": "acme:alice", "key": "it's$5"},
        "s3": {"access_key": "AKALICE", "secret_key": "looking/glass", "region": "us-east-1"},
        "pid": 4711,
    }


def test_a_user_without_s3_keys_has_none_in_either_form() -> None:
    ready = replace(READY, user=replace(USER, s3_access_key="", s3_secret_key=""))
    assert json.loads(as_json(ready))["s3"] == {"access_key": None, "secret_key": None, "region": "us-east-1"}
    assert "S3" not in as_page(ready)
    assert "aws" not in as_page(ready)


def test_people_get_commands_that_a_shell_takes_as_they_are() -> None:
    lines = as_page(READY).splitlines()
    commands = lines[lines.index("Try") + 1 :]
    curl, swift = (shlex.split(line) for line in commands[:2])
    assert (curl[0], "X-Auth-Key: it's$5" in curl) == ("curl", True)
    assert (swift[0], swift[swift.index("-K") + 1]) == ("swift", "it's$5")
    aws = shlex.split(commands[2].removesuffix("\\") + commands[3])
    assert aws[:2] == ["AWS_ACCESS_KEY_ID=AKALICE", "AWS_SECRET_ACCESS_KEY=looking/glass"]
    assert (aws[2], aws[-3:]) == ("aws", ["s3", "ls", "s3://first"]), (
        "it lists what the line before it uploaded"
    )
    assert {"--endpoint-url", "http://127.0.0.1:8080", "--region", "us-east-1"} <= set(aws)
    page = as_page(replace(READY, swift=".venv/bin/swift")).splitlines()
    assert [shlex.split(line)[0] for line in page if "upload" in line] == [".venv/bin/swift"]


def test_where_there_is_no_file_to_upload_a_line_of_text_is() -> None:
    page = as_page(replace(READY, sample=None))
    assert "README.md" not in page
    command = next(line for line in page.splitlines() if "upload" in line)
    words = shlex.split(command)
    assert words[:4] == ["echo", "hello", "|", "swift"]
    assert words[words.index("upload") :] == ["upload", "--object-name", "hello", "first", "-"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("objects.example.org", "http://objects.example.org:80"),
    ],
)
def test_the_endpoint_is_one_that_can_be_reached(host: str, url: str) -> None:
    assert endpoint(host, 80) == url
