"""A followed digest is that of the last commit, however reads and commits interleave."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_node.followed import FollowedDigests
from swiftlike.digests import EMPTY, Digest

PARTITION = (b"o\0", 3)
OTHER = (b"o\0", 4)


@dataclass
class View:
    """What a commit left, as a reader sees it."""

    transaction: int
    digest: Digest


class Kept:
    """A partition whose commits and reads a test takes apart."""

    def __init__(self, followed: FollowedDigests) -> None:
        self.followed = followed
        self.transaction = 0
        self.digest = EMPTY
        self.untold: list[tuple[int, Digest]] = []
        self.reads = 0

    def commit(self, mark: int) -> None:
        """Commit one entry; the followers have not heard of it yet."""
        self.transaction += 1
        self.digest = self.digest.added(mark)
        self.untold.append((self.transaction, Digest(mark, 1)))

    def tell(self) -> None:
        """Tell the followers of the earliest commit that they have not heard of."""
        if self.untold:
            transaction, move = self.untold.pop(0)
            self.followed.follow(transaction, {PARTITION: move, OTHER: Digest(1, 1)})

    def ask(self, *meanwhile: int) -> Digest:
        """Ask for the digest; should it be read, so much happens between the view and its end."""

        @contextmanager
        def view() -> Iterator[View]:
            shown = View(self.transaction, self.digest)
            self.reads += 1
            for mark in meanwhile:
                if mark:
                    self.commit(mark)
                else:
                    self.tell()
            yield shown

        return self.followed.digest(PARTITION, view, lambda shown: shown.digest)


steps = st.one_of(
    st.tuples(st.just("commit"), st.integers(1, 2**128 - 1)),
    st.just(("tell", 0)),
    st.tuples(st.just("ask"), st.lists(st.integers(0, 9), max_size=6)),
)


@given(st.lists(steps, max_size=25))
def test_a_followed_digest_is_exact_however_reads_and_commits_interleave(
    done: list[tuple[str, int | list[int]]],
) -> None:
    kept = Kept(FollowedDigests())
    for what, with_what in done:
        match what, with_what:
            case "commit", int(mark):
                kept.commit(mark)
            case "ask", list(meanwhile):
                kept.ask(*meanwhile)
            case _:
                kept.tell()
    kept.ask()
    while kept.untold:
        kept.tell()
    assert kept.ask() == kept.digest
    assert kept.reads == 1


def test_beyond_the_bound_the_partition_followed_longest_is_read_again() -> None:
    kept = Kept(FollowedDigests(partitions_max=1))
    kept.commit(5)
    kept.tell()
    assert kept.ask() == kept.ask() == Digest(5, 1)
    assert kept.reads == 1

    @contextmanager
    def other() -> Iterator[View]:
        yield View(1, Digest(7, 2))

    assert kept.followed.digest(OTHER, other, lambda shown: shown.digest) == Digest(7, 2)
    assert kept.ask() == Digest(5, 1)
    assert kept.reads == 2


def test_a_read_that_fails_leaves_nothing_behind() -> None:
    kept = Kept(FollowedDigests())

    def damaged(shown: View) -> Digest:
        raise ValueError("damaged")

    @contextmanager
    def view() -> Iterator[View]:
        yield View(0, EMPTY)

    with pytest.raises(ValueError, match="damaged"):
        kept.followed.digest(PARTITION, view, damaged)
    kept.commit(5)
    kept.tell()
    assert kept.ask() == Digest(5, 1)
