"""The processes of a world: proxies that die and are followed by others, devices whose disks outlive their processes.

Owns how each is put together from the real parts, as its program does it. Never decides when something goes wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, Final
from uuid import UUID

from proxy.cluster.register import Registers
from proxy.store.store import Store
from storage_node.errors import BodyDamaged
from storage_node.expirer import Expirer
from storage_node.keys import Key
from storage_node.mender import Mender
from storage_node.reaper import Reaper
from storage_node.reclaimer import Reclaimer
from storage_node.replicator import Replicator
from storage_node.service import DeviceService, Surroundings
from storage_node.turns import turns_of
from storage_node.updater import Updater
from storage_node.voting import founding_partitions
from swiftlike.digests import Digest
from swiftlike.entries import Entry
from swiftlike.limits import BODY_BYTES_MAX, RECLAIM_AGE_US, SWEPT_ROWS_MAX
from swiftlike.node_calls import objects
from swiftlike.rpc.simulated import SimulatedHost
from swiftlike.rpc.transport import TcpAddress
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Clock
from tests.engine.conftest import stand
from tests.simulation.quorum_cluster import SECRET, Cluster, LossyTransport, SimulatedDevice, WayOut
from tests.simulation.store_cluster import PATIENCE, POLICIES, TABLES
from tests.simulation.syncing_store import SyncingStore

AUDIT_S: Final = 20.0
"""Between two looks at all bodies of a device."""
SWEEP_S: Final = 20.0
BODIES: Final = objects(0)
"""The table of objects that clients write to."""
KINDS: Final = (*TABLES, b"r\0", b"r\1")
"""All that owners compare."""


@asynccontextmanager
async def quorum_client(
    cluster: Cluster,
    host: SimulatedHost,
    skew_s: float = 0.0,
    way: WayOut | None = None,
    writer: int | None = None,
    *,
    leaves_hints: bool = True,
) -> AsyncIterator[Store]:
    """The domain as a process of a host holds it."""
    if writer is None:
        writer = cluster.random.getrandbits(64)
    async with (
        host.client(SECRET) as client,
        LossyTransport(client, cluster.random, way) as transport,
        Registers(
            transport,
            cluster.new_shelf(),
            Clock(cluster.read_us(skew_s), writer),
            Random(cluster.random.random()),
            PATIENCE,
            leaves_hints=leaves_hints,
        ) as registers,
        Store(registers, POLICIES, cluster.random) as store,
    ):
        yield store


class WorldProxy:
    """A proxy; when its process dies, another one takes its place, and knows nothing of what this one did."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        skew_s: float = 0.0,
        *,
        leaves_hints: bool = True,
    ) -> None:
        """Start it."""
        self._leaves_hints: Final = leaves_hints
        self.name: Final = name
        self.writer = 0
        """Of the process that lives now: in each of its ballots."""
        self._cluster: Final = cluster
        self._skew_s: Final = skew_s
        self.way: Final = WayOut()
        """Of its calls; the process that follows this one has it too."""
        self._store: Store | None = None
        self._serves = asyncio.Event()
        self._is_dying = False
        self._requests: dict[asyncio.Task[None], None] = {}
        cluster.network.host(name, self.boot)

    async def boot(self, host: SimulatedHost) -> None:
        """What its process does."""
        self.writer = self._cluster.random.getrandbits(64)
        try:
            async with quorum_client(
                self._cluster,
                host,
                self._skew_s,
                self.way,
                self.writer,
                leaves_hints=self._leaves_hints,
            ) as self._store:
                self._serves.set()
                await asyncio.Event().wait()
        finally:
            self._serves.clear()
            self._store = None

    async def store(self) -> Store:
        """Return the domain of the process that lives, as soon as one does."""
        await self._serves.wait()
        assert self._store is not None
        return self._store

    async def serve(
        self, request: Callable[[Store], Coroutine[Any, Any, None]], life_s: float | None
    ) -> None:
        """Serve a request until it is done, its client is gone after `life_s`, or the process dies."""
        task = asyncio.ensure_future(request(await self.store()))
        self._requests[task] = None
        done, _ = await asyncio.wait((task,), timeout=life_s)
        if not done:
            task.cancel()
            await asyncio.wait((task,))
        del self._requests[task]
        if not task.cancelled():
            task.result()

    async def die(self, for_s: float) -> None:
        """Be gone for a while, in the middle of everything; unless it is gone already."""
        if self._store is None or self._is_dying:
            return
        self._is_dying = True
        for task in self._requests:
            task.cancel()
        await self._cluster.network.crash(self.name)
        await asyncio.sleep(for_s)
        self._cluster.network.restart(self.name)
        self._is_dying = False


class WorldDevice(SimulatedDevice):
    """A device whose process has a writer, a service and all jobs, and whose disk outlives it."""

    store: SyncingStore

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        reclaim_age_us: int = RECLAIM_AGE_US,
        lag_s: float = 0.0,
        skews_s: Sequence[float] = (),
        *,
        is_wide: bool = False,
    ) -> None:
        """Begin with an empty disk; its processes compare what they hold with others' from `lag_s` on.

        `skews_s`: how far the clocks of all devices are ahead. `is_wide`: accounts may be deleted, and are removed.
        """
        super().__init__(cluster, number)
        self._is_wide: Final = is_wide
        self._skew_s: Final = skews_s[number] if skews_s else 0.0
        self._read_us: Final = cluster.read_us(self._skew_s)
        self._lag_s: Final = lag_s
        self._reclaim_age_us: Final = reclaim_age_us
        self.number: Final = number
        self.uuid = UUID(int=number + 1)
        self.on_accept: Callable[[WorldDevice, Entry], None] = lambda device, entry: None
        """Called with each object's entry that is taken anew and on the disk."""
        self.on_promise: Callable[[WorldDevice, Ballot], None] = lambda device, ballot: None
        """Called with each ballot that is promised at an object's key, and on the disk."""
        self._cluster: Final = cluster
        self._replicator: Replicator | None = None
        self._ring_came: Final = asyncio.Event()
        self.wipe(self.uuid)

    def wipe(self, uuid: UUID) -> None:
        """Be another disk, formatted anew."""
        cluster = self._cluster
        self.uuid = uuid
        self.store = SyncingStore(
            self.name, cluster.layout, self._read_us, cluster.random, self._reclaim_age_us
        )
        self.store.on_accept = lambda entry: self.on_accept(self, entry)
        self.store.on_promise = lambda ballot: self.on_promise(self, ballot)

    async def boot(self, host: SimulatedHost) -> None:
        """What its process does."""
        cluster, store, shelf = self._cluster, self.store, self.shelf
        surroundings = replace(Surroundings(), healing=lambda: self._replicator)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.write())
            async with (
                DeviceService(store, store.layout, shelf, surroundings) as service,
                host.server(service.service, SECRET) as server,
                host.client(SECRET) as transport,
                quorum_client(cluster, host, self._skew_s, leaves_hints=not self._lag_s) as client,
            ):
                await server.listen(TcpAddress(host.name, 6200))
                random, read_us = Random(cluster.random.random()), self._read_us
                turn = turns_of(shelf.ring, self.uuid)
                mender = Mender(store, client.mending, self.uuid)
                store.on_missing = mender.tell
                replicator = Replicator(store, self.uuid, shelf, transport, client.settling, random)
                reclaimer = Reclaimer(store, self.uuid, shelf, transport, read_us, self._reclaim_age_us)
                try:
                    self._replicator = replicator
                    self._ring_came.set()
                    async with asyncio.TaskGroup() as jobs:
                        jobs.create_task(Updater(store, client.payer, read_us, random).run())
                        jobs.create_task(Expirer(store, client.expiring, turn, read_us).run())
                        jobs.create_task(mender.run())
                        jobs.create_task(self._replicate(replicator))
                        jobs.create_task(reclaimer.run())
                        jobs.create_task(self._take_rings(replicator))
                        jobs.create_task(self._audit())
                        if self._is_wide:
                            jobs.create_task(Reaper(store, client.reaping, turn, read_us).run())
                            jobs.create_task(self._sweep())
                finally:
                    self._replicator = None

    async def _take_rings(self, replicator: Replicator) -> None:
        """Vote at once where a ring says that nothing can have been missed, and heal by it."""
        while True:
            await self._ring_came.wait()
            self._ring_came.clear()
            for table in TABLES:
                founding = founding_partitions(self.shelf.ring(table), self.uuid)
                await self.store.grant_first_votes(table, founding)
            replicator.look_at_rings()

    async def _replicate(self, replicator: Replicator) -> None:
        await asyncio.sleep(self._lag_s)
        await replicator.run()

    async def _audit(self) -> None:
        """Read back all bodies, as the auditor of a real disk does."""
        while True:
            await asyncio.sleep(AUDIT_S)
            for key, held in self.store.registers(BODIES, 0, 0, b"", 1_000):
                _, body = await self.store.find(key, BODY_BYTES_MAX)
                if held.location.held and body is not None:
                    try:
                        await body.read(0, body.size)
                    except BodyDamaged:
                        continue  # it was set aside, and the mender told

    async def _sweep(self) -> None:
        """Remove the rows of containers that are gone, as the housekeeping of a real disk does."""
        while True:
            await asyncio.sleep(SWEEP_S)
            while await self.store.sweep(SWEPT_ROWS_MAX):
                pass

    # --- what an operator does and sees ---------------------------------------------------------------------------

    def look_at_rings(self) -> None:
        """Its ring was replaced."""
        self._ring_came.set()

    def has_caught_up(self, epoch: int) -> bool:
        """Whether it lives, knows this epoch, and votes on all that it owns."""
        if self._replicator is None:
            return False
        found = [self._replicator.caught_up(table) for table in TABLES]
        return all(each.epoch == epoch and each.votes == each.owned for each in found)

    async def lose_votes(self) -> None:
        """Come back from a failed sync."""
        for table in TABLES:
            await stand(self.store, table, 0, self.store.standing(table, 0)._replace(votes=False))

    def votes(self) -> bool:
        """Whether it votes on all tables."""
        return all(self.store.standing(table, 0).votes for table in TABLES)

    def state(self) -> tuple[Digest, ...]:
        """What it holds."""
        return tuple(self.store.partition_digest(kind, 0) for kind in KINDS)

    def outstanding(self, key: Key) -> Ballot:
        """What a ballot has to pass at a key."""
        held = self.store.read(key)
        return ZERO_BALLOT if held is None else held.register.outstanding

    def lives(self, account: bytes) -> bool:
        """Whether it holds anything of an account that is not deleted, or the account itself."""
        lead = account + b"\0"
        return any(
            held.register.entry is not None
            and not held.register.entry.tombstone
            and (key.path + b"\0").startswith(lead)
            for table in TABLES
            for key, held in self.store.registers(table, 0, 0, b"", 1_000)
        )

    def holds(self, key: Key) -> tuple[Entry | None, bool]:
        """What stands at a key, and whether its body is here and sound."""
        held = self.store.read(key)
        if held is None:
            return None, False
        return held.register.entry, held.location.held and not self.store.is_rotten(held.location)
