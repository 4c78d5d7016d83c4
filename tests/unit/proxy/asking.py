"""Requests without sockets: what a dialect is given, and its answer read to the end."""

import asyncio
from contextlib import aclosing
from typing import Any, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.body import RequestBody
from proxy.http.request import Dialect, Request
from proxy.http.target import parse_target


class Arrived:
    """A body that is here."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def is_eof(self) -> bool:
        return True

    def exception(self) -> BaseException | None:
        return None

    def read_nowait(self, n: int = -1) -> bytes:
        raw, self._raw = self._raw, b""
        return raw

    async def readany(self) -> bytes:
        return self.read_nowait()


class Told(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    dialect: Dialect, method: str, target: str, body: bytes = b"", token: str = "owner", **headers: str
) -> Told:
    """Ask a dialect; `X_Copy_From` is the header X-Copy-From."""
    fields = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    fields["Host"] = "proxy.example"
    fields["Content-Length"] = str(len(body))
    if token:
        fields["X-Auth-Token"] = token
    request = Request(
        method,
        parse_target(target),
        CIMultiDictProxy(fields),
        RequestBody(Arrived(body), len(body), idle_s=60.0),
        transaction_id="tx1",
        deadline=asyncio.get_running_loop().time() + 20.0,
    )
    response = await dialect(request)
    told = bytes(response.body)
    if response.stream is not None:
        stream: Any = response.stream
        async with aclosing(stream) as chunks:
            told = b"".join([bytes(chunk) async for chunk in chunks])
        assert response.length in (None, len(told))
    return Told(response.status, {name.lower(): value for name, value in response.headers}, told)
