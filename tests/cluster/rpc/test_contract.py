"""The contract of a Transport and its server, on every kind of socket and on the simulated network alike."""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack, suppress

import pytest

from swiftlike.limits import RPC_BODY_BYTES_MAX, RPC_HEADER_BYTES_MAX, RpcLimits
from swiftlike.rpc.errors import CallFailed, FrameTooLarge, StreamEnded
from swiftlike.rpc.service import Call, Service
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Address, Message, Outcome, Reply, Stream, Told, Transport, failed
from tests.cluster.rpc.worlds import World, wait_until

CHUNK = b"c" * 128 * 1024


class Probe(Service):
    """A service whose handlers show what happens to them."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.stopped = 0
        self.received_bytes = 0
        self.changed = asyncio.Condition()
        self.gate = asyncio.Event()
        self.futures: list[asyncio.Future[Reply]] = []
        self.calls("echo", self.echo)
        self.calls("later", self.later)
        self.calls("wait", self.wait)
        self.calls("refuse", self.refuse)
        self.calls("raise", self.raise_failed)
        self.calls("raise later", self.raise_failed_later)
        self.calls("bug", self.bug)
        self.calls("bug later", self.bug_later)
        self.calls("unsendable", lambda call: Reply(header={"what": object()}))
        self.streams("upload", self.upload)
        self.streams("download", self.download)
        self.streams("mirror", self.mirror)
        self.streams("upload at gate", self.upload_at_gate)
        self.streams("fail midway", self.fail_midway)
        self.streams("bug midway", self.bug_midway)
        self.streams("ready", self.ready)

    async def wait_until(self, what: str, count: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: getattr(self, what) >= count)

    async def note(self, what: str, more: int = 1) -> None:
        async with self.changed:
            setattr(self, what, getattr(self, what) + more)
            self.changed.notify_all()

    def echo(self, call: Call) -> Reply:
        return Reply(header={"header": call.header, "left": call.deadline}, body=call.body)

    def later(self, call: Call) -> "asyncio.Future[Reply]":
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return future

    async def wait(self, call: Call) -> Reply:
        await self.note("begun")
        try:
            await self.gate.wait()
            return Reply(header={"waited": True})
        except asyncio.CancelledError:
            self.stopped += 1
            raise

    def refuse(self, call: Call) -> Reply:
        return failed("insufficient_storage", "the device is full", {"free_bytes": 12})

    def raise_failed(self, call: Call) -> Reply:
        raise CallFailed("stale_epoch", "the ring has moved on", {"epoch": 7})

    async def raise_failed_later(self, call: Call) -> Reply:
        await asyncio.sleep(0)
        raise CallFailed("stale_epoch", "the ring has moved on", {"epoch": 7})

    def bug(self, call: Call) -> Reply:
        raise ZeroDivisionError("a bug on purpose")

    async def bug_later(self, call: Call) -> Reply:
        await asyncio.sleep(0)
        raise ZeroDivisionError("a bug on purpose")

    async def upload(self, call: Call, stream: ServedStream) -> Reply:
        await self.note("begun")
        last: Message | None = None
        try:
            async for message in stream:
                last = message
                await self.note("received_bytes", len(message.body))
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return Reply(header={"bytes": self.received_bytes, "last": last.header if last else None})

    async def upload_at_gate(self, call: Call, stream: ServedStream) -> Reply:
        await self.gate.wait()
        return await self.upload(call, stream)

    async def download(self, call: Call, stream: ServedStream) -> Reply:
        for number in range(call.header["chunks"]):
            await stream.send(CHUNK, {"number": number})
            await self.note("begun")
        return Reply(header={"chunks": call.header["chunks"]})

    async def mirror(self, call: Call, stream: ServedStream) -> Reply:
        async for message in stream:
            await stream.send(message.body, message.header)
        return Reply(header={"mirrored": True})

    async def fail_midway(self, call: Call, stream: ServedStream) -> Reply:
        await stream.receive()
        await stream.send(b"half of it")
        raise CallFailed("checksum", "the body was damaged on disk")

    async def bug_midway(self, call: Call, stream: ServedStream) -> Reply:
        await stream.send(b"half of it")
        raise ZeroDivisionError("a bug on purpose")

    async def ready(self, call: Call, stream: ServedStream) -> Reply:
        return Reply(header={"early": True})


def soon(transport: Transport, seconds: float = 10.0) -> float:
    return transport.now() + seconds


async def send_chunks(stream: Stream, count: int) -> None:
    for _ in range(count):
        await stream.send(CHUNK)


async def receive_all(stream: Stream) -> list[Message]:
    return [message async for message in stream]


# --- calls ------------------------------------------------------------------------------------------------------


async def test_a_call_is_answered_with_the_handlers_header_and_body(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    header = {"key": b"\x00\xff", "ballot": 2**63, "text": "ü", "none": None, "list": (1, 2.5, True)}
    reply = await client.call(peer, "echo", header, b"body", deadline=soon(client))
    assert (reply.outcome, reply.header["header"], reply.body) == (Outcome.OK, header, b"body")


async def test_the_deadline_travels_as_time_left(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    deadline = soon(client, 5)
    reply = await client.call(peer, "echo", deadline=deadline)
    assert deadline - 0.01 < reply.header["left"] < deadline + 5


async def test_a_call_may_have_no_deadline_at_all(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    assert (await client.call(peer, "echo", deadline=float("inf"))).outcome is Outcome.OK
    async with client.open_stream(peer, "ready", deadline=float("inf")) as stream:
        assert (await stream.finish()).outcome is Outcome.OK


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 65536, RPC_BODY_BYTES_MAX])
async def test_bodies_of_every_size_travel_both_ways(world: World, size: int) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    body = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    reply = await client.call(peer, "echo", body=body[:size], deadline=soon(client))
    assert reply.body == body[:size]


async def test_a_body_may_be_a_memoryview(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    reply = await client.call(peer, "echo", body=memoryview(b"0123456789")[2:5], deadline=soon(client))
    assert reply.body == b"234"


async def test_calls_made_together_are_each_given_their_own_answer(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    replies = await asyncio.gather(
        *(client.call(peer, "echo", {"n": n}, b"%d" % n * 100, deadline=soon(client)) for n in range(500))
    )
    assert [(r.header["header"]["n"], r.body) for r in replies] == [(n, b"%d" % n * 100) for n in range(500)]
    assert server.counters.calls == 500


async def test_slow_calls_do_not_hold_up_those_behind_them(world: World) -> None:
    service = Probe()
    _, [peer] = await world.serve(service)
    client = await world.client()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(client.call(peer, "wait", deadline=soon(client)))
        await service.wait_until("begun", 1)
        assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK
        assert not waiting.done()
        service.gate.set()
    assert waiting.result().header == {"waited": True}


async def test_a_plain_handler_may_answer_later_with_a_future(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(client.call(peer, "later", deadline=soon(client))) for _ in range(3)]
        await wait_until(lambda: len(service.futures) == 3)
        assert server.admission.calls_in_flight == 3
        service.futures[0].set_result(Reply(body=b"committed"))
        service.futures[1].set_exception(CallFailed("conflict", "a newer ballot stands"))
        service.futures[2].cancel()
    assert [call.result()[:1] + call.result()[2:4] for call in calls] == [
        (Outcome.OK, b"committed", ""),
        (Outcome.ERROR, b"", "conflict"),
        (Outcome.UNKNOWN, b"", "abandoned"),
    ]
    assert server.admission.calls_in_flight == 0


@pytest.mark.parametrize(
    ("method", "code", "header"),
    [
        ("refuse", "insufficient_storage", {"free_bytes": 12}),
        ("raise", "stale_epoch", {"epoch": 7}),
        ("raise later", "stale_epoch", {"epoch": 7}),
    ],
)
async def test_an_application_error_is_an_answer(
    world: World, method: str, code: str, header: dict[str, int]
) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    reply = await client.call(peer, method, deadline=soon(client))
    assert (reply.outcome, reply.code, reply.header) == (Outcome.ERROR, code, header)


@pytest.mark.parametrize("method", ["bug", "bug later", "unsendable"])
async def test_a_bug_in_a_handler_is_logged_and_its_outcome_unknown(
    world: World, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    with caplog.at_level(logging.ERROR):
        reply = await client.call(peer, method, deadline=soon(client))
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "abandoned")
    assert server.counters.handler_bugs == 1
    assert "failed" in caplog.text
    assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK


async def test_an_unknown_method_is_refused_by_name(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    reply = await client.call(peer, "no such", deadline=soon(client))
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, "unknown_method")
    assert "'no such'" in reply.reason


async def test_a_header_or_body_above_its_limit_is_the_callers_mistake_and_harms_no_other_call(
    world: World,
) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    with pytest.raises(FrameTooLarge):
        await client.call(peer, "echo", body=bytes(RPC_BODY_BYTES_MAX + 1), deadline=soon(client))
    with pytest.raises(FrameTooLarge):
        await client.call(peer, "echo", {"long": "x" * RPC_HEADER_BYTES_MAX}, deadline=soon(client))
    assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK


# --- deadlines, cancellation, loss ------------------------------------------------------------------------------


async def test_a_call_unanswered_at_its_deadline_is_unknown_and_its_work_is_stopped(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    reply = await client.call(peer, "wait", deadline=soon(client, 0.2))
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "timeout")
    await wait_until(lambda: not server.admission.calls_in_flight)
    assert service.stopped == 1


async def test_a_call_whose_deadline_has_passed_is_not_sent(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    await client.call(peer, "echo", deadline=soon(client))
    reply = await client.call(peer, "echo", deadline=client.now())
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "timeout")
    assert server.counters.calls == 1


async def test_a_peer_that_is_not_there_means_not_sent(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    await server.drain(client.now())
    reply = await client.call(peer, "echo", deadline=soon(client))
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "unreachable")
    assert str(peer) in reply.reason
    with pytest.raises(StreamEnded) as ended:
        async with client.open_stream(peer, "upload", deadline=soon(client)):
            pass
    assert ended.value.reply.outcome is Outcome.NOT_SENT


async def test_a_cancelled_caller_stops_the_work(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    call = asyncio.create_task(client.call(peer, "wait", deadline=soon(client)))
    await service.wait_until("begun", 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await wait_until(lambda: not server.admission.calls_in_flight)
    assert service.stopped == 1


async def test_a_client_that_goes_away_stops_its_work(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    raw = await world.client()
    other = asyncio.create_task(raw.call(peer, "wait", deadline=soon(raw)))
    call = asyncio.create_task(client.call(peer, "wait", deadline=soon(client)))
    await service.wait_until("begun", 2)
    await client.__aexit__(None, None, None)
    assert (await call).outcome is Outcome.UNKNOWN
    await wait_until(lambda: server.admission.calls_in_flight == 1)
    assert service.stopped == 1
    service.gate.set()
    assert (await other).outcome is Outcome.OK


async def test_a_server_that_goes_away_leaves_unknown_and_then_not_sent(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    call = asyncio.create_task(client.call(peer, "wait", deadline=soon(client)))
    await service.wait_until("begun", 1)
    await server.__aexit__(None, None, None)
    reply = await call
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "lost")
    reply = await client.call(peer, "echo", deadline=soon(client))
    assert reply.outcome is Outcome.NOT_SENT


# --- calls whose end is told ------------------------------------------------------------------------------------


class Heard:
    """What was told of calls, in its order."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.made = 0
        """Calls that `tell` had returned from when the last of them was told."""

    def hear(self, reply: Reply) -> None:
        assert len(self.replies) < self.made, "no call ends before whoever makes it can know it"
        self.replies.append(reply)

    async def tell(self, client: Transport, peer: Address, method: str, deadline: float) -> Told:
        told = client.tell(peer, method, {"x": 1}, self.hear, deadline=deadline)
        self.made += 1
        return told


async def test_a_call_that_is_told_ends_as_one_that_is_awaited(world: World) -> None:
    service, heard = Probe(), Heard()
    server, [peer] = await world.serve(service)
    client = await world.client()
    for method in ("echo", "echo", "refuse", "bug", "nothing"):
        await heard.tell(client, peer, method, soon(client))
        await wait_until(lambda: len(heard.replies) == heard.made)
    first, second, refused, bug, unknown = heard.replies
    assert first.header["header"] == second.header["header"] == {"x": 1}
    assert (refused.outcome, refused.code) == (Outcome.ERROR, "insufficient_storage")
    assert bug.outcome is Outcome.UNKNOWN
    assert (unknown.outcome, unknown.code) == (Outcome.REFUSED, "unknown_method")
    await heard.tell(client, peer, "echo", client.now())
    await wait_until(lambda: len(heard.replies) == 6)
    assert (heard.replies[-1].outcome, heard.replies[-1].code) == (Outcome.NOT_SENT, "timeout")
    await heard.tell(client, peer, "wait", soon(client, 0.2))
    await wait_until(lambda: len(heard.replies) == 7)
    assert (heard.replies[-1].outcome, heard.replies[-1].code) == (Outcome.UNKNOWN, "timeout")
    await heard.tell(client, peer, "wait", soon(client))
    await service.wait_until("begun", 2)
    await server.__aexit__(None, None, None)
    await wait_until(lambda: len(heard.replies) == 8)
    assert (heard.replies[-1].outcome, heard.replies[-1].code) == (Outcome.UNKNOWN, "lost")
    await heard.tell(client, peer, "echo", soon(client))
    await wait_until(lambda: len(heard.replies) == 9)
    assert heard.replies[-1].outcome is Outcome.NOT_SENT


async def test_a_told_call_that_is_given_up_stops_the_work_and_tells_nothing(world: World) -> None:
    service, heard = Probe(), Heard()
    server, [peer] = await world.serve(service)
    client = await world.client()
    (await heard.tell(client, peer, "wait", soon(client))).cancel()  # before there is a connection
    told = await heard.tell(client, peer, "wait", soon(client))
    await service.wait_until("begun", 1)
    told.cancel()
    told.cancel()
    await wait_until(lambda: not server.admission.calls_in_flight and service.stopped == service.begun)
    late = await heard.tell(client, peer, "echo", client.now())
    late.cancel()
    done = await heard.tell(client, peer, "echo", soon(client))
    await wait_until(lambda: len(heard.replies) == 1)
    done.cancel()
    assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK
    assert [reply.outcome for reply in heard.replies] == [Outcome.OK]


# --- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(RpcLimits(calls_in_flight_max=2), id="of the process"),
        pytest.param(RpcLimits(calls_in_flight_per_connection_max=2), id="of a connection"),
        pytest.param(RpcLimits(bytes_in_flight_max=250), id="of bytes"),
    ],
)
async def test_a_call_above_the_servers_limit_is_answered_busy(world: World, limits: RpcLimits) -> None:
    service = Probe()
    server, [peer] = await world.serve(service, limits=limits)
    client = await world.client()
    held = [
        asyncio.create_task(client.call(peer, "wait", {}, b"x" * 100, deadline=soon(client)))
        for _ in range(2)
    ]
    await service.wait_until("begun", 2)
    reply = await client.call(peer, "wait", {}, b"x" * 100, deadline=soon(client))
    assert (reply.outcome, reply.code) == (Outcome.BUSY, "busy")
    assert server.counters.busy == 1
    service.gate.set()
    assert [(await call).outcome for call in held] == [Outcome.OK] * 2
    assert (await client.call(peer, "wait", {}, b"x" * 100, deadline=soon(client))).outcome is Outcome.OK


async def test_a_stream_above_the_servers_limit_is_answered_busy(world: World) -> None:
    _, [peer] = await world.serve(Probe(), limits=RpcLimits(streams_in_flight_max=1))
    client = await world.client()
    async with client.open_stream(peer, "mirror", deadline=soon(client)) as first:
        await first.send(b"x")
        assert await first.receive() == Message({}, b"x")
        async with client.open_stream(peer, "mirror", deadline=soon(client)) as second:
            assert (await second.finish()).outcome is Outcome.BUSY
        assert (await first.finish()).outcome is Outcome.OK


async def test_calls_above_the_callers_own_limit_are_not_sent(world: World) -> None:
    service = Probe()
    _, [peer] = await world.serve(service)
    client = await world.client(limits=RpcLimits(calls_pending_max=2))
    await client.call(peer, "echo", deadline=soon(client))
    held = [asyncio.create_task(client.call(peer, "wait", deadline=soon(client))) for _ in range(2)]
    await service.wait_until("begun", 2)
    reply = await client.call(peer, "echo", deadline=soon(client))
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "pending_full")
    service.gate.set()
    await asyncio.gather(*held)


async def test_callers_that_wait_for_a_peer_to_be_reached_are_bounded(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client(limits=RpcLimits(calls_pending_max=3))
    replies = await asyncio.gather(*(client.call(peer, "echo", deadline=soon(client)) for _ in range(5)))
    assert Counter(reply.outcome for reply in replies) == {Outcome.OK: 3, Outcome.NOT_SENT: 2}


async def test_all_calls_to_a_peer_share_one_connection(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    await asyncio.gather(*(client.call(peer, "echo", deadline=soon(client)) for _ in range(50)))
    assert len(server.admission.connections) == 1


async def test_streams_share_a_pool_of_connections(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    for _ in range(5):
        async with client.open_stream(peer, "mirror", deadline=soon(client)) as stream:
            await stream.send(b"x")
            assert (await stream.finish()).outcome is Outcome.OK
    assert len(server.admission.connections) == 1


async def test_a_connection_unused_for_long_is_closed_and_the_next_call_opens_another(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client(limits=RpcLimits(idle_s=0.05))
    await client.call(peer, "echo", deadline=soon(client))
    async with client.open_stream(peer, "ready", deadline=soon(client)) as stream:
        await stream.finish()
    assert len(server.admission.connections) == 2
    await wait_until(lambda: not server.admission.connections)
    assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK


async def test_a_server_closes_connections_that_nobody_uses(world: World) -> None:
    server, [peer] = await world.serve(Probe(), limits=RpcLimits(idle_s=0.05))
    client = await world.client()
    await client.call(peer, "echo", deadline=soon(client))
    await wait_until(lambda: not server.admission.connections)


async def test_a_process_at_its_cap_closes_the_connection_unused_longest(world: World) -> None:
    _, peers = await world.serve(Probe(), places=4)
    client = await world.client(limits=RpcLimits(connections_max=2))
    for peer in peers * 2:
        assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK
        assert len(client._open) <= 2


async def test_a_process_at_its_cap_waits_for_a_connection_to_come_free(world: World) -> None:
    service = Probe()
    _, peers = await world.serve(service, places=2)
    client = await world.client(limits=RpcLimits(connections_max=1))
    held = asyncio.create_task(client.call(peers[0], "wait", deadline=soon(client)))
    await service.wait_until("begun", 1)
    early = await client.call(peers[1], "echo", deadline=soon(client, 0.1))
    assert early.outcome is Outcome.NOT_SENT
    late = asyncio.create_task(client.call(peers[1], "echo", deadline=soon(client)))
    await asyncio.sleep(0.01)
    service.gate.set()
    assert (await late).outcome is Outcome.OK
    assert (await held).outcome is Outcome.OK


async def test_streams_above_the_cap_per_peer_wait_their_turn(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client(limits=RpcLimits(streams_per_peer_max=1))
    async with client.open_stream(peer, "mirror", deadline=soon(client)) as first:
        with pytest.raises(StreamEnded, match="streams_full"):
            async with client.open_stream(peer, "mirror", deadline=soon(client, 0.05)):
                pass
        await first.finish()
    async with client.open_stream(peer, "mirror", deadline=soon(client)) as second:
        assert (await second.finish()).outcome is Outcome.OK


async def test_a_stream_opened_beside_many_others_gets_a_smaller_window_and_smaller_messages(
    world: World,
) -> None:
    least, share = 256 * 1024, RpcLimits(stream_windows_bytes=1024 * 1024)
    _, [peer] = await world.serve(Probe(), limits=share)
    client = await world.client(limits=share)
    async with AsyncExitStack() as stack:
        windows = []
        for _ in range(6):
            stream = await stack.enter_async_context(
                client.open_stream(peer, "mirror", deadline=soon(client))
            )
            assert stream.message_bytes <= least // 4, "before the peer has spoken, the least"
            await stream.send(b"x")
            await stream.receive()
            windows.append((stream.window_bytes, 4 * stream.message_bytes))  # type: ignore[attr-defined]
            chunk = bytes(stream.message_bytes)
            for _ in range(8):
                await stream.send(chunk)
                message = await stream.receive()
                assert message is not None
                assert len(message.body) == len(chunk)
    assert windows[0] == (1024 * 1024, 1024 * 1024)
    assert windows[1] == (512 * 1024, 512 * 1024)
    assert windows[-1] == (least, least)


async def test_a_client_closes_although_connections_were_given_up_while_they_were_made(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()

    async def mirror() -> None:
        async with client.open_stream(peer, "mirror", deadline=soon(client)) as stream:
            await stream.send(b"x")

    for turns in range(12):
        tasks = [asyncio.create_task(mirror()) for _ in range(8)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    async with asyncio.timeout(15):
        await client.__aexit__(None, None, None)


async def test_a_server_full_of_connections_says_so(world: World) -> None:
    _, [peer] = await world.serve(Probe(), limits=RpcLimits(served_connections_max=1))
    first, second = await world.client(), await world.client()
    assert (await first.call(peer, "echo", deadline=soon(first))).outcome is Outcome.OK
    reply = await second.call(peer, "echo", deadline=soon(second))
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "untrusted")
    assert "already has 1 connections" in reply.reason


async def test_a_client_with_another_secret_is_told_so_and_nothing_is_sent(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client(secret=b"the secret of another cluster")
    reply = await client.call(peer, "echo", deadline=soon(client))
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "untrusted")
    assert "compare the secret files of both hosts" in reply.reason
    assert (server.counters.denied, server.counters.calls) == (1, 0)


# --- streams ----------------------------------------------------------------------------------------------------


async def test_an_upload_arrives_whole_and_in_order(world: World) -> None:
    service = Probe()
    _, [peer] = await world.serve(service)
    client = await world.client()
    async with client.open_stream(peer, "upload", {"key": "k"}, deadline=soon(client)) as stream:
        for number in range(40):
            await stream.send(CHUNK, {"number": number})
        reply = await stream.finish(b"tail", {"etag": "e"})
    assert reply == Reply(header={"bytes": 40 * len(CHUNK) + 4, "last": {"etag": "e"}})


async def test_a_download_arrives_whole_and_in_order(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    async with client.open_stream(peer, "download", {"chunks": 40}, deadline=soon(client)) as stream:
        received = [(message.header["number"], bytes(message.body)) async for message in stream]
    assert received == [(number, CHUNK) for number in range(40)]
    assert stream.reply == Reply(header={"chunks": 40})


async def test_both_directions_of_a_stream_flow_at_once(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    async with (
        client.open_stream(peer, "mirror", deadline=soon(client)) as stream,
        asyncio.TaskGroup() as group,
    ):

        async def send_all() -> None:
            for number in range(40):
                await stream.send(CHUNK, {"number": number})

        group.create_task(send_all())
        for number in range(40):
            assert await stream.receive() == Message({"number": number}, CHUNK)
        assert (await stream.finish()).header == {"mirrored": True}


async def test_a_server_that_does_not_read_holds_its_sender_at_the_window(world: World) -> None:
    service = Probe()
    _, [peer] = await world.serve(service, limits=RpcLimits(stream_window_bytes=512 * 1024))
    client = await world.client()
    sent = 0
    async with client.open_stream(peer, "upload at gate", deadline=soon(client)) as stream:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    await stream.send(CHUNK)
                    sent += 1
        assert 0 < sent * len(CHUNK) <= 512 * 1024
        service.gate.set()
        for _ in range(10):
            await stream.send(CHUNK)
        assert (await stream.finish()).header["bytes"] == (sent + 10) * len(CHUNK)


async def test_a_client_that_does_not_read_holds_the_server_at_the_window(world: World) -> None:
    service = Probe()
    _, [peer] = await world.serve(service)
    client = await world.client(limits=RpcLimits(stream_window_bytes=512 * 1024))
    async with client.open_stream(peer, "download", {"chunks": 20}, deadline=soon(client)) as stream:
        await service.wait_until("begun", 3)
        await asyncio.sleep(0.1)
        assert service.begun <= 4
        assert len([message async for message in stream]) == 20


async def test_a_message_larger_than_half_the_peers_window_is_the_senders_mistake(world: World) -> None:
    _, [peer] = await world.serve(Probe(), limits=RpcLimits(stream_window_bytes=512 * 1024))
    client = await world.client()
    async with client.open_stream(peer, "mirror", deadline=soon(client)) as stream:
        await stream.send(b"small")
        with pytest.raises(FrameTooLarge):
            await stream.send(bytes(300 * 1024))


async def test_a_server_that_stalls_ends_the_stream_as_unknown(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client(limits=RpcLimits(stream_stall_s=0.1))
    async with client.open_stream(peer, "upload at gate", deadline=soon(client)) as stream:
        reply = await stream.finish()
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "stalled")
    await wait_until(lambda: not server.admission.streams_in_flight)


async def test_a_stream_ends_at_its_deadline_at_both_ends(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    async with client.open_stream(peer, "upload at gate", deadline=soon(client, 0.2)) as stream:
        reply = await stream.finish()
        assert reply.outcome is Outcome.UNKNOWN
        await wait_until(lambda: not server.admission.streams_in_flight)


async def test_a_client_that_stalls_is_given_up_by_the_server(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service, limits=RpcLimits(stream_stall_s=0.1))
    client = await world.client()
    async with client.open_stream(peer, "upload", deadline=soon(client)) as stream:
        await stream.send(CHUNK)
        with pytest.raises(StreamEnded) as ended:
            await stream.receive()
    assert ended.value.reply.outcome is Outcome.UNKNOWN
    assert "sent nothing for 0.1 s" in ended.value.reply.reason
    assert server.admission.streams_in_flight == 0


async def test_a_caller_that_leaves_a_stream_stops_the_server(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    async with client.open_stream(peer, "upload", deadline=soon(client)) as stream:
        await stream.send(CHUNK)
        await service.wait_until("received_bytes", 1)
    await wait_until(lambda: not server.admission.streams_in_flight)
    assert service.stopped == 1
    assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK


async def test_a_server_that_fails_midway_ends_the_stream_with_its_error(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    async with client.open_stream(peer, "fail midway", deadline=soon(client)) as stream:
        await stream.send(CHUNK)
        assert await stream.receive() == Message({}, b"half of it")
        with pytest.raises(StreamEnded, match="checksum") as ended:
            await stream.receive()
        assert ended.value.reply.outcome is Outcome.ERROR
        with pytest.raises(StreamEnded):
            await stream.send(CHUNK)
        assert (await stream.finish()).code == "checksum"


async def test_a_download_cut_off_by_a_bug_cannot_be_taken_for_a_whole_one(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    async with client.open_stream(peer, "bug midway", deadline=soon(client)) as stream:
        with pytest.raises(StreamEnded) as ended:
            await receive_all(stream)
    assert ended.value.reply.outcome is Outcome.UNKNOWN


async def test_a_refused_upload_is_never_sent(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    async with client.open_stream(peer, "no such", deadline=soon(client)) as stream:
        with pytest.raises(StreamEnded, match="unknown_method") as ended:
            await stream.send(CHUNK)
    assert ended.value.reply.outcome is Outcome.REFUSED


async def test_a_server_may_answer_before_everything_is_sent_and_the_connection_is_reused(
    world: World,
) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    for _ in range(3):
        async with client.open_stream(peer, "ready", deadline=soon(client)) as stream:
            with pytest.raises(StreamEnded) as ended:
                await send_chunks(stream, 100)
            assert ended.value.reply.header == {"early": True}
            assert await stream.receive() is None
    assert len(server.admission.connections) == 1


async def test_a_server_that_goes_away_during_a_download_leaves_unknown(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    async with client.open_stream(peer, "download", {"chunks": 1000}, deadline=soon(client)) as stream:
        await stream.receive()
        await server.__aexit__(None, None, None)
        with pytest.raises(StreamEnded) as ended:
            await receive_all(stream)
    assert (ended.value.reply.outcome, ended.value.reply.code) == (Outcome.UNKNOWN, "lost")


# --- drain ------------------------------------------------------------------------------------------------------


async def test_a_drain_finishes_what_is_at_work_and_refuses_the_rest(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(client.call(peer, "wait", deadline=soon(client)))
        await service.wait_until("begun", 1)
        drained = group.create_task(server.drain(soon(client)))
        await asyncio.sleep(0)
        refused = await client.call(peer, "echo", deadline=soon(client))
        assert refused.outcome in (Outcome.REFUSED, Outcome.NOT_SENT)
        assert not drained.done()
        service.gate.set()
    assert call.result().outcome is Outcome.OK
    assert drained.result() is True


async def test_a_drain_finishes_an_open_stream(world: World) -> None:
    server, [peer] = await world.serve(Probe())
    client = await world.client()
    async with client.open_stream(peer, "mirror", deadline=soon(client)) as stream:
        await stream.send(b"1")
        assert await stream.receive() == Message({}, b"1")
        drained = asyncio.create_task(server.drain(soon(client)))
        await wait_until(lambda: server.admission.draining)
        await stream.send(b"2")
        assert await stream.receive() == Message({}, b"2")
        assert (await stream.finish()).outcome is Outcome.OK
    assert await drained is True


async def test_a_drain_ends_at_its_deadline_and_says_that_work_was_cut(world: World) -> None:
    service = Probe()
    server, [peer] = await world.serve(service)
    client = await world.client()
    call = asyncio.create_task(client.call(peer, "wait", deadline=soon(client)))
    await service.wait_until("begun", 1)
    assert await server.drain(soon(client, 0.05)) is False
    assert (await call).outcome is Outcome.UNKNOWN


async def test_a_server_restarted_at_the_same_place_is_found_again(world: World) -> None:
    first, [peer] = await world.serve(Probe())
    client = await world.client()
    assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK
    await first.drain(soon(client))
    second, _ = await world.serve(Probe(), places=0)
    await second.listen(peer)
    assert (await client.call(peer, "echo", deadline=soon(client))).outcome is Outcome.OK
    assert second.counters.calls == 1


async def test_a_closed_transport_sends_nothing(world: World) -> None:
    _, [peer] = await world.serve(Probe())
    client = await world.client()
    await client.call(peer, "echo", deadline=soon(client))
    await client.__aexit__(None, None, None)
    reply = await client.call(peer, "echo", deadline=soon(client))
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "closed")
