"""A network that exists only in memory and in virtual time, for whole clusters in one process.

Owns wires, their weather, partitions, and the life and death of hosts. It replaces the sockets and nothing above them:
frames, handshake, client and server are the real ones, so what a simulation exercises is what runs. A wire keeps the
order of its bytes, as TCP does; different wires overtake each other. What TCP cannot do to a byte, duplication, happens
to calls: see `RepeatingTransport`. One seed decides everything; `trace_digest` proves that two runs were the same.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import xxhash

from swiftlike.limits import RpcLimits
from swiftlike.rpc.client import Client
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.network import ConnectionT, Listener
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Service
from swiftlike.rpc.transport import EMPTY, Address, Body, Header, Reply, Stream, TcpAddress, Told, Transport

TRACE_KEPT: Final = 10_000

Boot: TypeAlias = Callable[["SimulatedHost"], Awaitable[None]]
"""What a host does from its start on; cancelled when it crashes."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does to what travels on it; all chances are per piece of bytes written at once."""

    latency_s: tuple[float, float] = (0.000_2, 0.002)
    slow_chance: float = 0.0
    """To take up to `slow_s` longer, as behind a full switch."""
    slow_s: float = 0.1
    loss_chance: float = 0.0
    """To be lost and sent again by TCP after `resend_s`, doubled each time; what follows on the wire waits."""
    resend_s: float = 0.2
    reset_chance: float = 0.0
    """To break the connection, with everything that is under way on it."""


class SimulatedNetwork:
    """All hosts of a simulation and the wires between them. Owns the hosts' tasks inside its context."""

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.random = Random(seed)
        self.weather = weather or Weather()
        self.trace: deque[tuple[float, str, str, str, int]] = deque(maxlen=TRACE_KEPT)
        self._trace_hash = xxhash.xxh3_128()
        self._hosts: dict[str, SimulatedHost] = {}
        self._boots: dict[str, Boot] = {}
        self._cuts: set[tuple[str, str]] = set()  # only looked into, never walked
        self._wires: dict[_WireEnd, None] = {}
        self._changed = asyncio.Event()  # a way may be open now that was not
        self._on_change: list[Callable[[], None]] = []
        self._mains = asyncio.TaskGroup()
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        """Begin to own hosts."""
        await self._mains.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all hosts; a host's own failure is raised here."""
        for host in self._hosts.values():
            host.die(silent=True)
        await self._mains.__aexit__(kind, error, traceback)

    # --- hosts ------------------------------------------------------------------------------------------------

    def host(self, name: str, boot: Boot | None = None) -> "SimulatedHost":
        """Start a host that runs `boot`; without one, whoever holds the host acts for it."""
        assert name not in self._hosts or not self._hosts[name].alive, f"{name} runs already"
        host = self._hosts[name] = SimulatedHost(self, name)
        if boot is not None:
            self._boots[name] = boot
            host.main = self._mains.create_task(host.run(boot), name=name)
        self.note("start", name, "", 0)
        self._announce_change()
        return host

    async def crash(self, name: str, *, silent: bool = False) -> None:
        """Kill a host's process: its peers see their connections reset, or nothing at all if `silent` (power loss).

        Its tasks are cancelled, and whatever they still do reaches nobody.
        """
        self.note("crash", name, "", int(silent))
        host = self._hosts[name]
        host.die(silent=silent)
        if host.main is not None:
            await asyncio.wait((host.main,))

    def restart(self, name: str) -> "SimulatedHost":
        """Start a crashed host again with what it was started with."""
        return self.host(name, self._boots[name])

    # --- partitions -------------------------------------------------------------------------------------------

    def cut(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Let nothing more arrive at `targets` from `sources`; the other way stays open."""
        targets = tuple(targets)
        for source in sources:
            for target in targets:
                self._cuts.add((source, target))
                self.note("cut", source, target, 0)

    def partition(self, one_side: Collection[str], other_side: Collection[str]) -> None:
        """Cut both ways between two sides."""
        self.cut(one_side, other_side)
        self.cut(other_side, one_side)

    def mend(self) -> None:
        """Undo all cuts; what waited in front of them is sent again and arrives a little later."""
        self.note("mend", "", "", len(self._cuts))
        self._cuts.clear()
        self._announce_change()
        for wire in list(self._wires):
            wire.retry_at(self._loop.time() + self.random.uniform(0, self.weather.resend_s))

    def is_cut(self, source: str, target: str) -> bool:
        """Say whether nothing arrives at `target` from `source`."""
        return (source, target) in self._cuts

    async def storm(self, names: Collection[str], calm_s: float, cut_s: float) -> None:
        """Let partitions come and go until cancelled: each time a random side of `names`, both ways or one."""
        names = tuple(names)
        while True:
            await asyncio.sleep(self.random.expovariate(1 / calm_s))
            side = self.random.sample(names, self.random.randint(1, len(names) - 1))
            rest = [name for name in names if name not in side]
            self.cut(side, rest)
            if self.random.random() < 0.7:
                self.cut(rest, side)
            await asyncio.sleep(self.random.expovariate(1 / cut_s))
            self.mend()

    # --- what wires and hosts ask -----------------------------------------------------------------------------

    def note(self, event: str, source: str, target: str, size: int) -> None:
        """Write one line of the trace."""
        line = (self._loop.time(), event, source, target, size)
        self.trace.append(line)
        self._trace_hash.update(repr(line).encode())

    def trace_digest(self) -> str:
        """Return a digest of everything that has happened; equal digests, equal runs."""
        return self._trace_hash.hexdigest()

    def delay_s(self) -> float:
        """Draw how long one piece of bytes travels."""
        weather, random = self.weather, self.random
        delay_s = random.uniform(*weather.latency_s)
        if weather.slow_chance and random.random() < weather.slow_chance:
            delay_s += random.uniform(0, weather.slow_s)
        resend_s = weather.resend_s
        while weather.loss_chance and random.random() < weather.loss_chance:
            delay_s += resend_s
            resend_s *= 2
        return delay_s

    def is_reset(self) -> bool:
        """Draw whether a piece of bytes breaks its connection."""
        return self.weather.reset_chance > 0 and self.random.random() < self.weather.reset_chance

    async def reach(self, source: str, target: str) -> "SimulatedHost":
        """Let one packet travel from `source` to `target`, through cuts once they are mended."""
        while True:
            await asyncio.sleep(self.delay_s())
            found = self._hosts.get(target)
            if self.is_cut(source, target) or (found is not None and found.powered_off):
                await self._changed.wait()
            elif found is None or not found.alive:
                raise ConnectionRefusedError(f"nobody listens on {target}")
            else:
                return found

    def is_powered(self, name: str) -> bool:
        """Say whether a host's kernel would answer, even for a process that has died."""
        return name in self._hosts and not self._hosts[name].powered_off

    def when_changed(self, callback: Callable[[], None]) -> None:
        """Call back, a little later, once something was mended or started."""
        self._on_change.append(callback)

    def _announce_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        waiting, self._on_change = self._on_change, []
        for callback in waiting:
            self._loop.call_later(self.random.uniform(0, self.weather.resend_s), callback)

    def wires_of(self, host: "SimulatedHost") -> "list[_WireEnd]":
        """List the open wire ends of a host, oldest first."""
        return [wire for wire in self._wires if wire.host is host]

    def open_wire(self, end: "_WireEnd") -> None:
        """Know a wire end from its opening,"""
        self._wires[end] = None

    def close_wire(self, end: "_WireEnd") -> None:
        """To its closing."""
        self._wires.pop(end, None)


class SimulatedHost:
    """One life of one host: a `Network` as seen from it. Dead is dead: a restart is another object."""

    def __init__(self, network: SimulatedNetwork, name: str) -> None:
        self.network = network
        self.name = name
        self.alive = True
        self.powered_off = False
        self.main: asyncio.Task[None] | None = None
        self.listening: dict[Address, Callable[[], Connection]] = {}

    def client(self, secret: bytes, limits: RpcLimits | None = None) -> Client:
        """Make the Transport of a process on this host."""
        return Client(self, secret, limits=limits, entropy=self.network.random.randbytes)

    def server(self, service: Service, secret: bytes, limits: RpcLimits | None = None) -> Server:
        """Make a server of a process on this host."""
        return Server(self, service, secret, limits=limits, entropy=self.network.random.randbytes)

    async def connect(self, address: Address, make: Callable[[], ConnectionT]) -> ConnectionT:
        """Open a wire to the host that `address` names; a Unix address is on this host."""
        target = address.host if isinstance(address, TcpAddress) else self.name
        self._check_alive()
        found = await self.network.reach(self.name, target)
        accept = found.listening.get(address)
        if accept is None:
            raise ConnectionRefusedError(f"nobody listens on {address}")
        ours, theirs = _WireEnd(self, address), _WireEnd(found, address)
        ours.other, theirs.other = theirs, ours
        theirs.open(accept())
        await self.network.reach(target, self.name)
        self._check_alive()
        if ours.is_closing():
            raise ConnectionResetError(f"{address} closed the connection at once")
        connection = make()
        ours.open(connection)
        return connection

    async def listen(self, address: Address, make: Callable[[], Connection]) -> Listener:
        """Accept wires at `address`."""
        self._check_alive()
        if address in self.listening:
            raise OSError(f"{address} is taken")
        if isinstance(address, TcpAddress):
            assert address.host == self.name, f"{self.name} cannot listen on {address}"
        self.listening[address] = make
        return _SimulatedListener(self, address)

    def die(self, *, silent: bool) -> None:
        """End this life."""
        self.alive = False
        self.powered_off = silent
        self.listening.clear()
        for wire in self.network.wires_of(self):
            wire.die(silent=silent)
        if self.main is not None:
            self.main.cancel()

    async def run(self, boot: Boot) -> None:
        """Run what the host was started with; its end by a crash is no failure."""
        try:
            await boot(self)
        except asyncio.CancelledError:
            if self.alive:
                raise

    def _check_alive(self) -> None:
        if not self.alive:
            raise OSError(f"{self.name} has crashed, and this is what is left of it")


class _SimulatedListener:
    def __init__(self, host: SimulatedHost, address: Address) -> None:
        self._host = host
        self.address = address

    def close(self) -> None:
        self._host.listening.pop(self.address, None)


_EOF: Final = b""


class _WireEnd(asyncio.Transport):
    """One end of a wire: what is written here arrives, in order and later, at the protocol of the other end."""

    other: "_WireEnd"

    def __init__(self, host: SimulatedHost, address: Address) -> None:
        super().__init__()
        self.host = host
        self._network = host.network
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._protocol: Connection | None = None
        self._closed = False
        self._high_bytes = 64 * 1024
        self._writing_paused = False
        self._reading_paused = False
        # Under way to this end, each piece with the moment from which it may arrive; _EOF closes.
        self._arriving: deque[tuple[float, bytes]] = deque()
        self._arriving_bytes = 0
        self._arrival: asyncio.TimerHandle | None = None

    def open(self, protocol: Connection) -> None:
        """Give the end to its protocol."""
        self._protocol = protocol
        self._network.open_wire(self)
        self._network.note("connect", self.host.name, self.other.host.name, 0)
        protocol.connection_made(self)
        self.retry_at(self._loop.time())

    # --- asyncio.Transport ------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Name the other host."""
        return self.other.host.name if name == "peername" else default

    def is_closing(self) -> bool:
        """Say whether this end is closed."""
        return self._closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take the number of bytes under way above which the writer is paused."""
        self._high_bytes = high if high is not None else self._high_bytes

    def get_write_buffer_size(self) -> int:
        """Return the bytes under way."""
        return self.other._arriving_bytes

    def write(self, data: Body) -> None:
        """Send bytes on their way."""
        if self._closed or not data:
            return
        if self._network.is_reset():
            self._network.note("reset", self.host.name, self.other.host.name, len(data))
            self._break(ConnectionResetError("the simulated network reset the connection"))
            return
        self.other._take(bytes(data))
        if self.other._arriving_bytes > self._high_bytes and not self._writing_paused:
            self._writing_paused = True
            assert self._protocol is not None
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Body]) -> None:
        """Send bytes on their way, in one piece."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Close after what is under way."""
        if not self._closed:
            self.other._take(_EOF)
            self._lose(None)

    def abort(self) -> None:
        """Close now; what is under way is lost."""
        if not self._closed:
            self._break(None)

    def pause_reading(self) -> None:
        """Let arrivals wait."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Let them in."""
        self._reading_paused = False
        self.retry_at(self._loop.time())

    # --- the wire ---------------------------------------------------------------------------------------------

    def retry_at(self, moment: float) -> None:
        """Look at `moment` whether anything may arrive now."""
        if self._arriving and not self._closed:
            if self._arrival is not None:
                self._arrival.cancel()
            self._arrival = self._loop.call_at(max(moment, self._arriving[0][0]), self._arrive)

    def die(self, *, silent: bool) -> None:
        """Vanish with the host. Without power nothing is said to the other end, which learns of it when it writes."""
        if silent:
            self._lose(ConnectionResetError("this host has no power"))
        else:
            self._break(ConnectionResetError("this process was killed"))

    def _take(self, data: bytes) -> None:
        """Accept bytes from the other end, behind those already under way."""
        ready_at = self._loop.time() + self._network.delay_s()
        if self._arriving:
            ready_at = max(ready_at, self._arriving[-1][0])
        self._arriving.append((ready_at, data))
        self._arriving_bytes += len(data)
        if len(self._arriving) == 1:
            self.retry_at(ready_at)
        if self._closed:  # the host is there again, or still, and knows nothing of this wire
            self._loop.call_at(ready_at, self._reject)

    def _arrive(self) -> None:
        self._arrival = None
        if self._network.is_cut(self.other.host.name, self.host.name):
            return  # mending tries again
        while self._arriving and not self._closed and not self._reading_paused and self._protocol is not None:
            ready_at, data = self._arriving[0]
            if ready_at > self._loop.time():
                self.retry_at(ready_at)
                return
            self._arriving.popleft()
            self._arriving_bytes -= len(data)
            self._network.note("arrive", self.other.host.name, self.host.name, len(data))
            if data is _EOF:
                self._lose(None)
                return
            self._deliver(data)
        self.other._unpause()

    def _deliver(self, data: bytes) -> None:
        assert self._protocol is not None
        while data and not self._closed:
            space = self._protocol.get_buffer(-1)
            taken = min(len(space), len(data))
            space[:taken] = data[:taken]
            data = data[taken:]
            self._protocol.buffer_updated(taken)

    def _unpause(self) -> None:
        if self._writing_paused and self.other._arriving_bytes <= self._high_bytes // 4 and not self._closed:
            self._writing_paused = False
            assert self._protocol is not None
            self._protocol.resume_writing()

    def _reject(self) -> None:
        """Let the kernel of this host answer for a wire that is no more: the other end is reset."""
        if self._network.is_powered(self.host.name):
            self.other._hear_reset()
        else:
            self._network.when_changed(self._reject)

    def _break(self, error: Exception | None) -> None:
        """Lose both ends and all that is under way; the other end hears of it as soon as a packet gets there."""
        self.other._arriving.clear()
        self.other._arriving_bytes = 0
        self._loop.call_later(self._network.delay_s(), self.other._hear_reset)
        self._lose(error)

    def _hear_reset(self) -> None:
        if self._closed:
            return
        if self._network.is_cut(self.other.host.name, self.host.name):
            self._network.when_changed(self._hear_reset)
            return
        self._lose(ConnectionResetError("the connection was reset by the other end"))

    def _lose(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        if self._arrival is not None:
            self._arrival.cancel()
        self._network.close_wire(self)
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)


class RepeatingTransport:
    """A Transport in whose network old calls linger: now and then one is made a second time, later.

    That is what a caller's retry looks like to a peer that the first attempt reached after all. Only for `methods`
    whose repetition must change nothing. The second answer is dropped.
    """

    def __init__(
        self, inner: Transport, random: Random, methods: Collection[str], chance: float, later_s: float
    ) -> None:
        self._inner = inner
        self._random = random
        self._methods = frozenset(methods)
        self._chance = chance
        self._later_s = later_s
        self._repetitions = asyncio.TaskGroup()
        self._running: dict[asyncio.Task[None], None] = {}
        self.repeated = 0

    async def __aenter__(self) -> Self:
        """Begin to own repetitions."""
        await self._repetitions.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop the repetitions that have not happened yet."""
        for task in list(self._running):
            task.cancel()
        await self._repetitions.__aexit__(None, None, None)

    def now(self) -> float:
        """See `transport.Transport.now`."""
        return self._inner.now()

    async def call(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> Reply:
        """See `transport.Transport.call`."""
        return await self.ask(peer, method, header, body, deadline=deadline)

    def ask(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> asyncio.Future[Reply]:
        """See `transport.Transport.ask`."""
        self._perhaps_repeat(peer, method, header, body)
        return self._inner.ask(peer, method, header, body, deadline=deadline)

    def tell(
        self, peer: Address, method: str, header: Header, hear: Callable[[Reply], object], *, deadline: float
    ) -> Told:
        """See `transport.Transport.tell`."""
        self._perhaps_repeat(peer, method, header, b"")
        return self._inner.tell(peer, method, header, hear, deadline=deadline)

    def open_stream(
        self, peer: Address, method: str, header: Header = EMPTY, *, deadline: float
    ) -> AbstractAsyncContextManager[Stream]:
        """See `transport.Transport.open_stream`; streams are never repeated."""
        return self._inner.open_stream(peer, method, header, deadline=deadline)

    def _perhaps_repeat(self, peer: Address, method: str, header: Header, body: Body) -> None:
        if method in self._methods and self._random.random() < self._chance:
            task = self._repetitions.create_task(self._repeat(peer, method, header, body))
            self._running[task] = None
            task.add_done_callback(lambda done: self._running.pop(done, None))

    async def _repeat(self, peer: Address, method: str, header: Header, body: Body) -> None:
        await asyncio.sleep(self._random.uniform(0, self._later_s))
        self.repeated += 1
        await self._inner.call(peer, method, header, body, deadline=self.now() + self._later_s)
