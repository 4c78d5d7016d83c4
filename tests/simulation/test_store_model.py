"""The whole store beside a dictionary: two proxies whose clocks differ, devices that come and go, one thing at a time."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.store.errors import (
    ConditionFailed,
    ContainerNotEmpty,
    NoSuchContainer,
    NoSuchObject,
    PolicyDiffers,
)
from proxy.store.names import ContainerName, ObjectName
from proxy.store.store import Store
from proxy.store.values import Description, ObjectInfo, Received
from storage_node.updater import Updater
from swiftlike.node_calls import Query
from swiftlike.rpc.simulated import SimulatedNetwork, Weather
from swiftlike.rpc.virtual_time import VirtualLoop
from tests.simulation.quorum_cluster import Cluster
from tests.simulation.store_cluster import TABLES, Sent, StoreCluster, keep, named, names, read_body, soon

CONTAINERS = [ContainerName(b"acc", b"One"), ContainerName(b"acc", b"Two")]
NAMES = [b"a", b"a/1", b"a/2", b"b"]

containers = st.sampled_from(CONTAINERS)
object_names = st.sampled_from(NAMES)
proxies = st.integers(0, 1)


class TheStore(RuleBasedStateMachine):
    """What clients do, and what they must see."""

    skews_s: ClassVar = (0.4, -0.4)

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.model: dict[ContainerName, tuple[int, dict[bytes, bytes]]] = {}
        """Policy and bodies of each container."""
        self.down: int | None = None
        self.number = 0

    def run(self, work: Any) -> Any:
        """Run something to its end, in virtual time."""
        return self.loop.run_until_complete(work)

    @initialize(seed=st.integers(0, 1_000))
    def start(self, seed: int) -> None:
        """Start a cluster."""

        async def start() -> None:
            self.stack = AsyncExitStack()
            network = await self.stack.enter_async_context(SimulatedNetwork(seed, Weather()))
            cluster = Cluster(network, self.stack, 3, tables=TABLES)
            await cluster.start()
            self.world = StoreCluster(cluster, self.stack)
            self.stores = [
                await self.world.proxy(f"proxy-{at}", skew_s) for at, skew_s in enumerate(self.skews_s)
            ]

        self.run(start())

    def teardown(self) -> None:
        """Stop it."""
        if hasattr(self, "stack"):
            self.run(self.stack.aclose())
        self.loop.close()

    def expect(self, error: type[Exception] | None, work: Any) -> Any:
        """Run something that must raise this, or nothing."""
        try:
            found = self.run(work)
        except Exception as raised:
            if error is None or not isinstance(raised, error):
                raise
            return None
        assert error is None, f"should have raised {error}"
        return found

    def bodies(self, container: ContainerName) -> dict[bytes, bytes] | None:
        """What the model has in a container."""
        found = self.model.get(container)
        return None if found is None else found[1]

    # --- containers ---------------------------------------------------------------------------------------------

    @rule(at=proxies, container=containers, policy=st.sampled_from([None, 0, 1]))
    def create(self, at: int, container: ContainerName, policy: int | None) -> None:
        """Create a container."""
        before = self.model.get(container)
        differs = before is not None and policy not in (None, before[0])
        work = self.stores[at].containers.create(container, keep, policy, deadline=self.deadline())
        found = self.expect(PolicyDiffers if differs else None, work)
        if found is not None:
            assert found[1] is (before is None)
            self.model.setdefault(container, (policy or 0, {}))

    @rule(at=proxies, container=containers)
    def delete_container(self, at: int, container: ContainerName) -> None:
        """Delete a container."""
        bodies = self.bodies(container)
        error = NoSuchContainer if bodies is None else ContainerNotEmpty if bodies else None
        self.expect(error, self.stores[at].containers.delete(container, deadline=self.deadline()))
        if error is None:
            del self.model[container]

    # --- objects ------------------------------------------------------------------------------------------------

    @rule(at=proxies, container=containers, name=object_names, is_new=st.sampled_from([None, True, False]))
    def put(self, at: int, container: ContainerName, name: bytes, is_new: bool | None) -> None:
        """Put an object, also on the condition that it is or is not there."""
        self.number += 1
        body, bodies = b"%d" % self.number, self.bodies(container)
        condition: Callable[[ObjectInfo | None], bool] | None = None
        error: type[Exception] | None = NoSuchContainer if bodies is None else None
        if is_new is not None:
            condition = lambda current: (current is None) is is_new  # noqa: E731  # one of two, by what was drawn
            if bodies is not None and (name not in bodies) is not is_new:
                error = ConditionFailed
        target = named(name, container)
        upload = Sent(body)
        self.expect(
            error,
            self.stores[at].objects.put(target, upload, deadline=self.deadline(), condition=condition),
        )
        if error is None:
            assert bodies is not None
            bodies[name] = body

    @rule(at=proxies, container=containers, name=object_names)
    def delete(self, at: int, container: ContainerName, name: bytes) -> None:
        """Delete an object."""
        bodies = self.bodies(container)
        work = self.stores[at].objects.delete(named(name, container), deadline=self.deadline())
        was_there = self.expect(NoSuchContainer if bodies is None else None, work)
        if bodies is not None:
            assert was_there is (bodies.pop(name, None) is not None)

    @rule(at=proxies, container=containers, name=object_names)
    def get(self, at: int, container: ContainerName, name: bytes) -> None:
        """Get an object."""
        bodies = self.bodies(container)
        error = NoSuchContainer if bodies is None else NoSuchObject if name not in bodies else None
        found = self.expect(error, self.read(self.stores[at], named(name, container)))
        assert found == (bodies or {}).get(name)

    @rule(at=proxies, source=containers, into=containers, name=object_names, to=object_names)
    def copy(self, at: int, source: ContainerName, into: ContainerName, name: bytes, to: bytes) -> None:
        """Copy an object."""
        bodies, there = self.bodies(source), self.bodies(into)
        error: type[Exception] | None = None
        if bodies is None or (there is None and name in bodies):
            error = NoSuchContainer
        elif name not in bodies:
            error = NoSuchObject

        def describe(info: ObjectInfo, received: Received) -> Description:
            return Description({**info.attributes, "etag": received.md5})

        work = self.stores[at].objects.copy(
            named(name, source), named(to, into), describe, deadline=self.deadline()
        )
        self.expect(error, work)
        if error is None:
            assert bodies is not None
            assert there is not None
            there[to] = bodies[name]

    # --- time and faults ----------------------------------------------------------------------------------------

    @rule(device=st.integers(0, 2))
    def lose_a_device(self, device: int) -> None:
        """One device goes down, at most."""
        if self.down is None:
            self.down = device
            self.run(self.world.cluster.network.crash(self.world.cluster.devices[device].name))

    @rule()
    def get_it_back(self) -> None:
        """It comes back, with what it had."""
        if self.down is not None:
            self.world.cluster.network.restart(self.world.cluster.devices[self.down].name)
            self.run(asyncio.sleep(1))
            self.down = None

    @rule(seconds=st.sampled_from([0.3, 2, 30]))
    def wait(self, seconds: float) -> None:
        """Time passes; devices pay what is owed."""
        self.run(asyncio.sleep(seconds))
        for number, device in enumerate(self.world.cluster.devices):
            if number != self.down:
                updater = Updater(
                    device.store,
                    self.stores[0].payer,
                    self.world.cluster.read_us(),
                    self.world.cluster.random,
                )
                self.run(updater.walk())

    # --- what must be so ----------------------------------------------------------------------------------------

    @rule(
        at=proxies,
        container=containers,
        query=st.sampled_from([Query(), Query(limit=2), Query(reverse=True)]),
    )
    def list_names(self, at: int, container: ContainerName, query: Query) -> None:
        """List a container."""
        bodies = self.bodies(container)
        found = self.expect(
            NoSuchContainer if bodies is None else None, names_of(self.stores[at], container, query)
        )
        if bodies is not None:
            assert found == sorted(bodies, reverse=query.reverse)[: query.limit]

    @rule(at=proxies)
    def roll_up(self, at: int) -> None:
        """List by a delimiter."""
        for container, (_, bodies) in self.model.items():
            found = self.run(names_of(self.stores[at], container, Query(delimiter=b"/")))
            assert found == sorted({name.partition(b"/")[0] + b"/" * (b"/" in name) for name in bodies})

    @rule(at=proxies)
    def count(self, at: int) -> None:
        """After a second, accounts know what their containers hold."""
        self.run(asyncio.sleep(1))
        usage = self.run(self.stores[at].accounts.usage(b"acc", deadline=self.deadline()))
        bodies = [body for _, held in self.model.values() for body in held.values()]
        assert (usage.containers, usage.objects, usage.bytes) == (
            len(self.model),
            len(bodies),
            sum(map(len, bodies)),
        )

    @invariant()
    def every_container_is_listed(self) -> None:
        """At any time, through any proxy."""
        if hasattr(self, "stores"):
            page = self.run(
                self.stores[self.number % 2].accounts.list(b"acc", Query(), deadline=self.deadline())
            )
            assert [getattr(item, "name", None) for item in page.items] == sorted(
                container.container for container in self.model
            )

    def deadline(self) -> float:
        """Enough for anything."""
        return self.loop.time() + 20

    async def read(self, store: Store, name: ObjectName) -> bytes:
        """Read a body."""
        info, body = await store.objects.read(name, deadline=soon())
        return await read_body(body, info.size)


async def names_of(store: Store, container: ContainerName, query: Query) -> list[bytes]:
    """List a container."""
    return await names(store, query, container)


TestTheStore = TheStore.TestCase
TestTheStore.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
