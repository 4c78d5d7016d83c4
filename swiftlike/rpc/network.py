"""Sockets: how a connection is opened and accepted, over TCP, TLS or a Unix socket.

Owns the calls to the event loop that make sockets. Never sees a frame. `Network` is what a simulated wire offers too.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, assert_never

from swiftlike.rpc.connection import Connection
from swiftlike.rpc.transport import Address, TcpAddress, UnixAddress

BACKLOG = 1024
"""Connections that the kernel holds for us when every worker of a cluster reconnects at once."""

TLS_HANDSHAKE_S = 5.0
"""As short as our own handshake: until it is done, the peer is a stranger that costs memory."""
TLS_SHUTDOWN_S = 1.0

ConnectionT = TypeVar("ConnectionT", bound=Connection)


class Listener(Protocol):
    """A place where connections are accepted."""

    @property
    def address(self) -> Address:
        """Where callers reach it, with the port that the system chose if none was asked for."""

    def close(self) -> None:
        """Accept no more; what was accepted goes on."""


class Network(Protocol):
    """Opens and accepts connections."""

    async def connect(self, address: Address, make: Callable[[], ConnectionT]) -> ConnectionT:
        """Open a connection; raises OSError (ssl.SSLError among them) when that cannot be done."""

    async def listen(self, address: Address, make: Callable[[], Connection]) -> Listener:
        """Accept connections at `address`; raises OSError when it is taken."""


class SocketNetwork:
    """The real network. TLS, if contexts are given, covers TCP; a Unix socket never leaves the host."""

    def __init__(
        self, *, client_tls: ssl.SSLContext | None = None, server_tls: ssl.SSLContext | None = None
    ) -> None:
        self._client_tls = client_tls
        self._server_tls = server_tls

    async def connect(self, address: Address, make: Callable[[], ConnectionT]) -> ConnectionT:
        """Open a socket to `address`."""
        loop = asyncio.get_running_loop()
        made: list[ConnectionT] = []

        def make_and_know() -> ConnectionT:
            made.append(make())
            return made[-1]

        try:
            match address:
                case TcpAddress(host, port):
                    tls = _tls(self._client_tls)
                    _, connection = await loop.create_connection(make_and_know, host, port, **tls)
                case UnixAddress(path):
                    _, connection = await loop.create_unix_connection(make_and_know, path)
                case _:
                    assert_never(address)
        except BaseException:
            # uvloop closes the wire of an attempt that is cancelled, and does not tell its connection, for which the end of
            # the process would wait.
            for lost in made:
                lost.connection_lost(None)
            raise
        return connection

    async def listen(self, address: Address, make: Callable[[], Connection]) -> Listener:
        """Listen on a socket at `address`; a Unix socket left behind by a dead process is replaced."""
        loop = asyncio.get_running_loop()
        match address:
            case TcpAddress(host, port):
                server = await loop.create_server(make, host, port, backlog=BACKLOG, **_tls(self._server_tls))
                return _SocketListener(server, TcpAddress(host, server.sockets[0].getsockname()[1]))
            case UnixAddress(path):
                server = await loop.create_unix_server(make, path, backlog=BACKLOG)
                return _SocketListener(server, address)
            case _:
                assert_never(address)


def _tls(context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return what the event loop wants to hear of TLS: the limits only where there is a context."""
    if context is None:
        return {}
    return {"ssl": context, "ssl_handshake_timeout": TLS_HANDSHAKE_S, "ssl_shutdown_timeout": TLS_SHUTDOWN_S}


class _SocketListener:
    def __init__(self, server: asyncio.AbstractServer, address: Address) -> None:
        self._server = server
        self._inode: int | None = None
        self.address = address
        if isinstance(address, UnixAddress):
            path = Path(address.path)
            path.chmod(0o600)
            self._inode = path.stat().st_ino

    def close(self) -> None:
        self._server.close()
        if isinstance(self.address, UnixAddress):
            path = Path(self.address.path)
            # A successor may already listen under this name: remove only what is ours.
            if path.exists() and path.stat().st_ino == self._inode:
                path.unlink()
