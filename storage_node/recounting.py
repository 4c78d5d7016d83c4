"""Recounting: what follows from entries and rows is derived from them anew, where an audit found that it does not follow.

Owns the operations that put a digest or a tally right. Entries and rows are what was acknowledged; nothing here changes one.
"""

from dataclasses import dataclass
from functools import partial

from storage_node import auditing, keys, partition_digests
from storage_node.keys import Listing
from storage_node.operations import Bodies
from storage_node.tables import Change
from storage_node.tallies import Sums


@dataclass(slots=True)
class RecountBucket:
    """Count the digest of a bucket anew."""

    head_key: bytes
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> bool:
        """Put it right; say whether it was wrong, seen from within the transaction."""
        was_wrong = change.set_head(self.head_key, auditing.count_bucket(change.view, self.head_key))
        table = self.head_key[:2]
        if table in change.layout.part_powers:
            # Which of head and partition drifted, nobody knows: the one is counted from the other.
            bits, bucket = change.layout.part_powers[table], keys.bucket_in(self.head_key)
            for partition in keys.partitions_of(bits, bucket):
                RecountPartition(table, partition).apply(change, bodies)
        return was_wrong


@dataclass(slots=True)
class RecountPartition:
    """Count the digest of a partition's registers anew, or that of all rows under them."""

    kind: bytes
    partition: int
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> None:
        """Have it counted when all that changes with it is written."""
        count = partial(
            partition_digests.count_one, layout=change.layout, kind=self.kind, partition=self.partition
        )
        change.recount_partition(self.kind, self.partition, count)


@dataclass(slots=True)
class RecountRange:
    """Count the tally of a range of a listing anew, and that of the listing; without a name, the latter only."""

    listing: Listing
    first: bytes | None
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> bool:
        """Put them right; say whether one was wrong, seen from within the transaction."""
        hashed = change.layout.hashed(self.listing.parent.path)
        prefix = keys.rows_prefix(self.listing, hashed)
        if change.view.get(keys.sweep_key(prefix)) is not None:
            return False
        was_wrong = False
        if self.first is not None:
            range_key = keys.range_key(prefix, self.first)
            if self.first and change.view.get(range_key) is None and range_key not in change.tallies:
                return False  # it went with its last row; only the first stays
            stop = auditing.next_range(change.view, prefix, self.first)
            was_wrong = change.set_tally(
                range_key, auditing.count_range(change.view, prefix, self.first, stop)
            )
        whole, lead = Sums(), keys.range_key(prefix, b"")
        for key, raw in change.view.scan(lead, keys.after(lead)):
            whole.include(change.tallies.get(key) or Sums.decode(raw))
        tally_key = keys.tally_key(prefix)
        parent = self.listing.parent
        if parent.table in change.layout.part_powers:
            partition = change.layout.partition(parent.table, hashed)
            RecountPartition(prefix[:2], partition).apply(change, bodies)
        return change.set_tally(tally_key, whole) or was_wrong


@dataclass(slots=True)
class Remember:
    """Write down how far a job has come."""

    job: str
    position: bytes
    body_bytes: int = 0
    spends_reserve: bool = True

    def apply(self, change: Change, bodies: Bodies) -> None:
        """Write it."""
        change.view.put(keys.job_key(self.job), self.position)
