"""Anything at all sent into a server or a client: refused with a typed error, nothing left behind, the process lives.

Runs in virtual time, where every exception that escapes into the event loop is caught and fails the test.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftlike.limits import RpcLimits
from swiftlike.rpc.errors import StreamEnded
from swiftlike.rpc.frames import FIXED, MAGIC, VERSION, Frame, Kind, encode
from swiftlike.rpc.handshake import Channel
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Call, Service
from swiftlike.rpc.simulated import SimulatedHost, SimulatedNetwork
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Outcome, Reply, TcpAddress
from swiftlike.rpc.virtual_time import run_in_virtual_time
from tests.cluster.rpc.worlds import SECRET, FakeServer, RawPeer, shake_hands

PEER = TcpAddress("device", 6200)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

values = st.recursive(
    st.none() | st.integers(-1, 2**32) | st.text(max_size=4) | st.binary(max_size=4) | st.just("echo"),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)
likely_headers: st.SearchStrategy[object] = (
    st.tuples(st.sampled_from(["echo", "mirror", "no such"]), st.integers(0, 5000), st.just({}))
    | st.tuples(st.just("mirror"), st.integers(0, 5000), st.integers(0, 2**20), st.just({}))
    | st.tuples(st.integers(-1, 2**32))
    | st.just({})
    | st.just(())
    | values
)
bodies = st.binary(max_size=50) | st.sampled_from([bytes(9000), bytes(100_000)])


def wire(kind: Kind, call_id: int, header: object, body: bytes) -> bytes:
    return encode(kind, call_id, header, body) + body


sound = st.builds(wire, st.sampled_from(Kind), st.integers(0, 4), likely_headers, bodies)


@st.composite
def flipped(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(sound))
    bit = draw(st.integers(0, min(len(data), 60) * 8 - 1))
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


@st.composite
def truncated(draw: st.DrawFn) -> bytes:
    data = draw(sound)
    return data[: draw(st.integers(0, len(data)))]


huge = st.builds(
    lambda kind, header_bytes, body_bytes: FIXED.pack(MAGIC, VERSION, kind, 1, header_bytes, body_bytes, 0),
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
attack = st.lists(
    sound | flipped() | truncated() | huge | st.binary(max_size=60), min_size=1, max_size=6
).map(b"".join)
pieces = st.lists(st.integers(1, 400), max_size=8)


def echo_service() -> Service:
    service = Service()

    async def mirror(call: Call, stream: ServedStream) -> Reply:
        async for message in stream:
            await stream.send(message.body, message.header)
        return Reply()

    service.calls("echo", lambda call: Reply(body=call.body))
    service.streams("mirror", mirror)
    return service


def play(scenario: Callable[[SimulatedNetwork], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        escaped: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: escaped.append(context))
        async with SimulatedNetwork(1) as network:
            await scenario(network)
        assert escaped == []

    run_in_virtual_time(main())


async def check_serves(host: SimulatedHost, address: TcpAddress) -> None:
    """A sound client is served as if nothing had happened."""
    async with host.client(SECRET) as client:
        reply = await client.call(address, "echo", {}, b"sound", deadline=client.now() + 5)
        assert (reply.outcome, reply.body) == (Outcome.OK, b"sound")
        async with client.open_stream(address, "mirror", deadline=client.now() + 5) as stream:
            await stream.send(b"sound")
            message = await stream.receive()
            assert message is not None
            assert message.body == b"sound"


async def write_in_pieces(raw: RawPeer, data: bytes, sizes: list[int]) -> None:
    for size in (*sizes, len(data)):
        raw.write(data[:size])
        data = data[size:]
        await asyncio.sleep(0.003)


def attack_server(data: bytes, sizes: list[int], channel: Channel | None) -> None:
    async def scenario(network: SimulatedNetwork) -> None:
        device, proxy = network.host("device"), network.host("proxy")
        server: Server
        async with device.server(echo_service(), SECRET, RpcLimits(stream_stall_s=2)) as server:
            await server.listen(PEER)
            raw = await proxy.connect(PEER, RawPeer)
            if channel is not None:
                await shake_hands(raw, channel)
            await write_in_pieces(raw, data, sizes)
            await asyncio.sleep(0.1)
            await check_serves(proxy, PEER)
            raw.hang_up()
            await asyncio.sleep(1)
            assert (
                server.admission.calls_in_flight,
                server.admission.bytes_in_flight,
                server.admission.streams_in_flight,
            ) == (0, 0, 0)
            assert not server.admission.connections
            assert not server.admission.wires

    play(scenario)


@FUZZ
@given(attack, pieces)
def test_a_server_survives_whatever_a_stranger_sends(data: bytes, sizes: list[int]) -> None:
    attack_server(data, sizes, None)


@FUZZ
@given(attack, pieces)
def test_a_server_survives_whatever_a_trusted_caller_sends_among_calls(data: bytes, sizes: list[int]) -> None:
    attack_server(data, sizes, Channel.CALLS)


@FUZZ
@given(attack, pieces)
def test_a_server_survives_whatever_a_trusted_caller_sends_among_streams(
    data: bytes, sizes: list[int]
) -> None:
    attack_server(data, sizes, Channel.STREAMS)


@FUZZ
@given(attack, st.booleans())
def test_a_client_survives_whatever_a_server_sends(data: bytes, trusted: bool) -> None:
    def script(server: FakeServer, frame: Frame) -> None:
        server.write(data)

    def greet(raw: RawPeer) -> None:
        raw.write(data)

    async def scenario(network: SimulatedNetwork) -> None:
        device, proxy = network.host("device"), network.host("proxy")
        sound_peer = TcpAddress("device", 6201)
        await device.listen(PEER, (lambda: FakeServer(script)) if trusted else (lambda: RawPeer(greet)))
        async with device.server(echo_service(), SECRET) as server, proxy.client(SECRET) as client:
            await server.listen(sound_peer)
            for _ in range(3):
                reply = await client.call(PEER, "echo", deadline=client.now() + 1)
                assert trusted or reply.outcome is Outcome.NOT_SENT
                try:
                    async with client.open_stream(PEER, "mirror", deadline=client.now() + 1) as stream:
                        reply = await stream.finish()
                except StreamEnded as ended:
                    reply = ended.reply
                assert trusted or reply.outcome is Outcome.NOT_SENT
            reply = await client.call(sound_peer, "echo", {}, b"sound", deadline=client.now() + 5)
            assert (reply.outcome, reply.body) == (Outcome.OK, b"sound")
            assert len(client._open) <= 3

    play(scenario)
