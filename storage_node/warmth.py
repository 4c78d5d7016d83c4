"""Warmth: whether looking one key up may still run on the event loop.

Pure arithmetic over counts that its caller takes. Never reads an index or a clock.

The index is a map of a file: a page that is not in memory makes whoever touches it wait for the disk, without a word
to the event loop. The kernel counts these waits per thread, as major faults. While they stay rare among the look-ups,
a look-up costs less than a hop to another thread; once they are not, look-ups go to the readers, until a whole window
of them has met few again.
"""

from dataclasses import dataclass

from swiftlike.limits import INDEX_FAULTS_MAX, INDEX_LOOKUPS_WINDOW


@dataclass(slots=True)
class Warmth:
    """Major faults among the look-ups of one index."""

    warm: bool = True
    """Whether the next look-up may run on the loop."""
    lookups: int = 0
    """Look-ups of the window that is under way."""
    faults: int = 0
    """Major faults among them."""

    def note(self, lookups: int, faults: int) -> None:
        """Count look-ups, and the major faults that they met."""
        self.lookups += lookups
        self.faults += faults
        if self.faults > INDEX_FAULTS_MAX:
            # At once, not at the end of the window: each further one could stall every client.
            self.warm, self.lookups, self.faults = False, 0, 0
        elif self.lookups >= INDEX_LOOKUPS_WINDOW:
            self.warm, self.lookups, self.faults = True, 0, 0
