"""The supervisor of a storage node: one process for each device of a host, kept alive.

Owns which processes there are, how they are started, and what a reload changes. Never opens a device, a ring or a socket.
A device that is refused or dies takes no other down; only when none can be used does the supervisor give up.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Final

from storage_node.exits import Exit
from swiftlike import signals
from swiftlike.config import ConfigError, DeviceConfig, HostConfig, StorageConfig, load_cluster, load_host
from swiftlike.supervision import DRAINED_CODE, REFUSED_CODE, Children, Job, Patience, cause
from swiftlike.tls import server_context

log: Final = logging.getLogger("storage_node.supervisor")

PROCESS: Final = "storage_node.process"
"""The module that serves one device; a host whose devices need more than this package gives them another."""


class SupervisorExit(IntEnum):
    """How the supervisor ends."""

    DONE = DRAINED_CODE
    REFUSED = REFUSED_CODE


def load_storage(path: Path) -> tuple[HostConfig, StorageConfig]:
    """Read a host's file for its devices, and see that the cluster's is sound. Raises ConfigError."""
    host = load_host(path)
    if host.storage is None:
        raise ConfigError(
            f"{path}: storage is missing: add [storage] and one [[storage.devices]] for each disk"
        )
    load_cluster(host.cluster_file)
    if host.tls is not None:
        server_context(host.tls)
    return host, host.storage


class DeviceChildren(Children):
    """The device processes of one host; `path` is the file that they read too."""

    def __init__(
        self,
        path: Path,
        storage: StorageConfig,
        when_hopeless: Callable[[Sequence[str]], None],
        process: str = PROCESS,
    ) -> None:
        """Take the configuration, and the module that serves one device."""
        super().__init__(when_hopeless)
        self._path = path
        self._storage = storage
        self._process = process
        self._devices: dict[str, DeviceConfig] = {}
        self._owing_votes: set[str] = set()
        """Devices of which a sync failed, and no process has served since: the disk itself may not know of it."""

    def start(self) -> None:
        """Begin to keep the process of every device."""
        for device in self._storage.devices:
            self._adopt_device(device)

    def change(self, storage: StorageConfig, *, restart: bool = False) -> None:
        """Take new settings: start what is new, end what is gone, restart what moved (or all), tell the others."""
        before, self._storage = self._storage, storage
        wanted = {device.name: device for device in storage.devices}
        for name in [name for name in self._devices if name not in wanted]:
            del self._devices[name]
            self.retire(name)
        for name, device in wanted.items():
            if name not in self._devices:
                self._adopt_device(device)
                continue
            # Settings of another place need another process.
            moved = (
                restart
                or device != self._devices[name]
                or (
                    (storage.bind_host, storage.limits, storage.jobs, storage.reserve_bytes)
                    != (before.bind_host, before.limits, before.jobs, before.reserve_bytes)
                )
            )
            self._devices[name] = device
            self.reassign(name, self._job(device), restart=moved)

    def _adopt_device(self, device: DeviceConfig) -> None:
        self._devices[device.name] = device
        self.adopt(device.name, self._job(device))

    def _job(self, device: DeviceConfig) -> Job:
        storage = self._storage

        def arguments(last_code: int | None) -> Sequence[str]:
            if last_code == Exit.SYNC_FAILED:
                self._owing_votes.add(device.name)
            given = ("-m", self._process, "--config", str(self._path), "--device", device.name)
            return (*given, "--without-votes") if device.name in self._owing_votes else given

        patience = Patience(storage.drain_s, storage.restart_min_s, storage.restart_max_s)
        on_served = partial(self._owing_votes.discard, device.name)
        return Job(f"device {device.name}", arguments, patience, _cause, on_served)


class Supervisor:
    """`swiftlike storage`: the device processes of one host, until SIGTERM."""

    def __init__(self, path: Path, host: HostConfig, process: str = PROCESS) -> None:
        """Take the configuration and the file that it came from, which children read too."""
        assert host.storage is not None, "load_storage saw to it"
        self._path = path
        self._shared = _shared(host)
        self._stopping = asyncio.Event()
        self._exit = SupervisorExit.DONE
        self._children = DeviceChildren(path, host.storage, self._give_up, process)

    async def run(self) -> int:
        """Keep the processes alive until SIGTERM; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with self._children:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            signals.hear()
            self._children.start()
            await self._stopping.wait()
        return self._exit

    def _give_up(self, refusals: Sequence[str]) -> None:
        if self._stopping.is_set():
            return
        log.error("no device of this host can be used: %s", "; ".join(refusals))
        self._exit = SupervisorExit.REFUSED
        self._stopping.set()

    def _reload(self) -> None:
        """Read the file again."""
        if self._stopping.is_set():
            return
        try:
            host, storage = load_storage(self._path)
            shared = _shared(host)
        except ConfigError as error:
            log.error("not reloaded: %s", error)
            return
        self._children.change(storage, restart=shared != self._shared)
        self._shared = shared
        log.info("reloaded: %d devices", len(storage.devices))


def _shared(host: HostConfig) -> tuple[object, ...]:
    """Return what all device processes take at their start only, and what is not of `[storage]`. Raises ConfigError."""
    cluster = load_cluster(host.cluster_file)
    of_the_cluster = (cluster.hash_seed, cluster.secret, cluster.policies, cluster.reclaim_age_us)
    return (host.ring_directory, host.socket_directory, host.tls, *of_the_cluster)


def _cause(code: int) -> str:
    """Say how a device's process ended."""
    if code == Exit.SYNC_FAILED:
        return "a sync failed: look at the disk; the device comes back without its votes"
    if code == Exit.GONE:
        return "what it served is not there any more: mount its disk; if it was emptied, format it anew and bind it"
    if code == Exit.TASK_ENDED:
        return "one of its jobs ended by itself: see its log"
    if -code in (
        signal.SIGABRT,
        signal.SIGBUS,
    ):  # what LMDB does about a damaged page, or one that the disk does not read
        return f"{cause(code)}: its index may be damaged; if that happens again, run swiftlike-device check"
    return cause(code)
