"""The supervisor of a host's proxy workers: several processes on one port, kept alive.

Owns how many there are, how they are started, what a reload changes, and the port: as long as the supervisor lives it is
held, so that no other program takes it while a worker is between two lives, and no second supervisor shares it unseen.
Never accepts a connection.
"""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Final

from swiftlike import signals
from swiftlike.config import ConfigError, HostConfig, ProxyConfig, load_cluster, load_host
from swiftlike.supervision import DRAINED_CODE, REFUSED_CODE, Children, Job, Patience

log: Final = logging.getLogger("proxy.supervisor")


class SupervisorExit(IntEnum):
    """How the supervisor ends."""

    DONE = DRAINED_CODE
    REFUSED = REFUSED_CODE


class PortTaken(Exception):
    """Nobody can listen where clients are to be served; the sentence says why and what to do."""


def load_proxy(path: Path) -> tuple[HostConfig, ProxyConfig]:
    """Read a host's file for its proxy, and see that the cluster's is sound. Raises ConfigError."""
    host = load_host(path)
    if host.proxy is None:
        raise ConfigError(f"{path}: proxy is missing: add [proxy] with bind_host and port")
    load_cluster(host.cluster_file)
    return host, host.proxy


@contextmanager
def held_port(host: str, port: int, named: str = "bind_host") -> Iterator[int]:
    """Keep a port for this process and its children; port 0 is whichever is free. Yields it; raises PortTaken.

    `named` is what the host's address is given with, for whoever gave one that is not this host's.
    A socket that is bound and never listens gets no connections. That somebody else has the port is only told by a bind
    without SO_REUSEPORT, since with it a second supervisor of the same user would take every other connection.
    """
    with ExitStack() as held:
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, place in places:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((place[0], port, *place[2:]))
                    port = port or int(probe.getsockname()[1])
                ours = held.enter_context(socket.socket(family, kind, protocol))
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                ours.bind((place[0], port, *place[2:]))
        except (OSError, UnicodeError) as error:  # the latter for what can be nobody's name
            why = (error.strerror if isinstance(error, OSError) else None) or error
            fix = (
                f"give an address of this host with {named}"
                if _is_elsewhere(error)
                else "stop what is there, or choose another port"
            )
            raise PortTaken(f"{host}:{port} cannot be listened on ({why}): {fix}") from None
        yield port


def _is_elsewhere(error: OSError | UnicodeError) -> bool:
    """Say whether what was asked for is no address of this host, on whatever port."""
    return not isinstance(error, OSError) or (
        isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    )


class WorkerChildren(Children):
    """The proxy workers of one host; `path` is the file that they read too."""

    def __init__(
        self, path: Path, proxy: ProxyConfig, when_hopeless: Callable[[Sequence[str]], None]
    ) -> None:
        """Take the configuration."""
        super().__init__(when_hopeless)
        self._path = path
        self._proxy = proxy

    def start(self) -> None:
        """Begin to keep every worker."""
        for number in range(1, self._proxy.worker_count() + 1):
            self.adopt(str(number), self._job(number))

    def change(self, proxy: ProxyConfig) -> None:
        """Take new settings: fewer or more workers, and new ones where a worker cannot change under way."""
        before, self._proxy = self._proxy, proxy
        moved = _lasting(before) != _lasting(proxy)
        wanted = {str(number): number for number in range(1, proxy.worker_count() + 1)}
        for name in self.names():
            if name not in wanted:
                self.retire(name)
        for name, number in wanted.items():
            if name in self.names():
                self.reassign(name, self._job(number), restart=moved)
            else:
                self.adopt(name, self._job(number))

    def _job(self, number: int) -> Job:
        proxy = self._proxy

        def arguments(last_code: int | None) -> Sequence[str]:
            return ("-m", "proxy.process", "--config", str(self._path), "--worker", str(number))

        patience = Patience(proxy.drain_s, proxy.restart_min_s, proxy.restart_max_s)
        return Job(f"worker {number}", arguments, patience)


def _lasting(proxy: ProxyConfig) -> ProxyConfig:
    """Return the settings that a worker keeps for its life: all but those that its supervisor heeds."""
    return replace(proxy, workers=0, drain_s=0.0, restart_min_s=0.0, restart_max_s=0.0)


class Supervisor:
    """`swiftlike proxy`: the workers of one host, until SIGTERM."""

    def __init__(self, path: Path, proxy: ProxyConfig) -> None:
        """Take the configuration and the file that it came from, which workers read too."""
        self._path = path
        self._proxy = proxy
        self._stopping = asyncio.Event()
        self._exit = SupervisorExit.DONE
        self._children = WorkerChildren(path, proxy, self._give_up)

    async def run(self) -> int:
        """Keep the workers alive until SIGTERM; return the exit code. Raises PortTaken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        with held_port(self._proxy.bind_host, self._proxy.port):
            async with self._children:
                loop.add_signal_handler(signal.SIGHUP, self._reload)
                signals.hear()
                self._children.start()
                await self._stopping.wait()
        return self._exit

    def _give_up(self, refusals: Sequence[str]) -> None:
        if self._stopping.is_set():
            return
        log.error("no worker can serve: %s", "; ".join(dict.fromkeys(refusals)))
        self._exit = SupervisorExit.REFUSED
        self._stopping.set()

    def _reload(self) -> None:
        """Read the file again."""
        if self._stopping.is_set():
            return
        try:
            _, proxy = load_proxy(self._path)
        except ConfigError as error:
            log.error("not reloaded: %s", error)
            return
        if (proxy.bind_host, proxy.port) != (self._proxy.bind_host, self._proxy.port):
            log.error("not reloaded: another bind_host or port takes a restart of this supervisor")
            return
        self._proxy = proxy
        self._children.change(proxy)
        log.info("reloaded: %d workers", proxy.worker_count())
