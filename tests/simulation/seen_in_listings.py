"""What a listing may show: whatever could be the last word on each name while the page was asked for.

A page is no snapshot: each name on it is judged alone. A write that was answered before the page was asked for is on it,
unless another came after; one that is under way, or of which nobody was told how it ended, may be or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.linearizability import Call, Ended, Kind, Value


@dataclass(frozen=True, slots=True)
class Seen:
    """One page, or several: what of the names `(after, upto]` it showed. None: it ended with the listing."""

    began: float
    ended: float
    after: bytes
    upto: bytes | None
    shown: Mapping[bytes, Value]

    def covers(self, name: bytes) -> bool:
        """Whether it would have shown the name."""
        return name > self.after and (self.upto is None or name <= self.upto)


def wrong_in(seen: Seen, histories: Mapping[bytes, Sequence[Call]]) -> list[str]:
    """Return what a page cannot have shown, or must have, in sentences."""
    found = [f"a listing shows {name!r}, which nobody wrote" for name in seen.shown.keys() - histories.keys()]
    for name, history in histories.items():
        if not seen.covers(name):
            continue
        value = seen.shown.get(name)
        if not _may_show(value, history, seen.began, seen.ended):
            found.append(f"a listing from {seen.began:.4f} to {seen.ended:.4f} s shows {value} at {name!r}")
    return found


def _may_show(value: Value | None, history: Sequence[Call], began: float, ended: float) -> bool:
    writes = [call for call in history if _may_have_written(call) and call.began < ended]
    settled = [call for call in writes if call.outcome is Ended.DONE and call.ended < began]
    latest_began = max((call.began for call in settled), default=None)
    last_words = [call for call in writes if latest_began is None or call.ended >= latest_began]
    if value is None:
        return not settled or any(call.kind is Kind.DELETE for call in last_words)
    return any(_leaves(call, value) for call in last_words)


def _may_have_written(call: Call) -> bool:
    return call.kind is not Kind.READ and call.outcome in (Ended.DONE, Ended.UNKNOWN)


def _leaves(call: Call, value: Value) -> bool:
    match call.kind:
        case Kind.PUT | Kind.SWAP:
            return value == Value(call.number, call.number)
        case Kind.POST:
            return value.metadata == call.number
        case _:
            return False
