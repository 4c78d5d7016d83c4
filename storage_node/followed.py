"""Followed digests: those of whole partitions, read once and then kept by what each commit moves.

Owns which partitions are followed and the order of reads and commits that keeps them exact. Never reads an index by
itself and never writes one: what is lost with the process is read again.

Adding up a partition from the heads of its buckets means walking all of its keys, and a replicator asks for every
partition again and again. A view and a commit both have the number of a transaction: what was read in view V has in it all that
commits up to V moved, and nothing of later ones.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from threading import Lock
from typing import NamedTuple, Protocol, TypeVar

from storage_node.tables import PartitionKey
from swiftlike.digests import Digest
from swiftlike.limits import FOLLOWED_PARTITIONS_MAX


class Numbered(Protocol):
    """A view that knows the last transaction it shows."""

    @property
    def transaction(self) -> int:
        """The number of that transaction."""


V = TypeVar("V", bound=Numbered)


class _AsOf(NamedTuple):
    transaction: int
    digest: Digest


class _Reading:
    """What commits moved of a partition since somebody began to read it."""

    __slots__ = ("moves", "readers")

    def __init__(self) -> None:
        self.readers = 0
        self.moves: list[_AsOf] = []


class FollowedDigests:
    """The digests of partitions that were asked for. From any thread."""

    def __init__(self, partitions_max: int = FOLLOWED_PARTITIONS_MAX) -> None:
        """Begin with none; beyond `partitions_max` the one followed longest is let go."""
        self._partitions_max = partitions_max
        self._lock = Lock()
        self._known: dict[PartitionKey, _AsOf] = {}
        self._read: dict[PartitionKey, _Reading] = {}

    def digest(
        self,
        partition: PartitionKey,
        view: Callable[[], AbstractContextManager[V]],
        read: Callable[[V], Digest],
    ) -> Digest:
        """Return the digest of a partition: followed, or else read from a view, and followed from then on."""
        with self._lock:
            if (known := self._known.get(partition)) is not None:
                return known.digest
            reading = self._read.setdefault(partition, _Reading())
            reading.readers += 1
        try:
            with view() as opened:
                found = _AsOf(opened.transaction, read(opened))
            with self._lock:
                for move in reading.moves:
                    found = _moved(found, move)
                self._keep(partition, found)
            return found.digest
        finally:
            with self._lock:
                reading.readers -= 1
                if reading.readers == 0:
                    del self._read[partition]

    def follow(self, transaction: int, moves: Mapping[PartitionKey, Digest]) -> None:
        """Take in what a commit moved: the XOR of before and after, and the difference of the counts."""
        with self._lock:
            for partition, digest in moves.items():
                move = _AsOf(transaction, digest)
                if (known := self._known.get(partition)) is not None:
                    self._known[partition] = _moved(known, move)
                if (reading := self._read.get(partition)) is not None:
                    reading.moves.append(move)

    def _keep(self, partition: PartitionKey, found: _AsOf) -> None:
        if len(self._known) >= self._partitions_max and partition not in self._known:
            del self._known[next(iter(self._known))]
        self._known[partition] = found


def _moved(known: _AsOf, move: _AsOf) -> _AsOf:
    """Add what a later commit moved; what a view has shown already is not added twice."""
    if move.transaction <= known.transaction:
        return known
    return _AsOf(move.transaction, known.digest.joined(move.digest))
