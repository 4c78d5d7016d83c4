"""The account reaper: what deleted accounts held is removed, and then the accounts.

Owns the walk over the accounts that stand on its device, whose turn each deleted one is, the rate, and the counters. What
removing takes is the quorum client's business (`Reaping`), a slice at a time, so that a large account holds up no small one.

A deleted account is a register with a mark, on all of its owners. What was removed is in no listing any more: that is the
position, and a restart loses nothing. The first owner in turn begins once all requests that were at work at the deletion have ended; each
further one a while later, from the other end, if there is something left.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn, Protocol

from storage_node.jobs import Figure, repeat
from storage_node.keys import ACCOUNTS, Key
from storage_node.pace import Pace
from storage_node.store import Store
from storage_node.turns import Turn
from swiftlike.limits import ACCOUNTS_SCANNED_PER_S, REAPED_PER_S
from swiftlike.reaping import Reaped, ReapedEnd, deleted_us

WALK_S: Final = 60.0
"""Between two walks over the accounts."""
GRACE_S: Final = 600.0
"""Longer than any request may take: what was under way when the account was deleted has ended."""
TURN_S: Final = 600.0
"""How much later each further owner begins."""
ROUND_S: Final = 300.0
"""After which a walk ends though there is more, so that an account that was deleted since has its turn."""
SLICE: Final = 500
"""Accounts that are read at once."""
OBJECTS_SLICE: Final = 100
"""Objects of one account that are removed before it is the next one's turn."""

log = logging.getLogger(__name__)


class Reaping(Protocol):
    """The quorum client, as far as the reaper needs it."""

    async def reap(self, account: bytes, objects_max: int, *, backwards: bool = False) -> Reaped:
        """Remove up to so many objects of a deleted account, and what is empty then."""


class Reaper:
    """The deleted accounts of one device."""

    def __init__(
        self,
        store: Store,
        reaping: Reaping,
        turn: Turn,
        read_us: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        per_s: float = REAPED_PER_S,
    ) -> None:
        """Take the device, who removes, whose turn it is, the time in microseconds since 1970, and the rate."""
        self._store: Final = store
        self._reaping: Final = reaping
        self._turn: Final = turn
        self._read_us: Final = read_us
        self._sleep: Final = sleep
        self._pace: Final = Pace(per_s, sleep)
        self._scanned: Final = Pace(ACCOUNTS_SCANNED_PER_S, sleep)
        self.objects = 0
        self.containers = 0
        self.accounts = 0
        """What was removed since the start."""
        self.walks = 0
        self.walked_us = 0
        """When the last walk ended; 0: none has."""
        self.waiting = 0
        """Deleted accounts on this device as the last walk went over them, whoever's turn they were."""
        self.left = 0
        """Accounts that the last walk was to remove and could not."""

    async def run(self) -> NoReturn:
        """Walk, until cancelled."""
        await repeat(self.walk, WALK_S, self._sleep)

    async def walk(self) -> None:
        """Go over all accounts, then remove what those that are deleted and this device's to remove held, in turns."""
        now_us = self._read_us()
        waiting = await self._find(now_us)
        self.left = 0
        until_us = now_us + int(ROUND_S * 1e6)
        while waiting and self._read_us() < until_us:
            for account, backwards in list(waiting.items()):
                reaped = await self._reaping.reap(account, OBJECTS_SLICE, backwards=backwards)
                self.objects += reaped.objects
                self.containers += reaped.containers
                await self._pace.spend(1 + reaped.objects + reaped.containers)
                if reaped.end is ReapedEnd.MORE:
                    continue
                del waiting[account]
                if reaped.end is ReapedEnd.ENDED:
                    self.accounts += 1
                    log.info("nothing is left of account %r, which was deleted", account)
                elif reaped.end is ReapedEnd.LATER:
                    self.left += 1
        self.walks += 1
        self.walked_us = self._read_us()

    async def _find(self, now_us: int) -> dict[bytes, bool]:
        """Return the accounts that are this device's to remove now, and whether from the end."""
        mine: dict[bytes, bool] = {}
        deleted, after = 0, b""
        while found := await self._store.scan(self._store.registers, ACCOUNTS, 0, 0, after, SLICE):
            for key, held in found:
                at_us = deleted_us(held.register.entry)
                if at_us is None:
                    continue
                deleted += 1
                turn = self._turn_at(key)
                if turn is not None and at_us + (GRACE_S + turn * TURN_S) * 1e6 <= now_us:
                    mine[key.path] = turn % 2 == 1
            after = found[-1][0].path
            await self._scanned.spend(len(found))
        self.waiting = deleted
        return mine

    def _turn_at(self, key: Key) -> int | None:
        return self._turn(key.table, self._store.layout.hashed(key.path))

    def figures(self) -> Sequence[Figure]:
        """Return how it is getting on."""
        return (
            Figure("objects", "Objects of deleted accounts removed", self.objects, is_total=True),
            Figure("containers", "Containers of deleted accounts removed", self.containers, is_total=True),
            Figure("accounts", "Deleted accounts of which nothing is left", self.accounts, is_total=True),
            Figure("walks", "Walks over all accounts", self.walks, is_total=True),
            Figure("last_walk_us", "When the last walk ended, in microseconds since 1970", self.walked_us),
            Figure("waiting", "Deleted accounts on this device as the last walk began", self.waiting),
            Figure("left", "Accounts that the last walk was to remove and could not", self.left),
        )
