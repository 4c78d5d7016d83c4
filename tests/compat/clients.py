"""People with clients: a home, the settings that `docs/clients.md` gives, nothing else of this machine's, and trees of files."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT: Path = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
PROGRAMS = Path(__file__).parent / "programs"
CLIENTS = ROOT / ".venv-clients" / "bin"
"""Made by `make clients`."""
SMALL_FILES = 12
BIG_BYTES = 17_000_000
"""Above what any of the clients sends in one request, but for restic and rclone's Swift."""


def find(program: str) -> str:
    """Return where a client is; skip the test where it is not."""
    ours = Path(sys.executable).parent / program
    found = next((str(one) for one in (CLIENTS / program, ours) if one.exists()), shutil.which(program))
    if found is None:
        how = "apt-get install" if program in ("rclone", "restic", "s3cmd") else "make clients, for"
        pytest.skip(f"{program} is not installed: {how} {program}")
    return found


def blocks(title: str, ready: dict[str, Any]) -> list[str]:
    """Return the settings of one client, in the page's order, with the endpoint and the keys of a cluster that serves."""
    (section,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(f"{title}\n")]
    found = re.findall(r"```(?:sh|ini|python)\n(.*?)```", section, re.DOTALL)
    assert found, f"the page says nothing of {title}"
    for shown, real in (
        ("127.0.0.1:8080", ready["endpoint"].removeprefix("http://")),
        ("ALICEKEY", ready["s3"]["access_key"]),
        ("looking-glass", ready["s3"]["secret_key"]),
        ("us-east-1", ready["s3"]["region"]),
        ("acme:alice", ready["swift"]["user"]),
        ("wonderland", ready["swift"]["key"]),
    ):
        found = [block.replace(shown, real) for block in found]
    return found


class Person:
    """Someone at a terminal in an empty home directory, who did what the page says of a client."""

    def __init__(self, home: Path, ready: dict[str, Any], title: str, settings_file: str = "") -> None:
        """Take the settings of the page: variables, or a file."""
        self.home = home
        self.environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        (block,) = blocks(title, ready)
        if settings_file:
            (home / settings_file).parent.mkdir(parents=True, exist_ok=True)
            (home / settings_file).write_text(block)
        else:
            for line in block.splitlines():
                name, _, value = line.removeprefix("export ").partition("=")
                self.environment[name] = value

    def start(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """Type a command and do not wait for it."""
        return subprocess.Popen(
            [find(program), *arguments],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Type a command that works; return what it says."""
        done = subprocess.run(
            [find(program), *arguments],
            cwd=self.home,
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, told(program, arguments, done.stdout + done.stderr)
        return done.stdout


def told(program: str, arguments: tuple[str, ...], output: bytes) -> str:
    """Return what to say of a command that failed."""
    return f"{shlex.join([program, *arguments])}\n{textwrap.indent(output.decode(errors='replace'), '  ')}"


def run_program(name: str, title: str, ready: dict[str, Any], home: Path, python: Path) -> None:
    """Run a program beside these tests, with what the page says of a library as its module `settings`."""
    (block,) = blocks(title, ready)
    (home / "settings.py").write_text(block)
    person = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(home)}
    done = subprocess.run(
        [python, PROGRAMS / name],
        cwd=home,
        env=person,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, told(name, (), done.stdout + done.stderr)


def make_tree(root: Path, big_bytes: int = BIG_BYTES) -> Path:
    """Write files of many sizes under odd names, and return where."""
    sizes = {"a.txt": 6, "empty": 0, "sub/é ☃.bin": 3_000_000, "sub/deeper/plus+and&amp;#?": 100_000}
    sizes |= {f"sub/many/{number:03}": number * 701 for number in range(SMALL_FILES)}
    sizes["big"] = big_bytes
    for name, size in sizes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return root


def contents(root: Path) -> dict[str, bytes]:
    """Return all files of a tree."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_same(one: Path, other: Path) -> None:
    """Compare two trees byte for byte."""
    mine, yours = contents(one), contents(other)
    assert sorted(mine) == sorted(yours)
    assert [name for name in mine if mine[name] != yours[name]] == []
