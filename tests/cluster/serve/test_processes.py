"""`swiftlike proxy` as a program: refusals, reloads, metrics, and what it does while the devices are away."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from proxy.process import UNFOLLOWED_CODE
from tests.cluster.device.hosts import free_ports
from tests.cluster.serve.clusters import (
    ACCOUNT,
    KEY,
    READY_S,
    USER,
    HandMade,
    HandMadeHost,
    Program,
    processes_of,
    wait_for,
)
from tests.cluster.serve.swift_client import Swift

NAME = f"{ACCOUNT}:{USER}"


@pytest.fixture
def cluster(tmp_path: Path) -> HandMade:
    """One host with a single device."""
    return HandMade.make(tmp_path, hosts=1, devices=1, replicas=1)


def sign_in(host: HandMadeHost, user: str = NAME, key: str = KEY) -> int:
    """Return the status of signing in."""
    connection = http.client.HTTPConnection(host.address, host.proxy_port, timeout=20)
    try:
        connection.request("GET", "/auth/v1.0", headers={"X-Auth-User": user, "X-Auth-Key": key})
        return connection.getresponse().status
    finally:
        connection.close()


def test_without_a_proxy_in_its_file_it_is_refused_with_the_fix(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    host.config.write_text(host.config.read_text().partition("[proxy]")[0])
    with cluster.start_proxy(host) as program:
        assert program.process.wait(20) == 2
        assert "proxy is missing: add [proxy] with bind_host and port" in program.log()


def test_a_worker_that_follows_the_rings_no_more_does_not_end_as_one_that_drained(
    cluster: HandMade,
) -> None:
    (host,) = cluster.hosts
    code = (
        "import sys; from proxy import process\n"
        "async def ended(self): raise RuntimeError('ended')\n"
        "process.FollowedRings.run, process.SEEDED_S = ended, 0.0\n"
        "sys.exit(process.main())"
    )
    worker = subprocess.run(
        [sys.executable, "-c", code, "--config", str(host.config), "--worker", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == UNFOLLOWED_CODE, worker.stderr
    assert "the rings are not followed any more" in worker.stderr
    assert "closed" in worker.stderr, "it drained"


def test_a_busy_port_is_refused_with_the_fix(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    with socket.create_server((host.address, host.proxy_port)), cluster.start_proxy(host) as program:
        assert program.process.wait(20) == 2
        assert "cannot be listened on (Address already in use): stop what is there" in program.log()


def test_a_missing_ring_is_refused_by_name(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    (cluster.root / "rings" / "container.ring").unlink()
    with cluster.start_proxy(host) as program:
        assert program.process.wait(20) == 2
        assert "container.ring" in program.log().splitlines()[-1]


def test_metrics_tell_of_requests_by_method_and_class_of_status(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    port = free_ports(10)[-1]  # the first ones are the cluster's, which does not listen yet
    host.proxy["metrics_port"] = port
    host.write()
    with cluster.running(), Swift((host.address, host.proxy_port), NAME, KEY) as swift:
        assert swift.request("PUT", "box").status == 201
        assert swift.request("GET", "nowhere").status == 404
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    assert 'swiftlike_proxy_requests_total{method="PUT",status="2xx"} 1.0' in lines
    assert 'swiftlike_proxy_requests_total{method="GET",status="4xx"} 1.0' in lines
    assert 'swiftlike_proxy_request_seconds_count{method="PUT"} 1.0' in lines
    assert 'swiftlike_proxy_request_seconds_bucket{le="+Inf",method="PUT"} 1.0' in lines
    assert "swiftlike_proxy_requests_in_flight 0.0" in lines


def test_a_worker_with_as_many_requests_as_it_may_have_says_when_to_come_again(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    host.proxy["requests_in_flight_max"] = 1
    host.write()
    with cluster.running(), Swift((host.address, host.proxy_port), NAME, KEY) as swift:
        assert swift.request("PUT", "box").status == 201
        slow = http.client.HTTPConnection(host.address, host.proxy_port, timeout=20)
        slow.putrequest("PUT", f"{swift.path}/box/slow")
        for name, value in (
            ("X-Auth-Token", swift.token),
            ("Content-Length", "5"),
            ("Expect", "100-continue"),
        ):
            slow.putheader(name, value)
        slow.endheaders()
        assert slow.sock.recv(1024).startswith(b"HTTP/1.1 100"), "it is at work"
        refused = swift.request("GET", "box")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        slow.send(b"hello")
        assert slow.getresponse().status == 201
        slow.close()
        assert swift.request("GET", "box", "slow").body == b"hello"


def test_a_worker_whose_metrics_port_is_taken_is_refused(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        host.proxy["metrics_port"] = squatter.getsockname()[1]
        host.write()
        with cluster.start_proxy(host) as program:
            assert program.process.wait(40) == 2
            assert "cannot serve metrics on port" in program.log()


def test_a_proxy_serves_while_the_devices_are_away_and_lets_users_in_once_they_are_there(
    cluster: HandMade,
) -> None:
    (host,) = cluster.hosts
    host.proxy["request_s"] = 1.0
    host.write()
    with cluster.start_proxy(host) as proxy:
        wait_for(lambda: proxy.serving("worker 1"), "the worker serves", 40)
        with urlopen(f"http://{host.address}:{host.proxy_port}/healthcheck", timeout=10) as answer:
            assert answer.status == 200
        assert sign_in(host) == 503
        with cluster.start_storage(host):
            wait_for(lambda: sign_in(host) == 200, "users are let in", 40)


def test_a_hangup_takes_up_users_and_the_number_of_workers(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    with cluster.running():
        proxy = cluster.proxies[host.address]
        assert sign_in(host, "acme:carol", "singing") == 401
        path = cluster.root / "cluster.toml"
        path.write_text(path.read_text() + '\n[[users]]\naccount = "acme"\nuser = "carol"\nkey = "singing"\n')
        host.proxy["workers"] = 2
        host.write()
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: proxy.serving("worker 2"), "a second worker serves")
        wait_for(lambda: sign_in(host, "acme:carol", "singing") == 200, "the user is let in")
        first = proxy.worker(1)
        host.proxy["workers"] = 1
        host.write()
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: " --worker 2 " not in str(cmdlines(proxy.group)), "the second worker has ended")
        assert proxy.worker(1) == first
        assert sign_in(host) == 200


def cmdlines(group: int) -> list[str]:
    return [one.command for one in processes_of(group)]


SIGNALLED_AS_IT_LOADS = """
import os, runpy, sys
class Early:
    def find_spec(self, name, path=None, target=None):
        if name == "tools.swiftlike":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Early())
sys.argv[:4] = [sys.argv[3]]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs the module of a command line `python -m MODULE …` that is sent a signal before it has loaded what it is made of."""


def signalled_as_it_loads(cluster: HandMade, name: str, number: signal.Signals) -> Program:
    (host,) = cluster.hosts
    code = SIGNALLED_AS_IT_LOADS.format(number=int(number))
    log = cluster.root / f"{name}.log"
    return Program([name, "--config", str(host.config)], log, prefix=[sys.executable, "-c", code])


@pytest.mark.parametrize("name", ["storage", "proxy"])
def test_a_hangup_that_comes_while_a_program_loads_is_heeded_once_it_has(
    cluster: HandMade, name: str
) -> None:
    with signalled_as_it_loads(cluster, name, signal.SIGHUP) as program:
        wait_for(lambda: "| reloaded: 1 " in program.log(), "it has read its files again")
        os.kill(program.pid, signal.SIGHUP)
        wait_for(lambda: program.log().count("| reloaded: 1 ") == 2, "it hears the next one too")


@pytest.mark.parametrize("name", ["storage", "proxy"])
def test_a_program_that_is_told_to_end_while_it_loads_ends_cleanly(cluster: HandMade, name: str) -> None:
    with signalled_as_it_loads(cluster, name, signal.SIGTERM) as program:
        assert program.process.wait(READY_S) == 0, program.log()


def test_a_file_that_became_bad_is_told_at_a_hangup_and_the_old_settings_stay(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    with cluster.running():
        proxy = cluster.proxies[host.address]
        first = proxy.worker(1)
        host.proxy["prot"] = 80
        host.write()
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "did you mean port?" in proxy.log(), "it is told")
        assert proxy.worker(1) == first
        assert sign_in(host) == 200


def test_workers_die_with_their_supervisor(cluster: HandMade) -> None:
    (host,) = cluster.hosts
    with cluster.running():
        proxy = cluster.proxies[host.address]
        os.kill(proxy.pid, signal.SIGKILL)
        proxy.process.wait(10)
        wait_for(lambda: cmdlines(proxy.group) == [], "its worker has ended")
