"""Whether a change of the assignment fits this machine's memory, asked before any of it is spent.

Owns the estimate. It leaves room for nothing else: the kernel would end whoever asks for more than there is, perhaps a
storage node beside us, rather than tell us.
"""

from pathlib import Path
from typing import Final

from ring.builder import RingBuilder
from ring.builder.file import TABLES_BYTES_MAX
from ring.errors import RingError

REBALANCE_SLOT_BYTES: Final = 75
"""Per partition-replica, at the peak of a rebalance, its report and its files. Measured: 67 at 2^20 partitions of three
replicas, 63 at 2^21; 54 with one replica, 39 with ten."""
INCREASE_SLOT_BYTES: Final = 40
"""Per partition-replica after a partition power increase. Measured: 31 with three replicas, 36 with one."""
TABLE_SLOT_BYTES: Final = 4
MEMINFO: Final = Path("/proc/meminfo")
GIB: Final = 2**30


def check_memory(builder: RingBuilder, partitions: int, slot_bytes: int) -> None:
    """Refuse a change after which the ring has so many partitions, unless memory and its file have room for it.

    `slot_bytes` is what the change takes for each partition-replica.
    """
    slots = round(builder.replicas * partitions)
    # At rest: the slots, and per partition the time of its last move.
    table_bytes = TABLE_SLOT_BYTES * (slots + partitions)
    if table_bytes > TABLES_BYTES_MAX:
        raise RingError(
            f"{partitions} partitions of {builder.replicas:g} replicas need a builder file of {_gib(table_bytes)}, and"
            f" {_gib(TABLES_BYTES_MAX)} is the largest; use a smaller partition power"
        )
    needed = slot_bytes * slots
    available = available_bytes()
    if available is not None and needed > available:
        raise RingError(
            f"{partitions} partitions of {builder.replicas:g} replicas need about {_gib(needed)} of memory and this machine"
            f" has {_gib(available)} available; work on the ring on a larger one, or use a smaller partition power"
        )


def available_bytes() -> int | None:
    """Read how much memory the kernel could give without swapping; None where it does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.removesuffix("kB")) * 1024
    return None


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
