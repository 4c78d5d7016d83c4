"""What one owner takes of what another one holds: rules and laws."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.device import DeviceId
from storage_node.acceptor import may_take_without_body
from storage_node.differing import (
    BITS_MAX,
    RANGES_BITS_MAX,
    compare,
    covers,
    cut_bits,
    endangered_first,
    just_before,
)
from swiftlike.entries import Entry, Version
from swiftlike.node_calls import HeldVersion
from swiftlike.timestamps import NO_WRITE, ZERO_BALLOT, Ballot, WriteId


def held(path: bytes, at: int | None, *, whole: bool = True, write: int | None = None) -> HeldVersion:
    """What stands at a key, of a write that may have been carried to this ballot; None: only a promise."""
    write = write or at
    version = (
        None if at is None or write is None else Version(WriteId(write.to_bytes(16, "big")), Ballot.of(at, 1))
    )
    return HeldVersion(path, version, ZERO_BALLOT, whole, owes=False)


A = b"a"


@pytest.mark.parametrize(
    ("here", "there", "taken", "is_more_here"),
    [
        pytest.param([], [held(A, 1)], [held(A, 1)], False, id="absent here"),
        pytest.param([held(A, 1)], [], [], True, id="absent there"),
        pytest.param([held(A, 1)], [held(A, 1)], [], False, id="the same"),
        pytest.param([held(A, 1)], [held(A, 2)], [held(A, 2)], False, id="newer there"),
        pytest.param([held(A, 2)], [held(A, 1)], [], True, id="newer here"),
        pytest.param([held(A, None)], [held(A, 1)], [held(A, 1)], False, id="only a promise here"),
        pytest.param([held(A, None)], [], [], False, id="a promise is nothing that anybody lacks"),
        pytest.param([], [held(A, None)], [], False, id="a promise is nothing to take"),
        pytest.param(
            [held(A, 1, whole=False)], [held(A, 1)], [held(A, 1)], False, id="its body is missing here"
        ),
        pytest.param([held(A, 1)], [held(A, 1, whole=False)], [], True, id="its body is missing there"),
        pytest.param(
            [held(A, 2, whole=False, write=1)],
            [held(A, 1)],
            [held(A, 1)],
            True,
            id="it was carried on here without its body",
        ),
        pytest.param(
            [held(A, 1)],
            [held(A, 2, whole=False, write=1)],
            [held(A, 2, whole=False, write=1)],
            True,
            id="it was carried on there without its body",
        ),
        pytest.param(
            [held(A, 2, whole=False)], [held(A, 1)], [], True, id="the body of an older write is none of it"
        ),
        pytest.param(
            [held(A, 1, whole=False)], [held(A, 1, whole=False)], [], False, id="its body is missing at both"
        ),
    ],
)
def test_what_is_taken_and_what_is_told(
    here: list[HeldVersion], there: list[HeldVersion], taken: list[HeldVersion], is_more_here: bool
) -> None:
    found = compare(here, there)
    assert (list(found.taken), found.is_more_here) == (taken, is_more_here)
    assert found.known == ({A} if taken and here else set()), "what is unknown here has no body here"


def write_of(at: int) -> int:
    """Each write has two ballots: it was carried from one to the other."""
    return (at + 1) // 2


versions = st.dictionaries(
    st.sampled_from([b"a", b"b", b"c", b"d"]), st.tuples(st.integers(1, 4), st.booleans()), max_size=4
)


def applied(
    mine: dict[bytes, tuple[int, bool]], taken: Iterable[HeldVersion]
) -> dict[bytes, tuple[int, bool]]:
    then = dict(mine)
    for each in taken:
        at, whole = each.ballot.micros, each.whole
        if each.path in mine:
            own_at, own_whole = mine[each.path]
            whole |= own_whole and write_of(own_at) == write_of(at)
            at = max(at, own_at)
        then[each.path] = at, whole
    return then


@given(versions, versions)
def test_two_owners_that_each_take_hold_the_same_versions_and_nothing_more_to_tell(
    one: dict[bytes, tuple[int, bool]], other: dict[bytes, tuple[int, bool]]
) -> None:
    def listed(mine: dict[bytes, tuple[int, bool]]) -> list[HeldVersion]:
        return [held(path, at, whole=whole, write=write_of(at)) for path, (at, whole) in mine.items()]

    one_then = applied(one, compare(listed(one), listed(other)).taken)
    other_then = applied(other, compare(listed(other), listed(one)).taken)
    assert one_then == other_then
    assert compare(listed(one_then), listed(other_then)) == ((), frozenset(), False)
    told = compare(listed(one), listed(other)).is_more_here
    assert told == bool(compare(listed(other), listed(one)).taken), (
        "who lacks something is told, and nobody else"
    )


@given(st.integers(0, 32), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_partition_is_cut_finely_but_into_one_answer(power: int, here: int, there: int) -> None:
    bits = cut_bits(power, here, there)
    assert bits == cut_bits(power, there, here), "both ends cut alike"
    assert power <= bits <= max(power, min(BITS_MAX, power + RANGES_BITS_MAX))


@pytest.mark.parametrize(
    ("there", "here", "is_covered"),
    [
        (held(A, 1), held(A, 1), True),
        (held(A, 2), held(A, 1), True),
        (held(A, 1), held(A, 2), False),
        (held(A, 1, whole=False), held(A, 1), False),
        (held(A, 2, whole=False), held(A, 1), False),
        (held(A, None), held(A, 1), False),
        (held(A, None), held(A, None), True),
    ],
)
def test_what_covers_a_copy_that_is_given_back(
    there: HeldVersion, here: HeldVersion, is_covered: bool
) -> None:
    assert covers(there, here) is is_covered


def test_a_body_is_not_let_go_of_for_one_that_nobody_brings() -> None:
    entry = Entry(Ballot.of(1, 1), WriteId(bytes(15) + b"1"), 1, body_id=WriteId(bytes(15) + b"1"), size=4)
    tombstone = entry._replace(tombstone=True, body_id=NO_WRITE, size=0)
    assert not may_take_without_body(entry, whole=True, catching_up=False)
    assert may_take_without_body(entry, whole=True, catching_up=True)
    assert may_take_without_body(entry, whole=False, catching_up=False)
    assert may_take_without_body(tombstone, whole=True, catching_up=False)
    assert may_take_without_body(None, whole=True, catching_up=False)


def test_the_partition_with_the_fewest_sound_copies_is_first() -> None:
    places = {(b"o\0", number): [DeviceId(1)] for number in range(4)}
    places[b"o\0", 2] = [DeviceId(1), DeviceId(2)]
    owners = dict.fromkeys(places, 3)
    silent = {(b"o\0", 3): 2}
    assert [number for _, number in endangered_first(places, owners, silent)] == [3, 2, 0, 1]


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4).map(lambda text: text.encode())


@given(names, names)
def test_behind_a_marker_just_before_a_name_that_name_is_first(name: bytes, other: bytes) -> None:
    assert (other > just_before(name)) == (other >= name) or not name
