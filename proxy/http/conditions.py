"""If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since and If-Range: what they mean.

Owns their grammar and their order. Never knows what stands there: an etag and a time are handed in. Source: RFC 9110
§13.1 and §13.2.2. Entity tags may come without quotes, as Swift's clients send them; If-Match compares strongly, so that
a weak tag never matches it.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from proxy.http.dates import parse_date

_TAG: Final = re.compile(r'\s*(W/)?(?:"([^"]*)"|([^",\s]+))\s*(?:,|$)')


class Verdict(Enum):
    """What conditions say about a request."""

    GO = "go"
    NOT_MODIFIED = "not modified"
    """304: the client has it already."""
    FAILED = "failed"
    """412: what stands there is not what the client means."""


class Tags(NamedTuple):
    """The entity tags of a header."""

    anything: bool
    """It is `*`: whatever is there."""
    strong: tuple[str, ...]
    weak: tuple[str, ...]


class Conditions(NamedTuple):
    """The conditions of a request; None: no such header, or a date that is none."""

    match: Tags | None = None
    none_match: Tags | None = None
    modified_since_s: int | None = None
    unmodified_since_s: int | None = None

    def judge(self, etag: str | None, modified_s: int, reads: bool = True) -> Verdict:
        """Judge them over what stands there, in the order of RFC 9110 §13.2.2; an `etag` of None: nothing is there.

        `reads`: the method is GET or HEAD, for which "you have it already" is 304.
        """
        if self.match is not None:
            if etag is None or not (self.match.anything or etag in self.match.strong):
                return Verdict.FAILED
        elif self.unmodified_since_s is not None and (etag is None or modified_s > self.unmodified_since_s):
            return Verdict.FAILED
        if self.none_match is not None:
            tags = self.none_match
            if etag is not None and (tags.anything or etag in tags.strong or etag in tags.weak):
                return Verdict.NOT_MODIFIED if reads else Verdict.FAILED
        elif (
            reads
            and self.modified_since_s is not None
            and etag is not None
            and modified_s <= self.modified_since_s
        ):
            return Verdict.NOT_MODIFIED
        return Verdict.GO


NO_CONDITIONS: Final = Conditions()


def parse_conditions(headers: Mapping[str, str]) -> Conditions:
    """Read the conditions of a request."""
    if not (
        "If-None-Match" in headers
        or "If-Match" in headers
        or "If-Modified-Since" in headers
        or "If-Unmodified-Since" in headers
    ):
        return NO_CONDITIONS
    since, unmodified = headers.get("If-Modified-Since"), headers.get("If-Unmodified-Since")
    return Conditions(
        parse_tags(headers.get("If-Match")),
        parse_tags(headers.get("If-None-Match")),
        None if since is None else parse_date(since),
        None if unmodified is None else parse_date(unmodified),
    )


def parse_tags(header: str | None) -> Tags | None:
    """Read a list of entity tags. What is no tag is one that matches nothing: it must not turn a condition off."""
    if header is None:
        return None
    if header.strip() == "*":
        return Tags(True, (), ())
    strong: list[str] = []
    weak: list[str] = []
    at = 0
    while at < len(header):
        found = _TAG.match(header, at)
        if found is None:
            comma = header.find(",", at)
            at = len(header) if comma < 0 else comma + 1
            continue
        (weak if found[1] else strong).append(found[3] if found[2] is None else found[2])
        at = found.end()
    return Tags(False, tuple(strong), tuple(weak))


def range_still_holds(header: str | None, etag: str, modified_s: int) -> bool:
    """Say whether If-Range lets a Range through: it names what stands there, exactly. Source: RFC 9110 §13.1.5."""
    if header is None:
        return True
    date = parse_date(header) if " " in header.strip() else None
    if date is not None:
        return date == modified_s
    tags = parse_tags(header)
    return tags is not None and tags.strong == (etag,)
