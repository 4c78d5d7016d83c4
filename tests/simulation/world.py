"""One run of a plan: the whole domain over devices that lose what they had not synced, and everything that was seen of it.

The real stores of several proxies, and in each device's process the real service, updater and quorum client, in one process
and in virtual time. Clients write, delete, describe, swap, read and list; troubles come and go. Then they end, and within a
bounded time nothing may be owed or due, every listing must show what can be read, and every history must be linearizable.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import md5
from random import Random
from typing import Final
from uuid import UUID

from proxy.cluster.register import Registers
from proxy.store.errors import (
    ConditionFailed,
    NoSuchContainer,
    NoSuchObject,
    OutcomeUnknown,
    StoreError,
    Unavailable,
)
from proxy.store.store import Store
from proxy.store.values import Description, ListedObject, ObjectInfo
from storage_node.expirer import Expirer
from storage_node.keys import Due
from storage_node.keys import Key as StoredKey
from storage_node.mender import Mender
from storage_node.service import DeviceService
from storage_node.turns import turns_of
from storage_node.updater import Updater
from swiftlike.node_calls import Query, objects
from swiftlike.rpc.simulated import SimulatedHost, SimulatedNetwork, Weather
from swiftlike.rpc.transport import TcpAddress
from swiftlike.rpc.virtual_time import run_in_virtual_time
from swiftlike.timestamps import Clock
from tests.simulation.linearizability import Call, Ended, Kind, Value, is_linearizable
from tests.simulation.plans import (
    DEVICES,
    DUE,
    FAULTS_END_S,
    NAMES,
    OTHERS,
    PROXIES,
    Fault,
    Plan,
    Step,
    Trouble,
)
from tests.simulation.quorum_cluster import SECRET, Cluster, LossyTransport, SimulatedDevice
from tests.simulation.seen_in_listings import Seen, wrong_in
from tests.simulation.store_cluster import (
    CONTAINER,
    PATIENCE,
    POLICIES,
    TABLES,
    Sent,
    create,
    named,
    now_us,
    read_body,
    soon,
)
from tests.simulation.syncing_store import SYNC_S, SyncingStore

UNDER_WAY_S: Final = 5.0
"""For what clients that died had under way to arrive, or to be given up."""
DONE_WITHIN_S: Final = 240.0
"""For the jobs of all devices, after the last trouble has ended: three walks of the slowest."""
DUE_WITHIN_S: Final = 8.0
"""Until what is to be deleted at a time is."""


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
    return run_in_virtual_time(_run(plan))


async def _run(plan: Plan) -> End:
    async with SimulatedNetwork(plan.seed, Weather()) as network, AsyncExitStack() as stack:
        cluster = Cluster(network, stack, DEVICES, OTHERS, TABLES, device=WorldDevice)
        await cluster.start()
        world = World(cluster, stack, plan)
        await world.live()
        await world.end()
        return End(world.wrong, world.histories, network.trace_digest())


@asynccontextmanager
async def quorum_client(
    cluster: Cluster, host: SimulatedHost, skew_s: float, loss: Callable[[], float]
) -> AsyncIterator[Store]:
    """The domain as a process of a host holds it."""
    async with (
        host.client(SECRET) as client,
        LossyTransport(client, cluster.random, loss) as transport,
        Registers(
            transport,
            cluster.new_shelf(),
            Clock(cluster.read_us(skew_s), cluster.random.getrandbits(64)),
            Random(cluster.random.random()),
            PATIENCE,
        ) as registers,
        Store(registers, POLICIES, cluster.random) as store,
    ):
        yield store


class WorldDevice(SimulatedDevice):
    """A device whose process has a writer, a service and jobs, and whose disk outlives it."""

    store: SyncingStore

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(cluster, number)
        self._cluster = cluster
        self._number = number
        self.store = SyncingStore(self.name, cluster.layout, cluster.read_us(), cluster.random)

    async def boot(self, host: SimulatedHost) -> None:
        """What its process does."""
        cluster = self._cluster
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.store.write())
            async with (
                DeviceService(self.store, self.store.layout, self.shelf) as service,
                host.server(service.service, SECRET) as server,
                quorum_client(cluster, host, 0.0, lambda: 0.0) as client,
            ):
                await server.listen(TcpAddress(host.name, 6200))
                read_us, uuid = cluster.read_us(), UUID(int=self._number + 1)
                turn = turns_of(self.shelf.ring, uuid)
                tasks.create_task(Updater(self.store, client.payer, read_us, cluster.random).run())
                tasks.create_task(Expirer(self.store, client.expiring, turn, read_us).run())
                tasks.create_task(Mender(self.store, client.mending, uuid).run())
                await asyncio.Event().wait()


@dataclass
class World:
    """A cluster, its clients, and what they have seen."""

    cluster: Cluster
    stack: AsyncExitStack
    plan: Plan
    wrong: list[str] = field(default_factory=list)
    histories: dict[bytes, list[Call]] = field(default_factory=lambda: {name: [] for name in NAMES})
    seen: list[Seen] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    loss_chance: float = 0.0
    _down: set[str] = field(default_factory=set)
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    """A client was told how a call ended."""

    async def live(self) -> None:
        """Let clients and troubles have their time."""
        for number in range(PROXIES):
            self.stores.append(await self._proxy(f"proxy-{number}", self.plan.skews_s[number]))
        for store in self.stores:
            await create(store)
        async with asyncio.TaskGroup() as tasks:
            for trouble in self.plan.troubles:
                tasks.create_task(self._suffer(trouble))
            for store, steps in zip(self.stores, self.plan.clients, strict=True):
                tasks.create_task(self._act(store, steps))

    async def _proxy(self, name: str, skew_s: float) -> Store:
        host = self.cluster.network.host(name)
        return await self.stack.enter_async_context(
            quorum_client(self.cluster, host, skew_s, lambda: self.loss_chance)
        )

    # --- clients ------------------------------------------------------------------------------------------------

    async def _act(self, store: Store, steps: tuple[Step, ...]) -> None:
        for step in steps:
            await asyncio.sleep(step.wait_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(step.life_s):
                    await self._do(store, step)

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
            self._answered.set()

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
            self.seen.append(Seen(began, now(), marker, page.more, shown))
            if page.more is None:
                return
            marker = page.more

    def _listed_value(self, item: ListedObject) -> Value:
        writers = [
            call.number
            for call in self.histories.get(item.name, [])
            if call.kind in (Kind.PUT, Kind.SWAP) and _etag(call.number) == item.etag
        ]
        return Value(writers[0] if writers else -1, int(item.content_type.removeprefix("x/")))

    # --- troubles -----------------------------------------------------------------------------------------------

    async def _suffer(self, trouble: Trouble) -> None:
        await asyncio.sleep(trouble.at_s)
        for_s = min(trouble.for_s, FAULTS_END_S - trouble.at_s)
        device = self.cluster.devices[int(trouble.dice * len(self.cluster.devices))]
        assert isinstance(device, WorldDevice)
        network, dice = self.cluster.network, Random(trouble.dice)
        match trouble.fault:
            case Fault.CRASH:
                await self._be_down([device.name], for_s, silent=False)
            case Fault.POWER:
                await self._be_down([device.name], for_s, silent=True)
            case Fault.BLACKOUT:
                # At the worst time: just behind an answer.
                self._answered.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(for_s):
                        await self._answered.wait()
                await asyncio.sleep(dice.expovariate(1 / SYNC_S))
                await self._be_down([each.name for each in self.cluster.devices], for_s, silent=True)
            case Fault.CUT:
                hosts = [each.name for each in self.cluster.devices]
                hosts += [f"proxy-{number}" for number in range(PROXIES)]
                side = dice.sample(hosts, dice.randint(1, len(hosts) - 1))
                rest = [host for host in hosts if host not in side]
                network.cut(side, rest)
                if dice.random() < 0.7:
                    network.cut(rest, side)
                await asyncio.sleep(for_s)
                network.mend()
            case Fault.LOSS:
                self.loss_chance = dice.uniform(0.01, 0.35)
                await asyncio.sleep(for_s)
                self.loss_chance = 0.0
            case Fault.SLOW:
                device.store.slowness = dice.uniform(5, 400)
                await asyncio.sleep(for_s)
                device.store.slowness = 1.0
            case Fault.FULL:
                device.store.is_full = True
                await asyncio.sleep(for_s)
                device.store.is_full = False
            case Fault.ROT:
                device.store.damage(StoredKey(objects(0), named(dice.choice(NAMES)).path))

    async def _be_down(self, names: list[str], for_s: float, *, silent: bool) -> None:
        """Let processes be gone for a while, those that are not gone already."""
        mine = [name for name in names if name not in self._down]
        self._down.update(mine)
        await asyncio.gather(*(self.cluster.network.crash(name, silent=silent) for name in mine))
        await asyncio.sleep(for_s)
        for name in mine:
            self.cluster.network.restart(name)
        self._down.difference_update(mine)

    # --- the end ------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """Judge, once troubles have ended and the jobs have had their time."""
        self.loss_chance = 0.0
        self.cluster.network.mend()
        last = await self._proxy("proxy-last", 0.0)
        await asyncio.sleep(UNDER_WAY_S)
        await self._wait_done()
        await self._read_in_the_end(last)
        for seen in self.seen:
            self.wrong += wrong_in(seen, self.histories)
        self.wrong += [
            f"the history of {name!r} is not linearizable"
            for name, history in self.histories.items()
            if not is_linearizable(history)
        ]

    async def _wait_done(self) -> None:
        """Wait until no job has anything left to do."""
        left = self._left()
        for _ in range(int(DONE_WITHIN_S)):
            if not any(left.values()):
                return
            await asyncio.sleep(1)
            left = self._left()
        self.wrong.append(f"after {DONE_WITHIN_S:.0f} s without troubles there is still work to do: {left}")

    def _left(self) -> dict[str, int]:
        stores = [self.cluster.devices[owner].store for owner in self.cluster.owners]
        return {
            "debts": sum(len(store.due(Due.DEBT, 2**62, 1_000)) for store in stores),
            "due": sum(len(store.due(Due.DELETE, 2**62, 1_000)) for store in stores),
        }

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
        if await read_value(store, DUE) is not None:
            self.wrong.append("what is past its time can be read in the end")
        for each in (*self.stores, store):
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


def _body(number: int) -> bytes:
    return b"body %d" % number


def _etag(number: int) -> str:
    return md5(_body(number), usedforsecurity=False).hexdigest()


def _sent(step: Step) -> Sent:
    attributes = {"meta:body": str(step.number), "type": f"x/{step.number}"}
    return Sent(_body(step.number), attributes)


def _describing(number: int) -> Callable[[ObjectInfo], Description]:
    return lambda current: Description({**current.attributes, "type": f"x/{number}"})


def _holding(expected: Value | None) -> Callable[[ObjectInfo | None], bool]:
    return lambda current: value_of(current) == expected
