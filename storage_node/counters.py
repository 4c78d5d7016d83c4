"""Counters: what one open device counts, for whoever watches it. Holds numbers and decides nothing."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What went wrong on this device since it was opened."""

    read_errors: int = 0
    write_errors: int = 0
    bodies_damaged: int = 0
    cold_reads: int = 0
    warm_reads: int = 0
    batches: int = 0
    operations: int = 0
    """Operations in those batches, so that their mean size can be told."""
    index_faults: int = 0
    """Times that the look-up of a key waited for the disk."""
