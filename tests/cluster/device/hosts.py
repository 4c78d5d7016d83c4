"""A host of the tests: formatted devices, rings and configuration files in a directory, and real processes on them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from ring.device import Device, DeviceId
from ring.file import RingFields, write_ring
from ring.ring import CHECKSUM_BYTES
from storage_node.formatting import format_device
from swiftlike.limits import RESERVE_BYTES_MIN
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, objects
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import Outcome, TcpAddress, UnixAddress
from swiftlike.seeds import bound_secret

SECRET = "the secret of the cluster under test"
SEED = 0x5EED
RPC_SECRET = bound_secret(SECRET.encode(), SEED)
POWER = 2
OBJECTS = objects(0)
TABLES = (ACCOUNTS, CONTAINERS, OBJECTS)
RINGS = ("account", "container", "object-0")


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, below the range that the kernel hands to clients."""
    found: list[int] = []
    start = 15_000 + os.getpid() * 37 % 15_000
    for port in range(start, 32_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@dataclass
class Host:
    """Files of one host. Change `settings` before a start, or write them again and send SIGHUP."""

    root: Path
    names: list[str]
    ports: list[int] = field(default_factory=list)
    uuids: dict[str, UUID] = field(default_factory=dict)
    settings: dict[str, object] = field(
        default_factory=lambda: {
            "reserve_bytes": RESERVE_BYTES_MIN,
            "drain_s": 5.0,
            "restart_min_s": 0.05,
            "restart_max_s": 0.2,
        }
    )
    log_level: str = "info"
    extra: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, devices: int = 1) -> "Host":
        """Format devices, and write rings and configuration."""
        host = cls(root, [f"d{number}" for number in range(1, devices + 1)])
        host.ports = free_ports(devices)
        for name in host.names:
            host.device_path(name).mkdir()
            host.uuids[name] = format_device(host.device_path(name))
        secret = root / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        host.write_cluster()
        host.write_rings()
        host.write()
        return host

    @property
    def config(self) -> Path:
        return self.root / "host.toml"

    def device_path(self, name: str) -> Path:
        return self.root / name

    def unix(self, name: str) -> UnixAddress:
        return UnixAddress(str(self.root / "run" / f"{name}.sock"))

    def tcp(self, name: str) -> TcpAddress:
        return TcpAddress("127.0.0.1", self.ports[self.names.index(name)])

    def write_cluster(self, text: str = "") -> None:
        path = self.root / "cluster.toml"
        path.write_text(
            f'hash_seed = "{SEED:016x}"\nsecret_file = "secret"\n{text}'
            '[[policies]]\nindex = 0\nname = "standard"\nreplicas = 1\n'
        )
        path.chmod(0o600)

    def write(self, names: Sequence[str] | None = None) -> None:
        """Write the host's file, for these devices or all."""
        lines = [
            'cluster_file = "cluster.toml"',
            'ring_directory = "rings"',
            'socket_directory = "run"',
            f'log_level = "{self.log_level}"',
            "[storage]",
            'bind_host = "127.0.0.1"',
            *(f"{key} = {value}" for key, value in self.settings.items()),
        ]
        for name in self.names if names is None else names:
            lines += ["[[storage.devices]]", f'name = "{name}"', f'path = "{name}"']
            lines += [f"port = {self.ports[self.names.index(name)]}", self.extra.get(name, "")]
        self.config.write_text("\n".join(lines) + "\n")

    def write_rings(
        self, epoch: int = 1, ancestors: dict[str, bytes] | None = None, founding: bytes = b""
    ) -> dict[str, bytes]:
        """Write one ring a table, all partitions on the first device; return the ancestors of the next epoch."""
        (self.root / "rings").mkdir(exist_ok=True)
        lines: dict[str, bytes] = {}
        for name in RINGS:
            before = (ancestors or {}).get(name, b"")
            assert len(before) == (epoch - 1) * CHECKSUM_BYTES
            devices = [
                Device(
                    DeviceId(at), 1, 1, "127.0.0.1", self.ports[at], device, 100.0, "", self.uuids.get(device)
                )
                for at, device in enumerate(self.names)
            ]
            fields = RingFields(
                name=name,
                builder_id=UUID(int=0xB),
                epoch=epoch,
                part_power=POWER,
                replicas=1.0,
                devices=devices,
                rows=[array("I", [0] * (1 << POWER))],
                ancestors=before,
                moving_partitions=array("I"),
                moving_rows=[],
                founding=founding,
            )
            lines[name] = before + write_ring(self.root / "rings" / f"{name}.ring", fields)
        return lines


class Running:
    """A process of the tests, ended by its own id."""

    def __init__(self, command: Sequence[str], log_path: Path) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL
            )
        self.pid = self.process.pid

    def log(self) -> str:
        return self.log_path.read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self, within_s: float = 20) -> int:
        """Return the exit code."""
        return await asyncio.to_thread(self.process.wait, within_s)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start_supervisor(host: Host) -> Running:
    """Run `swiftlike storage` on a host."""
    command = [sys.executable, "-c", "from tools.start import main; main()"]
    return Running([*command, "storage", "--config", str(host.config)], host.root / "supervisor.log")


def start_device(host: Host, name: str = "d1", prelude: str = "", options: Sequence[str] = ()) -> Running:
    """Run one device's process alone, after some code of the test's own."""
    code = f"import sys; {prelude}\nfrom storage_node.process import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, "--config", str(host.config), "--device", name, *options]
    return Running(command, host.root / f"{name}.log")


async def wait_until(condition: Callable[[], object], within_s: float = 20) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (looked at from outside; nothing inside should signal it)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def client_of(
    host: Host, name: str = "d1", epoch: int = 1, **options: float
) -> AsyncIterator[NodeClient]:
    """Call a device over its Unix socket."""
    async with Client(SocketNetwork(), RPC_SECRET) as transport:
        yield NodeClient(transport, host.unix(name), lambda table: epoch, **options)


async def wait_serving(client: NodeClient, within_s: float = 20) -> int:
    """Return the process id of the device once it answers."""
    until = time.monotonic() + within_s
    while (pid := await _pid_of(client)) is None:
        assert time.monotonic() < until, f"{client.peer} does not answer"
        await asyncio.sleep(0.02)
    return pid


async def _pid_of(client: NodeClient) -> int | None:
    try:
        return int((await client.health())["pid"])
    except NodeFailed as failed:
        if failed.reply.outcome is Outcome.ERROR:
            raise
        return None


async def vote(client: NodeClient) -> None:
    """Let a device vote on everything."""
    for table in TABLES:
        for partition in range(1 << POWER):
            seen = await client.standing(table, partition)
            await client.set_standing(table, partition, seen._replace(votes=True), seen=seen)
