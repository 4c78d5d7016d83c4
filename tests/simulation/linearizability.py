"""Whether a history of operations on one object could have happened one after another.

The search is Wing and Gong's with Lowe's memory of states already tried: an operation may be placed next when nothing
that is still to be placed ended before it began, and a set of placed operations with the value they leave is looked at
once. An object's value is what a reader sees of it: which PUT its body came from, and which PUT or POST its metadata.

Source: Wing and Gong, "Testing and verifying concurrent objects", 1993; Lowe, "Testing for linearizability", 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final, NamedTuple, assert_never


class Value(NamedTuple):
    """What stands at a key, where something does."""

    body: int
    metadata: int


class Kind(Enum):
    """What clients do."""

    PUT = "put"
    DELETE = "delete"
    POST = "post"
    SWAP = "swap"
    READ = "read"


class Ended(Enum):
    """What a client was told."""

    DONE = "done"
    REFUSED = "its condition did not hold"
    WITHOUT_EFFECT = "not done, for certain"
    UNKNOWN = "no answer"


@dataclass(slots=True)
class Call:
    """One operation as its client saw it."""

    kind: Kind
    began: float
    number: int = 0
    """What a write leaves: as body and metadata, or as metadata alone (POST)."""
    expected: Value | None = None
    """What a swap was conditional on; a POST is conditional on something being there."""
    found: Value | None = None
    """What a read saw."""
    ended: float = inf
    """Infinite while the outcome is unknown: it may take effect at any time, or never."""
    outcome: Ended = Ended.UNKNOWN


_NEVER: Final[tuple[Value | None, ...]] = ()


def is_linearizable(history: Sequence[Call]) -> bool:
    """Search for an order of all operations that explains every answer."""
    calls = [call for call in history if _matters(call)]
    must = sum(1 << at for at, call in enumerate(calls) if call.outcome is not Ended.UNKNOWN)
    tried: set[tuple[int, Value | None]] = set()
    untried: list[tuple[int, Value | None]] = [(0, None)]
    while untried:
        placed, value = state = untried.pop()
        if placed & must == must:
            return True
        if state in tried:
            continue
        tried.add(state)
        left = [(at, call) for at, call in enumerate(calls) if not placed >> at & 1]
        first_end = min(call.ended for _, call in left)
        for at, call in left:
            if call.began <= first_end:
                untried += [(placed | 1 << at, after) for after in values_after(call, value)]
    return False


def values_after(call: Call, value: Value | None) -> tuple[Value | None, ...]:
    """Return what a call leaves when it takes effect at this value; nothing when that contradicts its answer."""
    match call.kind:
        case Kind.PUT:
            return (Value(call.number, call.number),)
        case Kind.DELETE:
            return (None,)
        case Kind.READ:
            return (value,) if call.found == value else _NEVER
        case Kind.SWAP:
            holds, after = value == call.expected, Value(call.number, call.number)
        case Kind.POST:
            holds, after = value is not None, Value(value.body, call.number) if value else Value(0, 0)
        case _:
            assert_never(call.kind)
    if holds:
        return _NEVER if call.outcome is Ended.REFUSED else (after,)
    return _NEVER if call.outcome is Ended.DONE else (value,)


def _matters(call: Call) -> bool:
    unseen = call.kind is Kind.READ and call.outcome is Ended.UNKNOWN
    return not unseen and call.outcome is not Ended.WITHOUT_EFFECT
