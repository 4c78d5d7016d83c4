"""Whole clusters of real processes: by `swiftlike serve`, and by hand on several hosts, each an address of loopback."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self
from uuid import UUID, uuid4

import tomli_w

from ring.builder import RingBuilder
from ring.device import Device, DeviceId
from ring.file import replace_file
from storage_node.formatting import format_device
from swiftlike.limits import RESERVE_BYTES_MIN
from swiftlike.node_calls import ring_name, tables
from tests.cluster.device.hosts import free_ports

COMMAND = [sys.executable, "-m", "tools.start"]
READY_S = 30.0
"""For a cluster to come up on a machine that does other things as well."""
END_S = 40.0
POWER = 4
ACCOUNT, USER, KEY = "acme", "alice", "wonderland"
ACCESS_KEY, SECRET_KEY = "ALICEKEY", "looking-glass"
OFTEN: Mapping[str, float] = {"compared_every_s": 1.0}
"""Jobs of devices, for who waits until a pass of the replicator has seen something: each second instead of each half minute."""


class Process(NamedTuple):
    """One living process."""

    pid: int
    command: str


class Span(NamedTuple):
    """From one moment to another, on the monotonic clock."""

    began_s: float
    ended_s: float


def is_alive(pid: int) -> bool:
    """Say whether a process still has its sockets: the last of its threads closes them, before only a zombie is left."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def processes_of(group: int) -> list[Process]:
    """List the living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, _parent, of_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended
            continue
        if int(of_group) == group and state != "Z":
            found.append(Process(int(entry.name), command))
    return found


def wait_for(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    """Return once `condition` holds."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, f"waited {within_s:g} s in vain until {what}"
        time.sleep(0.02)


class Program:
    """A program of ours in a process group of its own, ended by that."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        stdout: int = subprocess.DEVNULL,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start it; a prefix is a command that becomes the program, once it has put itself where that is to run."""
        self.log_path = log
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [*prefix, *COMMAND, *arguments],
                stdout=stdout,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.group = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, and see that nothing of it is left."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.group, signal.SIGKILL)
                self.process.wait(END_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        wait_for(lambda: not processes_of(self.group), f"group {self.group} has ended")

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text()

    def pid_of(self, *words: str) -> int:
        """Return the process whose command line has these words."""
        found = [one.pid for one in processes_of(self.group) if all(word in one.command for word in words)]
        assert len(found) == 1, (words, processes_of(self.group))
        return found[0]

    def worker(self, number: int) -> int:
        return self.pid_of("proxy", f"--worker {number} ")

    def device(self, name: str) -> int:
        return self.pid_of(f"--device {name} ")

    def serving(self, title: str) -> int:
        """Count how often a child has begun to serve; needs logs of level info."""
        return sum(
            f"| {title} serves on " in line and "swiftlike.supervision" in line
            for line in self.log().splitlines()
        )

    def kill_and_wait(self, title: str, pid: int) -> Span:
        """Kill a child, and wait until the one that takes its place serves; return how long it took to die."""
        before = self.serving(title)
        killed_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            time.sleep(0.001)
        dying = Span(killed_s, time.monotonic())
        wait_for(lambda: self.serving(title) > before, f"{title} serves again")
        return dying

    def interrupt(self) -> int:
        """Press Ctrl-C: the terminal tells the whole group. Returns the exit code."""
        os.killpg(self.group, signal.SIGINT)
        return self.process.wait(END_S)


class Serve(Program):
    """`swiftlike serve --json`, ready when it is made."""

    def __init__(self, data: Path, *options: str, port: int = 0) -> None:
        log = data.with_name(f"{data.name}.log")
        arguments = ["serve", "--json", "--data", str(data), "--port", str(port), *options]
        super().__init__(arguments, log, subprocess.PIPE)
        assert self.process.stdout is not None
        try:
            self.line = read_line(self.process.stdout)
            assert self.line.endswith(b"\n"), f"not ready within {READY_S:g} s: {self.log()}"
            self.ready: dict[str, Any] = json.loads(self.line)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.ready["endpoint"].removeprefix("http://").rpartition(":")
        return host, int(port)

    def rest_of_output(self) -> bytes:
        """Return what it printed after the line; it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read()


def read_line(output: IO[bytes]) -> bytes:
    """Return the first line that a process prints, or what of it came in time."""
    line, until = b"", time.monotonic() + READY_S
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(0.0, until - time.monotonic())):
            more = os.read(output.fileno(), 1)
            if not more:
                break
            line += more
    return line


@dataclass
class HandMadeHost:
    """The files of one host of a cluster that was made by hand, and its processes."""

    address: str
    root: Path
    device_ports: dict[str, int]
    proxy_port: int
    uuids: dict[str, UUID] = field(default_factory=dict)
    proxy: dict[str, object] = field(default_factory=dict)
    storage: dict[str, object] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """What makes a command run on this host, where that is not simply this machine."""

    @property
    def config(self) -> Path:
        return self.root / "host.toml"

    def write(self) -> None:
        """Write the host's file."""
        devices = [
            {"name": name, "path": f"devices/{name}", "port": port}
            for name, port in self.device_ports.items()
        ]
        table = {
            "cluster_file": "../cluster.toml",
            "ring_directory": "../rings",
            "socket_directory": "run",
            "storage": {
                "bind_host": self.address,
                "reserve_bytes": RESERVE_BYTES_MIN,
                "drain_s": 5.0,
                "restart_min_s": 0.05,
                "restart_max_s": 1.0,
                **self.storage,
                "devices": devices,
            },
            "proxy": {
                "bind_host": self.address,
                "port": self.proxy_port,
                "workers": 1,
                "drain_s": 5.0,
                "restart_min_s": 0.05,
                "restart_max_s": 1.0,
                "request_s": 10.0,
                **self.proxy,
            },
        }
        self.config.write_text(tomli_w.dumps(table))


@dataclass
class HandMade:
    """A cluster of several hosts, each with devices and a proxy; its rings were made with the builder."""

    root: Path
    hosts: list[HandMadeHost]
    replicas: int = 3
    power: int = POWER
    """Partitions of each ring, as a power of two."""
    storages: dict[str, Program] = field(default_factory=dict)
    proxies: dict[str, Program] = field(default_factory=dict)
    builders: dict[str, RingBuilder] = field(default_factory=dict)
    """By the names of their rings."""

    def publish(self) -> None:
        """Write the next epoch of every ring."""
        for name, builder in self.builders.items():
            replace_file(self.root / "rings" / f"{name}.ring", builder.publish().pieces)

    @classmethod
    def make(
        cls,
        root: Path,
        hosts: int = 3,
        devices: int = 2,
        replicas: int = 3,
        power: int = POWER,
        address_of: Callable[[int], str] = "127.0.0.{}".format,
        jobs: Mapping[str, float] | None = None,
    ) -> "HandMade":
        """Format devices, and write rings and files; hosts count from 1. `jobs` are settings of every host's devices."""
        ports = free_ports(hosts * (devices + 1))
        cluster = cls(root, [], replicas, power)
        for number in range(1, hosts + 1):
            names = [f"h{number}d{at}" for at in range(1, devices + 1)]
            home = root / f"h{number}"
            host = HandMadeHost(address_of(number), home, {name: ports.pop() for name in names}, ports.pop())
            host.storage["jobs"] = dict(jobs or {})
            for name in names:
                (home / "devices" / name).mkdir(parents=True)
                host.uuids[name] = format_device(home / "devices" / name)
            cluster.hosts.append(host)
        cluster.write()
        return cluster

    def write(self) -> None:
        """Write all files and rings."""
        cluster = {
            "hash_seed": "00000000c0ffee00",
            "secret_file": "secret",
            "policies": [{"index": 0, "name": "standard", "replicas": self.replicas}],
            "users": [
                {
                    "account": ACCOUNT,
                    "user": USER,
                    "key": KEY,
                    "roles": ["admin"],
                    "s3_access_key": ACCESS_KEY,
                    "s3_secret_key": SECRET_KEY,
                }
            ],
        }
        for name, text in (
            ("secret", "the secret of a cluster made by hand"),
            ("cluster.toml", tomli_w.dumps(cluster)),
        ):
            (self.root / name).write_text(text)
            (self.root / name).chmod(0o600)
        for host in self.hosts:
            host.write()
        (self.root / "rings").mkdir(exist_ok=True)
        for table in tables([0]):
            builder = RingBuilder(uuid4(), ring_name(table), self.power, float(self.replicas), 1.0)
            for zone, host in enumerate(self.hosts, 1):
                for name, port in host.device_ports.items():
                    place = DeviceId(builder.next_id()), 1, zone, host.address, port, name
                    builder.add(Device(*place, 100.0, "", host.uuids[name]))
            builder.rebalance(1_700_000_000)
            self.builders[builder.name] = builder
            replace_file(self.root / "rings" / f"{builder.name}.ring", builder.publish().pieces)

    def wait_serving(self, host: HandMadeHost) -> None:
        """Wait until a host serves with all that it has."""
        proxy, storage = self.proxies[host.address], self.storages[host.address]
        wait_for(lambda: proxy.serving("worker 1"), f"the proxy of {host.address} serves", READY_S)
        for name in host.device_ports:
            wait_for(lambda name=name: storage.serving(f"device {name}"), f"{name} serves", READY_S)  # type: ignore[misc]

    def start_storage(self, host: HandMadeHost) -> Program:
        log = host.root / f"storage-{len(list(host.root.iterdir()))}.log"
        program = Program(["storage", "--config", str(host.config)], log, prefix=host.prefix)
        self.storages[host.address] = program
        return program

    def start_proxy(self, host: HandMadeHost) -> Program:
        log = host.root / f"proxy-{len(list(host.root.iterdir()))}.log"
        program = Program(["proxy", "--config", str(host.config)], log, prefix=host.prefix)
        self.proxies[host.address] = program
        return program

    @contextmanager
    def running(self) -> Iterator["HandMade"]:
        """Run all hosts."""
        try:
            for host in self.hosts:
                self.start_storage(host)
            for host in self.hosts:
                self.start_proxy(host)
            for host in self.hosts:
                self.wait_serving(host)
            yield self
        finally:
            # All are told before any is waited for.
            programs = [*self.proxies.values(), *self.storages.values()]
            for program in programs:
                if program.process.poll() is None:
                    program.process.terminate()
            for program in programs:
                program.__exit__(None, None, None)
