"""The few effects that a device has on its file system, in one place.

Owns whole writes, syncs, names and shared descriptors. Never knows what the bytes mean. The crash tests stand a
recording disk in its place, so nothing else in the storage node creates, writes, syncs, renames or removes a file once
a device is open, formatted or rebuilt (the index writes through LMDB; the failure mark is `identity`'s). A failed sync
leaves here as DeviceFailed and never as OSError, so that nobody can take it for an operation that failed alone.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from storage_node.errors import BodyGone, DeviceFailed
from swiftlike.limits import IOVECS_MAX


class Disk:
    """A real file system."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist and return its descriptor; its name is durable after `sync_directory`."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def make_directory(self, path: Path) -> None:
        """Make a directory; its name is durable after `sync_directory` of its parent."""
        path.mkdir(mode=0o700)

    def open(self, path: Path, *, writable: bool = False) -> int:
        """Open a file that exists."""
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def write(self, fd: int, offset: int, buffers: Sequence[bytes | memoryview]) -> None:
        """Write all of the buffers at `offset`, in as few system calls as the kernel allows."""
        for first in range(0, len(buffers), IOVECS_MAX):
            some = buffers[first : first + IOVECS_MAX]
            wanted = sum(map(len, some))
            written = os.pwritev(fd, some, offset)
            if written < wanted:
                # Rare (a signal, a nearly full disk): go on in plain steps, which end in an error if there is no room.
                rest = memoryview(b"".join(some))
                while written < wanted:
                    written += os.pwrite(fd, rest[written:], offset + written)
            offset += wanted

    def cut(self, fd: int, length: int) -> None:
        """Shorten a file that is longer; it is durable after `sync`."""
        if os.fstat(fd).st_size > length:
            os.ftruncate(fd, length)

    def begin_writeback(self, fd: int, offset: int, length: int) -> None:
        """Ask the kernel to begin writing what was written there, without waiting: the sync at the end is then short."""
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def sync(self, fd: int) -> None:
        """Put a file's bytes and length on stable storage. Raises DeviceFailed: nobody knows what is there."""
        try:
            self._flush_file(fd)
        except OSError as error:
            raise _sync_failed(error) from error

    def sync_directory(self, path: Path) -> None:
        """Put the names in a directory on stable storage. Raises DeviceFailed: nobody knows what is there."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._flush_directory(fd)
        except OSError as error:
            raise _sync_failed(error) from error
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name in the same file system."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Remove a name; readers that hold the file keep its bytes."""
        path.unlink()

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def free_bytes(self, path: Path) -> int:
        """Return how much more an unprivileged process could write."""
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize

    def total_bytes(self, path: Path) -> int:
        """Return how large the file system is."""
        room = os.statvfs(path)
        return room.f_blocks * room.f_frsize

    def _flush_file(self, fd: int) -> None:
        os.fdatasync(fd)

    def _flush_directory(self, fd: int) -> None:
        os.fsync(fd)


def _sync_failed(error: OSError) -> DeviceFailed:
    return DeviceFailed(
        f"a sync failed ({error}): look at the disk; the device returns as one that does not vote"
    )


class SharedFile:
    """An open descriptor that closes when its owner has dropped it and the last reader has released it."""

    def __init__(self, fd: int) -> None:
        """Take over a descriptor; the maker is its first holder."""
        self.fd = fd
        self._holders = 1
        self._lock = Lock()

    def hold(self) -> "SharedFile":
        """Keep it open until `release`. Raises BodyGone when it was closed already."""
        with self._lock:
            if self._holders == 0:
                raise BodyGone("the file was closed meanwhile: begin the read again")
            self._holders += 1
        return self

    def release(self) -> None:
        """Let go; the last one closes it."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            os.close(self.fd)
