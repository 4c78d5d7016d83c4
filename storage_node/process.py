"""The process of one device: opens it, serves it, and ends when told, or at once when a sync failed.

Owns the order of start and end, signals and exit codes. Never starts another process (the supervisor does) and never touches the
engine's insides; its jobs are the `workforce`'s, and what it says of itself its `reporting`'s.

    python -m storage_node.process --config HOST.toml --device NAME [--without-votes]

Its first line on standard output is `ready` or `refused` and a sentence; logs go to standard error. Exit codes: 0 it
drained, 2 refused to start, 3 a sync failed (the device returns as one that does not vote), 4 the device is not there any more,
5 a task that goes on for as long as it serves ended by itself, anything else is a bug.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from ring.ring import Ring
from storage_node.device import Device, Settings
from storage_node.disk import Disk
from storage_node.errors import DeviceFailed, DeviceRefused, InsufficientStorage, StorageError
from storage_node.exits import Exit
from storage_node.identity import no_access
from storage_node.metrics import DeviceMetrics
from storage_node.presence import Presence, watch
from storage_node.reporting import Reports, Space
from storage_node.rings import RingSet
from storage_node.service import DeviceService, Surroundings
from storage_node.voting import founding_partitions
from storage_node.workforce import OpenQuorums, Workforce
from swiftlike import garbage, logs, signals
from swiftlike.config import (
    Cluster,
    ConfigError,
    DeviceConfig,
    HostConfig,
    StorageConfig,
    load_cluster,
    load_host,
)
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.transport import Address, TcpAddress, UnixAddress
from swiftlike.scrapes import serve_scrapes
from swiftlike.supervision import READY, REFUSED, allow_descriptors, end_with, hear_hangups, tell
from swiftlike.tls import renew, server_context

log: Final = logging.getLogger("storage_node.process")

INTERPRETER_TURN_S: Final = 0.0005
"""For how long a thread that scans the index may keep the interpreter's lock once the loop, for which calls wait, wants it. Python's own
five milliseconds, several times in the work of one call, are most of what a get waits beside healing."""


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
    garbage.keep_freed_memory()
    sys.setswitchinterval(INTERPRETER_TURN_S)
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
        self._path = path
        self._host = host
        self._storage = storage
        self._config = config
        self._cluster = cluster
        self._tls = None if host.tls is None else server_context(host.tls)
        self._disk = Disk()
        self._stop = asyncio.Event()
        self._exit = Exit.DRAINED

    async def run(self) -> int:
        """Open, serve, drain, close. Raises DeviceRefused, ConfigError."""
        rings = RingSet(self._host.ring_directory, self._cluster, self._stop.set)
        device = self._open(rings)
        try:
            rings.check_place(device.uuid, self._config.name, self._config.port)
            device.start()
            await rings.apply(partial(self._grant_votes, device))
            await self._serve(device, rings)
        finally:
            await device.close()
        log.info("closed")
        return self._exit

    def _end_incomplete(self) -> None:
        """End, since a task has that goes on for as long as the device is served; one that ends after the word to stop is no cause."""
        if not self._stop.is_set():
            self._exit = Exit.TASK_ENDED
        self._stop.set()

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
        except PermissionError as error:
            raise DeviceRefused(no_access(error)) from error
        except (OSError, StorageError) as error:
            raise DeviceRefused(
                f"{self._config.path} cannot be opened ({error}): look at the disk"
            ) from error

    async def _serve(self, device: Device, rings: RingSet) -> None:
        loop = asyncio.get_running_loop()
        space = Space(self._disk, self._config.path)
        workforce = Workforce(
            device,
            rings,
            self._host,
            self._storage.jobs,
            self._cluster,
            read_us,
            self._open_quorums,
            self._end_incomplete,
        )
        surroundings = Surroundings(
            has_room=lambda size: space.free_bytes() - size > self._storage.reserve_bytes,
            health=lambda: reports.health(),
            stats=lambda: reports.stats(),
            healing=lambda: workforce.replicator,
            overseeing=lambda: workforce.replicator,
            pausing=lambda: workforce.pause,
            metrics=lambda: metrics.text(),
        )
        limits = self._storage.limits.rpc_limits()
        async with DeviceService(device, rings.layout, rings, surroundings) as service:
            network = SocketNetwork(server_tls=self._tls)
            server = Server(network, service.service, self._cluster.rpc_secret, limits=limits)
            reports = Reports(self._config.name, device, space, rings, service, server, workforce, read_us)
            metrics = DeviceMetrics(device, service, server, space.free_bytes, reports.debts, workforce.jobs)
            async with (
                server,
                self._scraped(metrics),
                workforce,
                self._following(device, rings, workforce),
                self._watched(device),
            ):
                places = [await self._listen(server, address) for address in self._addresses()]
                self._take_signals(loop, rings)
                garbage.settle()
                log.info("device %s serves on %s", device.name, " and ".join(places))
                tell(f"{READY} {' '.join(places)}")
                await self._stop.wait()
                finished = await server.drain(loop.time() + self._storage.drain_s)
                log.info("drained" if finished else "the deadline passed; what was still at work is cut")

    @asynccontextmanager
    async def _watched(self, device: Device) -> AsyncIterator[None]:
        """See that the device stays where it was opened; where that is not so, or nobody sees it any more, the process ends."""

        def hear(task: "asyncio.Task[None]") -> None:
            if not task.cancelled():
                log.critical("the device is not watched any more", exc_info=task.exception())
                self._end_incomplete()

        watching = asyncio.create_task(watch(Presence(device.root, device.index_directory), end_gone))
        watching.add_done_callback(hear)
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait((watching,))

    # --- rings --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _following(self, device: Device, rings: RingSet, workforce: Workforce) -> AsyncIterator[None]:
        """Follow the files of the rings; should that ever end by itself, so must the process."""

        async def take(table: bytes, ring: Ring) -> None:
            await self._grant_votes(device, table, ring)
            workforce.look_at_rings()

        def hear(task: "asyncio.Task[None]") -> None:
            if not task.cancelled():
                log.critical("the rings are not followed any more", exc_info=task.exception())
                self._end_incomplete()

        following = asyncio.create_task(rings.run(take))
        following.add_done_callback(hear)
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait((following,))

    async def _grant_votes(self, device: Device, table: bytes, ring: Ring) -> None:
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

    # --- what it listens on -------------------------------------------------------------------------------------

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

    @asynccontextmanager
    async def _scraped(self, metrics: DeviceMetrics) -> AsyncIterator[None]:
        """Serve Prometheus on loopback, if asked for."""
        port = self._config.metrics_port
        try:
            end = serve_scrapes(port, metrics.registry)
        except OSError as error:
            raise DeviceRefused(
                f"device {self._config.name} cannot serve metrics on port {port} ({error.strerror}): change metrics_port"
            ) from None
        try:
            yield
        finally:
            end()

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


def read_us() -> int:
    """Return the host's clock."""
    return time.time_ns() // 1000


def end_now(failure: DeviceFailed) -> None:
    """A sync failed: nothing that this process remembers may be believed any more, so nothing is finished."""
    log.critical("%s", failure)
    os._exit(Exit.SYNC_FAILED)


def end_gone(missing: str) -> None:
    """What is served is gone: what was written since went nowhere, so nothing is finished, and nothing more is answered."""
    log.critical(
        "%s: the device is not served from deleted files; mount its disk, or format it anew and bind it",
        missing,
    )
    os._exit(Exit.GONE)


if __name__ == "__main__":
    signals.ignore_hangups()
    sys.exit(main())
