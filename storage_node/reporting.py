"""Reports: what the process of a device says of itself, in `health` and in `stats`.

Owns the fields of both, which tools rely on (fields are added, never renamed). Counts nothing: it reads what others count anyway.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from storage_node.device import Device
from storage_node.disk import Disk
from storage_node.rings import RingSet
from storage_node.service import DeviceService
from storage_node.workforce import Workforce
from swiftlike.limits import PAGE_ITEMS_MAX
from swiftlike.listed import Payment
from swiftlike.rpc.server import Server

log: Final = logging.getLogger(__name__)


class Space:
    """The space of a device's disk."""

    def __init__(self, disk: Disk, path: Path) -> None:
        """Take the disk and the device's directory."""
        self._disk: Final = disk
        self._path: Final = path

    def free_bytes(self) -> int:
        """Return the free space; none on a disk that cannot even tell."""
        try:
            return self._disk.free_bytes(self._path)
        except OSError as error:
            log.error("%s does not tell its free space (%s): look at the disk", self._path, error)
            return 0

    def total_bytes(self) -> int:
        """Return how large the disk is; zero where it cannot even tell that, which `free_bytes` has said."""
        try:
            return self._disk.total_bytes(self._path)
        except OSError:
            return 0


class Reports:
    """What one process says of itself."""

    def __init__(
        self,
        name: str,
        device: Device,
        space: Space,
        rings: RingSet,
        service: DeviceService,
        server: Server,
        workforce: Workforce,
        read_us: Callable[[], int],
    ) -> None:
        """Take the device's name on its host, and all who count."""
        self._name: Final = name
        self._device: Final = device
        self._space: Final = space
        self._rings: Final = rings
        self._service: Final = service
        self._server: Final = server
        self._workforce: Final = workforce
        self._read_us: Final = read_us
        self._began_s: Final = time.monotonic()

    def health(self) -> Mapping[str, Any]:
        """Answer `health`: who this is and whether it takes bodies."""
        device, free_bytes = self._device, self._space.free_bytes()
        if self._server.admission.draining:
            state = "draining"
        else:
            state = "serving" if free_bytes > device.settings.reserve_bytes else "full"
        return {
            "state": state,
            "device": self._name,
            "uuid": str(device.uuid),
            "generation": device.generation,
            "epochs": self._rings.epochs(),
            "checksums": self._rings.checksums(),
            "now_us": self._read_us(),
            "paused_until_us": self._workforce.pause.until_us,
            "free_bytes": free_bytes,
            "total_bytes": self._space.total_bytes(),
            "reserve_bytes": device.settings.reserve_bytes,
            "read_errors": device.counters.read_errors,
            "write_errors": device.counters.write_errors,
            "bodies_damaged": device.counters.bodies_damaged,
            "pid": os.getpid(),
            "uptime_s": int(time.monotonic() - self._began_s),
        }

    def stats(self) -> Mapping[str, Any]:
        """Answer `stats`: what was counted, and how the jobs are getting on."""
        device = self._device
        return {
            "volumes": len(device.volumes.ids()),
            "missing": len(device.missing(None, PAGE_ITEMS_MAX)),
            "live_bytes": sum(device.live_bytes().values()),
            "free_bytes": self._space.free_bytes(),
            "quarantined": device.bad_bodies.quarantined(),
            "device": asdict(device.counters),
            "rpc": asdict(self._server.counters),
            "debts": self.debts(),
            "jobs": {
                name: {figure.name: figure.value for figure in job.figures()}
                for name, job in self._workforce.jobs.items()
            },
            "answers": {
                f"{method} {ended}": count for (method, ended), count in sorted(self._service.counts.items())
            },
        }

    def debts(self) -> dict[str, int]:
        """Return what became of debts that writers left, by word, and how many the last walk could not pay."""
        updater = self._workforce.updater
        if updater is None:
            return {}
        ended = {payment.name.lower(): updater.ended[payment] for payment in Payment}
        return {**ended, "walks": updater.walks, "left": updater.left, "last_walk_us": updater.walked_us}
