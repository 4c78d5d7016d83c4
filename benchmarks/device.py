"""One device process under load over its Unix socket, strict fsync, beside the machine's raw rates in the same run.

    python -m benchmarks.device [--seconds 5] [--callers 2] [--in-flight 64] [--directory DIR] [--only put,get,read,write]

Rates of the raw disk come from the same directory, right before and after ours, so that a noisy neighbour meets both;
each pair is repeated and the median ratio counts.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import lmdb
import uvloop

from benchmarks.lean_reader import LeanReader
from benchmarks.tables import table
from swiftlike.entries import Entry
from swiftlike.joined_offers import JoinedOffers, Offering
from swiftlike.node_calls import Acceptance, Method
from swiftlike.node_client import NodeClient
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import UnixAddress
from swiftlike.timestamps import Ballot, Timestamp, WriteId
from tests.cluster.device.hosts import (
    OBJECTS,
    RPC_SECRET,
    Host,
    Running,
    client_of,
    start_device,
    vote,
    wait_serving,
)

ENDED_WITHIN_S: Final = 60.0
"""After its time is over, a caller that has not told what it did has died."""
SMALL_BYTES = 4096
READ_BYTES = 8 * 1024**2
CHUNK_BYTES = 256 * 1024
WRITE_BYTES = 256 * 1024**2
REPEATS = 3


@dataclass(frozen=True)
class Load:
    """What one caller process does."""

    what: str
    socket: str
    caller: int
    in_flight: int
    seconds: float
    known: int = 0
    """Objects that were put before by each caller, for gets."""


@dataclass(frozen=True)
class Result:
    """What callers achieved, and what the device's process spent on it."""

    operations: int
    seconds: float
    cpu_s: float
    batch: int = 0
    """Operations in one of its batches, in the mean."""
    least: int = 0
    """Operations of the caller that did the fewest."""

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    @property
    def per_core(self) -> float:
        return self.operations / self.cpu_s if self.cpu_s else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--callers", type=int, default=2, help="caller processes")
    parser.add_argument("--in-flight", type=int, default=64, help="calls in flight, all callers together")
    parser.add_argument(
        "--directory", type=Path, help="where to put the device; default: the temporary directory"
    )
    parser.add_argument("--only", default="put,get,read,write")
    parser.add_argument("--profile", help="pass the device's process to py-spy, and write its profile here")
    options = parser.parse_args()
    wanted = options.only.split(",")
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as name, a_device(Path(name)) as (host, device):
        bench = Bench(Path(name), host, device, options.callers, options.in_flight, options.seconds)
        with profiled(device.pid, options.profile):
            for section, measure in (
                ("put", bench.puts),
                ("get", bench.gets),
                ("read", bench.reads),
                ("write", bench.writes),
            ):
                if section in wanted:
                    rows += measure()
    print(table(("measured", "ours", "raw", "ratio", "goal"), rows))


@contextmanager
def a_device(root: Path) -> Iterator[tuple[Host, Running]]:
    """Run a device's process that votes on everything."""
    host = Host.make(root)
    device = start_device(host)

    async def prepare() -> None:
        async with client_of(host) as client:
            await wait_serving(client)
            await vote(client)

    try:
        asyncio.run(prepare())
        yield host, device
    finally:
        device.end()


@contextmanager
def profiled(pid: int, target: str | None) -> Iterator[None]:
    """Let py-spy, if it is installed, watch the device."""
    if target is None:
        yield
        return
    spy = subprocess.Popen(
        [shutil.which("py-spy") or "py-spy", "record", "-t", "-o", target, "-f", "raw", "-p", str(pid)]
    )
    try:
        yield
    finally:
        spy.send_signal(signal.SIGINT)  # which lets it write what it has
        spy.wait()


@dataclass
class Bench:
    """The sections."""

    root: Path
    host: Host
    device: Running
    callers: int
    in_flight: int
    seconds: float
    known: int = 0

    def puts(self) -> list[tuple[str, ...]]:
        """4 KiB puts, beside one file per object and beside batches without RPC."""
        files, batches, ours = [], [], []
        batch = self.in_flight // 2
        for _ in range(REPEATS):
            around = [self._raw_puts(batch)]
            result = self.load("put")
            batch = result.batch
            around.append(self._raw_puts(batch))
            ours.append(result)
            files.append(statistics.mean(pair[0] for pair in around))
            batches.append(statistics.mean(pair[1] for pair in around))
            self.known = result.least
        rate = statistics.median(result.rate for result in ours)
        cpu_us = statistics.median(result.cpu_s / result.operations for result in ours) * 1e6
        to_files = statistics.median(result.rate / raw for result, raw in zip(ours, files, strict=True))
        to_batches = statistics.median(result.rate / raw for result, raw in zip(ours, batches, strict=True))
        shown = f"{rate:,.0f}/s ({cpu_us:.0f} us CPU each)"
        return [
            (
                f"4 KiB put, {self.in_flight} in flight / one file per object",
                shown,
                f"{statistics.median(files):,.0f}/s",
                f"{to_files:.2f}",
                ">= 3",
            ),
            (
                f"4 KiB put, {self.in_flight} in flight / raw batches of {batch}",
                shown,
                f"{statistics.median(batches):,.0f}/s",
                f"{to_batches:.2f}",
                ">= 0.40",
            ),
        ]

    def _raw_puts(self, batch: int) -> tuple[float, float]:
        """Return the rates of one file per object, and of raw batches."""
        seconds = self.seconds / 4
        return (
            one_file_per_object(self.root / "files", self.in_flight, seconds),
            raw_batches(self.root / "batches", batch, seconds),
        )

    def gets(self) -> list[tuple[str, ...]]:
        """Warm 4 KiB gets for each second of the device's CPU."""
        if not self.known:
            self.known = self.load("put").least
        results = [self.load("get") for _ in range(REPEATS)]
        rate = statistics.median(result.rate for result in results)
        per_core = statistics.median(result.per_core for result in results)
        return [
            (
                "4 KiB get, warm, per CPU second",
                f"{per_core:,.0f}/s ({rate:,.0f}/s on the clock)",
                "",
                "",
                ">= 25,000/s",
            )
        ]

    def reads(self) -> list[tuple[str, ...]]:
        """8 MiB bodies in one stream each, beside pread and send; on the clock, and for each second of the sender's CPU."""
        asyncio.run(put_large(self.host, READ_BYTES))
        plain_file = self.root / "plain"
        plain_file.write_bytes(os.urandom(READ_BYTES))
        on_clock, on_cpu = [], []
        for _ in range(REPEATS):
            raw = plain_reads(plain_file, self.root / "plain.sock", self.seconds / 2)
            result = self.load("read", callers=1, in_flight=1)
            on_clock.append((result.rate * READ_BYTES, raw.rate * READ_BYTES))
            on_cpu.append((result.per_core * READ_BYTES, raw.per_core * READ_BYTES))
        return [
            _speeds("8 MiB sequential read / pread + send", on_clock, ">= 0.60"),
            _speeds("... for each CPU second of the sender", on_cpu, ""),
        ]

    def writes(self) -> list[tuple[str, ...]]:
        """256 MiB in one stream, beside dd with one fsync."""
        pairs = []
        for _ in range(REPEATS):
            before = dd(self.root / "dd")
            result = self.load("write", callers=1, in_flight=1)
            pairs.append((WRITE_BYTES / result.seconds, statistics.mean((before, dd(self.root / "dd")))))
        return [_speeds("256 MiB streamed write / dd, one fsync", pairs, ">= 0.80")]

    def load(self, what: str, callers: int | None = None, in_flight: int | None = None) -> Result:
        """Run caller processes against the device."""
        callers = callers or self.callers
        each = (in_flight or self.in_flight) // callers
        context = multiprocessing.get_context("spawn")
        results: Any = context.Queue()
        go = context.Event()
        ready = context.Semaphore(0)
        processes: list[BaseProcess] = []
        for caller in range(callers):
            load = Load(what, self.host.unix("d1").path, caller, each, self.seconds, self.known)
            processes.append(context.Process(target=run_load, args=(load, ready, go, results)))
        for process in processes:
            process.start()
        for _ in processes:
            ready.acquire()
        began_cpu_s, began_batches = cpu_s(self.device.pid), batches_of(self.host)
        go.set()
        found = [results.get(timeout=self.seconds + ENDED_WITHIN_S) for _ in processes]
        spent_s, batches = cpu_s(self.device.pid) - began_cpu_s, batches_of(self.host)
        for process in processes:
            process.join()
        batch = (batches[1] - began_batches[1]) // max(1, batches[0] - began_batches[0])
        each_done = [done for done, _ in found]
        return Result(sum(each_done), max(seconds for _, seconds in found), spent_s, batch, min(each_done))


def _speeds(title: str, pairs: list[tuple[float, float]], goal: str) -> tuple[str, ...]:
    ours = statistics.median(one for one, _ in pairs)
    raw = statistics.median(other for _, other in pairs)
    ratio = statistics.median(one / other for one, other in pairs)
    return title, f"{ours / 1e6:,.0f} MB/s", f"{raw / 1e6:,.0f} MB/s", f"{ratio:.2f}", goal


# --- callers ------------------------------------------------------------------------------------------------------


def run_load(load: Load, ready: Any, go: Any, results: Any) -> None:
    """Be one caller process."""

    async def run() -> None:
        async with Client(SocketNetwork(), RPC_SECRET) as transport:
            client = NodeClient(transport, UnixAddress(load.socket), lambda table: 1, timeout_s=60)
            await client.health()
            ready.release()
            await asyncio.to_thread(go.wait)
            began = time.perf_counter()
            done = await LOADS[load.what](client, load, began + load.seconds)
            results.put((done, time.perf_counter() - began))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def load_puts(client: NodeClient, load: Load, until: float) -> int:
    """Put new objects, or newer versions of those of an earlier round, on the way that a worker's offers take."""
    numbers = count()
    body = os.urandom(SMALL_BYTES)
    offers = JoinedOffers(client.transport)

    async def lane() -> int:
        done = 0
        while time.perf_counter() < until:
            path = path_of(load.caller, load.known + next(numbers))
            offering = Offering(OBJECTS, path, entry_of(len(body)), body)
            answer = await offers.ask(client.peer, 1, offering, client.transport.now() + 60)
            assert isinstance(answer, Acceptance)
            assert answer.counts
            done += 1
        return done

    return sum(await asyncio.gather(*(lane() for _ in range(load.in_flight))))


async def load_gets(client: NodeClient, load: Load, until: float) -> int:
    """Get objects that were put."""
    numbers = count()

    async def lane() -> int:
        done = 0
        while time.perf_counter() < until:
            found = await client.get(OBJECTS, path_of(load.caller, next(numbers) * 7919 % load.known))
            assert found.body is not None
            done += 1
        return done

    return sum(await asyncio.gather(*(lane() for _ in range(load.in_flight))))


async def load_reads(client: NodeClient, load: Load, until: float) -> int:
    """Stream a large body again and again; this process has nothing else to do, so it may block."""
    done = 0
    header = {"table": OBJECTS, "path": b"acc\0con\0large", "epoch": 1}
    with LeanReader(load.socket, RPC_SECRET) as reader:
        while time.perf_counter() < until:
            assert reader.read(Method.GET_STREAM, header) == READ_BYTES
            done += 1
    return done


async def load_writes(client: NodeClient, load: Load, until: float) -> int:
    """Stream one large body in."""
    entry = entry_of(WRITE_BYTES)
    chunk = bytes(1024**2)
    async with client.put_stream(OBJECTS, b"acc\0con\0written", entry.body_id, WRITE_BYTES) as stream:
        for _ in range(WRITE_BYTES // len(chunk)):
            await stream.send(chunk)
        assert (await stream.commit(entry)).counts
    return 1


LOADS: dict[str, Callable[[NodeClient, Load, float], Any]] = {
    "put": load_puts,
    "get": load_gets,
    "read": load_reads,
    "write": load_writes,
}

_serial = count(os.getpid() << 32)


def entry_of(size: int) -> Entry:
    """Return the entry of a PUT, now."""
    micros = time.time_ns() // 1000
    write_id = WriteId(Timestamp.of(micros, next(_serial)))
    return Entry(Ballot.of(micros, next(_serial)), write_id, micros, body_id=write_id, size=size)


def path_of(caller: int, number: int) -> bytes:
    """Return the path of one object."""
    return b"account\0container\0objects/%d/%010d" % (caller, number)


def batches_of(host: Host) -> tuple[int, int]:
    """Return how many batches the device has committed, and how many operations in them."""

    async def ask() -> tuple[int, int]:
        async with client_of(host) as client:
            counters = (await client.stats())["device"]
            return counters["batches"], counters["operations"]

    return asyncio.run(ask())


async def put_large(host: Host, size: int) -> None:
    """Put the body that is read."""
    async with client_of(host) as client:
        entry = entry_of(size)
        async with client.put_stream(OBJECTS, b"acc\0con\0large", entry.body_id, size) as stream:
            await stream.send(os.urandom(size))
            assert (await stream.commit(entry)).counts


# --- what the machine can do ----------------------------------------------------------------------------------------


def one_file_per_object(root: Path, threads: int, seconds: float) -> float:
    """Create, write, fsync, rename, fsync the directory; as many at once as calls are in flight."""
    root.mkdir()
    body = os.urandom(SMALL_BYTES)
    until = time.perf_counter() + seconds

    def lane(number: int) -> int:
        done = 0
        while time.perf_counter() < until:
            beside = root / f"{number}-{done}.new"
            fd = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(fd, body)
            os.fsync(fd)
            os.close(fd)
            beside.rename(root / f"{number}-{done}")
            directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(lane, range(threads)))
    shutil.rmtree(root)
    return done / seconds


def raw_batches(root: Path, batch: int, seconds: float) -> float:
    """Append the bodies of a batch, fdatasync, commit their entries to LMDB; nothing else."""
    root.mkdir()
    body = os.urandom(SMALL_BYTES)
    value = os.urandom(250)
    numbers = count()
    env = lmdb.open(str(root / "index"), map_size=1 << 34)
    fd = os.open(root / "volume", os.O_CREAT | os.O_WRONLY)
    done, at, began = 0, 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        at += os.pwritev(fd, [body] * batch, at)
        os.fdatasync(fd)
        with env.begin(write=True) as transaction:
            for _ in range(batch):
                number = next(numbers)
                transaction.put((number * 2654435761 % 65536).to_bytes(2, "big") + path_of(0, number), value)
        done += batch
    rate = done / (time.perf_counter() - began)
    os.close(fd)
    env.close()
    shutil.rmtree(root)
    return rate


def plain_reads(path: Path, address: Path, seconds: float) -> Result:
    """Send a file with pread and send over a Unix socket to another process, as fast as that takes it."""
    context = multiprocessing.get_context("spawn")
    spent: Any = context.Queue()
    sender = context.Process(target=_send_plainly, args=(str(path), str(address), spent))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        sender.start()
        connection, _ = listener.accept()
    space = memoryview(bytearray(CHUNK_BYTES))
    chunks, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        connection.recv_into(space, CHUNK_BYTES, socket.MSG_WAITALL)
        chunks += 1
    passed_s = time.perf_counter() - began
    connection.close()
    sender_cpu_s = spent.get()
    sender.join()
    address.unlink()
    return Result(chunks * CHUNK_BYTES // READ_BYTES, passed_s, sender_cpu_s)


def _send_plainly(path: str, address: str, spent: Any) -> None:
    fd = os.open(path, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        began_s = time.process_time()
        try:
            while True:
                for at in range(0, READ_BYTES, CHUNK_BYTES):
                    connection.sendall(os.pread(fd, CHUNK_BYTES, at))
        except (BrokenPipeError, ConnectionResetError):
            spent.put(time.process_time() - began_s)


def dd(path: Path) -> float:
    """Return what dd writes a second, with one fsync at the end."""
    command = [
        "dd",
        "if=/dev/zero",
        f"of={path}",
        "bs=1M",
        f"count={WRITE_BYTES >> 20}",
        "conv=fsync",
        "status=none",
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    rate = WRITE_BYTES / (time.perf_counter() - began)
    path.unlink()
    return rate


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
