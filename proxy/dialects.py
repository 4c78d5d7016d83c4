"""What one worker answers with: the dialects, over one domain and one directory of users.

Owns how those are put together, which of the dialects a request is in, and how the users of the cluster's file get into the
cluster. Never sees a socket.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Self

from proxy.auth.users import Users
from proxy.cluster.register import Registers
from proxy.http.errors import HeadRefused
from proxy.http.request import Request
from proxy.http.response import Response, text_response
from proxy.s3_api.api import S3Api
from proxy.s3_api.asks import Surroundings as S3Surroundings
from proxy.s3_api.signatures import Rules
from proxy.store.errors import StoreError
from proxy.store.store import Store
from proxy.swift_api.api import SwiftApi, speaks_swift
from proxy.swift_api.asks import Surroundings
from swiftlike.config import Cluster, ProxyConfig
from swiftlike.user_config import UserConfig

log: Final = logging.getLogger("proxy.dialects")

SEED_S: Final = 10.0
"""Of one attempt to see to the users of the cluster's file."""
SEED_AGAIN_S: Final = 0.25
"""Between two attempts: at a start the devices are a moment later than the workers."""


class Seeding:
    """Sees to it that the cluster has the users of its file, however long the cluster takes to be there.

    Usable inside its context, which owns the attempts.
    """

    def __init__(self, users: Users) -> None:
        """Take where users are kept."""
        self._users = users
        self._task: asyncio.Task[None] | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Begin to own attempts."""
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up what has not succeeded."""
        if self._task is not None:
            self._task.cancel()
        await self._tasks.__aexit__(None, None, None)

    def seed(self, users: tuple[UserConfig, ...]) -> None:
        """Begin with these users, in the stead of those before."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._tasks.create_task(self._seed(users))

    async def wait(self, within_s: float) -> bool:
        """Wait until the users are there, if that is soon; say whether they are."""
        if self._task is None:
            return True
        done, _ = await asyncio.wait((self._task,), timeout=within_s)
        return bool(done)

    async def _seed(self, users: tuple[UserConfig, ...]) -> None:
        now = asyncio.get_running_loop().time
        told = ""
        while True:
            try:
                refusals = await self._users.seed(users, deadline=now() + SEED_S)
            except StoreError as error:
                if str(error) != told:
                    told = str(error)
                    log.info("the users of the cluster's file are not in it yet: %s", told)
                await asyncio.sleep(SEED_AGAIN_S)
                continue
            for refusal in refusals:
                log.error("a user of the cluster's file is not as the file says: %s", refusal)
            return


class Answering:
    """The dialects of one worker, and what they stand on."""

    def __init__(self, swift: SwiftApi, s3: S3Api, seeding: Seeding) -> None:
        """Take the dialects and the users' way in."""
        self._swift = swift
        self._s3 = s3
        self.seeding: Final = seeding

    def __call__(self, request: Request) -> Awaitable[Response]:
        """Answer a request in the dialect that it is in."""
        return (self._swift if self._is_swift(request) else self._s3)(request)

    async def turn_away(self, request: Request) -> Response:
        """Answer a request for which there is no room, in the dialect that it is in."""
        if self._is_swift(request):
            return text_response(503, "Too many requests are at work here: ask again.")
        return await self._s3.slow_down(request)

    async def refuse(self, request: Request, refusal: HeadRefused) -> Response:
        """Answer a request whose head cannot be heeded, in the dialect that it begins like."""
        if self._is_swift(request):
            return text_response(refusal.status, f"{refusal}")
        return await self._s3.refuse(request, refusal)

    def _is_swift(self, request: Request) -> bool:
        return speaks_swift(request) and not self._s3.is_named_by_host(request)


@asynccontextmanager
async def answering(cluster: Cluster, proxy: ProxyConfig, registers: Registers) -> AsyncIterator[Answering]:
    """Put together what a worker answers with; what goes on behind answers ends with the context."""
    async with AsyncExitStack() as held:
        store = await held.enter_async_context(Store(registers, cluster.policies))
        now_us = registers.clock.now_us
        users = await held.enter_async_context(
            Users(store, cluster.secret, cluster.auth.token_lifetime_s, now_us)
        )
        seeding = await held.enter_async_context(Seeding(users))
        names = {policy.index: policy.name for policy in cluster.policies}
        swift = SwiftApi(Surroundings(store, users, cluster.policies, names, now_us))
        rules = Rules(proxy.s3_region, proxy.s3_signature_version_2)
        host_id = os.urandom(24).hex()
        s3 = S3Api(
            S3Surroundings(
                store, store.buckets, store.multipart, users, rules, proxy.storage_domain, now_us, host_id
            )
        )
        yield Answering(swift, s3, seeding)
