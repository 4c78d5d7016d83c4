"""What holds only for real sockets and real processes: files, permissions, certificates, signals. Sync, so each runs once."""

import asyncio
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swiftlike.limits import RpcLimits
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Service
from swiftlike.rpc.transport import Address, Outcome, Reply, TcpAddress, UnixAddress
from tests.cluster.rpc.worlds import SECRET, tls_network, wait_until

ROOT = Path(__file__).parents[3]


def echo_service() -> Service:
    service = Service()
    service.calls("echo", lambda call: Reply(body=call.body))
    return service


def serve(
    network: SocketNetwork, address: Address, scenario: Callable[[Address], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        async with Server(network, echo_service(), SECRET) as server:
            await scenario(await server.listen(address))

    asyncio.run(main())


async def call(network: SocketNetwork, peer: Address) -> Reply:
    async with Client(network, SECRET) as client:
        return await client.call(peer, "echo", {}, b"hello", deadline=client.now() + 10)


def test_a_unix_socket_is_its_owners_alone_and_goes_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"

    async def scenario(peer: Address) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await call(SocketNetwork(), peer)).body == b"hello"

    serve(SocketNetwork(), UnixAddress(str(path)), scenario)
    assert not path.exists()


def test_a_socket_left_behind_by_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"

    async def leave_behind(peer: Address) -> None:
        path.rename(tmp_path / "kept")

    async def scenario(peer: Address) -> None:
        assert (await call(SocketNetwork(), peer)).body == b"hello"

    serve(SocketNetwork(), UnixAddress(str(path)), leave_behind)
    (tmp_path / "kept").rename(path)
    serve(SocketNetwork(), UnixAddress(str(path)), scenario)


def test_a_server_that_stops_leaves_its_successors_socket_alone(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "rpc.sock"))

    async def main() -> None:
        async with Server(SocketNetwork(), echo_service(), SECRET) as successor:
            async with Server(SocketNetwork(), echo_service(), SECRET) as first:
                await first.listen(address)
                await successor.listen(address)
            assert (await call(SocketNetwork(), address)).body == b"hello"

    asyncio.run(main())


def test_a_path_too_long_for_a_socket_means_not_sent(tmp_path: Path) -> None:
    reply = asyncio.run(call(SocketNetwork(), UnixAddress(str(tmp_path / ("x" * 200)))))
    assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "unreachable")


def test_a_port_that_is_taken_is_named() -> None:
    async def scenario(peer: Address) -> None:
        async with Server(SocketNetwork(), echo_service(), SECRET) as second:
            with pytest.raises(OSError, match="in use"):
                await second.listen(peer)

    serve(SocketNetwork(), TcpAddress("127.0.0.1", 0), scenario)


def test_a_server_whose_certificate_nobody_vouches_for_is_not_talked_to() -> None:
    distrustful = SocketNetwork(client_tls=ssl.create_default_context())

    async def scenario(peer: Address) -> None:
        reply = await call(distrustful, peer)
        assert (reply.outcome, reply.code) == (Outcome.NOT_SENT, "unreachable")
        assert "CERTIFICATE_VERIFY_FAILED" in reply.reason

    serve(tls_network(), TcpAddress("localhost", 0), scenario)


def test_a_client_without_tls_is_not_served_where_tls_is_asked_for() -> None:
    async def scenario(peer: Address) -> None:
        reply = await call(SocketNetwork(), peer)
        assert reply.outcome is Outcome.NOT_SENT

    serve(tls_network(), TcpAddress("localhost", 0), scenario)


# --- a real process that dies or freezes ------------------------------------------------------------------------

SERVER_PROCESS = """
import asyncio, sys, uvloop
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Service
from swiftlike.rpc.transport import Reply, UnixAddress
from tests.cluster.rpc.worlds import SECRET

async def wait(call):
    await asyncio.Event().wait()

async def main():
    service = Service()
    service.calls("echo", lambda call: Reply(body=call.body))
    service.calls("wait", wait)
    async with Server(SocketNetwork(), service, SECRET) as server:
        await server.listen(UnixAddress(sys.argv[1]))
        print("listening", flush=True)
        await asyncio.Event().wait()

uvloop.run(main())
"""


@contextmanager
def server_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SERVER_PROCESS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
        finally:
            process.kill()


def test_a_killed_process_leaves_unknown_and_its_successor_is_found_at_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    peer = UnixAddress(str(path))

    async def scenario(first: "subprocess.Popen[str]") -> None:
        async with Client(SocketNetwork(), SECRET) as client:
            waiting = asyncio.create_task(client.call(peer, "wait", deadline=client.now() + 30))
            assert (await client.call(peer, "echo", {}, b"1", deadline=client.now() + 30)).body == b"1"
            first.kill()
            reply = await waiting
            assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "lost")
            assert (await client.call(peer, "echo", deadline=client.now() + 30)).outcome is Outcome.NOT_SENT
            with server_process(path):
                assert (await client.call(peer, "echo", {}, b"2", deadline=client.now() + 30)).body == b"2"

    with server_process(path) as first:
        asyncio.run(scenario(first))


def test_a_frozen_process_loses_its_connection_and_is_served_from_again_when_it_thaws(tmp_path: Path) -> None:
    """Alive but silent is worse than dead: the deadline ends the call and a ping without an answer the connection."""
    path = tmp_path / "rpc.sock"
    peer = UnixAddress(str(path))

    async def scenario(server: "subprocess.Popen[str]") -> None:
        async with Client(SocketNetwork(), SECRET, limits=RpcLimits(ping_s=0.1, handshake_s=30)) as client:
            assert (await client.call(peer, "echo", {}, b"1", deadline=client.now() + 30)).body == b"1"
            [connection] = client._open
            server.send_signal(signal.SIGSTOP)
            reply = await client.call(peer, "echo", deadline=client.now() + 0.1)
            assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "timeout")
            await wait_until(lambda: connection.closed is not None)
            assert "silent for 0.1 s after a ping" in str(connection.closed)
            server.send_signal(signal.SIGCONT)
            assert (await client.call(peer, "echo", {}, b"2", deadline=client.now() + 30)).body == b"2"

    with server_process(path) as server:
        asyncio.run(scenario(server))
