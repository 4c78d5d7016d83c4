"""The workforce: all jobs of one device, put together, and at work for as long as it serves.

Owns which jobs there are, what each is handed and by which settings it works, and who hears of it when one ends by itself. What a
job does is its own module's. A storage node knows no quorum client: where none is handed in, what takes a majority is not done.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from random import Random, SystemRandom
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

from storage_node.auditor import Auditor, Rates
from storage_node.device import Device
from storage_node.expirer import Expirer, Expiring
from storage_node.housekeeping import Kept, keep_house
from storage_node.jobs import Job
from storage_node.lag import LoopLag
from storage_node.lost_bodies import LostBodies
from storage_node.mender import Mender, Mending
from storage_node.pause import Pause
from storage_node.reaper import Reaper, Reaping
from storage_node.reclaimer import Reclaimer
from storage_node.replicator import Replicator
from storage_node.rings import RingSet
from storage_node.sharing import shares_of
from storage_node.taking import Rates as TakingRates
from storage_node.taking import Settling
from storage_node.turns import turns_of
from storage_node.updater import Payer, Updater
from swiftlike.config import Cluster, HostConfig, JobsConfig
from swiftlike.limits import COMPARED_AGAIN_S, HEALED_PARTITION_ITEMS
from swiftlike.rpc.client import Client
from swiftlike.tls import calling_network

log: Final = logging.getLogger(__name__)


class Quorums(Protocol):
    """The quorum client, as far as the jobs of a device need it."""

    @property
    def payer(self) -> Payer:
        """Pays debts."""

    @property
    def expiring(self) -> Expiring:
        """Deletes what is due."""

    @property
    def mending(self) -> Mending:
        """Brings bodies that are missing."""

    @property
    def reaping(self) -> Reaping:
        """Removes what deleted accounts held."""

    @property
    def settling(self) -> Settling:
        """Carries keys through that stand under a promise."""


OpenQuorums: TypeAlias = Callable[
    [HostConfig, Cluster, Callable[[], int], Callable[[BaseException | None], None]],
    AbstractAsyncContextManager[Quorums],
]
"""Opens the quorum client: with the host's and the cluster's settings, the host's clock, and who hears of it when it cannot
go on."""


class Workforce:
    """The jobs of one device; they work inside its context, which cancels them when it is left."""

    def __init__(
        self,
        device: Device,
        rings: RingSet,
        host: HostConfig,
        settings: JobsConfig,
        cluster: Cluster,
        read_us: Callable[[], int],
        open_quorums: OpenQuorums | None,
        when_ended: Callable[[], None],
    ) -> None:
        """Take the device, its rings, the settings, the host's clock, and who hears that a job does not go on.

        What is told then is that the process is to end: a device that is not kept in order is better started anew.
        """
        self._device: Final = device
        self._rings: Final = rings
        self._host: Final = host
        self._settings: Final = settings
        self._cluster: Final = cluster
        self._read_us: Final = read_us
        self._open_quorums: Final = open_quorums
        self._when_ended: Final = when_ended
        self._tasks: list[asyncio.Task[None]] = []
        self._lag: Final = LoopLag()
        self.pause: Final = Pause(device, read_us, self.look_at_rings)
        self.jobs: Final[dict[str, Job]] = {}
        """Those that tell of themselves, by name, once they are there. The updater's figures stand among the debts."""
        self.updater: Updater | None = None
        self.replicator: Replicator | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        await self.pause.load()
        compactor = Kept()
        self.jobs["compactor"] = compactor
        self._begin(
            "the device is not kept in order", keep_house(self._device, self._read_us, kept=compactor)
        )
        lost_bodies = LostBodies(self._device)
        self.jobs["lost_bodies"] = lost_bodies
        self._begin("lost volumes are not looked into", lost_bodies.run())
        self._begin("healing does not make way", self._lag.run())
        self._begin("nothing is reclaimed", self._reclaim())
        self._begin("the device is not audited", self._audit())
        self._begin("the jobs that take a majority are not done", self._ask_quorums())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def look_at_rings(self) -> None:
        """A ring was replaced, or a pause is over: compare at once."""
        if self.replicator is not None:
            self.replicator.look_at_rings()

    def _begin(self, sentence: str, work: Coroutine[Any, Any, None]) -> None:
        def hear(task: "asyncio.Task[None]") -> None:
            if not task.cancelled():
                log.critical("%s any more", sentence, exc_info=task.exception())
                self._when_ended()

        task = asyncio.create_task(work)
        task.add_done_callback(hear)
        self._tasks.append(task)

    # --- alone ----------------------------------------------------------------------------------------------------

    async def _audit(self) -> None:
        """Read back what the device holds, until cancelled."""
        settings = self._settings
        rates = Rates(settings.audited_bytes_per_s, settings.audited_bodies_per_s, settings.audit_every_s)
        auditor = Auditor(self._device, self._read_us, rates)
        self.jobs["auditor"] = auditor
        await auditor.run()

    # --- with the other owners -----------------------------------------------------------------------------------

    async def _reclaim(self) -> None:
        """Move floors with the other owners, and forget what lies below, until cancelled."""
        async with self._transport() as transport:
            device, age_us = self._device, self._cluster.reclaim_age_us
            reclaimer = Reclaimer(device, device.uuid, self._rings, transport, self._read_us, age_us)
            self.jobs["reclaimer"] = reclaimer
            await reclaimer.run()

    async def _replicate(self, settling: Settling | None) -> None:
        """Keep this device and the other owners the same, until cancelled."""
        settings = self._settings
        async with self._transport() as transport:
            self.replicator = Replicator(
                self._device,
                self._device.uuid,
                self._rings,
                transport,
                settling,
                _random(),
                on_thread=lambda ring, uuid: asyncio.to_thread(shares_of, ring, uuid),
                rates=TakingRates(settings.healed_per_s, settings.healed_bytes_per_s, HEALED_PARTITION_ITEMS),
                read_us=self._read_us,
                is_paused=self.pause.is_on,
                every_s=settings.compared_every_s,
                again_s=COMPARED_AGAIN_S,
                read_lag_s=self._lag.recent_s,
            )
            self.jobs["replicator"] = self.replicator
            await self.replicator.run()

    def _transport(self) -> Client:
        return Client(calling_network(self._host.tls), self._cluster.rpc_secret)

    # --- what takes a majority -----------------------------------------------------------------------------------

    async def _ask_quorums(self) -> None:
        """Pay what writers left unpaid, delete what is due and what deleted accounts held, bring back bodies, until cancelled.

        Only the replicator works, where no quorum client was handed in, and settles nothing.
        """
        if self._open_quorums is None:
            await self._replicate(None)
            return

        def end(error: BaseException | None) -> None:
            log.critical("the quorum client of this device does not go on", exc_info=error)
            self._when_ended()

        device, read_us, settings = self._device, self._read_us, self._settings
        turn = turns_of(self._rings.ring, device.uuid)
        async with self._open_quorums(self._host, self._cluster, read_us, end) as quorums:
            self.updater = Updater(device, quorums.payer, read_us, _random())
            expirer = Expirer(
                device,
                quorums.expiring,
                turn,
                read_us,
                per_s=settings.expired_per_s,
                read_lag_s=self._lag.recent_s,
            )
            mender = Mender(device, quorums.mending, device.uuid, read_us=read_us, is_paused=self.pause.is_on)
            device.on_missing = mender.tell
            reaper = Reaper(device, quorums.reaping, turn, read_us, per_s=settings.reaped_per_s)
            self.jobs.update(expirer=expirer, mender=mender, reaper=reaper)
            async with asyncio.TaskGroup() as jobs:
                jobs.create_task(self.updater.run())
                jobs.create_task(expirer.run())
                jobs.create_task(mender.run())
                jobs.create_task(reaper.run())
                jobs.create_task(self._replicate(quorums.settling))


def _random() -> Random:
    """Return what jitter is drawn from: no two processes the same."""
    return Random(SystemRandom().getrandbits(64))
