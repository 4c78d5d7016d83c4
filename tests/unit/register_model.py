"""Random schedules of clients, messages and crashes around real acceptors, for one key.

The acceptors are `storage_node.acceptor`'s and the judgement of an owner's memory is `swiftlike.registers`'; the
clients follow the two paths of a write as docs/architecture.md has them. Clocks are skewed; messages are lost, late
and reordered; clients die in the middle; a replicator copies entries about.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from random import Random
from typing import Any

from storage_node import acceptor
from storage_node.acceptor import Accepted, Known, Promised, Refused, WantsBody
from swiftlike.entries import Entry, Version, pack_metadata, unpack_metadata
from swiftlike.node_calls import Standing
from swiftlike.registers import Register, never_accepted
from swiftlike.timestamps import Ballot, Timestamp, WriteId
from tests.unit.linearizability import Call

VOTER = Standing(votes=True)
DECIDE_TRIES = 8


class Shortcut(Enum):
    """Rules left out; the checker must catch each."""

    REOFFER = "offer again without proof that the first offer was never accepted"
    NO_WRITE_BACK = "read without writing back"
    NO_PROMISE = "acceptors forget promises"
    MINORITY = "one less than a majority suffices"
    NO_BASE = "a conditional write does not say on what it was judged"
    ACROSS_BALLOTS = "count a write accepted under different ballots as one majority"
    NO_MEMORY = "acceptors forget what was replaced, and claim that nothing was"


class Owner:
    """One acceptor with its register."""

    def __init__(self, shortcut: Shortcut | None) -> None:
        self._shortcut = shortcut
        self.register: Register | None = None

    def accept(self, entry: Entry) -> Accepted | Known | Refused:
        answer = acceptor.accept(self.register, entry, VOTER)
        assert not isinstance(answer, WantsBody), "the model's entries come with what they need"
        if isinstance(answer, Accepted):
            self.register = answer.register
            if self._shortcut is Shortcut.NO_MEMORY:
                self.register = self.register._replace(replaced=())
        return answer

    def prepare(self, ballot: Ballot) -> Promised | Refused:
        answer = acceptor.prepare(self.register, ballot, VOTER)
        if isinstance(answer, Promised) and self._shortcut is not Shortcut.NO_PROMISE:
            self.register = answer.register
        return answer

    def read(self, _: None) -> Register:
        return self.register or acceptor.unwritten(VOTER)


Answers = dict[int, Any]


class World:
    """Virtual time, and a network between clients and owners that loses, delays and reorders."""

    def __init__(self, seed: int, owners: int, shortcut: Shortcut | None) -> None:
        self.random = Random(seed)
        self.shortcut = shortcut
        self.owners = [Owner(shortcut) for _ in range(owners)]
        self.majority = owners // 2 + 1
        self.now = 0.0
        self.loss = self.random.choice([0, 0, 0.05, 0.2, 0.35])
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._scheduled = 0

    def after(self, delay: float, event: Callable[[], object]) -> None:
        self._scheduled += 1
        heapq.heappush(self._events, (self.now + delay, self._scheduled, event))

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        while self._events and not until():
            self.now, _, event = heapq.heappop(self._events)
            event()

    def ask_all(
        self,
        method: str,
        argument: object,
        enough: Callable[[Answers], bool],
        then: Callable[[Answers], object],
    ) -> None:
        """Ask every owner; go on when enough have answered, or all have answered or timed out."""
        answers: Answers = {}
        done = [False]

        def answered(owner: int, answer: object) -> None:
            answers.setdefault(owner, answer)
            if not done[0] and (enough(answers) or len(answers) == len(self.owners)):
                done[0] = True
                then(dict(answers))

        for owner in range(len(self.owners)):
            self._ask(owner, method, argument, answered)

    def _ask(
        self, owner: int, method: str, argument: object, answered: Callable[[int, object], None]
    ) -> None:
        def deliver() -> None:
            answer = getattr(self.owners[owner], method)(argument)
            if self.random.random() >= self.loss:
                self.after(self.random.expovariate(1), lambda: answered(owner, answer))

        slowness = 8 if self.random.random() < 0.1 else 1
        if self.random.random() >= self.loss:
            self.after(self.random.expovariate(1) * slowness, deliver)
        self.after(30, lambda: answered(owner, None))


@dataclass
class Read:
    """How a read, or a settling, ended."""

    ok: bool
    value: int | None = None


class Client:
    """One coordinator: the write, the swap, the read and the settling of one key."""

    def __init__(self, world: World, writer: int, skew: int, mortal: bool = True) -> None:
        self.world = world
        self.writer = writer
        self.skew = skew
        self.known: int | None = None
        self.dead = False
        self._mortal = mortal
        self._high = 0

    def write(self, value: int | None, write_id: WriteId, done: Callable[[str], object]) -> None:
        entry = entry_of(value, write_id, self._ballot())

        def fast(ok: bool) -> None:
            if ok:
                done("ok")
            elif self.world.shortcut is Shortcut.REOFFER:
                again = entry._replace(ballot=self._ballot())
                self._accept(again, lambda ok: done("ok" if ok else "unknown"))
            else:
                self._decide(write_id, entry.ballot, lambda newest: entry, lambda outcome, _: done(outcome))

        self._accept(entry, fast)

    def swap(
        self, expected: int | None, value: int | None, write_id: WriteId, done: Callable[[str], object]
    ) -> None:
        def make(newest: Entry | None) -> Entry | None:
            if value_of(newest) != expected:
                return None
            base = None if newest is None or self.world.shortcut is Shortcut.NO_BASE else newest.version
            return entry_of(value, write_id, Ballot.of(0, 0))._replace(base=base)

        self._decide(write_id, None, make, lambda outcome, _: done(outcome))

    def read(self, done: Callable[[Read], object]) -> None:
        def settled(outcome: str, newest: Entry | None) -> None:
            done(Read(outcome == "failed", value_of(newest)))

        def got(answers: Answers) -> None:
            held: list[Register] = [answer for answer in answers.values() if answer is not None]
            if len(held) < self.world.majority:
                done(Read(ok=False))
                return
            newest = max(held, key=lambda register: register.ballot)
            agreed = sum(register.ballot == newest.ballot for register in held) >= self.world.majority
            entry = newest.entry
            if agreed or entry is None or self.world.shortcut is Shortcut.NO_WRITE_BACK:
                done(Read(ok=True, value=value_of(entry)))
                return
            found = Read(ok=True, value=value_of(entry))
            nothing = WriteId(Timestamp.of(0, self.writer))

            def written_back(ok: bool) -> None:
                if ok:
                    done(found)
                else:
                    self._decide(nothing, None, lambda newest: None, settled)

            self._accept(entry, written_back)

        self._round("read", None, (Register,), got)

    def _decide(
        self,
        write_id: WriteId,
        first: Ballot | None,
        make: Callable[[Entry | None], Entry | None],
        done: Callable[[str, Entry | None], object],
        tries: int = DECIDE_TRIES,
    ) -> None:
        """Take the two rounds. `first`: the lowest ballot under which the write was offered, None if it never was.

        `make` gives the entry to offer, judged on the newest, or None to refuse.
        """
        if self.dead:
            return
        if not tries:
            done("unknown" if first else "no effect", None)
            return
        world, ballot = self.world, self._ballot()

        def again(first: Ballot | None) -> None:
            delay = world.random.random() * 2 ** (DECIDE_TRIES + 1 - tries)
            world.after(delay, lambda: self._decide(write_id, first, make, done, tries - 1))

        def carry(newest: Entry | None, outcome: str) -> None:
            if newest is None:  # nothing was ever written: an entry that says so is carried through instead
                newest = entry_of(None, WriteId(Timestamp.of(0, 0)), ballot)
            newest = newest._replace(ballot=ballot)
            self._accept(newest, lambda ok: done(outcome, newest) if ok else again(first))

        def got(answers: Answers) -> None:
            held: list[Register] = [
                answer.before for answer in answers.values() if isinstance(answer, Promised)
            ]
            if len(held) < world.majority:
                again(first)
                return
            newest = max((r.entry for r in held if r.entry), key=lambda entry: entry.ballot, default=None)
            if first is not None:
                if is_decided(held, write_id, world.majority, world.shortcut):
                    done("ok", newest)
                    return
                if newest is not None and write_id in (newest.write_id, newest.base and newest.base.write_id):
                    carry(newest, "ok")
                    return
                if sum(never_accepted(r, Version(write_id, first)) for r in held) < world.majority:
                    again(first)
                    return
            new = make(newest)
            if new is None:
                carry(newest, "failed")
            else:
                offered = new._replace(ballot=ballot)
                self._accept(offered, lambda ok: done("ok", offered) if ok else again(first or ballot))

        self._round("prepare", ballot, (Promised,), got)

    def _accept(self, entry: Entry, then: Callable[[bool], object]) -> None:
        needed = self.world.majority - (self.world.shortcut is Shortcut.MINORITY)
        kinds = (Accepted, Known)
        self._round("accept", entry, kinds, lambda answers: then(_count(answers, kinds) >= needed), needed)

    def _round(
        self,
        method: str,
        argument: object,
        kinds: tuple[type, ...],
        then: Callable[[Answers], object],
        needed: int | None = None,
    ) -> None:
        if self.dead:
            return
        if self._mortal and self.world.random.random() < 0.01:
            self.dead = True  # with its messages on the way

        def got(answers: Answers) -> None:
            for answer in answers.values():
                if isinstance(answer, Refused):
                    self._high = max(self._high, answer.above.micros)
            if not self.dead:
                then(answers)

        enough = self.world.majority if needed is None else needed
        self.world.ask_all(method, argument, lambda answers: _count(answers, kinds) >= enough, got)

    def _ballot(self) -> Ballot:
        self._high = max(self._high + 1, int(self.world.now * 10) + self.skew + 1)
        return Ballot.of(self._high, self.writer)


def is_decided(held: list[Register], write_id: WriteId, majority: int, shortcut: Shortcut | None) -> bool:
    """Say whether a majority holds or remembers a write under one ballot."""
    ballots = [
        {version.ballot for version in versions_of(register) if version.write_id == write_id}
        for register in held
    ]
    if shortcut is Shortcut.ACROSS_BALLOTS:
        return sum(map(bool, ballots)) >= majority
    return any(sum(ballot in each for each in ballots) >= majority for ballot in set().union(*ballots))


def versions_of(register: Register) -> list[Version]:
    """Return what an owner holds and remembers."""
    held = [] if register.entry is None else [register.entry.version]
    return held + [old.version for old in register.replaced]


def entry_of(value: int | None, write_id: WriteId, ballot: Ballot) -> Entry:
    """Return the entry of a value; None is a tombstone."""
    return Entry(ballot, write_id, 0, tombstone=value is None, metadata=pack_metadata({"value": value or 0}))


def value_of(entry: Entry | None) -> int | None:
    """Return the value of an entry."""
    if entry is None or entry.tombstone:
        return None
    value = unpack_metadata(entry.metadata)["value"]
    assert isinstance(value, int)
    return value


def _count(answers: Answers, kinds: tuple[type, ...]) -> int:
    return sum(isinstance(answer, kinds) for answer in answers.values())


def run(seed: int, shortcut: Shortcut | None = None, owners: int = 3) -> tuple[list[Call], bool]:
    """Run one schedule; return the history, and whether a read was possible once faults had stopped."""
    world = World(seed, owners, shortcut)
    random, history, operations = world.random, [], iter(range(1, 10**6))

    def step(client: Client, left: int) -> None:
        if left:
            perform(client, lambda: world.after(random.expovariate(1) * 2, lambda: step(client, left - 1)))

    def perform(client: Client, then: Callable[[], object]) -> None:
        kind, operation = random.random(), next(operations)
        write_id = WriteId(Timestamp.of(operation, client.writer))

        def finish(outcome: str) -> None:
            call.outcome = outcome  # type: ignore[assignment]
            if outcome != "unknown":
                call.ended = world.now
            then()

        def finish_read(found: Read) -> None:
            if found.ok:
                client.known = call.value = found.value
            finish("ok" if found.ok else "unknown")

        if kind < 0.4:
            call = Call("write", None if random.random() < 0.2 else operation, world.now)
            history.append(call)
            client.write(call.value, write_id, finish)
        elif kind < 0.6:
            call = Call("read", None, world.now)
            history.append(call)
            client.read(finish_read)
        else:
            heard = [old.value for old in history[-4:] if old.kind != "read"]
            expected = random.choice(heard) if heard and random.random() < 0.6 else client.known
            call = Call("swap", operation, world.now, expected=expected)
            history.append(call)
            client.swap(expected, operation, write_id, finish)

    def replicate() -> None:
        """Copy what one owner holds to another: a late accept."""
        source, target = random.sample(world.owners, 2) if owners > 1 else world.owners * 2
        if source.register is not None and source.register.entry is not None:
            target.accept(source.register.entry)
        if world.now < 300:
            world.after(random.expovariate(1) * 10, replicate)

    for writer in range(1, 5):
        client = Client(world, writer, skew=random.choice([0, 0, 5, 50, 400]))
        world.after(random.random() * 3, partial(step, client, 5))
    world.after(5, replicate)
    world.run()
    return history, read_in_the_end(world, history)


def read_in_the_end(world: World, history: list[Call]) -> bool:
    """Read once faults have stopped, and add that to the history."""
    world.loss = 0
    last = Client(world, 99, skew=1_000, mortal=False)
    for _ in range(6):
        found: list[Read] = []
        last.read(found.append)
        world.run(until=partial(bool, found))
        if found and found[0].ok:
            history.append(Call("read", found[0].value, world.now, world.now + 1, outcome="ok"))
            return True
    return False
