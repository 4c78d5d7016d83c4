"""Reclaiming: when the owners of a partition may forget what was deleted in it, as a table from what is seen to what is done.

Pure. A tombstone may go only when nothing older than it can come back: when all owners, old and new, hold the same, and each has
durably agreed to take nothing below a *floor* that it lacks. So the floor moves in two steps, each on all owners:

    1.  refuse    each owner refuses what it lacks below F, the present less the reclaim age
    2.  enforce   digests, read after all refuse, are equal: F is in force, and what lies below it goes, on each by itself

The standings of the owners tell how far this came, so whoever goes on after a crash needs to know nothing else:

    seen                                                        done
    an owner is silent                                          nothing: it may hold what the others would forget
    an owner does not vote                                      nothing: it has still to catch up
    an owner has a floor in force that another lacks            enforce it there, if that one refuses below it; else refuse first
    all refuse below an F that is not in force, and are equal   enforce F
    ... and differ                                              nothing: they are made equal first, by replication
    F would hardly move                                         nothing: it is not worth the writes
    they are equal                                              refuse below F
    they differ                                                 nothing

A floor that one owner has in force was agreed by all: nobody enforces before all refused and were equal, and since then none of them
can have taken anything older. So the third line needs no digests, which differ there anyhow: who is ahead has begun to forget.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from swiftlike.node_calls import Standing


class OwnerSeen(NamedTuple):
    """What an owner said."""

    standing: Standing
    is_equal: bool
    """Its digests are those of whoever asks; read after the standings of all owners."""


class Wait(Enum):
    """Why nothing is done."""

    SILENT = "an owner does not answer"
    CATCHING_UP = "an owner does not vote yet"
    DIFFERING = "the owners do not hold the same"
    SETTLED = "the floor is as high as it need be"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Have each owner refuse what it lacks below this."""

    below_us: int


@dataclass(frozen=True, slots=True)
class Enforce:
    """Have each owner take this for its floor."""

    floor_us: int


Step: TypeAlias = Wait | Refuse | Enforce


def decide(owners: Collection[OwnerSeen | None], highest_us: int, least_us: int) -> Step:
    """Say what is next for a partition, given what each of its owners said; None: nothing.

    `highest_us` is where the floor may be at most, the present less the reclaim age; `least_us` by how much it must move to
    be worth it.
    """
    seen = [owner for owner in owners if owner is not None]
    if not seen or len(seen) < len(owners):
        return Wait.SILENT
    if not all(owner.standing.votes for owner in seen):
        return Wait.CATCHING_UP
    floors = [owner.standing.floor_us for owner in seen]
    refused_us = min(max(owner.standing.refusing_us, owner.standing.floor_us) for owner in seen)
    agreed_us = max(floors)
    if min(floors) < agreed_us:
        return Enforce(agreed_us) if refused_us >= agreed_us else Refuse(agreed_us)
    are_equal = all(owner.is_equal for owner in seen)
    if agreed_us < refused_us <= highest_us:
        return Enforce(refused_us) if are_equal else Wait.DIFFERING
    if highest_us < agreed_us + least_us or highest_us < refused_us:
        return Wait.SETTLED
    return Refuse(highest_us) if are_equal else Wait.DIFFERING


def with_refusal(standing: Standing, below_us: int) -> Standing:
    """Return what an owner stands as that refuses below a time; it never refuses less than it did."""
    return standing._replace(refusing_us=max(standing.refusing_us, below_us))


def with_floor(standing: Standing, floor_us: int) -> Standing:
    """Return what an owner stands as that has a floor in force; it never sinks."""
    return standing._replace(floor_us=max(standing.floor_us, floor_us))
