"""What a device does for itself while it serves: small slices, one after the other, at a bounded rate.

Owns when each job is due. What a job does is its own module's: index readers and rows of containers that are gone, volumes
that are mostly dead (`compaction`), files that nothing points at (`leftovers`). A job that fails is told and tried again when
it is due; the failures that must end the process end it where they happen.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

from storage_node.compaction import compact, worth_compacting
from storage_node.device import Device
from storage_node.errors import StorageError
from storage_node.jobs import Figure
from storage_node.leftovers import remove_leftovers
from storage_node.locations import VolumeId
from swiftlike.limits import COMPACTION_BYTES_PER_S, SWEPT_ROWS_MAX

ROUND_S: Final = 60.0
"""Between two rounds of the frequent jobs: a killed reader pins pages of the index for no longer."""
ROUNDS_PER_DAY: Final = int(86_400 / ROUND_S)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Kept:
    """What was done since the start, for whoever watches."""

    rounds: int = 0
    rounded_us: int = 0
    """When the last round ended; 0: none has."""
    volumes: int = 0
    bytes_freed: int = 0

    def figures(self) -> Sequence[Figure]:
        """Return it as a job does."""
        return (
            Figure("rounds", "Looks at what is to be put in order", self.rounds, is_total=True),
            Figure("last_walk_us", "When the last one ended, in microseconds since 1970", self.rounded_us),
            Figure("volumes", "Volumes that were mostly dead and are compacted", self.volumes, is_total=True),
            Figure("freed_bytes", "Bytes that were given back so", self.bytes_freed, is_total=True),
        )


async def keep_house(
    device: Device,
    read_us: Callable[[], int],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    *,
    kept: Kept | None = None,
) -> NoReturn:
    """Do each job when it is due, until cancelled, and count it in `kept`. `read_us` tells the time in microseconds since 1970."""
    rounds = 0
    kept = kept or Kept()
    while True:
        await sleep(ROUND_S)
        for job in (_free_readers, _sweep_rows, partial(_compact_volumes, sleep=sleep, kept=kept)):
            await _do(job, device)
        kept.rounds += 1
        kept.rounded_us = read_us()
        if rounds % ROUNDS_PER_DAY == 0:
            await _do(partial(_remove_leftovers, now_us=read_us()), device)
        rounds += 1


async def _do(job: Callable[[Device], Awaitable[None]], device: Device) -> None:
    try:
        await job(device)
    except (StorageError, OSError) as error:
        log.error("%s; it is tried again when it is due", error)


async def _free_readers(device: Device) -> None:
    if freed := device.drop_dead_readers():
        log.info("freed %d index readers of dead processes", freed)


async def _sweep_rows(device: Device) -> None:
    """Remove the rows of containers that are gone, in slices between which others commit."""
    swept = 0
    while some := await device.sweep(SWEPT_ROWS_MAX):
        swept += some
    if swept:
        log.info("swept %d rows of containers that are gone", swept)


async def _compact_volumes(
    device: Device, sleep: Callable[[float], Awaitable[None]], kept: Kept | None = None
) -> None:
    kept = kept or Kept()

    async def throttle(moved_bytes: int) -> None:
        await sleep(moved_bytes / COMPACTION_BYTES_PER_S)

    async def compact_one(device: Device, volume: VolumeId) -> None:
        done = await compact(device, volume, throttle)
        kept.volumes += done.removed
        kept.bytes_freed += done.bytes_freed
        log.info(
            "compacted volume %d: %d bodies moved, %d bytes freed",
            volume,
            done.bodies_moved,
            done.bytes_freed,
        )

    for volume in worth_compacting(device):
        await _do(
            partial(compact_one, volume=volume), device
        )  # one on bad sectors keeps no other from its turn


async def _remove_leftovers(device: Device, now_us: int) -> None:
    removed = await remove_leftovers(device, now_us)
    log.info("leftovers: %s", removed)
