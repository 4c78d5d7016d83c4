"""The rings of a storage node: one for each table, followed for as long as the process lives.

Owns which epoch of each ring this process has, and the layout that follows from them. Never fetches a ring from
another host: whoever distributes rings puts the file into the directory.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

from ring.errors import RingError
from ring.file import load_ring
from ring.ring import Ring
from ring.watcher import RingWatcher
from storage_node.errors import DeviceRefused
from storage_node.keys import ACCOUNTS, CONTAINERS, Layout, objects
from swiftlike.config import Cluster
from swiftlike.node_calls import ring_name

log: Final = logging.getLogger(__name__)

RING_SUFFIX: Final = ".ring"


class RingSet:
    """The rings of all tables. `run` follows their files."""

    def __init__(
        self, rings: Mapping[bytes, tuple[Path, Ring]], hash_seed: int, on_new_power: Callable[[], None]
    ) -> None:
        """Take each table's file and the ring read from it; `on_new_power` is told when only a restart helps."""
        self._on_new_power = on_new_power
        self._taken: asyncio.Queue[bytes] = asyncio.Queue()
        """Tables whose ring was replaced and not yet applied; rings change rarely, so it is short."""
        self._watchers = {
            table: RingWatcher(path, ring, on_change=partial(self._changed, table))
            for table, (path, ring) in rings.items()
        }
        self.layout: Final = Layout(
            hash_seed, {table: watcher.ring.part_power for table, watcher in self._watchers.items()}
        )

    @classmethod
    def load(cls, directory: Path, cluster: Cluster, on_new_power: Callable[[], None]) -> "RingSet":
        """Read the rings of a cluster's tables. Raises DeviceRefused when one is missing or no ring."""
        tables = [ACCOUNTS, CONTAINERS, *(objects(policy.index) for policy in cluster.policies)]
        rings: dict[bytes, tuple[Path, Ring]] = {}
        for table in tables:
            path = directory / f"{ring_name(table)}{RING_SUFFIX}"
            try:
                ring = load_ring(path, cluster.hash_seed)
            except RingError as error:
                raise DeviceRefused(f"{error}; a device serves no table without its ring") from None
            if ring.name != ring_name(table):
                raise DeviceRefused(f"{path} holds ring {ring.name}: put the ring {ring_name(table)} there")
            rings[table] = path, ring
        return cls(rings, cluster.hash_seed, on_new_power)

    def epoch(self, table: bytes) -> int | None:
        """Return the epoch of the ring that places a table; None when there is none."""
        watcher = self._watchers.get(table)
        return None if watcher is None else watcher.ring.epoch

    def epochs(self) -> dict[str, int]:
        """Return the epochs by the names of the rings."""
        return {ring_name(table): watcher.ring.epoch for table, watcher in self._watchers.items()}

    def look_for_newer(self, table: bytes) -> None:
        """Look at the file of a table's ring at once."""
        self._watchers[table].poke()

    def look(self) -> None:
        """Look at all files at once."""
        for watcher in self._watchers.values():
            watcher.poke()

    async def apply(self, take: Callable[[bytes, Ring], Awaitable[None]]) -> None:
        """Hand every table's ring to what depends on it."""
        for table, watcher in self._watchers.items():
            await take(table, watcher.ring)

    async def run(self, take: Callable[[bytes, Ring], Awaitable[None]]) -> None:
        """Follow the files until cancelled, and hand over each ring that replaces another."""
        async with asyncio.TaskGroup() as group:
            for watcher in self._watchers.values():
                group.create_task(watcher.run())
            while True:
                table = await self._taken.get()
                await take(table, self._watchers[table].ring)

    def check_place(self, uuid: UUID, name: str, port: int) -> None:
        """Refuse a device that the rings know under another name or port: two disks of this host were swapped."""
        known = False
        for ring in self._rings():
            for device in ring.devices:
                if device is None or device.uuid != uuid:
                    continue
                known = True
                if (device.name, device.port) != (name, port):
                    raise DeviceRefused(
                        f"the disk of {name}, port {port}, has uuid {uuid}, which ring {ring.name} knows as {device}: "
                        "mount each disk in its own place"
                    )
        if not known:
            log.warning("no ring names the uuid %s of this device: it keeps copies and does not vote", uuid)

    def _rings(self) -> Iterable[Ring]:
        return [watcher.ring for watcher in self._watchers.values()]

    def _changed(self, table: bytes, old: Ring, new: Ring) -> None:
        if new.part_power != self.layout.part_powers[table]:
            log.warning(
                "ring %s has part power %d now: this process restarts to use it", new.name, new.part_power
            )
            self._on_new_power()
        else:
            self._taken.put_nowait(table)
