"""Hybrid logical time: timestamps, ballots, and the clock that issues them.

Owns their byte form and the bounds that keep one bad clock from poisoning the others. Never reads the time from the
side: a clock is handed the function that does.

Both are byte strings that compare as they order, so that an index, a frame and a digest use them as they are:

    timestamp, version 1, big-endian:  offset  size  field
                                            0     8  microseconds since 1970
                                            8     8  writer, drawn anew at each process start; breaks ties
    ballot, version 1:                      0    16  incarnation of the container (zero outside objects and rows)
                                           16    16  timestamp
"""

from collections.abc import Callable
from enum import Enum
from struct import Struct
from typing import Final, NewType

from swiftlike.limits import CLOCK_AHEAD_FIRST_US, CLOCK_AHEAD_PASSING_US

_TIMESTAMP: Final = Struct(">QQ")
assert _TIMESTAMP.size == 16, "the table and the code must agree"

WriteId = NewType("WriteId", bytes)
"""What a write is: 16 bytes, the timestamp its writer gave it first. A body is named by the write that stored it."""

NO_WRITE: Final = WriteId(bytes(16))
"""The id of no write at all: what an absent key holds, and what is judged by an unconditional write."""


class Timestamp(bytes):
    """16 bytes: microseconds and writer."""

    __slots__ = ()

    @classmethod
    def of(cls, micros: int, writer: int) -> "Timestamp":
        """Make the timestamp of `writer` at `micros`; both are unsigned 64-bit integers."""
        return cls(_TIMESTAMP.pack(micros, writer))

    @property
    def micros(self) -> int:
        """Microseconds since 1970."""
        return int.from_bytes(self[:8], "big")

    @property
    def writer(self) -> int:
        """Who issued it."""
        return int.from_bytes(self[8:16], "big")

    def __repr__(self) -> str:
        """Write it the way logs do: `1700000000.000001-00000000000000ab`."""
        return f"{_seconds(self.micros)}-{self.writer:016x}"


class Ballot(bytes):
    """32 bytes: what orders the writes of one key. A newer incarnation is above every ballot of an older one."""

    __slots__ = ()

    @classmethod
    def of(cls, micros: int, writer: int, incarnation: bytes = bytes(16)) -> "Ballot":
        """Make the ballot of `writer` at `micros`, under a container's incarnation or under none."""
        return cls(incarnation + _TIMESTAMP.pack(micros, writer))

    @property
    def incarnation(self) -> Timestamp:
        """The container's incarnation that leads the ballot; zero outside objects and rows."""
        return Timestamp(self[:16])

    @property
    def timestamp(self) -> Timestamp:
        """The ballot without its incarnation; a container's creation ballot becomes its incarnation so."""
        return Timestamp(self[16:32])

    @property
    def micros(self) -> int:
        """Microseconds since 1970 at which it was issued."""
        return int.from_bytes(self[16:24], "big")

    @property
    def writer(self) -> int:
        """Who issued it."""
        return int.from_bytes(self[24:32], "big")

    def __repr__(self) -> str:
        """Write it the way logs do: the timestamp, after its incarnation if there is one."""
        lead = f"{self.incarnation!r}/" if self.incarnation != NO_INCARNATION else ""
        return f"{lead}{self.timestamp!r}"


NO_INCARNATION: Final = Timestamp(bytes(16))
ZERO_BALLOT: Final = Ballot(bytes(32))
"""Below every ballot that was ever issued."""


class Offer(Enum):
    """In what circumstances a ballot is offered; decides how far it may be from a device's clock."""

    FIRST = "first"
    """A writer's first attempt: from its own clock alone."""
    PASSING = "passing"
    """A prepare, or an accept that follows one: it may have to pass a ballot that was refused."""
    COPY = "copy"
    """A replica that another device already accepted: as old as it is."""


def refuse_ballot(ballot: Ballot, offer: Offer, now_us: int, reclaim_age_us: int) -> str | None:
    """Say why a device whose clock reads `now_us` does not take this ballot; None when it does.

    An incarnation is bound like the ballot: from a bad clock it would stand above every honest write.
    """
    ahead_max_us = CLOCK_AHEAD_FIRST_US if offer is Offer.FIRST else CLOCK_AHEAD_PASSING_US
    micros = max(int.from_bytes(ballot[:8], "big"), int.from_bytes(ballot[16:24], "big"))
    if micros > now_us + ahead_max_us:
        return (
            f"ballot {_seconds(micros)} is {_seconds(micros - now_us)} s ahead of this device's clock, "
            f"more than {ahead_max_us // 1_000_000} s: set the clock of the host that issued it"
        )
    if offer is Offer.FIRST and ballot.micros < now_us - reclaim_age_us // 2:
        return (
            f"ballot {_seconds(ballot.micros)} is older than half the reclaim age on this device's clock: "
            "set the clock of the host that issued it"
        )
    return None


class ClockAhead(Exception):
    """Something stands further ahead than a ballot may go; the message names what."""


class Clock:
    """A hybrid logical clock: never behind anything it issued, and only a little behind what it saw.

    Not for use by several threads at once.
    """

    def __init__(self, read_us: Callable[[], int], writer: int) -> None:
        """Take the function that reads the host's clock in microseconds, and this process's random 64-bit id."""
        self._read_us = read_us
        self._high_us = 0
        self._ahead_us: set[int] = set()
        """What was issued further ahead than this clock follows; empty unless some host's clock is wrong by a minute."""
        self.writer: Final = writer

    def now_us(self) -> int:
        """Return the present: the host's clock, or what was last issued or followed if that is later."""
        return max(self._read_us(), self._high_us)

    def issue(self) -> Timestamp:
        """Return a timestamp above every one that this clock issued or followed before."""
        self._high_us = self._unissued(max(self._read_us(), self._high_us + 1))
        return Timestamp.of(self._high_us, self.writer)

    def follow(self, micros: int) -> None:
        """Take note of a time seen elsewhere; what is over a minute ahead of the host's clock is followed no further."""
        if micros > self._high_us:
            self._high_us = max(self._high_us, min(micros, self._read_us() + CLOCK_AHEAD_FIRST_US))

    def issue_above(self, ballot: Ballot) -> Timestamp:
        """Return a new timestamp that passes a refused ballot, without dragging this clock along beyond a minute.

        Raises ClockAhead when it would be over five minutes ahead of the host's clock.
        """
        here_us = self._read_us()
        above_us = self._unissued(max(here_us, self._high_us + 1, ballot.micros + 1))
        if above_us > here_us + CLOCK_AHEAD_PASSING_US:
            raise ClockAhead(
                f"ballot {ballot!r} is {_seconds(ballot.micros - here_us)} s ahead of this clock: "
                f"set the clock of the host of writer {ballot.writer:016x}, or wait"
            )
        self.follow(above_us)
        self._ahead_us = {us for us in (*self._ahead_us, above_us) if us > self._high_us}
        return Timestamp.of(above_us, self.writer)

    def _unissued(self, micros: int) -> int:
        """Return this time, or the next that was not issued before: two writes of one ballot would be taken for one."""
        while micros in self._ahead_us:
            micros += 1
        return micros


def _seconds(micros: int) -> str:
    """Write microseconds as decimal seconds, exactly."""
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
