"""One life of Swift's ring builder, and the cost of holding its ring, measured as ours are.

A process of `benchmarks.ring`, run by the Python of the peer's own environment, so it imports nothing of ours:
`peer_swift_ring.py build CLUSTER DIRECTORY` writes the assignment before and after a device is added (`first.u32`,
`added.u32`) and the first ring (`first.ring.gz`); `peer_swift_ring.py read RING LOOKUPS` loads a ring and asks it.
Both print their figures as JSON.
"""

import json
import re
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from swift.common import utils  # type: ignore[import-not-found]  # only in the peer's environment
from swift.common.ring import Ring, RingBuilder  # type: ignore[import-not-found]

MIN_PART_HOURS: Final = 1
SETTLING_ROUNDS_MAX: Final = 10
LOADS: Final = 7


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def proc_bytes(path: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(path).read_text(), re.MULTILINE)
    assert found is not None, "Linux tells this"
    return int(found[1]) * 1024


def device(number: int, disk: dict[str, Any]) -> dict[str, Any]:
    """Describe a device to Swift's builder."""
    return {
        "id": number,
        "region": disk["region"],
        "zone": disk["zone"],
        "ip": disk["host"],
        "port": disk["port"],
        "device": disk["name"],
        "weight": disk["weight"],
        "meta": "",
    }


def settle(builder: Any) -> int:
    """Rebalance, hours apart, until nothing moves; returns how many partitions moved in all."""
    moved = 0
    for _ in range(SETTLING_ROUNDS_MAX):
        builder.pretend_min_part_hours_passed()
        changed = int(builder.rebalance(seed=1)[0])
        if not changed:
            return moved
        moved += changed
    raise AssertionError(f"partitions still move after {SETTLING_ROUNDS_MAX} rebalances")


def write_assignment(path: Path, rows: Iterable[Iterable[int]]) -> None:
    """Write the device ids of every replica as rows of u32, one number a partition."""
    with path.open("wb") as file:
        for row in rows:
            array("I", row).tofile(file)


def build(cluster: Path, directory: Path) -> dict[str, Any]:
    """Measure one life of a builder."""
    described = json.loads(cluster.read_text())
    *present, added = (device(number, disk) for number, disk in enumerate(described["disks"]))
    builder = RingBuilder(described["part_power"], described["replicas"], MIN_PART_HOURS)
    for each in present:
        builder.add_dev(each)
    first_s = cpu_seconds(lambda: builder.rebalance(seed=1))
    first_peak_bytes = proc_bytes("/proc/self/status", "VmHWM")
    builder.get_ring().save(str(directory / "first.ring.gz"))
    settling_moves = settle(builder)
    write_assignment(directory / "first.u32", builder._replica2part2dev)
    builder.pretend_min_part_hours_passed()

    def add() -> None:
        builder.add_dev(added)
        builder.rebalance(seed=1)

    add_s = cpu_seconds(add)
    write_assignment(directory / "added.u32", builder._replica2part2dev)
    return {
        "first_s": first_s,
        "first_peak_bytes": first_peak_bytes,
        "settling_moves": settling_moves,
        "add_s": add_s,
        "peak_bytes": proc_bytes("/proc/self/status", "VmHWM"),
        "file_bytes": (directory / "first.ring.gz").stat().st_size,
    }


def read(path: Path, lookups: int) -> dict[str, Any]:
    """Load a ring, ask it, load it a few times more."""
    utils.HASH_PATH_SUFFIX = b"benchmark"  # as its swift.conf would say; without one it refuses to load
    names = [f"directory/object-{number}" for number in range(lookups)]
    before_bytes = proc_bytes("/proc/self/smaps_rollup", "Private_Dirty")
    ring = Ring(str(path))
    load_bytes = proc_bytes("/proc/self/smaps_rollup", "Private_Dirty") - before_bytes

    def look_up() -> None:
        for name in names:
            ring.get_nodes("AUTH_test", "container", name)

    lookup_s = cpu_seconds(look_up)
    asked_bytes = proc_bytes("/proc/self/smaps_rollup", "Private_Dirty") - before_bytes
    return {
        "load_s": statistics.median(cpu_seconds(lambda: Ring(str(path))) for _ in range(LOADS)),
        "load_bytes": load_bytes,
        "asked_bytes": asked_bytes,
        "lookups_per_s": lookups / lookup_s,
    }


if __name__ == "__main__":
    _, task, first, second = sys.argv
    print(json.dumps(build(Path(first), Path(second)) if task == "build" else read(Path(first), int(second))))
