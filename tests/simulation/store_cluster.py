"""The whole domain over a cluster in virtual time: stores of several proxies, and what tests ask of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

from proxy.cluster.register import Registers
from proxy.cluster.rounds import Patience
from proxy.store.marks import Graces
from proxy.store.names import ContainerName, ObjectName
from proxy.store.store import Store
from proxy.store.values import Attributes, Description, ListedObject, ObjectBody, Received
from storage_node.keys import Due
from swiftlike.config import PolicyConfig
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, Query, objects
from swiftlike.rpc.simulated import SimulatedNetwork, Weather
from swiftlike.rpc.transport import Body
from swiftlike.rpc.virtual_time import run_in_virtual_time
from tests.simulation.quorum_cluster import STARTED_US, Cluster, WayOut

POLICIES = (PolicyConfig(0, "standard", default=True), PolicyConfig(1, "other"))
TABLES = (objects(0), objects(1), CONTAINERS, ACCOUNTS)
DEADLINE_S = 20.0
PATIENCE = Patience(round_s=2.0, hedge_s=0.3, back_off_s=0.02)
CONTAINER = ContainerName(b"acc", b"Con")
"""No legal name of a bucket, so that nothing is claimed for it: what is tested here is the domain alone."""


@dataclass
class StoreCluster:
    """Devices, and the stores of some proxies with clocks of their own."""

    cluster: Cluster
    stack: AsyncExitStack
    graces: Graces = field(default_factory=Graces)
    registers: dict[str, Registers] = field(default_factory=dict)
    way: WayOut = field(default_factory=WayOut)
    """Of the calls of all proxies."""

    async def proxy(self, name: str = "proxy", skew_s: float = 0.0) -> Store:
        """Start a proxy."""
        registers = await self.cluster.proxy(name, skew_s, self.way, PATIENCE)
        self.registers[name] = registers
        return await self.stack.enter_async_context(
            Store(registers, POLICIES, self.cluster.random, self.graces)
        )

    def debts(self) -> int:
        """What all devices are owed."""
        return sum(len(device.store.due(Due.DEBT, 2**62, 10_000)) for device in self.cluster.devices)


Scenario = Callable[[StoreCluster, Store], Awaitable[Any]]


def play(
    scenario: Scenario,
    owners: int = 3,
    seed: int = 7,
    others: int = 0,
    graces: Graces = Graces(),  # noqa: B008  # a value
) -> Any:
    """Run a scenario with one proxy to begin with."""

    async def main() -> Any:
        async with SimulatedNetwork(seed, Weather()) as network, AsyncExitStack() as stack:
            cluster = Cluster(network, stack, owners, others, tables=TABLES)
            await cluster.start()
            world = StoreCluster(cluster, stack, graces)
            return await scenario(world, await world.proxy())

    try:
        return run_in_virtual_time(main())
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def soon() -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + DEADLINE_S


def now_us() -> int:
    """What clocks read that are right."""
    return STARTED_US + int(asyncio.get_running_loop().time() * 1e6)


@dataclass
class Sent:
    """A body that a client sends in pieces."""

    body: bytes
    attributes: Attributes = field(default_factory=dict)
    delete_at_us: int = 0
    pieces: int = 1
    is_size_known: bool = True
    pause_s: float = 0.0

    @property
    def size(self) -> int | None:
        """What was declared."""
        return len(self.body) if self.is_size_known else None

    async def chunks(self) -> AsyncIterator[Body]:
        """Yield the pieces."""
        each = max(1, -(-len(self.body) // self.pieces))
        for at in range(0, len(self.body), each):
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            yield self.body[at : at + each]

    def finish(self, received: Received) -> Description:
        """Describe it as a dialect does."""
        return Description({"etag": received.md5, **self.attributes}, self.delete_at_us)


def named(name: bytes, container: ContainerName = CONTAINER) -> ObjectName:
    """An object of the tests' container."""
    return ObjectName(container.account, container.container, name)


async def create(store: Store, name: ContainerName = CONTAINER, policy: int | None = None) -> bool:
    """Create a container; say whether it was not there."""
    return (await store.containers.create(name, keep, policy, deadline=soon()))[1]


async def put(store: Store, name: bytes, body: bytes = b"body", **options: Any) -> str:
    """Put an object of the tests' container, and return its etag."""
    return (await store.objects.put(named(name), Sent(body, **options), deadline=soon())).etag


async def get(store: Store, name: bytes) -> bytes:
    """Return the body of an object."""
    info, body = await store.objects.read(named(name), deadline=soon())
    return await read_body(body, info.size)


async def read_body(body: ObjectBody, size: int) -> bytes:
    """Read a body from end to end."""
    chunks = body.stream(0, size)
    async with aclosing(chunks):  # type: ignore[type-var]  # a generator, called an iterator
        return b"".join([bytes(chunk) async for chunk in chunks])


async def delete(store: Store, name: bytes) -> bool:
    """Delete an object; say whether it was there."""
    return await store.objects.delete(named(name), deadline=soon())


async def names(
    store: Store, query: Query | None = None, container: ContainerName = CONTAINER
) -> list[bytes]:
    """List a container."""
    page = await store.containers.list(container, query or Query(), deadline=soon())
    return [item.name if isinstance(item, ListedObject) else item.prefix for item in page.items]


def keep(attributes: Attributes) -> Attributes:
    """Describe something by what it is described by."""
    return attributes


def describing(**attributes: str) -> Callable[[Attributes], Attributes]:
    """Describe something by this, whatever stood there."""
    return lambda before: attributes


async def counted(store: Store, account: bytes = b"acc") -> Sequence[int]:
    """Containers, objects and bytes of an account."""
    usage = await store.accounts.usage(account, deadline=soon())
    return usage.containers, usage.objects, usage.bytes
