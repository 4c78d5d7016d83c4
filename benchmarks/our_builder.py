"""One life of our ring builder, measured: first rebalance, settled, one device added.

A process of `benchmarks.ring`: `python -m benchmarks.our_builder CLUSTER DIRECTORY [MEMORY_BYTES]` writes the
assignment before and after the addition as raw numbers (`first.u32`, `added.u32`) and the first ring (`first.ring`) into
the directory, and prints its figures. With MEMORY_BYTES it gives up rather than take more.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Final
from uuid import UUID

from benchmarks.clusters import REPLICAS, Disk, read_cluster
from benchmarks.processes import cpu_seconds, peak_bytes
from ring.builder import RingBuilder
from ring.device import Device, DeviceId
from ring.file import replace_file

MIN_PART_HOURS: Final = 1
DAY_S: Final = 86_400
SETTLING_ROUNDS_MAX: Final = 10


def device(number: int, disk: Disk) -> Device:
    """Describe a device to our builder."""
    return Device(
        id=DeviceId(number),
        region=disk.region,
        zone=disk.zone,
        host=disk.host,
        port=disk.port,
        name=disk.name,
        weight=disk.weight,
        uuid=UUID(int=number + 1),
    )


def settle(builder: RingBuilder, now_s: int) -> int:
    """Rebalance and settle, a day apart, until nothing moves; returns how many partitions moved in all."""
    moved = 0
    for _ in range(SETTLING_ROUNDS_MAX):
        now_s += DAY_S
        outcome = builder.rebalance(now_s)
        if not builder.is_moving:
            return moved
        moved += outcome.partitions_moved
        builder.settle()
    raise AssertionError(f"partitions still move after {SETTLING_ROUNDS_MAX} rebalances")


def write_assignment(path: Path, builder: RingBuilder) -> None:
    """Write the device ids of every replica as rows of u32, one number a partition."""
    builder.owners.tofile(path)


def main(cluster: Path, directory: Path) -> None:
    """Measure one life."""
    shape, disks = read_cluster(cluster)
    *present, added = (device(number, disk) for number, disk in enumerate(disks))
    builder = RingBuilder(
        id=UUID(int=1),
        name="object-0",
        part_power=shape.part_power,
        replicas=float(REPLICAS),
        min_part_hours=MIN_PART_HOURS,
        seed=1,
        devices=list(present),
    )
    now_s = 1_700_000_000
    first_s = cpu_seconds(lambda: builder.rebalance(now_s))
    first_peak_bytes = peak_bytes()
    write_assignment(directory / "first.u32", builder)
    replace_file(directory / "first.ring", builder.publish().pieces)
    settling_moves = settle(builder, now_s)
    now_s += (SETTLING_ROUNDS_MAX + 1) * DAY_S
    if settling_moves:
        write_assignment(directory / "first.u32", builder)

    def add() -> None:
        builder.add(added)
        builder.rebalance(now_s)

    add_s = cpu_seconds(add)
    write_assignment(directory / "added.u32", builder)
    figures = {
        "first_s": first_s,
        "first_peak_bytes": first_peak_bytes,
        "settling_moves": settling_moves,
        "add_s": add_s,
        "peak_bytes": peak_bytes(),
        "file_bytes": (directory / "first.ring").stat().st_size,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    if len(sys.argv) > 3:
        limit = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
