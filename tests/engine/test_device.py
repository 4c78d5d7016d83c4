"""What only a real device can do or suffer: restarts, damage, full and failing disks, foreign directories."""

import asyncio
import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from storage_node import compaction, identity, leftovers
from storage_node.blocks import Cold
from storage_node.device import Device, Settings
from storage_node.disk import Disk
from storage_node.errors import (
    BodyDamaged,
    DeviceFailed,
    DeviceRefused,
    IndexDamaged,
    InsufficientStorage,
    OutcomeUnknown,
    StorageError,
)
from storage_node.formatting import format_device
from storage_node.index import Index, IndexChange
from storage_node.keys import CONTAINERS, Layout, register_key
from storage_node.locations import InFile, InVolume
from storage_node.rebuilding import rebuild_index
from storage_node.store import Offered
from swiftlike.limits import QUEUED_OPERATIONS_MAX
from swiftlike.node_calls import Standing
from swiftlike.seeds import seed_mark
from tests.engine.conftest import SETTINGS, opened, stand, vote_everywhere
from tests.engine.samples import LARGE, LAYOUT, NOW_US, OBJECTS, ballot, delete, object_key, put
from tests.engine.test_store_contract import body_of, offer

KEY = object_key("one")


def open_now(root: Path, **options: Any) -> Device:
    """Open a device without starting it."""
    return Device(root, LAYOUT, lambda: NOW_US, settings=options.pop("settings", SETTINGS), **options)


# ---- restarts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 4096, LARGE])
async def test_what_was_acknowledged_is_there_after_a_restart(root: Path, size: int) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, bytes(size)), bytes(size))
        await device.prepare(object_key("promised"), ballot(5))
    async with opened(root) as device:
        assert await body_of(device) == bytes(size)
        assert device.standing(OBJECTS, 0).votes
        held = device.read(object_key("promised"))
        assert held is not None
        assert held.register.promised == ballot(5)


async def test_appending_resumes_behind_whatever_a_crash_left_at_the_end_of_a_volume(root: Path) -> None:
    async with opened(root) as device:
        await offer(device, KEY, put(1, b"first"), b"first")
        volume = device.volumes.path(device.volumes.ids()[0])
    with volume.open("ab") as file:
        file.write(b"slvr" + bytes(100))
    before = volume.read_bytes()
    async with opened(root) as device:
        await offer(device, object_key("two"), put(1, b"second"), b"second")
        assert await body_of(device) == b"first"
        assert await body_of(device, object_key("two")) == b"second"
        found = [record.key for record in device.volumes.scan(device.volumes.ids()[0])]
        assert found == [KEY, object_key("two")], "a scan finds sound records behind garbage"
    assert volume.read_bytes().startswith(before), "nothing is truncated"


async def test_a_body_that_imitates_a_record_is_not_taken_for_one(root: Path) -> None:
    async with opened(root) as device:
        await offer(device, KEY, put(1, b"innocent"), b"innocent")
        path = device.volumes.path(device.volumes.ids()[0])
        forged = path.read_bytes()[32:]
        await offer(device, object_key("forger"), put(1, forged), forged)
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"slvr", 40)] ^= 1  # the forger's own head is damaged, so a scan looks into its body
        path.write_bytes(raw)
        assert [record.key for record in device.volumes.scan(device.volumes.ids()[0])] == [KEY]


# ---- refusals --------------------------------------------------------------------------------------------------


def test_a_directory_without_a_device_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceRefused, match="mount its disk, or format it"):
        open_now(tmp_path)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        (
            "format = 2\nuuid = ''\ngeneration = 1\nstamp = ''",
            "format 2, this release knows 1: upgrade swiftlike on",
        ),
        ("format = 1", "mount the right disk"),
        ("nonsense", "mount the right disk"),
        ("format = 1\nuuid = ''", r"is not a device file \(it lacks 'generation'\): mount the right disk"),
        ("format = 1\nuuid = 'x'\ngeneration = 1\nstamp = 'x'", "names no valid uuid"),
    ],
)
def test_a_device_file_that_is_not_ours_is_refused(root: Path, text: str, fix: str) -> None:
    (root / "device.toml").write_text(text)
    with pytest.raises(DeviceRefused, match=fix):
        open_now(root)


def test_a_device_file_that_is_garbled_is_refused_without_showing_it(root: Path) -> None:
    (root / "device.toml").write_bytes(b"\xff\x00garbage" * 100)
    with pytest.raises(
        DeviceRefused, match=r"is not a device file \(it is no text\): mount the right disk"
    ) as refused:
        open_now(root)
    assert len(str(refused.value)) < 200 + len(str(root)) * 2


def test_a_device_is_refused_under_another_seed_than_it_was_filled_under(root: Path) -> None:
    assert identity.read_device_file(root).seed_mark is None
    open_now(root).close_now()
    before = (root / "device.toml").read_bytes()
    with pytest.raises(DeviceRefused, match="was filled under another hash_seed than"):
        Device(root, replace(LAYOUT, seed=8), lambda: NOW_US, settings=SETTINGS)
    with pytest.raises(DeviceRefused, match="put the old one back"):
        rebuild_index(root, 8, map_bytes=SETTINGS.index_map_bytes)
    assert (root / "device.toml").read_bytes() == before
    rebuild_index(root, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes)
    with pytest.raises(DeviceRefused, match="put the old one back"):
        Device(root, replace(LAYOUT, seed=8), lambda: NOW_US, settings=SETTINGS)
    open_now(root).close_now()


def test_a_device_of_an_earlier_release_takes_the_mark_of_its_seed_at_its_next_start(root: Path) -> None:
    text = (root / "device.toml").read_text()
    assert "seed_mark" not in text
    open_now(root).close_now()
    assert (root / "device.toml").read_text() == f'{text}seed_mark = "{seed_mark(LAYOUT.seed)}"\n'
    open_now(root).close_now()


def test_a_device_that_is_in_use_is_refused(root: Path) -> None:
    lock = identity.lock_device(root)
    with pytest.raises(DeviceRefused, match="in use by another process"):
        open_now(root)
    identity.unlock_device(lock)
    open_now(root).close_now()


def test_a_missing_index_is_refused_and_never_made_anew(root: Path) -> None:
    for path in (root / "index").iterdir():
        path.unlink()
    with pytest.raises(DeviceRefused, match="run rebuild-index"):
        open_now(root)
    assert not list((root / "index").iterdir())


def test_the_index_of_another_device_is_refused(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "d2"
    other.mkdir()
    format_device(other, map_bytes=SETTINGS.index_map_bytes)
    (other / "index" / "data.mdb").rename(root / "index" / "data.mdb")
    with pytest.raises(DeviceRefused, match="its index belongs to device"):
        open_now(root)


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_volume_of_another_device_is_refused(root: Path, tmp_path: Path, is_empty: bool) -> None:
    other = tmp_path / "d2"
    other.mkdir()
    format_device(other, map_bytes=SETTINGS.index_map_bytes)
    async with opened(other) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, b"x"), b"x")
    (volume,) = (other / "volumes").iterdir()
    (root / "volumes" / volume.name).write_bytes(volume.read_bytes()[: 32 if is_empty else None])
    with pytest.raises(DeviceRefused, match="is foreign: move it away"):
        open_now(root)


def test_a_volume_of_a_newer_release_is_refused(root: Path) -> None:
    stamp = identity.read_device_file(root).stamp.bytes
    (root / "volumes" / "00000007.vol").write_bytes(b"slvolume\2" + bytes(7) + stamp + os.urandom(500))
    with pytest.raises(DeviceRefused, match="has format 2: move it away"):
        open_now(root)


def test_only_an_empty_directory_is_formatted(root: Path) -> None:
    with pytest.raises(DeviceRefused, match="is not empty"):
        format_device(root)


# ---- damage ----------------------------------------------------------------------------------------------------


def flip(path: Path, needle: bytes) -> None:
    """Flip a bit in a body on disk."""
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(needle) + 3] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize("size", [4096, LARGE])
async def test_a_flipped_bit_is_never_served_and_its_copy_is_quarantined(device: Device, size: int) -> None:
    body = os.urandom(size)
    entry = put(1, body)
    await offer(device, KEY, entry, body)
    held = device.read(KEY)
    assert held is not None
    match held.location:
        case InVolume(volume):
            path = device.volumes.path(volume)
        case InFile(file):
            path = device.files.path(file)
    flip(path, body[-64:])
    with pytest.raises(BodyDamaged, match="read another replica"):
        await body_of(device)
    assert device.counters.bodies_damaged == 1
    held = device.read(KEY)
    assert held is not None
    assert held.register.entry == entry, "the device still knows the version"
    assert device.missing(None, 5) == [KEY]
    assert len(list((device.root / "quarantine").iterdir())) == (1 if size == LARGE else 0)
    assert await device.fill(KEY, entry.body_id, body)
    assert await body_of(device) == body


async def test_a_damaged_block_does_not_hide_the_others(device: Device) -> None:
    body = os.urandom(400_000)
    await offer(device, KEY, put(1, body), body)
    found = await device.open_object(KEY)
    assert found is not None
    flip(device.volumes.path(device.volumes.ids()[0]), body[-64:])
    assert bytes(await found[1].read(0, 131_072)) == body[:131_072]
    with pytest.raises(BodyDamaged):
        await found[1].read(399_000, 400_000)
    found[1].release()


async def test_damage_in_a_body_that_was_replaced_meanwhile_is_not_believed(device: Device) -> None:
    body = os.urandom(4096)
    await offer(device, KEY, put(1, body), body)
    found = await device.open_object(KEY)
    assert found is not None
    await offer(device, KEY, put(2, b"new"), b"new")
    flip(device.volumes.path(device.volumes.ids()[0]), body[-64:])
    with pytest.raises(StorageError, match="begin the read again"):
        await found[1].read(0, 4096)
    found[1].release()
    assert await body_of(device) == b"new"
    assert device.counters.bodies_damaged == 0


async def test_a_damaged_value_in_the_index_is_told_and_not_believed(device: Device) -> None:
    await offer(device, KEY, put(1, b"x"), b"x")
    view = device._index.begin()
    key = register_key(KEY, LAYOUT.hashed(KEY.path))
    view._put(key, b"not what was written")
    view.commit()
    with pytest.raises(IndexDamaged, match="rebuild-index"):
        device.read(KEY)


async def test_a_glance_at_what_is_cold_or_wrong_shows_nothing(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(4096)
    await offer(device, KEY, put(1, body), body)
    hashed = LAYOUT.hashed(KEY.path)
    seen = device.glance(KEY, hashed, 4096)
    assert seen is not None
    assert seen.body == body

    def refuse(fd: int, wanted: int, offset: int) -> memoryview:
        raise Cold

    with monkeypatch.context() as cold:
        cold.setattr("storage_node.volumes.pread_warm", refuse)
        assert device.glance(KEY, hashed, 4096) is None
    with monkeypatch.context() as cold:
        cold.setattr(device.warmth, "warm", False)
        assert device.glance(KEY, hashed, 4096) is None
    large = os.urandom(LARGE)
    await offer(device, object_key("large"), put(2, large), large)
    assert device.glance(object_key("large"), LAYOUT.hashed(object_key("large").path), LARGE) is None
    flip(device.volumes.path(device.volumes.ids()[0]), body[-64:])
    assert device.glance(KEY, hashed, 4096) is None, "who finds the damage is told of it, and mends it"
    with pytest.raises(BodyDamaged):
        await body_of(device)
    after = device.glance(KEY, hashed, 4096)
    assert after is not None
    assert (after.whole, after.body) == (False, None)
    view = device._index.begin()
    view._put(register_key(KEY, hashed), b"not what was written")
    view.commit()
    assert device.glance(KEY, hashed, 4096) is None


# ---- readers ---------------------------------------------------------------------------------------------------


async def test_neither_a_delete_nor_compaction_hurts_a_reader(root: Path) -> None:
    settings = Settings(reserve_bytes=0, index_map_bytes=1 << 30, volume_bytes_max=10_000)
    async with opened(root, settings) as device:
        for number in range(8):
            await offer(
                device, object_key(f"n{number}"), put(1, bytes([number]) * 4_000), bytes([number]) * 4_000
            )
        await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
        readers = [await device.open_object(key) for key in (object_key("n0"), object_key("n1"), KEY)]
        for key in (object_key("n0"), KEY):
            await offer(device, key, delete(2))
        volumes = device.volumes.ids()
        for volume in volumes[:-1]:
            assert (await compaction.compact(device, volume)).removed
        for found, body in zip(readers, (bytes(4_000), b"\1" * 4_000, bytes(LARGE)), strict=True):
            assert found is not None
            assert bytes(await found[1].read(0, len(body))) == body
            found[1].release()
        for number in range(1, 8):
            assert await body_of(device, object_key(f"n{number}")) == bytes([number]) * 4_000
        assert not set(volumes[:-1]) & set(device.volumes.ids())


async def test_a_replaced_large_file_is_unlinked(root: Path) -> None:
    async with opened(root) as device:
        await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
        assert len(device.files.finished()) == 1
        await offer(device, KEY, delete(2))
        refused = await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
        assert not refused.accepted
    async with opened(root) as device:
        assert device.files.finished() == []
        assert device.files.staged() == []


async def test_an_aborted_upload_leaves_nothing(device: Device) -> None:
    staged = device.stage(put(1).body_id)
    await staged.write(bytes(LARGE))
    assert len(device.files.staged()) == 1
    await staged.abort()
    assert device.files.staged() == []
    assert device.files.finished() == []


@pytest.mark.parametrize("turns", range(1, 12))
async def test_an_upload_that_is_cancelled_anywhere_leaves_nothing_once_aborted(
    root: Path, turns: int
) -> None:
    async with opened(root) as device:
        entry = put(1, bytes(LARGE))
        staged = device.stage(entry.body_id)

        async def upload() -> None:
            for _ in range(0, LARGE, 100_000):
                await staged.write(bytes(100_000))
            await staged.finish(KEY, entry._replace(size=staged.size))

        task = asyncio.create_task(upload())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            await staged.abort()
            assert device.files.staged() == []
            assert device.files.finished() == []


async def test_a_large_upload_that_is_cancelled_while_it_waits_for_room_leaves_nothing(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()

    def is_full(body_bytes: int) -> bool:
        waiting.set()
        return True

    monkeypatch.setattr(device._writer, "_is_full", is_full)
    entry = put(1, bytes(LARGE))
    upload = asyncio.create_task(device.offer(Offered(KEY, entry, body=bytes(LARGE))))
    await waiting.wait()
    assert list((device.root / "files").glob("??/*"))
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    await asyncio.get_running_loop().run_in_executor(device._remover, len, b"")
    assert not list((device.root / "files").glob("??/*"))
    assert not device.files.under_way()


async def test_a_large_upload_stops_at_the_reserve(root: Path) -> None:
    disk = FaultyDisk()
    settings = Settings(reserve_bytes=1000, index_map_bytes=1 << 30)
    async with opened(root, settings, disk=disk) as device:
        disk.free = 999
        with pytest.raises(InsufficientStorage):
            await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
        assert device.files.staged() == []


async def test_a_volume_that_is_pointed_into_or_written_to_is_not_removed(root: Path) -> None:
    settings = Settings(reserve_bytes=0, index_map_bytes=1 << 30, volume_bytes_max=10_000)
    async with opened(root, settings) as device:
        for number in range(4):
            await offer(device, object_key(f"n{number}"), put(1, bytes(4_000)), bytes(4_000))
        first, last = device.volumes.ids()
        await offer(device, object_key("n2"), delete(2))
        await offer(device, object_key("n3"), delete(2))
        for volume in (first, last):
            with pytest.raises(StorageError, match="compact it first"):
                await device.remove_volume(volume)
        assert await body_of(device, object_key("n0")) == bytes(4_000)


async def test_volumes_are_rolled_at_their_size(root: Path) -> None:
    settings = Settings(reserve_bytes=0, index_map_bytes=1 << 30, volume_bytes_max=10_000)
    async with opened(root, settings) as device:
        await asyncio.gather(
            *(offer(device, object_key(f"n{n}"), put(1, bytes(3_000)), bytes(3_000)) for n in range(10))
        )
        assert len(device.volumes.ids()) == 4
        assert all(device.volumes.size(volume) <= 10_000 for volume in device.volumes.ids())
        assert await body_of(device, object_key("n9")) == bytes(3_000)


# ---- full and failing disks --------------------------------------------------------------------------------------


class FaultyDisk(Disk):
    """A disk that fails on demand."""

    def __init__(self) -> None:
        self.free: int | None = None
        self.sync_error: int | None = None
        self.directory_error: int | None = None
        self.refuse: bytes | None = None
        self.failing: dict[str, int] = {}
        """Effects that fail, with their error numbers."""
        self.syncs = 0

    def free_bytes(self, path: Path) -> int:
        return super().free_bytes(path) if self.free is None else self.free

    def create(self, path: Path) -> int:
        self._fail("create")
        return super().create(path)

    def rename(self, old: Path, new: Path) -> None:
        self._fail("rename")
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._fail("unlink")
        super().unlink(path)

    def _fail(self, effect: str) -> None:
        if effect in self.failing:
            raise OSError(self.failing[effect], os.strerror(self.failing[effect]))

    def write(self, fd: int, offset: int, buffers: Sequence[bytes | memoryview]) -> None:
        self._fail("write")
        if self.refuse is not None and any(self.refuse in bytes(buffer) for buffer in buffers):
            raise OSError(errno.EIO, "Input/output error")
        super().write(fd, offset, buffers)

    def _flush_file(self, fd: int) -> None:
        self.syncs += 1
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super()._flush_file(fd)

    def _flush_directory(self, fd: int) -> None:
        if self.directory_error is not None:
            raise OSError(self.directory_error, os.strerror(self.directory_error))
        super()._flush_directory(fd)


async def test_below_the_reserve_bodies_are_refused_while_deletes_and_reads_go_on(root: Path) -> None:
    disk = FaultyDisk()
    settings = Settings(reserve_bytes=1000, index_map_bytes=1 << 30)
    async with opened(root, settings, disk=disk) as device:
        await offer(device, KEY, put(1, b"kept"), b"kept")
        disk.free = 999
        with pytest.raises(InsufficientStorage, match="add devices"):
            await offer(device, object_key("two"), put(1, b"x"), b"x")
        assert await body_of(device) == b"kept"
        assert (await offer(device, KEY, delete(2))).accepted
        assert (await device.prepare(object_key("two"), ballot(9))).register is not None
        disk.free = 1001
        assert (await offer(device, object_key("two"), put(10, b"x"), b"x")).counts


async def test_an_operation_that_fails_fails_alone(root: Path) -> None:
    disk = FaultyDisk()
    async with opened(root, disk=disk) as device:
        await offer(device, KEY, put(1, b"before"), b"before")
        disk.refuse = b"poison"
        bodies = [b"poison" if number == 5 else b"sound%d" % number for number in range(20)]
        answers = await asyncio.gather(
            *(offer(device, object_key(f"n{n}"), put(1, body), body) for n, body in enumerate(bodies)),
            return_exceptions=True,
        )
        assert [number for number, answer in enumerate(answers) if isinstance(answer, Exception)] == [5]
        assert isinstance(answers[5], StorageError)
        assert device.read(object_key("n5")) is None
        for number in range(20):
            if number != 5:
                assert await body_of(device, object_key(f"n{number}")) == bodies[number]


@pytest.mark.parametrize("effect", ["create", "write", "rename"])
@pytest.mark.parametrize(
    ("error", "told", "counted"),
    [
        (errno.ENOSPC, InsufficientStorage, 0),
        (errno.EDQUOT, InsufficientStorage, 0),
        (errno.EIO, StorageError, 1),
    ],
    ids=["full", "over its quota", "failing"],
)
async def test_a_large_body_that_the_disk_refuses_is_told_counted_and_leaves_nothing(
    root: Path, effect: str, error: int, told: type[StorageError], counted: int
) -> None:
    disk = FaultyDisk()
    async with opened(root, disk=disk) as device:
        disk.failing = {effect: error}
        with pytest.raises(StorageError) as caught:
            await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
        assert type(caught.value) is told
        assert device.counters.write_errors == counted
        disk.failing = {}
        assert device.files.staged() == []
        assert device.files.finished() == []
        assert not device.files.under_way()
        assert (await offer(device, KEY, put(2, bytes(LARGE)), bytes(LARGE))).counts


async def test_a_staged_body_that_the_disk_does_not_let_go_is_left_for_the_leftovers(root: Path) -> None:
    disk = FaultyDisk()
    async with opened(root, disk=disk) as device:
        staged = device.stage(put(1).body_id)
        await staged.write(bytes(LARGE))
        disk.failing = {"unlink": errno.EIO}
        await staged.abort()
        assert device.counters.write_errors == 1
        disk.failing = {}
        await leftovers.remove_leftovers(device, 2**62)
        assert device.files.staged() == []


async def test_a_batch_that_is_on_disk_is_never_replayed_whatever_fails_after_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(change: object) -> None:
        raise RuntimeError("can't start new thread")

    large = bytes(LARGE)
    async with opened(root, on_failure=lambda failure: None) as device:
        await vote_everywhere(device)
        monkeypatch.setattr(Device, "_follow", fail)
        with pytest.raises(OutcomeUnknown, match="after a commit"):
            await offer(device, KEY, put(1, large), large)
        monkeypatch.undo()
        with pytest.raises(DeviceFailed):
            await offer(device, KEY, put(2, b"y"), b"y")
    async with opened(root) as device:
        assert await body_of(device) == large


async def test_a_failed_sync_is_final_and_the_device_returns_without_a_vote(root: Path) -> None:
    disk = FaultyDisk()
    told: list[DeviceFailed] = []
    async with opened(root, disk=disk, on_failure=told.append) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, b"x"), b"x")
        disk.sync_error = errno.EIO
        with pytest.raises(OutcomeUnknown):
            await offer(device, KEY, put(2, b"y"), b"y")
        disk.sync_error = None
        with pytest.raises(DeviceFailed, match="must be restarted"):
            await offer(device, KEY, put(3, b"z"), b"z")
        assert len(told) == 1
        assert await body_of(device) == b"x"
    for _ in range(2):
        async with opened(root) as device:
            assert not device.standing(OBJECTS, 0).votes
            assert await body_of(device) == b"x"


@pytest.mark.parametrize("fault", ["sync_error", "directory_error"])
@pytest.mark.parametrize("size", [100, LARGE], ids=["the first of a volume", "a large file"])
async def test_a_failed_sync_of_a_new_file_is_as_final_as_any(root: Path, size: int, fault: str) -> None:
    disk = FaultyDisk()
    told: list[DeviceFailed] = []
    body = b"x" * size
    async with opened(root, disk=disk, on_failure=told.append) as device:
        await vote_everywhere(device)
        setattr(disk, fault, errno.EIO)
        with pytest.raises(DeviceFailed):
            await offer(device, KEY, put(1, body), body)
        setattr(disk, fault, None)
        with pytest.raises(DeviceFailed, match="must be restarted"):
            await device.prepare(object_key("two"), ballot(3))
        assert len(told) == 1
        assert device.read(KEY) is None
    async with opened(root) as device:
        assert not device.standing(OBJECTS, 0).votes


async def test_a_failed_sync_behind_a_cancelled_upload_is_final_too(root: Path) -> None:
    class Held(FaultyDisk):
        def _flush_file(self, fd: int) -> None:
            reached.set()
            assert let_go.wait(20)
            super()._flush_file(fd)

    open_now(root).close_now()  # what the first start writes is not what is held
    reached, let_go, told = Event(), Event(), asyncio.Event()
    disk, body = Held(), b"x" * LARGE
    disk.sync_error = errno.EIO
    async with opened(root, disk=disk, on_failure=lambda failure: told.set()) as device:
        upload = asyncio.create_task(offer(device, KEY, put(1, body), body))
        assert await asyncio.to_thread(reached.wait, 20)
        upload.cancel()
        let_go.set()
        async with asyncio.timeout(20):
            await told.wait()
        with pytest.raises((asyncio.CancelledError, DeviceFailed)):
            await upload


async def test_operations_that_come_together_share_a_sync(root: Path) -> None:
    disk = FaultyDisk()
    async with opened(root, disk=disk) as device:
        await offer(device, KEY, put(1, b"x"), b"x")
        disk.syncs = 0
        await asyncio.gather(*(offer(device, object_key(f"n{n}"), put(1, b"x"), b"x") for n in range(500)))
        assert disk.syncs < 20


async def test_a_full_queue_makes_callers_wait_and_loses_nobody(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_node.commit.QUEUED_OPERATIONS_MAX", 8)
    async with opened(root) as device:
        deepest = 0

        async def one(number: int) -> None:
            nonlocal deepest
            await offer(device, object_key(f"n{number}"), put(1, b"x"), b"x")
            deepest = max(deepest, device._writer.queued)

        await asyncio.gather(*(one(number) for number in range(100)))
        assert deepest <= 8 < QUEUED_OPERATIONS_MAX
        assert all([await body_of(device, object_key(f"n{number}")) == b"x" for number in range(100)])


async def test_a_cancelled_caller_harms_nobody(device: Device) -> None:
    cancelled = asyncio.create_task(offer(device, KEY, put(1, b"x"), b"x"))
    await asyncio.sleep(0)
    cancelled.cancel()
    answer = await offer(device, object_key("two"), put(1, b"y"), b"y")
    assert answer.counts
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_first_votes_outlive_a_restart_and_are_granted_to_the_end_after_one(root: Path) -> None:
    async with opened(root) as device:
        assert await device.grant_first_votes(OBJECTS, (0, 1)) == 2
    async with opened(root) as device:
        assert device.standing(OBJECTS, 0).votes
        assert await device.grant_first_votes(OBJECTS, (0, 1, 2)) == 1


@pytest.mark.parametrize("granted", [(), (0,)], ids=["before any vote", "after the first"])
async def test_after_a_failed_sync_no_first_vote_is_granted_ever_again(
    root: Path, granted: tuple[int, ...]
) -> None:
    async with opened(root) as device:
        await device.grant_first_votes(OBJECTS, granted)
    identity.mark_failed(root)
    for _ in range(2):
        async with opened(root) as device:
            for table in (OBJECTS, CONTAINERS):
                assert await device.grant_first_votes(table, (0, 1)) == 0
                assert not device.standing(table, 0).votes


async def test_an_index_that_was_rebuilt_gets_no_first_votes(root: Path) -> None:
    rebuild_index(root, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes)
    async with opened(root) as device:
        assert await device.grant_first_votes(OBJECTS, (0,)) == 0
        assert not device.standing(OBJECTS, 0).votes


@pytest.mark.parametrize("step", ["sync_directory", "rename"])
async def test_a_rebuild_that_was_interrupted_can_be_repeated(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, b"x"), b"x")
    for _ in range(2):
        monkeypatch.setattr(Disk, step, _interrupt)
        with pytest.raises(DeviceRefused, match="interrupted"):
            rebuild_index(root, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes)
        monkeypatch.undo()
    rebuild_index(root, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes)
    async with opened(root) as device:
        assert await body_of(device) == b"x"


def _interrupt(*arguments: object) -> None:
    raise OSError("interrupted")


@pytest.mark.parametrize("step", ["make_directory", "sync_directory", "write", "sync", "rename", "unlink"])
def test_a_format_that_fails_is_told_with_the_fix_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(Disk, step, _interrupt)
    with pytest.raises(DeviceRefused, match=r"cannot be used \(interrupted\): look at its disk"):
        format_device(tmp_path, map_bytes=SETTINGS.index_map_bytes)
    monkeypatch.undo()
    if step != "unlink":  # by then it was whole
        format_device(tmp_path, map_bytes=SETTINGS.index_map_bytes)
    with pytest.raises(DeviceRefused, match="is not empty"):
        format_device(tmp_path, map_bytes=SETTINGS.index_map_bytes)
    open_now(tmp_path).close_now()


def test_what_lost_its_device_file_is_never_taken_for_an_unfinished_format(root: Path) -> None:
    (root / "device.toml").unlink()
    with pytest.raises(DeviceRefused, match="is not empty"):
        format_device(root)


async def test_a_device_whose_failed_sync_could_not_be_noted_comes_back_without_votes_when_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path) -> None:
        raise DeviceFailed("read-only file system")

    disk = FaultyDisk()
    async with opened(root, disk=disk, on_failure=lambda failure: None) as device:
        await vote_everywhere(device)
        disk.sync_error = errno.EIO
        monkeypatch.setattr(identity, "mark_failed", read_only)
        with pytest.raises(OutcomeUnknown):
            await offer(device, KEY, put(1, b"x"), b"x")
    device = open_now(root, without_votes=True)
    assert not device.standing(OBJECTS, 0).votes
    device.close_now()
    assert not open_now_and_ask(root), "the votes were taken away durably"


def open_now_and_ask(root: Path) -> bool:
    """Open a device as ever, and say whether it votes."""
    device = open_now(root)
    try:
        return device.standing(OBJECTS, 0).votes
    finally:
        device.close_now()


async def test_a_device_that_cannot_take_its_votes_away_is_not_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)

    def fail(change: IndexChange) -> None:
        raise DeviceFailed("the index could not be committed")

    with monkeypatch.context() as patch:
        patch.setattr(IndexChange, "commit", fail)
        with pytest.raises(StorageError, match="could not be committed"):
            open_now(root, without_votes=True)
    assert open_now_and_ask(root), "nothing was done"


async def test_a_full_device_whose_sync_failed_serves_reads_and_votes_on_nothing_until_there_is_room(
    root: Path,
) -> None:
    disk, settings = FaultyDisk(), Settings(reserve_bytes=4_000, index_map_bytes=1 << 30)
    async with opened(root, settings) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, b"kept"), b"kept")
    disk.free = 999
    for told in (True, False):  # the second process is not told, and must find the mark
        async with opened(root, settings, disk=disk, without_votes=told) as device:
            assert identity.has_failed(root)
            assert await body_of(device) == b"kept"
            assert not device.standing(OBJECTS, 0).votes
            for refused in (
                offer(device, KEY, delete(2)),
                device.grant_first_votes(OBJECTS, [0]),
                stand(device, OBJECTS, 0, Standing(votes=True)),
            ):
                with pytest.raises(InsufficientStorage, match="is only read from: free 1 bytes or more"):
                    await refused
    async with opened(root, settings, disk=disk) as device:
        disk.free = 1_000
        answer = await offer(device, KEY, delete(2))
        assert (answer.accepted, answer.votes) == (True, False)
        assert not identity.has_failed(root)
    assert not open_now_and_ask(root), "the votes were taken away durably"


async def test_nothing_is_committed_on_a_disk_that_is_full_to_the_last(root: Path) -> None:
    disk = FaultyDisk()
    async with opened(root, Settings(reserve_bytes=4_000, index_map_bytes=1 << 30), disk=disk) as device:
        await vote_everywhere(device)
        disk.free = 999
        with pytest.raises(InsufficientStorage, match="is full to the last"):
            await offer(device, KEY, delete(2))
        disk.free = 1_000
        assert (await offer(device, KEY, delete(2))).accepted


async def test_a_writer_that_cannot_begin_tells_whoever_waits_and_goes_on(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: Index) -> IndexChange:
        raise StorageError("the index refused: try again")

    with monkeypatch.context() as patch:
        patch.setattr(Index, "begin", refuse)
        answers = await asyncio.gather(
            *(offer(device, object_key(f"n{n}"), put(1, b"x"), b"x") for n in range(3)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [StorageError] * 3
    assert (await offer(device, KEY, put(1, b"x"), b"x")).counts


async def test_an_index_on_a_disk_of_its_own_needs_room_there(tmp_path: Path) -> None:
    class FullIndexDisk(Disk):
        def free_bytes(self, path: Path) -> int:
            return 5 if path == tmp_path / "fast" else 1 << 40

    root = tmp_path / "d1"
    root.mkdir()
    format_device(root, index_directory=tmp_path / "fast", map_bytes=SETTINGS.index_map_bytes)
    settings = Settings(
        reserve_bytes=10, index_map_bytes=SETTINGS.index_map_bytes, index_directory=tmp_path / "fast"
    )
    async with opened(root, settings, disk=FullIndexDisk()) as device:
        with pytest.raises(InsufficientStorage):
            await offer(device, KEY, put(1, b"x"), b"x")


async def test_a_disk_that_does_not_tell_its_room_fails_operations_and_not_the_process(root: Path) -> None:
    class MuteDisk(FaultyDisk):
        def free_bytes(self, path: Path) -> int:
            if self.sync_error is not None:
                raise OSError(errno.EIO, "Input/output error")
            return super().free_bytes(path)

    disk = MuteDisk()
    async with opened(root, disk=disk) as device:
        disk.sync_error = errno.EIO
        answers = await asyncio.gather(
            *(offer(device, object_key(f"n{n}"), put(1, b"x"), b"x") for n in range(3)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [StorageError] * 3
        disk.sync_error = None
        assert (await offer(device, KEY, put(1, b"x"), b"x")).counts


async def test_votes_taken_under_one_part_power_do_not_return_under_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = Layout(LAYOUT.seed, {**LAYOUT.part_powers, OBJECTS: LAYOUT.part_powers[OBJECTS] + 1})
    async with opened(root) as device:
        assert await device.grant_first_votes(OBJECTS, (0, 1)) == 2
        await stand(device, OBJECTS, 0, Standing(votes=False))
    identity.mark_failed(root)
    monkeypatch.setattr("tests.engine.conftest.LAYOUT", wider)
    async with opened(root) as device:
        assert device.layout == wider
        assert await device.grant_first_votes(OBJECTS, (0, 1, 2, 3, 4)) == 0
        assert not any(device.standing(OBJECTS, number).votes for number in range(5))


async def test_first_votes_are_granted_under_a_raised_part_power_to_who_had_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = Layout(LAYOUT.seed, {**LAYOUT.part_powers, OBJECTS: LAYOUT.part_powers[OBJECTS] + 1})
    async with opened(root) as device:
        assert await device.grant_first_votes(OBJECTS, (0, 1)) == 2
        await stand(device, OBJECTS, 0, Standing(votes=False))
    monkeypatch.setattr("tests.engine.conftest.LAYOUT", wider)
    async with opened(root) as device:
        assert await device.grant_first_votes(OBJECTS, range(6)) == 2, "only 4 and 5 never stood"
        assert [device.standing(OBJECTS, number).votes for number in range(6)] == [False] * 2 + [True] * 4


async def test_the_votes_of_containers_are_taken_away_with_those_of_objects(root: Path) -> None:
    async with opened(root) as device:
        await stand(device, CONTAINERS, 3, Standing(votes=True, floor_us=7))
    identity.mark_failed(root)
    async with opened(root) as device:
        assert device.standing(CONTAINERS, 3) == Standing(votes=False, floor_us=7)
