"""If-Match and its kin: the order of RFC 9110 §13.2.2, case by case."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.conditions import (
    NO_CONDITIONS,
    Tags,
    Verdict,
    parse_conditions,
    parse_tags,
    range_still_holds,
)
from proxy.http.dates import format_date, format_iso, parse_date

GO, FAILED, NOT_MODIFIED = Verdict.GO, Verdict.FAILED, Verdict.NOT_MODIFIED
BEFORE, AT, AFTER = (format_date(seconds) for seconds in (999, 1000, 1001))


@pytest.mark.parametrize(
    ("headers", "reads", "writes"),
    [
        ({}, GO, GO),
        ({"If-Match": '"e"'}, GO, GO),
        ({"If-Match": "e"}, GO, GO),
        ({"If-Match": "*"}, GO, GO),
        ({"If-Match": '"x", "e"'}, GO, GO),
        ({"If-Match": '"x"'}, FAILED, FAILED),
        ({"If-Match": 'W/"e"'}, FAILED, FAILED),
        ({"If-Match": ""}, FAILED, FAILED),
        ({"If-Match": '"'}, FAILED, FAILED),
        ({"If-None-Match": '"e"'}, NOT_MODIFIED, FAILED),
        ({"If-None-Match": 'W/"e"'}, NOT_MODIFIED, FAILED),
        ({"If-None-Match": "x,e"}, NOT_MODIFIED, FAILED),
        ({"If-None-Match": "*"}, NOT_MODIFIED, FAILED),
        ({"If-None-Match": "x"}, GO, GO),
        ({"If-Modified-Since": BEFORE}, GO, GO),
        ({"If-Modified-Since": AT}, NOT_MODIFIED, GO),
        ({"If-Modified-Since": AFTER}, NOT_MODIFIED, GO),
        ({"If-Modified-Since": "yesterday"}, GO, GO),
        ({"If-Unmodified-Since": BEFORE}, FAILED, FAILED),
        ({"If-Unmodified-Since": AT}, GO, GO),
        ({"If-Unmodified-Since": "yesterday"}, GO, GO),
        # The order: If-Match hides If-Unmodified-Since, If-None-Match hides If-Modified-Since.
        ({"If-Match": "e", "If-Unmodified-Since": BEFORE}, GO, GO),
        ({"If-Match": "x", "If-None-Match": "e"}, FAILED, FAILED),
        ({"If-Match": "e", "If-None-Match": "e"}, NOT_MODIFIED, FAILED),
        ({"If-None-Match": "x", "If-Modified-Since": AFTER}, GO, GO),
        ({"If-Unmodified-Since": BEFORE, "If-None-Match": "e"}, FAILED, FAILED),
    ],
    ids=str,
)
def test_conditions_over_what_is_there(headers: dict[str, str], reads: Verdict, writes: Verdict) -> None:
    conditions = parse_conditions(headers)
    assert conditions.judge("e", 1000) is reads
    assert conditions.judge("e", 1000, reads=False) is writes


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({"If-Match": "*"}, FAILED),
        ({"If-Match": "e"}, FAILED),
        ({"If-None-Match": "*"}, GO),
        ({"If-None-Match": "e"}, GO),
        ({"If-Unmodified-Since": AFTER}, FAILED),
        ({"If-Modified-Since": AFTER}, GO),
    ],
    ids=str,
)
def test_conditions_over_nothing(headers: dict[str, str], verdict: Verdict) -> None:
    assert parse_conditions(headers).judge(None, 0, reads=False) is verdict


def test_without_headers_there_are_no_conditions() -> None:
    assert parse_conditions({"Range": "bytes=0-1"}) is NO_CONDITIONS


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ('"a,b"', Tags(False, ("a,b",), ())),
        ('"a" , W/"b",c', Tags(False, ("a", "c"), ("b",))),
        ('"a" garbage, "b"', Tags(False, ("b",), ())),
        ('""', Tags(False, ("",), ())),
        (" * ", Tags(True, (), ())),
    ],
)
def test_lists_of_entity_tags(header: str, tags: Tags) -> None:
    assert parse_tags(header) == tags


@given(st.text(max_size=50))
def test_any_header_is_read(text: str) -> None:
    assert parse_tags(text) is not None


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        (None, True),
        ('"e"', True),
        ("e", True),
        ('"x"', False),
        ('W/"e"', False),
        (AT, True),
        (AFTER, False),
        ("*", False),
    ],
)
def test_if_range_holds_for_exactly_what_is_there(header: str | None, holds: bool) -> None:
    assert range_still_holds(header, "e", 1000) is holds


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_a_date_is_read_in_its_three_forms(text: str) -> None:
    assert parse_date(text) == 784_111_777
    assert format_date(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.integers(0, 2**53))
def test_a_time_of_a_listing_is_iso_8601_to_the_microsecond(micros: int) -> None:
    then = datetime(1970, 1, 1) + timedelta(microseconds=micros)
    assert format_iso(micros) == then.isoformat(timespec="microseconds")


@given(st.text(max_size=40))
def test_what_is_no_date_is_none_and_no_error(text: str) -> None:
    found = parse_date(text)
    assert found is None or isinstance(found, int)
