"""What holding and asking one ring file costs a process of ours, as figures.

A process of `benchmarks.ring`: `python -m benchmarks.our_reader RING LOOKUPS`. Never imports numpy, as no proxy does.
"""

import json
import statistics
import sys
from pathlib import Path

from benchmarks.processes import cpu_seconds
from benchmarks.ring_lookup import LOADS, SEED, look_up, private_kib
from ring.file import load_ring


def main(path: Path, lookups: int) -> None:
    """Load a ring, ask it, load it a few times more."""
    names = [b"directory/object-%d" % number for number in range(lookups)]
    before_kib = private_kib()
    ring = load_ring(path, SEED)
    load_kib = private_kib() - before_kib
    lookup_s = cpu_seconds(lambda: look_up(ring, names))
    asked_kib = private_kib() - before_kib
    figures = {
        "load_s": statistics.median(cpu_seconds(lambda: load_ring(path, SEED)) for _ in range(LOADS)),
        "load_bytes": load_kib * 1024,
        "asked_bytes": asked_kib * 1024,
        "lookups_per_s": lookups / lookup_s,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
