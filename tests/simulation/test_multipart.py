"""Uploads of many parts over the whole domain in virtual time: what they become, what ends them, and what they leave behind."""

import asyncio
import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from proxy.store import manifests
from proxy.store.containers import ALL, HAS_MANIFESTS, SOON
from proxy.store.errors import (
    BodyGone,
    ConditionFailed,
    NoSuchContainer,
    NoSuchObject,
    NoSuchUpload,
    OutcomeUnknown,
    StoreError,
    Unavailable,
)
from proxy.store.manifest_bodies import manifest_of
from proxy.store.manifests import Manifest, Origin
from proxy.store.marks import Graces
from proxy.store.multipart import OF_KEY, StoredPart, UploadInfo
from proxy.store.names import ContainerName, ObjectName
from proxy.store.store import Store
from proxy.store.upload_names import FREEING, SHARDS, hidden_beside, shard_name
from proxy.store.upload_states import COMPLETED
from proxy.store.values import Attributes, ContainerInfo, ListedObject, ObjectInfo
from storage_node.keys import Key as StoredKey
from storage_node.store import Offered
from storage_node.updater import GRACE_S, GRACE_SPREAD_S, Updater
from swiftlike.entries import Entry, pack_metadata
from swiftlike.limits import PARTS_MAX
from swiftlike.node_calls import Query, objects
from swiftlike.timestamps import Ballot, Offer
from tests.simulation.linearizability import Call, Ended, Kind, Value, is_linearizable
from tests.simulation.quorum_cluster import SimulatedDevice
from tests.simulation.store_cluster import (
    CONTAINER,
    Scenario,
    Sent,
    StoreCluster,
    create,
    delete,
    get,
    named,
    names,
    now_us,
    put,
    read_body,
    soon,
)
from tests.simulation.store_cluster import play as play_with

KEY = b"a/key"
WRITE_S, READ_S = 120.0, 1_200.0
"""Shorter than in life, in which nothing happens for most of the time."""
PARTS = int(os.environ.get("PARTS", "2500"))
A, B, C = b"a" * 3_000, b"b" * 2_000, b"c" * 1_000


def play(scenario: Scenario, seed: int = 7) -> None:
    """Run a scenario with short graces."""
    play_with(scenario, seed=seed, graces=Graces(WRITE_S, READ_S))


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


@contextmanager
def forgetting_the_end(store: Store) -> Iterator[None]:
    """Have whoever completes an upload here die behind the object and before the record that says so."""
    end = store.multipart.ending.finish

    async def die(*args: Any, **options: Any) -> None:
        raise OutcomeUnknown("died")

    store.multipart.ending.finish = die  # type: ignore[method-assign]  # the unlucky moment
    try:
        yield
    finally:
        store.multipart.ending.finish = end  # type: ignore[method-assign]


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


def test_the_part_that_was_sent_last_counts_whatever_the_clocks_say() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin(store)
        ahead = await world.proxy("ahead", skew_s=20.0)
        await send(ahead, upload, 1, A)
        await send(store, upload, 1, B)
        (part,) = await parts_of(store, upload)
        assert (part.part.size, part.part.etag) == (len(B), hash_of(B))

    play(scenario)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_parts_are_listed_by_number_each_once(limit: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin(store)
        for number in (1, 2, 2, 10, 10_000, 1, 9_999):
            await send(store, upload, number, b"%d" % number)
        found: list[int] = []
        while True:
            page, has_more = await store.multipart.parts(
                upload.name, deadline=soon(), after=found[-1] if found else 0, limit=limit
            )
            found += [one.number for one in page]
            assert all(one.part.etag == hash_of(b"%d" % one.number) for one in page)
            if not has_more:
                break
        assert found == [1, 2, 10, 9_999, 10_000]

    play(scenario)


def test_names_may_be_as_long_as_names_can_be() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        container = ContainerName(b"a" * 256, b"C" * 63)  # as long as a bucket
        await create(store, container)
        bucket = await bucket_of(store, container)
        key = b"k" * 1024
        name = await store.multipart.create(bucket, key, {}, "", deadline=soon())
        upload = await store.multipart.read_open(bucket, key, name.id, deadline=soon())
        for number in (1, 1, 10_000):
            await send(store, upload, number, A)
        await complete(store, upload)
        assert [row.key for row in (await listed(store, bucket))] == []
        info, body = await store.objects.read(named(key, container), deadline=soon())
        assert await read_body(body, info.size) == A + A
        await store.objects.delete(named(key, container), deadline=soon())
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []

    play(scenario)


async def listed(store: Store, bucket: ContainerInfo, **options: Any) -> list[Any]:
    """The uploads that are open."""
    return list((await store.multipart.list(bucket, deadline=soon(), **options)).items)


def test_what_an_upload_is_completed_as_is_told_again_until_it_is_forgotten() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store, {"sys:checksum-x": "y"})
        await send(store, upload, 1, A)

        async def told(fingerprint: str = "all") -> Any:
            return await store.multipart.completed(bucket, KEY, upload.name.id, fingerprint, deadline=soon())

        assert not await told()
        await complete(store, upload)
        expected = {"etag": "all-1", "sys:checksum-x": "y"}
        assert await told() == expected
        assert await told("other") is None
        await delete(store, KEY)
        assert await told() == expected, "although the object is gone"
        await free_everything(store)
        assert await told() is None

    play(scenario)


def test_the_object_tells_what_it_was_completed_as_when_the_record_is_gone() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        await send(store, upload, 1, A)
        await complete(store, upload)
        await free_everything(store)
        assert len(await hidden_rows(store, bucket)) == 1, "the part alone"
        told = await store.multipart.completed(bucket, KEY, upload.name.id, "all", deadline=soon())
        assert told is not None
        assert told["etag"] == "all-1"

    play(scenario)


def test_a_completion_that_is_repeated_meets_no_condition_of_its_own_making() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin(store)
        await send(store, upload, 1, A)
        with forgetting_the_end(store), pytest.raises(OutcomeUnknown):
            await complete(store, upload, condition=lambda found: found is None)
        assert await get(store, KEY) == A
        await complete(store, upload, condition=lambda found: found is None)
        with pytest.raises(NoSuchUpload):
            await complete(store, upload, condition=lambda found: found is None)
        other = await begin(store)
        await send(store, other, 1, B)
        with pytest.raises(ConditionFailed):
            await complete(store, other, condition=lambda found: found is None)
        assert await get(store, KEY) == A

    play(scenario)


# --- what ends an upload -----------------------------------------------------------------------------------------------


def test_an_upload_that_is_over_takes_nothing() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await bucket_of(store)
        for ending in ("abort", "complete"):
            upload = await begin(store)
            await send(store, upload, 1, A)
            if ending == "abort":
                await store.multipart.abort(bucket, KEY, upload.name.id, deadline=soon())
                await store.multipart.abort(bucket, KEY, upload.name.id, deadline=soon())
            else:
                await complete(store, upload)
                with pytest.raises(NoSuchUpload):
                    await store.multipart.abort(bucket, KEY, upload.name.id, deadline=soon())
            with pytest.raises(NoSuchUpload):
                await send(store, upload, 1, B)
            with pytest.raises(NoSuchUpload):
                await store.multipart.read_open(bucket, KEY, upload.name.id, deadline=soon())

    play(scenario)


def test_a_part_that_is_under_way_while_its_upload_ends_is_not_taken() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        sending = asyncio.ensure_future(send(store, upload, 1, A, pieces=10, pause_s=1.0))
        await asyncio.sleep(5.0)
        await store.multipart.abort(bucket, KEY, upload.name.id, deadline=soon())
        with pytest.raises(NoSuchUpload):
            await sending
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []

    play(scenario)


def test_an_upload_is_over_with_its_bucket() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        before, upload = await bucket_of(store), await begin(store)
        await send(store, upload, 1, A)
        await store.containers.delete(CONTAINER, deadline=soon())
        with pytest.raises(NoSuchContainer):
            await complete(store, upload)
        await create(store)
        bucket = await bucket_of(store)
        with pytest.raises(NoSuchUpload):
            await store.multipart.read(bucket, KEY, upload.name.id, deadline=soon())
        with pytest.raises(NoSuchContainer):
            await complete(store, upload)
        assert await names(store) == [], "parts of the old bucket are nothing in the new one"
        assert await listed(store, bucket) == []
        await free_after(store, READ_S - 60)
        assert len(await hidden_rows(store, before)) == 2
        await free_everything(store)
        assert await hidden_rows(store, before) == []
        assert await marks(store) == []

    play(scenario)


@pytest.mark.parametrize(("said", "left"), [(SOON, 0), (ALL, 1)])
def test_an_upload_cannot_be_begun_in_a_bucket_that_goes_away_and_leaves_nothing(
    said: str, left: int
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        before = await bucket_of(store)
        original = store.multipart._containers.describe

        async def describe_and_lose(*args: Any, **options: Any) -> Any:
            found = await original(*args, **options)
            if found.attributes[HAS_MANIFESTS] == said:
                await store.containers.delete(CONTAINER, deadline=soon())
                await free_everything(store)
            return found

        store.multipart._containers.describe = describe_and_lose  # type: ignore[method-assign]  # the unlucky moment
        with pytest.raises(NoSuchContainer):
            await store.multipart.create(before, KEY, {}, "", deadline=soon() + 1e6)
        assert len(await hidden_rows(store, before)) == left
        await free_everything(store)
        assert await hidden_rows(store, before) == []

    play(scenario)


def test_a_bucket_that_gets_its_first_upload_while_it_is_deleted_is_marked_all_the_same() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        before = await bucket_of(store)
        marked = store.buckets._containers
        beneath = marked._beneath  # type: ignore[attr-defined]  # the moment between the look and the delete
        original = beneath.read

        async def read_and_begin(*args: Any, **options: Any) -> Any:
            found = await original(*args, **options)
            beneath.read = original
            await store.multipart.create(before, KEY, {}, "", deadline=soon())
            return found

        beneath.read = read_and_begin
        await marked.delete(CONTAINER, deadline=soon())
        assert len(await hidden_rows(store, before)) == 1
        await free_everything(store)
        assert await hidden_rows(store, before) == []

    play(scenario)


# --- what is left behind -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["put", "delete", "copy", "multipart"])
def test_parts_of_an_object_that_is_replaced_are_kept_for_a_day_and_then_go(ending: str) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        for number, body in enumerate((A, B), 1):
            await send(store, upload, number, body)
        await complete(store, upload)
        await free_after(store, WRITE_S * 2)
        info, reading = await store.objects.read(named(KEY), deadline=soon())
        other = None
        match ending:
            case "put":
                await put(store, KEY, b"new")
            case "delete":
                await delete(store, KEY)
            case "copy":
                await put(store, b"source", b"new")
                await store.objects.copy(
                    named(b"source"), named(KEY), lambda one, got: Sent(b"").finish(got), deadline=soon()
                )
            case "multipart":
                other = await begin(store)
                await send(store, other, 1, b"new")
                await complete(store, other)
        await free_after(store, READ_S - 60)
        assert await read_body(reading, info.size) == A + B, "whoever has begun to read reads on"
        if ending != "delete":
            assert await get(store, KEY) == b"new"
        await free_everything(store)
        assert len(await hidden_rows(store, bucket)) == (1 if other else 0)
        assert await marks(store) == []
        if ending != "delete":
            assert await get(store, KEY) == b"new"

    play(scenario)


def test_attempts_that_another_replaced_go_while_the_upload_is_open() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        for body in (A, B, C):
            await send(store, upload, 1, body)
        await send(store, upload, 2, A)
        assert len(await hidden_rows(store, bucket)) == 5
        await free_after(store, WRITE_S - 60)
        assert len(await hidden_rows(store, bucket)) == 5, "a completion may be under way that names them"
        await free_after(store, 61 + 60)
        assert len(await hidden_rows(store, bucket)) == 3
        assert await marks(store) == []
        await complete(store, upload)
        assert await get(store, KEY) == C + A

    play(scenario)


def test_parts_that_a_completion_left_out_go() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        for number, body in enumerate((A, B, C), 1):
            await send(store, upload, number, body)
        await complete(store, upload, [1, 3])
        await free_everything(store)
        assert len(await hidden_rows(store, bucket)) == 2
        assert await get(store, KEY) == A + C

    play(scenario)


def test_an_object_that_is_replaced_while_its_mark_is_looked_at_keeps_its_day() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin(store)
        await send(store, upload, 1, A)
        await complete(store, upload)
        info, reading = await store.objects.read(named(KEY), deadline=soon())
        original, clock = store.freeing._parts, asyncio.get_running_loop().time
        replaced_at: list[float] = []

        async def parts_and_replaced(*args: Any) -> Any:
            found = await original(*args)
            await put(store, KEY, b"new")
            replaced_at.append(clock())
            return found

        store.freeing._parts = parts_and_replaced  # type: ignore[method-assign,assignment]  # between two of its looks
        await free_after(store, WRITE_S * 2)
        store.freeing._parts = original  # type: ignore[method-assign]
        await free_after(
            store, replaced_at[0] + READ_S - 60 - clock()
        )  # the job may have come to the mark by itself
        assert await read_body(reading, info.size) == A

    play(scenario)


def test_readers_keep_their_day_when_the_bucket_goes_too() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        await send(store, upload, 1, A)
        await complete(store, upload)
        other = await begin(store, key=b"other")
        await send(store, other, 1, B)
        await store.multipart.abort(bucket, b"other", other.name.id, deadline=soon())
        info, reading = await store.objects.read(named(KEY), deadline=soon())
        await delete(store, KEY)
        await store.containers.delete(CONTAINER, deadline=soon())
        await free_after(store, READ_S - 60)
        assert await read_body(reading, info.size) == A
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []
        assert await marks(store) == []

    play(scenario)


def test_a_manifest_that_nobody_can_read_is_left_and_stops_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await bucket_of(store)
        broken, upload = await begin(store, key=b"broken"), await begin(store)
        for one in (broken, upload):
            for body in (A, B):
                await send(store, one, 1, body)
        pack = manifests.pack
        manifests.pack = lambda manifest: b"\x91\x02"  # a version that is to come
        try:
            await complete(store, broken)
        finally:
            manifests.pack = pack
        await complete(store, upload)
        await free_everything(store)
        assert len(await hidden_rows(store, bucket)) == 4, "of the other one only what is named"
        assert "cannot be read" in caplog.text

    play(scenario)


async def accept_on_one(
    world: StoreCluster,
    store: Store,
    name: ObjectName,
    attributes: Attributes,
    body: bytes,
    device: SimulatedDevice,
) -> None:
    """Write an object as a proxy does that dies when one owner alone has heard of it."""
    registers, bucket = world.registers["proxy"], await bucket_of(store, name.parent)
    write_id = registers.new_write_id()
    entry = Entry(
        Ballot(bucket.incarnation + registers.clock.issue()),
        write_id,
        now_us(),
        body_id=write_id,
        size=len(body),
        metadata=pack_metadata(dict(attributes)),
        policy=bucket.policy,
    )
    stored = StoredKey(objects(bucket.policy), name.path)
    await device.store.offer(Offered(stored, entry, Offer.FIRST, body, owing=True))


async def pay_all(world: StoreCluster, store: Store) -> None:
    """Let the devices' updaters pay all debts that they can."""
    await asyncio.sleep(GRACE_S + GRACE_SPREAD_S + 1)
    for device in world.cluster.devices:
        updater = Updater(device.store, store.payer, world.cluster.read_us(), world.cluster.random)
        for _ in range(20):
            await updater.walk()
            if not updater.left:
                break


# --- proxies and devices that die --------------------------------------------------------------------------------------


def test_a_completion_that_reached_one_owner_never_comes_back_after_its_parts_are_freed() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        await send(store, upload, 1, A)
        away = world.cluster.devices[2]
        manifest = Manifest(one.part for one in await parts_of(store, upload))
        origin = Origin(upload.name.id, "all", bucket.incarnation)
        attributes = manifests.attributes_for(manifest, origin)
        name, body = upload.name.target, manifests.pack(manifest)
        await accept_on_one(world, store, name, attributes, body, away)
        assert await names(store) == []
        await world.cluster.network.crash(away.name)
        await store.multipart.abort(bucket, KEY, upload.name.id, deadline=soon())
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []
        world.cluster.network.restart(away.name)
        await pay_all(world, store)
        with pytest.raises(NoSuchObject):
            await get(store, KEY)
        assert await names(store) == []

    play(scenario)


def test_a_part_that_comes_to_be_listed_long_after_its_upload_was_freed_goes_too() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        await send(store, upload, 1, A)
        away = world.cluster.devices[2]
        late = upload.name.part(2, f"{now_us():016x}00000000")
        attributes = {"etag": hash_of(B), "type": "", OF_KEY: KEY.decode()}
        await accept_on_one(world, store, late, attributes, B, away)
        await world.cluster.network.crash(away.name)
        await store.multipart.abort(bucket, KEY, upload.name.id, deadline=soon())
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []
        world.cluster.network.restart(away.name)
        await pay_all(world, store)
        assert await hidden_rows(store, bucket) == [late.name]
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []

    play(scenario)


@pytest.mark.parametrize("dies_at", range(1, 30, 2))
def test_a_proxy_may_die_at_any_moment_of_a_completion(dies_at: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        dying = await world.proxy("dying")
        bucket, upload = await bucket_of(store), await begin(store)
        for number, body in enumerate((A, B), 1):
            await send(store, upload, number, body)
        completing = asyncio.ensure_future(complete(dying, upload))
        await asyncio.sleep(dies_at * 0.01)
        completing.cancel()
        await asyncio.gather(completing, return_exceptions=True)
        try:
            found = await get(store, KEY)
        except NoSuchObject:
            found = b""
        assert found in (b"", A + B), "all of it or nothing"
        again = await store.multipart.read(bucket, KEY, upload.name.id, deadline=soon())
        if again.state != COMPLETED:
            await complete(store, again)
        assert await get(store, KEY) == A + B
        await pay_all(world, store)
        await free_everything(store)
        assert await get(store, KEY) == A + B
        assert len(await hidden_rows(store, bucket)) == 2
        assert await marks(store) == []
        await delete(store, KEY)
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []

    play(scenario)


def test_an_upload_whose_completer_died_is_closed_in_time() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        await send(store, upload, 1, A)
        with forgetting_the_end(store), pytest.raises(OutcomeUnknown):
            await complete(store, upload)
        assert await get(store, KEY) == A
        assert [one.id for one in await listed(store, bucket)] == [upload.name.id]
        await free_everything(store)
        assert await listed(store, bucket) == []
        assert await marks(store) == []
        assert await get(store, KEY) == A
        told = await store.multipart.completed(bucket, KEY, upload.name.id, "all", deadline=soon())
        assert told is not None
        assert told["etag"] == "all-1"

    play(scenario)


@pytest.mark.parametrize("seed", range(12))
def test_uploads_in_bad_weather_end_as_they_were_told_to_and_leave_nothing(seed: int) -> None:
    """Clients of two proxies, one of which dies in the middle of things, over devices of which one at a time is down.

    What was acknowledged is what can be read. What was not, may be done at any later time, or never: a frame may be on its
    way while its client is dead. In the end nothing stands beside the bucket but the parts that objects name.
    """

    async def scenario(world: StoreCluster, store: Store) -> None:
        dice = random.Random(seed)
        await create(store)
        bucket = await bucket_of(store)
        stores = [store, await world.proxy("other", skew_s=dice.uniform(-3, 3))]
        keys = [b"a", b"b"]
        histories: dict[bytes, list[Call]] = {key: [] for key in keys}
        written: list[bytes] = [b""]
        """What was ever put anywhere, by the number of the call."""
        clock = asyncio.get_running_loop().time

        repeats: list[asyncio.Task[None]] = []

        async def write(key: bytes, value: bytes, work: Any, call: Call | None = None) -> None:
            call = call or Call(Kind.PUT if value else Kind.DELETE, clock(), len(written))
            histories[key].append(call)
            written.append(value)
            task = asyncio.ensure_future(work)
            if dice.random() < 0.25:
                await asyncio.wait((task,), timeout=dice.random() * 0.4)
                task.cancel()
            try:
                await task
            except (asyncio.CancelledError, Unavailable, OutcomeUnknown, BodyGone):
                return
            if call.outcome is not Ended.DONE:
                call.ended, call.outcome = clock(), Ended.DONE

        async def upload_one(key: bytes) -> None:
            each = dice.choice(stores)
            try:
                name = await each.multipart.create(bucket, key, {}, "", deadline=soon())
                upload = await each.multipart.read_open(bucket, key, name.id, deadline=soon())
            except StoreError:
                return
            sent: dict[int, bytes] = {}
            for _ in range(dice.randrange(1, 6)):
                number, body = dice.randrange(1, 4), dice.randbytes(dice.randrange(1, 2_000))
                task = asyncio.ensure_future(send(dice.choice(stores), upload, number, body))
                if dice.random() < 0.15:
                    await asyncio.wait((task,), timeout=dice.random() * 0.3)
                    task.cancel()
                try:
                    await task
                except (asyncio.CancelledError, StoreError):
                    return  # nobody knows which part there is: the upload is left as it is, or given up below
                sent[number] = body
            each = dice.choice(stores)
            if dice.random() < 0.2:
                with suppress(StoreError):
                    await each.multipart.abort(bucket, key, name.id, deadline=soon())
                return
            whole = b"".join(sent[number] for number in sorted(sent))
            try:
                found = [one.part for one in await parts_of(each, upload)]
            except StoreError:
                return

            async def once_more() -> None:
                one, told = dice.choice(stores).multipart, {"etag": f"all-{len(found)}"}
                try:
                    await one.complete(upload, found, "all", told, deadline=soon())
                except NoSuchUpload:  # by now
                    before = await one.completed(bucket, key, name.id, "all", deadline=soon())
                    if before is None:
                        raise
                    assert before["etag"] == told["etag"]

            call = Call(Kind.PUT, clock(), len(written))
            times = dice.choice((0, 0, 1, 2))
            repeats.extend(asyncio.ensure_future(repeat(call, once_more)) for _ in range(times))
            await write(key, whole, once_more(), call)

        async def repeat(call: Call, work: Any) -> None:
            """What a client does that was not answered; it is the same write, and no other."""
            await asyncio.sleep(dice.random() * dice.choice((0.01, 0.3, 2.0)))
            try:
                await work()
            except StoreError:
                return
            if call.outcome is not Ended.DONE:
                call.ended, call.outcome = clock(), Ended.DONE

        async def dawdle(beneath: Any, *args: Any, **options: Any) -> Any:
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 2)
            return await beneath(*args, **options)

        for each in stores:
            each.objects.put_manifest = partial(dawdle, each.objects.put_manifest)  # type: ignore[method-assign]  # others come between

        async def check(key: bytes) -> None:
            call = Call(Kind.READ, clock())
            try:
                body = await get(dice.choice(stores), key)
                call.found = Value(written.index(body), written.index(body))
            except NoSuchObject:
                pass
            except (Unavailable, BodyGone):
                return
            call.ended, call.outcome = clock(), Ended.DONE
            histories[key].append(call)

        async def client(key: bytes) -> None:
            for _ in range(12):
                match dice.randrange(8):
                    case 0:
                        value = dice.randbytes(50)
                        each = dice.choice(stores)
                        await write(key, value, each.objects.put(named(key), Sent(value), deadline=soon()))
                    case 1:
                        await write(key, b"", dice.choice(stores).objects.delete(named(key), deadline=soon()))
                    case 2:
                        await asyncio.sleep(dice.choice([1, WRITE_S, READ_S]) * dice.random() * 2)
                        with suppress(StoreError):
                            await dice.choice(stores).freeing.free_all()
                    case 3:
                        await check(key)
                    case _:
                        await upload_one(key)
                await check(key)

        async def weather() -> None:
            network = world.cluster.network
            while True:
                await asyncio.sleep(dice.random() * 5)
                device = dice.choice(world.cluster.devices)
                await network.crash(device.name, silent=dice.random() < 0.5)
                await asyncio.sleep(dice.random() * 5)
                network.restart(device.name)
                await asyncio.sleep(1.0)

        world.way.loss_chance = dice.choice([0.0, 0.01])
        raging = asyncio.ensure_future(weather())
        async with asyncio.TaskGroup() as clients:
            for key in keys:
                clients.create_task(client(key))
        await asyncio.gather(*repeats)
        raging.cancel()
        await asyncio.gather(raging, return_exceptions=True)
        world.way.loss_chance = 0.0
        for device in world.cluster.devices:
            if not world.cluster.network.is_powered(device.name):
                world.cluster.network.restart(device.name)
        await pay_all(world, store)
        await asyncio.sleep(WRITE_S)  # what was being completed by one who died can be given up then
        for one in await listed(store, bucket):
            await store.multipart.abort(bucket, one.key, one.id, deadline=soon())
        await free_everything(store)
        kept = 0
        for key in keys:
            await check(key)
            assert is_linearizable(histories[key]), histories[key]
            with suppress(NoSuchObject):
                _, body = await store.objects.read(named(key), deadline=soon())
                manifest = await manifest_of(body)
                kept += 0 if manifest is None else len(manifest.parts)
        assert len(await hidden_rows(store, bucket)) == kept, "what no object names has gone"
        assert await marks(store) == []
        for key in keys:
            await delete(store, key)
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []
        await store.containers.delete(CONTAINER, deadline=soon())
        await free_everything(store)
        assert await marks(store) == []

    play(scenario, seed=seed)


def test_an_object_has_thousands_of_parts_which_all_go_with_it() -> None:
    """On one owner, since it is the numbers that are tested here; `make bench-parts` has all 10,000."""

    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin(store)
        numbers = range(PARTS_MAX, 0, -(PARTS_MAX // PARTS))
        shuffled = random.Random(1).sample(numbers, len(numbers))
        for at in range(0, len(shuffled), 50):
            each = shuffled[at : at + 50]
            await asyncio.gather(*(send(store, upload, number, b"%d" % number) for number in each))
        await send(store, upload, PARTS_MAX, b"%d" % PARTS_MAX)
        assert [one.number for one in await parts_of(store, upload)] == sorted(numbers)
        await complete(store, upload)
        assert await get(store, KEY) == b"".join(b"%d" % number for number in sorted(numbers))
        await free_everything(store)
        page = await store.containers.usage(hidden_beside(bucket.name, bucket.incarnation), deadline=soon())
        assert page.objects == len(numbers), "the record has gone, and the part that was sent again"
        await delete(store, KEY)
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []
        assert await marks(store) == []

    play_with(scenario, owners=1, graces=Graces(WRITE_S, READ_S))
