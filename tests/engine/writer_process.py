"""A process that writes to a device without end and says what was acknowledged; made to be killed.

usage: python -m tests.engine.writer_process DIRECTORY FIRST

Prints `NUMBER SIZE` for each acknowledged put of object `NUMBER`, whose body is `body_of(NUMBER, SIZE)`.
"""

import asyncio
import sys
from pathlib import Path
from random import Random

from storage_node.device import Device, Settings
from storage_node.store import Offered
from tests.engine.samples import LARGE, LAYOUT, NOW_US, object_key, put

SETTINGS = Settings(reserve_bytes=0, index_map_bytes=1 << 30, volume_bytes_max=1 << 20)
WRITERS = 16


def body_of(number: int, size: int) -> bytes:
    """Return the body of an object."""
    return (b"%d." % number * (size // 2 + 1))[:size]


async def write_without_end(root: Path, first: int) -> None:
    """Put objects from `first` on, WRITERS at a time."""
    device = Device(root, LAYOUT, lambda: NOW_US, settings=SETTINGS)
    device.start()
    random, numbers = Random(first), iter(range(first, 10**9))

    async def writer() -> None:
        for number in numbers:
            size = LARGE if random.random() < 0.02 else random.choice([0, 100, 4_096, 50_000])
            body = body_of(number, size)
            entry = put(1, body)
            answer = await device.offer(Offered(object_key(f"n{number}"), entry, body=body))
            assert answer.counts
            print(number, size, flush=True)  # noqa: T201

    await asyncio.gather(*(writer() for _ in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(write_without_end(Path(sys.argv[1]), int(sys.argv[2])))
