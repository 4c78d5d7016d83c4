"""Our cluster beside OpenStack Swift's, on one machine and one disk, under the same load in turn: A B A B.

Both have four devices, three replicas and two proxy workers on loopback. Ours syncs every write, updates the listing
before it answers and reads linearizably; Swift runs as it comes. Both stay up throughout, and only one is under load.
The load is `wrk`'s, on the same two cores. What is compared are ratios of medians.

    python -m benchmarks.compare [--quick] [--rounds N] [--json FILE] [--directory DIR]
"""

import argparse
import http.client
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.our_cluster import ServeFailedError, our_cluster
from benchmarks.peer_swift_cluster import PeerFailedError, swift_cluster
from benchmarks.peers import SWIFT_VERSION, PeerMissingError
from benchmarks.serving import Endpoint
from benchmarks.tables import table

SCRIPT: Final = Path(__file__).with_name("wrk.lua")
SMALL_BYTES: Final = 4096
LARGE_BYTES: Final = 64 * 1024**2
OBJECTS: Final = 2_000
"""Prepared for reading and listing; a page is 1,000 of them from anywhere in the first half."""
LARGE_TRIES: Final = 3
PREPARING_THREADS: Final = 16


class Load(NamedTuple):
    """What is asked, by how many connections at once, and how much faster we mean to be."""

    kind: str
    connections: int
    goal: float | None

    @property
    def name(self) -> str:
        """What the table calls it."""
        what = {"LIST": "listing, 1,000 names", "JSON": "listing of 1,000 in JSON"}.get(
            self.kind, f"4 KiB {self.kind}"
        )
        return f"{what}, {self.connections} connection{'s' if self.connections > 1 else ''}"


LOADS: Final = (
    Load("PUT", 32, 15.0),
    Load("DELETE", 32, 12.0),
    Load("PUT", 1, None),
    Load("DELETE", 1, None),
    Load("GET", 32, 15.0),
    Load("GET", 1, None),
    Load("LIST", 32, 10.0),
    Load("LIST", 1, None),
)
"""A DELETE removes what the PUT before it, on as many connections, has made."""
LARGE: Final = (("64 MiB PUT", 1.3), ("64 MiB GET", 3.0))


class Figure(NamedTuple):
    """What one run of a load came to."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    seconds: float = 0.0
    load_cpu_s: float = 0.0
    """CPU time of the load itself, which has no cores of its own."""


@dataclass
class Side:
    """One of the two that are compared."""

    name: str
    endpoint: Endpoint
    figures: dict[str, list[Figure]] = field(default_factory=dict)

    def note(self, what: str, figure: Figure) -> None:
        """Keep a figure."""
        self.figures.setdefault(what, []).append(figure)
        print(
            f"{self.name:9} {what:32} {figure.per_s:10.1f}/s  p50 {figure.p50_ms:8.2f} ms  "
            f"p99 {figure.p99_ms:8.2f} ms  failed {figure.failed}",
            file=sys.stderr,
            flush=True,
        )

    def typical(self, what: str) -> float:
        """Return the median rate."""
        return median(figure.per_s for figure in self.figures[what])


def main() -> int:
    """Compare, print a table, and say whether every goal was met."""
    options = _options()
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        return 2
    seconds, rounds = (2, 1) if options.quick else (options.seconds, options.rounds)
    with tempfile.TemporaryDirectory(dir=options.directory) as home, ExitStack() as running:
        sides = [Side("swiftlike", running.enter_context(our_cluster(_directory(home, "ours"))))]
        try:
            if not options.no_peer:
                sides.append(Side("Swift", running.enter_context(swift_cluster(_directory(home, "swift")))))
        except (PeerMissingError, PeerFailedError) as error:
            print(f"measuring ours alone: {error}", file=sys.stderr)
        for side in sides:
            prepare(side.endpoint)
        runs = count(1)
        for _ in range(rounds):
            made: dict[int, int] = {}
            for load in LOADS:
                if load.kind == "PUT":
                    made[load.connections] = next(runs)
                for side in sides:
                    # Fewer seconds to delete than it took to make, so that there is always something left to delete.
                    lasts_s = max(1, seconds // 3) if load.kind == "DELETE" else seconds
                    side.note(
                        load.name, run_load(side.endpoint, load, lasts_s, made.get(load.connections, 0))
                    )
            for side in sides:
                side.note(LARGE[0][0], _repeat(partial(_put_large, side.endpoint)))
                side.note(LARGE[1][0], _repeat(partial(_get_large, side.endpoint)))
    return _report(sides, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one round of two seconds each")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=6, help="of each run of a load")
    parser.add_argument("--no-peer", action="store_true", help="measure our side alone")
    parser.add_argument("--json", type=Path, help="keep the figures of every run")
    parser.add_argument(
        "--directory", type=Path, help="where both keep their data; default: the temporary directory"
    )
    return parser.parse_args()


def _directory(home: str, name: str) -> Path:
    path = Path(home) / name
    path.mkdir()
    return path


def prepare(endpoint: Endpoint) -> None:
    """Make what is read: a container of small objects, and containers to write to."""
    for container in ("read", "write", "large"):
        _expect(endpoint.request("PUT", f"/{container}"), 201, 202)
    body = b"swiftlike benchm" * (SMALL_BYTES // 16)

    def put(numbers: Iterable[int]) -> None:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
        for number in numbers:
            path = f"{endpoint.path}/read/o{number:08d}"
            connection.request("PUT", path, body, {"X-Auth-Token": endpoint.token})
            answer = connection.getresponse()
            answer.read()
            _expect(answer.status, 201)
        connection.close()

    with ThreadPoolExecutor(PREPARING_THREADS) as pool:
        list(pool.map(put, (range(first, OBJECTS, PREPARING_THREADS) for first in range(PREPARING_THREADS))))


def run_load(endpoint: Endpoint, load: Load, seconds: int, run: int) -> Figure:
    """Put one load on an endpoint for some seconds."""
    command = ["wrk", "-t", str(min(2, load.connections)), "-c", str(load.connections), "-d", f"{seconds}s"]
    command += [
        "--latency",
        "--timeout",
        "60s",
        "-s",
        str(SCRIPT),
        f"http://{endpoint.host}:{endpoint.port}",
        "--",
    ]
    container = "write" if load.kind in ("PUT", "DELETE") else "read"
    command += [load.kind, endpoint.path, endpoint.token, container, str(OBJECTS), f"{run}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Figure(
        (found["requests"] - found["failed"]) / found["duration_us"] * 1e6,
        found["p50_us"] / 1000,
        found["p99_us"] / 1000,
        found["failed"],
        found["duration_us"] / 1e6,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def _repeat(transfer: Callable[[int], float]) -> Figure:
    """Make large transfers one after the other; the rate is of the median."""
    seconds = [transfer(at) for at in range(LARGE_TRIES)]
    return Figure(1 / median(seconds), median(seconds) * 1000, max(seconds) * 1000, 0)


def _put_large(endpoint: Endpoint, at: int) -> float:
    body = bytes(range(256)) * (LARGE_BYTES // 256)
    begin = time.monotonic()
    _expect(endpoint.request("PUT", f"/large/{at}", body), 201)
    return time.monotonic() - begin


def _get_large(endpoint: Endpoint, at: int) -> float:
    buffer = memoryview(bytearray(1024 * 1024))
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
    begin = time.monotonic()
    connection.request("GET", f"{endpoint.path}/large/{at}", headers={"X-Auth-Token": endpoint.token})
    answer = connection.getresponse()
    _expect(answer.status, 200)
    got = 0
    while read := answer.readinto(buffer):
        got += read
    took_s = time.monotonic() - begin
    connection.close()
    if got != LARGE_BYTES:
        raise SystemExit(f"{got} bytes came instead of {LARGE_BYTES}")
    return took_s


def _expect(status: int, *wanted: int) -> None:
    if status not in wanted:
        raise SystemExit(f"answered with {status} where {wanted[0]} was expected")


def _report(sides: list[Side], file: Path | None) -> int:
    goals = {load.name: load.goal for load in LOADS} | dict(LARGE)
    rows, missed = [], False
    for what, goal in goals.items():
        rates = [side.typical(what) for side in sides]
        ratio = rates[0] / rates[1] if len(rates) > 1 else None
        met = None if ratio is None or goal is None else ratio >= goal
        missed |= met is False
        rows.append(
            [
                what,
                *(f"{rate:,.1f}/s" for rate in rates),
                "" if ratio is None else f"{ratio:.1f} x",
                "" if goal is None else f"{goal:g} x",
                {None: "", True: "met", False: "missed"}[met],
            ]
        )
    heads = ["load", *(side.name for side in sides), "ratio", "goal", ""]
    print(f"Swift {SWIFT_VERSION}" if len(sides) > 1 else "ours alone")
    print(table(heads, rows))
    if file is not None:
        file.write_text(json.dumps({side.name: side.figures for side in sides}, indent=1))
    return int(missed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServeFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
