"""What holds only for real sockets: files, permissions, certificates. Sync tests, so each runs once."""

import asyncio
import ssl
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Service
from swiftlike.rpc.transport import Address, Outcome, Reply, TcpAddress, UnixAddress
from tests.cluster.rpc.worlds import SECRET, tls_network


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
