"""Uploads of many parts over the whole domain in virtual time: what they become, what ends them, and what they leave behind."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from proxy.store.errors import NoSuchContainer
from proxy.store.multipart import StoredPart, UploadInfo
from proxy.store.names import ContainerName
from proxy.store.store import Store
from proxy.store.upload_names import FREEING, SHARDS, hidden_beside, shard_name
from proxy.store.values import Attributes, ContainerInfo, ListedObject, ObjectInfo
from swiftlike.node_calls import Query
from tests.simulation.store_cluster import (
    CONTAINER,
    Sent,
    StoreCluster,
    create,
    get,
    named,
    names,
    play,
    soon,
)

KEY = b"a/key"
WRITE_S, READ_S = 600.0, 86_400.0
A, B, C = b"a" * 3_000, b"b" * 2_000, b"c" * 1_000


async def bucket_of(store: Store, name: ContainerName = CONTAINER) -> ContainerInfo:
    """The container as it stands."""
    return await store.containers.read(name, deadline=soon(), max_age_s=0)


async def begin(store: Store, attributes: Attributes | None = None, key: bytes = KEY) -> UploadInfo:
    """Begin an upload."""
    bucket = await bucket_of(store)
    name = await store.multipart.create(bucket, key, attributes or {}, "note", deadline=soon())
    return await store.multipart.read_open(bucket, key, name.id, deadline=soon())


async def send(store: Store, upload: UploadInfo, number: int, body: bytes, **options: Any) -> ObjectInfo:
    """Send a part."""
    return await store.multipart.put_part(upload, number, Sent(body, **options), deadline=soon())


async def parts_of(store: Store, upload: UploadInfo) -> list[StoredPart]:
    """All parts as they stand."""
    return (await store.multipart.parts(upload.name, deadline=soon()))[0]


async def complete(
    store: Store,
    upload: UploadInfo,
    numbers: Sequence[int] | None = None,
    fingerprint: str = "all",
    **options: Any,
) -> ObjectInfo:
    """Complete an upload with some of its parts, or all."""
    found = [one.part for one in await parts_of(store, upload) if numbers is None or one.number in numbers]
    attributes = {**upload.attributes, "etag": f"{fingerprint}-{len(found)}"}
    return await store.multipart.complete(upload, found, fingerprint, attributes, deadline=soon(), **options)


async def hidden_rows(store: Store, bucket: ContainerInfo) -> list[bytes]:
    """What stands beside a bucket."""
    try:
        return await names(store, container=hidden_beside(bucket.name, bucket.incarnation))
    except NoSuchContainer:
        return []


async def marks(store: Store) -> list[bytes]:
    """The marks that stand."""
    found = []
    for shard in range(SHARDS):
        try:
            found += await names(store, container=ContainerName(FREEING, shard_name(shard)))
        except NoSuchContainer:
            continue
    return found


async def free_after(store: Store, seconds: float) -> None:
    """Let time pass, and free what is due."""
    await asyncio.sleep(seconds)
    await store.freeing.free_all()


async def free_everything(store: Store) -> None:
    """Let all graces pass, and free again and again: what one pass leaves for later, the next one does."""
    for _ in range(4):
        await free_after(store, READ_S + 1)


def hash_of(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


# --- what an upload becomes --------------------------------------------------------------------------------------------


def test_parts_become_one_object_that_reads_as_their_sum() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin(store, {"type": "text/x", "meta:a": "b"})
        for number, body in ((3, C), (1, A), (2, B)):
            await send(store, upload, number, body)
        assert await names(store) == [], "nothing is there before it is complete"
        done = await complete(store, upload)
        assert await get(store, KEY) == A + B + C
        info, stored = await store.objects.read(named(KEY), deadline=soon())
        assert (info.size, info.content_type, info.attributes["meta:a"]) == (6_000, "text/x", "b")
        assert (done.size, done.etag) == (6_000, info.etag)
        page = await store.containers.list(CONTAINER, Query(), deadline=soon())
        assert [(row.name, row.size) for row in page.items if isinstance(row, ListedObject)] == [(KEY, 6_000)]
        for start, stop in ((0, 1), (2_999, 3_001), (2_999, 5_001), (4_000, 4_000), (5_999, 6_000)):
            chunks: Any = stored.stream(start, stop)
            async with aclosing(chunks):
                found = b"".join([bytes(chunk) async for chunk in chunks])
            assert found == (A + B + C)[start:stop]

    play(scenario)
