"""Where the time of one request goes: CPU of each process, calls, batches and syncs, of our cluster under one load.

The cluster and the load are those of `compare`. What is told is for each request: CPU seconds, user and system, of
the workers, the devices and the load itself; the calls that the devices answered; the batches that they committed, each of
which syncs its volume (where it has bodies) and its index. With `--spy DIRECTORY`, and py-spy at hand, every process's
stacks are sampled into files there, and the CPU of workers and devices is split by stage in proportion to the samples: the
innermost function that names a stage takes the sample, and those that wait are left out. Sampling slows what it samples.

    python -m benchmarks.stages [PUT GET DELETE LIST JSON] [--connections 32] [--seconds 4] [--spy DIR] [--directory DIR]
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.compare import Load, prepare, run_load
from benchmarks.our_cluster import ServeFailedError, our_cluster
from benchmarks.tables import table
from swiftlike.config import HostConfig, load_cluster, load_host
from swiftlike.node_client import NodeClient
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import UnixAddress

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KINDS: Final = ("PUT", "GET", "DELETE", "LIST", "JSON")


_SWITCHES: Final = re.compile(r"ctxt_switches:\s+(\d+)")

_WAITING: Final = re.compile(
    r"(_worker|Condition\.wait|Condition\.__enter__|Runner\.run|Disk\._flush_file|IndexChange\.commit) \("
)
"""Innermost functions of threads that wait: for work, for events, for the disk."""

_STAGES: Final = {
    "worker": (
        (
            "request read and parsed",
            r"RequestHandler\.data_received|parse_target|parse_resource|Exchange\.body",
        ),
        ("answer sent: socket", r"Exchange\.write "),
        ("answer's head, log, metrics", r"write_head|AccessLog\.|MeasuredLog\.|object_headers|Server\._send"),
        ("who asks, and may he", r"identify |require |require_by_acl|decide "),
        ("body collected and hashed", r"Arriving\.|RequestBody\."),
        ("container looked up", r"Containers\.(look|read)"),
        ("owners looked up", r"Nodes\.(place|client)"),
        ("calls encoded", r"CallsConnection\.(ask|tell|_send_call)|NodeClient\.(ask|_ask)|Look\.ask"),
        ("calls sent: socket", r"Connection\.flush"),
        (
            "answers decoded",
            r"FrameDecoder\.received|CallsConnection\.handle|NodeClient\._read|_checked|read_found",
        ),
        ("answers judged", r"judge |is_agreed"),
        ("debts paid, usage counted", r"Debts\.|UsageCarrier\."),
        ("rows brought", r"Rows\.|_Row\.|ObjectListing\."),
        ("pages unpacked and written", r"unpack_rows|write_objects|NodeClient\.list_rows"),
        ("rest of the quorum client", r"proxy/cluster/"),
        ("rest of the domain and dialect", r"proxy/(store|swift_api|dialects|auth)"),
        ("rest of the server and loop", r""),
    ),
    "device": (
        ("answers sent: socket", r"Connection\.flush"),
        ("answers encoded", r"_answer \(swiftlike/rpc|pack_list"),
        ("calls decoded", r"FrameDecoder\.received|_checked"),
        ("fields parsed", r"Fields\.|DeviceService\._(place|placing|key|table)|parse_get|is_path"),
        ("offers applied", r"Accept\.apply"),
        ("rows applied", r"UpsertRows\.apply"),
        ("debts cleared", r"Pay\.apply"),
        ("bodies written", r"Volumes\.write"),
        ("rest of a batch", r"Device\.(commit|_commit)|GroupCommit\._(run|take)"),
        ("queued, woken, answered", r"GroupCommit\."),
        ("body read and verified", r"OpenBody\.|Extent\.|Volumes\.read_warm"),
        ("page read", r"TableStore\.list_rows|read_page"),
        ("key looked up", r"Device\.(find|look|glance|_get)|TableStore\."),
        ("tasks of calls", r"create_task|_Calls\._(watch|done)|_Begun\."),
        ("rest of the service and loop", r""),
    ),
}


class Seen(NamedTuple):
    """What the cluster has spent and done up to a moment."""

    cpu_s: dict[str, tuple[float, float]]
    """User and system, by what a process is."""
    switches: Counter[str]
    """Times that threads left a core, by what a process is."""
    done: Counter[str]
    """What the devices count, summed."""


def main() -> int:
    """Load, look before and after, and tell the difference."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as home,
        our_cluster(Path(home)) as endpoint,
    ):
        host_file = Path(home) / "data" / "host.toml"
        processes = _processes(host_file)
        prepare(endpoint)
        runs = count(1)
        made = 0
        for kind in options.kinds:
            load = Load(kind, options.connections, None)
            if kind == "PUT":
                made = next(runs)
            before = asyncio.run(_look(host_file, processes))
            with _spying(options.spy, kind, processes):
                # Fewer seconds to delete than it took to make, so that there is always something left to delete.
                seconds = max(1, options.seconds // 3) if kind == "DELETE" else options.seconds
                figure = run_load(endpoint, load, seconds, made)
            after = asyncio.run(_look(host_file, processes))
            requests = round(figure.per_s * figure.seconds)
            print(f"\n{load.name}: {figure.per_s:,.0f}/s, p50 {figure.p50_ms:.2f} ms, failed {figure.failed}")
            print(_told(before, after, requests, figure.load_cpu_s, figure.seconds))
            for name in _STAGES if options.spy is not None else ():
                cpu_s = sum(after.cpu_s[name]) - sum(before.cpu_s[name])
                print(f"\n{load.name}, by stage\n{_by_stage(options.spy, kind, name, cpu_s / requests)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "kinds", nargs="*", default=list(_KINDS), help="DELETE removes what the PUT before it made"
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument(
        "--spy", type=Path, help="leave samples of all stacks in this directory (needs py-spy)"
    )
    parser.add_argument("--directory", type=Path, help="where the cluster keeps its data")
    options = parser.parse_args()
    if strange := set(options.kinds) - set(_KINDS):
        parser.error(f"{strange.pop()} is none of {', '.join(_KINDS)}")
    return options


def _processes(host_file: Path) -> dict[int, str]:
    """Return the processes of a cluster on this machine by what they are: those that were told its file."""
    found = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            words = (directory / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(host_file) in words:
            for module, name in (("proxy.process", "worker"), ("device_process", "device")):
                if any(word.endswith(module) for word in words):
                    found[int(directory.name)] = name
    return found


async def _look(host_file: Path, processes: dict[int, str]) -> Seen:
    cpu_s: dict[str, tuple[float, float]] = {}
    switches: Counter[str] = Counter()
    for pid, name in processes.items():
        switches[name] += _switches(pid)
        user, system = cpu_s.get(name, (0.0, 0.0))
        more_user, more_system = _cpu_s(pid)
        cpu_s[name] = user + more_user, system + more_system
    host = load_host(host_file)
    secret = load_cluster(host.cluster_file).rpc_secret
    done: Counter[str] = Counter()
    async with Client(SocketNetwork(), secret) as transport:
        for stats in await asyncio.gather(*(_stats(transport, host, name) for name in _names(host))):
            done["batches"] += stats["device"]["batches"]
            done["operations"] += stats["device"]["operations"]
            for ended, number in stats["answers"].items():
                if not ended.startswith("stats "):
                    done[f"call {ended}"] += number
    return Seen(cpu_s, switches, done)


def _cpu_s(pid: int) -> tuple[float, float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / _TICKS_PER_S, int(fields[12]) / _TICKS_PER_S


def _switches(pid: int) -> int:
    """Count how often the threads of a process have left a core: to wait, or for others."""
    statuses = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(int(number) for status in statuses for number in _SWITCHES.findall(status))


def _names(host: HostConfig) -> Iterator[str]:
    assert host.storage is not None, "serve has devices"
    return (device.name for device in host.storage.devices)


async def _stats(transport: Client, host: HostConfig, name: str) -> Any:
    address = UnixAddress(str(host.socket_directory / f"{name}.sock"))
    return await NodeClient(transport, address, lambda table: 1).stats()


@contextmanager
def _spying(directory: Path | None, kind: str, processes: dict[int, str]) -> Iterator[None]:
    spy = (
        None
        if directory is None
        else shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    )
    if directory is not None and spy is None:
        raise SystemExit("py-spy is not installed: pip install py-spy")
    if directory is None or spy is None:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    common = [spy, "record", "--rate", "250", "--threads", "--function", "--format", "raw"]
    spies = [
        subprocess.Popen(
            [*common, "--pid", str(pid), "--output", str(directory / f"{kind}-{name}-{pid}.raw")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for pid, name in processes.items()
    ]
    try:
        yield
    finally:
        for each in spies:
            each.send_signal(2)
        for each in spies:
            each.wait()


def _told(before: Seen, after: Seen, requests: int, load_cpu_s: float, seconds: float) -> str:
    rows = []
    for name, (user, system) in after.cpu_s.items():
        user_s, system_s = user - before.cpu_s[name][0], system - before.cpu_s[name][1]
        rows.append(_row(f"{name}s, user", user_s, requests, seconds))
        rows.append(_row(f"{name}s, system", system_s, requests, seconds))
    rows.append(_row("load", load_cpu_s, requests, seconds))
    for name, number in (after.switches - before.switches).items():
        rows.append([f"switches of {name}s", f"{number / requests:.1f}", ""])
    done = after.done - before.done
    operations, batches = done.pop("operations", 0), done.pop("batches", 0)
    for what, number in sorted(done.items()):
        rows.append([what, f"{number / requests:.2f}", ""])
    rows.append(["operations committed", f"{operations / requests:.2f}", ""])
    rows.append(
        ["batches", f"{batches / requests:.2f}", f"{operations / max(1, batches):.1f} operations each"]
    )
    return table(["of one request", "", ""], rows)


def _by_stage(directory: Path, kind: str, name: str, cpu_s: float) -> str:
    """Split the CPU of one request in processes of one name by what their samples were in."""
    stages = [(stage, re.compile(functions)) for stage, functions in _STAGES[name]]
    seen: Counter[str] = Counter()
    for file in directory.glob(f"{kind}-{name}-*.raw"):
        for line in file.read_text().splitlines():
            stack, _, number = line.rpartition(" ")
            frames = stack.split(";")
            if not _WAITING.match(frames[-1]):
                seen[_stage_of(frames, stages)] += int(number)
    total = max(1, seen.total())
    rows = [
        [stage, f"{cpu_s * seen[stage] / total * 1e6:,.0f} us"] for stage, _ in _STAGES[name] if seen[stage]
    ]
    return table([f"{name}s", "CPU"], rows)


def _stage_of(frames: Sequence[str], stages: Sequence[tuple[str, re.Pattern[str]]]) -> str:
    for frame in reversed(frames):
        for stage, functions in stages[:-1]:
            if functions.search(frame):
                return stage
    return stages[-1][0]


def _row(what: str, spent_s: float, requests: int, seconds: float) -> list[str]:
    return [
        f"CPU of {what}",
        f"{spent_s / requests * 1e6:,.0f} us",
        f"{spent_s / seconds * 100:.0f}% of a core",
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServeFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
