"""Block checksums: every read of a body verifies the blocks that it touches before a byte is served.

Owns the checksum of a block and the reading of spans, warm without waiting and cold with. Never decides where a body
lies or what becomes of a damaged one.

A block is BLOCK_BYTES of a body, the last one shorter; its checksum is xxh3_64, seeded with the body id and the
block's number, so that a right block in a wrong place is damage too.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from xxhash import xxh3_64_digest

from storage_node.disk import SharedFile
from storage_node.errors import BodyDamaged
from swiftlike.limits import BLOCK_BYTES, READ_CHUNK_BYTES
from swiftlike.timestamps import WriteId

SUM_BYTES: Final = 8
SECTOR_BYTES: Final = 4_096
_SEED_MASK: Final = 2**64 - 1


class Cold(Exception):
    """Not all of the bytes are in the page cache: read them on a thread."""


Pread = Callable[[int, int, int], memoryview]
"""Reads `(fd, bytes, offset)`; shorter only at the end of the file."""


def pread_waiting(fd: int, wanted: int, offset: int) -> memoryview:
    """Read, waiting for the disk: for threads."""
    buffer = memoryview(bytearray(wanted))
    at = 0
    while at < wanted:
        got = os.preadv(fd, [buffer[at:]], offset + at)
        if got == 0:
            return buffer[:at]
        at += got
    return buffer


def pread_salvaging(fd: int, wanted: int, offset: int) -> memoryview:
    """Read what the disk gives, and zeros for the sectors that it refuses: for whoever looks for what is left."""
    try:
        return pread_waiting(fd, wanted, offset)
    except OSError:
        pieces = []
    while wanted > 0:
        ahead = min(wanted, SECTOR_BYTES - offset % SECTOR_BYTES)
        try:
            piece = pread_waiting(fd, ahead, offset)
        except OSError:
            piece = memoryview(bytes(ahead))
        pieces.append(piece)
        if len(piece) < ahead:
            break  # the end of the file
        offset, wanted = offset + ahead, wanted - ahead
    return memoryview(b"".join(pieces))


def pread_warm(fd: int, wanted: int, offset: int) -> memoryview:
    """Read from the page cache only: for the event loop. Raises Cold."""
    buffer = memoryview(bytearray(wanted))
    try:
        got = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except OSError as error:
        # EAGAIN: cold. EOPNOTSUPP: tmpfs and its like. EIO and the rest: the waiting read will meet and tell them.
        raise Cold from error
    if got < wanted:
        raise Cold
    return buffer


def block_count(size: int) -> int:
    """Return how many blocks a body of `size` bytes has."""
    return -(-size // BLOCK_BYTES)


def seed_of(body_id: WriteId) -> int:
    """Return the seed of a body's first block; the next block's is one more."""
    return int.from_bytes(body_id[:8], "big") ^ int.from_bytes(body_id[8:], "big")


def block_sums(body: bytes | memoryview, seed: int, first: int = 0) -> bytes:
    """Return the checksums of the blocks of `body`, which begins with block number `first`."""
    if len(body) <= BLOCK_BYTES:
        return xxh3_64_digest(body, (seed + first) & _SEED_MASK) if body else b""
    view = memoryview(body)
    return b"".join(
        xxh3_64_digest(view[at : at + BLOCK_BYTES], (seed + first + at // BLOCK_BYTES) & _SEED_MASK)
        for at in range(0, len(view), BLOCK_BYTES)
    )


def chunks_of(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut a span at the multiples of READ_CHUNK_BYTES, so that no block is read twice."""
    while start < stop:
        end = min(stop, start - start % READ_CHUNK_BYTES + READ_CHUNK_BYTES)
        yield start, end
        start = end


@dataclass(slots=True)
class Extent:
    """Where an open body lies, held by one reader: `release` when done."""

    file: SharedFile
    body_at: int
    sums_at: int
    size: int
    seed: int
    place: str
    """What a message calls it."""

    def read(self, start: int, stop: int, pread: Pread = pread_waiting) -> memoryview:
        """Return the verified bytes `[start, stop)` of the body, which must lie within it.

        Raises BodyDamaged, OSError, and what `pread` raises.
        """
        assert 0 <= start <= stop <= self.size
        if start == stop:
            return memoryview(b"")
        first, last = start // BLOCK_BYTES, block_count(stop)
        from_at, to_at = first * BLOCK_BYTES, min(last * BLOCK_BYTES, self.size)
        if first == 0 and self.sums_at + last * SUM_BYTES == self.body_at:
            # Checksums stand right before the body: small bodies take one system call.
            both = pread(self.file.fd, last * SUM_BYTES + to_at, self.sums_at)
            sums, blocks = both[: last * SUM_BYTES], both[last * SUM_BYTES :]
        else:
            blocks = pread(self.file.fd, to_at - from_at, self.body_at + from_at)
            sums = pread(self.file.fd, (last - first) * SUM_BYTES, self.sums_at + first * SUM_BYTES)
        if len(blocks) < to_at - from_at or block_sums(blocks, self.seed, first) != sums:
            raise BodyDamaged(
                f"{self.place}, blocks {first} to {last - 1}: checksum mismatch; read another replica"
            )
        return blocks[start - from_at : stop - from_at]

    def release(self) -> None:
        """Let go of the descriptor."""
        self.file.release()
