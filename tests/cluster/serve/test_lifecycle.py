"""`swiftlike serve` as a program: what it prints, how it ends, and what becomes of one that dies."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from swiftlike.config import load_host
from tests.cluster.serve.clusters import COMMAND, Program, Serve, processes_of, wait_for

REFUSED_S = 30


def is_healthy(serve: Serve) -> bool:
    with urlopen(f"{serve.ready['endpoint']}/healthcheck", timeout=5) as answer:
        return bool(answer.status == 200)


def refused(*options: str) -> str:
    """Run a serve that is to be refused; return what it says."""
    done = subprocess.run(
        [*COMMAND, "serve", "--json", *options],
        capture_output=True,
        text=True,
        timeout=REFUSED_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("swiftlike serve: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_one_line_of_json_is_printed_when_it_is_ready_and_nothing_else(tmp_path: Path) -> None:
    with Serve(tmp_path / "data") as serve:
        assert is_healthy(serve)
        ready = serve.ready
        assert serve.interrupt() == 0
        assert serve.rest_of_output() == b""
    assert list(ready) == ["endpoint", "swift", "s3", "pid"]
    assert list(ready["swift"]) == ["auth_url", "user", "key"]
    assert list(ready["s3"]) == ["access_key", "secret_key", "region"]
    assert ready["swift"]["auth_url"] == ready["endpoint"] + "/auth/v1.0"
    assert ready["pid"] == serve.pid
    assert serve.log() == "", "a start and an end without trouble are nothing to be told of"


def test_all_processes_are_of_one_group_and_ctrl_c_leaves_none_of_them(tmp_path: Path) -> None:
    with Serve(tmp_path / "data", "--workers", "3") as serve:
        commands = [one.command for one in processes_of(serve.group)]
        assert sum("--worker " in command for command in commands) == 3
        assert sum("--device " in command for command in commands) == 3
        assert len(commands) == 7
        assert serve.interrupt() == 0
        assert processes_of(serve.group) == []
    sockets = load_host(tmp_path / "data" / "host.toml").socket_directory
    assert not sockets.exists() or list(sockets.iterdir()) == []


def test_started_again_it_has_the_same_users(tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        with Serve(tmp_path / "data") as serve:
            told.append((serve.ready["swift"]["user"], serve.ready["swift"]["key"], serve.ready["s3"]))
    assert told[0] == told[1]


def test_a_process_that_is_killed_is_started_again_alone(tmp_path: Path) -> None:
    with Serve(tmp_path / "data", "--log-level", "info") as serve:
        for title, pid in (("worker 1", serve.worker(1)), ("device d2", serve.device("d2"))):
            others = {one.pid for one in processes_of(serve.group)} - {pid}
            serve.kill_and_wait(title, pid)
            assert others < {one.pid for one in processes_of(serve.group)}
            assert is_healthy(serve)


def test_its_children_die_with_it_and_it_can_be_started_again_at_once(tmp_path: Path) -> None:
    with Serve(tmp_path / "data") as serve:
        port = serve.address[1]
        serve.process.kill()
        with Serve(tmp_path / "data", port=port) as again:
            assert is_healthy(again)
            assert again.ready["swift"] == serve.ready["swift"]
        wait_for(lambda: not processes_of(serve.group), "its children have ended")


def test_a_hangup_of_the_terminal_ends_it(tmp_path: Path) -> None:
    with Serve(tmp_path / "data") as serve:
        os.killpg(serve.group, signal.SIGHUP)
        assert serve.process.wait(30) == 0
        assert processes_of(serve.group) == []


def test_ctrl_c_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    options = ["serve", "--json", "--data", str(tmp_path / "data"), "--port", "0"]
    with Program(options, tmp_path / "log") as program:
        wait_for(lambda: len(processes_of(program.group)) > 1, "its first child is there")
        assert program.interrupt() == 0
        assert processes_of(program.group) == []
        assert "Traceback" not in program.log()


def test_a_busy_port_is_refused_with_the_fix(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        said = refused("--data", str(tmp_path / "data"), "--port", str(port))
    assert (
        f"127.0.0.1:{port} cannot be listened on (Address already in use): stop what is there, or choose"
        in said
    )
    assert not (tmp_path / "data").exists(), "the next attempt may ask for another cluster"


def test_a_second_serve_on_the_port_of_the_first_is_refused(tmp_path: Path) -> None:
    with Serve(tmp_path / "one") as one:
        said = refused("--data", str(tmp_path / "two"), "--port", str(one.address[1]))
        assert "cannot be listened on (Address already in use)" in said
        assert "is being served already" in refused("--data", str(tmp_path / "one"), "--port", "0")
        assert is_healthy(one)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--devices", "2", "--replicas", "3"], "3 replicas need 3 devices"),
        (["--users", "nowhere.toml"], "nowhere.toml cannot be read"),
        (
            ["--host", "203.0.113.9"],
            "(Cannot assign requested address): give an address of this host with --host",
        ),
        (["--data", "/dev/null/data"], "/dev/null is not a directory: choose another one with --data"),
        (["--data", "/dev/null"], "/dev/null is not a directory: choose another one with --data"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    assert sentence in refused("--data", str(tmp_path / "data"), "--port", "0", *options)


def test_a_device_that_cannot_be_used_is_told_of_and_the_others_serve(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Serve(data) as serve:
        pass
    for path in (data / "devices" / "d2" / "index").iterdir():
        path.unlink()
    path = data / "devices" / "d3" / "device.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 2"))
    with Serve(data) as serve:
        assert is_healthy(serve)
        assert "rebuild-index" in serve.log()
        assert "has format 2, this release knows 1: upgrade swiftlike on this host" in serve.log()
