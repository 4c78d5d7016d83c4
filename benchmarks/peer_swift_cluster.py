"""OpenStack Swift on this machine, to be measured beside: four devices, three replicas, two proxy workers, tempauth, memcached.

Owns its configuration files, its rings and its processes, all below one directory and on loopback. No background
daemon runs and nothing limits rates, which is in its favour.
"""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.peers import swift_python
from benchmarks.ports import free_ports
from benchmarks.serving import Endpoint

DEVICES: Final = 4
REPLICAS: Final = 3
PART_POWER: Final = 10
PROXY_WORKERS: Final = 2
STORAGE_WORKERS: Final = 2
START_S: Final = 30.0
_USER, _KEY = "test:tester", "testing"

SWIFT_CONF: Final = """
[swift-hash]
swift_hash_path_suffix = benchmark
[storage-policy:0]
name = standard
default = yes
"""

_STORAGE_CONF: Final = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {home}
devices = {home}/devices
mount_check = false
user = {user}
workers = {workers}
log_address = {home}/log
log_level = ERROR
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY_CONF: Final = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {home}
user = {user}
workers = {workers}
log_address = {home}/log
log_level = ERROR
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats tempauth copy dlo slo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:copy]
use = egg:swift#copy
[filter:dlo]
use = egg:swift#dlo
[filter:slo]
use = egg:swift#slo
"""


class PeerFailedError(Exception):
    """The peer did not come up; says why in one sentence."""


@contextmanager
def swift_cluster(home: Path) -> Iterator[Endpoint]:
    """Run Swift below `home`, an empty directory on the disk that is to be measured."""
    if shutil.which("memcached") is None:
        raise PeerFailedError("memcached is not installed: apt-get install memcached")
    bin_directory = swift_python().parent
    proxy, memcached, *storage = free_ports(5)
    ports = dict(zip(("account", "container", "object"), storage, strict=True))
    _write_configuration(home, proxy, memcached, ports)
    _make_rings(bin_directory, home, ports)
    environment = os.environ | {"SWIFT_TEST_CONFIG_FILE": "", "PYTHONWARNINGS": "ignore"}
    commands = [
        ["memcached", "-u", _user(), "-l", "127.0.0.1", "-p", str(memcached), "-m", "256"],
        *([str(bin_directory / f"swift-{kind}-server"), str(home / f"{kind}.conf")] for kind in ports),
        [str(bin_directory / "swift-proxy-server"), str(home / "proxy.conf")],
    ]
    with (home / "servers.log").open("wb") as log:
        processes = [
            subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            for command in commands
        ]
        try:
            yield _sign_in(proxy, home / "servers.log")
        finally:
            for process in reversed(processes):
                _end(process)


def _write_configuration(home: Path, proxy: int, memcached: int, ports: dict[str, int]) -> None:
    (home / "swift.conf").write_text(SWIFT_CONF)
    common = {"home": home, "user": _user()}
    for kind, port in ports.items():
        text = _STORAGE_CONF.format(**common, kind=kind, port=port, workers=STORAGE_WORKERS)
        (home / f"{kind}.conf").write_text(text)
    text = _PROXY_CONF.format(**common, port=proxy, memcached=memcached, workers=PROXY_WORKERS)
    (home / "proxy.conf").write_text(text)
    for number in range(1, DEVICES + 1):
        (home / "devices" / f"d{number}").mkdir(parents=True)


def _make_rings(bin_directory: Path, home: Path, ports: dict[str, int]) -> None:
    builder = str(bin_directory / "swift-ring-builder")
    for kind, port in ports.items():
        file = str(home / f"{kind}.builder")
        steps = [["create", str(PART_POWER), str(REPLICAS), "1"]]
        steps += [
            ["add", f"r1z{number}-127.0.0.1:{port}/d{number}", "100"] for number in range(1, DEVICES + 1)
        ]
        for step in [*steps, ["rebalance"]]:
            done = subprocess.run([builder, file, *step], capture_output=True, text=True, check=False)
            if done.returncode > 1:  # 1 is a warning
                raise PeerFailedError(f"swift-ring-builder {step[0]}: {done.stdout.strip()}")


def _sign_in(port: int, log: Path) -> Endpoint:
    """Wait for the proxy and its storage, and return where and how to ask it."""
    give_up = time.monotonic() + START_S
    headers = {"X-Auth-User": _USER, "X-Auth-Key": _KEY}
    while time.monotonic() < give_up:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/auth/v1.0", headers=headers)
            answer = connection.getresponse()
            token, url = answer.getheader("X-Auth-Token"), answer.getheader("X-Storage-Url")
            if token and url:
                path = "/" + url.split("/", 3)[3]
                endpoint = Endpoint("127.0.0.1", port, path, token)
                if endpoint.request("PUT", "/probe") in (201, 202):
                    return endpoint
        except OSError:
            pass  # not listening yet
        time.sleep(0.2)
    raise PeerFailedError(f"Swift did not answer within {START_S:g} s: {log.read_text()[-400:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and the workers of its session."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        process.wait()


def _user() -> str:
    return os.environ.get("USER") or "root"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as home, swift_cluster(Path(home)) as endpoint:
        print(endpoint, file=sys.stderr)
