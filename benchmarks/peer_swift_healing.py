"""OpenStack Swift's object replicator over two devices that agree: what one pass costs it, with its object server's part.

Owns the devices, the ring and the processes, all below one directory and on loopback. The replicator looks at the names of files
only, so objects are empty files with the names that Swift would give them; both devices have the same. Logs are off.
"""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any, Final

from benchmarks.peer_swift_cluster import PART_POWER, SWIFT_CONF, PeerFailedError
from benchmarks.peers import swift_python
from benchmarks.ports import free_ports

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PASSES: Final = 3
_START_S: Final = 20.0

_OBJECT_CONF: Final = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {home}
devices = {home}/devices
mount_check = false
user = {user}
workers = 1
log_address = {home}/log
log_level = ERROR
[pipeline:main]
pipeline = object-server
[app:object-server]
use = egg:swift#object
[object-replicator]
concurrency = 1
recon_cache_path = {home}
"""


def measure(home: Path, count: int) -> dict[str, Any]:
    """Fill two devices alike, let the replicator make passes over both, and return what each costs."""
    bin_directory = swift_python().parent
    (port,) = free_ports(1)
    (home / "swift.conf").write_text(SWIFT_CONF)
    user = os.environ.get("USER") or "root"
    (home / "object.conf").write_text(_OBJECT_CONF.format(home=home, port=port, user=user))
    for name in ("d1", "d2"):
        (home / "devices" / name).mkdir(parents=True)
    _make_ring(bin_directory, home, port)
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "SWIFT_TEST_CONFIG_FILE": ""}
    with (home / "servers.log").open("wb") as log:
        server = subprocess.Popen(
            [str(bin_directory / "swift-object-server"), str(home / "object.conf")],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_listening(port, home / "servers.log")
            cost = _pass_cost(bin_directory, home, server.pid, environment)
            idle = min(cost() for _ in range(2))  # what starting the program costs, with nothing to do
            fill_s = _fill(home, count)
            first_s = cost() - idle
            later_s = sorted(cost() - idle for _ in range(_PASSES))
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)
    return {
        "entries": 2 * count,
        "first_cpu_s": first_s,
        "cpu_s": later_s[len(later_s) // 2],
        "fill_per_s": 2 * count / fill_s,
    }


def _make_ring(bin_directory: Path, home: Path, port: int) -> None:
    builder = str(bin_directory / "swift-ring-builder")
    steps = [["create", str(PART_POWER), "2", "1"]]
    steps += [["add", f"r1z{number}-127.0.0.1:{port}/d{number}", "100"] for number in (1, 2)]
    for step in [*steps, ["rebalance"]]:
        command = [builder, str(home / "object.builder"), *step]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode > 1:  # 1 is a warning
            raise PeerFailedError(f"swift-ring-builder {step[0]}: {done.stdout.strip()}")


def _wait_listening(port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthcheck")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise PeerFailedError(
        f"Swift's object server did not answer within {_START_S:g} s: {log.read_text()[-400:]}"
    )


def _pass_cost(
    bin_directory: Path, home: Path, server: int, environment: dict[str, str]
) -> Callable[[], float]:
    """Return what makes one pass over both devices, and tells its CPU seconds, the server's included."""
    # The program itself reads /etc/swift/swift.conf, whatever the configuration says; this is its main with another directory.
    program = (
        "import sys; from swift.common.utils import set_swift_dir; set_swift_dir(sys.argv.pop(1)); "
        "from swift.obj.replicator import main; sys.exit(main())"
    )
    command = [str(bin_directory / "python"), "-c", program, str(home), str(home / "object.conf"), "--once"]

    def cost() -> float:
        before = _cpu_s(server)
        children = os.times()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        after = os.times()
        if done.returncode:
            raise PeerFailedError(f"swift-object-replicator: {done.stderr.strip()[-400:]}")
        own = after.children_user + after.children_system - children.children_user - children.children_system
        return own + _cpu_s(server) - before

    return cost


def _cpu_s(leader: int) -> float:
    """Return the CPU time of a server and of the workers in its session."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            if int(fields[3]) == leader:
                total += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return total


def _fill(home: Path, count: int) -> float:
    """Make the files of so many objects on both devices."""
    begin = time.perf_counter()
    made: set[Path] = set()
    for number in range(count):
        name = md5(f"/account/container/o{number:08d}benchmark".encode(), usedforsecurity=False).hexdigest()
        partition = int(name[:8], 16) >> (32 - PART_POWER)
        for device in ("d1", "d2"):
            suffix = home / "devices" / device / "objects" / str(partition) / name[-3:]
            if suffix not in made:
                suffix.mkdir(parents=True, exist_ok=True)
                made.add(suffix)
            (suffix / name).mkdir()
            (suffix / name / "1760000000.00000.data").touch()
    return time.perf_counter() - begin


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as directory:
        print(measure(Path(directory), int(sys.argv[1])))
