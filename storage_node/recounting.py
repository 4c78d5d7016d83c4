"""Recounting: what follows from entries and rows is derived from them anew, where an audit found that it does not follow.

Owns the operations that put a digest or a tally right. Entries and rows are what was acknowledged; nothing here changes one.
"""

from dataclasses import dataclass

from storage_node import auditing, keys
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
        return change.set_head(self.head_key, auditing.count_bucket(change.view, self.head_key))


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
        stood = change.tally(tally_key).digest
        change.move_rows_digest(
            prefix[:2], hashed, stood.xor ^ whole.xor, whole.rows_and_tombstones - stood.entries
        )
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
