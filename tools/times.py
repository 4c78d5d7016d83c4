"""Times in words: what an operator is shown of a timestamp and of a ballot.

Owns these words. Pure: never reads a clock.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from swiftlike.timestamps import NO_INCARNATION, Ballot, Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def time_told(micros: int) -> str:
    """Write microseconds since 1970 as logs do: `2023-11-14T22:13:20.000001Z`. What no calendar holds stays a number."""
    try:
        at = _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros} microseconds after 1970"
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timestamp_told(timestamp: Timestamp) -> str:
    """Write a timestamp: its time and its writer."""
    return f"{time_told(timestamp.micros)} by writer {timestamp.writer:016x}"


def ballot_told(ballot: Ballot) -> str:
    """Write a ballot: its timestamp, and the incarnation of the container that leads it."""
    told = timestamp_told(ballot.timestamp)
    if ballot.incarnation == NO_INCARNATION:
        return told
    return f"{told}, in the container of {timestamp_told(ballot.incarnation)}"
