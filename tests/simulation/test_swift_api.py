"""The Swift API over the whole domain in virtual time, beside the same API over the store in memory: the same requests must
get the same answers, so that the fake which the dialects' tests lean on cannot lie.
"""

import asyncio
import random
from urllib.parse import quote

import pytest

from proxy.store.store import Store
from proxy.swift_api.api import SwiftApi
from proxy.swift_api.asks import Surroundings
from swiftlike.timestamps import Clock
from tests.simulation.store_cluster import StoreCluster, now_us, play
from tests.unit.proxy.asking import Told, ask
from tests.unit.proxy.fake_store import FakeStore
from tests.unit.proxy.serving import POLICIES, FakeUsers

A = "/v1/AUTH_test"
TIMES = {"last-modified", "x-timestamp", "x-copied-from-last-modified"}
NAMES = ["a", "a/", "a/b", "a//b", "b", "é", "☃/x", "\n", "zz", "a/b/c"]
CONTAINERS = ["c", "d", "é"]
BODIES = [b"", b"x", b"hello world", b"y" * 5000]
ETAGS = ["*", "d41d8cd98f00b204e9800998ecf8427e", '"9dd4e461268c8034f5c8564e155c67a6"', "none"]
QUERIES = [
    "format=json", "", "limit=2", "format=json&delimiter=/", "prefix=a/", "path=a", "reverse=1&limit=3", "marker=a/b",
    "end_marker=b&marker=a", "format=xml&prefix=a&delimiter=/&limit=1", "delimiter=b&reverse=yes",
]  # fmt: skip


def make_api(store: Store | FakeStore) -> SwiftApi:
    names = {policy.index: policy.name for policy in POLICIES}
    return SwiftApi(Surroundings(store, FakeUsers(), POLICIES, names, now_us))


def make_request(dice: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    container = f"{A}/{quote(dice.choice(CONTAINERS))}"
    path = f"{container}/{quote(dice.choice(NAMES))}"
    fields: dict[str, str] = {}
    if dice.random() < 0.2:
        fields[dice.choice(["If_Match", "If_None_Match"])] = dice.choice(ETAGS)
    if dice.random() < 0.3:
        fields[dice.choice(["X_Object_Meta_A", "X_Container_Meta_A", "Content_Type", "Content_Encoding"])] = (
            "é"
        )
    match dice.randrange(16):
        case 0 | 1 | 2 | 3:
            if dice.random() < 0.2:
                fields["X_Delete_After"] = str(dice.choice([1, 100]))
            return "PUT", path, dice.choice(BODIES), fields
        case 4 | 5:
            if dice.random() < 0.5:
                fields["Range"] = dice.choice(["bytes=0-0", "bytes=-3", "bytes=1-2,4-", "bytes=9999-"])
            return dice.choice(["GET", "HEAD"]), path, b"", fields
        case 6 | 7:
            return "DELETE", path, b"", fields
        case 8:
            return "POST", path, b"", fields
        case 9:
            fields["Destination"] = quote(f"{dice.choice(CONTAINERS)}/{dice.choice(NAMES)}")
            if dice.random() < 0.3:
                fields["X_Fresh_Metadata"] = "true"
            return "COPY", path, b"", fields
        case 10:
            return "PUT", container, b"", fields | {"X_Storage_Policy": dice.choice(["", "gold", "silver"])}
        case 11:
            return "DELETE", container, b"", {}
        case 12:
            return "POST", container, b"", fields
        case 13:
            return dice.choice(["GET", "HEAD"]), A, b"", {}
        case _:
            return dice.choice(["GET", "HEAD"]), f"{container}?{dice.choice(QUERIES)}", b"", {}


def comparable(told: Told) -> tuple[int, dict[str, str], bytes]:
    """What must be alike: all but times and random boundaries."""
    headers = {name: value for name, value in told.headers.items() if name not in TIMES}
    boundary = headers.get("content-type", "").partition("boundary=")[2]
    body = told.body
    if boundary:
        body = body.replace(boundary.encode(), b"BOUNDARY")
        headers["content-type"] = "multipart/byteranges"
    return told.status, headers, without_times(body)


def without_times(body: bytes) -> bytes:
    """Leave out what a listing says of times: the digits of dates in ISO form."""
    parts = body.split(b"T")
    return b"T".join(
        part[:-10] if at < len(parts) - 1 and part[-10:-8] == b"20" and part[-3:-2] == b"-" else part
        for at, part in enumerate(_without_clock(part, at) for at, part in enumerate(parts))
    )


def _without_clock(part: bytes, at: int) -> bytes:
    """Drop `HH:MM:SS.ffffff` where it leads what followed a T."""
    return part[15:] if at and part[2:3] == b":" and part[8:9] == b"." else part


@pytest.mark.parametrize("seed", range(6))
def test_the_api_says_over_the_whole_domain_what_it_says_over_the_store_in_memory(seed: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        dice = random.Random(seed)
        fake = FakeStore(Clock(now_us, 1), inline_bytes=1000)
        real_api, fake_api = make_api(store), make_api(fake)
        statuses = set()
        for container in CONTAINERS[:2]:
            for api in (real_api, fake_api):
                assert (await ask(api, "PUT", f"{A}/{container}")).status == 201
        for step in range(250):
            method, target, body, fields = make_request(dice)
            if "/" not in target[len(A) :]:
                await asyncio.sleep(3.0)  # usage reaches an account within a second
            # Objects fall due at whole seconds: never between the same request to the one and to the other.
            await asyncio.sleep(1.3 - now_us() / 1e6 % 1)
            real = await ask(real_api, method, target, body, "owner", **fields)
            told = await ask(fake_api, method, target, body, "owner", **fields)
            assert comparable(real) == comparable(told), (step, method, target, fields)
            statuses.add(real.status)
        assert {200, 201, 202, 204, 404, 409, 412} <= statuses

    play(scenario)
