"""Conditional requests as S3 has them: what of If-Match and its kin holds for reads, writes, and the source of a copy.

Owns which of them a write may carry, and the refusals. Grammar and order are HTTP's own, in `proxy/http`.
"""

from collections.abc import Mapping
from typing import Final

from proxy.http.conditions import NO_CONDITIONS, Conditions, Verdict, parse_conditions, parse_tags
from proxy.http.dates import parse_date, seconds_up
from proxy.s3_api.errors import S3Error, not_implemented
from proxy.store.errors import ConditionFailed
from proxy.store.values import Condition, ObjectInfo

_OF_SOURCE: Final = "x-amz-copy-source-"


def write_conditions(headers: Mapping[str, str]) -> Conditions | None:
    """Return the conditions of a PUT; None: there are none. Raises S3Error for those that S3 has not for writes."""
    found = parse_conditions(headers)
    if "If-Modified-Since" in headers or "If-Unmodified-Since" in headers:
        raise not_implemented("a time as the condition of a write")
    if found is NO_CONDITIONS:
        return None
    if found.none_match is not None and (not found.none_match.anything or found.match is not None):
        raise not_implemented("If-None-Match of a write, other than * alone")
    return found


def delete_conditions(headers: Mapping[str, str]) -> Conditions | None:
    """Return the conditions of a DELETE; None: there are none. Raises S3Error."""
    if any(name in headers for name in ("If-None-Match", "If-Modified-Since", "If-Unmodified-Since")):
        raise not_implemented("the condition of a DELETE, other than If-Match")
    found = parse_conditions(headers)
    return None if found is NO_CONDITIONS else found


def source_conditions(headers: Mapping[str, str]) -> Conditions | None:
    """Return what a copy asks of its source; None: nothing."""
    match, none_match = headers.get(f"{_OF_SOURCE}if-match"), headers.get(f"{_OF_SOURCE}if-none-match")
    modified = headers.get(f"{_OF_SOURCE}if-modified-since")
    unmodified = headers.get(f"{_OF_SOURCE}if-unmodified-since")
    if match is None and none_match is None and modified is None and unmodified is None:
        return None
    return Conditions(
        parse_tags(match),
        parse_tags(none_match),
        None if modified is None else parse_date(modified),
        None if unmodified is None else parse_date(unmodified),
    )


def condition_of(conditions: Conditions | None) -> Condition | None:
    """Turn conditions into one of the domain's."""
    if conditions is None:
        return None

    def holds(found: ObjectInfo | None) -> bool:
        return holds_of_source(conditions, found) if found is not None else _holds_of_nothing(conditions)

    return holds


def _holds_of_nothing(conditions: Conditions) -> bool:
    return conditions.judge(None, 0, reads=False) is Verdict.GO


def holds_of_source(conditions: Conditions, found: ObjectInfo) -> bool:
    """Whether conditions hold over an object: a copy's too, for which "not modified" is a failure, not a 304."""
    return conditions.judge(found.etag, seconds_up(found.modified_us)) is Verdict.GO


def refusal_of(failed: ConditionFailed, conditions: Conditions | None) -> S3Error:
    """Return what a client is told whose condition does not hold; what If-Match wants replaced may not be there at all."""
    if failed.current is None and conditions is not None and conditions.match is not None:
        return S3Error("NoSuchKey")
    name = "If-None-Match" if conditions is not None and conditions.none_match is not None else "If-Match"
    return S3Error("PreconditionFailed", facts={"Condition": name})


def refusal_of_delete() -> S3Error:
    """Return what a client is told who would delete only what is as he says, and it is not, or is not there."""
    return S3Error("PreconditionFailed", facts={"Condition": "If-Match"})
