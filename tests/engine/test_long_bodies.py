"""Long bodies: they are read back as they came, and only their beginning stays in the page cache."""

import os
from pathlib import Path

import pytest

from storage_node.blocks import Cold, pread_warm
from storage_node.device import Device
from storage_node.errors import BodyDamaged
from storage_node.locations import InFile
from storage_node.store import Offered
from swiftlike.limits import BLOCK_BYTES, READ_CHUNK_BYTES, SMALL_BODY_BYTES_MAX
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
    monkeypatch.setattr("storage_node.files.WRITEBACK_BYTES", READ_CHUNK_BYTES)
    monkeypatch.setattr("storage_node.files.LEFT_BEHIND_BYTES", 2 * READ_CHUNK_BYTES)
    monkeypatch.setattr("storage_node.blocks.CACHED_BYTES", CACHED)


async def put_long(device: Device, body: bytes, piece_bytes: int = 300_001) -> Path:
    """Store a body as a stream brings it, and return its file."""
    entry = put(1, body)
    staged = device.stage(entry.body_id)
    try:
        for at in range(0, len(body), piece_bytes):
            await staged.write(body[at : at + piece_bytes])
        assert (await device.offer(Offered(KEY, entry, body=staged))).accepted
    finally:
        await staged.abort()
    held = device.read(KEY)
    assert held is not None
    assert isinstance(held.location, InFile)
    return device.files.path(held.location.file)


async def read_back(device: Device, start: int, stop: int) -> bytes:
    found = await device.open_object(KEY)
    assert found is not None
    try:
        return b"".join([bytes(chunk) async for chunk in found[1].stream(start, stop)])
    finally:
        found[1].release()


@pytest.mark.parametrize("size", SIZES)
async def test_a_long_body_is_read_back_as_it_came(device: Device, size: int) -> None:
    body = os.urandom(size)
    path = await put_long(device, body)
    assert path.read_bytes()[:size] == body
    for start, stop in ((0, size), (1, size), (CACHED - 1, size - 1), (CACHED, size), (size - 1, size)):
        assert await read_back(device, start, stop) == body[start:stop]


async def test_only_the_beginning_of_a_long_body_stays_in_the_page_cache(device: Device) -> None:
    body = os.urandom(6 * READ_CHUNK_BYTES + 5 * BLOCK_BYTES)
    fd = os.open(await put_long(device, body), os.O_RDONLY)
    try:
        try:
            pread_warm(fd, BLOCK_BYTES, 0)
        except Cold:
            pytest.skip("this file system does not tell what is in the page cache")
        for read in (False, True):  # as it was written, and as it is once it was read
            if read:
                assert await read_back(device, 0, len(body)) == body
            # From behind, since the kernel brings what follows a page that it is asked for.
            for at in reversed(range(2 * CACHED, len(body), READ_CHUNK_BYTES)):
                with pytest.raises(Cold):
                    pread_warm(fd, 4096, at)
    finally:
        os.close(fd)
    assert device.counters.streamed_reads == 6
    assert device.counters.cold_reads == 0


async def test_what_is_read_of_a_long_body_in_short_spans_stays_in_the_page_cache(device: Device) -> None:
    body = os.urandom(4 * READ_CHUNK_BYTES)
    fd = os.open(await put_long(device, body), os.O_RDONLY)
    try:
        for _ in range(2):
            assert (
                await read_back(device, 3 * READ_CHUNK_BYTES, 3 * READ_CHUNK_BYTES + 9)
                == body[-READ_CHUNK_BYTES:][:9]
            )
    finally:
        os.close(fd)
    assert device.counters.streamed_reads == 0
    assert device.counters.cold_reads <= 1


async def test_damage_behind_the_beginning_of_a_long_body_is_told_behind_what_is_sound(
    device: Device,
) -> None:
    body = os.urandom(4 * READ_CHUNK_BYTES)
    with (await put_long(device, body)).open("r+b") as file:
        file.seek(3 * READ_CHUNK_BYTES - 1)
        file.write(bytes([body[3 * READ_CHUNK_BYTES - 1] ^ 4]))
    found = await device.open_object(KEY)
    assert found is not None
    chunks = found[1].stream(0, len(body))
    sound = [bytes(await anext(chunks)), bytes(await anext(chunks))]
    assert b"".join(sound) == body[: 2 * READ_CHUNK_BYTES]
    with pytest.raises(BodyDamaged):
        await anext(chunks)
    found[1].release()
