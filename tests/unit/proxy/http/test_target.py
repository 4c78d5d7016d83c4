"""Request targets: what is decoded, once, and what is refused."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.errors import TargetRefused
from proxy.http.target import QUERY_ITEMS_MAX, decode_percent, parse_query, parse_target


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/v1/a/c/o", b"/v1/a/c/o", ""),
        ("/v1/a/c/o?x=1", b"/v1/a/c/o", "x=1"),
        ("/v1/a/c//o/./../%2e/", b"/v1/a/c//o/./.././", ""),
        ("/a%2Fb%252F", b"/a/b%2F", ""),
        ("/a+b", b"/a+b", ""),
        ("/%00%ff%0a", b"/\0\xff\n", ""),
        ("/a?b?c=%3F", b"/a", "b?c=%3F"),
        ("http://host/a//b?q", b"/a//b", "q"),
        ("HTTP://host:1?q", b"/", "q"),
        ("https://host", b"/", ""),
        ("http://host?x=/y", b"/", "x=/y"),
        ("*", b"/", ""),
        ("//host/a", b"//host/a", ""),
    ],
)
def test_a_target_is_split_and_decoded_once(raw: str, path: bytes, query: str) -> None:
    found = parse_target(raw)
    assert (found.path, found.raw_query) == (path, query)


@pytest.mark.parametrize(
    "raw", ["", "a", "ftp://h/a", "http://", "http:///a", "/a%", "/a%2", "/a%zz", "/%%41", "/a#b"]
)
def test_what_is_no_target_is_refused(raw: str) -> None:
    with pytest.raises(TargetRefused):
        parse_target(raw)


@given(st.binary(max_size=60))
def test_what_is_quoted_comes_back(raw: bytes) -> None:
    assert decode_percent(quote(raw, safe="/")) == raw


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("", {}),
        ("a", {"a": b""}),
        ("a=", {"a": b""}),
        ("a=1&b=2&a=3", {"a": b"1", "b": b"2"}),
        ("a=x+y%2B", {"a": b"x y+"}),
        ("&&a=b=c&", {"a": b"b=c"}),
        ("a=%ff", {"a": b"\xff"}),
        ("%C3%A9=1", {"é": b"1"}),
    ],
)
def test_parameters_are_decoded_as_forms_are(raw: str, found: dict[str, bytes]) -> None:
    assert parse_query(raw) == found


@pytest.mark.parametrize("raw", ["a=%", "%ff=1", "&".join(f"a{at}" for at in range(QUERY_ITEMS_MAX + 1))])
def test_parameters_that_are_none_are_refused(raw: str) -> None:
    with pytest.raises(TargetRefused):
        parse_query(raw)
