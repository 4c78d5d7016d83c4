"""Signals that wait: from a program's first instruction until it can do what they ask for.

Owns which ones. Loads next to nothing, so that a program can let them wait before it loads the rest of itself: whoever starts
it may tell it to read its files again, or to end, at any moment, and until a handler is in place either would kill it.
"""

import signal
from typing import Final

AWAITED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def hold() -> None:
    """Let them wait; what is started meanwhile is deaf to them too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)


def hear() -> None:
    """Take them from now on, and those that came meanwhile at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)


def ignore_hangups() -> None:
    """Let a SIGHUP pass until there is a handler for it: a process that was started by hand does not die of a reload."""
    signal.signal(signal.SIGHUP, lambda number, frame: None)
