"""Metrics: what one device process has counted, in the text format of Prometheus.

Owns names and help texts. Counts nothing itself: it reads, at each scrape, what others count anyway.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from storage_node.device import Device
from storage_node.jobs import Job
from storage_node.service import DeviceService
from swiftlike.rpc.server import Server

_HELP: Final = {
    "read_errors": "Reads that the disk refused (EIO and the like)",
    "write_errors": "Writes that the disk refused and that failed alone",
    "bodies_damaged": "Bodies whose checksum did not match; they are in quarantine",
    "cold_reads": "Reads that had to wait for the disk, on a thread",
    "warm_reads": "Reads served from the page cache, without a hop",
    "batches": "Batches made durable, each under one sync of the volume and one of the index",
    "operations": "Operations in those batches",
    "calls": "Calls that were begun",
    "streams": "Streams that were begun",
    "busy": "Calls and streams refused because a limit was reached",
    "denied": "Connections whose other end did not prove that it holds the secret",
    "broken": "Trusted connections dropped for what they sent",
    "handler_bugs": "Calls that failed by a bug of ours; see the log",
}


_NOT_ENDED: Final = ("walks", "left", "last_walk_us")
"""What is told of debts beside how they ended."""


class DeviceMetrics(Collector):
    """The metrics of one device process."""

    def __init__(
        self,
        device: Device,
        service: DeviceService,
        server: Server,
        free_bytes: Callable[[], int],
        debts: Callable[[], Mapping[str, int]],
        jobs: Mapping[str, Job],
    ) -> None:
        """Take who counts; `jobs` may gain some while the process starts."""
        self._device = device
        self._service = service
        self._server = server
        self._free_bytes = free_bytes
        self._debts = debts
        self._jobs = jobs
        self.registry: Final = CollectorRegistry()
        self.registry.register(self)

    def text(self) -> bytes:
        """Return all of them as text."""
        return generate_latest(self.registry)

    def describe(self) -> Iterator[Metric]:
        """Tell nothing before the first scrape: there is nothing to clash with in a registry of our own."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield what stands now. May run on the thread that serves a scrape: it reads, and copies what may grow."""
        calls = CounterMetricFamily(
            "swiftlike_device_answers", "Calls by how they ended", labels=("method", "ended")
        )
        for (method, ended), count in sorted(dict(self._service.counts).items()):
            calls.add_metric((method, ended), count)
        yield calls
        for name, value in asdict(self._device.counters).items():
            yield CounterMetricFamily(f"swiftlike_device_{name}", _HELP.get(name, name), value=value)
        for name, value in asdict(self._server.counters).items():
            yield CounterMetricFamily(f"swiftlike_device_rpc_{name}", _HELP.get(name, name), value=value)
        debts = CounterMetricFamily(
            "swiftlike_device_debts", "Debts that writers left, by what became of them", labels=("ended",)
        )
        for ended, count in self._debts().items():
            if ended not in _NOT_ENDED:
                debts.add_metric((ended,), count)
        yield debts
        for name, job in dict(self._jobs).items():
            for figure in job.figures():
                family = CounterMetricFamily if figure.is_total else GaugeMetricFamily
                yield family(f"swiftlike_device_{name}_{figure.name}", figure.text, value=figure.value)
        for name, text, value in (
            ("debts_left", "Debts that the last walk could not pay", self._debts().get("left", 0)),
            ("free_bytes", "Free space of the device", self._free_bytes()),
            ("reserve_bytes", "Free space that new bodies leave alone", self._device.settings.reserve_bytes),
            ("volumes", "Volumes of the device", len(self._device.volumes.ids())),
            (
                "quarantined",
                "Files that failed their checksum and were set aside",
                self._device.bad_bodies.quarantined(),
            ),
        ):
            yield GaugeMetricFamily(f"swiftlike_device_{name}", text, value=value)
