"""How a process that serves collects its garbage.

Owns the thresholds of Python's collector. Never collects by itself.

What serves makes short-lived values by the hundred thousand, nearly all of which die by their reference counts; only what
refers to itself, such as an exception and its traceback, needs the collector. With Python's own thresholds it looked
through the young ones after every 700 and through everything every few thousand: a fifth of a device's time under writes.
"""

import gc
from typing import Final

YOUNG_MAX: Final = 50_000
"""Values made and not freed before the young ones are looked through: some ten megabytes, a second's worth of traffic."""
YOUNG_PASSES: Final = 20
"""Between two looks at the middle-aged."""
MIDDLE_PASSES: Final = 50
"""Between two looks at everything, at least."""


def settle() -> None:
    """Take what the start has made for what lives as long as the process, and look through the rest less often."""
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, YOUNG_PASSES, MIDDLE_PASSES)
