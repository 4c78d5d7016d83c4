"""One run of a plan: the whole domain over devices that lose what they had not synced, and everything that was seen of it.

The real stores of several proxies, and in each device's process the real service, jobs and quorum client, in one process and
in virtual time. Clients write, delete, describe, swap, read and list; troubles come and go, and an operator replaces disks and
moves the partition. Then they end, and within a bounded time nothing may be owed or due, all owners must hold the same, bodies
included, every listing must show what can be read, and every history must be linearizable.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import md5
from typing import Final
from unittest.mock import patch

from proxy.store.errors import (
    AccountDeleted,
    ConditionFailed,
    NoSuchAccount,
    NoSuchContainer,
    NoSuchObject,
    OutcomeUnknown,
    StoreError,
    Unavailable,
)
from proxy.store.names import ContainerName
from proxy.store.store import Store
from proxy.store.values import Description, ListedObject, ObjectInfo
from storage_node import reaper, reclaimer, updater
from storage_node.keys import Due
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.node_calls import Query
from swiftlike.rpc.simulated import SimulatedNetwork, Weather
from swiftlike.rpc.virtual_time import run_in_virtual_time
from tests.simulation.linearizability import Call, Ended, Kind, Value, is_linearizable
from tests.simulation.plans import DEVICES, DUE, FORGETFUL_S, LARGE, NAMES, OTHERS, PROXIES, Plan, Step
from tests.simulation.quorum_cluster import Cluster
from tests.simulation.seen_in_listings import Seen, wrong_in
from tests.simulation.store_cluster import CONTAINER, TABLES, Sent, create, named, now_us, read_body, soon
from tests.simulation.world_processes import WorldDevice, WorldProxy
from tests.simulation.world_troubles import AGREE_WITHIN_S, Nemesis, Operator

UNDER_WAY_S: Final = 5.0
"""For what clients that died had under way to arrive, or to be given up."""
DUE_WITHIN_S: Final = 8.0
"""Until what is to be deleted at a time is."""
DOOMED: Final = ContainerName(b"doomed", b"Con")
"""Of the account that is deleted in some plans."""
DOOMED_WRITES: Final = 8
DELETE_TRIES: Final = 60
WRITING: Final = (Kind.PUT, Kind.SWAP, Kind.POST)
"""What leaves its number in what it wrote."""


@dataclass(slots=True)
class End:
    """What came of a plan."""

    wrong: list[str]
    """What may not be, in sentences; none: the run is clean."""
    histories: dict[bytes, list[Call]]
    trace: str
    """Digest of all that happened on the network."""

    def story(self) -> str:
        """The histories, a line for each call."""
        lines = []
        for name, history in self.histories.items():
            lines += [f"  {name!r}:"] if history else []
            lines += [f"    {call}" for call in sorted(history, key=lambda call: call.began)]
        return "\n".join(lines)


def run(plan: Plan) -> End:
    """Run a plan."""
    with ExitStack() as stack:
        if plan.age_s <= FORGETFUL_S:
            # Jobs are quick beside what is remembered, as they are with any age that can be configured: a debt that takes
            # longer to be paid than its tombstone is kept is made anew whenever it is.
            quick_s = plan.age_s / 8
            stack.enter_context(patch.multiple(reclaimer, FIRST_S=2 * quick_s, WALK_S=4 * quick_s))
            stack.enter_context(
                patch.multiple(updater, GRACE_S=quick_s, GRACE_SPREAD_S=quick_s, WALK_S=quick_s)
            )
        # A request takes 20 s at most, and what it sent may arrive a while after.
        stack.enter_context(patch.multiple(reaper, GRACE_S=45.0, TURN_S=10.0, WALK_S=5.0))
        return run_in_virtual_time(_run(plan))


async def _run(plan: Plan) -> End:
    async with SimulatedNetwork(plan.seed, Weather()) as network, AsyncExitStack() as stack:
        make = partial(
            WorldDevice,
            reclaim_age_us=int(plan.age_s * 1e6),
            lag_s=plan.lag_s,
            skews_s=plan.device_skews_s,
            is_wide=plan.is_wide,
        )
        cluster = Cluster(network, stack, DEVICES, OTHERS, TABLES, device=make)
        await cluster.start()
        world = World(cluster, plan)
        async with world.watched():
            await world.live()
            await world.end()
        world.judge()
        return End([*world.wrong, *world.operator.wrong], world.histories, network.trace_digest())


class World:
    """A cluster, its clients, and what they have seen."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        """Start the proxies."""
        self.wrong: list[str] = []
        self.histories: dict[bytes, list[Call]] = {name: [] for name in NAMES}
        self._seen: list[Seen] = []
        self._has_begun: Final = asyncio.Event()
        """The container is there."""
        self._cluster: Final = cluster
        self._plan: Final = plan
        self._devices: Final = [device for device in cluster.devices if isinstance(device, WorldDevice)]
        self._proxies: Final = [
            WorldProxy(
                cluster,
                f"proxy-{number}",
                plan.skews_s[number],
                leaves_hints=not plan.lag_s,
            )
            for number in range(PROXIES)
        ]
        down: set[str] = set()
        self.operator: Final = Operator(cluster, self._devices, down, is_wide=plan.is_wide)
        self._nemesis: Final = Nemesis(cluster, self._devices, self._proxies, self.operator, down)

    async def live(self) -> None:
        """Let clients, troubles and the operator have their time."""
        for proxy in self._proxies:
            await create(await proxy.store())
        self._has_begun.set()
        if self._plan.doom_s is not None:
            await create(await self._proxies[0].store(), DOOMED)
        async with asyncio.TaskGroup() as tasks:
            for trouble in self._plan.troubles:
                tasks.create_task(self._nemesis.suffer(trouble))
            for proxy, steps in zip(self._proxies, self._plan.clients, strict=True):
                tasks.create_task(self._act(proxy, steps))
            tasks.create_task(self.operator.work(self._plan.tasks))
            if self._plan.doom_s is not None:
                tasks.create_task(self._write_to_the_doomed(self._plan.doom_s))
                tasks.create_task(self._delete_the_doomed(self._plan.doom_s))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Have somebody look at everything now and then meanwhile, as the plan says."""
        if not self._plan.watch_s:
            yield
            return
        watcher = asyncio.create_task(self._watch(WorldProxy(self._cluster, "proxy-watching")))
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait((watcher,))
        if not watcher.cancelled():
            watcher.result()

    async def _watch(self, proxy: WorldProxy) -> None:
        await self._has_begun.wait()
        while True:
            await asyncio.sleep(self._cluster.random.expovariate(1 / self._plan.watch_s))
            store = await proxy.store()
            await self._list(store, limit=1_000)
            await self._read_all(store)

    # --- clients ------------------------------------------------------------------------------------------------

    async def _act(self, proxy: WorldProxy, steps: tuple[Step, ...]) -> None:
        for step in steps:
            await self._wait_for_turn(step)
            await proxy.serve(partial(self._do, step=step), step.life_s)

    async def _wait_for_turn(self, step: Step) -> None:
        if not step.is_cued:
            await asyncio.sleep(step.wait_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(step.wait_s):
                await self.operator.did_something.wait()

    async def _do(self, store: Store, step: Step) -> None:
        now = asyncio.get_running_loop().time
        if step.kind is None:
            await self._list(store, limit=1 + int(step.dice * 6))
            return
        expected = self._heard_of(step) if step.kind is Kind.SWAP else None
        call = Call(step.kind, now(), step.number, expected)
        if step.name != DUE:
            self.histories[step.name].append(call)
        try:
            call.outcome = await self._ask(store, step, call)
        except OutcomeUnknown:
            return
        except ConditionFailed:
            call.outcome = Ended.REFUSED
        except Unavailable:
            call.outcome = Ended.UNKNOWN if call.kind is Kind.READ else Ended.WITHOUT_EFFECT
        if call.outcome is not Ended.UNKNOWN:
            call.ended = now()
            self._nemesis.answered.set()

    async def _ask(self, store: Store, step: Step, call: Call) -> Ended:
        name = named(step.name)
        match call.kind:
            case Kind.PUT if step.name == DUE:
                due_us = now_us() + int(step.dice * DUE_WITHIN_S * 1e6)
                await store.objects.put(name, Sent(b"due", delete_at_us=due_us), deadline=soon())
            case Kind.PUT:
                await store.objects.put(name, _sent(step), deadline=soon())
            case Kind.SWAP:
                holds = _holding(call.expected)
                await store.objects.put(name, _sent(step), deadline=soon(), condition=holds)
            case Kind.DELETE:
                await store.objects.delete(name, deadline=soon())
            case Kind.POST:
                try:
                    await store.objects.describe(name, _describing(step.number), deadline=soon())
                except NoSuchObject:
                    return Ended.REFUSED
            case Kind.READ:
                call.found = await read_value(store, step.name)
        return Ended.DONE

    def _heard_of(self, step: Step) -> Value | None:
        """Something that a client may believe to be there."""
        heard = [
            call for call in self.histories[step.name][-4:] if call.kind in (Kind.PUT, Kind.SWAP, Kind.READ)
        ]
        if not heard:
            return None
        call = heard[int(step.dice * len(heard))]
        return call.found if call.kind is Kind.READ else Value(call.number, call.number)

    async def _list(self, store: Store, limit: int) -> None:
        now, marker = asyncio.get_running_loop().time, b""
        while True:
            began = now()
            try:
                page = await store.containers.list(
                    CONTAINER, Query(marker=marker, limit=limit), deadline=soon()
                )
            except Unavailable:
                return
            shown = {}
            for item in page.items:
                assert isinstance(item, ListedObject)
                if item.name != DUE:
                    shown[item.name] = self._listed_value(item)
            self._seen.append(Seen(began, now(), marker, page.more, shown))
            self._believe(shown, now())
            if page.more is None:
                return
            marker = page.more

    def _believe(self, shown: dict[bytes, Value], at_s: float) -> None:
        """What a listing shows was done by then, whatever its client was told: rows are of what is chosen."""
        for name, value in shown.items():
            for call in self.histories[name]:
                if call.outcome is Ended.UNKNOWN and call.kind in WRITING and call.number in value:
                    call.ended, call.outcome = at_s, Ended.DONE

    def _listed_value(self, item: ListedObject) -> Value:
        writers = [
            call.number
            for call in self.histories.get(item.name, [])
            if call.kind in (Kind.PUT, Kind.SWAP) and _etag(call.number) == item.etag
        ]
        return Value(writers[0] if writers else -1, int(item.content_type.removeprefix("x/")))

    # --- an account that is deleted -----------------------------------------------------------------------------

    async def _write_to_the_doomed(self, doom_s: float) -> None:
        """Write before, while and after the account is deleted; whatever comes of that."""
        random = self._cluster.random

        async def write(store: Store) -> None:
            name = named(b"%d" % random.randrange(4), DOOMED)
            with suppress(StoreError):
                await store.objects.put(name, Sent(b"doomed"), deadline=soon())

        for _ in range(DOOMED_WRITES):
            await asyncio.sleep(random.expovariate(DOOMED_WRITES / 2 / max(doom_s, 0.1)))
            await random.choice(self._proxies).serve(write, None)

    async def _delete_the_doomed(self, doom_s: float) -> None:
        is_over = False

        async def delete(store: Store) -> None:
            nonlocal is_over
            with suppress(OutcomeUnknown, Unavailable):
                try:
                    await store.accounts.delete(DOOMED.account, deadline=soon())
                except (AccountDeleted, NoSuchAccount):
                    is_over = True

        await asyncio.sleep(doom_s)
        for _ in range(DELETE_TRIES):
            await self._proxies[0].serve(delete, None)
            if is_over:
                return
            await asyncio.sleep(1)
        self.wrong.append("an account cannot be deleted")

    # --- the end ------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """Look at everything, once troubles have ended and the jobs have had their time."""
        self._cluster.network.mend()
        last = WorldProxy(self._cluster, "proxy-last")
        await self._list(await last.store(), limit=1_000)
        for proxy in (last, self._proxies[0]):
            await self._read_all(await proxy.store())
        await asyncio.sleep(UNDER_WAY_S)
        await self._wait_done()
        await self._read_in_the_end(await last.store())

    def judge(self) -> None:
        """Say what may not have been seen."""
        for seen in self._seen:
            self.wrong += wrong_in(seen, self.histories)
        self.wrong += [
            f"the history of {name!r} is not linearizable"
            for name, history in self.histories.items()
            if not is_linearizable(history)
        ]

    async def _read_all(self, store: Store) -> None:
        """Read every name while the jobs have still much to do."""
        now = asyncio.get_running_loop().time
        for name, history in self.histories.items():
            call = Call(Kind.READ, now())
            try:
                call.found = await read_value(store, name)
            except Unavailable:
                continue
            call.ended, call.outcome = now(), Ended.DONE
            history.append(call)

    async def _wait_done(self) -> None:
        """Wait until no job has anything left to do, and all owners hold the same."""
        left = self._left()
        for _ in range(int(AGREE_WITHIN_S)):
            if not left:
                return
            await asyncio.sleep(1)
            left = self._left()
        self.wrong.append(f"after {AGREE_WITHIN_S:.0f} s without troubles not all is well: {'; '.join(left)}")

    def _left(self) -> list[str]:
        """Say what is not well."""
        owners = [self._devices[number] for number in self.operator.owners]
        others = [device for device in self._devices if device not in owners]
        stores = [device.store for device in owners]
        epoch = self._cluster.ring.epoch
        found = {
            "debts are owed": any(store.due(Due.DEBT, 2**62, 1) for store in stores),
            "objects are due": any(store.due(Due.DELETE, 2**62, 1) for store in stores),
            "a deleted account lives": any(device.lives(DOOMED.account) for device in owners),
            "bodies are missing": any(store.missing(None, 1) for store in stores),
            "owners do not vote": not all(device.has_caught_up(epoch) for device in owners),
            "owners differ": len({device.state() for device in owners}) > 1,
            "others hold something": any(
                device.store.held_partitions(table, ()) for device in others for table in TABLES
            ),
        }
        return [sentence for sentence, is_so in found.items() if is_so]

    async def _read_in_the_end(self, store: Store) -> None:
        now = asyncio.get_running_loop().time
        there: dict[bytes, Value] = {}
        for name, history in self.histories.items():
            call = Call(Kind.READ, now())
            try:
                call.found = await read_value(store, name)
            except StoreError as error:
                self.wrong.append(f"{name!r} cannot be read in the end: {error!r}")
                continue
            call.ended, call.outcome = now(), Ended.DONE
            history.append(call)
            if call.found is not None:
                there[name] = call.found
        try:
            if await read_value(store, DUE) is not None:
                self.wrong.append("what is past its time can be read in the end")
        except StoreError as error:
            self.wrong.append(f"{DUE!r} cannot be read in the end: {error!r}")
        for each in (*[await proxy.store() for proxy in self._proxies], store):
            try:
                page = await each.containers.list(CONTAINER, Query(), deadline=soon())
            except StoreError as error:
                self.wrong.append(f"the container cannot be listed in the end: {error!r}")
                continue
            rows = [item for item in page.items if isinstance(item, ListedObject)]
            listed = {item.name: self._listed_value(item) for item in rows}
            if listed != there:
                self.wrong.append(f"in the end {there} can be read and {listed} is listed")


async def read_value(store: Store, name: bytes) -> Value | None:
    """Read an object, its body included. Raises StoreError."""
    try:
        info, body = await store.objects.read(named(name), deadline=soon())
    except (NoSuchObject, NoSuchContainer):
        return None
    value = value_of(info)
    assert value is not None
    if await read_body(body, info.size) != _body(value.body):
        raise AssertionError(f"{name!r} has the body of another write")
    return value


# --- values -----------------------------------------------------------------------------------------------------


def value_of(info: ObjectInfo | None) -> Value | None:
    """What a reader sees."""
    if info is None:
        return None
    return Value(int(info.attributes["meta:body"]), int(info.content_type.removeprefix("x/")))


@lru_cache(4)
def _body(number: int) -> bytes:
    body = b"body %d" % number
    return body if number < LARGE else body.ljust(64) * (RPC_BODY_BYTES_MAX // 64 + 1_000)


@lru_cache(1_000)
def _etag(number: int) -> str:
    return md5(_body(number), usedforsecurity=False).hexdigest()


def _sent(step: Step) -> Sent:
    attributes = {"meta:body": str(step.number), "type": f"x/{step.number}"}
    if step.number < LARGE:
        return Sent(_body(step.number), attributes)
    return Sent(_body(step.number), attributes, pieces=7, is_size_known=step.dice < 0.5, pause_s=0.01)


def _describing(number: int) -> Callable[[ObjectInfo], Description]:
    return lambda current: Description({**current.attributes, "type": f"x/{number}"})


def _holding(expected: Value | None) -> Callable[[ObjectInfo | None], bool]:
    return lambda current: value_of(current) == expected
