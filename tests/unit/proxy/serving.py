"""A server on loopback over the store in memory, and a client that writes bytes and reads answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from proxy.auth.identities import Identity
from proxy.auth.users import SignedIn
from proxy.http.access_log import AccessLog
from proxy.http.request import Dialect
from proxy.server import Server
from proxy.swift_api.api import SwiftApi
from proxy.swift_api.asks import Surroundings
from swiftlike.config import PolicyConfig
from swiftlike.limits import HttpLimits
from swiftlike.timestamps import Clock
from swiftlike.user_config import Role
from tests.unit.proxy.fake_store import FakeStore

NOW_US = 1_700_000_000_000_000
POLICIES = (PolicyConfig(0, "gold", default=True), PolicyConfig(1, "silver"))
IDENTITIES = {
    "owner": Identity("tester", "test", frozenset({Role.ADMIN})),
    "other": Identity("guest", "else", frozenset({Role.ADMIN})),
    "plain": Identity("reader", "test", frozenset()),
    "reseller": Identity("root", "ops", frozenset({Role.RESELLER_ADMIN})),
}
"""Tokens of the tests, and whose they are."""


class FakeUsers:
    async def sign_in(self, account: str, user: str, key: str, *, deadline: float) -> SignedIn | None:
        if (account, user, key) != ("test", "tester", "testing"):
            return None
        return SignedIn("owner", 86_400, b"AUTH_test")

    async def identify(self, token: str, *, deadline: float) -> Identity | None:
        return IDENTITIES.get(token)


def make_store() -> FakeStore:
    return FakeStore(Clock(lambda: NOW_US, 1))


def make_api(store: FakeStore) -> SwiftApi:
    names = {policy.index: policy.name for policy in POLICIES}
    return SwiftApi(Surroundings(store, FakeUsers(), POLICIES, names, lambda: NOW_US))


class Answer(NamedTuple):
    """What came back."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.fields}


class Client:
    """One connection. Bytes go out as they are given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        fields = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines[1:]))
        return int(lines[0].split(" ", 2)[1]), fields

    async def answer(self, method: str = "GET") -> Answer:
        """Read one answer. Raises IncompleteReadError when the connection ends before it does."""
        status, fields = await self.head()
        length = int(dict(fields).get("Content-Length", 0))
        has_body = method != "HEAD" and status not in (204, 304)
        if has_body and ("Transfer-Encoding", "chunked") in fields:
            return Answer(status, fields, await self._chunks())
        return Answer(status, fields, await self.reader.readexactly(length) if has_body else b"")

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            pieces.append(await self.reader.readexactly(size))
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(pieces)

    async def is_ended(self) -> bool:
        """Wait for the other end to close; say whether it sent nothing more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    async def ask(
        self, method: str, path: str, body: bytes = b"", token: str = "owner", **headers: str
    ) -> Answer:
        """Ask as a plain client would; `X_Copy_From` is the header X-Copy-From."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            fields["X-Auth-Token"] = token
        if "Transfer-Encoding" not in fields:
            fields.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: proxy.example:8080\r\n{head}\r\n".encode() + body)
        return await self.answer(method)


class Serving(NamedTuple):
    """A server that runs."""

    server: Server
    store: FakeStore
    port: int
    lines: list[str]
    """Of the access log."""

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", token: str = "owner", **headers: str
    ) -> Answer:
        """Ask on a connection of its own."""
        async with self.client() as client:
            return await client.ask(method, path, body, token, **headers)


@asynccontextmanager
async def serve(
    limits: HttpLimits | None = None, dialect: Dialect | None = None, store: FakeStore | None = None
) -> AsyncIterator[Serving]:
    """Serve the Swift dialect, or another one, until left."""
    lines: list[str] = []
    log = AccessLog("worker=test", lines.append, lambda: None)
    kept = store or make_store()
    async with Server(
        dialect or make_api(kept), log, limits or HttpLimits(drain_s=1.0), lambda: NOW_US / 1e6
    ) as server:
        yield Serving(server, kept, await server.listen("127.0.0.1", 0), lines)
