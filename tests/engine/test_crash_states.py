"""Whatever a crash keeps of the unsynced writes: what was acknowledged is there, and nothing else is visible.

Promises are acknowledged as well. A format, or a rebuild of the index, that a crash cut short is repeated; neither ever
leaves a device that votes and has forgotten something.
"""

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from storage_node import compaction, leftovers
from storage_node.checking import ClosedDevice, check
from storage_node.device import Device, Settings
from storage_node.errors import DeviceRefused
from storage_node.formatting import format_device
from storage_node.rebuilding import rebuild_index
from storage_node.store import Offered, RowOffer
from storage_node.tables import Held
from swiftlike.entries import Entry
from tests.engine.conftest import opened, vote_everywhere
from tests.engine.recording import (
    Acknowledged,
    Event,
    Promised,
    RecordingDisk,
    RecordingIndex,
    Told,
    crash_states,
)
from tests.engine.samples import (
    CONTAINER,
    LARGE,
    LAYOUT,
    NOW_US,
    OBJECTS,
    ROWS,
    ballot,
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
PROMISED_NAMES = [f"p{number}" for number in range(4)]
"""Names that nothing is ever written under: their promises stand alone."""

History = list[tuple[str, Entry, bytes]]


async def random_life(device: Device, random: Random, log: list[Event], attempted: History) -> None:
    """Put, delete, prepare and list at random, several at a time, noting each attempt, and in the log what was told."""

    async def promise(at: int) -> None:
        name = random.choice(NAMES + PROMISED_NAMES)
        asked = ballot(at, writer=2)
        if (await device.prepare(object_key(name), asked)).register is not None:
            log.append(Promised(name, asked))

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
        promises = (promise(turn * 10 + step) for step in random.sample(range(10), random.randint(0, 3)))
        await asyncio.gather(*writes, *promises, leftovers.remove_leftovers(device, FAR_FUTURE_US))
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
    device = Device(
        root,
        LAYOUT,
        lambda: NOW_US,
        settings=SETTINGS,
        disk=RecordingDisk(log),
        open_index=recorded_in(log),
    )
    device.start()
    await random_life(device, random, log, attempted)
    await device.close()

    for state, acknowledged in crash_states(log, start, root, tmp_path, random, STATES):
        await verify(state, acknowledged, attempted)


async def verify(state: Path, told: list[Told], attempted: History) -> None:
    """Check a device after a crash, and write to it."""
    assert damage_of(state) == []
    async with opened(state, SETTINGS) as device:
        verify_promises(device, told)
        await verify_writes(device, [each for each in told if isinstance(each, Acknowledged)], attempted)
        answer = await device.offer(Offered(object_key("after"), put(1_000, b"after"), body=b"after"))
        assert answer.counts


def damage_of(state: Path) -> list[str]:
    """Return what a check of a closed device finds damaged."""
    closed = ClosedDevice(state, map_bytes=SETTINGS.index_map_bytes)
    try:
        return check(closed).damage
    finally:
        closed.close()


def verify_promises(device: Device, told: list[Told]) -> None:
    """See that nothing below a promise would be accepted."""
    for promised in told:
        if isinstance(promised, Promised):
            held = device.read(object_key(promised.name))
            assert held is not None
            assert held.register.outstanding >= promised.ballot, f"{promised.name}: a promise is lost"


async def verify_writes(device: Device, acknowledged: list[Acknowledged], attempted: History) -> None:
    """See that each acknowledged write is there with its body and its row, or a newer one, and no other bytes."""
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


async def test_a_format_that_a_crash_cut_short_is_repeated_and_one_that_was_told_is_whole(
    tmp_path: Path,
) -> None:
    root, start, log = tmp_path / "d1", tmp_path / "start", list[Event]()
    root.mkdir()
    start.mkdir()
    format_device(
        root, map_bytes=SETTINGS.index_map_bytes, disk=RecordingDisk(log), make_index=recorded_in(log)
    )
    whole = 0
    for state, _ in crash_states(log, start, root, tmp_path, Random(1), STATES):
        if (state / "device.toml").exists():
            whole += 1
            with pytest.raises(DeviceRefused, match="is not empty"):
                format_device(state, map_bytes=SETTINGS.index_map_bytes)
        else:
            with pytest.raises(DeviceRefused, match="format it"):
                Device(state, LAYOUT, lambda: NOW_US, settings=SETTINGS)
            format_device(state, map_bytes=SETTINGS.index_map_bytes)
        assert damage_of(state) == []
        async with opened(state, SETTINGS) as device:
            assert await device.grant_first_votes(OBJECTS, (0, 1)) == 2
            answer = await device.offer(Offered(object_key("o"), put(1, bytes(LARGE)), body=bytes(LARGE)))
            assert answer.counts
    assert 0 < whole < STATES, "the sample holds both kinds"


async def test_a_rebuild_that_a_crash_cut_short_is_repeated_and_never_votes_on_less_than_it_knew(
    tmp_path: Path,
) -> None:
    random, root, start = Random(1), tmp_path / "d1", tmp_path / "start"
    root.mkdir()
    before = format_device(root, map_bytes=SETTINGS.index_map_bytes)
    told: list[Event] = []
    attempted: History = []
    async with opened(root, SETTINGS) as device:
        await vote_everywhere(device)
        await device.offer(Offered(CONTAINER, container()))
        await random_life(device, random, told, attempted)
        held = {name: device.read(object_key(name)) for name in NAMES}
    shutil.copytree(root, start)
    log: list[Event] = []
    rebuild_index(
        root,
        LAYOUT.seed,
        map_bytes=SETTINGS.index_map_bytes,
        disk=RecordingDisk(log),
        make_index=recorded_in(log),
    )
    ends: Counter[str] = Counter()
    for state, _ in crash_states(log, start, root, tmp_path, random, STATES):
        try:
            async with opened(state, SETTINGS) as device:
                if device.uuid == before:
                    ends["as before"] += 1
                    assert device.standing(OBJECTS, 0).votes
                    verify_promises(device, [each for each in told if isinstance(each, Promised)])
                    assert {name: device.read(object_key(name)) for name in NAMES} == held
                else:
                    ends["rebuilt"] += 1
                    await verify_rebuilt(device, held, attempted)
        except DeviceRefused as refusal:
            ends["refused" if "rebuild-index" in str(refusal) else str(refusal)] += 1
        rebuild_index(state, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes)
        assert damage_of(state) == []
        async with opened(state, SETTINGS) as device:
            assert device.uuid != before
            await verify_rebuilt(device, held, attempted)
    assert set(ends) == {"as before", "refused", "rebuilt"}


async def verify_rebuilt(device: Device, held: dict[str, Held | None], attempted: History) -> None:
    """See that a device with a new index holds every body that the old one pointed at, and votes nowhere."""
    for table in LAYOUT.part_powers:
        assert await device.grant_first_votes(table, (0, 1)) == 0
        assert not device.standing(table, 0).votes
    for name, before in held.items():
        entry = None if before is None else before.register.entry
        if entry is None or entry.tombstone:
            continue
        found = await device.open_object(object_key(name))
        assert found is not None
        assert found[0] == entry
        ((_, _, body),) = [each for each in attempted if each[:2] == (name, entry)]
        assert bytes(await found[1].read(0, found[1].size)) == body
        found[1].release()


def recorded_in(log: list[Event]) -> type[RecordingIndex]:
    """Return an index that writes down what is done to it."""
    return type("Recorded", (RecordingIndex,), {"log": log})
