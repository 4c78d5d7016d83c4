"""What goes wrong in a world, and what its operator does meanwhile.

Owns when and to whom a trouble happens, as a plan says, and the rings that the operator publishes: the next one only when
what it ordered is done. Never takes more than the design withstands: of what was acknowledged one sound copy stays, and no
second owner loses its votes before the first has caught up.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final
from uuid import UUID

from storage_node.keys import Key as StoredKey
from swiftlike.entries import Entry
from swiftlike.limits import COMPARED_EVERY_S
from swiftlike.rpc.transport import TcpAddress
from swiftlike.timestamps import ZERO_BALLOT, Ballot
from tests.simulation.plans import DEVICES, FAULTS_END_S, NAMES, OTHERS, Fault, Order, Task, Trouble
from tests.simulation.quorum_cluster import Cluster, next_ring, ring_fields
from tests.simulation.store_cluster import named
from tests.simulation.syncing_store import SYNC_S
from tests.simulation.world_processes import BODIES, WorldDevice, WorldProxy

AGREE_WITHIN_S: Final = FAULTS_END_S + 20 * COMPARED_EVERY_S
"""For owners to hold the same: a settle that was cut short is tried again, debts are paid before copies go back."""
PATIENCE_S: Final = 30.0
"""Of an operator who wants to replace a disk while the others are not well; then the disk stays."""
DANGER_WITHIN_S: Final = 6.0
"""Until an object's last word is held by two owners only."""
TORN_WITHIN_S: Final = 6.0
"""Until somebody writes."""
LINKS: Final = (0.0, 0.0, 0.3, 0.9)
"""Chances that a call is lost on a link that is flaky, or its answer."""
LINKS_CHANGE_S: Final = 0.6
"""Until other links are, on average."""


class Operator:
    """Who replaces disks and publishes rings."""

    def __init__(
        self, cluster: Cluster, devices: Sequence[WorldDevice], down: set[str], *, is_wide: bool
    ) -> None:
        """Begin with the ring that is there; `down` are the devices without a process. `is_wide`: see `plans.WIDE`."""
        self._is_wide: Final = is_wide
        self.wrong: Final[list[str]] = []
        self.owners: tuple[int, ...] = tuple(range(DEVICES))
        self.be_down: Callable[..., Coroutine[Any, Any, None]]
        """Lets devices be silent for a while."""
        self.frail: Final[set[str]] = set()
        """Devices that are about to lose their votes."""
        self._before: tuple[int, ...] = ()
        """Owners that a partition moves from."""
        self._cluster: Final = cluster
        self._devices: Final = devices
        self._down: Final = down
        self.did_something: Final = asyncio.Event()
        """Set, and cleared again, whenever clients may want to see what comes of it."""
        self._uuids: Final = iter(range(1001, 100_000))

    async def work(self, tasks: Sequence[Task]) -> None:
        """Do one thing after another."""
        async with asyncio.TaskGroup() as couriers:
            for task in tasks:
                await asyncio.sleep(task.wait_s)
                dice = Random(task.dice)
                if task.order is Order.REPLACE:
                    victim, other = await self._victim(dice)
                    if other is not None and dice.random() < 0.4:
                        # Misfortunes come together: the last holder is gone while its peer's disk is replaced.
                        for_s = dice.uniform(0, 6)
                        is_silent = not self._is_wide or dice.random() < 0.5
                        gone = self.be_down([self._devices[other].name], for_s, silent=is_silent)
                        couriers.create_task(gone)
                    await self._replace(victim, task.late_s, couriers)
                else:
                    await self._move(dice, task, couriers)

    def may_lose_votes(self, device: WorldDevice) -> bool:
        """Whether all that must remember remember without it."""
        others = [self._devices[number] for number in {*self.owners, *self._before} - {device.number}]
        return all(other.votes() and other.name not in self.frail for other in others)

    async def _victim(self, dice: Random) -> tuple[int, int | None]:
        """Choose an owner whose disk fails: mostly one of the only two that know the last word on an object, as soon as there is any.

        What is left of a majority is then a single owner, the second that is returned. The last word is an entry, or a promise.
        """
        holders: list[int] = []
        counts_promises = self._is_wide and dice.random() < 0.5

        def last_word(number: int, key: StoredKey) -> Ballot:
            device = self._devices[number]
            if counts_promises:
                return device.outstanding(key)
            entry, _ = device.holds(key)
            return ZERO_BALLOT if entry is None else entry.ballot

        def is_in_danger() -> bool:
            for name in NAMES:
                key = StoredKey(BODIES, named(name).path)
                words = {number: last_word(number, key) for number in self.owners}
                last = max(words.values())
                holders[:] = [number for number, word in words.items() if word == last]
                if last != ZERO_BALLOT and len(holders) == DEVICES - 1:
                    return True
            return False

        if dice.random() < 0.7 and await _until(is_in_danger, DANGER_WITHIN_S):
            victim, other = dice.sample(holders, 2)
            return victim, other
        return dice.choice(self.owners), None

    async def _replace(self, number: int, late_s: float, couriers: asyncio.TaskGroup) -> None:
        device = self._devices[number]

        def may_be() -> bool:
            is_needed = any(self.is_last_sound(device, name) for name in NAMES)
            return device.name not in self._down and self.may_lose_votes(device) and not is_needed

        if not await _until(may_be, PATIENCE_S):
            return
        self._down.add(device.name)
        self.frail.add(device.name)
        await self._cluster.network.crash(device.name)
        device.wipe(UUID(int=next(self._uuids)))
        self.frail.discard(device.name)
        self._publish(late_s, couriers)
        self._cluster.network.restart(device.name)
        self._down.discard(device.name)
        await self._wait_for([number], "a disk that was replaced")
        self._cue()

    async def _move(self, dice: Random, task: Task, couriers: asyncio.TaskGroup) -> None:
        owners = tuple(sorted(dice.sample(range(DEVICES + OTHERS), DEVICES)))
        if self._is_wide and dice.random() < 0.4:
            # As many as can: all others, and one that stays.
            others = [number for number in range(DEVICES + OTHERS) if number not in self.owners]
            owners = tuple(sorted([*others, *dice.sample(self.owners, DEVICES - len(others))]))
        if owners == self.owners:
            return
        self._before, self.owners = self.owners, owners
        self._publish(task.late_s, couriers)
        if task.order is Order.UNDO:
            await asyncio.sleep(dice.uniform(0, 3))
            self.owners = self._before
        else:
            if dice.random() < 0.2:
                await self._replace(dice.choice((*self.owners, *self._before)), task.late_s, couriers)
            await self._wait_for(owners, "new owners")
            self._cue()
            await asyncio.sleep(dice.choice((0.0, task.wait_s)))  # operators do not settle at once
        self._before = ()
        self._publish(task.late_s, couriers)

    async def _wait_for(self, numbers: Sequence[int], what: str) -> None:
        """Wait until these devices say that they have caught up, as the next epoch takes."""
        epoch = self._cluster.ring.epoch
        if not await _until(
            lambda: all(self._devices[number].has_caught_up(epoch) for number in numbers), AGREE_WITHIN_S
        ):
            self.wrong.append(f"{what} did not catch up within {AGREE_WITHIN_S:.0f} s")

    def _publish(self, late_s: float, couriers: asyncio.TaskGroup) -> None:
        """Send the next epoch to all processes; each has it at a moment of its own, and may miss one by that."""
        cluster = self._cluster
        uuids = {device.number: device.uuid for device in self._devices}
        moving = {0: self._before} if self._before else {}
        described = ring_fields(self.owners, len(self._devices), moving=moving, uuids=uuids)
        ring = cluster.ring = next_ring(cluster.ring, described)
        by_shelf = {id(device.shelf): device for device in self._devices}

        async def bring(at: int, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            shelf = cluster.shelves[at]
            if shelf.current.epoch < ring.epoch:
                shelf.current = ring
                if id(shelf) in by_shelf:
                    by_shelf[id(shelf)].look_at_rings()

        self._cue()
        for at in range(len(cluster.shelves)):
            couriers.create_task(bring(at, cluster.random.uniform(0, late_s)))

    def _cue(self) -> None:
        self.did_something.set()
        self.did_something.clear()

    def is_last_sound(self, device: WorldDevice, name: bytes) -> bool:
        """Whether a device holds the body of an entry that another owner holds without."""
        key = StoredKey(BODIES, named(name).path)
        entry, is_sound = device.holds(key)
        if entry is None or not is_sound:
            return False
        for number in {*self.owners, *self._before} - {device.number}:
            other, is_whole = self._devices[number].holds(key)
            if other is not None and other.body_id == entry.body_id and not is_whole:
                return True
        return False


class Nemesis:
    """Who lets things go wrong."""

    def __init__(
        self,
        cluster: Cluster,
        devices: Sequence[WorldDevice],
        proxies: Sequence[WorldProxy],
        operator: Operator,
        down: set[str],
    ) -> None:
        """Take the victims."""
        self.answered: Final = asyncio.Event()
        """A client was told how a call ended."""
        self._cluster: Final = cluster
        self._devices: Final = devices
        self._proxies: Final = proxies
        self._operator: Final = operator
        self._down: Final = down
        self._lurking: list[tuple[bool, asyncio.Future[tuple[WorldDevice, WorldProxy]]]] = []
        """Who waits for a write that one owner has taken; True: for a conditional one."""
        self._stalling: list[tuple[float, asyncio.Future[None]]] = []
        """Who waits for a proxy that a majority has promised something, and for how long that is to stop."""
        self._promised: dict[Ballot, set[WorldDevice]] = {}
        operator.be_down = self._be_down
        for device in devices:
            device.on_accept = self._see_accept
            device.on_promise = self._see_promise

    async def suffer(self, trouble: Trouble) -> None:
        """Let one thing go wrong, at its time."""
        await asyncio.sleep(trouble.at_s)
        for_s = min(trouble.for_s, FAULTS_END_S - trouble.at_s)
        device = self._devices[int(trouble.dice * len(self._devices))]
        network, dice = self._cluster.network, Random(trouble.dice)
        match trouble.fault:
            case Fault.CRASH:
                await self._be_down([device.name], for_s, silent=False)
            case Fault.POWER:
                await self._be_down([device.name], for_s, silent=True)
            case Fault.BLACKOUT:
                # At the worst time: just behind an answer.
                self.answered.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(for_s):
                        await self.answered.wait()
                await asyncio.sleep(dice.expovariate(1 / SYNC_S))
                await self._be_down([each.name for each in self._devices], for_s, silent=True)
            case Fault.CUT:
                hosts = [each.name for each in self._devices] + [each.name for each in self._proxies]
                side = dice.sample(hosts, dice.randint(1, len(hosts) - 1))
                rest = [host for host in hosts if host not in side]
                network.cut(side, rest)
                if dice.random() < 0.7:
                    network.cut(rest, side)
                await asyncio.sleep(for_s)
                network.mend()
            case Fault.LOSS:
                chance = dice.uniform(0.01, 0.35)
                for proxy in self._proxies:
                    proxy.way.loss_chance = chance
                await asyncio.sleep(for_s)
                for proxy in self._proxies:
                    proxy.way.loss_chance = 0.0
            case Fault.TWICE:
                chance = dice.uniform(0.05, 0.5)
                for proxy in self._proxies:
                    proxy.way.repeat_chance = chance
                await asyncio.sleep(for_s)
                for proxy in self._proxies:
                    proxy.way.repeat_chance = 0.0
            case Fault.FLAKY:
                await self._be_flaky(dice, for_s)
            case Fault.STALL:
                await self._stall(for_s)
            case Fault.SLOW:
                device.store.slowness = dice.uniform(5, 400)
                await asyncio.sleep(for_s)
                device.store.slowness = 1.0
            case Fault.FULL:
                device.store.is_full = True
                await asyncio.sleep(for_s)
                device.store.is_full = False
            case Fault.ROT:
                name = dice.choice(NAMES)
                if self._is_held_elsewhere(device, name):
                    device.store.damage(StoredKey(BODIES, named(name).path))
            case Fault.PROXY:
                await dice.choice(self._proxies).die(for_s)
            case Fault.TORN:
                await self._tear(dice, for_s)
            case Fault.SYNC:
                await self._fail_sync(device, for_s)

    async def _be_down(self, names: Sequence[str], for_s: float, *, silent: bool) -> None:
        """Let processes be gone for a while, those that are not gone already."""
        mine = [name for name in names if name not in self._down]
        self._down.update(mine)
        await asyncio.gather(*(self._cluster.network.crash(name, silent=silent) for name in mine))
        await asyncio.sleep(for_s)
        for name in mine:
            self._cluster.network.restart(name)
        self._down.difference_update(mine)

    async def _fail_sync(self, device: WorldDevice, for_s: float) -> None:
        if device.name in self._down or not self._operator.may_lose_votes(device):
            return
        self._down.add(device.name)
        self._operator.frail.add(device.name)
        await self._cluster.network.crash(device.name)
        await device.lose_votes()
        self._operator.frail.discard(device.name)
        await asyncio.sleep(for_s)
        self._cluster.network.restart(device.name)
        self._down.discard(device.name)

    def _is_held_elsewhere(self, device: WorldDevice, name: bytes) -> bool:
        """Whether another owner has the very body soundly."""
        key = StoredKey(BODIES, named(name).path)
        entry, _ = device.holds(key)
        others = [
            self._devices[number].holds(key) for number in self._operator.owners if number != device.number
        ]
        return entry is not None and any(
            other is not None and other.body_id == entry.body_id and is_sound for other, is_sound in others
        )

    async def _be_flaky(self, dice: Random, for_s: float) -> None:
        left_s = for_s
        while left_s > 0:
            for proxy in self._proxies:
                proxy.way.bad_links = {
                    TcpAddress(device.name, 6200): dice.choice(LINKS) for device in self._devices
                }
            pause_s = min(left_s, dice.expovariate(1 / LINKS_CHANGE_S))
            await asyncio.sleep(pause_s)
            left_s -= pause_s
        for proxy in self._proxies:
            proxy.way.bad_links = {}

    async def _stall(self, for_s: float) -> None:
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = for_s, stopped
        self._stalling.append(waiting)
        try:
            async with asyncio.timeout(TORN_WITHIN_S):
                await stopped
        except TimeoutError:
            return
        finally:
            if waiting in self._stalling:
                self._stalling.remove(waiting)
        await asyncio.sleep(for_s)

    # --- writes that get nowhere ----------------------------------------------------------------------------------

    async def _tear(self, dice: Random, for_s: float) -> None:
        taken: asyncio.Future[tuple[WorldDevice, WorldProxy]] = asyncio.get_running_loop().create_future()
        waiting = (dice.random() < 0.5, taken)
        self._lurking.append(waiting)
        try:
            async with asyncio.timeout(TORN_WITHIN_S):
                device, proxy = await taken
        except TimeoutError:
            return
        finally:
            if waiting in self._lurking:
                self._lurking.remove(waiting)
        gone = [device.name] if dice.random() < 0.6 else []
        await asyncio.gather(
            proxy.die(dice.uniform(0.05, 1.0)), self._be_down(gone, for_s, silent=dice.random() < 0.5)
        )

    def _see_promise(self, device: WorldDevice, ballot: Ballot) -> None:
        if not self._stalling:
            return
        promised = self._promised.setdefault(ballot, set())
        promised.add(device)
        proxy = next((each for each in self._proxies if each.writer == ballot.writer), None)
        if proxy is not None and len(promised) == DEVICES // 2 + 1:
            for_s, stopped = self._stalling.pop(0)
            proxy.way.held_until = asyncio.get_running_loop().time() + for_s
            stopped.set_result(None)

    def _see_accept(self, device: WorldDevice, entry: Entry) -> None:
        proxy = next((each for each in self._proxies if each.writer == entry.ballot.writer), None)
        for waiting in self._lurking if proxy is not None else ():
            is_conditional, taken = waiting
            if entry.base is not None or not is_conditional:
                assert proxy is not None
                self._lurking.remove(waiting)
                taken.set_result((device, proxy))
                return


async def _until(holds: Callable[[], bool], within_s: float) -> bool:
    for _ in range(int(within_s * 10)):
        if holds():
            return True
        await asyncio.sleep(0.1)
    return holds()
