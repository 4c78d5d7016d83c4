"""The updater: pays the debts that a device holds and whose writers did not, each after a while.

Owns the walk over the device's debts in the order of time, its rate, and its counters. What paying takes is the quorum
client's business (`Payer`), which a storage node does not know: whoever puts the process together hands one in. A debt
that cannot be paid now stays, and is met again on the next walk; it never holds up those behind it, and where owners are
silent (`silence`) a walk waits for two of them only.

All owners of a key hold its debt. Each waits a little differently, so that mostly the first one pays for all of them.

How old a debt is, its ballot says, by the clock of whoever wrote it. One that stands ahead of this device's clock is as old as the
updater has known it, so that a clock which is ahead, by as much as devices take, delays no row.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NoReturn, Protocol

from storage_node.keys import Due, Key
from storage_node.requests import MICROS_MAX
from storage_node.silence import Silence
from storage_node.store import Store
from swiftlike.entries import Version
from swiftlike.limits import DEBTS_AT_ONCE, DEBTS_PER_S
from swiftlike.listed import Payment

WALK_S: Final = 5.0
"""Between two walks."""
GRACE_S: Final = 10.0
"""For the writer to pay, as it mostly does within half a second."""
GRACE_SPREAD_S: Final = 10.0
"""By how much the owners of a key differ at most."""
TIMEOUT_S: Final = 10.0
"""For one debt."""
SLICE: Final = 100
"""Debts that are read at once."""
AHEAD_MAX: Final = 1_000
"""Debts ahead of the clock that are watched; those above it come next, or when it is their time."""

log = logging.getLogger(__name__)


class Payer(Protocol):
    """The quorum client, as far as the updater needs it."""

    async def pay(self, table: bytes, path: bytes, version: Version, timeout_s: float) -> Payment:
        """Settle a key, bring the row of what is chosen to its listing, and clear the debt at all owners."""


class Updater:
    """The debts of one device."""

    def __init__(
        self,
        store: Store,
        payer: Payer,
        read_us: Callable[[], int],
        random: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the device, who pays, the time in microseconds since 1970, and what jitter is drawn from."""
        self._store: Final = store
        self._payer: Final = payer
        self._read_us: Final = read_us
        self._random: Final = random
        self._sleep: Final = sleep
        self.ended: Final[Counter[Payment]] = Counter()
        """Debts by what became of them, since the start; one that is put off counts each time."""
        self.walks = 0
        self.left = 0
        """Debts that the last walk could not pay."""
        self.walked_us = 0
        """When the last walk ended; 0: none has."""
        self._ahead: dict[tuple[Key, Version], int] = {}
        """Debts that stood ahead of the clock in the last walk, and when they were first seen."""

    async def run(self) -> NoReturn:
        """Walk, until cancelled."""
        while True:
            await self._sleep(WALK_S)
            await self.walk()

    async def walk(self) -> None:
        """Go over all debts that are old enough, once."""
        now_us = self._read_us()
        before_us = now_us - int((GRACE_S + self._random.random() * GRACE_SPREAD_S) * 1e6)
        from_us, before = 0, self.ended.copy()
        silence = Silence(self._store.layout, TIMEOUT_S / 2)
        while from_us < before_us:
            debts = await self._owed(from_us, before_us, SLICE)
            if not debts:
                break
            await self._pay_all(debts, silence)
            if len(debts) < SLICE:
                break
            # A clock gives each microsecond to one write only, so no slice is full of one.
            from_us = debts[-1][1].ballot.micros + 1
            await self._sleep(len(debts) / DEBTS_PER_S)
        await self._pay_those_ahead(now_us, before_us, silence)
        self.walks += 1
        self.walked_us = self._read_us()
        self.left = self.ended[Payment.LATER] - before[Payment.LATER]
        if self.ended != before:
            counts = {payment.name.lower(): self.ended[payment] - before[payment] for payment in Payment}
            log.info("debts that writers left: %s", counts)

    async def _pay_those_ahead(self, now_us: int, before_us: int, silence: Silence) -> None:
        """Pay those that stand ahead of the clock, and did so before that time."""
        ahead = await self._owed(now_us, MICROS_MAX, AHEAD_MAX)
        self._ahead = {debt: self._ahead.get(debt, now_us) for debt in ahead}
        old = [debt for debt in ahead if self._ahead[debt] < before_us]
        for at in range(0, len(old), SLICE):
            some = old[at : at + SLICE]
            await self._pay_all(some, silence)
            await self._sleep(len(some) / DEBTS_PER_S)

    async def _owed(self, from_us: int, before_us: int, limit: int) -> list[tuple[Key, Version]]:
        """Return debts by their ballots' times, the earliest first."""
        due = await self._store.scan(self._store.due, Due.DEBT, before_us, limit, from_us)
        return [(key, version) for key, version in due if version is not None]

    async def _pay_all(self, debts: list[tuple[Key, Version]], silence: Silence) -> None:
        gate = asyncio.Semaphore(DEBTS_AT_ONCE)
        over: list[tuple[Key, Version]] = []
        time = asyncio.get_running_loop().time

        async def pay(key: Key, version: Version) -> None:
            async with gate:
                if silence.covers(key):
                    ended = Payment.LATER
                else:
                    began = time()
                    ended = await self._payer.pay(key.table, key.path, version, TIMEOUT_S)
                    silence.note(key, time() - began, is_done=ended is not Payment.LATER)
            self.ended[ended] += 1
            if ended is not Payment.LATER:
                over.append((key, version))

        async with asyncio.TaskGroup() as payments:
            for key, version in debts:
                payments.create_task(pay(key, version))
        if over:
            # The payer clears debts at the owners, of which this device may be none any more.
            await self._store.pay(over)
