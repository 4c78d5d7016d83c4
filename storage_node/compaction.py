"""Compaction: what is still wanted of a volume moves to the end of the volumes, and the volume goes.

Owns which volumes are worth it and the order of the move. Never hurts a reader: readers hold the old volume's
descriptor, and one that comes between look-up and opening begins again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from storage_node.blocks import pread_waiting, seed_of
from storage_node.device import Device
from storage_node.errors import BodyDamaged
from storage_node.locations import VolumeId
from storage_node.volumes import Record

_log: Final = logging.getLogger(__name__)

LIVE_SHARE: Final = 0.5
"""A volume with less than this share live is compacted: moving less than what is gained."""

_SLICE_RECORDS: Final = 64


@dataclass(frozen=True, slots=True)
class Compacted:
    """What became of one volume."""

    volume: VolumeId
    bodies_moved: int
    bytes_freed: int
    removed: bool
    """False when something still points into it: records that could not be read, or that its own scan could not find."""


def worth_compacting(device: Device) -> list[VolumeId]:
    """Return the volumes below LIVE_SHARE, emptiest first, but those with a damaged header before them; never the one that is being
    appended to.
    """
    live, damaged = device.live_bytes(), device.volumes.damaged()
    shares = {
        volume: -1.0 if volume in damaged else live[volume] / device.volumes.size(volume)
        for volume in device.volumes.ids()
        if not device.volumes.is_active(volume)
    }
    return sorted(
        (volume for volume, share in shares.items() if share < LIVE_SHARE), key=lambda volume: shares[volume]
    )


async def compact(
    device: Device,
    volume: VolumeId,
    throttle: Callable[[int], Awaitable[None]] = lambda moved: asyncio.sleep(0),
) -> Compacted:
    """Move the live bodies out of a volume and remove it.

    `throttle` is awaited after each body with the bytes that were moved.
    """
    size, moved = device.volumes.size(volume), 0
    records = device.volumes.scan(volume)
    while some := await device.on_thread(_next_records, records):
        for record in some:
            if await _move(device, record):
                moved += 1
                await throttle(record.total_bytes)
    removed = device.live_bytes()[volume] == 0
    if removed:
        await device.remove_volume(volume)
    return Compacted(volume, moved, size if removed else 0, removed)


def _next_records(records: Iterator[Record]) -> list[Record]:
    return list(islice(records, _SLICE_RECORDS))


async def _move(device: Device, record: Record) -> bool:
    """Move one body if the index still points at it; a damaged one goes to quarantine instead."""
    held = await device.look_up(record.key)
    if held is None or held.location != record.location or held.register.entry is None:
        return False
    entry = held.register.entry
    extent = device.volumes.open(record.location, entry.size, seed_of(entry.body_id))
    try:
        body = await device.on_thread(extent.read, 0, entry.size, pread_waiting)
    except BodyDamaged as damage:
        await device.bad_bodies.judge(record.key, record.location, damage)
        return False
    except OSError as error:
        # It may be read another day, so nothing is given up: the volume stays for it, until another copy has come.
        _log.error("%s", device.bad_bodies.refused(record.key, record.location, extent.place, error))
        return False
    finally:
        extent.release()
    return await device.relocate(record.key, record.location, body)
