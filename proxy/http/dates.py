"""Dates of HTTP, both ways.

Owns their texts. Never reads a clock. `Last-Modified` has whole seconds only: a time is rounded up to the second, so that
what was written later never seems older than what a client has. Source: RFC 9110 §5.6.7.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MICROS: Final = 1_000_000
_DAY_S: Final = 86_400


def seconds_up(micros: int) -> int:
    """Round up to whole seconds."""
    return -(-micros // _MICROS)


@lru_cache(1024)
def format_date(seconds: int) -> str:
    """Write a time as `Sun, 06 Nov 1994 08:49:37 GMT`, whatever the locale."""
    at = datetime.fromtimestamp(seconds, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d} "
        f"{at.hour:02d}:{at.minute:02d}:{at.second:02d} GMT"
    )


@lru_cache(1024)
def _iso_day(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_S, UTC).strftime("%Y-%m-%dT")


@lru_cache(16_384)
def format_iso_second(seconds: int) -> str:
    """Write a whole second as `1994-11-06T08:49:37`, in UTC."""
    # A page of a listing may have thousands of seconds that were never met: only its days are worth a datetime.
    day, second = divmod(seconds, _DAY_S)
    minute, second = divmod(second, 60)
    return f"{_iso_day(day)}{minute // 60:02d}:{minute % 60:02d}:{second:02d}"


def format_iso(micros: int) -> str:
    """Write a time as `1994-11-06T08:49:37.000001`, in UTC, as listings of the Swift API do."""
    seconds, fraction = divmod(micros, _MICROS)
    return f"{format_iso_second(seconds)}.{fraction:06d}"


def parse_date(text: str) -> int | None:
    """Read an HTTP date, in any of its three forms, as seconds; None when it is none: such a header is ignored."""
    try:
        found = parsedate_to_datetime(text)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
