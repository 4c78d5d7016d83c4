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
WATCHES_S: Final = (0.0, 0.0, 5.0)
LARGE: Final = 500_000
"""Steps numbered from here on write bodies that are streamed."""
WIDE: Final = 1_000_000
"""Seeds from here on have plans in which more may go wrong. Those below keep the plans that they have always had, so that the seeds
which were found to show something go on showing it."""
CUE_PATIENCE_S: Final = 3.0
"""For which clients wait for the operator to do something, on average."""


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
    FLAKY = "each proxy reaches some devices well and others hardly, which ones changes"
    PROXY = "a proxy dies in the middle of what it does"
    TORN = "a proxy dies when one owner has taken its write, and that owner falls silent"
    STALL = "what a proxy sends is held up between the two rounds of a write, and arrives later"
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
    is_cued: bool = False
    """It begins at once when the operator does something, if that is sooner."""


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
    watch_s: float = 0.0
    """Between two looks at everything, on average, until all is well; 0: nobody looks."""
    device_skews_s: tuple[float, ...] = (0.0,) * (DEVICES + OTHERS)
    """How far the clock of each device is ahead."""
    doom_s: float | None = None
    """When an account is deleted that somebody writes to; None: there is no such account."""

    @property
    def is_wide(self) -> bool:
        """Whether it is of the seeds in which more may go wrong."""
        return self.seed >= WIDE

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}, clocks {self.skews_s} and {self.device_skews_s}",
            f"  remembers {self.age_s:.0f} s, lags {self.lag_s:.0f} s, looks every {self.watch_s:.0f} s",
        ]
        if self.doom_s is not None:
            lines.append(f"  at {self.doom_s:.3f} s an account is deleted")
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
                cued = " or a cue" if step.is_cued else ""
                lines.append(f"    {step.number}: {what} after {step.wait_s:.3f} s{cued}{ends}")
        return "\n".join(lines)


_KINDS: Final = (
    (Kind.PUT, 26),
    (Kind.DELETE, 12),
    (Kind.POST, 10),
    (Kind.SWAP, 20),
    (Kind.READ, 20),
    (None, 12),
)
_CONTENDING: Final = ((Kind.PUT, 14), (Kind.DELETE, 4), (Kind.POST, 34), (Kind.SWAP, 28), (Kind.READ, 20))
"""What clients do that build on each other's writes."""


class Theme(Enum):
    """What most plans do not have enough of: the faults of the others, while owners change or clients contend."""

    ANYTHING = None
    TORN = (Fault.TORN,)
    TORN_AND_LOST = (Fault.TORN, Fault.LOSS)
    LOST = (Fault.LOSS, Fault.POWER)
    DARK = (Fault.BLACKOUT, Fault.SLOW)
    CONTENDED = (Fault.FLAKY,)
    STALLED = (Fault.STALL, Fault.STALL, Fault.FLAKY)


THEMES: Final = (Theme.ANYTHING, Theme.ANYTHING, Theme.TORN, Theme.TORN_AND_LOST, Theme.LOST)
WIDE_THEMES: Final = (*THEMES, Theme.CONTENDED, Theme.STALLED)
WIDE_FAULTS: Final = (Fault.FLAKY, Fault.STALL)
FAULTS: Final = tuple(fault for fault in Fault if fault not in WIDE_FAULTS)
_TASKS: Final = {Theme.ANYTHING: (0, 0, 1, 1, 2, 3), Theme.CONTENDED: (0, 0, 1)}
"""How much the operator has to do; elsewhere one thing or two."""
DARK: Final = 14
"""Modulo 20, the seeds whose power fails just behind answers, on slow disks."""


def draw(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(seed)
    age_s = random.choice((WEEK_S, WEEK_S, FORGETFUL_S))
    is_wide = seed >= WIDE
    behind_s = (-200.0 if is_wide else -90.0) if age_s == WEEK_S else -1.5
    skews_s = tuple(random.choice((0.0, 0.02, -0.3, 20.0, 20.0, behind_s)) for _ in range(PROXIES))
    busy = random.choice((0.05, 0.3, 1.0))
    span_s = 12 * busy
    names = NAMES[: random.choice((1, 2, 4))]
    theme = random.choice(WIDE_THEMES if is_wide else THEMES)
    is_contended = theme is Theme.CONTENDED
    if is_contended:
        names = NAMES[:1]
    cued_chance = random.choice((0.0, 0.4)) if is_wide and not is_contended else 0.0
    numbers = iter(range(1, 1_000_000))
    clients = tuple(
        tuple(
            _draw_step(
                random, next(numbers), busy, names, _CONTENDING if is_contended else _KINDS, cued_chance
            )
            for _ in range(random.randint(6, 16))
        )
        for _ in range(PROXIES)
    )
    if seed % 20 == DARK:
        theme = Theme.DARK
    kinds = theme.value or random.sample(list(Fault) if is_wide else FAULTS, random.randint(0, 4))
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
        for _ in range(random.choice(_TASKS.get(theme, (1, 2))))
    )
    lags_s = LAGS_S if age_s == WEEK_S else (0.0, *LAGS_S[-1:] * 3)
    in_order = tuple(sorted(troubles, key=lambda one: one.at_s))
    lag_s = random.choice(lags_s)
    if not is_wide:
        return Plan(seed, skews_s, clients, in_order, tasks, age_s, lag_s)
    watch_s = random.choice(WATCHES_S)
    skew_s = 30.0 if age_s == WEEK_S else 0.3
    device_skews_s = tuple(
        random.choice((0.0, 0.0, 0.05, -0.2, skew_s, -skew_s)) for _ in range(DEVICES + OTHERS)
    )
    doom_s = random.uniform(0, span_s) if random.random() < 0.1 else None
    if random.random() < 0.1:
        clients = tuple(tuple(_perhaps_large(random, step) for step in steps) for steps in clients)
    return Plan(seed, skews_s, clients, in_order, tasks, age_s, lag_s, watch_s, device_skews_s, doom_s)


def _perhaps_large(random: Random, step: Step) -> Step:
    return replace(step, number=step.number + LARGE) if random.random() < 0.2 else step


def _draw_step(
    random: Random,
    number: int,
    busy: float,
    names: tuple[bytes, ...],
    weighed: tuple[tuple[Kind | None, int], ...],
    cued_chance: float,
) -> Step:
    (kind,) = random.choices([kind for kind, _ in weighed], [weight for _, weight in weighed])
    name = random.choice(names[: random.choice((1, 2, 4))])
    is_cued = cued_chance > 0 and random.random() < cued_chance
    return Step(
        kind,
        DUE if kind is Kind.PUT and random.random() < 0.15 else name,
        number,
        random.expovariate(1 / (CUE_PATIENCE_S if is_cued else busy)),
        random.expovariate(1 / 0.03) if random.random() < 0.07 else None,
        random.random(),
        is_cued,
    )


def smaller(plan: Plan) -> Iterator[Plan]:
    """Yield plans that leave something out, the largest cuts first."""
    parts = max(2, len(plan.troubles))
    for piece in _cuts(len(plan.troubles), parts):
        yield replace(plan, troubles=_without(plan.troubles, piece))
    if plan.doom_s is not None:
        yield replace(plan, doom_s=None)
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
