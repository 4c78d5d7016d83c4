"""Reaping: the mark of an account that was deleted, and what became of a slice of what it held.

Owns the words that a device's reaper and the quorum client share; neither knows the other.
"""

from enum import Enum
from typing import Final, NamedTuple

from swiftlike.entries import Entry, unpack_metadata

DELETED: Final = "sys:deleted"
"""The attribute of an account that waits for the reaper: when it was deleted, in microseconds since 1970."""


class ReapedEnd(Enum):
    """How a slice ended."""

    ENDED = "nothing of the account is left, nor of the account itself"
    KEPT = "what is chosen is no deleted account: nothing was done"
    MORE = "there is more to remove"
    LATER = "some of it cannot be removed now: too few owners answered, or something was written just now"


class Reaped(NamedTuple):
    """What a slice removed."""

    end: ReapedEnd
    objects: int = 0
    containers: int = 0


def deleted_us(account: Entry | None) -> int | None:
    """Return when an account was deleted; None: it was not, or nothing of it is left."""
    if account is None or account.tombstone:
        return None
    said = unpack_metadata(account.metadata).get(DELETED)
    return None if said is None else int(said)
