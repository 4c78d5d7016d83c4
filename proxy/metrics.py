"""Metrics: what one proxy worker has counted, in the text format of Prometheus.

Owns names, help texts and the buckets of durations. Counts nothing but durations: the rest is read, at each scrape, from what
others count anyway.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from proxy.http.access_log import AccessLog
from proxy.server import Server

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From a listing out of memory to the deadline of a request, in steps of about two and a half."""

METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE", "COPY", "OPTIONS", "OTHER")
"""What is counted by itself; what clients make up is OTHER."""


class Durations:
    """How long requests of one method took: one count for each bucket, and one for what was longer than all."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def note(self, seconds: float) -> None:
        """Count one request."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulated counts by their upper bounds, as Prometheus has them, and the sum in seconds."""
        total, rows = 0.0, []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows, self._sum_s


class MeasuredLog(AccessLog):
    """The access log, which hears of every request that has ended, and so knows how long each took."""

    def __init__(self, context: str, write: Callable[[str], object]) -> None:
        """Take what lines carry and where they go."""
        super().__init__(context, write)
        self.durations: Final = {method: Durations() for method in METHODS}

    def note(
        self,
        ended_us: int,
        remote: str,
        who: str,
        method: str,
        raw_path: str,
        status: int,
        received: int,
        sent: int,
        seconds: float,
        transaction_id: str,
    ) -> None:
        """Take note of a request that has ended."""
        (self.durations.get(method) or self.durations["OTHER"]).note(seconds)
        super().note(ended_us, remote, who, method, raw_path, status, received, sent, seconds, transaction_id)


class WorkerMetrics(Collector):
    """The metrics of one worker."""

    def __init__(self, server: Server, durations: Mapping[str, Durations]) -> None:
        """Take who counts."""
        self._server = server
        self._durations = durations
        self.registry: Final = CollectorRegistry()
        self.registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Tell nothing before the first scrape: there is nothing to clash with in a registry of our own."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield what stands now. Runs on the thread that serves a scrape: it reads, and copies what may grow."""
        classes: Counter[tuple[str, str]] = Counter()
        for (method, status), count in dict(self._server.counts).items():
            classes[method, f"{status // 100}xx"] += count
        requests = CounterMetricFamily(
            "swiftlike_proxy_requests", "Requests by method and class of status", labels=("method", "status")
        )
        for (method, status_class), count in sorted(classes.items()):
            requests.add_metric((method, status_class), count)
        yield requests
        seconds = HistogramMetricFamily(
            "swiftlike_proxy_request_seconds",
            "From a request's head to the last byte of its answer",
            labels=("method",),
        )
        for method, durations in self._durations.items():
            buckets, sum_s = durations.buckets()
            seconds.add_metric((method,), buckets, sum_s)
        yield seconds
        yield GaugeMetricFamily(
            "swiftlike_proxy_requests_in_flight", "Requests at work", value=self._server.in_flight
        )
        yield GaugeMetricFamily(
            "swiftlike_proxy_connections", "Open connections", value=self._server.connections
        )
