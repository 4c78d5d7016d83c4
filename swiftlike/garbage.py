"""How a process that serves collects its garbage, and what it keeps of freed memory.

Owns the thresholds of Python's collector and of malloc. Never collects by itself.

What serves makes short-lived values by the hundred thousand, nearly all of which die by their reference counts; only what
refers to itself, such as an exception and its traceback, needs the collector. With Python's own thresholds it looked
through the young ones after every 700 and through everything every few thousand: a fifth of a device's time under writes.
"""

import ctypes
import gc
from typing import Final

YOUNG_MAX: Final = 50_000
"""Values made and not freed before the young ones are looked through: some ten megabytes, a second's worth of traffic."""
YOUNG_PASSES: Final = 20
"""Between two looks at the middle-aged."""
MIDDLE_PASSES: Final = 50
"""Between two looks at everything, at least."""

KEPT_BYTES: Final = 32 * 1024**2
"""Of freed memory, at most: malloc takes no larger threshold."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def settle() -> None:
    """Take what the start has made for what lives as long as the process, and look through the rest less often."""
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, YOUNG_PASSES, MIDDLE_PASSES)


def keep_freed_memory() -> None:
    """Let malloc keep up to KEPT_BYTES of freed memory, instead of giving each large buffer back to the kernel at once.

    Bodies come and go by the thousand, and the page faults of a fresh mapping cost more than reading a body from the
    page cache does: without this, they are 40 % of a device's streamed read.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not every libc has it; without it, large bodies are slower and nothing else
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
