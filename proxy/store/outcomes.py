"""Outcomes: what the end of a register's write or read means for the domain, in one table.

Owns the translation of what is known into what a client is told, and which writes may be made again when nothing is known.
"""

from collections.abc import Callable
from typing import Final, assert_never

from proxy.cluster.decisions import Judge, Outcome
from proxy.cluster.placement import Key
from proxy.cluster.register import Read, Registers, Written
from proxy.store.errors import OutcomeUnknown, OutOfSpace, Unavailable
from swiftlike.timestamps import WriteId

WISHES_MAX: Final = 3
"""Times that a write is made which may be made again."""


def is_done(written: Written) -> bool:
    """Say whether a write was done; False when its condition was refused. Raises Unavailable, OutcomeUnknown."""
    match written.outcome:
        case Outcome.DONE:
            return True
        case Outcome.REFUSED:
            return False
        case Outcome.CONFLICT if written.is_full:
            raise OutOfSpace("too many owners have only their reserve of space left; provably without effect")
        case Outcome.CONFLICT:
            raise Unavailable(
                "too few owners took the write, or others stood in its way; provably without effect"
            )
        case Outcome.UNKNOWN:
            raise OutcomeUnknown("too few owners answered; the write may have been done, or may be done yet")
        case _:
            assert_never(written.outcome)


def known(read: Read) -> Read:
    """Return a read that says what stands there. Raises Unavailable."""
    if not read.is_known:
        raise Unavailable("too few owners answered to say what stands there")
    return read


def known_behind_write(read: Read) -> Read:
    """Return a read of what a write has left. Raises OutcomeUnknown, and never that nothing was done: it was."""
    if not read.is_known:
        raise OutcomeUnknown("it is written, and too few owners answered to say what stands there now")
    return read


async def write_wish(
    registers: Registers, key: Key, judge_for: Callable[[WriteId], Judge], *, deadline: float
) -> Written:
    """Write on a condition what changes nothing when it is written twice: once more where it cannot be known whether it was.

    Where many write one key at once, others pass an offer so soon that the owners forget what became of it. The second write is
    judged on what stands, be that the first one, and is above it: so the first can come to nothing later.
    """
    for wishes_left in reversed(range(WISHES_MAX)):
        written = await registers.write_if(key, judge_for(registers.new_write_id()), deadline=deadline)
        if written.outcome is not Outcome.UNKNOWN or not wishes_left:
            break
    return written
