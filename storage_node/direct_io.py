"""Direct I/O: reading and writing files past the page cache.

Owns the alignment that O_DIRECT asks for (see open(2)), and the telling of who cannot do it: file systems refuse it when
a file is opened, or when it is read or written. Never decides what passes the cache by.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from ctypes import addressof, c_char
from mmap import PAGESIZE, mmap
from threading import local
from typing import Final

from swiftlike.limits import WRITE_RUN_BYTES

_of_thread: Final = local()
"""`run`: memory that a disk takes bytes from itself, once they were put together there."""


def open_direct(fd: int, access: int) -> int | None:
    """Open an open file once more, for direct I/O; None: its file system cannot."""
    try:
        # By its descriptor, since it may have no name any more.
        return os.open(f"/proc/self/fd/{fd}", access | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        # EINVAL is the file system's refusal, ENOENT a missing /proc; what else is wrong with the file is met, and told,
        # in the plain way.
        return None


def write_direct(fd: int, offset: int, buffers: Sequence[bytes | memoryview]) -> bool:
    """Write buffers that are whole pages together; False: it cannot be done so, and some or none of it is written."""
    direct = open_direct(fd, os.O_WRONLY)
    if direct is None:
        return False
    try:
        run = memoryview(_aligned_run())
        filled = 0
        for buffer in buffers:
            rest = memoryview(buffer)
            while rest:
                piece = rest[: len(run) - filled]
                run[filled : filled + len(piece)] = piece
                filled += len(piece)
                rest = rest[len(piece) :]
                if filled == len(run):
                    offset += _write(direct, offset, run)
                    filled = 0
        _write(direct, offset, run[:filled])
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    finally:
        os.close(direct)
    return True


def read_direct(fd: int, wanted: int, offset: int) -> memoryview | None:
    """Read from the beginning of a page, less than `wanted` only at the end of the file; None: it cannot be done so."""
    direct = open_direct(fd, os.O_RDONLY)
    if direct is None:
        return None
    try:
        # The last page is read beyond what is wanted, of which nothing is shown.
        buffer = _aligned(-(-wanted // PAGESIZE) * PAGESIZE)
        at = 0
        while at < wanted:
            got = os.preadv(direct, [buffer[at:]], offset + at)
            at += got
            if got == 0 or got % PAGESIZE:
                break  # the end of the file
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
    finally:
        os.close(direct)
    return buffer[: min(at, wanted)]


def _write(fd: int, offset: int, run: memoryview) -> int:
    written = 0
    while written < len(run):
        written += os.pwrite(fd, run[written:], offset + written)
    return written


def _aligned_run() -> mmap:
    """Return the memory of this thread for writing."""
    with suppress(AttributeError):
        run: mmap = _of_thread.run
        return run
    _of_thread.run = mmap(-1, WRITE_RUN_BYTES)  # which begins with a page
    return _aligned_run()


def _aligned(size: int) -> memoryview:
    """Return memory for reading. A mapping would begin with a page as well, but the kernel has to bring each of its pages."""
    buffer = bytearray(size + PAGESIZE)
    first = -addressof(c_char.from_buffer(buffer)) % PAGESIZE
    return memoryview(buffer)[first : first + size]
