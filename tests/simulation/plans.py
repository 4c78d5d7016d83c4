"""Plans: what clients will do in a run and what will go wrong meanwhile, drawn from one seed before the run begins.

Owns the shape of a plan, how one is drawn, and how one is made smaller: each step carries its own dice, so that leaving
others out changes nothing else of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Final, TypeVar

from tests.simulation.linearizability import Kind

T = TypeVar("T")

DEVICES: Final = 3
"""Owners of the one partition; the devices behind them stand in, and become owners when the ring changes."""
OTHERS: Final = 2
PROXIES: Final = 3
NAMES: Final = (b"a", b"b/1", b"b/2", b"c")
DUE: Final = b"due"
"""Is only ever put, each time to be deleted before long."""
FAULTS_END_S: Final = 30.0
WEEK_S: Final = 7 * 86_400.0
FORGETFUL_S: Final = 8.0
"""A reclaim age within which a device may well be away."""
LAGS_S: Final = (0.0, 6.0, 18.0)


class Fault(Enum):
    """What may go wrong for a while."""

    CRASH = "a device's process dies, and its peers hear of it"
    POWER = "a device falls silent"
    BLACKOUT = "all devices fall silent at once"
    CUT = "hosts do not hear each other"
    LOSS = "calls and answers are lost"
    SLOW = "a device's disk is slow"
    FULL = "a device is full"
    ROT = "a copy of a body is damaged"
    TWICE = "calls arrive a second time, later"
    PROXY = "a proxy dies in the middle of what it does"
    TORN = "a proxy dies when one owner has taken its write, and that owner falls silent"
    SYNC = "a sync fails: the device comes back, and does not vote"


class Order(Enum):
    """What an operator may do."""

    REPLACE = "replace a disk by an empty one"
    MOVE = "move the partition to other owners, and settle it there"
    UNDO = "begin a move, and undo it"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a client does."""

    kind: Kind | None
    """None: it lists."""
    name: bytes
    number: int
    """Names what it writes."""
    wait_s: float
    """After the step before."""
    life_s: float | None
    """The client dies so long after it began; None: it lives."""
    dice: float
    """For whatever the step must choose when its turn comes."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault."""

    fault: Fault
    at_s: float
    for_s: float
    dice: float
    """Says who is struck, and how hard."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing that an operator does, once what was ordered before is done."""

    order: Order
    wait_s: float
    late_s: float
    """Within which all processes have heard of a new ring."""
    dice: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run."""

    seed: int
    skews_s: tuple[float, ...]
    """How far the clock of each proxy is ahead."""
    clients: tuple[tuple[Step, ...], ...]
    """What the client of each proxy does, in order."""
    troubles: tuple[Trouble, ...]
    tasks: tuple[Task, ...] = ()
    """What the operator does, in order."""
    age_s: float = WEEK_S
    """For how long deletions are remembered at least."""
    lag_s: float = 0.0
    """From the start of a device's process to its first comparison with others; if any, nobody is hinted to either."""

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}, clocks {self.skews_s}, remembers {self.age_s:.0f} s, lags {self.lag_s:.0f} s"
        ]
        lines += [f"  {one.order.name} after {one.wait_s:.3f} s, {one.dice:.4f}" for one in self.tasks]
        lines += [
            f"  at {one.at_s:.3f} s for {one.for_s:.3f} s: {one.fault.name} {one.dice:.4f}"
            for one in self.troubles
        ]
        for number, steps in enumerate(self.clients):
            lines += [f"  client {number}:"] if steps else []
            for step in steps:
                what = "LIST" if step.kind is None else f"{step.kind.name} {step.name.decode()}"
                ends = "" if step.life_s is None else f", dies after {step.life_s:.3f} s"
                lines.append(f"    {step.number}: {what} after {step.wait_s:.3f} s{ends}")
        return "\n".join(lines)


_KINDS: Final = (
    (Kind.PUT, 26),
    (Kind.DELETE, 12),
    (Kind.POST, 10),
    (Kind.SWAP, 20),
    (Kind.READ, 20),
    (None, 12),
)


class Theme(Enum):
    """What most plans do not have enough of: the faults of the others, while owners change."""

    ANYTHING = None
    TORN = (Fault.TORN,)
    TORN_AND_LOST = (Fault.TORN, Fault.LOSS)
    LOST = (Fault.LOSS, Fault.POWER)
    DARK = (Fault.BLACKOUT, Fault.SLOW)


THEMES: Final = (Theme.ANYTHING, Theme.ANYTHING, Theme.TORN, Theme.TORN_AND_LOST, Theme.LOST)
DARK: Final = 14
"""Modulo 20, the seeds whose power fails just behind answers, on slow disks."""


def draw(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(seed)
    age_s = random.choice((WEEK_S, WEEK_S, FORGETFUL_S))
    behind_s = -90.0 if age_s == WEEK_S else -1.5
    skews_s = tuple(random.choice((0.0, 0.02, -0.3, 20.0, 20.0, behind_s)) for _ in range(PROXIES))
    busy = random.choice((0.05, 0.3, 1.0))
    span_s = 12 * busy
    names = NAMES[: random.choice((1, 2, 4))]
    theme = random.choice(THEMES)
    numbers = iter(range(1, 1_000_000))
    clients = tuple(
        tuple(_draw_step(random, next(numbers), busy, names) for _ in range(random.randint(6, 16)))
        for _ in range(PROXIES)
    )
    if seed % 20 == DARK:
        theme = Theme.DARK
    kinds = theme.value or random.sample(list(Fault), random.randint(0, 4))
    troubles = tuple(
        Trouble(
            random.choice(kinds),
            random.uniform(0, span_s),
            random.expovariate(1 / random.choice((0.2, 2.0, 6.0))),
            random.random(),
        )
        for _ in range(random.randint(1, 7) if kinds else 0)
    )
    tasks = tuple(
        Task(
            random.choice(list(Order)),
            random.expovariate(4 / span_s),
            random.choice((0.02, 0.5, 4.0)),
            random.random(),
        )
        for _ in range(random.choice((0, 0, 1, 1, 2, 3) if theme is Theme.ANYTHING else (1, 2)))
    )
    lags_s = LAGS_S if age_s == WEEK_S else (0.0, *LAGS_S[-1:] * 3)
    in_order = tuple(sorted(troubles, key=lambda one: one.at_s))
    return Plan(seed, skews_s, clients, in_order, tasks, age_s, random.choice(lags_s))


def _draw_step(random: Random, number: int, busy: float, names: tuple[bytes, ...]) -> Step:
    (kind,) = random.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
    name = random.choice(names[: random.choice((1, 2, 4))])
    return Step(
        kind,
        DUE if kind is Kind.PUT and random.random() < 0.15 else name,
        number,
        random.expovariate(1 / busy),
        random.expovariate(1 / 0.03) if random.random() < 0.07 else None,
        random.random(),
    )


def smaller(plan: Plan) -> Iterator[Plan]:
    """Yield plans that leave something out, the largest cuts first."""
    parts = max(2, len(plan.troubles))
    for piece in _cuts(len(plan.troubles), parts):
        yield replace(plan, troubles=_without(plan.troubles, piece))
    for piece in _cuts(len(plan.tasks), max(1, len(plan.tasks))):
        yield replace(plan, tasks=_without(plan.tasks, piece))
    for client, steps in enumerate(plan.clients):
        for piece in _cuts(len(steps), 4 if len(steps) > 8 else max(1, len(steps))):
            kept = (*plan.clients[:client], _without(steps, piece), *plan.clients[client + 1 :])
            yield replace(plan, clients=kept)


def _cuts(length: int, parts: int) -> Iterator[range]:
    if not length:
        return
    yield range(length)
    size = max(1, length // parts)
    for at in range(0, length, size):
        yield range(at, min(length, at + size))


def _without(items: tuple[T, ...], piece: range) -> tuple[T, ...]:
    return items[: piece.start] + items[piece.stop :]
