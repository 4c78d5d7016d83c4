"""Large files: one file per body that is too large for a volume.

Owns the byte layout of such a file, its staging and its removal. Never opens the index.

    file, version 1, big-endian:  offset  size  field
                                       0        body
                                            8 × one checksum per block of the body
                                                register key: table and path
                                                entry
                                  end-64     4  magic b"slfl"
                                  end-60     1  version = 1
                                  end-59     3  zero
                                  end-56    16  device stamp
                                  end-40     8  body_bytes
                                  end-32     4  key_bytes
                                  end-28     4  entry_bytes
                                  end-24    16  file id
                                  end-8      8  xxh3_64 of checksums, key, entry and the 56 bytes before

Order: the body is written under `staging/`, and behind it all the rest; the file is synced, renamed to `files/ab/<id>`, and
that directory is synced; only then may the index point at it. What a crash leaves in `staging/`, or unreferenced, is dead.
"""

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final
from uuid import UUID

from xxhash import xxh3_64_digest

from storage_node.blocks import SUM_BYTES, Extent, block_count, block_sums, pread_waiting
from storage_node.disk import Disk, SharedFile
from storage_node.errors import BodyDamaged, BodyGone
from storage_node.keys import Key
from storage_node.locations import FileId, InFile
from swiftlike.entries import Entry, EntryDamaged, decode
from swiftlike.limits import BLOCK_BYTES, BODY_BYTES_MAX, WRITEBACK_BYTES
from swiftlike.rpc.transport import Body

_TRAILER: Final = Struct(">4sB3x16sQII16s8s")
assert _TRAILER.size == 64, "the table and the code must agree"
_MAGIC, _VERSION = b"slfl", 1
_NAME: Final = re.compile("[0-9a-f]{32}")
_LEAD: Final = re.compile("[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a large file says of itself."""

    key: Key
    entry: Entry
    location: InFile


class Files:
    """The large files of one device. Its methods wait for the disk: for threads, but for `path`, `settle`, `under_way`."""

    def __init__(self, directory: Path, staging: Path, stamp: UUID, disk: Disk) -> None:
        """Take the directory of finished files, that of staged ones, and the stamp that the files of this device bear."""
        self._directory = directory
        self._staging = staging
        self._stamp = stamp
        self._disk = disk
        self._under_way: set[FileId] = set()

    def stage(self, seed: int) -> "StagedFile":
        """Begin a file whose body will be checksummed under `seed`."""
        file = FileId(secrets.token_bytes(16))
        path = self._staging / file.hex()
        self._under_way.add(file)
        try:
            fd = self._disk.create(path)
        except OSError:
            self.settle([file])
            raise
        return StagedFile(file, path, fd, seed, self._disk)

    def settle(self, files: Iterable[FileId]) -> None:
        """Count files as no longer under way: from now on the index alone says whether they are wanted."""
        self._under_way.difference_update(files)

    def under_way(self) -> frozenset[str]:
        """Return the names of files that a write of this process may still point at."""
        return frozenset(file.hex() for file in self._under_way.copy())

    def finish(self, staged: "StagedFile", key: Key, entry_raw: bytes) -> InFile:
        """Complete a staged file and put it on stable storage under its final name.

        One that was finished, and then refused, may be finished again for another entry: nothing points at it meanwhile.
        Raises DeviceFailed, OSError.
        """
        path = self.path(staged.id)
        if staged.path == path:
            staged.fd = self._disk.open(path, writable=True)
        staged.flush()
        sums, raw_key = b"".join(staged.sums), key.table + key.path
        blank = _TRAILER.pack(
            _MAGIC, _VERSION, self._stamp.bytes, staged.size, len(raw_key), len(entry_raw), staged.id, b""
        )[:-SUM_BYTES]
        rest = sums + raw_key + entry_raw + blank
        self._disk.write(staged.fd, staged.size, [rest + xxh3_64_digest(rest)])
        self._disk.cut(staged.fd, staged.size + len(rest) + SUM_BYTES)
        self._disk.sync(staged.fd)
        if staged.path != path:
            self._disk.rename(staged.path, path)
            staged.path = path  # where `abort` finds it, should the sync below fail
            self._disk.sync_directory(path.parent)
        staged.close()
        return InFile(staged.id)

    def path(self, file: FileId) -> Path:
        """Return where a finished file stands."""
        name = file.hex()
        return self._directory / name[:2] / name

    def open(self, location: InFile, size: int, seed: int) -> Extent:
        """Open a body for reading; `size` and `seed` are its entry's. Raises BodyGone when it was removed."""
        path = self.path(location.file)
        try:
            fd = self._disk.open(path)
        except FileNotFoundError:
            raise BodyGone(f"{path} was removed meanwhile: begin the read again") from None
        return Extent(SharedFile(fd), 0, size, size, seed, str(path))

    def remove(self, file: FileId) -> None:
        """Unlink a finished file that nothing points at; readers that hold it read on. Raises OSError."""
        self._disk.unlink(self.path(file))
        self.settle([file])

    def directories(self) -> list[Path]:
        """Return the directories of finished files. Raises OSError."""
        with os.scandir(self._directory) as found:
            return sorted(self._directory / each.name for each in found if _LEAD.fullmatch(each.name))

    def finished_in(self, directory: Path) -> list[FileId]:
        """Return the finished files of one directory; whatever else lies there is not ours."""
        return [
            FileId(bytes.fromhex(path.name))
            for path in sorted(directory.iterdir())
            if _NAME.fullmatch(path.name)
        ]

    def finished(self) -> list[FileId]:
        """Return every file that has its final name."""
        return [file for directory in self.directories() for file in self.finished_in(directory)]

    def staged(self) -> list[Path]:
        """Return everything under `staging/`: what is being staged, or was when a process died."""
        return sorted(self._staging.iterdir())

    def read_trailer(self, file: FileId) -> Found:
        """Return what a file says of itself.

        Raises BodyDamaged when that is not sound, or not this device's; OSError when it is gone or cannot be read.
        """
        path = self.path(file)
        fd = self._disk.open(path)
        try:
            return self._parse(path, file, fd)
        except EntryDamaged as error:
            raise BodyDamaged(f"{path}: {error}") from None
        finally:
            os.close(fd)

    def _parse(self, path: Path, file: FileId, fd: int) -> Found:
        length = os.fstat(fd).st_size
        raw = bytes(pread_waiting(fd, _TRAILER.size, max(0, length - _TRAILER.size)))
        if len(raw) < _TRAILER.size:
            raise BodyDamaged(f"{path}: too short for a large file")
        magic, version, uuid, body_bytes, key_bytes, entry_bytes, own_id, checksum = _TRAILER.unpack(raw)
        if (magic, version, uuid, own_id) != (
            _MAGIC,
            _VERSION,
            self._stamp.bytes,
            file,
        ) or body_bytes > BODY_BYTES_MAX:
            raise BodyDamaged(f"{path}: its trailer is not that of a large file of this device")
        sums_bytes = block_count(body_bytes) * SUM_BYTES
        if body_bytes + sums_bytes + key_bytes + entry_bytes + _TRAILER.size != length:
            raise BodyDamaged(f"{path}: its lengths do not add up")
        rest = bytes(pread_waiting(fd, length - body_bytes - SUM_BYTES, body_bytes))
        if xxh3_64_digest(rest) != checksum:
            raise BodyDamaged(f"{path}: trailer checksum mismatch")
        raw_key = rest[sums_bytes : sums_bytes + key_bytes]
        entry = decode(rest[sums_bytes + key_bytes : sums_bytes + key_bytes + entry_bytes])
        return Found(Key(raw_key[:2], raw_key[2:]), entry, InFile(file))


class StagedFile:
    """A body on its way into a large file. Not for several threads at once."""

    def __init__(self, file: FileId, path: Path, fd: int, seed: int, disk: Disk) -> None:
        """Take the new file."""
        self.id = file
        self.path = path
        self.fd = fd
        self.size = 0
        self.sums: list[bytes] = []
        self._seed = seed
        self._tail = b""
        self._begun = 0
        self._disk = disk

    def write(self, chunks: Iterable[Body]) -> None:
        """Append to the body, by one system call; whole blocks are written, the rest waits for more."""
        pieces: list[memoryview] = []
        for chunk in chunks:
            data = memoryview(chunk)
            if self._tail:
                # Only what completes the block is copied, where messages do not end with blocks.
                ahead = data[: BLOCK_BYTES - len(self._tail)]
                self._tail += ahead
                if len(self._tail) < BLOCK_BYTES:
                    continue
                pieces.append(memoryview(self._tail))
                data = data[len(ahead) :]
            whole = len(data) - len(data) % BLOCK_BYTES
            if whole:
                pieces.append(data[:whole])
            self._tail = bytes(data[whole:])
        self._append(pieces)

    def flush(self) -> None:
        """Write the last, shorter block: the body is complete."""
        if self._tail:
            self._append([memoryview(self._tail)])
        self._tail = b""

    def close(self) -> None:
        """Close the descriptor; its name stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def abort(self) -> None:
        """Leave nothing behind, under either name. Does nothing once the file is finished."""
        if self.fd >= 0:
            self.close()
            self._disk.unlink(self.path)

    def _append(self, pieces: list[memoryview]) -> None:
        at = self.size
        for piece in pieces:
            self.sums.append(block_sums(piece, self._seed, at // BLOCK_BYTES))
            at += len(piece)
        self._disk.write(self.fd, self.size, pieces)
        self.size = at
        if self.size - self._begun >= WRITEBACK_BYTES:
            self._disk.begin_writeback(self.fd, self._begun, self.size - self._begun)
            self._begun = self.size
