"""What an audit finds on a real device: bad bodies, bad values, digests and tallies that do not follow from their entries."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from storage_node import auditor as auditor_module
from storage_node import keys
from storage_node.auditing import RangeOf
from storage_node.auditor import JOB, Auditor, Part, Position, Rates
from storage_node.device import Device
from storage_node.keys import Key
from storage_node.locations import InFile, InVolume
from storage_node.rebuilding import rebuild_index
from storage_node.store import RowOffer, Store
from swiftlike.digests import EMPTY, Digest
from swiftlike.node_calls import Query
from tests.engine.conftest import SETTINGS, opened, vote_everywhere
from tests.engine.samples import (
    CONTAINER,
    LARGE,
    LAYOUT,
    NOW_US,
    OBJECTS,
    ROWS,
    container,
    delete,
    object_key,
    put,
    row,
)
from tests.engine.test_device import flip
from tests.engine.test_store_contract import body_of, offer

FAST = Rates(bytes_per_s=1e12, bodies_per_s=1e9, every_s=100)
SIZES = (0, 1, 4096, 400_000, LARGE)


def auditor(store: Store, read_us: Callable[[], int] = lambda: NOW_US, rates: Rates = FAST) -> Auditor:
    return Auditor(store, read_us, rates)


async def fill_device(store: Store) -> dict[Key, bytes]:
    """Objects of all sizes, and the rows of a container, some of each deleted."""
    bodies = {}
    for number in range(40):
        key, body = object_key(str(number)), os.urandom(SIZES[number % len(SIZES)])
        await offer(store, key, put(number, body), body)
        bodies[key] = body
    await offer(store, object_key("0"), delete(100))
    del bodies[object_key("0")]
    await offer(store, CONTAINER, container())
    await store.upsert_rows(
        [
            RowOffer(CONTAINER, b"%05d" % number, row(number, tombstone=number % 7 == 0))
            for number in range(6000)
        ]
    )
    return bodies


def raw_value(device: Device, key: bytes, value: bytes) -> None:
    """Write a value as a broken disk or a bug would: past everything that follows it, with a right checksum."""
    change = device._index.begin()
    change.put(key, value)
    change.commit()


def damage_value(device: Device, key: bytes) -> None:
    """Flip a bit of a value, below its checksum."""
    environment = device._index._env
    with environment.begin(write=True) as transaction:
        raw = bytearray(transaction.get(key) or b"")
        raw[0] ^= 1
        transaction.put(key, bytes(raw))


def head_of(key: Key) -> bytes:
    return keys.register_key(key, LAYOUT.hashed(key.path))[: keys.HEAD_KEY_BYTES]


def path_of(device: Device, key: Key) -> Path:
    held = device.read(key)
    assert held is not None
    match held.location:
        case InVolume(volume):
            return device.volumes.path(volume)
        case InFile(file):
            return device.files.path(file)
    raise AssertionError("it has no body")


async def test_a_pass_reads_everything_back_and_finds_a_sound_device_sound(store: Store) -> None:
    bodies = await fill_device(store)
    job = auditor(store)
    await job.walk()
    audited = job.audited
    assert audited.passes == 1
    assert audited.bodies == len(bodies)
    assert audited.bytes == sum(map(len, bodies.values()))
    assert audited.rows >= 6000
    assert audited.values > 6000 + 40
    assert (audited.bodies_damaged, audited.values_damaged) == (0, 0)
    assert (audited.digests_drifted, audited.tallies_drifted) == (0, 0)
    assert job.position == Position(last_began_us=NOW_US, last_ended_us=NOW_US)


async def test_the_next_pass_begins_when_it_is_time(store: Store) -> None:
    now_us = NOW_US
    await fill_device(store)
    job = auditor(store, lambda: now_us)
    await job.walk()
    now_us += 99_000_000
    await job.walk()
    assert job.audited.passes == 1
    now_us += 1_000_000
    await job.walk()
    assert job.audited.passes == 2
    assert {one.name: one.value for one in job.figures()}["last_pass_us"] == now_us


async def test_bad_bodies_are_set_aside_and_told_and_the_pass_goes_on(device: Device) -> None:
    bodies = await fill_device(device)
    told: list[Key] = []
    device.on_missing = told.append
    small, large, lost = object_key("2"), object_key("4"), object_key("9")
    flip(path_of(device, small), bodies[small][-64:])
    flip(path_of(device, large), bodies[large][-64:])
    path_of(device, lost).unlink()
    bad = {small, large, lost}
    job = auditor(device)
    await job.walk()
    assert (job.audited.passes, job.audited.bodies_damaged, job.audited.bodies) == (1, 3, len(bodies) - 3)
    assert set(told) == set(device.missing(None, 10)) == bad
    assert len(told) == 3
    assert device.counters.bodies_damaged == 3
    assert device.counters.write_errors == 0
    assert len(list((device.root / "quarantine").iterdir())) == 1
    for key in bad:
        held = device.read(key)
        assert held is not None
        assert held.register.entry is not None, "the device still knows the version"
        assert await device.fill(key, held.register.entry.body_id, bodies[key])
    job = auditor(device)
    await job.walk()
    assert (job.audited.bodies_damaged, job.audited.bodies) == (0, len(bodies))


def spoil(path: Path, offset: int) -> None:
    """Turn four bytes on disk."""
    with path.open("r+b") as file:
        file.seek(offset)
        raw = file.read(4)
        file.seek(offset)
        file.write(bytes(each ^ 0x5A for each in raw))


def beside(device: Device, key: Key) -> int:
    """Return where, in the file of its body, what names the entry of a key stands."""
    held = device.read(key)
    assert held is not None
    if isinstance(held.location, InVolume):
        return held.location.offset + 40
    return path_of(device, key).stat().st_size - 100


async def test_a_sound_body_that_a_rebuild_would_miss_is_stored_anew_from_itself(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, large = object_key("2"), object_key("4")
    async with opened(root) as device:
        await vote_everywhere(device)
        bodies = await fill_device(device)
        told: list[Key] = []
        device.on_missing = told.append
        for key in (small, large):
            spoil(path_of(device, key), beside(device, key))
        before = device.read(small), device.read(large)
        reading = await device.open_object(large)
        assert reading is not None
        job = auditor(device)
        await job.walk()
        assert (job.audited.passes, job.audited.bodies_damaged, job.audited.bodies) == (1, 2, len(bodies) - 2)
        assert (told, device.missing(None, 10)) == ([], []), "no other replica is needed"
        assert caplog.text.count("is sound and is stored anew") == 2
        assert device.counters.bodies_damaged == 2
        for key, held in zip((small, large), before, strict=True):
            after = device.read(key)
            assert held is not None
            assert after is not None
            assert (after.register, after.location == held.location) == (held.register, False)
            assert await body_of(device, key) == bodies[key]
        assert bytes(await reading[1].read(0, reading[1].size)) == bodies[large], "who was reading reads on"
        reading[1].release()
        job = auditor(device)
        await job.walk()
        assert (job.audited.bodies_damaged, job.audited.bodies) == (0, len(bodies))
    assert rebuild_index(root, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes).unreadable_files == []
    async with opened(root) as device:
        for key, body in bodies.items():
            assert await body_of(device, key) == body


async def test_without_room_to_store_a_body_anew_it_stays_where_it_is(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, body = object_key("o"), os.urandom(LARGE)
    async with opened(root) as device:
        await vote_everywhere(device)
        await offer(device, key, put(1, body), body)
        spoil(path_of(device, key), beside(device, key))
        before = device.read(key)
    async with opened(root, replace(SETTINGS, reserve_bytes=2**60)) as device:
        job = auditor(device)
        await job.walk()
        assert (job.audited.passes, job.audited.bodies_damaged) == (1, 1)
        assert "it cannot be stored anew" in caplog.text
        assert device.read(key) == before
        assert await body_of(device, key) == body
        assert device.files.staged() == []


async def test_a_body_that_is_replaced_while_it_is_stored_anew_leaves_nothing_behind(device: Device) -> None:
    key, body = object_key("o"), os.urandom(LARGE)
    await offer(device, key, put(1, body), body)
    spoil(path_of(device, key), beside(device, key))
    held, opened_body = await device.find(key, len(body))
    assert held is not None
    assert opened_body is not None
    newer = os.urandom(LARGE)
    await asyncio.gather(
        device.ensure_described(key, held, opened_body), offer(device, key, put(2, newer), newer)
    )
    opened_body.release()
    assert await body_of(device, key) == newer
    await device.on_thread(lambda: None)
    device._remover.submit(lambda: None).result()
    assert [device.files.path(file) for file in device.files.finished()] == [path_of(device, key)]
    assert device.files.staged() == []


async def test_a_value_that_decayed_is_found_and_keeps_nothing_else_from_being_read(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = await fill_device(device)
    register = keys.register_key(object_key("3"), LAYOUT.hashed(object_key("3").path))
    of_row = keys.rows_prefix(ROWS, LAYOUT.hashed(CONTAINER.path)) + b"04000"
    for key in (register, of_row):
        damage_value(device, key)
    job = auditor(device)
    await job.walk()
    assert (job.audited.passes, job.audited.values_damaged) == (1, 2)
    assert job.audited.bodies == len(bodies) - 1
    assert (job.audited.digests_drifted, job.audited.tallies_drifted) == (0, 0), (
        "what is unreadable is not judged"
    )
    assert caplog.text.count("fails its checksum; run check, then rebuild-index") == 2


async def test_a_digest_that_drifted_is_told_and_counted_anew_from_its_entries(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partition = LAYOUT.partition(OBJECTS, LAYOUT.hashed(object_key("7").path))
    async with opened(root) as device:
        await vote_everywhere(device)
        await fill_device(device)
        sound = device.partition_digest(OBJECTS, partition)
        raw_value(device, head_of(object_key("7")), Digest(12345, 9).encode())
    async with opened(root) as device:
        assert device.digests(OBJECTS, 4, partition, partition + 1) != [sound], "it would lie to a replicator"
        job = auditor(device)
        await job.walk()
        assert job.audited.digests_drifted == 1
        assert "its digest was not that of its entries" in caplog.text
        assert device.partition_digest(OBJECTS, partition) == sound
        assert device.digests(OBJECTS, 4, partition, partition + 1) == [sound]
        job = auditor(device)
        await job.walk()
        assert job.audited.digests_drifted == 0
        await offer(device, object_key("7"), put(200, b"x"), b"x")
        assert (
            device.partition_digest(OBJECTS, partition)
            == device.digests(OBJECTS, 4, partition, partition + 1)[0]
        )


@pytest.mark.parametrize("kind", [OBJECTS, b"r\0"], ids=["registers", "rows"])
async def test_a_digest_of_a_partition_that_drifted_is_told_and_counted_anew(
    device: Device, kind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await vote_everywhere(device)
    await fill_device(device)
    sound = device.partition_digests(kind, range(16))
    partition = next(number for number, digest in sound.items() if digest != EMPTY)
    raw_value(device, keys.digest_key(kind, 4, partition), Digest(12345, 9).encode())
    assert device.partition_digest(kind, partition) == Digest(12345, 9), "it would lie to a replicator"
    job = auditor(device)
    await job.walk()
    assert (job.audited.digests_drifted, job.audited.tallies_drifted) == (1, 0)
    assert f"partition {partition} of table {kind!r}: its digest was not that of its entries" in caplog.text
    assert device.partition_digests(kind, range(16)) == sound
    job = auditor(device)
    await job.walk()
    assert job.audited.digests_drifted == 0


@pytest.mark.parametrize("which", ["listing", "range"])
async def test_a_tally_that_drifted_is_told_and_counted_anew_from_its_rows(
    device: Device, which: str
) -> None:
    await fill_device(device)
    sound, ranges = device.tally(ROWS), device.ranges(ROWS)
    assert len(ranges) > 1
    prefix = keys.rows_prefix(ROWS, LAYOUT.hashed(CONTAINER.path))
    wrong = keys.tally_key(prefix) if which == "listing" else keys.range_key(prefix, ranges[1][0])
    other = device._index.get(keys.range_key(prefix, b""))
    assert other is not None
    raw_value(device, wrong, other)
    job = auditor(device)
    await job.walk()
    assert job.audited.tallies_drifted == 1
    assert (device.tally(ROWS), device.ranges(ROWS)) == (sound, ranges)
    job = auditor(device)
    await job.walk()
    assert job.audited.tallies_drifted == 0


async def test_what_is_counted_anew_within_a_batch_counts_what_the_batch_wrote_before(device: Device) -> None:
    await fill_device(device)
    raw_value(device, head_of(object_key("7")), Digest(12345, 9).encode())
    names = [b"%05d-more" % number for number in range(200)]
    await asyncio.gather(
        offer(device, object_key("7"), put(200, b"x"), b"x"),
        device.recount_bucket(head_of(object_key("7"))),
        offer(device, object_key("7"), put(300, b"y"), b"y"),
        device.upsert_rows([RowOffer(CONTAINER, name, row(9)) for name in names[:100]]),
        device.recount_range(RangeOf(ROWS, b"")),
        device.upsert_rows([RowOffer(CONTAINER, name, row(9)) for name in names[100:]]),
    )
    job = auditor(device)
    await job.walk()
    assert (job.audited.digests_drifted, job.audited.tallies_drifted) == (0, 0)
    assert len(device.list_rows(ROWS, Query(prefix=b"00150-")).rows) == 1


async def test_what_is_written_while_it_is_audited_is_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slice_of in ("VALUES_SLICE", "REGISTERS_SLICE", "ROWS_SLICE"):
        monkeypatch.setattr(f"storage_node.auditor.{slice_of}", 3)
    await fill_device(store)
    job = auditor(store, rates=FAST._replace(every_s=0))
    writing = True

    async def write() -> None:
        at = 1000
        while writing:
            at += 1
            key, body = object_key(str(at % 40)), os.urandom(SIZES[at % 4])
            await asyncio.gather(
                offer(store, key, put(at, body), body),
                store.upsert_rows(
                    [RowOffer(CONTAINER, b"%05d" % (at % 6100), row(at, tombstone=at % 3 == 0))]
                ),
            )
            await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    await job.walk()
    writing = False
    await writer
    audited = job.audited
    assert audited.passes == 1
    assert (audited.bodies_damaged, audited.values_damaged) == (0, 0)
    assert (audited.digests_drifted, audited.tallies_drifted) == (0, 0)


async def test_a_pass_that_was_cut_short_is_gone_on_with_where_it_was(store: Store) -> None:
    await fill_device(store)

    async def cut(pause_s: float) -> None:
        if pause_s > 0.5:
            raise asyncio.CancelledError

    slow = Auditor(store, lambda: NOW_US, FAST._replace(bodies_per_s=1), cut)
    with pytest.raises(asyncio.CancelledError):
        await slow.walk()
    assert slow.audited.values > 6000
    position = Position.of(store.position(JOB))
    assert (position.part, position.began_us) == (Part.BUCKETS, NOW_US)

    job = auditor(store)
    job.position = position
    await job.walk()
    assert (job.audited.passes, job.audited.values) == (1, 0), "what was seen is not looked at again"
    assert job.position.last_ended_us == NOW_US
    assert Position.of(store.position(JOB)) == job.position


async def test_a_pass_that_is_cut_short_again_and_again_within_one_slice_comes_past_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = await fill_device(store)
    monkeypatch.setattr(auditor_module, "REMEMBER_S", 0.0)
    read: list[bytes] = []
    for _ in range(len(bodies)):
        pauses = 0

        async def cut(pause_s: float) -> None:
            nonlocal pauses
            pauses += pause_s > 0.5
            if pauses == 3:
                raise asyncio.CancelledError

        job = Auditor(store, lambda: NOW_US, FAST._replace(bodies_per_s=1), cut)
        job.position = Position.of(store.position(JOB))
        with suppress(asyncio.CancelledError):
            await job.walk()
        read.append(job.position.at)
        if job.audited.passes:
            break
    assert job.audited.passes == 1, "each process read some bodies, and none began where the last one had"
    assert read[:-1] == sorted(set(read[:-1]))
    assert len(read) > 5, "and each of them only a few"


async def test_the_position_of_another_release_means_a_pass_from_the_beginning(store: Store) -> None:
    assert Position.of(store.position(JOB)) == Position()
    position = Position(Part.LISTINGS, b"sabc", 1, 2, 3)
    await store.remember(JOB, position.pack())
    assert Position.of(store.position(JOB)) == position
    assert Position.of(b"\x92\x09\x00") == Position()


async def test_a_position_that_cannot_be_read_is_none_and_the_next_one_takes_its_place(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    position = Position(Part.LISTINGS, b"sabc", 1, 2, 3)
    await device.remember(JOB, position.pack())
    with device._index._env.begin(write=True) as change:
        raw = change.get(keys.job_key(JOB))
        assert raw is not None
        change.put(keys.job_key(JOB), bytes([raw[0] ^ 4]) + raw[1:])
    assert device.position(JOB) is None
    assert "how far the job auditor had come cannot be read, so it begins anew" in caplog.text
    await device.remember(JOB, position.pack())
    assert Position.of(device.position(JOB)) == position
