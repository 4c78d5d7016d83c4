"""The supervisor: one process for each device of a host, kept alive.

Owns starting, restarting with back-off, and passing signals on. Never opens a device, a ring or a socket. A device that
is refused or dies takes no other down; only when none can be used does the supervisor give up.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from enum import IntEnum
from pathlib import Path
from typing import Final

from storage_node.process import READY, REFUSED, Exit
from swiftlike.config import ConfigError, DeviceConfig, HostConfig, StorageConfig, load_cluster, load_host

log: Final = logging.getLogger("storage_node.supervisor")

KILL_AFTER_S: Final = 5.0
"""Beyond drain_s: a process that has not ended by then does not listen, and is killed."""

STATUS_BYTES_MAX: Final = 64 * 1024
"""The status line of a child, a sentence."""


class SupervisorExit(IntEnum):
    """How the supervisor ends."""

    DONE = 0
    REFUSED = 2


def load_storage(path: Path) -> tuple[HostConfig, StorageConfig]:
    """Read a host's file for its devices, and see that the cluster's is sound. Raises ConfigError."""
    host = load_host(path)
    if host.storage is None:
        raise ConfigError(
            f"{path}: storage is missing: add [storage] and one [[storage.devices]] for each disk"
        )
    load_cluster(host.cluster_file)
    return host, host.storage


class Supervisor:
    """The device processes of one host."""

    def __init__(self, path: Path, storage: StorageConfig) -> None:
        """Take the configuration and the file that it came from, which children read too."""
        self._path = path
        self._storage = storage
        self._children: dict[str, _Child] = {}
        self._stopping = asyncio.Event()
        self._attempted: dict[str, str | None] = {}
        self._exit = SupervisorExit.DONE

    async def run(self) -> int:
        """Keep the processes alive until SIGTERM; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with asyncio.TaskGroup() as group:
            loop.add_signal_handler(signal.SIGHUP, self._reload, group)
            for device in self._storage.devices:
                self._adopt(group, device)
            await self._stopping.wait()
            for child in self._children.values():
                child.retire()
        return self._exit

    def note_attempt(self, name: str, refusal: str | None) -> None:
        """Hear how the first attempt of a device ended: None, it serves. When all are refused, give up."""
        if self._stopping.is_set() or name in self._attempted:
            return
        self._attempted[name] = refusal
        refusals = [refusal for refusal in self._attempted.values() if refusal is not None]
        if len(refusals) == len(self._children):
            log.error("no device of this host can be used: %s", "; ".join(refusals))
            self._exit = SupervisorExit.REFUSED
            self._stopping.set()

    def _adopt(self, group: asyncio.TaskGroup, device: DeviceConfig) -> None:
        child = _Child(self, self._path, self._storage, device)
        self._children[device.name] = child
        group.create_task(child.keep())

    def _reload(self, group: asyncio.TaskGroup) -> None:
        """Read the file again: start what is new, end what is gone, restart what moved, tell the others."""
        try:
            _, storage = load_storage(self._path)
        except ConfigError as error:
            log.error("not reloaded: %s", error)
            return
        self._storage = storage
        wanted = {device.name: device for device in storage.devices}
        for name in [name for name in self._children if name not in wanted]:
            self._children.pop(name).retire()
        for name, device in wanted.items():
            child = self._children.get(name)
            if child is None:
                self._adopt(group, device)
            else:
                child.reload(storage, device)
        log.info("reloaded: %d devices", len(wanted))


class _Child:
    """One device's process, over and over."""

    def __init__(self, owner: Supervisor, path: Path, storage: StorageConfig, device: DeviceConfig) -> None:
        self._owner = owner
        self._path = path
        self._storage = storage
        self._device = device
        self._process: Process | None = None
        self._retired = asyncio.Event()
        self._at_once = asyncio.Event()
        """What it waits for before the next start need not be waited for any more."""

    async def keep(self) -> None:
        """Start the process again whenever it ends, until retired."""
        loop = asyncio.get_running_loop()
        wait_s = self._storage.restart_min_s
        while not self._retired.is_set():
            began = loop.time()
            code = await self._run_once()
            if self._retired.is_set():
                return
            if loop.time() - began > self._storage.restart_max_s:
                wait_s = self._storage.restart_min_s
            if code == Exit.REFUSED:
                wait_s = self._storage.restart_max_s
            if code != Exit.DRAINED:  # it drained by itself to take up what a restart can: no reason to wait
                log.error("device %s: %s; started again in %g s", self._device.name, _cause(code), wait_s)
                await self._wait(wait_s)
                wait_s = min(wait_s * 2, self._storage.restart_max_s)

    def retire(self) -> None:
        """End the process, and start it no more."""
        self._retired.set()
        self._at_once.set()
        self._signal(signal.SIGTERM)

    def reload(self, storage: StorageConfig, device: DeviceConfig) -> None:
        """Take new settings: those of another place need another process."""
        moved = device != self._device or (storage.bind_host, storage.limits, storage.reserve_bytes) != (
            self._storage.bind_host,
            self._storage.limits,
            self._storage.reserve_bytes,
        )
        self._storage, self._device = storage, device
        self._signal(signal.SIGTERM if moved else signal.SIGHUP)
        self._at_once.set()  # one that was refused may be welcome now

    async def _run_once(self) -> int:
        """Run the process until it ends, and see to it that it does so in time."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "storage_node.process", "--config", str(self._path), "--device", self._device.name),
            *("--parent", str(os.getpid())),
            stdin=DEVNULL,
            stdout=PIPE,
            limit=STATUS_BYTES_MAX,
        )
        self._process = process
        log.info("device %s: process %d", self._device.name, process.pid)
        if self._retired.is_set():
            self._signal(signal.SIGTERM)
        try:
            async with asyncio.TaskGroup() as group:
                killer = group.create_task(self._kill_when_late(process))
                refusal = await self._read_status(process)
                self._owner.note_attempt(self._device.name, refusal)
                code = await process.wait()
                killer.cancel()
            return code
        finally:
            self._process = None

    async def _read_status(self, process: Process) -> str | None:
        """Return why the process does not serve; None when it does."""
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode("utf-8", "replace").strip()
        word, _, rest = line.partition(" ")
        match word:
            case _ if word == READY:
                log.info("device %s serves on %s", self._device.name, rest)
                return None
            case _ if word == REFUSED:
                return rest
            case _:
                return f"device {self._device.name} ended before it served: see its log"

    async def _kill_when_late(self, process: Process) -> None:
        await self._retired.wait()
        await asyncio.sleep(self._storage.drain_s + KILL_AFTER_S)
        log.error("device %s: process %d did not end in time and is killed", self._device.name, process.pid)
        process.kill()

    async def _wait(self, wait_s: float) -> None:
        self._at_once.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._at_once.wait()
        except TimeoutError:
            return

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


def _cause(code: int) -> str:
    """Say how a process ended."""
    match code:
        case Exit.REFUSED:
            return "it was refused"
        case Exit.SYNC_FAILED:
            return "a sync failed: look at the disk; the device comes back without its votes"
        case _ if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        case _:
            return f"its process ended with code {code}: see its log"
