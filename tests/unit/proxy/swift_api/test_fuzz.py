"""Bad requests: whatever comes, the answer is no 500, holds no traceback, and the server goes on."""

import asyncio
import random

import pytest

from swiftlike.limits import HttpLimits
from tests.unit.proxy.serving import Serving, serve

SEEDS = 20
REQUESTS = 60
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "COPY", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "X"]
NAMES = [
    "AUTH_test",
    "c",
    "o",
    "",
    ".",
    "..",
    "%00",
    "%ff",
    "%",
    "%zz",
    "%2F",
    "é",
    "%F0%9F%98%80",
    "a" * 300,
    "a" * 1100,
    "AUTH_\0",
]
HEADERS = [
    "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Range", "Content-Type", "Content-Encoding", "Etag",
    "X-Object-Meta-", "X-Object-Meta-A", "X-Container-Meta-A", "X-Container-Read", "X-Container-Write", "X-Copy-From",
    "Destination", "Destination-Account", "X-Copy-From-Account", "X-Delete-At", "X-Delete-After", "X-Storage-Policy",
    "X-Detect-Content-Type", "Accept", "Host", "Referer", "X-Auth-User", "X-Auth-Key", "X-Auth-Token", "Expect",
    "Transfer-Encoding", "Content-Length", "Content-MD5", "Connection", "Upgrade", "X-Fresh-Metadata", "X-Remove-Container-Meta-A",
]  # fmt: skip
VALUES = [
    "", "*", "x", "bytes=0-1", "bytes=-", "bytes=-1", "bytes=1-0,2-,-3", "bytes=" + "0-1," * 100, "bytes=9" + "9" * 99,
    '"', 'W/"x"', '"a","b', "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 99 Xxx 9999 99:99:99 GMT", "c/o", "/c/o", "c", "c/%ff",
    "-1", "0", "5", "1e9", "9" * 30, "99999999999999", "true", "é", "\udcff\udcfe", "v" * 300, "v" * 9000, "a:b", ".r:*,.rlistings", ".r:-",
    "100-continue", "chunked", "gzip, chunked", "close", "websocket", "text/html;q=x", ";;;,,,", "\x7f", "\x01", "\t", "gold", "owner",
    "XUFAKrxLKna5cZ2REBfFkg==", "multipart/form-data; boundary=x",
]  # fmt: skip
SOUND_HEADERS = [
    name for name in HEADERS if name not in ("Host", "Transfer-Encoding", "Content-Length", "X-Auth-Token")
]
SOUND_VALUES = [
    value for value in VALUES if not any(ord(letter) < 32 or ord(letter) == 127 for letter in value)
]
QUERIES = [
    "",
    "?",
    "?limit=1",
    "?limit=-1",
    "?limit=x",
    "?format=xml",
    "?format=é",
    "?marker=%ff",
    "?delimiter=%00",
    "?prefix=é&delimiter=/",
    "?path=/&reverse=1",
    "?path=o/",
    "?a&a=%&=&&",
    "?" + "a&" * 150,
]
FRAMINGS = [
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 0\r\n",
    "",
    "Content-Length: -1\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
]
BODIES = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhel",
    b"zz\r\n",
    b"\0\xff" * 50,
    b"fffffffffffffffff\r\n",
]


def make_request(dice: random.Random) -> bytes:
    """Make a request whose grammar is sound and whose contents are odd, or one that is odd altogether."""
    return make_odd_contents(dice) if dice.random() < 0.8 else make_odd_bytes(dice)


def make_odd_contents(dice: random.Random) -> bytes:
    path = "/v1/AUTH_test" + dice.choice(
        ["", "/c", "/c", "/c/o", "/c/o", "/c/p%FF", "/c/%2F%00", "/d", "/c//o/%E2%98%83"]
    )
    query = dice.choice(["", "", *(query for query in QUERIES if query.isascii())])
    fields = "".join(
        f"{dice.choice(SOUND_HEADERS)}: {dice.choice(SOUND_VALUES)}\r\n"
        for _ in range(dice.choice([0, 1, 2, 3, 8]))
    )
    if dice.random() < 0.9:
        fields = f"X-Auth-Token: owner\r\n{fields}"
    method = dice.choice(METHODS[:8])
    body, framing = b"", ""
    match dice.randrange(4 if method in ("PUT", "POST") else 1):
        case 1:
            body = dice.randbytes(dice.randrange(100))
            framing = f"Content-Length: {len(body)}\r\n"
        case 2:
            framing, body = "Transfer-Encoding: chunked\r\n", b"3;x\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n"
        case 3:
            framing = "Content-Length: 0\r\n"
    head = f"{method} {path}{query} HTTP/1.1\r\nHost: h\r\n{fields}{framing}\r\n"
    return head.encode("utf-8", "surrogateescape") + body


def make_odd_bytes(dice: random.Random) -> bytes:
    path = "/".join(["/v1", "AUTH_test", *dice.choices(NAMES, k=dice.randrange(4))])
    if dice.random() < 0.2:
        path = dice.choice(
            ["/", "/auth/v1.0", "/info", "//", "*", "http://h/v1/AUTH_test/c", "http://[", "/v1//", "x"]
        )
    fields = "".join(
        f"{dice.choice(HEADERS)}: {dice.choice(VALUES)}\r\n" for _ in range(dice.choice([0, 1, 2, 3, 8]))
    )
    fields += dice.choice(FRAMINGS)
    head = f"{dice.choice(METHODS)} {path}{dice.choice(QUERIES)} HTTP/1.{dice.choice('1110')}\r\nHost: h\r\n{fields}\r\n"
    raw = bytearray(head.encode("utf-8", "surrogateescape") + dice.choice(BODIES))
    if dice.random() < 0.2:
        for _ in range(dice.randrange(1, 4)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
    return bytes(raw)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_bad_request_is_never_a_500_and_never_shows_a_traceback(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(seed)
    requests = [make_request(dice) for _ in range(REQUESTS)]
    # The server ends each connection when nothing more comes, so that all it says can be waited for.
    impatient = HttpLimits(head_s=0.2, keepalive_s=0.2, client_idle_s=0.2, linger_s=0.2)
    async with serve(impatient) as serving:
        await serving.ask("PUT", "/v1/AUTH_test/c")
        await serving.ask("PUT", "/v1/AUTH_test/c/o", b"hello")
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(everything_told(serving, raw)) for raw in requests]
        for raw, task in zip(requests, asked, strict=True):
            told = task.result()
            assert b"Traceback" not in told, raw
            assert b"HTTP/1.1 500" not in told, raw
            assert told.startswith(b"HTTP/1.1 ") or told == b"", raw
        assert sum(task.result() != b"" for task in asked) > REQUESTS * 0.9, "most are answered, not dropped"
        assert (await serving.ask("GET", "/healthcheck")).status == 200
        assert serving.server.in_flight == 0
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")], caplog.text


async def everything_told(serving: Serving, raw: bytes) -> bytes:
    """Send, and take all that comes until the server ends the connection."""
    async with serving.client() as client, asyncio.timeout(20):
        told = b""
        try:
            await client.send(raw)
            while chunk := await client.reader.read(65536):
                told += chunk
        except ConnectionError:
            pass  # it was ended with something unread
        return told


def test_there_are_a_thousand_of_them() -> None:
    assert SEEDS * REQUESTS >= 1000
