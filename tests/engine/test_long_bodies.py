"""Long bodies: what lies behind the first of their bytes passes the page cache by, wherever the file system can do that."""

import asyncio
import errno
import gc
import os
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from storage_node.blocks import Cold, pread_direct, pread_waiting, pread_warm
from storage_node.device import Device
from storage_node.direct_io import open_direct
from storage_node.errors import BodyDamaged, BodyGone, StorageError
from storage_node.locations import InFile
from storage_node.store import Offered
from swiftlike.entries import Entry
from swiftlike.limits import BLOCK_BYTES, READ_CHUNK_BYTES, SMALL_BODY_BYTES_MAX, WRITE_RUN_BYTES
from tests.engine.conftest import opened, vote_everywhere
from tests.engine.samples import object_key, put

CACHED = READ_CHUNK_BYTES
SIZES = [
    SMALL_BODY_BYTES_MAX + 1,
    SMALL_BODY_BYTES_MAX + 4 * BLOCK_BYTES,
    3 * READ_CHUNK_BYTES - 1,
    3 * READ_CHUNK_BYTES,
    3 * READ_CHUNK_BYTES + 5 * BLOCK_BYTES + 4096,
]
KEY = object_key("long")


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies are long here that are not elsewhere."""
    monkeypatch.setattr("storage_node.files.CACHED_BYTES", CACHED)
    monkeypatch.setattr("storage_node.blocks.CACHED_BYTES", CACHED)


@pytest.fixture(params=["past the cache", "file system cannot", "other multiples"])
def ability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system can do; one that cannot says so when the file is opened, or when it is written and read."""
    if request.param == "file system cannot":
        monkeypatch.setattr("storage_node.direct_io.open_direct", lambda fd, access: None)
    if request.param == "other multiples":
        # Memory that begins anywhere is refused as a length would be that is no multiple of the disk's.
        monkeypatch.setattr("storage_node.direct_io._aligned_run", lambda: bytearray(WRITE_RUN_BYTES))
        monkeypatch.setattr(
            "storage_node.direct_io._aligned", lambda size: memoryview(bytearray(size + 1))[1:]
        )
    return str(request.param)


async def put_long(device: Device, body: bytes, piece_bytes: int = 300_001) -> Entry:
    """Store a body as a stream brings it."""
    entry = put(1, body)
    staged = device.stage(entry.body_id)
    try:
        for at in range(0, len(body), piece_bytes):
            await staged.write(body[at : at + piece_bytes])
        assert (await device.offer(Offered(KEY, entry, body=staged))).accepted
    finally:
        await staged.abort()
    return entry


def path_of(device: Device) -> Path:
    held = device.read(KEY)
    assert held is not None
    assert isinstance(held.location, InFile)
    return device.files.path(held.location.file)


async def read_back(device: Device, start: int, stop: int) -> bytes:
    found = await device.open_object(KEY)
    assert found is not None
    try:
        async with aclosing(found[1].stream(start, stop)) as chunks:
            return b"".join([bytes(chunk) async for chunk in chunks])
    finally:
        found[1].release()


@pytest.mark.parametrize("size", SIZES)
async def test_a_long_body_is_read_back_as_it_came_whatever_the_file_system_can_do(
    device: Device, ability: str, size: int
) -> None:
    body = os.urandom(size)
    await put_long(device, body)
    assert path_of(device).read_bytes()[:size] == body
    assert await read_back(device, 0, size) == body
    for start, stop in ((1, size), (CACHED - 1, size - 1), (CACHED, size), (size - 1, size)):
        assert await read_back(device, start, stop) == body[start:stop]


async def test_only_the_beginning_of_a_long_body_is_brought_into_the_page_cache(device: Device) -> None:
    body = os.urandom(4 * READ_CHUNK_BYTES)
    await put_long(device, body)
    fd = os.open(path_of(device), os.O_RDONLY)
    try:
        past = open_direct(fd, os.O_RDONLY)
        if past is None:
            pytest.skip("this file system has no way past the page cache")
        os.close(past)
        assert await read_back(device, CACHED, len(body)) == body[CACHED:]
        # From behind, since the kernel brings what follows a page that it is asked for.
        for at in reversed(range(2 * CACHED, len(body), READ_CHUNK_BYTES)):
            with pytest.raises(Cold):
                pread_warm(fd, 4096, at)
    finally:
        os.close(fd)


@pytest.mark.parametrize("length", [0, 1, READ_CHUNK_BYTES - 1, READ_CHUNK_BYTES, READ_CHUNK_BYTES + 4097])
def test_past_the_cache_is_read_what_is_read_otherwise_and_less_only_at_the_end(
    tmp_path: Path, ability: str, length: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(length))
    fd = os.open(path, os.O_RDONLY)
    try:
        for wanted, offset in (
            (READ_CHUNK_BYTES, 0),
            (READ_CHUNK_BYTES, 4096),
            (READ_CHUNK_BYTES, 5),
            (9, 0),
        ):
            assert pread_direct(fd, wanted, offset) == pread_waiting(fd, wanted, offset)
    finally:
        os.close(fd)


async def test_what_the_disk_refuses_past_the_cache_is_told_and_leaves_nothing(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, run: memoryview) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("storage_node.direct_io._write", refuse)
    with pytest.raises(StorageError, match="look at the disk"):
        await put_long(device, os.urandom(3 * READ_CHUNK_BYTES))
    assert device.read(KEY) is None
    assert device.files.staged() == []
    assert device.counters.write_errors == 1


async def test_damage_that_is_met_ahead_is_told_behind_what_comes_before_it(device: Device) -> None:
    body = os.urandom(4 * READ_CHUNK_BYTES)
    await put_long(device, body)
    damage(path_of(device), 3 * READ_CHUNK_BYTES - 1)
    found = await device.open_object(KEY)
    assert found is not None
    chunks = found[1].stream(0, len(body))
    assert b"".join([await anext(chunks), await anext(chunks)]) == body[: 2 * READ_CHUNK_BYTES]
    with pytest.raises(BodyDamaged):
        await anext(chunks)
    found[1].release()


async def test_damage_that_is_met_ahead_of_who_leaves_is_noted_and_nobodys_complaint(device: Device) -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
    await put_long(device, os.urandom(4 * READ_CHUNK_BYTES))
    damage(path_of(device), 3 * READ_CHUNK_BYTES - 1)
    noted = asyncio.Event()
    device.on_missing = lambda key: noted.set()
    found = await device.open_object(KEY)
    assert found is not None
    async with aclosing(found[1].stream(CACHED, 4 * READ_CHUNK_BYTES)) as chunks:
        await anext(chunks)
        async with asyncio.timeout(20):
            await noted.wait()
    found[1].release()
    gc.collect()
    assert not unheard


async def test_a_file_that_a_thread_still_reads_ahead_is_closed_behind_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def held(fd: int, wanted: int, offset: int) -> memoryview:
        if offset == 2 * READ_CHUNK_BYTES:
            begun.set()
            assert let_go.wait(20)
        return pread_direct(fd, wanted, offset)

    monkeypatch.setattr("storage_node.open_body.pread_direct", held)
    async with opened(root) as device:
        await vote_everywhere(device)
        await put_long(device, os.urandom(4 * READ_CHUNK_BYTES))
        found = await device.open_object(KEY)
        assert found is not None
        file = found[1]._extent.file
        async with aclosing(found[1].stream(CACHED, 4 * READ_CHUNK_BYTES)) as chunks:
            await anext(chunks)
            assert await asyncio.to_thread(begun.wait, 20)
        found[1].release()
        file.hold().release()
        let_go.set()
    with pytest.raises(BodyGone):
        file.hold()


def damage(path: Path, at: int) -> None:
    """Flip a bit of a body on disk."""
    with path.open("r+b") as file:
        file.seek(at)
        (octet,) = file.read(1)
        file.seek(at)
        file.write(bytes([octet ^ 4]))
