"""The mender: brings back bodies that a device knows it lacks, from the other owners.

Owns which key is next: one that was found bad, or unreadable, just now, else one from the list of what is missing, which is kept
in the index and so outlives a restart. How a body is brought is the quorum client's business (`Mending`), or whoever else repairs.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn, Protocol
from uuid import UUID

from storage_node.jobs import Figure, repeat
from storage_node.keys import Key
from storage_node.pace import Pace
from storage_node.store import Store
from swiftlike.entries import Entry
from swiftlike.limits import MENDED_BYTES_PER_S, MENDED_PER_S, MENDS_WAITING_MAX

WALK_S: Final = 60.0
"""Between two walks over what is missing, at most."""
SOON_S: Final = 2.0
"""Until the first walk after a body could not be brought; twice as long after each further one, up to WALK_S. Whoever has it may be
the only one: what was full or away a moment ago is asked again before that one is lost as well."""
TIMEOUT_S: Final = 60.0
"""For a small body; a large one may take as long as its bytes do at the least rate."""
LEAST_BYTES_PER_S: Final = 1024 * 1024
SLICE: Final = 200

log = logging.getLogger(__name__)


class Mending(Protocol):
    """The quorum client, as far as the mender needs it."""

    async def mend(self, table: bytes, path: bytes, entry: Entry, lacking: UUID, timeout_s: float) -> bool:
        """Bring the body of an entry to the owner that lacks it; say whether it has it now."""


class Mender:
    """What one device lacks."""

    def __init__(
        self,
        store: Store,
        mending: Mending,
        uuid: UUID,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        read_us: Callable[[], int] = lambda: 0,
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take the device, who brings bodies, and what the ring knows the device as.

        `read_us` tells the time in microseconds since 1970, when walks end by it. While it `is_paused` nothing is brought.
        """
        self._store: Final = store
        self._mending: Final = mending
        self._uuid: Final = uuid
        self._sleep: Final = sleep
        self._read_us: Final = read_us
        self._is_paused: Final = is_paused
        self._told: OrderedDict[Key, None] = OrderedDict()
        self._some: Final = asyncio.Event()
        self._hurry: Final = asyncio.Event()
        """Something could not be brought that was told of just now: the next walk is soon."""
        self._pause_s = WALK_S
        self._pace: Final = Pace(MENDED_PER_S, sleep)
        self._bytes: Final = Pace(MENDED_BYTES_PER_S, sleep)
        self.mended = 0
        self.failed = 0
        """Tries that brought nothing, since nobody who answers has it, or this entry is not chosen any more."""
        self.walks = 0
        self.left = 0
        """Bodies that the last walk could not bring."""
        self.walked_us = 0
        """When the last walk ended; 0: none has."""

    def tell(self, key: Key) -> None:
        """A body is missing from now on: bring it at once, or with the next walk if too many were told of."""
        if len(self._told) < MENDS_WAITING_MAX:
            self._told[key] = None
            self._some.set()

    async def run(self) -> NoReturn:
        """Mend, until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(repeat(self.walk, WALK_S, self._rest))
            await repeat(self._mend_told, 0, self._wait_for_some)

    async def walk(self) -> None:
        """Go over all that is missing, once."""
        after: Key | None = None
        left = 0
        if self._is_paused():
            return
        while missing := await self._store.scan(self._store.missing, after, SLICE):
            for key in missing:
                left += not await self.mend(key)
            after = missing[-1]
        self.walks += 1
        self.walked_us = self._read_us()
        self.left = left
        self._pause_s = min(2 * self._pause_s, WALK_S) if left else WALK_S

    async def mend(self, key: Key) -> bool:
        """Bring one body; say whether nothing is missing there now."""
        held = await self._store.look_up(key)
        entry = None if held is None else held.register.entry
        if held is None or entry is None or not self._store.wants_body(key, held):
            return True
        if self._is_paused():
            return False
        await self._pace.spend()
        await self._bytes.spend(entry.size)
        timeout_s = TIMEOUT_S + entry.size / LEAST_BYTES_PER_S
        if await self._mending.mend(key.table, key.path, entry, self._uuid, timeout_s):
            self.mended += 1
            log.info("the body of %r is whole again", key.path)
            return True
        self.failed += 1
        return False

    async def _wait_for_some(self, pause_s: float) -> None:
        await self._some.wait()

    async def _mend_told(self) -> None:
        if self._is_paused():
            self._told.clear()  # the first walk afterwards meets them
        while self._told:
            key, _ = self._told.popitem(last=False)
            if not await self.mend(key):
                self._pause_s = SOON_S
                self._hurry.set()
        self._some.clear()

    async def _rest(self, longest_s: float) -> None:
        """Wait for the next walk, anew where one is wanted sooner."""
        while await self._was_hurried():
            self._hurry.clear()

    async def _was_hurried(self) -> bool:
        pause = asyncio.ensure_future(self._sleep(self._pause_s))
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((pause, hurry), return_when=asyncio.FIRST_COMPLETED)
            return not pause.done()
        finally:
            pause.cancel()
            hurry.cancel()
            await asyncio.gather(pause, hurry, return_exceptions=True)

    def figures(self) -> Sequence[Figure]:
        """Return how it is getting on."""
        return (
            Figure("mended", "Bodies brought back", self.mended, is_total=True),
            Figure("failed", "Tries that brought nothing", self.failed, is_total=True),
            Figure("walks", "Walks over all that is missing", self.walks, is_total=True),
            Figure("last_walk_us", "When the last walk ended, in microseconds since 1970", self.walked_us),
            Figure("left", "Bodies that the last walk could not bring", self.left),
            Figure("waiting", "Bodies that were found missing and are to be brought next", len(self._told)),
        )
