"""The process of one device: opens it, serves it, and ends when told, or at once when a sync failed.

Owns the order of start and end, signals, exit codes, and what `health` and `stats` say. Never starts another process
(the supervisor does) and never touches the engine's insides.

    python -m storage_node.process --config HOST.toml --device NAME [--without-votes]

Its first line on standard output is `ready` or `refused` and a sentence; logs go to standard error. Exit codes: 0 it
drained, 2 refused to start, 3 a sync failed (the device returns as one that does not vote), anything else is a bug.
"""

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from types import FrameType
from typing import Any, Final, Protocol, TypeAlias

import uvloop
from prometheus_client import start_http_server

from ring.ring import Ring
from storage_node.auditor import Auditor, Rates
from storage_node.device import Device, Settings
from storage_node.disk import Disk
from storage_node.errors import DeviceFailed, DeviceRefused, InsufficientStorage, StorageError
from storage_node.exits import Exit
from storage_node.expirer import Expirer, Expiring
from storage_node.housekeeping import Kept, keep_house
from storage_node.jobs import Job
from storage_node.mender import Mender, Mending
from storage_node.metrics import DeviceMetrics
from storage_node.pause import Pause
from storage_node.reaper import Reaper, Reaping
from storage_node.reclaimer import Reclaimer
from storage_node.replicator import Replicator
from storage_node.rings import RingSet
from storage_node.service import DeviceService, Surroundings
from storage_node.sharing import shares_of
from storage_node.taking import Rates as TakingRates
from storage_node.taking import Settling
from storage_node.turns import turns_of
from storage_node.updater import Payer, Updater
from storage_node.voting import founding_partitions
from swiftlike import garbage, logs
from swiftlike.config import (
    Cluster,
    ConfigError,
    DeviceConfig,
    HostConfig,
    StorageConfig,
    load_cluster,
    load_host,
)
from swiftlike.listed import Payment
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.transport import Address, TcpAddress, UnixAddress
from swiftlike.supervision import READY, REFUSED, allow_descriptors, end_with, hear_hangups, tell
from swiftlike.tls import calling_network, renew, server_context

log: Final = logging.getLogger("storage_node.process")

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 32 * 1024**2


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


def main(arguments: list[str] | None = None, open_quorums: OpenQuorums | None = None) -> int:
    """Serve one device until told to stop; return the exit code.

    A storage node knows no quorum client: whoever starts it with one lets it do the jobs that take a majority.
    """
    parser = argparse.ArgumentParser(prog="storage_node.process", description="serve one device of this host")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--parent", type=int, help="process id of the supervisor; this process ends with it")
    parser.add_argument(
        "--without-votes",
        action="store_true",
        help="take all votes away before serving, since a sync failed and that may not be noted on the disk",
    )
    options = parser.parse_args(arguments)
    if options.parent is not None:
        end_with(options.parent)
    logs.set_up("info", f"device={options.device}")
    allow_descriptors()
    keep_freed_memory()
    try:
        host = load_host(options.config)
        logs.set_level(host.log_level)
        storage, config = find_device(host, options.config, options.device)
        cluster = load_cluster(host.cluster_file)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            process = DeviceProcess(
                options.config,
                host,
                storage,
                config,
                cluster,
                without_votes=options.without_votes,
                open_quorums=open_quorums,
            )
            return runner.run(process.run())
    except (ConfigError, DeviceRefused) as refusal:
        log.error("refused to start: %s", refusal)
        tell(f"{REFUSED} {refusal}")
        return Exit.REFUSED


def find_device(host: HostConfig, path: Path, name: str) -> tuple[StorageConfig, DeviceConfig]:
    """Return the settings of one device. Raises ConfigError when the file names no such."""
    for device in () if host.storage is None else host.storage.devices:
        if device.name == name and host.storage is not None:
            return host.storage, device
    raise ConfigError(f"{path}: no [[storage.devices]] is named {name}: add it, or correct the name")


def keep_freed_memory() -> None:
    """Let malloc keep up to 32 MiB of freed memory, instead of giving each large buffer back to the kernel at once.

    Bodies come and go by the thousand, and the page faults of a fresh mapping cost more than reading a body from the
    page cache does: without this, they are 40 % of a streamed read.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not every libc has it; without it, reads are slower and nothing else
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


class DeviceProcess:
    """One device being served."""

    def __init__(
        self,
        path: Path,
        host: HostConfig,
        storage: StorageConfig,
        config: DeviceConfig,
        cluster: Cluster,
        *,
        without_votes: bool = False,
        open_quorums: OpenQuorums | None = None,
    ) -> None:
        """Take the configuration; `path` is where it is read again on SIGHUP. Raises ConfigError for the files of TLS."""
        self._without_votes = without_votes
        self._open_quorums = open_quorums
        self._updater: Updater | None = None
        self._jobs: dict[str, Job] = {}
        self._replicator: Replicator | None = None
        self._pause: Pause | None = None
        self._path = path
        self._host = host
        self._storage = storage
        self._config = config
        self._cluster = cluster
        self._tls = None if host.tls is None else server_context(host.tls)
        self._disk = Disk()
        self._stop = asyncio.Event()
        self._began_s = time.monotonic()

    async def run(self) -> int:
        """Open, serve, drain, close. Raises DeviceRefused, ConfigError."""
        rings = RingSet(self._host.ring_directory, self._cluster, self._stop.set)
        device = self._open(rings)
        try:
            rings.check_place(device.uuid, self._config.name, self._config.port)
            device.start()
            await rings.apply(partial(self._take_ring, device))
            await self._serve(device, rings)
        finally:
            await device.close()
        log.info("closed")
        return Exit.DRAINED

    def _open(self, rings: RingSet) -> Device:
        settings = Settings(
            reserve_bytes=self._storage.reserve_bytes,
            reclaim_age_us=self._cluster.reclaim_age_us,
            index_directory=self._config.index_path,
        )
        try:
            return Device(
                self._config.path,
                rings.layout,
                read_us,
                settings=settings,
                on_failure=end_now,
                disk=self._disk,
                without_votes=self._without_votes,
            )
        except DeviceRefused:
            raise
        except (OSError, StorageError) as error:
            raise DeviceRefused(
                f"{self._config.path} cannot be opened ({error}): look at the disk"
            ) from error

    async def _serve(self, device: Device, rings: RingSet) -> None:
        loop = asyncio.get_running_loop()
        pause = self._pause = Pause(device, read_us, self._go_on)
        await pause.load()
        surroundings = Surroundings(
            has_room=lambda size: self._free_bytes() - size > self._storage.reserve_bytes,
            health=lambda: self._health(device, rings, server),
            stats=lambda: self._stats(device, service, server),
            healing=lambda: self._replicator,
            overseeing=lambda: self._replicator,
            pausing=lambda: self._pause,
            metrics=lambda: metrics.text(),
        )
        service = DeviceService(device, rings.layout, rings, surroundings)
        limits = self._storage.limits.rpc_limits()
        async with service:
            server = Server(
                SocketNetwork(server_tls=self._tls), service.service, self._cluster.secret, limits=limits
            )
            metrics = DeviceMetrics(device, service, server, self._free_bytes, self._debts, self._jobs)
            async with server:
                end_scrapes = self._serve_scrapes(metrics)
                following = asyncio.create_task(rings.run(partial(self._take_ring, device)))
                following.add_done_callback(partial(self._ended, "the rings are not followed any more"))
                compactor = Kept()
                self._jobs["compactor"] = compactor
                keeping = asyncio.create_task(keep_house(device, read_us, kept=compactor))
                keeping.add_done_callback(partial(self._ended, "the device is not kept in order any more"))
                reclaiming = asyncio.create_task(self._reclaim(device, rings))
                reclaiming.add_done_callback(partial(self._ended, "nothing is reclaimed any more"))
                auditing = asyncio.create_task(self._audit(device))
                auditing.add_done_callback(partial(self._ended, "the device is not audited any more"))
                asking = asyncio.create_task(self._ask_quorums(device, rings, pause))
                asking.add_done_callback(
                    partial(self._ended, "the jobs that take a majority are not done any more")
                )
                try:
                    places = [await self._listen(server, address) for address in self._addresses()]
                    self._take_signals(loop, rings)
                    garbage.settle()
                    log.info("device %s serves on %s", device.name, " and ".join(places))
                    tell(f"{READY} {' '.join(places)}")
                    await self._stop.wait()
                    finished = await server.drain(loop.time() + self._storage.drain_s)
                    log.info("drained" if finished else "the deadline passed; what was still at work is cut")
                finally:
                    following.cancel()
                    keeping.cancel()
                    reclaiming.cancel()
                    auditing.cancel()
                    asking.cancel()
                    await asyncio.wait((following, keeping, reclaiming, auditing, asking))
                    end_scrapes()

    async def _reclaim(self, device: Device, rings: RingSet) -> None:
        """Move floors with the other owners, and forget what lies below, until cancelled."""
        async with Client(calling_network(self._host.tls), self._cluster.secret) as transport:
            reclaimer = Reclaimer(
                device, device.uuid, rings, transport, read_us, self._cluster.reclaim_age_us
            )
            self._jobs["reclaimer"] = reclaimer
            await reclaimer.run()

    async def _audit(self, device: Device) -> None:
        """Read back what the device holds, until cancelled."""
        jobs = self._storage.jobs
        rates = Rates(jobs.audited_bytes_per_s, jobs.audited_bodies_per_s, jobs.audit_every_s)
        auditor = Auditor(device, read_us, rates)
        self._jobs["auditor"] = auditor
        await auditor.run()

    async def _ask_quorums(self, device: Device, rings: RingSet, pause: Pause) -> None:
        """Do what takes a majority, until cancelled: pay what writers left unpaid, delete what is due and what deleted
        accounts held, bring back bodies.

        Nothing, where no quorum client was handed in.
        """
        if self._open_quorums is None:
            await self._replicate(device, rings, None, pause)
            return

        def end(error: BaseException | None) -> None:
            log.critical("the quorum client of this device does not go on", exc_info=error)
            self._stop.set()

        turn = turns_of(rings.ring, device.uuid)
        async with self._open_quorums(self._host, self._cluster, read_us, end) as quorums:
            self._updater = Updater(device, quorums.payer, read_us, Random(SystemRandom().getrandbits(64)))
            expirer = Expirer(device, quorums.expiring, turn, read_us, per_s=self._storage.jobs.expired_per_s)
            mender = Mender(device, quorums.mending, device.uuid, read_us=read_us, is_paused=pause.is_on)
            device.on_missing = mender.tell
            reaper = Reaper(device, quorums.reaping, turn, read_us, per_s=self._storage.jobs.reaped_per_s)
            self._jobs |= {"expirer": expirer, "mender": mender, "reaper": reaper}
            async with asyncio.TaskGroup() as jobs:
                jobs.create_task(self._updater.run())
                jobs.create_task(expirer.run())
                jobs.create_task(mender.run())
                jobs.create_task(reaper.run())
                jobs.create_task(self._replicate(device, rings, quorums.settling, pause))

    async def _replicate(
        self, device: Device, rings: RingSet, settling: Settling | None, pause: Pause
    ) -> None:
        """Keep this device and the other owners the same, until cancelled."""
        random, jobs = Random(SystemRandom().getrandbits(64)), self._storage.jobs
        async with Client(calling_network(self._host.tls), self._cluster.secret) as transport:
            self._replicator = Replicator(
                device,
                device.uuid,
                rings,
                transport,
                settling,
                random,
                on_thread=lambda ring, uuid: asyncio.to_thread(shares_of, ring, uuid),
                rates=TakingRates(jobs.healed_per_s, jobs.healed_bytes_per_s),
                read_us=read_us,
                is_paused=pause.is_on,
            )
            self._jobs["replicator"] = self._replicator
            await self._replicator.run()

    def _go_on(self) -> None:
        """A pause is over."""
        if self._replicator is not None:
            self._replicator.look_at_rings()

    async def _take_ring(self, device: Device, table: bytes, ring: Ring) -> None:
        """Vote at once where the ring says that nothing can have been missed; elsewhere only catch-up gives a vote."""
        if ring.part_power != device.layout.part_powers[table]:
            return  # the process is about to restart with it
        # On a thread: a ring has up to millions of slots.
        partitions = await asyncio.to_thread(founding_partitions, ring, device.uuid)
        try:
            granted = await device.grant_first_votes(table, partitions)
        except InsufficientStorage as error:
            log.error("no first votes on ring %s, epoch %d: %s, then restart", ring.name, ring.epoch, error)
            return
        if granted:
            log.info("votes on %d founding partitions of ring %s, epoch %d", granted, ring.name, ring.epoch)
        if self._replicator is not None:
            self._replicator.look_at_rings()

    def _ended(self, sentence: str, task: "asyncio.Task[None]") -> None:
        """What goes on until the end has ended by itself, and so must the process."""
        if not task.cancelled():
            log.critical(sentence, exc_info=task.exception())
            self._stop.set()

    def _addresses(self) -> list[Address]:
        return [
            TcpAddress(self._storage.bind_host, self._config.port),
            UnixAddress(str(self._host.socket_directory / f"{self._config.name}.sock")),
        ]

    async def _listen(self, server: Server, address: Address) -> str:
        try:
            if isinstance(address, UnixAddress):
                Path(address.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return str(await server.listen(address))
        except OSError as error:
            raise DeviceRefused(
                f"device {self._config.name} cannot listen on {address} ({error.strerror or error}): stop what is there, or "
                "change bind_host, port or socket_directory"
            ) from None

    def _serve_scrapes(self, metrics: DeviceMetrics) -> Callable[[], None]:
        """Serve Prometheus on loopback, if asked for; return what ends that."""
        port = self._config.metrics_port
        if port == 0:
            return lambda: None
        try:
            server, thread = start_http_server(port, "127.0.0.1", metrics.registry)
        except OSError as error:
            raise DeviceRefused(
                f"device {self._config.name} cannot serve metrics on port {port} ({error.strerror}): change metrics_port"
            ) from None

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return end

    # --- signals ------------------------------------------------------------------------------------------------

    def _take_signals(self, loop: asyncio.AbstractEventLoop, rings: RingSet) -> None:
        # SIGINT as well: a terminal sends it to the whole process group.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload, rings)
        hear_hangups()

    def _reload(self, rings: RingSet) -> None:
        """Take what can change under way (log_level, drain_s, a renewed certificate), and look at the rings."""
        rings.look()
        try:
            host = load_host(self._path)
            storage, _ = find_device(host, self._path, self._config.name)
            if self._tls is not None and host.tls is not None:
                renew(self._tls, host.tls)
        except ConfigError as error:
            log.error("not reloaded: %s", error)
            return
        logs.set_level(host.log_level)
        self._host, self._storage = host, storage
        log.info("reloaded log_level, drain_s, the certificate and the rings; the rest takes a restart")

    # --- what it says of itself ---------------------------------------------------------------------------------

    def _free_bytes(self) -> int:
        """Return the free space; none on a disk that cannot even tell."""
        try:
            return self._disk.free_bytes(self._config.path)
        except OSError as error:
            log.error("%s does not tell its free space (%s): look at the disk", self._config.path, error)
            return 0

    def _total_bytes(self) -> int:
        """Return how large the disk is; zero where it cannot even tell that, which `_free_bytes` has said."""
        try:
            return self._disk.total_bytes(self._config.path)
        except OSError:
            return 0

    def _health(self, device: Device, rings: RingSet, server: Server) -> Mapping[str, Any]:
        free_bytes, total_bytes = self._free_bytes(), self._total_bytes()
        if server.admission.draining:
            state = "draining"
        else:
            state = "serving" if free_bytes > device.settings.reserve_bytes else "full"
        return {
            "state": state,
            "device": self._config.name,
            "uuid": str(device.uuid),
            "generation": device.generation,
            "epochs": rings.epochs(),
            "checksums": rings.checksums(),
            "now_us": read_us(),
            "paused_until_us": 0 if self._pause is None else self._pause.until_us,
            "free_bytes": free_bytes,
            "total_bytes": total_bytes,
            "reserve_bytes": device.settings.reserve_bytes,
            "read_errors": device.counters.read_errors,
            "write_errors": device.counters.write_errors,
            "bodies_damaged": device.counters.bodies_damaged,
            "pid": os.getpid(),
            "uptime_s": int(time.monotonic() - self._began_s),
        }

    def _stats(self, device: Device, service: DeviceService, server: Server) -> Mapping[str, Any]:
        return {
            "volumes": len(device.volumes.ids()),
            "live_bytes": sum(device.live_bytes().values()),
            "free_bytes": self._free_bytes(),
            "quarantined": device.bad_bodies.quarantined(),
            "device": asdict(device.counters),
            "rpc": asdict(server.counters),
            "debts": self._debts(),
            "jobs": {
                name: {figure.name: figure.value for figure in job.figures()}
                for name, job in self._jobs.items()
            },
            "answers": {
                f"{method} {ended}": count for (method, ended), count in sorted(service.counts.items())
            },
        }

    def _debts(self) -> dict[str, int]:
        """Return what became of debts that writers left, by word, and how many the last walk could not pay."""
        updater = self._updater
        if updater is None:
            return {}
        ended = {payment.name.lower(): updater.ended[payment] for payment in Payment}
        return {**ended, "walks": updater.walks, "left": updater.left, "last_walk_us": updater.walked_us}


def read_us() -> int:
    """Return the host's clock."""
    return time.time_ns() // 1000


def end_now(failure: DeviceFailed) -> None:
    """A sync failed: nothing that this process remembers may be believed any more, so nothing is finished."""
    log.critical("%s", failure)
    os._exit(Exit.SYNC_FAILED)


def ignore(number: int, frame: FrameType | None) -> None:
    """Until the loop takes signals, a reload is nothing to die of."""


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, ignore)
    sys.exit(main())
