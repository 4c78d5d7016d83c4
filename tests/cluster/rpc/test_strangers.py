"""What a server and a client do when the other end is not what it should be."""

import asyncio
from functools import partial

import pytest

from swiftlike.limits import RpcLimits
from swiftlike.rpc import frames
from swiftlike.rpc.frames import FIXED, MAGIC, VERSION, Frame, Kind, encode
from swiftlike.rpc.handshake import Channel
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Call, Service
from swiftlike.rpc.transport import Outcome, Reply
from tests.cluster.rpc.worlds import (
    FakeServer,
    RawPeer,
    World,
    frames_in,
    shake_hands,
    wait_until,
)

BIG = bytes(1024 * 1024)


def echo_service() -> Service:
    service = Service()
    service.calls("echo", lambda call: Reply(body=call.body))
    service.calls("big", lambda call: Reply(body=BIG))
    return service


# --- strangers at the server ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", id="http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param(bytes(2000), id="zeros"),
        pytest.param(encode(Kind.CALL, 1, ("echo", 1000, {})), id="a call before the handshake"),
        pytest.param(encode(Kind.PROOF, 0, (bytes(32),)), id="a proof before the hello"),
        pytest.param(encode(Kind.HELLO, 0, (9, bytes(32))), id="a channel that does not exist"),
        pytest.param(FIXED.pack(MAGIC, VERSION, Kind.HELLO, 0, 2**32 - 1, 0, 0), id="a huge header"),
        pytest.param(FIXED.pack(MAGIC, VERSION, Kind.HELLO, 0, 4, 2**32 - 1, 0), id="a huge body"),
    ],
)
async def test_a_stranger_who_does_not_speak_properly_is_dropped_without_a_word(
    world: World, greeting: bytes
) -> None:
    server, [peer] = await world.serve(echo_service())
    raw = await world.raw(peer)
    raw.write(greeting)
    await raw.gone
    assert bytes(raw.heard) == b""
    assert server.counters.denied == 1
    client = await world.client()
    assert (await client.call(peer, "echo", deadline=client.now() + 10)).outcome is Outcome.OK


async def test_a_client_of_another_version_is_told_both_versions(world: World) -> None:
    _, [peer] = await world.serve(echo_service())
    raw = await world.raw(peer)
    raw.write(FIXED.pack(MAGIC, VERSION + 1, Kind.HELLO, 0, 4, 0, 0))
    await raw.gone
    [denied] = frames_in(bytes(raw.heard))
    assert denied.kind is Kind.DENIED
    assert denied.header == (
        "version_mismatch",
        "the server speaks version 1 of the RPC and the client version 2; upgrade the older one",
    )


async def test_a_stranger_who_says_nothing_is_dropped_in_time(world: World) -> None:
    server, [peer] = await world.serve(echo_service(), limits=RpcLimits(handshake_s=0.05))
    raw = await world.raw(peer)
    await raw.gone
    assert (bytes(raw.heard), server.counters.denied) == (b"", 1)


async def test_a_stranger_may_not_send_for_ever(world: World) -> None:
    """Each piece is well-formed so far, and the whole is longer than any handshake."""
    server, [peer] = await world.serve(echo_service())
    raw = await world.raw(peer)
    hello = encode(Kind.HELLO, 0, (1, bytes(32)))
    raw.write(hello)
    await raw.wait_heard(1)
    raw.write(hello * 40)
    await raw.gone
    assert server.counters.denied == 1


def strangers_met(server: Server, count: int) -> bool:
    return bool(len(server.admission.strangers) + server.counters.denied == count)


async def test_among_too_many_strangers_the_oldest_is_dropped(world: World) -> None:
    server, [peer] = await world.serve(echo_service(), limits=RpcLimits(strangers_max=3))
    raws = []
    for number in range(5):
        raws.append(await world.raw(peer))
        await wait_until(partial(strangers_met, server, number + 1))
    await raws[0].gone
    await raws[1].gone
    assert [raw.gone.done() for raw in raws] == [True, True, False, False, False]
    client = await world.client()
    assert (await client.call(peer, "echo", deadline=client.now() + 10)).outcome is Outcome.OK


# --- trusted, and wrong all the same ----------------------------------------------------------------------------

CALL = encode(Kind.CALL, 1, ("echo", 1000, {}))
OPEN = encode(Kind.OPEN, 1, ("take", 1000, 1024, {}))


@pytest.mark.parametrize(
    ("channel", "sent", "named"),
    [
        pytest.param(Channel.CALLS, OPEN, "OPEN on a connection for calls", id="a stream among calls"),
        pytest.param(Channel.STREAMS, CALL, "CALL on a connection for streams", id="a call among streams"),
        pytest.param(Channel.CALLS, CALL + CALL, "call 1 follows call 1", id="a call id used twice"),
        pytest.param(Channel.STREAMS, encode(Kind.DATA, 5, {}), "never opened", id="data for no stream"),
        pytest.param(Channel.STREAMS, OPEN + OPEN, "too early", id="two streams at once"),
        pytest.param(
            Channel.STREAMS,
            OPEN + (encode(Kind.DATA, 1, {}, BIG) + BIG) * (RpcLimits().stream_window_bytes // len(BIG)),
            "overdrew",
            id="more than the window",
        ),
        pytest.param(
            Channel.STREAMS,
            OPEN + encode(Kind.CREDIT, 1, (2**31,)),
            "than its window",
            id="credit from nowhere",
        ),
        pytest.param(Channel.STREAMS, OPEN + encode(Kind.DATA, 1, 7), "not a map", id="data without a map"),
        pytest.param(
            Channel.STREAMS,
            OPEN + encode(Kind.END, 1, ()) + encode(Kind.DATA, 1, {}),
            "after END",
            id="after the end",
        ),
        pytest.param(Channel.CALLS, encode(Kind.CALL, 1, 7), "three fields", id="a call without fields"),
        pytest.param(
            Channel.CALLS, encode(Kind.CALL, 1, (b"echo", 1, {})), "short string", id="a method of bytes"
        ),
        pytest.param(
            Channel.CALLS, encode(Kind.CALL, 1, ("e" * 65, 1, {})), "short string", id="a long method"
        ),
        pytest.param(
            Channel.CALLS, encode(Kind.CALL, 1, ("echo", -1, {})), "milliseconds", id="a negative deadline"
        ),
        pytest.param(
            Channel.CALLS, encode(Kind.CALL, 1, ("echo", 1, ())), "not a map", id="a header that is no map"
        ),
        pytest.param(
            Channel.CALLS, encode(Kind.HELLO, 0, ()), "HELLO on a connection", id="a second handshake"
        ),
        pytest.param(Channel.CALLS, CALL[:-1] + b"\x81", "checksum", id="a damaged frame"),
    ],
)
async def test_a_trusted_client_that_breaks_the_protocol_is_dropped_and_nobody_else(
    world: World, channel: Channel, sent: bytes, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = echo_service()

    async def take(call: object, stream: object) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("nobody ever sets that event")

    service.streams("take", take)
    server, [peer] = await world.serve(service)
    client = await world.client()
    assert (await client.call(peer, "echo", deadline=client.now() + 10)).outcome is Outcome.OK
    raw = await world.raw(peer)
    await shake_hands(raw, channel)
    raw.write(sent)
    await raw.gone
    assert named in caplog.text
    assert server.counters.broken == 1
    await wait_until(lambda: server.admission.streams_in_flight == server.admission.calls_in_flight == 0)
    assert (await client.call(peer, "echo", deadline=client.now() + 10)).outcome is Outcome.OK
    assert len(server.admission.connections) == 1


async def test_calls_and_streams_that_come_too_late_are_refused_and_not_begun(world: World) -> None:
    service = echo_service()

    async def take(call: object, stream: object) -> Reply:
        raise AssertionError("this must not begin")

    service.streams("take", take)
    server, [peer] = await world.serve(service)
    for channel, opening in (
        (Channel.CALLS, encode(Kind.CALL, 1, ("echo", 0, {}))),
        (Channel.STREAMS, encode(Kind.OPEN, 1, ("take", 0, 1024, {}))),
    ):
        raw = await world.raw(peer)
        await shake_hands(raw, channel)
        raw.write(opening)
        [refused] = frames_in(await raw.wait_heard(30))
        assert (refused.kind, refused.header[0]) == (Kind.REFUSED, "late")
        raw.hang_up()
    assert (server.counters.calls, server.counters.streams) == (0, 0)


async def test_a_plain_handler_that_keeps_a_batch_waiting_makes_the_rest_of_it_late(world: World) -> None:
    """A deadline counts from the arrival of the bytes, not from the turn of the frame."""
    service = Service()
    loop = asyncio.get_running_loop()
    server, [peer] = await world.serve(service)
    raw = await world.raw(peer)
    await shake_hands(raw, Channel.CALLS)
    [connection] = server.admission.connections

    def slow(call: Call) -> Reply:
        connection.received_at -= 1  # as if this had taken a second
        return Reply(header={"now": loop.time()})

    service.calls("slow", slow)
    raw.write(b"".join(encode(Kind.CALL, call_id, ("slow", 500, {})) for call_id in (1, 2)))
    await raw.wait_heard(2 * 24 + 20)
    await wait_until(lambda: len(frames_in(bytes(raw.heard))) == 2)
    assert [frame.kind for frame in frames_in(bytes(raw.heard))] == [Kind.REPLY, Kind.REFUSED]


async def test_a_client_that_does_not_read_its_replies_costs_bounded_memory(world: World) -> None:
    limits = RpcLimits(replies_bytes_max=4 * 1024 * 1024)
    server, [peer] = await world.serve(echo_service(), limits=limits)
    raw = await world.raw(peer)
    await shake_hands(raw, Channel.CALLS)
    [connection] = server.admission.connections
    raw._wire.pause_reading()  # type: ignore[union-attr]
    raw.write(b"".join(encode(Kind.CALL, call_id, ("big", 10_000, {})) for call_id in range(1, 1001)))
    await wait_until(lambda: connection.paused)
    await asyncio.sleep(0.05)
    assert connection.unread_bytes() < limits.replies_bytes_max + 2 * 1024 * 1024
    raw._wire.resume_reading()  # type: ignore[union-attr]
    await raw.wait_heard(3 * len(BIG))
    kinds = {frame.kind for frame in frames_in(bytes(raw.heard))}
    assert Kind.REPLY in kinds
    raw.hang_up()
    await wait_until(lambda: not server.admission.connections)


# --- what a client meets ----------------------------------------------------------------------------------------


def answering(data: bytes) -> "type[RawPeer]":
    class Answering(RawPeer):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            if self.heard and not self.closed:
                self.write(data)

    return Answering


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else than swiftlike speaks", id="http"),
        pytest.param(FIXED.pack(MAGIC, 2, Kind.CHALLENGE, 0, 0, 0, 0), "version 2 of the RPC", id="version"),
        pytest.param(encode(Kind.WELCOME, 0, (bytes(32),)), "out of turn", id="a welcome at once"),
        pytest.param(encode(Kind.REPLY, 1, {}), "out of turn", id="a reply at once"),
        pytest.param(encode(Kind.CHALLENGE, 0, (b"short",)), "32 bytes", id="a short nonce"),
        pytest.param(
            encode(Kind.CHALLENGE, 0, (bytes(32),)) + encode(Kind.WELCOME, 0, (bytes(32),)),
            "does not hold this cluster's secret",
            id="an impostor",
        ),
    ],
)
async def test_a_server_that_is_none_of_ours_is_named_and_nothing_is_sent(
    world: World, answer: bytes, named: str
) -> None:
    peer = await world.pretend(answering(answer))
    client = await world.client()
    reply = await client.call(peer, "echo", {"secret": "metadata"}, deadline=client.now() + 10)
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "untrusted")
    assert named in reply.reason
    assert str(peer) in reply.reason


async def test_a_server_that_says_nothing_is_given_up_in_time(world: World) -> None:
    peer = await world.pretend(RawPeer)
    client = await world.client(limits=RpcLimits(handshake_s=0.05))
    reply = await client.call(peer, "echo", deadline=client.now() + 10)
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "unreachable")
    assert "shake hands in time" in reply.reason


async def test_a_deadline_during_the_handshake_means_not_sent(world: World) -> None:
    peer = await world.pretend(RawPeer)
    client = await world.client()
    reply = await client.call(peer, "echo", deadline=client.now() + 0.05)
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "timeout")


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        pytest.param(encode(Kind.REPLY, 99, {}), "never made", id="a reply to no call"),
        pytest.param(encode(Kind.REPLY, 1, 7), "no answer, or its header", id="a reply without a map"),
        pytest.param(encode(Kind.DATA, 1, {}), "no answer", id="stream data"),
        pytest.param(encode(Kind.CALL, 1, ("echo", 1, {})), "no answer", id="a call in return"),
        pytest.param(b"\0" * 24, "instead of b'sl'", id="zeros"),
        pytest.param(encode(Kind.REPLY, 1, {})[:-1] + b"\x90", "checksum", id="a damaged reply"),
        pytest.param(
            FIXED.pack(MAGIC, VERSION, Kind.REPLY, 1, 1, 2**31, 0),
            "above the limit of 1048576",
            id="a huge body",
        ),
    ],
)
async def test_a_server_that_breaks_the_protocol_leaves_its_calls_unknown(
    world: World, answer: bytes, named: str
) -> None:
    def script(server: FakeServer, frame: Frame) -> None:
        server.write(answer)

    peer = await world.pretend(lambda: FakeServer(script))
    client = await world.client()
    reply = await client.call(peer, "echo", deadline=client.now() + 10)
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "lost")
    assert named in reply.reason


async def test_calls_that_wait_for_a_peer_to_read_are_not_sent_and_do_not_leave_later(world: World) -> None:
    """Those that left are UNKNOWN; those still here are NOT_SENT, and must then never leave."""
    seen: list[int] = []
    servers: list[FakeServer] = []

    def script(server: FakeServer, frame: Frame) -> None:
        if frame.kind is Kind.CALL:
            seen.append(frame.call_id)
            server.stop_reading()
            servers.append(server)

    peer = await world.pretend(lambda: FakeServer(script))
    client = await world.client()
    first = asyncio.create_task(client.call(peer, "put", {}, b"", deadline=client.now() + 0.5))
    await wait_until(lambda: servers)
    [connection] = client._open
    stuck = []
    while not connection.paused:
        stuck.append(asyncio.create_task(client.call(peer, "put", {}, BIG, deadline=client.now() + 0.5)))
        await asyncio.sleep(0.001)  # a loop turn in which this much leaves
    late = [
        asyncio.create_task(client.call(peer, "put", {}, BIG, deadline=client.now() + 0.5)) for _ in range(3)
    ]
    await asyncio.sleep(0.1)
    late[1].cancel()
    outcomes = [(await call).outcome for call in (first, *stuck)]
    assert set(outcomes) == {Outcome.UNKNOWN}
    results = await asyncio.gather(*late, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert [result.outcome for result in (results[0], results[2]) if isinstance(result, Reply)] == [
        Outcome.NOT_SENT,
        Outcome.NOT_SENT,
    ]
    probe = asyncio.create_task(client.call(peer, "put", deadline=client.now() + 0.5))
    for _ in range(40):
        servers[-1].read_on()
        await asyncio.sleep(0.01)
    await probe
    first_late_id = 1 + len(stuck) + 1
    assert not set(range(first_late_id, first_late_id + 3)) & set(seen), "called not sent, and left later"
    assert first_late_id + 3 in seen


async def test_the_numbers_of_calls_end_and_another_connection_begins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swiftlike.rpc.called.CALL_ID_MAX", 3)
    server, [peer] = await world.serve(echo_service())
    client = await world.client()
    for number in range(10):
        reply = await client.call(peer, "echo", {}, b"%d" % number, deadline=client.now() + 10)
        assert reply.body == b"%d" % number
        assert len(server.admission.connections) <= 2
    assert frames.CALL_ID_MAX == 2**32 - 1
