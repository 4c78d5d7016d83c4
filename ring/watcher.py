"""The shell around a ring: one process's hold on the newest epoch that its ring file has shown it.

Owns when the file is looked at and whether what is in it may replace the ring in use. Never goes back to an
older epoch, never writes, never lets a bad file take the ring away: it keeps what it has and says so.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from ring.errors import RingAncestryError, RingError, RingFileError
from ring.file import load_ring
from ring.ring import Kinship, Ring

CHECK_INTERVAL_S: Final = 15.0
"""A look costs one stat; 15 s is how long a proxy that nobody calls may go on with the ring before."""

log = logging.getLogger(__name__)

Signature = tuple[int, int, int]
"""Modification time in nanoseconds, inode and size: a file that was replaced by rename differs in one of them."""


class RingWatcher:
    """Holds the ring in use and follows its file. All calls are made from the thread of one event loop.

    `on_change(old, new)` and `on_refusal(error)` are called after the fact; what they raise ends `run`. A
    refusal is told once, and again when its sentence changes; it stands until the file is good again.
    """

    def __init__(
        self,
        path: str | Path,
        ring: Ring,
        *,
        on_change: Callable[[Ring, Ring], None] | None = None,
        on_refusal: Callable[[RingError], None] | None = None,
        interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self._path = Path(path)
        self._ring = ring
        self._on_change = on_change
        self._on_refusal = on_refusal
        self._interval_s = interval_s
        self._signature: Signature | None = None
        self._refusal: RingError | None = None
        self._poked = asyncio.Event()

    @property
    def ring(self) -> Ring:
        """The ring in use. Take it once per request: the next look may find another."""
        return self._ring

    @property
    def refusal(self) -> RingError | None:
        """Why the file as it now is was not taken, if it was not."""
        return self._refusal

    def check(self) -> bool:
        """Look at the file now, and say whether a newer ring was taken. Blocks while it is read: `run` does not."""
        return self._judge(self._look())

    def poke(self) -> None:
        """Make `run` look at once, on a signal or when a peer has told of a newer epoch."""
        self._poked.set()

    async def run(self) -> None:
        """Look at the file each interval and at each poke, until cancelled.

        The file is read and summed on a thread. Cancelling leaves the ring in use as it was.
        """
        while True:
            self._poked.clear()
            self._judge(await asyncio.to_thread(self._look))
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._poked.wait()
            except TimeoutError:
                continue

    def _look(self) -> "_Look | None":
        """Read the file; None when it is the one that was good at the last look."""
        # Before the file is mapped: should it be replaced in between, the next look sees a change.
        signature = _signature(self._path)
        if signature is not None and signature == self._signature:
            return None
        try:
            return _Look(signature, load_ring(self._path, self._ring.hash_seed))
        except RingFileError as error:
            return _Look(signature, error)

    def _judge(self, look: "_Look | None") -> bool:
        """Take the ring that was found, or keep the one in use and say why; tell whether it was taken."""
        if look is None:
            self._refusal = None
            return False
        if isinstance(look.found, RingFileError):
            self._refuse(look.found)
            return False
        # Judged here and not on the thread that read it: the ring in use may have changed since.
        match self._ring.kinship(look.found):
            case Kinship.SAME:
                self._signature, self._refusal = look.signature, None
                return False
            case Kinship.DESCENDANT:
                self._signature, self._refusal = look.signature, None
                self._take(look.found)
                return True
            case Kinship.ANCESTOR:
                self._refuse(self._goes_back(look.found))
                return False
            case Kinship.STRANGER:
                self._refuse(self._is_a_stranger(look.found))
                return False
            case never:
                assert_never(never)

    def _take(self, newer: Ring) -> None:
        older, self._ring = self._ring, newer
        log.info("ring %s: epoch %d replaces epoch %d", newer.name, newer.epoch, older.epoch)
        if self._on_change is not None:
            self._on_change(older, newer)

    def _refuse(self, error: RingError) -> None:
        told = self._refusal is not None and str(self._refusal) == str(error)
        self._refusal = error
        if told:
            return
        log.error("%s; epoch %d stays in use", error, self._ring.epoch)
        if self._on_refusal is not None:
            self._on_refusal(error)

    def _goes_back(self, older: Ring) -> RingAncestryError:
        return RingAncestryError(
            f"ring file {self._path} holds epoch {older.epoch} of ring {older.name} and epoch {self._ring.epoch} is in"
            " use already; put the newer file back, or undo with the builder, which makes a new epoch"
        )

    def _is_a_stranger(self, other: Ring) -> RingAncestryError:
        return RingAncestryError(
            f"ring file {self._path} holds ring {other.name}, epoch {other.epoch}, which does not descend from"
            f" {self._ring.name}, epoch {self._ring.epoch}; write it from the builder that made the ring in use"
        )


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at the file found, and the signature that the file had before."""

    signature: Signature | None
    found: Ring | RingFileError


def _signature(path: Path) -> Signature | None:
    """Return what tells this file from its successor; None when there is none, of which `load_ring` says more."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)
