"""Who has a bucket's name: first come first served, whatever is interrupted or happens at the same time."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from proxy.store.buckets import ABANDONED_S, NAMES, Buckets
from proxy.store.errors import BucketTaken, ContainerNotEmpty, NoSuchContainer
from proxy.store.names import ContainerName, ObjectName
from proxy.store.values import Attributes, Description
from swiftlike.timestamps import Clock
from tests.unit.proxy.fake_store import FakeStore

ONE, TWO = b"AUTH_one", b"AUTH_two"
BOX = b"box"


class Time:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.us

    def now(self) -> float:
        return self.us / 1e6

    def wait(self, seconds: float) -> None:
        self.us += int(seconds * 1_000_000)


class World:
    """A store in memory and the registries of as many proxies as are asked for."""

    def __init__(self) -> None:
        self.time = Time()
        self.store = FakeStore(Clock(self.time.now_us, 1))

    def proxy(self) -> Buckets:
        return Buckets(self.store.containers, self.store.objects, self.time.now_us, self.time.now)

    async def owner(self) -> bytes | None:
        """Whose the name is, and has a container."""
        try:
            return (await self.proxy().locate(BOX, deadline=0.0)).name.account
        except NoSuchContainer:
            return None

    def has_container(self, account: bytes) -> bool:
        return ContainerName(account, BOX) in self.store.container_infos


def keep(old: Attributes) -> Attributes:
    return old


async def make(buckets: Buckets, account: bytes, must_be_bucket: bool = True) -> bool:
    name = ContainerName(account, BOX)
    return (await buckets.create(name, keep, None, deadline=0.0, must_be_bucket=must_be_bucket))[1]


@pytest.fixture
def world() -> World:
    return World()


async def test_a_name_is_the_first_ones_until_its_container_is_deleted(world: World) -> None:
    one, two = world.proxy(), world.proxy()
    assert await make(one, ONE) is True
    assert await make(one, ONE) is False
    with pytest.raises(BucketTaken):
        await make(two, TWO)
    assert not world.has_container(TWO)
    await one.delete(ContainerName(ONE, BOX), deadline=0.0)
    assert ObjectName(*NAMES, BOX) not in world.store.object_infos
    assert await make(two, TWO) is True
    assert await world.owner() == TWO


async def test_a_container_may_have_a_name_that_is_taken_and_gets_it_once_it_is_free(world: World) -> None:
    buckets = world.proxy()
    await make(buckets, ONE)
    assert await make(buckets, TWO, must_be_bucket=False) is True
    assert await world.owner() == ONE
    await buckets.delete(ContainerName(TWO, BOX), deadline=0.0)
    assert await world.owner() == ONE
    await make(buckets, TWO, must_be_bucket=False)
    await buckets.delete(ContainerName(ONE, BOX), deadline=0.0)
    assert await world.owner() is None
    assert await make(buckets, TWO, must_be_bucket=False) is False
    assert await world.owner() == TWO


async def test_a_container_that_is_not_empty_keeps_its_name(world: World) -> None:
    buckets = world.proxy()
    await make(buckets, ONE)
    world.store.write(ObjectName(ONE, BOX, b"o"), Description({}), b"")
    with pytest.raises(ContainerNotEmpty):
        await buckets.delete(ContainerName(ONE, BOX), deadline=0.0)
    assert await world.owner() == ONE


async def test_a_claim_whose_container_was_never_made_is_its_accounts_at_once_and_anybodys_later(
    world: World,
) -> None:
    claim = world.proxy()
    for account in (ONE, TWO):
        await claim._claim(ContainerName(ONE, BOX), 0.0)  # and its proxy dies
        with pytest.raises(BucketTaken):
            await make(world.proxy(), TWO)
        world.time.wait(ABANDONED_S + 1)
        await make(world.proxy(), account)
        assert await world.owner() == account
        await world.proxy().delete(ContainerName(account, BOX), deadline=0.0)


async def test_a_claim_that_outlived_its_container_goes_with_a_second_deletion(world: World) -> None:
    buckets = world.proxy()
    await make(buckets, ONE)
    await world.store.containers.delete(ContainerName(ONE, BOX), deadline=0.0)  # and its proxy dies
    with pytest.raises(NoSuchContainer):
        await world.proxy().delete(ContainerName(ONE, BOX), deadline=0.0)
    assert await make(world.proxy(), TWO) is True


async def test_what_is_known_of_a_name_is_a_second_old_at_most_and_never_that_it_is_free(
    world: World,
) -> None:
    near, far = world.proxy(), world.proxy()
    assert await near.owner(BOX, deadline=0.0) is None
    await make(far, ONE)
    assert await near.owner(BOX, deadline=0.0) == ONE
    await far.delete(ContainerName(ONE, BOX), deadline=0.0)
    await make(far, TWO)
    assert (await near.locate(BOX, deadline=0.0)).name.account == TWO, "what is gone is asked for again"
    world.time.wait(1.0)
    assert await near.owner(BOX, deadline=0.0) == TWO


class Stepped:
    """Makes each call of the store wait for its turn, in an order that is given."""

    def __init__(self, world: World, buckets: Buckets, turns: "Turns", who: int) -> None:
        self.world, self.turns, self.who = world, turns, who
        for part, names in (
            ("_objects", ("put", "read", "delete")),
            ("_containers", ("create", "delete", "read")),
        ):
            setattr(buckets, part, _Waiting(getattr(buckets, part), names, self.turn))

    async def turn(self) -> None:
        await self.turns.wait(self.who)


class _Waiting:
    def __init__(self, beneath: object, names: tuple[str, ...], turn: Callable[[], Awaitable[None]]) -> None:
        for name in names:
            setattr(self, name, self._waiting(getattr(beneath, name), turn))

    @staticmethod
    def _waiting(
        call: Callable[..., Awaitable[object]], turn: Callable[[], Awaitable[None]]
    ) -> Callable[..., Awaitable[object]]:
        async def waiting(*arguments: object, **named: object) -> object:
            await turn()
            return await call(*arguments, **named)

        return waiting


class Turns:
    """Lets one of several go on at a time, by a list of whose turn it is; those left over go on as they come."""

    def __init__(self, order: tuple[int, ...]) -> None:
        self.order = list(order)
        self.waiting: dict[int, asyncio.Future[None]] = {}

    async def wait(self, who: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self.waiting[who] = turn
        await turn

    async def run(self, tasks: list["asyncio.Task[object]"]) -> None:
        while not all(task.done() for task in tasks):
            for _ in range(3):
                await asyncio.sleep(0)
            if not self.waiting:
                continue
            who = self.order.pop(0) if self.order else min(self.waiting)
            if who in self.waiting:
                self.waiting.pop(who).set_result(None)


@pytest.mark.parametrize("is_abandoned", [False, True], ids=["free", "abandoned"])
async def test_of_two_at_the_same_time_at_most_one_is_told_that_it_is_his_whatever_the_order(
    is_abandoned: bool,
) -> None:
    for order in itertools.product((0, 1), repeat=9):
        world, turns = World(), Turns(order)
        if is_abandoned:
            await world.proxy()._claim(ContainerName(ONE, BOX), 0.0)
            world.time.wait(ABANDONED_S + 1)
        tasks: list[asyncio.Task[object]] = []
        for who, account in enumerate((ONE, TWO)):
            buckets = world.proxy()
            Stepped(world, buckets, turns, who)
            tasks.append(asyncio.create_task(make(buckets, account)))
        await turns.run(tasks)
        winners = [account for account, task in zip((ONE, TWO), tasks, strict=True) if not task.exception()]
        assert len(winners) <= 1, order
        assert all(isinstance(task.exception(), BucketTaken | None) for task in tasks), order
        if winners:
            assert await world.owner() == winners[0], order


async def test_a_deletion_and_a_creation_at_the_same_time_leave_a_container_with_its_name_or_neither() -> (
    None
):
    for order in itertools.product((0, 1), repeat=9):
        world, turns = World(), Turns(order)
        await make(world.proxy(), ONE)
        tasks: list[asyncio.Task[object]] = []
        name = ContainerName(ONE, BOX)
        for who in (0, 1):
            buckets = world.proxy()
            Stepped(world, buckets, turns, who)
            call = make(buckets, ONE) if who else buckets.delete(name, deadline=0.0)
            tasks.append(asyncio.create_task(call))
        await turns.run(tasks)
        assert [task.exception() for task in tasks] == [None, None], order
        is_named = ObjectName(*NAMES, BOX) in world.store.object_infos
        assert is_named or not world.has_container(ONE), order
        if tasks[1].result():
            assert is_named, order
