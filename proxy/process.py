"""One proxy worker: everything between a client's socket and the devices, from its start to its drain.

Owns the order of start and end, signals and exit codes. Never starts another process (the supervisor does), and decides
nothing about a request.

    python -m proxy.process --config HOST.toml --worker NUMBER

Its first line on standard output is `ready` or `refused` and a sentence; logs go to standard error. Exit codes: 0 it
drained, 2 refused to start, 5 the rings are not followed any more, anything else is a bug.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import uvloop

from proxy.cluster.rings import FollowedRings
from proxy.dialects import Seeding, answering
from proxy.metrics import MeasuredLog, WorkerMetrics
from proxy.opening import following, registers_of
from proxy.server import Server
from ring.errors import RingError
from swiftlike import garbage, logs, signals
from swiftlike.config import Cluster, ConfigError, HostConfig, ProxyConfig, load_cluster, load_host
from swiftlike.limits import HttpLimits
from swiftlike.rpc.client import Client
from swiftlike.scrapes import serve_scrapes
from swiftlike.supervision import (
    DRAINED_CODE,
    READY,
    REFUSED,
    REFUSED_CODE,
    allow_descriptors,
    end_with,
    hear_hangups,
    tell,
)
from swiftlike.tls import calling_network

log: Final = logging.getLogger("proxy.process")

UNFOLLOWED_CODE: Final = 5
"""A worker that ended since nobody follows the rings any more: a restart may help, and one at once would not."""

SEEDED_S: Final = 5.0
"""How long a start waits for the users of the cluster's file to be in the cluster, so that whoever is told that it serves
can sign in. With most of the devices away it serves nevertheless, and sees to the users later."""


class WorkerRefused(Exception):
    """Why a worker does not start: one sentence, the fix included."""


def main(arguments: list[str] | None = None) -> int:
    """Serve clients until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="proxy.process", description="serve clients of this host")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--parent", type=int, help="process id of the supervisor; this process ends with it")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        end_with(options.parent)
    logs.set_up("info", f"worker={options.worker}")
    allow_descriptors()
    garbage.keep_freed_memory()
    try:
        host, proxy = load_worker(options.config)
        logs.set_level(host.log_level)
        cluster = load_cluster(host.cluster_file)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Worker(options.config, options.worker, host, proxy, cluster).run())
    except (ConfigError, RingError) as refusal:
        return refuse(refusal)


def refuse(refusal: Exception) -> int:
    """Say why this process does not serve; return the exit code."""
    log.error("refused to start: %s", refusal)
    tell(f"{REFUSED} {refusal}")
    return REFUSED_CODE


def load_worker(path: Path) -> tuple[HostConfig, ProxyConfig]:
    """Read the settings of a worker. Raises ConfigError."""
    host = load_host(path)
    if host.proxy is None:
        raise ConfigError(f"{path}: proxy is missing: add [proxy] with bind_host and port")
    return host, host.proxy


class Worker:
    """One process that serves clients."""

    def __init__(
        self, path: Path, number: int, host: HostConfig, proxy: ProxyConfig, cluster: Cluster
    ) -> None:
        """Take the configuration; `path` is where it is read again on SIGHUP."""
        self._path = path
        self._number = number
        self._host = host
        self._proxy = proxy
        self._cluster = cluster
        self._stop = asyncio.Event()
        self._code = DRAINED_CODE

    async def run(self) -> int:
        """Open, serve, drain, close; return the exit code. Raises RingError, and ConfigError for the files of TLS."""
        rings = FollowedRings(self._host.ring_directory, self._cluster)
        async with AsyncExitStack() as held:
            network = calling_network(self._host.tls)
            transport = await held.enter_async_context(Client(network, self._cluster.rpc_secret))
            await held.enter_async_context(following(rings, self._end_unfollowed))
            registers = await held.enter_async_context(
                registers_of(transport, rings, self._host, self._now_us)
            )
            answer = await held.enter_async_context(answering(self._cluster, self._proxy, registers))
            access_log = self._access_log()
            server = Server(answer, access_log, self._limits(), self._now_s, answer.turn_away, answer.refuse)
            await held.enter_async_context(server)
            answer.seeding.seed(self._cluster.users)
            if not await answer.seeding.wait(SEEDED_S):
                log.warning("the users of %s are not in the cluster yet", self._host.cluster_file)
            try:
                held.callback(self._serve_scrapes(WorkerMetrics(server, access_log.durations)))
                await self._listen(server)
            except WorkerRefused as refusal:  # caught here: a group that it passed through would wrap it
                return refuse(refusal)
            self._take_signals(rings, answer.seeding)
            place = f"{self._proxy.bind_host}:{self._proxy.port}"
            log.info("worker %d serves on %s", self._number, place)
            tell(f"{READY} {place}")
            garbage.settle()
            await self._stop.wait()
            log.info("draining")
        log.info("closed")
        return self._code

    def _limits(self) -> HttpLimits:
        proxy = self._proxy
        return HttpLimits(
            connections_max=proxy.connections_max,
            requests_in_flight_max=proxy.requests_in_flight_max,
            keepalive_s=proxy.keepalive_s,
            client_idle_s=proxy.client_idle_s,
            request_s=proxy.request_s,
            drain_s=proxy.drain_s,
        )

    def _access_log(self) -> MeasuredLog:
        def write(text: str) -> None:
            if log.isEnabledFor(logging.INFO):
                sys.stderr.write(text)

        return MeasuredLog(f"worker={self._number}", write)

    def _now_us(self) -> int:
        return time.time_ns() // 1000 + int(self._proxy.clock_offset_s * 1_000_000)

    def _now_s(self) -> float:
        return time.time() + self._proxy.clock_offset_s

    async def _listen(self, server: Server) -> None:
        host, port = self._proxy.bind_host, self._proxy.port
        try:
            await server.listen(host, port, reuse_port=True)
        except OSError as error:
            raise WorkerRefused(
                f"{host}:{port} cannot be listened on ({error.strerror or error}): stop what is there, or change bind_host or "
                "port"
            ) from None

    def _serve_scrapes(self, metrics: WorkerMetrics) -> Callable[[], None]:
        """Serve Prometheus on loopback, if asked for; return what ends that."""
        port = self._proxy.metrics_port and self._proxy.metrics_port + self._number - 1
        try:
            return serve_scrapes(port, metrics.registry)
        except OSError as error:
            raise WorkerRefused(
                f"worker {self._number} cannot serve metrics on port {port} ({error.strerror}): change metrics_port"
            ) from None

    def _end_unfollowed(self, error: BaseException | None) -> None:
        log.critical("the rings are not followed any more", exc_info=error)
        if not self._stop.is_set():
            self._code = UNFOLLOWED_CODE
        self._stop.set()

    # --- signals ------------------------------------------------------------------------------------------------

    def _take_signals(self, rings: FollowedRings, seeding: Seeding) -> None:
        loop = asyncio.get_running_loop()
        # SIGINT as well, for a worker that was started by hand: a supervised one does not hear it.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload, rings, seeding)
        hear_hangups()

    def _reload(self, rings: FollowedRings, seeding: Seeding) -> None:
        """Take from the files what can change under way (log_level, users), and look at the rings."""
        rings.look()
        try:
            host, _ = load_worker(self._path)
            cluster = load_cluster(host.cluster_file)
        except ConfigError as error:
            log.error("not reloaded: %s", error)
            return
        logs.set_level(host.log_level)
        seeding.seed(cluster.users)
        log.info("reloaded log_level, users and the rings; the rest takes a restart")


if __name__ == "__main__":
    signals.ignore_hangups()
    sys.exit(main())
