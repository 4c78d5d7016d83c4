"""Many who would end one upload at once, in virtual time: one does, whoever is first, whoever dies, and whatever the network does.

What is raced for is what somebody is told: an upload that was given up is not completed, and one that was completed is so with
the parts of everybody who was told that it is.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import permutations
from typing import Any, NamedTuple

import pytest

from proxy.store import manifests
from proxy.store.containers import HAS_MANIFESTS
from proxy.store.errors import (
    ConditionFailed,
    NoSuchObject,
    NoSuchUpload,
    OutcomeUnknown,
    StoreError,
    Unavailable,
    UploadClaimed,
)
from proxy.store.manifests import Manifest, Origin
from proxy.store.marks import Graces
from proxy.store.multipart import Multipart, UploadInfo
from proxy.store.store import Store
from proxy.store.upload_states import CLAIMS_MAX, OPEN
from proxy.store.values import Description, ObjectInfo
from tests.simulation.quorum_cluster import LossyTransport
from tests.simulation.store_cluster import (
    CONTAINER,
    Sent,
    StoreCluster,
    create,
    delete,
    get,
    named,
    put,
    soon,
)
from tests.simulation.test_multipart import (
    KEY,
    READ_S,
    WRITE_S,
    A,
    B,
    accept_on_one,
    begin,
    bucket_of,
    free_everything,
    hidden_rows,
    listed,
    marks,
    parts_of,
    pay_all,
    play,
    send,
)

FIRST, BOTH = "first", "both"
"""What completions ask for: the first part alone, or both. The fingerprints, too."""
BODIES = {FIRST: A, BOTH: A + B}
ABORTED, OVER, CLAIMED, UNKNOWN, REFUSED = "aborted", "over", "claimed", "unknown", "refused"
Gate = Callable[[str], Awaitable[None]]


class Gated:
    """The objects of the store, each call to which passes a gate before, and another behind."""

    def __init__(self, beneath: Any, gate: Gate) -> None:
        self.marks = beneath.marks
        self._beneath = beneath
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._beneath, name)

        async def gated(*args: Any, **options: Any) -> Any:
            await self._gate(f"before {name}")
            try:
                return await call(*args, **options)
            finally:
                await self._gate(f"behind {name}")

        return gated


def through(store: Store, gate: Gate, now: Callable[[], float] | None = None) -> Multipart:
    """The uploads of a proxy that can be stopped between any two things that it does."""
    clock = store.multipart._now_us
    loop_time = now or asyncio.get_running_loop().time
    gated: Any = Gated(store.objects, gate)
    return Multipart(
        gated, store.containers, Graces(WRITE_S, READ_S), clock, loop_time, random.Random(1).randbytes
    )


async def end(multipart: Multipart, upload: UploadInfo, how: str, **options: Any) -> str:
    """End an upload in one of the ways, and return what is told."""
    bucket = await multipart._containers.read(CONTAINER, deadline=soon(), max_age_s=0)
    try:
        if how == ABORTED:
            await multipart.abort(bucket, upload.name.key, upload.name.id, deadline=soon())
            return ABORTED
        found = await multipart.read_open(bucket, upload.name.key, upload.name.id, deadline=soon())
        parts = [one.part for one in (await multipart.parts(upload.name, deadline=soon()))[0]]
        chosen = parts[:1] if how == FIRST else parts
        await multipart.complete(found, chosen, how, {"etag": how}, deadline=soon(), **options)
    except NoSuchUpload:
        told = await multipart.completed(bucket, upload.name.key, upload.name.id, how, deadline=soon())
        return OVER if told is None else how
    except UploadClaimed:
        return CLAIMED
    except ConditionFailed:
        return REFUSED
    except (OutcomeUnknown, Unavailable):
        return UNKNOWN
    return how


async def begin_both(store: Store, key: bytes = KEY) -> UploadInfo:
    """Begin an upload of two parts."""
    upload = await begin(store, key=key)
    await send(store, upload, 1, A)
    await send(store, upload, 2, B)
    return upload


async def what_stands(store: Store, key: bytes = KEY) -> bytes:
    """The body of an object; empty: there is none."""
    try:
        return await get(store, key)
    except NoSuchObject:
        return b""


# --- every order of the steps of two -----------------------------------------------------------------------------------


def orders(*steps: int) -> Iterator[tuple[int, ...]]:
    """All orders in which contenders take so many steps each."""
    if not any(steps):
        yield ()
    for who, left in enumerate(steps):
        if left:
            rest = (*steps[:who], left - 1, *steps[who + 1 :])
            yield from ((who, *further) for further in orders(*rest))


class Turns:
    """Contenders of whom only one is at work at a time, by an order that is given; who has no turn left goes on when all have."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = list(order)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    def gate(self, who: int) -> Gate:
        async def wait(step: str) -> None:
            if step.startswith("before"):
                self._waiting[who] = asyncio.get_running_loop().create_future()
                await self._waiting[who]

        return wait

    async def play(self, contenders: Sequence[Awaitable[str]]) -> list[str]:
        """Let them do it; return what each was told."""
        tasks = [asyncio.ensure_future(one) for one in contenders]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.5)  # by now, whoever had a turn waits for his next
            whose = next((who for who in self._order if who in self._waiting), None)
            if whose is None and self._waiting:
                whose = min(self._waiting)
            if whose is not None:
                if whose in self._order:
                    self._order.remove(whose)
                self._waiting.pop(whose).set_result(None)
        return [task.result() for task in tasks]


@pytest.mark.parametrize(("one", "other"), [(FIRST, BOTH), (BOTH, ABORTED), (BOTH, BOTH), (ABORTED, ABORTED)])
def test_of_two_who_end_an_upload_one_does_in_every_order_of_their_steps(one: str, other: str) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await bucket_of(store)
        steps = [2 if how == ABORTED else 5 for how in (one, other)]
        seen = set[tuple[str, ...]]()
        for number, order in enumerate(orders(*steps)):
            if one == other and order[0]:
                continue  # who would do the same are told apart by whose turn is first
            key = b"%d" % number
            upload = await begin_both(store, key)
            turns = Turns(order)
            ends = [end(through(store, turns.gate(who)), upload, how) for who, how in enumerate((one, other))]
            told = await turns.play(ends)
            seen.add(tuple(told))
            winners = set(told) & {FIRST, BOTH, ABORTED}
            assert len(winners) == 1, f"{order}: {told}"
            assert await what_stands(store, key) == BODIES.get(winners.pop(), b""), f"{order}: {told}"
            if one == other:
                assert set(told) == {one}, f"{order}: whoever asks for the same is told the same: {told}"
        assert await listed(store, bucket) == []
        if one != other:
            assert {told.index(one) for told in seen if one in told} == {0}
            assert {other in told for told in seen} == {True, False}, "either may win"
            assert any(CLAIMED in told for told in seen)

    play(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_of_three_one_does_in_any_order_of_their_steps(seed: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        dice = random.Random(seed)
        await create(store)
        for number in range(25):
            key = b"%d" % number
            upload = await begin_both(store, key)
            turns = Turns(dice.sample([0] * 5 + [1] * 5 + [2] * 2, 12))
            hows = dice.choice(list(permutations((FIRST, BOTH, ABORTED))))
            ends = [end(through(store, turns.gate(who)), upload, how) for who, how in enumerate(sorted(hows))]
            told = await turns.play(ends)
            winners = set(told) & {FIRST, BOTH, ABORTED}
            assert len(winners) == 1, told
            assert await what_stands(store, key) == BODIES.get(winners.pop(), b"")

    play(scenario)


# --- completers that die -----------------------------------------------------------------------------------------------


class Died(Exception):
    """The process is gone."""


def dying(at: str, call: int) -> Gate:
    """A gate at which a proxy dies, when it comes there for the so-manieth time."""
    left = call

    async def gate(step: str) -> None:
        nonlocal left
        if step == at:
            left -= 1
            if not left:
                raise Died

    return gate


class Death(NamedTuple):
    """Where a completer dies, and what is so then."""

    at: str
    call: int
    is_claimed: bool
    is_written: bool
    is_over: bool = False


DEATHS = {
    "before it claims": Death("before describe", 1, False, False),
    "behind its claim": Death("behind describe", 1, True, False),
    "before the object": Death("before put_manifest", 1, True, False),
    "behind the object": Death("behind put_manifest", 1, True, True),
    "before it says so": Death("before describe", 2, True, True),
    "behind that": Death("behind describe", 2, True, True, True),
}


@asynccontextmanager
async def dead(store: Store, death: Death) -> AsyncIterator[UploadInfo]:
    """An upload whose completer died."""
    upload = await begin_both(store)
    with pytest.raises(Died):
        await end(through(store, dying(death.at, death.call)), upload, BOTH)
    assert await what_stands(store) == (A + B if death.is_written else b"")
    yield upload


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
@pytest.mark.parametrize("how", [FIRST, BOTH, ABORTED])
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
def test_an_upload_whose_completer_died_is_ended_by_another(death: Death, how: str, waits: bool) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await bucket_of(store)
        async with dead(store, death) as upload:
            if waits:
                await asyncio.sleep(WRITE_S)
            told = await end(store.multipart, upload, how)
            if how == BOTH:
                assert told == BOTH, "the same goes on where the dead one was"
            elif death.is_written:
                assert told == OVER, "its object stands, whoever may still be about to say so"
            elif death.is_claimed and not waits:
                assert told == CLAIMED
                assert len(await listed(store, bucket)) == 1
                await send(store, upload, 3, b"more")
                assert await end(store.multipart, upload, BOTH) == BOTH
            else:
                assert told == how
            await pay_all(world, store)
            await free_everything(store)
            stands = await what_stands(store)
            assert stands == (
                BODIES.get(told) or (A + B if told == OVER else stands if told == CLAIMED else b"")
            )
            assert (
                len(await hidden_rows(store, bucket)) == {A: 1, A + B: 2, A + B + b"more": 3, b"": 0}[stands]
            )
            assert await marks(store) == []
            assert await listed(store, bucket) == []

    play(scenario)


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_an_upload_whose_completer_died_is_decided_in_time_when_nobody_asks(death: Death) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await bucket_of(store)
        async with dead(store, death) as upload:
            await free_everything(store)
            if death.is_written:
                assert await listed(store, bucket) == []
                assert await end(store.multipart, upload, BOTH) == BOTH, "the object remembers"
                assert await end(store.multipart, upload, ABORTED) == OVER
                return
            (one,) = await listed(store, bucket)
            found = await store.multipart.read(bucket, KEY, one.id, deadline=soon())
            assert found.state == OPEN
            assert len(await parts_of(store, upload)) == 2, "nothing of it is lost"
            assert await end(store.multipart, upload, FIRST) == FIRST

    play(scenario)


@pytest.mark.parametrize("is_away", [True, False], ids=["away", "there"])
def test_an_object_that_one_owner_heard_of_is_there_or_never_will_be_once_its_upload_is_decided(
    is_away: bool,
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await bucket_of(store)
        async with dead(store, DEATHS["behind its claim"]) as upload:
            device = world.cluster.devices[2]
            manifest = Manifest(one.part for one in await parts_of(store, upload))
            origin = Origin(upload.name.id, BOTH, bucket.incarnation)
            attributes = {"etag": BOTH, **manifests.attributes_for(manifest, origin)}
            await accept_on_one(
                world, store, upload.name.target, attributes, manifests.pack(manifest), device
            )
            # Where that owner is there, another is away, so that whoever asks must ask it.
            away = world.cluster.devices[2 if is_away else 0].name
            await world.cluster.network.crash(away)
            await asyncio.sleep(WRITE_S)
            assert await end(store.multipart, upload, ABORTED) == (ABORTED if is_away else OVER)
            world.cluster.network.restart(away)
            for _ in range(3):  # it is called again, and nothing is freed yet
                await store.objects.put(named(b"other"), Sent(b"other"), deadline=soon())
                await asyncio.sleep(1.0)
            await pay_all(world, store)
            assert await what_stands(store) == (b"" if is_away else A + B)
            await free_everything(store)
            assert await what_stands(store) == (b"" if is_away else A + B)
            assert len(await hidden_rows(store, bucket)) == (0 if is_away else 2)

    play(scenario)


def test_a_completer_that_stood_still_for_too_long_writes_nothing() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin_both(store)
        is_thawed = asyncio.Event()

        async def gate(step: str) -> None:
            if step == "before put_manifest":
                await is_thawed.wait()

        frozen = asyncio.ensure_future(end(through(store, gate), upload, BOTH))
        await asyncio.sleep(WRITE_S + 1)
        assert await end(store.multipart, upload, ABORTED) == ABORTED
        is_thawed.set()
        assert await frozen == UNKNOWN
        assert await what_stands(store) == b""

    play(scenario)


def test_a_completer_that_stood_still_between_its_two_rounds_writes_nothing() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin_both(store)
        ahead_s = 0.0

        async def gate(step: str) -> None:
            nonlocal ahead_s
            if step == "before put_manifest":
                ahead_s = WRITE_S  # as its own clock shows when it goes on

        loop = asyncio.get_running_loop()
        assert await end(through(store, gate, lambda: loop.time() + ahead_s), upload, BOTH) == UNKNOWN
        assert await what_stands(store) == b""
        assert await end(store.multipart, upload, ABORTED) == CLAIMED, (
            "another may be at work for all we know"
        )
        await asyncio.sleep(WRITE_S)
        assert await end(store.multipart, upload, ABORTED) == ABORTED

    play(scenario)


# --- what is written at the key meanwhile ------------------------------------------------------------------------------


async def put_new(store: Store) -> None:
    await store.objects.put(named(KEY), Sent(b"new"), deadline=soon())


async def delete_it(store: Store) -> None:
    await delete(store, KEY)


async def put_and_delete(store: Store) -> None:
    await put_new(store)
    await delete_it(store)


async def complete_another(store: Store) -> None:
    assert await end(store.multipart, await begin_both(store), FIRST) == FIRST


NEWER = {"put": put_new, "delete": delete_it, "put and delete": put_and_delete, "upload": complete_another}
"""What clients do at a key, and are told that it is done."""


@asynccontextmanager
async def held(store: Store, upload: UploadInfo, at: str, **options: Any) -> AsyncIterator[asyncio.Task[str]]:
    """A completer who stands still at a step, until this ends."""
    came, goes_on = asyncio.Event(), asyncio.Event()

    async def gate(step: str) -> None:
        if step == at:
            came.set()
            await goes_on.wait()

    task = asyncio.ensure_future(end(through(store, gate), upload, BOTH, **options))
    await came.wait()
    try:
        yield task
    finally:
        goes_on.set()
        await task


async def assert_nothing_else_is_left(world: StoreCluster, store: Store, parts: int) -> None:
    """All that stands beside the bucket is so many parts, once everything was freed; the key stays as it is."""
    stands = await what_stands(store)
    await pay_all(world, store)
    await free_everything(store)
    assert await what_stands(store) == stands
    bucket = await bucket_of(store)
    assert await listed(store, bucket) == []
    assert len(await hidden_rows(store, bucket)) == parts
    assert await marks(store) == []


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
@pytest.mark.parametrize("at", ["before describe", "behind describe", "before put_manifest"])
@pytest.mark.parametrize("is_conditional", [False, True], ids=["", "if none matches"])
def test_one_who_completes_what_another_has_completed_overwrites_nothing_newer(
    newer: Callable[[Store], Awaitable[None]], at: str, is_conditional: bool
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin_both(store)
        options = {"condition": is_absent} if is_conditional else {}
        async with held(store, upload, at, **options) as late:
            assert await end(store.multipart, upload, BOTH, **options) == BOTH
            assert await what_stands(store) == A + B
            await newer(store)
            stands = await what_stands(store)
        assert late.result() == BOTH, "both are told the same"
        assert await what_stands(store) == stands
        assert stands != A + B
        await assert_nothing_else_is_left(world, store, 1 if stands == A else 0)

    play(scenario)


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
def test_what_replaces_an_object_whose_completer_died_before_he_said_so_stands(
    newer: Callable[[Store], Awaitable[None]],
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await bucket_of(store)
        async with (
            dead(store, DEATHS["behind the object"]) as upload,
            held(store, upload, "before put_manifest") as late,
        ):
            await newer(store)
            stands = await what_stands(store)
            told = await store.multipart.completed(bucket, KEY, upload.name.id, BOTH, deadline=soon())
            assert told == {"etag": BOTH}, "the dead one's, who was not there to say it"
            assert await end(store.multipart, upload, BOTH) == BOTH
            assert await end(store.multipart, upload, FIRST) == OVER
            assert await end(store.multipart, upload, ABORTED) == OVER
        assert late.result() == BOTH
        assert await what_stands(store) == stands
        assert stands != A + B
        await assert_nothing_else_is_left(world, store, 1 if stands == A else 0)

    play(scenario)


@pytest.mark.parametrize(
    "is_first", [True, False], ids=["the first upload", "one that begins just behind it"]
)
def test_a_proxy_that_saw_the_bucket_before_its_first_upload_closes_what_it_replaces(
    is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossyTransport, "_delay_s", lambda self: 0.0)  # as fast as one may complete an upload

    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        before, other = await world.proxy("before"), await world.proxy("other")
        await put(other, b"warm")  # it believes for a moment what it saw of the bucket
        begun = [] if is_first else [asyncio.ensure_future(begin(before, key=b"elsewhere"))]
        while begun and HAS_MANIFESTS not in (await bucket_of(store)).attributes:  # noqa: ASYNC110 (looked at from outside)
            await asyncio.sleep(0.001)
        async with dead(store, DEATHS["behind the object"]) as upload:
            await put_new(other)
            assert await end(store.multipart, upload, BOTH) == BOTH
        assert await what_stands(store) == b"new", "whoever completes it again finds that it is over"
        await asyncio.gather(*begun)

    play(scenario)


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
def test_an_object_is_written_over_what_came_while_it_was_being_completed(
    newer: Callable[[Store], Awaitable[None]],
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await store.objects.put(named(KEY), Sent(b"old"), deadline=soon())
        upload = await begin_both(store)
        async with held(store, upload, "before put_manifest") as late:
            await newer(store)
        assert late.result() == BOTH
        assert await what_stands(store) == A + B
        await assert_nothing_else_is_left(world, store, 2)

    play(scenario)


def test_of_two_who_write_where_nothing_is_one_does_although_one_is_an_upload() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin_both(store)
        async with held(store, upload, "before put_manifest", condition=is_absent) as late:
            await store.objects.put(named(KEY), Sent(b"new"), deadline=soon(), condition=is_absent)
        assert late.result() == REFUSED
        assert await what_stands(store) == b"new"
        assert (await store.multipart.read(bucket, KEY, upload.name.id, deadline=soon())).state == OPEN
        assert await end(store.multipart, upload, BOTH) == BOTH
        assert await what_stands(store) == A + B

    play(scenario)


def test_what_is_described_anew_while_it_is_completed_again_stays_so() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        async with dead(store, DEATHS["behind the object"]) as upload:

            def describe(info: ObjectInfo) -> Description:
                return Description({**info.attributes, "meta:a": "b"})

            await store.objects.describe(named(KEY), describe, deadline=soon())
            assert await end(store.multipart, upload, BOTH) == BOTH
            info, _ = await store.objects.read(named(KEY), deadline=soon())
            assert info.attributes["meta:a"] == "b"
            assert info.attributes["etag"] == BOTH

    play(scenario)


def test_a_completer_to_whom_the_key_is_never_left_gives_the_upload_back() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin_both(store)

        async def gate(step: str) -> None:
            if step == "before put_manifest":
                await put_new(store)

        assert await end(through(store, gate), upload, BOTH) == UNKNOWN
        assert await what_stands(store) == b"new"
        assert await end(store.multipart, upload, ABORTED) == ABORTED

    play(scenario)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_was_written_behind_a_completion_is_lost_to_others_who_complete_it(seed: int) -> None:
    """Five who complete one upload at once through two proxies; as soon as the first is told so, the key is written."""

    async def scenario(world: StoreCluster, store: Store) -> None:
        dice = random.Random(seed)
        await create(store)
        stores = [store, await world.proxy("other", skew_s=dice.uniform(-3, 3))]

        async def gate(step: str) -> None:
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 0.2)

        for number in range(20):
            key = b"%d" % number
            upload = await begin_both(store, key)
            ends = [end(through(dice.choice(stores), gate), upload, BOTH) for _ in range(5)]
            tasks = {asyncio.ensure_future(one) for one in ends}
            told, at_it = set[str](), tasks
            while BOTH not in told:  # one who meets too many others may be told that nobody knows
                done, at_it = await asyncio.wait(at_it, return_when=asyncio.FIRST_COMPLETED)
                told |= {one.result() for one in done}
            each, value = dice.choice(stores), dice.choice([b"new", b""])
            for _ in range(10):
                try:
                    if value:
                        await each.objects.put(named(key), Sent(value), deadline=soon())
                    else:
                        await delete(each, key)
                    break
                except OutcomeUnknown:  # it, too, may meet too many others, and is asked again
                    continue
            else:
                pytest.fail("no write got through among five completions")
            assert set(await asyncio.gather(*tasks)) <= {BOTH, UNKNOWN}
            assert await what_stands(store, key) == value

    play(scenario, seed=seed)


# --- completions that are refused --------------------------------------------------------------------------------------


def is_absent(found: ObjectInfo | None) -> bool:
    return found is None


@pytest.mark.parametrize("how", [FIRST, BOTH, ABORTED])
def test_an_upload_whose_completion_was_refused_is_open_at_once(how: str) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket, upload = await bucket_of(store), await begin_both(store)
        await store.objects.put(named(KEY), Sent(b"old"), deadline=soon())
        assert await end(store.multipart, upload, BOTH, condition=is_absent) == REFUSED
        assert (await store.multipart.read(bucket, KEY, upload.name.id, deadline=soon())).state == OPEN
        assert [one.id for one in await listed(store, bucket)] == [upload.name.id]
        assert await end(store.multipart, upload, how) == how
        assert await what_stands(store) == BODIES.get(how, b"old")

    play(scenario)


def test_one_who_is_refused_does_not_open_an_upload_that_another_completes() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin_both(store)
        await store.objects.put(named(KEY), Sent(b"old"), deadline=soon())
        goes_on = asyncio.Event()

        async def gate(step: str) -> None:
            if step == "before put_manifest":
                await goes_on.wait()

        slow = asyncio.ensure_future(end(through(store, gate), upload, BOTH))
        await asyncio.sleep(1.0)
        assert await end(store.multipart, upload, BOTH, condition=is_absent) == REFUSED
        assert await end(store.multipart, upload, ABORTED) == CLAIMED
        assert await end(store.multipart, upload, FIRST) == CLAIMED
        goes_on.set()
        assert await slow == BOTH
        assert await what_stands(store) == A + B

    play(scenario)


def test_a_completion_that_could_not_be_marked_gives_its_claim_back() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin_both(store)
        mark = store.objects.marks.mark

        async def fail(*args: Any, **options: Any) -> None:
            await asyncio.sleep(1.0)
            raise Unavailable("no owner of marks answers")

        store.objects.marks.mark = fail  # type: ignore[method-assign]  # of another key, and so on other devices
        assert await end(store.multipart, upload, BOTH) == UNKNOWN
        store.objects.marks.mark = mark  # type: ignore[method-assign]
        assert await what_stands(store) == b""
        assert await end(store.multipart, upload, ABORTED) == ABORTED

    play(scenario)


def test_completers_that_die_one_after_the_other_fill_no_record() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        upload = await begin_both(store)
        for _ in range(CLAIMS_MAX):
            with pytest.raises(Died):
                await end(through(store, dying("before put_manifest", 1)), upload, BOTH)
        assert await end(store.multipart, upload, BOTH) == CLAIMED
        await asyncio.sleep(WRITE_S)
        assert await end(store.multipart, upload, BOTH) == BOTH

    play(scenario)


# --- whatever happens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(16))
def test_of_many_who_end_uploads_in_bad_weather_all_are_told_one_end(seed: int) -> None:
    """Contenders of three proxies, some of which die, over devices of which one at a time is down.

    Whoever is told an end is told the same as everybody else, and it is what stands; whatever nobody was told about can
    be ended later, and in the end nothing stands beside the bucket but what an object names.
    """

    async def scenario(world: StoreCluster, store: Store) -> None:
        dice = random.Random(seed)
        await create(store)
        bucket = await bucket_of(store)
        stores = [store, await world.proxy("late", skew_s=-3.0), await world.proxy("ahead", skew_s=3.0)]

        async def contend(upload: UploadInfo, told: list[str]) -> None:
            how = dice.choice((FIRST, BOTH, ABORTED))
            options: dict[str, Any] = {}
            if how != ABORTED and dice.random() < 0.3:
                options["condition"] = is_absent
            await asyncio.sleep(dice.random() * dice.choice((0.01, 0.3, 2.0, 2 * WRITE_S)))
            task = asyncio.ensure_future(end(dice.choice(stores).multipart, upload, how, **options))
            if dice.random() < 0.3:
                await asyncio.wait((task,), timeout=dice.random() * 0.3)
                task.cancel()
            try:
                told.append(await task)
            except (asyncio.CancelledError, StoreError):
                return

        async def weather() -> None:
            network = world.cluster.network
            while True:
                await asyncio.sleep(dice.random() * 2)
                device = dice.choice(world.cluster.devices)
                try:
                    await network.crash(device.name, silent=dice.random() < 0.5)
                    await asyncio.sleep(dice.random() * 3)
                finally:
                    network.restart(device.name)

        async def one(number: int) -> None:
            key = b"%d" % number
            try:
                upload = await begin_both(store, key)
            except StoreError:
                return
            told: list[str] = []
            await asyncio.gather(*(contend(upload, told) for _ in range(dice.randrange(2, 7))))
            await asyncio.sleep(WRITE_S)
            last = ""
            for _ in range(20):
                with_all = dice.choice(stores).multipart
                last = await end(with_all, upload, ABORTED)
                if last in (ABORTED, OVER):
                    break
                await asyncio.sleep(10.0)
            assert last in (ABORTED, OVER), told
            winners = set(told) & {FIRST, BOTH, ABORTED}
            assert len(winners) <= 1, told
            ended[key] = (winners.pop() if winners else "", last)

        ended: dict[bytes, tuple[str, str]] = {}
        world.way.loss_chance = dice.choice([0.0, 0.01, 0.03])
        raging = asyncio.ensure_future(weather())
        await asyncio.gather(*map(one, range(10)))
        raging.cancel()
        await asyncio.gather(raging, return_exceptions=True)
        world.way.loss_chance = 0.0
        await pay_all(world, store)
        kept = 0
        for key, (won, last) in ended.items():
            stands = await what_stands(store, key)
            if last == OVER and won in BODIES:
                assert stands == BODIES[won], key
            elif won == ABORTED or last == ABORTED:
                assert (won, stands) in ((ABORTED, b""), ("", b"")), key
            kept += {b"": 0, A: 1, A + B: 2}[stands]
        for left in await listed(store, bucket):  # whose beginning nobody was told of
            await store.multipart.abort(bucket, left.key, left.id, deadline=soon())
        await free_everything(store)
        assert len(await hidden_rows(store, bucket)) == kept
        assert await marks(store) == []
        for key in ended:
            await delete(store, key)
        await free_everything(store)
        assert await hidden_rows(store, bucket) == []

    play(scenario, seed=seed)
