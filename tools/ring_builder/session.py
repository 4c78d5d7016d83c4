"""One run of the ring builder: the builder file, the ring beside it, the time, and what is said.

Owns the order in which files are read, locked and written. Never decides what a change does, never how anything looks,
and reads no clock: the time of the run is handed in.
"""

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from ring.builder import RingBuilder
from ring.builder.file import load_builder, save_builder
from ring.errors import RingError, RingFileError
from ring.file import load_ring, replace_file
from ring.ring import CHECKSUM_BYTES, Ring

BUILDER_SUFFIX: Final = ".builder"
RING_SUFFIX: Final = ".ring"
NO_SEED: Final = 0
"""The cluster's secret is not needed to read a ring that no path is looked up in."""

Save = Callable[[Path, RingBuilder], None]


class Exit(IntEnum):
    """How a run ended, for scripts; the numbers are those of Swift's tool."""

    DONE = 0
    WARNING = 1
    """Nothing was done, or what was done deserves a second look; stderr says which."""
    ERROR = 2
    """Nothing was written; stderr says why, and what to do."""


@dataclass(slots=True)
class Session:
    """What every command works with."""

    builder_path: Path
    now_s: int
    as_json: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def ring_path(self) -> Path:
        """The ring stands beside its builder: `object-0.builder`, `object-0.ring`."""
        return self.builder_path.with_name(self.stem + RING_SUFFIX)

    @property
    def stem(self) -> str:
        """The ring's name, as its builder's file says it."""
        return self.builder_path.name.removesuffix(BUILDER_SUFFIX)

    def check_free(self) -> None:
        """Refuse to make a builder over another one, or where its ring is to be."""
        if self.builder_path.name.endswith(RING_SUFFIX):
            raise self._is_a_ring()
        if self.builder_path.exists():
            raise RingError(
                f"{self.builder_path} exists already; choose another name, or move it and its history away"
            )

    def _is_a_ring(self) -> RingError:
        builder_name = self.builder_path.name.removesuffix(RING_SUFFIX) + BUILDER_SUFFIX
        return RingError(f"{self.builder_path} is a ring; name its builder, {builder_name}")

    # Reading

    def load(self) -> RingBuilder:
        """Read the builder, to look at it."""
        if self.builder_path.name.endswith(RING_SUFFIX):
            raise self._is_a_ring()
        return load_builder(self.builder_path)

    @contextmanager
    def locked(self) -> Iterator[RingBuilder]:
        """Read the builder, to change it: until the end of the block nobody else can."""
        descriptor = self._lock()
        try:
            yield self.load()
        finally:
            os.close(descriptor)

    @contextmanager
    def locked_with_ring(self, then: str | None = None) -> Iterator[RingBuilder]:
        """Read the builder, to change it and the ring beside it.

        A command that makes the next epoch out of the current one names itself in `then`: it is refused while the ring
        beside is not the current epoch.
        """
        with self.locked() as builder:
            self._check_ring_beside(builder, then)
            yield builder

    def _lock(self) -> int:
        """Lock the builder file and return the descriptor that holds the lock.

        A change replaces the file, so whoever gets the lock looks whether the file still has its name.
        """
        while True:
            try:
                descriptor = os.open(self.builder_path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.load()  # which says in one sentence what is wrong
                raise
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self.builder_path.stat()):
                    return descriptor
                os.close(descriptor)
            except BlockingIOError:
                os.close(descriptor)
                raise RingError(
                    f"{self.builder_path} is being changed by another ring builder; wait until that is done and try again"
                ) from None

    def _check_ring_beside(self, builder: RingBuilder, then: str | None) -> None:
        """Refuse to replace a ring that this builder did not make: a cluster may be running by it.

        A damaged one is no reason to refuse: writing it again is what mends it. But `then` is refused unless the ring is
        the builder's current epoch. A crash between the two writes leaves the ring one epoch behind, and devices that went
        from there to the epoch after next would never have counted both the old and the new owners of what moves.
        """
        standing = "is not there"
        try:
            ring = self.ring_beside()
        except RingFileError:
            ring, standing = None, "is damaged"
        if ring is not None:
            if not made_by(builder, ring):
                raise RingError(
                    f"{self.ring_path} (epoch {ring.epoch}) does not come from this builder (epoch {builder.epoch}); bring"
                    " back the builder that made it or make one of it with write_builder, or move that ring away"
                )
            standing = f"is of epoch {ring.epoch}"
        written = ring is not None and ring.epoch == builder.epoch
        if then is not None and builder.epoch and not written:
            raise RingError(
                f"{self.ring_path} {standing} and the builder made epoch {builder.epoch}, which devices may not have seen; write_ring"
                f" first, copy the ring to all hosts, then {then}"
            )

    def ring_beside(self) -> Ring | None:
        """Read the ring beside the builder, if there is one. Raises RingFileError when it must not be believed."""
        return load_ring(self.ring_path, NO_SEED) if self.ring_path.exists() else None

    # Writing

    def save(self, builder: RingBuilder, save: Save = save_builder) -> None:
        """Write the builder."""
        save(self.builder_path, builder)

    def save_with_ring(self, builder: RingBuilder, save: Save = save_builder) -> None:
        """Write the builder, and then the ring beside it.

        In this order, so that no ring is ever out of which the builder does not know.
        """
        pieces = builder.publish().pieces
        save(self.builder_path, builder)
        try:
            replace_file(self.ring_path, pieces)
        except RingError as error:
            raise RingError(
                f"{error}; the builder is saved, so write_ring is all there is to repeat"
            ) from error

    # Speaking

    def warn(self, sentence: str) -> None:
        """Say on stderr what deserves a second look; a JSON document repeats it."""
        self.warnings.append(sentence)
        print(f"warning: {sentence}", file=sys.stderr)

    def refuse(self, sentence: str) -> Exit:
        """Say why there was nothing to do."""
        self.warn(sentence)
        self.say({"written": False}, lambda: None)
        return Exit.WARNING

    def say(self, document: Mapping[str, Any], show: Callable[[], None]) -> None:
        """Print one JSON document, or else `show` it to a person."""
        if self.as_json:
            whole = {"file": str(self.builder_path), **document, "warnings": self.warnings}
            print(json.dumps(whole, indent=2, allow_nan=False))
        else:
            show()


def made_by(builder: RingBuilder, ring: Ring) -> bool:
    """Say whether a ring is one of the epochs of a builder."""
    checksum = builder.lineage[(ring.epoch - 1) * CHECKSUM_BYTES : ring.epoch * CHECKSUM_BYTES]
    return ring.checksum == checksum


def remembering_nothing(path: Path, builder: RingBuilder) -> None:
    """Save a change that undo does not take back, so that the history keeps only what it does."""
    save_builder(path, builder, remember=False)
