"""What healing costs: a pass over devices that agree, copies that are missing, a device that was emptied; on real devices and disks.

    agree    two devices of N objects each make a pass over the other, in one process, so that its CPU is that of both ends;
             OpenStack Swift's object replicator does the same on as many files as can be made in reasonable time
    missing  one of three hosts is away while about 10,000 objects are written through the proxy, and then comes back
    emptied  the device of one of three hosts is replaced by an empty one, while clients read at a steady pace

usage: python -m benchmarks.healing [agree] [missing] [emptied] [--objects N] [--emptied-objects N] [--peer-objects N] [--directory DIR] [--json FILE]

Exit status: 0 when every goal that was measured is met, 1 when one is missed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.compare import Load, run_load
from benchmarks.our_healing import POWER
from benchmarks.peer_swift_cluster import PeerFailedError
from benchmarks.peer_swift_healing import measure as measure_swift
from benchmarks.peers import PeerMissingError
from benchmarks.processes import Figures, figures_of_module
from benchmarks.serving import Endpoint
from benchmarks.tables import table
from storage_node.formatting import format_device
from swiftlike.node_calls import CONTAINERS
from swiftlike.node_client import NodeClient, NodeFailed
from tests.cluster.serve.clusters import ACCOUNT, KEY, USER, HandMade, HandMadeHost, wait_for
from tests.cluster.serve.looking import OBJECTS, TABLES, ask_all, differing, holding
from tests.cluster.serve.swift_client import Swift

SEED: Final = 0xC0FFEE00
"""Of a cluster that is made by hand."""
MISSING: Final = 10_000
CONNECTIONS: Final = 32
WRITING_S: Final = 10
READS_PER_S: Final = 200
CALM_S: Final = 10.0
HEALED_S: Final = 1800.0
LOOKED_EVERY_S: Final = 1.0
"""Between two looks whether the one that heals votes, and then whether all hold the same, which takes tens of milliseconds of
each loop: whoever reads meanwhile would wait for that."""

CPU_S_GOAL: Final = 1.0
PEER_RATIO_GOAL: Final = 100.0
MISSING_RATE_GOAL: Final = 0.5
EMPTIED_TIME_GOAL: Final = 1.0
P99_GOAL: Final = 2.0


class Row(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    goal: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Lay it out."""
        return self.what, self.found, self.goal, {None: "", True: "met", False: "missed"}[self.met]


# --- two devices that agree -------------------------------------------------------------------------------------


def measure_agreeing(scratch: Path, count: int, peer_count: int) -> tuple[Figures, list[Row]]:
    """Let two devices compare, and Swift's replicator do the same."""
    figures = figures_of_module("our_healing", "agree", _directory(scratch, "agree"), str(count))
    cpu_s, calls = figures["cpu_s"], figures["calls"]
    rows = [
        Row(f"first pass over 2 x {count:,} objects, CPU of both ends", f"{figures['first_cpu_s']:.2f} s"),
        Row(
            "each later one, both directions",
            f"{cpu_s * 1000:.1f} ms",
            f"< {CPU_S_GOAL:g} s",
            max(cpu_s, figures["first_cpu_s"]) < CPU_S_GOAL,
        ),
        Row("calls of such a pass", f"{calls} of 2 devices", "1 for each peer", calls == 2),
    ]
    if not peer_count:
        return figures, rows
    try:
        swift = figures["swift"] = measure_swift(_directory(scratch, "swift"), peer_count)
    except (PeerMissingError, PeerFailedError) as error:
        print(f"measuring ours alone: {error}", file=sys.stderr)
        return figures, rows
    ratio = swift["cpu_s"] / cpu_s
    rows += [
        Row(f"Swift, first pass over 2 x {peer_count:,} files", f"{swift['first_cpu_s']:.2f} s"),
        Row(
            "Swift, each later one",
            f"{swift['cpu_s']:.2f} s = {ratio:,.0f} x ours",
            f">= {PEER_RATIO_GOAL:g} x",
            ratio >= PEER_RATIO_GOAL,
        ),
    ]
    return figures, rows


# --- a cluster of three hosts -----------------------------------------------------------------------------------


class Trio:
    """Three hosts of one device, filled with objects that all of them hold; a proxy of two workers on the first."""

    def __init__(self, root: Path, count: int) -> None:
        """Make, fill and start it."""
        self.count: Final = count
        self.cluster: Final = HandMade.make(root, hosts=3, devices=1, power=POWER)
        self.first: Final = self.cluster.hosts[0]
        self.last: Final = self.cluster.hosts[-1]
        self.first.proxy |= {"workers": 2, "request_s": 30.0}
        for host in self.cluster.hosts:
            host.storage["drain_s"] = 5.0
            host.write()

    def start(self) -> Endpoint:
        """Start it, with nothing but its containers; fill its devices while they are stopped; start it again."""
        for host in self.cluster.hosts:
            self.cluster.start_storage(host)
        self.cluster.start_proxy(self.first)
        self._wait_serving()
        with Swift((self.first.address, self.first.proxy_port), f"{ACCOUNT}:{USER}", KEY) as swift:
            for container in ("read", "write"):
                assert swift.request("PUT", container).status == 201
            endpoint = Endpoint(self.first.address, self.first.proxy_port, swift.path, swift.token)
        path = f"{swift.path.removeprefix('/v1/')}/read"

        async def incarnation(client: NodeClient) -> bytes:
            register, _, _ = await client.read(CONTAINERS, path.replace("/", "\0").encode())
            assert register is not None
            assert register.entry is not None
            return register.entry.incarnation

        (born,) = set(ask_all(self.cluster, incarnation).values())
        for host in self.cluster.hosts:
            self.stop(host)

        def fill(host: HandMadeHost) -> Figures:
            arguments: list[str | Path] = [_device(host), str(self.count), str(SEED), path, born.hex()]
            return figures_of_module("our_healing", "fill", *arguments)

        with ThreadPoolExecutor(2) as both_cores:
            list(both_cores.map(fill, self.cluster.hosts))
        for host in self.cluster.hosts:
            self.cluster.start_storage(host)
        self._wait_serving()
        self.wait_whole(*self.cluster.hosts)
        return endpoint

    def stop(self, host: HandMadeHost) -> None:
        """Stop the devices of a host."""
        self.cluster.storages[host.address].__exit__(None, None, None)

    def end(self) -> None:
        """Stop everything."""
        for program in (*self.cluster.proxies.values(), *self.cluster.storages.values()):
            program.__exit__(None, None, None)

    def _wait_serving(self) -> None:
        proxy = self.cluster.proxies[self.first.address]
        wait_for(lambda: proxy.serving("worker 2"), "the proxy serves", 60)

        async def health(client: NodeClient) -> object:
            return await client.health()

        def all_answer() -> bool:
            with suppress(NodeFailed):
                return bool(ask_all(self.cluster, health))
            return False

        wait_for(all_answer, "all devices serve", 60)

    def wait_whole(self, *healing: HandMadeHost) -> float:
        """Wait until those that heal vote and all hold the same; return how many seconds that took."""
        began = time.monotonic()
        while time.monotonic() < began + HEALED_S:
            with suppress(NodeFailed):
                if not all(ask_all(self.cluster, _votes_everywhere, healing).values()):
                    time.sleep(LOOKED_EVERY_S)
                    continue
                held = ask_all(self.cluster, lambda client: holding(self.cluster, client))
                if not differing(self.cluster, held):
                    return time.monotonic() - began
            time.sleep(LOOKED_EVERY_S)
        raise SystemExit(f"not whole after {HEALED_S:g} s")

    def entries(self) -> int:
        """Count the objects that each device holds."""
        held = ask_all(self.cluster, lambda client: holding(self.cluster, client))
        (count,) = {
            sum(digest.entries for (kind, _), digest in each.digests.items() if kind == OBJECTS)
            for each in held.values()
        }
        return count


def measure_missing(trio: Trio, endpoint: Endpoint) -> tuple[Figures, list[Row]]:
    """Write around one host, and time its repair."""
    load = Load("PUT", CONNECTIONS, None)
    rate = run_load(endpoint, load, WRITING_S, 1).per_s
    trio.wait_whole(trio.last)
    before = trio.entries()
    trio.stop(trio.last)
    around = run_load(endpoint, load, max(1, round(MISSING / rate)), 2).per_s
    began = time.monotonic()
    trio.cluster.start_storage(trio.last)
    trio.wait_whole(trio.last)
    took_s = time.monotonic() - began
    missing = trio.entries() - before
    repaired = missing / took_s
    figures = {"write_per_s": rate, "write_around_per_s": around, "missing": missing, "repair_s": took_s}
    return figures, [
        Row("4 KiB PUT, three hosts up", f"{rate:,.0f}/s"),
        Row("... one of them away", f"{around:,.0f}/s"),
        Row(
            f"{missing:,} objects missing among {before:,}: repaired, from the start of the device's process",
            f"{took_s:.1f} s = {repaired:,.0f}/s",
            f">= {MISSING_RATE_GOAL:.0%} of PUT",
            repaired >= MISSING_RATE_GOAL * rate,
        ),
    ]


def measure_emptied(trio: Trio, endpoint: Endpoint) -> tuple[Figures, list[Row]]:
    """Replace a device by an empty one, and time its repair; clients read all the while."""
    write_per_s = run_load(endpoint, Load("PUT", CONNECTIONS, None), WRITING_S, 1).per_s
    trio.wait_whole(trio.last)
    calm = figures_of_module("our_healing", *_reads(trio, endpoint), "--seconds", str(CALM_S))
    trio.stop(trio.last)
    directory = _device(trio.last)
    for part in directory.iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    (name,) = trio.last.device_ports
    trio.last.uuids[name] = format_device(directory)
    for builder in trio.cluster.builders.values():
        (device,) = (device for device in builder.present() if device.name == name)
        builder.update(replace(device, uuid=trio.last.uuids[name]))
    trio.cluster.publish()
    command = [sys.executable, "-m", "benchmarks.our_healing", *_reads(trio, endpoint)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        began = time.monotonic()
        trio.cluster.start_storage(trio.last)
        trio.wait_whole(trio.last)
        took_s = time.monotonic() - began
        told, _ = reader.communicate(b"", timeout=120)
    busy: dict[str, Any] = json.loads(told)
    held = trio.entries()
    writing_s = held / write_per_s
    slower = busy["p99_ms"] / calm["p99_ms"]
    figures = {"write_per_s": write_per_s, "held": held, "repair_s": took_s, "calm": calm, "busy": busy}
    return figures, [
        Row("4 KiB PUT, three hosts up", f"{write_per_s:,.0f}/s"),
        Row(
            f"a device of {held:,} objects emptied: whole again, and votes",
            f"{took_s:.1f} s = {held / took_s:,.0f}/s",
            f"< {writing_s:,.0f} s, to write them",
            took_s < EMPTIED_TIME_GOAL * writing_s,
        ),
        Row(f"GET p99 at {READS_PER_S}/s, calm", f"{calm['p99_ms']:.1f} ms (p50 {calm['p50_ms']:.1f})"),
        Row(
            "... meanwhile",
            f"{busy['p99_ms']:.1f} ms (p50 {busy['p50_ms']:.1f}) = {slower:.2f} x",
            f"<= {P99_GOAL:g} x",
            slower <= P99_GOAL and not busy["failed"],
        ),
    ]


def _reads(trio: Trio, endpoint: Endpoint) -> list[str]:
    path = f"{endpoint.path}/read"
    return [
        "get",
        endpoint.host,
        str(endpoint.port),
        path,
        endpoint.token,
        str(trio.count),
        "--per-s",
        str(READS_PER_S),
    ]


async def _votes_everywhere(client: NodeClient) -> bool:
    found = [await client.caught_up(table) for table in TABLES]
    return all(each.votes == each.owned for each in found)


def _device(host: HandMadeHost) -> Path:
    (name,) = host.device_ports
    return host.root / "devices" / name


def _directory(scratch: Path, name: str) -> Path:
    path = scratch / name
    path.mkdir()
    return path


# --- all of it --------------------------------------------------------------------------------------------------


def main() -> int:
    """Measure, print a table, and say whether every goal was met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help="agree, missing, emptied; default: all")
    parser.add_argument(
        "--objects", type=int, default=1_000_000, help="on each device, before anything is written"
    )
    parser.add_argument(
        "--emptied-objects", type=int, default=200_000, help="the same, where a device is emptied"
    )
    parser.add_argument(
        "--peer-objects", type=int, default=20_000, help="files of each device of Swift's; 0: leave it out"
    )
    parser.add_argument(
        "--directory", type=Path, help="where the devices are; default: the temporary directory"
    )
    parser.add_argument("--json", type=Path, help="keep the figures")
    options = parser.parse_args()
    parts = set(options.parts or ("agree", "missing", "emptied"))
    if parts - {"agree", "missing", "emptied"}:
        parser.error("parts are agree, missing and emptied")
    if parts - {"agree"} and shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    figures: Figures = {}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="healing-", dir=options.directory) as home:
        if "agree" in parts:
            figures["agree"], more = measure_agreeing(Path(home), options.objects, options.peer_objects)
            rows += more
        if "missing" in parts:
            with _trio(Path(home) / "missing", options.objects) as (trio, endpoint):
                figures["missing"], more = measure_missing(trio, endpoint)
            rows += more
        if "emptied" in parts:
            with _trio(Path(home) / "emptied", options.emptied_objects) as (trio, endpoint):
                figures["emptied"], more = measure_emptied(trio, endpoint)
            rows += more
    print(table(["", "found", "goal", ""], [row.cells() for row in rows]))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    return int(any(row.met is False for row in rows))


@contextmanager
def _trio(home: Path, count: int) -> Iterator[tuple[Trio, Endpoint]]:
    home.mkdir()
    trio = Trio(home, count)
    try:
        yield trio, trio.start()
    finally:
        trio.end()
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
