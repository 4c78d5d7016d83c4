"""The worlds in which the contract of the RPC holds: sockets of each sort on each event loop, and the simulated network.

Each world is an event loop class, so that a test is one `async def` and runs once in each.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from swiftlike.limits import RpcLimits
from swiftlike.rpc.client import Client
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.errors import WireError
from swiftlike.rpc.frames import FIXED_BYTES, Frame, FrameDecoder, Kind, encode
from swiftlike.rpc.handshake import MAC_BYTES, NONCE_BYTES, Channel, ClientHandshake, ServerHandshake
from swiftlike.rpc.network import Network, SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Service
from swiftlike.rpc.simulated import SimulatedNetwork, Weather
from swiftlike.rpc.transport import Address, TcpAddress, UnixAddress
from swiftlike.rpc.virtual_time import VirtualLoop

SECRET = b"the secret of the cluster under test"


class UnixLoop(asyncio.SelectorEventLoop):
    """Unix sockets on asyncio's own loop."""


class TcpLoop(asyncio.SelectorEventLoop):
    """TCP on asyncio's own loop."""


class TlsLoop(asyncio.SelectorEventLoop):
    """TLS on asyncio's own loop."""


class UvloopUnix(uvloop.Loop):
    """Unix sockets on uvloop."""


class UvloopTcp(uvloop.Loop):
    """TCP on uvloop."""


WORLDS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "unix": UnixLoop,
    "tcp": TcpLoop,
    "tls": TlsLoop,
    "uvloop-unix": UvloopUnix,
    "uvloop-tcp": UvloopTcp,
    "simulated": VirtualLoop,
}


async def wait_until(condition: Callable[[], object], within_s: float = 10) -> None:
    """Return once `condition` holds; for what has no event of its own to wait for."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (the test looks from outside; nothing inside should signal it)
            await asyncio.sleep(0.002)


@dataclass
class World:
    """Where a caller finds a server."""

    calling: Network
    serving: Network
    address_of: Callable[[int], Address]
    stack: AsyncExitStack

    async def serve(
        self, service: Service, *, limits: RpcLimits | None = None, secret: bytes = SECRET, places: int = 1
    ) -> tuple[Server, list[Address]]:
        """Serve until the test ends, at as many addresses as are wanted."""
        server = await self.stack.enter_async_context(Server(self.serving, service, secret, limits=limits))
        return server, [await server.listen(self.address_of(place)) for place in range(places)]

    async def client(self, *, limits: RpcLimits | None = None, secret: bytes = SECRET) -> Client:
        """Return a transport that lives until the test ends."""
        return await self.stack.enter_async_context(Client(self.calling, secret, limits=limits))

    async def raw(self, address: Address) -> "RawPeer":
        """Connect without a handshake, to send whatever one likes."""
        return await self.calling.connect(address, RawPeer)

    async def pretend(self, make: Callable[[], Connection], place: int = 0) -> Address:
        """Listen without a server; whoever comes meets a connection of the test's own."""
        listener = await self.serving.listen(self.address_of(place), make)
        self.stack.callback(listener.close)
        return listener.address


@asynccontextmanager
async def world_of(loop: asyncio.AbstractEventLoop, directory: Path) -> AsyncIterator[World]:
    """Make the world that belongs to a loop."""
    async with AsyncExitStack() as stack:
        match loop:
            case VirtualLoop():
                net = await stack.enter_async_context(
                    SimulatedNetwork(7, Weather(slow_chance=0.01, slow_s=0.01))
                )
                proxy, device = net.host("proxy"), net.host("device")
                world = World(proxy, device, lambda place: TcpAddress("device", 6200 + place), stack)
            case UnixLoop() | UvloopUnix():
                network = SocketNetwork()
                world = World(network, network, lambda place: UnixAddress(f"{directory}/{place}.sock"), stack)
            case TlsLoop():
                network = tls_network()
                world = World(network, network, lambda place: TcpAddress("localhost", 0), stack)
            case _:
                network = SocketNetwork()
                world = World(network, network, lambda place: TcpAddress("127.0.0.1", 0), stack)
        async with AsyncExitStack() as inner:  # servers and clients end before their network does
            world.stack = inner
            yield world


def tls_network() -> SocketNetwork:
    """Make a network whose ends trust one certificate, made for `localhost` and these tests."""
    pem = Path(__file__).with_name("localhost.pem")
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(pem)
    client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_tls.load_verify_locations(pem)
    return SocketNetwork(client_tls=client_tls, server_tls=server_tls)


class RawPeer(Connection):
    """A connection that speaks no protocol: it keeps what it hears and sends what it is told."""

    def __init__(self, greet: Callable[["RawPeer"], None] | None = None) -> None:
        super().__init__(RpcLimits())
        self.heard = bytearray()
        self.gone = self.loop.create_future()
        self._greet = greet
        self._space = bytearray(65536)
        self._more = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._greet is not None:
            self._greet(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._space)

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self._space[:nbytes]
        self._more.set()

    def on_closed(self, error: WireError) -> None:
        if not self.gone.done():
            self.gone.set_result(error)
        self._more.set()

    def write(self, data: bytes) -> None:
        assert self._wire is not None
        self._wire.write(data)

    def hang_up(self) -> None:
        assert self._wire is not None
        self._wire.abort()

    async def wait_heard(self, count: int) -> bytes:
        """Return all that was heard once it is `count` bytes, or the connection is gone."""
        while len(self.heard) < count and not self.gone.done():
            self._more.clear()
            await self._more.wait()
        return bytes(self.heard)


async def shake_hands(raw: RawPeer, channel: Channel, secret: bytes = SECRET) -> None:
    """Do a client's half of the handshake by hand, so that what follows may be anything."""
    handshake = ClientHandshake(secret, channel, b"n" * NONCE_BYTES)
    raw.write(encode(Kind.HELLO, 0, handshake.hello))
    [challenge] = frames_in(await raw.wait_heard(FIXED_BYTES + NONCE_BYTES + 3))
    proof = handshake.answer(challenge)
    raw.heard.clear()
    raw.write(encode(Kind.PROOF, 0, proof))
    [welcome] = frames_in(await raw.wait_heard(FIXED_BYTES + MAC_BYTES + 3))
    assert handshake.answer(welcome) is None
    raw.heard.clear()


def frames_in(data: bytes) -> list[Frame]:
    """Decode what was heard."""
    decoder = FrameDecoder()
    decoder.trust()
    found: list[Frame] = []
    while data:
        space = decoder.space()
        taken = min(len(space), len(data))
        space[:taken] = data[:taken]
        data = data[taken:]
        found.extend(decoder.received(taken))
    return found


class FakeServer(Connection):
    """A server that holds the secret and then does as a test tells it."""

    def __init__(self, script: Callable[["FakeServer", Frame], None]) -> None:
        super().__init__(RpcLimits())
        self._handshake = ServerHandshake(SECRET, b"s" * NONCE_BYTES)
        self._script = script
        self.handle = self._shake_hands

    def on_closed(self, error: WireError) -> None:
        pass

    def write(self, data: bytes) -> None:
        assert self._wire is not None
        self._wire.write(data)

    def stop_reading(self) -> None:
        assert self._wire is not None
        self._wire.pause_reading()

    def read_on(self) -> None:
        assert self._wire is not None
        self._wire.resume_reading()

    def _shake_hands(self, frame: Frame) -> None:
        kind, header = self._handshake.answer(frame)
        self.send(kind, 0, header)
        if kind is Kind.WELCOME:
            self.trust()
            self.handle = lambda frame: self._script(self, frame)
