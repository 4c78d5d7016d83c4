"""Progress: how fast something that is done piece by piece has gone lately.

Owns the arithmetic of a rate over a window that moves with time. Never reads a clock.
"""

from collections import deque
from typing import Final

WINDOW_S: Final = 600.0
SLOTS: Final = 60


class Progress:
    """Pieces that were done, in the slots of time in which they were; what is older than the window is forgotten."""

    def __init__(self, began_s: float) -> None:
        """Take the time at which it began."""
        self._began_s: Final = began_s
        self._slots: Final[deque[list[float]]] = deque(maxlen=SLOTS)

    def note(self, now_s: float, pieces: int = 1) -> None:
        """Count pieces that were done by now."""
        slot = now_s // (WINDOW_S / SLOTS)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append([slot, 0.0])
        self._slots[-1][1] += pieces

    def per_s(self, now_s: float) -> float:
        """Return how many were done a second, over the window or since it began; at least a second counts."""
        width_s = WINDOW_S / SLOTS
        first = now_s // width_s - SLOTS + 1
        done = sum(pieces for slot, pieces in self._slots if slot >= first)
        return done / max(1.0, min(now_s - self._began_s, WINDOW_S))
