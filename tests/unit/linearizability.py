"""Whether a history of reads, writes and compare-and-swaps of one register could have happened one after another."""

from dataclasses import dataclass
from math import inf
from typing import Literal


@dataclass(slots=True)
class Call:
    """One operation as its client saw it."""

    kind: Literal["read", "write", "swap"]
    value: int | None
    """What was read or written; None stands for nothing there."""
    began: float
    ended: float = inf
    """Infinite while the outcome is unknown: it may take effect at any time, or never."""
    expected: int | None = None
    """What a swap was conditional on."""
    outcome: Literal["ok", "failed", "no effect", "unknown"] = "unknown"


def linearizable(history: list[Call]) -> bool:
    """Search for an order of all calls that explains every answer.

    Walks the sets of calls already placed together with the value that they leave; an unknown write may be left out.
    """
    calls = [
        call
        for call in history
        if call.outcome != "no effect" and not (call.kind == "read" and call.outcome == "unknown")
    ]
    must = sum(1 << at for at, call in enumerate(calls) if call.outcome != "unknown")
    seen: set[tuple[int, int | None]] = set()
    open_states: list[tuple[int, int | None]] = [(0, None)]
    while open_states:
        state = open_states.pop()
        placed, value = state
        if placed & must == must:
            return True
        if state in seen:
            continue
        seen.add(state)
        first_end = min((call.ended for at, call in enumerate(calls) if not placed >> at & 1), default=inf)
        for at, call in enumerate(calls):
            if not placed >> at & 1 and call.began <= first_end:
                open_states += [(placed | 1 << at, after) for after in _values_after(call, value)]
    return False


def _values_after(call: Call, value: int | None) -> list[int | None]:
    """Return the values that a call may leave; none when it cannot happen at this value."""
    if call.kind == "write":
        return [call.value]
    if call.kind == "read":
        return [value] if call.value == value else []
    if call.expected == value:
        return [call.value] if call.outcome != "failed" else []
    return [value] if call.outcome != "ok" else []
