"""What a crash or a rebuild left behind goes in the end, and nothing that a write or an entry still wants."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from storage_node import compaction, identity
from storage_node.checking import ClosedDevice, check
from storage_node.device import Device, Settings
from storage_node.disk import Disk
from storage_node.keys import Layout
from storage_node.leftovers import Removed, remove_leftovers
from storage_node.locations import InFile
from storage_node.operations import Operation
from storage_node.rebuilding import rebuild_index
from storage_node.store import Offered
from swiftlike.limits import LEFTOVER_AGE_US, OLD_INDEX_AGE_US
from tests.engine.conftest import SETTINGS, opened, vote_everywhere
from tests.engine.samples import LARGE, LAYOUT, NOW_US, delete, object_key, put
from tests.engine.test_store_contract import body_of, offer

KEY = object_key("one")
FAR_FUTURE_US = 2**62


def written_us(path: Path) -> int:
    """Return when a file was last written or renamed."""
    return max(path.stat().st_mtime_ns, path.stat().st_ctime_ns) // 1_000


def finished(root: Path) -> list[Path]:
    """Return the large files of a device."""
    return sorted((root / "files").glob("??/*"))


async def leave_an_unreferenced_file(root: Path) -> Path:
    """Let a process die between a file's last sync and the commit that would point at it."""
    async with opened(root) as device:
        entry = put(1, bytes(LARGE))
        staged = device.stage(entry.body_id)
        await staged.write(bytes(LARGE))
        await staged.finish(object_key("never"), entry)
    (path,) = finished(root)
    return path


@pytest.mark.parametrize("older_us", [0, 1])
async def test_a_finished_file_without_an_entry_goes_when_it_is_old_enough(root: Path, older_us: int) -> None:
    path = await leave_an_unreferenced_file(root)
    now_us = written_us(path) + LEFTOVER_AGE_US + older_us
    async with opened(root) as device:
        removed = await remove_leftovers(device, now_us)
    assert removed.files == older_us
    assert path.exists() is (older_us == 0)


@pytest.mark.parametrize("older_us", [0, 1])
async def test_what_a_dead_process_staged_goes_when_it_is_old_enough(root: Path, older_us: int) -> None:
    path = root / "staging" / ("ab" * 16)
    path.write_bytes(bytes(10))
    async with opened(root) as device:
        removed = await remove_leftovers(device, written_us(path) + LEFTOVER_AGE_US + older_us)
    assert (removed.staged, removed.bytes_freed) == (older_us, 10 * older_us)
    assert path.exists() is (older_us == 0)


async def test_an_upload_under_way_is_left_alone_however_old_it_looks(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_but_not_committed: list[Removed] = []

    enqueue = device._writer.enqueue

    async def remove_first(operation: Operation) -> "asyncio.Future[Any]":
        finished_but_not_committed.append(await remove_leftovers(device, FAR_FUTURE_US))
        return await enqueue(operation)

    entry = put(1, bytes(LARGE))
    staged = device.stage(entry.body_id)
    await staged.write(bytes(LARGE))
    assert await remove_leftovers(device, FAR_FUTURE_US) == Removed()
    monkeypatch.setattr(device._writer, "enqueue", remove_first)
    answer = await device.offer(Offered(KEY, entry, body=staged))
    assert answer.counts
    assert finished_but_not_committed
    assert all(removed == Removed() for removed in finished_but_not_committed)
    assert await remove_leftovers(device, FAR_FUTURE_US) == Removed()
    assert await body_of(device, KEY) == bytes(LARGE)


async def test_every_upload_ends_being_under_way(device: Device) -> None:
    async def upload(at: int, *, abort: bool) -> None:
        entry = put(at, bytes(LARGE))
        staged = device.stage(entry.body_id)
        await staged.write(bytes(LARGE))
        if not abort:
            await device.offer(Offered(KEY, entry, body=staged))
        await staged.abort()

    await upload(5, abort=False)
    await upload(6, abort=True)
    await upload(4, abort=False)  # refused: the register holds a newer entry
    await asyncio.get_running_loop().run_in_executor(device._remover, len, b"")
    assert not device.files.under_way()
    assert len(finished(device.root)) == 1


async def test_a_wrong_seed_makes_nothing_look_left_over(root: Path) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
    forget_the_seed(root)  # as an earlier release did; with its mark the device is refused
    stranger = Device(root, Layout(99, LAYOUT.part_powers), lambda: NOW_US, settings=SETTINGS)
    assert stranger.read(KEY) is None
    stranger.start()
    assert (await remove_leftovers(stranger, FAR_FUTURE_US)).files == 0
    await stranger.close()
    forget_the_seed(root)
    async with opened(root) as device:
        assert await body_of(device, KEY) == bytes(LARGE)


def forget_the_seed(root: Path) -> None:
    device = identity.read_device_file(root)
    assert device.seed_mark is not None
    identity.write_device_file(root, replace(device, seed_mark=None), Disk())


async def test_the_only_copy_of_a_missing_body_and_what_cannot_be_read_are_kept(root: Path) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
    (damaged,) = finished(root)
    with damaged.open("r+b") as file:
        os.pwrite(file.fileno(), b"!", 70_000)
    rebuild_index(root, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes)
    unreadable = damaged.with_name(damaged.name[:2] + "00" * 15)
    unreadable.write_bytes(b"noise")
    async with opened(root) as device:
        removed = await remove_leftovers(device, FAR_FUTURE_US)
    assert (removed.files, removed.kept) == (0, 2)
    assert damaged.exists()
    assert unreadable.exists()


async def test_an_index_that_a_rebuild_set_aside_goes_after_its_time(root: Path) -> None:
    rebuild_index(root, LAYOUT.seed, map_bytes=SETTINGS.index_map_bytes)
    index = root / "index"
    (index / "new").mkdir()
    (index / "new" / "data.mdb").write_bytes(b"half")
    (index / "data.mdb.bak").touch()
    aside_us = written_us(index / "data.mdb.1")
    async with opened(root) as device:
        assert (await remove_leftovers(device, aside_us + LEFTOVER_AGE_US)).indexes == 0
        later = await remove_leftovers(device, aside_us + OLD_INDEX_AGE_US)
        assert later.indexes == 1
        assert (index / "data.mdb.1").exists()
        assert not (index / "new").exists()
        assert (await remove_leftovers(device, FAR_FUTURE_US)).indexes == 1
        assert not (index / "data.mdb.1").exists()
        assert (index / "data.mdb.bak").exists(), "not a name that a rebuild gives"


async def test_a_volume_that_never_got_its_header_goes_and_no_other(root: Path) -> None:
    (root / "volumes" / "00000001.vol").write_bytes(bytes(40))
    async with opened(root) as device:
        await vote_everywhere(device)
        assert (await remove_leftovers(device, FAR_FUTURE_US)).volumes == 0, (
            "the newest may be about to get one"
        )
        await offer(device, KEY, put(1, b"body"), b"body")
        assert (await remove_leftovers(device, FAR_FUTURE_US)).volumes == 1
    async with opened(root) as device:
        assert await body_of(device, KEY) == b"body"


async def test_leftovers_and_compaction_beside_puts_and_deletes_lose_nothing(root: Path) -> None:
    """Writers own their keys, so that each knows what must be there; readers hold bodies open across removals."""
    settings = Settings(reserve_bytes=0, index_map_bytes=1 << 28, volume_bytes_max=100_000)
    expected: dict[str, bytes | None] = {}
    writing = True

    async def writer(device: Device, number: int) -> None:
        random, name = Random(number), f"n{number}"
        for at in range(1, 60):
            if random.random() < 0.3:
                assert (await offer(device, object_key(name), delete(at))).counts
                expected[name] = None
            else:
                body = random.randbytes(LARGE if random.random() < 0.03 else random.randint(1, 9_000))
                assert (await offer(device, object_key(name), put(at, body), body)).counts
                expected[name] = body
            found = await device.open_object(object_key(name))
            assert (found is None) is (expected[name] is None)
            if found is not None:
                await asyncio.sleep(0)
                assert bytes(await found[1].read(0, found[1].size)) == expected[name]
                found[1].release()

    async def keeper(device: Device) -> int:
        compacted, last = 0, False
        while not last:
            last = not writing
            for volume in compaction.worth_compacting(device):
                done = await compaction.compact(device, volume)
                assert done.removed
                compacted += 1
            await remove_leftovers(device, FAR_FUTURE_US)
        return compacted

    async with opened(root, settings) as device:
        await vote_everywhere(device)
        keeping = asyncio.create_task(keeper(device))
        await asyncio.gather(*(writer(device, number) for number in range(8)))
        writing = False
        assert await keeping > 0
        for name, body in expected.items():
            assert await body_of(device, object_key(name)) == body
        held = [device.read(object_key(name)) for name in expected]
        wanted = [each.location.file for each in held if each and isinstance(each.location, InFile)]
    assert len(finished(root)) == len(wanted)
    closed = ClosedDevice(root, map_bytes=settings.index_map_bytes)
    report = check(closed)
    closed.close()
    assert report.damage == []
