"""Presence: whether a device that is served still stands where it was opened.

Owns what is looked at, and how often. A process keeps its files open whatever becomes of their names: of a directory that was emptied, or
of a disk that was unmounted, it would go on to vote, and to acknowledge what goes into files that nobody can open any more.
Never ends the process itself: whoever watches is told.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from storage_node.identity import DEVICE_FILE, DIRECTORIES
from storage_node.index_place import DATA_FILE

LOOK_S: Final = 2.0
"""Between two looks."""

log: Final = logging.getLogger(__name__)


class Presence:
    """The names of an open device, and what stood at them when it was opened."""

    def __init__(self, root: Path, index_directory: Path) -> None:
        """Look for the first time. Raises OSError."""
        names = (root / DEVICE_FILE, index_directory / DATA_FILE, *(root / name for name in DIRECTORIES))
        self._opened: Final = {path: _identity(path) for path in names}

    def missing(self) -> str | None:
        """Say what is not there any more, or is another one; None: all is there. Waits for the disk."""
        for path, opened in self._opened.items():
            try:
                found = _identity(path)
            except (FileNotFoundError, NotADirectoryError):
                return f"{path} is not there any more"
            except OSError as error:
                # The disk is there and does not read; what it refuses is told where it matters.
                log.warning("%s cannot be looked at: %s", path, error)
                continue
            if found != opened:
                return f"{path} is not the one that was opened"
        return None


async def watch(
    presence: Presence,
    when_missing: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look until something is missing, and tell of it once."""
    while (missing := await asyncio.to_thread(presence.missing)) is None:
        await sleep(LOOK_S)
    when_missing(missing)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
