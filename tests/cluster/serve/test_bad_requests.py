"""Bad requests to a whole cluster of real processes: what the domain and the devices say of them is no 500 either."""

import asyncio
import random
from pathlib import Path

from tests.cluster.serve.clusters import ACCOUNT, KEY, USER, HandMade, HandMadeHost
from tests.cluster.serve.swift_client import Swift
from tests.unit.proxy.swift_api.test_fuzz import make_request

REQUESTS = 1_000
AT_ONCE = 250
"""The slowest of them wait for the end of a head that never comes."""


def test_a_thousand_bad_requests_are_never_a_500_and_show_no_traceback(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=1, devices=3)
    (host,) = cluster.hosts
    # The proxy ends each connection soon when nothing more comes, so that all it says can be waited for.
    host.proxy |= {"client_idle_s": 1.0, "keepalive_s": 1.0}
    host.write()
    with cluster.running(), Swift((host.address, host.proxy_port), f"{ACCOUNT}:{USER}", KEY) as swift:
        assert swift.request("PUT", "c").status == 201
        assert swift.put("c", "o", b"hello").status == 201
        dice = random.Random(7)
        account = f"AUTH_{ACCOUNT}".encode()
        requests = [
            make_request(dice).replace(b"AUTH_test", account).replace(b": owner", f": {swift.token}".encode())
            for _ in range(REQUESTS)
        ]
        answers = asyncio.run(ask_all(host, requests))
        for raw, told in zip(requests, answers, strict=True):
            assert b"Traceback" not in told, raw
            assert b"HTTP/1.1 500" not in told, raw
        assert sum(told.startswith(b"HTTP/1.1 ") for told in answers) > REQUESTS * 0.9, "most are answered"
        assert sum(told.startswith(b"HTTP/1.1 2") for told in answers) > REQUESTS * 0.05, "some get far"
        swift.close()
        assert swift.request("PUT", "c").status in (201, 202), "they may have deleted it"
        assert swift.put("c", "o", b"hello again").status == 201
        assert swift.request("GET", "c", "o").body == b"hello again"
    for program in (*cluster.proxies.values(), *cluster.storages.values()):
        assert "Traceback" not in program.log()


async def ask_all(host: HandMadeHost, requests: list[bytes]) -> list[bytes]:
    """Send each on a connection of its own; return all that came back on it until the proxy ended it."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(raw: bytes) -> bytes:
        async with gate, asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(host.address, host.proxy_port)
            told = b""
            try:
                writer.write(raw)
                while chunk := await reader.read(65536):
                    told += chunk
            except ConnectionError:
                pass  # it was ended with something unread
            finally:
                writer.close()
            return told

    return await asyncio.gather(*map(ask, requests))
