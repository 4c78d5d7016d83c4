"""Between which names a page lies, and what a name is rolled up to: the same for a device and for a proxy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlike.node_calls import Query
from swiftlike.spans import LAST_NAME, behind, bounds, common_prefix

some_bytes = st.binary(max_size=4) | st.text("a/\U0010ffff", max_size=4).map(str.encode)


@pytest.mark.parametrize(
    ("query", "low", "high"),
    [
        (Query(), b"", LAST_NAME),
        (Query(prefix=b"b/"), b"b/", b"b0"),
        (Query(marker=b"a"), b"a\0", LAST_NAME),
        (Query(end_marker=b"c"), b"", b"c"),
        (Query(prefix=b"b", marker=b"a", end_marker=b"c"), b"b", b"c"),
        (Query(prefix=b"b", marker=b"ba", end_marker=b"bc"), b"ba\0", b"bc"),
        (Query(reverse=True, marker=b"c"), b"", b"c"),
        (Query(reverse=True, end_marker=b"a"), b"a\0", LAST_NAME),
        (Query(prefix=b"b", reverse=True, marker=b"bc", end_marker=b"ba"), b"ba\0", b"bc"),
        (Query(marker=b"c", end_marker=b"a"), b"c\0", b"a"),
    ],
)
def test_a_page_lies_between_its_prefix_and_its_markers(query: Query, low: bytes, high: bytes) -> None:
    assert bounds(query) == (low, high)


@pytest.mark.parametrize(
    ("name", "prefix", "delimiter", "rolled"),
    [
        (b"a", b"", b"/", None),
        (b"a/b", b"", b"", None),
        (b"a/b/c", b"", b"/", b"a/"),
        (b"a/", b"", b"/", b"a/"),
        (b"a/b/c", b"a/", b"/", b"a/b/"),
        (b"a/b", b"a/", b"/", None),
        (b"a/b", b"a", b"/", b"a/"),
        (b"a--b--c", b"", b"--", b"a--"),
    ],
)
def test_a_name_is_rolled_up_to_the_first_delimiter_behind_the_prefix(
    name: bytes, prefix: bytes, delimiter: bytes, rolled: bytes | None
) -> None:
    assert common_prefix(name, Query(prefix=prefix, delimiter=delimiter)) == rolled


@given(some_bytes.filter(lambda prefix: prefix.rstrip(b"\xff")), some_bytes)
def test_what_is_behind_a_prefix_is_above_all_that_begins_with_it_and_nothing_else(
    prefix: bytes, other: bytes
) -> None:
    assert prefix + other < behind(prefix)
    assert (prefix <= other < behind(prefix)) == other.startswith(prefix)
