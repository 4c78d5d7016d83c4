"""The store: accounts, containers and objects over one quorum client, and what goes on behind answers.

Owns how the parts of the domain are put together, and the tasks that outlive a request: calls that nobody waits for any
more, payment of debts, usage on its way to accounts. Never sees HTTP.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random, SystemRandom
from types import TracebackType
from typing import Final, Self

from proxy.cluster.register import Registers
from proxy.cluster.rounds import Stragglers
from proxy.store.accounts import Accounts
from proxy.store.buckets import Buckets, RegisteredContainers
from proxy.store.cache import ContainerCache
from proxy.store.containers import Containers
from proxy.store.debts import Debts
from proxy.store.expiring import Expiring
from proxy.store.freeing import Freeing, LateParts, MarkedContainers
from proxy.store.listings import Listings
from proxy.store.marks import Graces
from proxy.store.mending import Mending
from proxy.store.multipart import Multipart
from proxy.store.object_listing import ObjectListing
from proxy.store.objects import Objects
from proxy.store.payer import Payer
from proxy.store.reaping import Reaping
from proxy.store.rows import Rows
from proxy.store.settling import Settling
from proxy.store.usage import UsageCarrier
from swiftlike.config import PolicyConfig
from swiftlike.limits import CONTAINERS_CACHED_MAX

GOODBYE_S: Final = 5.0
"""At the end of a process: for usage to reach accounts, and debts to be paid."""


class Store:
    """All of the domain; usable inside its context, which owns what goes on behind answers."""

    def __init__(
        self,
        registers: Registers,
        policies: Sequence[PolicyConfig],
        random: Random | None = None,
        graces: Graces = Graces(),  # noqa: B008  # a value
    ) -> None:
        """Take the registers of the cluster, which outlive the store, its policies, what jitter and ids that nobody guesses
        are drawn from (None: the operating system), and how long replaced parts are kept.
        """
        random = random or SystemRandom()
        nodes, patience = registers.nodes, registers.patience
        self._stragglers: Final = Stragglers(patience.stragglers_max)
        self._rows: Final = Rows(nodes, self._stragglers, patience)
        self.debts: Final = Debts(nodes)
        self.listings: Final = Listings(
            nodes,
            self._stragglers,
            patience,
            random,
            registers.clock.now_us,
            self._rows.upsert,
            registers.settle,
        )
        self.usage: Final = UsageCarrier(nodes, registers.clock, self.listings, self._rows)
        self.accounts: Final = Accounts(registers, self.listings)
        containers = Containers(
            registers,
            policies,
            self.accounts,
            self.listings,
            self._rows,
            self.debts,
            ContainerCache(CONTAINERS_CACHED_MAX),
        )
        listing = ObjectListing(registers, containers, self._rows)
        self.objects: Final = Objects(registers, containers, listing, self.debts, self.usage, graces)
        self.multipart: Final = Multipart(
            self.objects, containers, graces, registers.clock.now_us, nodes.now, random.randbytes
        )
        self.freeing: Final = Freeing(
            registers, containers, self.objects, self.multipart.ending, graces, random
        )
        marked = MarkedContainers(containers, self.objects, graces, registers)
        self.buckets: Final = Buckets(marked, self.objects, registers.clock.now_us, nodes.now)
        self.containers: Final = RegisteredContainers(marked, self.buckets)
        late_parts = LateParts(self.objects.marks, graces, registers.clock.now_us)
        self.payer: Final = Payer(registers, containers, listing, self._rows, self.usage, late_parts)
        self.expiring: Final = Expiring(
            registers, containers, listing, self.objects.replacing, self.debts, self.usage
        )
        self.mending: Final = Mending(registers)
        self.reaping: Final = Reaping(registers, self.accounts, self.containers, self.objects)
        self.settling: Final = Settling(registers)
        self._jobs: list[asyncio.Task[None]] = []
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Begin to own tasks."""
        await self._stragglers.__aenter__()
        await self._tasks.__aenter__()
        jobs = (self.debts.run(), self.usage.run(), self.freeing.run())
        self._jobs = [self._tasks.create_task(job) for job in jobs]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Pay and carry what is still to be, unless something broke, and wait for the calls that go on."""
        for job in self._jobs:
            job.cancel()
        await self._tasks.__aexit__(kind, error, traceback)
        if error is None:
            with suppress(TimeoutError):  # what is lost so costs time only: see `usage` and `debts`
                async with asyncio.timeout(GOODBYE_S):
                    await self.usage.flush(is_last=True)
                    await self.debts.flush()
        await self._stragglers.__aexit__(kind, error, traceback)
