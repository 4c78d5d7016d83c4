"""Outcomes: what the end of a register's write or read means for the domain, in one table.

Owns the translation of what is known into what a client is told. Pure.
"""

from typing import assert_never

from proxy.cluster.decisions import Outcome
from proxy.cluster.register import Read, Written
from proxy.store.errors import OutcomeUnknown, OutOfSpace, Unavailable


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
