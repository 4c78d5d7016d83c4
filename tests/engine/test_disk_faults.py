"""A disk that refuses single reads and names: what is told and counted, and what goes on beside it."""

import errno
import logging
import os
from pathlib import Path
from uuid import UUID

import pytest

from storage_node import compaction, housekeeping
from storage_node.blocks import pread_waiting
from storage_node.device import Device, Settings
from storage_node.disk import Disk
from storage_node.errors import BodyDamaged, DeviceRefused, StorageError
from storage_node.keys import Key
from storage_node.mender import Mender
from storage_node.store import Offered
from swiftlike.entries import Entry
from tests.engine.conftest import SETTINGS, opened, vote_everywhere
from tests.engine.samples import LARGE, LAYOUT, NOW_US, ballot, delete, object_key, put
from tests.engine.test_auditor import auditor, path_of
from tests.engine.test_device import flip
from tests.engine.test_store_contract import body_of, offer

KEY = object_key("o")
SMALL_VOLUMES = Settings(reserve_bytes=0, index_map_bytes=1 << 30, volume_bytes_max=3_000)


def refuse(*arguments: object, **options: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def descriptors() -> int:
    """Return how many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def no_sleep(seconds: float) -> None:
    """Let compaction run on."""


async def test_a_large_file_that_cannot_be_opened_is_damage_that_is_counted(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    await offer(device, KEY, put(1, bytes(LARGE)), bytes(LARGE))
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "open", refuse)
        with pytest.raises(BodyDamaged, match="read another replica"):
            await device.open_object(KEY)
    assert device.counters.read_errors == 1
    assert await body_of(device, KEY) == bytes(LARGE)


async def test_a_damaged_file_that_cannot_be_put_aside_is_damage_all_the_same(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(LARGE - 6) + b"needle"
    await offer(device, KEY, put(1, body), body)
    flip(device.files.path(device.files.finished()[0]), b"needle")
    monkeypatch.setattr(Disk, "rename", refuse)
    with pytest.raises(BodyDamaged):
        await body_of(device, KEY)
    held = device.read(KEY)
    assert held is not None
    assert not held.location.held
    assert device.counters.write_errors == 1


async def test_a_body_whose_second_offer_cannot_be_finished_leaves_no_descriptor_and_no_file(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    await offer(device, KEY, put(10, b"newer"), b"newer")
    entry = put(5, bytes(LARGE))
    staged = device.stage(entry.body_id)
    await staged.write(bytes(LARGE))
    assert not (await device.offer(Offered(KEY, entry, body=staged))).accepted
    open_before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write", refuse)
        with pytest.raises(StorageError):
            await device.offer(Offered(KEY, entry._replace(ballot=ballot(20)), body=staged))
    await staged.abort()
    assert descriptors() == open_before
    assert (device.files.finished(), device.files.staged()) == ([], [])


async def test_a_body_that_cannot_be_read_keeps_its_volume_and_keeps_no_other_from_compaction(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(root, SMALL_VOLUMES) as device:
        for number in range(8):
            body = bytes([number]) * 1_200
            await offer(device, object_key(f"n{number}"), put(1, body), body)
        first, second, *_ = device.volumes.ids()
        for number in (0, 2):
            await offer(device, object_key(f"n{number}"), delete(2))
        bad, read = device.volumes.path(first), pread_waiting

        def pread(fd: int, wanted: int, offset: int) -> memoryview:
            if os.path.samestat(os.fstat(fd), bad.stat()):
                refuse()
            return read(fd, wanted, offset)

        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(compaction, "pread_waiting", pread)
            await housekeeping._compact_volumes(device, sleep=no_sleep)
        assert first in device.volumes.ids()
        assert second not in device.volumes.ids()
        assert device.counters.read_errors == 1
        assert "look at the disk" in caplog.text
        for number in (1, *range(3, 8)):
            assert await body_of(device, object_key(f"n{number}")) == bytes([number]) * 1_200


async def test_a_volume_that_cannot_even_be_scanned_keeps_no_other_from_compaction(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(root, SMALL_VOLUMES) as device:
        for number in range(8):
            await offer(device, object_key(f"n{number}"), put(1, bytes(1_200)), bytes(1_200))
        first, second, *_ = device.volumes.ids()
        for number in range(4):
            await offer(device, object_key(f"n{number}"), delete(2))
        scan = device.volumes.scan
        monkeypatch.setattr(
            device.volumes, "scan", lambda volume: refuse() if volume == first else scan(volume)
        )
        await housekeeping._compact_volumes(device, sleep=no_sleep)
        assert first in device.volumes.ids()
        assert second not in device.volumes.ids()


async def test_a_file_among_the_volumes_that_is_none_is_refused_with_the_fix(root: Path) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
    (root / "volumes" / "copy of 1.vol").write_bytes(b"")
    with pytest.raises(DeviceRefused, match=r"copy of 1\.vol is no volume: move it away"):
        Device(root, LAYOUT, lambda: NOW_US, settings=SETTINGS)


class BadSectors:
    """A disk some of whose files refuse to be read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: set[Path] = set()
        self.errno = errno.EIO
        self._preadv = os.preadv
        monkeypatch.setattr(os, "preadv", self.preadv)

    def preadv(self, fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if any(path.exists() and os.path.samestat(os.fstat(fd), path.stat()) for path in self.paths):
            raise OSError(self.errno, os.strerror(self.errno))
        return self._preadv(fd, buffers, offset, flags)


class OtherOwners:
    """What the mender asks: they have everything."""

    def __init__(self, device: Device, bodies: dict[Key, bytes]) -> None:
        self.device, self.bodies = device, bodies
        self.asked = 0

    async def mend(self, table: bytes, path: bytes, entry: Entry, lacking: UUID, timeout_s: float) -> bool:
        self.asked += 1
        body = self.bodies.get(Key(table, path))
        return body is not None and await self.device.fill(Key(table, path), entry.body_id, body)


@pytest.mark.parametrize("size", [4_096, LARGE])
async def test_a_body_that_the_disk_does_not_read_is_replaced_by_another_owners_and_not_given_up_before(
    device: Device, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    body = os.urandom(size)
    await offer(device, KEY, put(1, body), body)
    before = device.read(KEY)
    assert before is not None
    bad = BadSectors(monkeypatch)
    bad.paths = {path_of(device, KEY)}
    others = OtherOwners(device, {})
    mender = Mender(device, others, device.uuid)
    device.on_missing = mender.tell

    job = auditor(device)
    await job.walk()
    assert job.audited.bodies_damaged == 1
    await mender._mend_told()
    assert (others.asked, device.read(KEY)) == (1, before), "nobody has it: it may be read another day"

    others.bodies = {KEY: body}
    with pytest.raises(BodyDamaged):
        await body_of(device, KEY)
    await mender._mend_told()
    after = device.read(KEY)
    assert after is not None
    assert (after.register, after.location == before.location) == (before.register, False)
    assert device.missing(None, 5) == []
    bad.paths = set()
    assert await body_of(device, KEY) == body
    assert not device.wants_body(KEY, after)
    assert not await mender._store.scan(device.missing, None, 5)
    asked = others.asked
    await mender.mend(KEY)
    assert others.asked == asked, "nothing is wanted any more"


async def test_a_body_that_was_replaced_while_another_owners_came_stays_as_it_is(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(LARGE)
    entry = put(1, body)
    await offer(device, KEY, entry, body)
    bad = BadSectors(monkeypatch)
    bad.paths = {path_of(device, KEY)}
    with pytest.raises(BodyDamaged):
        await body_of(device, KEY)
    bad.paths = set()
    await offer(device, KEY, put(2, b"newer"), b"newer")
    assert not await device.fill(KEY, entry.body_id, body)
    assert await body_of(device, KEY) == b"newer"
    held = device.read(KEY)
    assert held is not None
    assert not device.wants_body(KEY, held)


async def test_a_process_that_has_too_many_files_open_takes_no_disk_for_bad(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    await offer(device, KEY, put(1, b"x"), b"x")
    bad = BadSectors(monkeypatch)
    bad.paths, bad.errno = {path_of(device, KEY)}, errno.EMFILE
    with pytest.raises(BodyDamaged):
        await body_of(device, KEY)
    held = device.read(KEY)
    assert held is not None
    assert not device.wants_body(KEY, held)
