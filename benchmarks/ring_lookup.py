"""What a process pays to hold and ask a ring: load time, private memory, look-ups per second.

Run as `python -m benchmarks.ring_lookup`. Makes its own ring (2^20 partitions, 3 replicas, 1,000 devices; look-up
does not care how well it is balanced) and measures it in a fresh process, whose memory no writer has touched.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import UUID

from ring.device import Device, DeviceId, Partition
from ring.file import RingFields, load_ring, write_ring
from ring.ring import Ring

PART_POWER: Final = 20
REPLICAS: Final = 3
DEVICES: Final = 1_000
MOVING: Final = 3_146
"""As many partitions as one more device would take."""

SEED: Final = 0x5EED
LOADS: Final = 7
LOOKUPS: Final = 1_000_000
HANDOFFS: Final = 20_000


def any_ring() -> RingFields:
    """Return a ring of full size, each partition on three devices of which no two share a host."""
    devices = [
        Device(
            id=DeviceId(number),
            region=1 + number % 2,
            zone=1 + number // 2 % 4,
            host=f"10.0.{number % 100 // 50}.{number % 100}",
            port=6200,
            name=f"sd{number // 100}",
            weight=(4000.0, 8000.0, 12000.0)[number % 3],
            uuid=UUID(int=number),
        )
        for number in range(DEVICES)
    ]
    partitions = 1 << PART_POWER
    ids = array("I", range(DEVICES)) * (partitions // DEVICES + 2)
    moving = array("I", range(0, partitions, partitions // MOVING))
    return RingFields(
        name="object-0",
        builder_id=UUID(int=1),
        epoch=2,
        part_power=PART_POWER,
        replicas=float(REPLICAS),
        devices=devices,
        rows=[ids[start : start + partitions] for start in range(0, 333 * REPLICAS, 333)],
        ancestors=bytes(16),
        moving_partitions=moving,
        moving_rows=[ids[start : start + len(moving)] for start in (7, 340, 673)],
    )


def private_kib() -> int:
    """Return what this process has for itself alone; pages of the mapped file are shared and are not in it."""
    return int(
        re.findall(r"^Private_Dirty: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)[0]
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def look_up(ring: Ring, names: list[bytes]) -> None:
    for name in names:
        ring.primaries(ring.partition_of(b"AUTH_test", b"container", name))


def find_previous_owners(ring: Ring, count: int) -> None:
    for number in range(count):
        ring.previous_owners(Partition(number))


def find_handoffs(ring: Ring, partitions: int, handoffs_each: int) -> None:
    for number in range(partitions):
        list(islice(ring.handoffs(Partition(number)), handoffs_each))


def measure(path: Path) -> None:
    """Print the figures of one ring file, in a process that has done nothing else."""
    before_kib = private_kib()
    start = time.perf_counter()
    ring = load_ring(path, SEED)
    first_load_s = time.perf_counter() - start
    load_kib = private_kib() - before_kib
    loads_s = [seconds(lambda: load_ring(path, SEED)) for _ in range(LOADS)]
    names = [b"directory/object-%d" % number for number in range(LOOKUPS)]
    before_kib = private_kib()
    lookup_s = seconds(lambda: look_up(ring, names))
    previous_s = seconds(lambda: find_previous_owners(ring, LOOKUPS))
    tree_s = seconds(lambda: next(ring.handoffs(Partition(0))))
    first_handoff_s = seconds(lambda: find_handoffs(ring, HANDOFFS, 1))
    all_handoffs_s = seconds(lambda: find_handoffs(ring, 20, DEVICES))
    rows = [
        (
            "ring file",
            f"{path.stat().st_size / 2**20:.1f} MiB, {len(ring.moving_partitions):,} partitions moving",
        ),
        ("load, first / median", f"{first_load_s * 1e3:.1f} / {statistics.median(loads_s) * 1e3:.1f} ms"),
        ("private memory of a load", f"{load_kib:,} KiB"),
        ("partition_of + primaries", f"{LOOKUPS / lookup_s:,.0f} per second"),
        ("previous_owners", f"{LOOKUPS / previous_s:,.0f} per second"),
        (
            "first handoff",
            f"{first_handoff_s / HANDOFFS * 1e6:.1f} µs (the very first: {tree_s * 1e3:.1f} ms)",
        ),
        ("all handoffs", f"{all_handoffs_s / 20 * 1e3:.1f} ms"),
        ("private memory of asking", f"{private_kib() - before_kib:,} KiB"),
    ]
    print("\n".join(f"{name:26}{figure}" for name, figure in rows))


def main() -> None:
    """Write a ring to a temporary directory and measure it in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "object-0.ring"
        described = any_ring()
        write_s = seconds(lambda: write_ring(path, described))
        print(f"{'write, synced':26}{write_s * 1e3:.0f} ms", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.ring_lookup", str(path)], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
    else:
        main()
