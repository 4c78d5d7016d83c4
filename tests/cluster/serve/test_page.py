"""The page about running swiftlike is true: its files are written and its commands run in their order, and say what it shows."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.device.hosts import free_ports
from tests.cluster.serve.clusters import Serve, wait_for
from tests.cluster.serve.swift_client import Swift
from tools.serve.command import serve

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "serve.md"
READY_S = 40.0
"""For what was started in the background to be there for the next command."""


class Step(NamedTuple):
    """A file to write, or a command and what it says."""

    file: str
    text: str
    said: tuple[str, ...] = ()


def steps_of(section: str) -> Iterator[Step]:
    """Read the files and the commands of a section, in their order."""
    for kind, block in re.findall(r"```(toml|console)\n(.*?)```", section, re.DOTALL):
        lines = block.splitlines()
        if kind == "toml":
            yield Step(lines[0].removeprefix("# "), block)
            continue
        for at, line in enumerate(lines):
            if line.startswith("$ "):
                said = []
                for after in lines[at + 1 :]:
                    if after.startswith("$ "):
                        break
                    said.append(after)
                yield Step("", line.removeprefix("$ "), tuple(said))


def install(programs: Path) -> None:
    """Write the programs that an installation would have: these sources', whatever else is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, where in project["scripts"].items():
        module, _, function = where.partition(":")
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {module} import {function}; sys.exit({function}())"
        (programs / name).write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n'
        )
        (programs / name).chmod(0o755)


class Operator:
    """Someone who follows the page in an empty directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[subprocess.Popen[bytes]] = []
        programs = directory / "bin"
        programs.mkdir()
        install(programs)
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path}

    def follow(self, step: Step) -> None:
        """Write a file, or run a command."""
        if step.file:
            (self.directory / step.file).write_text(step.text)
        elif step.text.endswith(" &"):
            self._start(step.text.removesuffix(" &"))
        else:
            self._perform(step)

    def end(self) -> None:
        """End what runs in the background."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            assert process.wait(60) == 0, process.args

    def _start(self, command: str) -> None:
        with (self.directory / "background.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)

    def _perform(self, step: Step) -> None:
        until = time.monotonic() + READY_S
        while True:
            done = subprocess.run(
                ["bash", "-ec", step.text],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            is_warned = done.returncode == 1 and "warning: " in done.stderr
            if done.returncode == 0 or is_warned:
                assert set(step.said) <= set(done.stdout.splitlines()), done
                return
            log = (self.directory / "background.log").read_text() if self._started else ""
            assert time.monotonic() < until, (done, log)
            time.sleep(0.5)


def section(title: str, ports: list[int]) -> str:
    """Return a section with ports that are free here."""
    (text,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(title)]
    for shown, port in zip(("8080", "8081", "6201", "6202"), ports, strict=True):
        text = text.replace(shown, str(port))
    return text


@pytest.fixture
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(tmp_path_factory.mktemp("page"))
    yield operator
    operator.end()


@pytest.mark.parametrize(("title", "commands"), [("One command", 4), ("Several hosts", 20)])
def test_the_commands_of_the_page_do_what_it_says(operator: Operator, title: str, commands: int) -> None:
    # One command's serve has no --port, since 8080 is what people get.
    text = section(title, free_ports(4))
    port = re.search(r"http://127.0.0.1:(\d+)/auth", text)
    assert port is not None
    text = text.replace("swiftlike serve --users", f"swiftlike serve --port {port[1]} --users")
    steps = list(steps_of(text))
    if any("openssl" in step.text for step in steps if not step.file) and shutil.which("openssl") is None:
        pytest.skip("this machine has no openssl, which the page asks for a secret")
    assert len([step for step in steps if not step.file]) >= commands
    for step in steps:
        if not step.text.startswith("curl ") or shutil.which("curl") is not None:
            operator.follow(step)


def test_a_disk_is_replaced_by_the_page(operator: Operator) -> None:
    data = operator.directory / "swiftlike-data"
    with Serve(data) as serve, Swift.of(serve.ready) as swift:
        assert swift.request("PUT", "con").status == 201
        assert swift.put("con", "kept", b"kept").status == 201
    for step in steps_of(section("Replacing a disk", free_ports(4))):
        operator.follow(step)
    with Serve(data) as serve:
        assert serve.log() == ""
        operator.follow(Step("", "swiftlike-recon --config swiftlike-data/host.toml", ()))
        volumes = data / "devices" / "d2" / "volumes"
        wait_for(lambda: any(b"kept" in path.read_bytes() for path in volumes.iterdir()), "it holds the body")


def test_the_page_names_every_option() -> None:
    page = PAGE.read_text()
    assert [option for one in serve.params for option in one.opts if option not in page] == []
