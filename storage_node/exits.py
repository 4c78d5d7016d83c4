"""How a device process ends, for itself and for whoever started it."""

from enum import IntEnum

from swiftlike.supervision import DRAINED_CODE, REFUSED_CODE


class Exit(IntEnum):
    """How a device process ends."""

    DRAINED = DRAINED_CODE
    REFUSED = REFUSED_CODE
    SYNC_FAILED = 3
    GONE = 4
    """What it served is not where it was opened: its directory was emptied, or its disk was unmounted."""
    TASK_ENDED = 5
    """One of the tasks that go on for as long as it serves ended by itself: a restart may help, and one at once would not."""
