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
class Plan:
    """A whole run."""

    seed: int
    skews_s: tuple[float, ...]
    """How far the clock of each proxy is ahead."""
    clients: tuple[tuple[Step, ...], ...]
    """What the client of each proxy does, in order."""
    troubles: tuple[Trouble, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, clocks {self.skews_s}"]
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


def draw(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(seed)
    skews_s = tuple(random.choice((0.0, 0.0, 0.02, -0.3, 20.0, -90.0)) for _ in range(PROXIES))
    busy = random.choice((0.05, 0.3, 1.5))
    numbers = iter(range(1, 1_000_000))
    clients = tuple(
        tuple(_draw_step(random, next(numbers), busy) for _ in range(random.randint(6, 16)))
        for _ in range(PROXIES)
    )
    kinds = random.sample(list(Fault), random.randint(0, 4))
    troubles = tuple(
        Trouble(
            random.choice(kinds),
            random.uniform(0, 10.0),
            random.expovariate(1 / random.choice((0.2, 2.0, 6.0))),
            random.random(),
        )
        for _ in range(random.randint(1, 7) if kinds else 0)
    )
    return Plan(seed, skews_s, clients, tuple(sorted(troubles, key=lambda one: one.at_s)))


def _draw_step(random: Random, number: int, busy: float) -> Step:
    (kind,) = random.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
    name = random.choice(NAMES[: random.choice((1, 2, 4))])
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
