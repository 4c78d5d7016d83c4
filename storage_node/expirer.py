"""The expirer: deletes the objects whose `X-Delete-At` is due, from the index that is ordered by that time.

Owns the walk over what is due on its device, whose turn each object is, the rate, and the counters. What deleting takes is
the quorum client's business (`Expiring`), which a storage node does not know: whoever puts the process together hands one
in. A due object that cannot be deleted now stays due, and is met again on the next walk; it never holds up those behind it,
and where owners are silent (`silence`) a walk waits for two of them only.

All owners of an object know when it is due, and take turns (`turns`): the first deletes it, which takes the due time from
all of them. The next sees to those only that are left a while later, once it is through with its own. The index of what is
due is the job's position, too: whatever is deleted is not in it any more, so a restart loses and repeats nothing.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from storage_node.jobs import Figure, repeat
from storage_node.keys import DueDelete
from storage_node.pace import YieldingPace
from storage_node.silence import Silence
from storage_node.store import Store
from storage_node.turns import Turn
from swiftlike.entries import Version
from swiftlike.expiry import Expiry
from swiftlike.limits import EXPIRED_AT_ONCE, EXPIRED_PER_S

WALK_S: Final = 5.0
"""Between two walks: what falls due just behind one is deleted this much later."""
TURN_S: Final = 15.0
"""How long each owner leaves a due object to the one before it in turn."""
TIMEOUT_S: Final = 10.0
"""For one object."""
LEAST_SHARE: Final = 1 / 10
"""Of its rate it keeps so much however long calls wait: what is due is hidden already."""
SLICE: Final = 500
"""Due times that are read at once."""

log = logging.getLogger(__name__)


class Expiring(Protocol):
    """The quorum client, as far as the expirer needs it."""

    async def expire(self, table: bytes, path: bytes, version: Version, timeout_s: float) -> Expiry:
        """Delete an object, row included, if this version of it is chosen and due."""


@dataclass(slots=True)
class Progress:
    """How the expirer is getting on."""

    walks: int = 0
    """Walks that went over all that was due."""
    walked_us: int = 0
    """When the last of them ended; 0: none has."""
    waiting: int = 0
    """Objects that were due on this device when the last walk began, whoever's turn they were."""
    left: int = 0
    """Objects that the last walk was to delete and could not."""
    late_us: int = 0
    """How long the earliest of them had been due then."""


class Expirer:
    """What is due on one device."""

    def __init__(
        self,
        store: Store,
        expiring: Expiring,
        turn: Turn,
        read_us: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        per_s: float = EXPIRED_PER_S,
        read_lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Take the device, who deletes, whose turn it is, the time in microseconds since 1970, the rate, and how long calls wait here."""
        self._store: Final = store
        self._expiring: Final = expiring
        self._turn: Final = turn
        self._read_us: Final = read_us
        self._sleep: Final = sleep
        self._pace: Final = YieldingPace(per_s, read_lag_s, sleep, least_share=LEAST_SHARE)
        self.ended: Final[Counter[Expiry]] = Counter()
        """Due objects by what became of them, since the start; one that is put off counts each time."""
        self.progress: Final = Progress()

    async def run(self) -> NoReturn:
        """Walk, until cancelled."""
        await repeat(self.walk, WALK_S, self._sleep)

    async def walk(self) -> None:
        """Go over all that is due, once: first what is this device's to delete, then what others have left."""
        now_us, before = self._read_us(), self.ended.copy()
        silence = Silence(self._store.layout, TIMEOUT_S / 2)
        await self._go_over(now_us, silence, lambda turn, due: turn == 0, self.progress)
        await self._go_over(
            now_us, silence, lambda turn, due: turn > 0 and due.at_us + turn * TURN_S * 1e6 <= now_us
        )
        self.progress.walks += 1
        self.progress.walked_us = self._read_us()
        self.progress.left = self.ended[Expiry.LATER] - before[Expiry.LATER]
        if self.ended != before:
            counts = {expiry.name.lower(): self.ended[expiry] - before[expiry] for expiry in Expiry}
            log.info("objects that were due: %s", counts)

    def figures(self) -> Sequence[Figure]:
        """Return how it is getting on."""
        progress = self.progress
        return (
            Figure("deleted", "Due objects deleted", self.ended[Expiry.DELETED], is_total=True),
            Figure(
                "kept", "Due objects that were something else by then", self.ended[Expiry.KEPT], is_total=True
            ),
            Figure(
                "put_off",
                "Due objects that could not be deleted then",
                self.ended[Expiry.LATER],
                is_total=True,
            ),
            Figure("walks", "Walks over all that was due", progress.walks, is_total=True),
            Figure(
                "last_walk_us", "When the last walk ended, in microseconds since 1970", progress.walked_us
            ),
            Figure("waiting", "Due objects on this device as the last walk began", progress.waiting),
            Figure("left", "Due objects that the last walk was to delete and could not", progress.left),
            Figure(
                "late_s", "How long the earliest of them had been due, in seconds", progress.late_us / 1e6
            ),
        )

    async def _go_over(
        self,
        now_us: int,
        silence: Silence,
        is_mine: Callable[[int, DueDelete], bool],
        seen: Progress | None = None,
    ) -> None:
        """Delete those that are this device's to delete, in slices; count into `seen` all that there are."""
        waiting, after = 0, None
        gate = asyncio.Semaphore(EXPIRED_AT_ONCE)
        while due := await self._store.scan(self._store.due_deletes, now_us, SLICE, after):
            if seen is not None and after is None:
                seen.late_us = now_us - due[0].at_us
            waiting += len(due)
            mine = [one for one in due if (turn := self._turn_at(one)) is not None and is_mine(turn, one)]
            async with asyncio.TaskGroup() as deletes:
                for one in mine:
                    if silence.covers(one.key):
                        self.ended[Expiry.LATER] += 1
                        continue
                    await self._pace.spend()
                    await gate.acquire()
                    deletes.create_task(self._delete(one, gate, silence))
            after = due[-1]
        if seen is not None:
            seen.waiting = waiting
            if not waiting:
                seen.late_us = 0

    def _turn_at(self, due: DueDelete) -> int | None:
        return self._turn(due.key.table, self._store.layout.hashed(due.key.path))

    async def _delete(self, due: DueDelete, gate: asyncio.Semaphore, silence: Silence) -> None:
        try:
            held = await self._store.look_up(due.key)
            entry = None if held is None else held.register.entry
            if entry is None or entry.delete_at != due.at_us:
                return  # it was deleted, or described anew, since the slice was read
            time = asyncio.get_running_loop().time
            began = time()
            ended = await self._expiring.expire(due.key.table, due.key.path, entry.version, TIMEOUT_S)
            self.ended[ended] += 1
            silence.note(due.key, time() - began, is_done=ended is not Expiry.LATER)
        finally:
            gate.release()
