"""Expiry: what became of an object that was to be deleted at its time.

Owns the words that a device's expirer and the quorum client share; neither knows the other.
"""

from enum import Enum


class Expiry(Enum):
    """What became of one due object."""

    DELETED = "its tombstone is chosen; the row follows at once, or is owed"
    KEPT = "that write is not what is chosen any more, or was deleted already: nothing was done"
    LATER = "too few owners answered"
