"""The rings of a storage node: one for each table, followed for as long as the process lives.

Owns which epoch of each ring this process has, and the layout that follows from them. Never fetches a ring from
another host: whoever distributes rings puts the file into the directory.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final
from uuid import UUID

from ring.errors import RingError
from ring.files import RingFiles
from ring.ring import Ring
from storage_node.errors import DeviceRefused
from storage_node.keys import Layout
from swiftlike.config import Cluster
from swiftlike.node_calls import ring_name, tables

log: Final = logging.getLogger(__name__)


class RingSet:
    """The rings of all tables. `run` follows their files."""

    def __init__(self, directory: Path, cluster: Cluster, on_new_power: Callable[[], None]) -> None:
        """Read the rings of a cluster's tables; `on_new_power` is told when only a restart helps.

        Raises DeviceRefused when one is missing or no ring.
        """
        self._on_new_power = on_new_power
        self._taken: asyncio.Queue[bytes] = asyncio.Queue()
        """Tables whose ring was replaced and not yet applied; rings change rarely, so it is short."""
        self._tables = {
            ring_name(table): table for table in tables(policy.index for policy in cluster.policies)
        }
        try:
            self._files = RingFiles.load(
                directory, self._tables, cluster.hash_seed, self._changed, replicas=cluster.ring_replicas
            )
        except RingError as error:
            raise DeviceRefused(f"{error}; a device serves no table without its ring") from None
        self._watchers = {table: self._files.watcher(name) for name, table in self._tables.items()}
        self.layout: Final = Layout(
            cluster.hash_seed, {table: self._ring(table).part_power for table in self._tables.values()}
        )

    def ring(self, table: bytes) -> Ring:
        """Return the ring that places a table."""
        return self._ring(table)

    def epoch(self, table: bytes) -> int | None:
        """Return the epoch of the ring that places a table; None when there is none."""
        watcher = self._watchers.get(table)
        return None if watcher is None else watcher.ring.epoch

    def epochs(self) -> dict[str, int]:
        """Return the epochs by the names of the rings."""
        return {ring.name: ring.epoch for ring in self._rings()}

    def checksums(self) -> dict[str, bytes]:
        """Return the checksums of the rings' files by the names of the rings: which epoch of whose line they are."""
        return {ring.name: ring.checksum for ring in self._rings()}

    def look_for_newer(self, table: bytes) -> None:
        """Look at the file of a table's ring at once."""
        self._files.look(ring_name(table))

    def look(self) -> None:
        """Look at all files at once."""
        self._files.look_at_all()

    async def apply(self, take: Callable[[bytes, Ring], Awaitable[None]]) -> None:
        """Hand every table's ring to what depends on it."""
        for table in self._tables.values():
            await take(table, self._ring(table))

    async def run(self, take: Callable[[bytes, Ring], Awaitable[None]]) -> None:
        """Follow the files until cancelled, and hand over each ring that replaces another."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._files.run())
            while True:
                table = await self._taken.get()
                await take(table, self._ring(table))

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

    def _ring(self, table: bytes) -> Ring:
        return self._watchers[table].ring

    def _rings(self) -> Iterable[Ring]:
        return map(self._files.ring, self._tables)

    def _changed(self, old: Ring, new: Ring) -> None:
        table = self._tables[old.name]
        if new.part_power != self.layout.part_powers[table]:
            log.warning(
                "ring %s has part power %d now: this process restarts to use it", new.name, new.part_power
            )
            self._on_new_power()
        else:
            self._taken.put_nowait(table)
