"""A server of the S3 dialect on loopback over the store in memory, and a client that signs what it asks."""

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from proxy.auth.identities import Identity
from proxy.s3_api.api import S3Api
from proxy.s3_api.asks import Surroundings
from proxy.s3_api.signatures import Rules
from proxy.store.buckets import Buckets, RegisteredContainers
from proxy.store.contract import Accounts, Containers, Objects
from proxy.store.marks import Graces
from proxy.store.multipart import Multipart
from swiftlike.limits import HttpLimits
from swiftlike.timestamps import Clock
from swiftlike.user_config import Role
from tests.unit.proxy.fake_store import FakeStore
from tests.unit.proxy.serving import Answer, Client, Serving, serve

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
DOMAIN = "objects.example"
PART_BYTES_MIN = 1_000
"""Of the tests' cluster."""
REGION = "us-east-1"


class SignedUser(NamedTuple):
    """A user of the tests; its access key is its name."""

    identity: Identity


USERS = {
    "owner": SignedUser(Identity("tester", "test", frozenset({Role.ADMIN}))),
    "other": SignedUser(Identity("guest", "else", frozenset({Role.ADMIN}))),
    "plain": SignedUser(Identity("reader", "test", frozenset())),
}


class KeyHolders:
    """The users of the tests."""

    async def by_access_key(self, access_key: str, *, deadline: float) -> tuple[SignedUser, str] | None:
        user = USERS.get(access_key)
        return None if user is None else (user, SECRET)


class Registered(NamedTuple):
    """The store in memory, its containers made with their names."""

    accounts: Accounts
    containers: Containers
    objects: Objects


def now_us() -> int:
    return time.time_ns() // 1000


async def at_once(pause_s: float) -> None:
    """There is no other proxy whose memory would have to fade."""


def make_store(page_items: int = 10_000) -> FakeStore:
    return FakeStore(Clock(now_us, 1), page_items=page_items)


def make_api(store: FakeStore, region: str = REGION, takes_version_2: bool = True) -> S3Api:
    buckets = Buckets(store.containers, store.objects, store.clock.now_us, time.monotonic)
    kept = Registered(store.accounts, RegisteredContainers(store.containers, buckets), store.objects)
    uploads = Multipart(
        store.objects,
        kept.containers,
        Graces(),
        store.clock.now_us,
        time.monotonic,
        os.urandom,
        at_once,
    )
    return S3Api(
        Surroundings(
            kept,
            buckets,
            uploads,
            KeyHolders(),
            Rules(region, takes_version_2),
            DOMAIN,
            now_us,
            "host",
            PART_BYTES_MIN,
        )
    )


class S3(NamedTuple):
    """A server that runs, and how it is asked."""

    serving: Serving
    store: FakeStore
    region: str

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        who: str = "owner",
        headers: Mapping[str, str] | None = None,
        host: str = "",
    ) -> Answer:
        """Ask on a connection of its own."""
        async with self.serving.client() as client:
            return await self.ask_on(client, method, path, body, who, headers, host)

    async def ask_on(
        self,
        client: Client,
        method: str,
        path: str,
        body: bytes = b"",
        who: str = "owner",
        headers: Mapping[str, str] | None = None,
        host: str = "",
    ) -> Answer:
        """Ask on a connection, signed by somebody, or by nobody."""
        await client.send(self.write(method, path, body, who, headers, host))
        return await client.answer(method)

    def write(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        who: str = "owner",
        headers: Mapping[str, str] | None = None,
        host: str = "",
    ) -> bytes:
        """Return a request as it goes out."""
        host = host or f"127.0.0.1:{self.serving.port}"
        fields = dict(headers or {})
        if who:
            request = AWSRequest(method, f"http://{host}{path}", data=body, headers=dict(fields))
            request.context["payload_signing_enabled"] = True
            S3SigV4Auth(Credentials(who, SECRET), "s3", self.region).add_auth(request)
            fields = {name: str(value) for name, value in request.headers.items()}
        names = {name.lower() for name in fields}
        if not names & {"content-length", "transfer-encoding"}:
            fields["Content-Length"] = str(len(body))
        fields.pop("Host", None)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode() + body


def code_of(answer: Answer) -> str:
    """Return the code of an error."""
    return text_of(answer, "Code")


def tree_of(answer: Answer) -> ElementTree.Element:
    """Return a document without its namespace."""
    root = ElementTree.fromstring(answer.body)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text_of(answer: Answer, path: str) -> str:
    """Return the text of the first element there; empty when there is none."""
    return tree_of(answer).findtext(path) or ""


def texts_of(answer: Answer, path: str) -> list[str]:
    """Return the texts of all elements there."""
    return [element.text or "" for element in tree_of(answer).findall(path)]


@asynccontextmanager
async def serve_s3(
    limits: HttpLimits | None = None, region: str = REGION, page_items: int = 10_000
) -> AsyncIterator[S3]:
    """Serve the S3 dialect until left."""
    store = make_store(page_items)
    async with serve(limits, make_api(store, region), store) as serving:
        yield S3(serving, store, region)
