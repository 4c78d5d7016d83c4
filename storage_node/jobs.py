"""Jobs: what goes on in a device's process beside what it is called for.

Owns how a job goes on when the disk refuses it something, and how it tells of itself. What a job does is its own module's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, NoReturn, Protocol

from storage_node.errors import DeviceFailed, StorageError

log = logging.getLogger(__name__)


class Figure(NamedTuple):
    """One number that a job tells of itself."""

    name: str
    text: str
    """What it means, for whoever watches."""
    value: float
    is_total: bool = False
    """It only rises while the process lives; otherwise it is what stands now."""


class Job(Protocol):
    """What is watched of a job."""

    def figures(self) -> Sequence[Figure]:
        """Return what stands now; from any thread."""


async def repeat(
    walk: Callable[[], Awaitable[None]],
    pause_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Walk, pause, and walk again until cancelled; what the disk refuses is told, and tried again with the next walk.

    A failed sync ends the process where it happens, and this with it.
    """
    while True:
        await sleep(pause_s)
        try:
            await walk()
        except DeviceFailed:
            raise
        except (StorageError, OSError) as error:
            log.error("%s; the next walk tries it again", error)
