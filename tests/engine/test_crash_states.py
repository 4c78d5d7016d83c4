"""Whatever a crash keeps of the unsynced writes: every acknowledged write is there, and nothing else is visible."""

import asyncio
import os
import shutil
from pathlib import Path
from random import Random

import pytest

from storage_node import compaction, leftovers
from storage_node.checking import ClosedDevice, check
from storage_node.device import Device, Settings
from storage_node.formatting import format_device
from storage_node.store import Offered, RowOffer
from swiftlike.entries import Entry
from tests.engine.conftest import vote_everywhere
from tests.engine.recording import Acknowledged, Event, RecordingDisk, RecordingIndex, crash_states
from tests.engine.samples import (
    CONTAINER,
    LARGE,
    LAYOUT,
    NOW_US,
    ROWS,
    container,
    delete,
    object_key,
    put,
    row,
)

SETTINGS = Settings(reserve_bytes=0, index_map_bytes=1 << 26, volume_bytes_max=30_000)
STATES = int(os.environ.get("CRASH_STATES", "30"))
FAR_FUTURE_US = 2**62
"""By then whatever is left over is old enough to be removed."""
NAMES = [f"n{number}" for number in range(6)]

History = list[tuple[str, Entry, bytes]]


async def random_life(device: Device, random: Random, log: list[Event], attempted: History) -> None:
    """Put, delete and list at random, several at a time, noting each attempt, and each acknowledgement in the log."""

    async def one(at: int) -> None:
        name = random.choice(NAMES)
        kind = random.random()
        body = random.randbytes(LARGE if kind < 0.1 else random.choice([0, 10, 700, 5_000]))
        entry = delete(at) if kind > 0.8 else put(at, body)
        attempted.append((name, entry, body))
        body_sent = None if entry.tombstone else body
        answer = await device.offer(Offered(object_key(name), entry, body=body_sent, owing=True))
        if answer.accepted:
            log.append(Acknowledged(name, at, entry))
            await device.upsert_rows(
                [RowOffer(CONTAINER, name.encode(), row(at, len(body), tombstone=entry.tombstone))]
            )
            log.append(Acknowledged(name, at, None))

    for turn in range(8):
        writes = (one(turn * 10 + step) for step in range(random.randint(1, 4)))
        await asyncio.gather(*writes, leftovers.remove_leftovers(device, FAR_FUTURE_US))
    for volume in compaction.worth_compacting(device):
        await compaction.compact(device, volume)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_acknowledged_write_survives_any_crash_and_nothing_else_is_seen(
    tmp_path: Path, seed: int
) -> None:
    random, root, start = Random(seed), tmp_path / "d1", tmp_path / "start"
    root.mkdir()
    format_device(root, map_bytes=SETTINGS.index_map_bytes)
    first = Device(root, LAYOUT, lambda: NOW_US, settings=SETTINGS)
    first.start()
    await vote_everywhere(first)
    await first.offer(Offered(CONTAINER, container()))
    await first.close()
    shutil.copytree(root, start)

    log: list[Event] = []
    attempted: History = []
    index = type("Recorded", (RecordingIndex,), {"log": log})
    device = Device(
        root, LAYOUT, lambda: NOW_US, settings=SETTINGS, disk=RecordingDisk(log), open_index=index
    )
    device.start()
    await random_life(device, random, log, attempted)
    await device.close()

    for state, acknowledged in crash_states(log, start, root, tmp_path, random, STATES):
        await verify(state, acknowledged, attempted)


async def verify(state: Path, acknowledged: list[Acknowledged], attempted: History) -> None:
    """Check a device after a crash, and write to it."""
    closed = ClosedDevice(state, map_bytes=SETTINGS.index_map_bytes)
    assert check(closed).damage == []
    closed.close()
    device = Device(state, LAYOUT, lambda: NOW_US, settings=SETTINGS)
    device.start()
    try:
        for name in NAMES:
            known = [each.entry for each in acknowledged if each.name == name and each.entry is not None]
            held = device.read(object_key(name))
            entry = held.register.entry if held is not None else None
            if known:
                newest = max(known, key=lambda each: each.ballot)
                assert entry is not None
                assert entry.ballot >= newest.ballot, f"{name}: an acknowledged write is lost"
            if entry is None:
                continue
            ((_, _, body),) = [each for each in attempted if each[:2] == (name, entry)]
            found = await device.open_object(object_key(name))
            assert (found is None) is entry.tombstone
            if found is not None:
                assert bytes(await found[1].read(0, found[1].size)) == body
                found[1].release()
        for told in acknowledged:
            if told.entry is None:
                listed = device.row(ROWS, told.name.encode())
                assert listed is not None
                assert listed.ballot.micros >= NOW_US + told.at, f"{told.name}: an acknowledged row is lost"
        answer = await device.offer(Offered(object_key("after"), put(1_000, b"after"), body=b"after"))
        assert answer.counts
    finally:
        await device.close()
