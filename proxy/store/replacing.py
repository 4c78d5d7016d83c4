"""Replacing: no object that names an upload is replaced before that upload is marked, and its record says that it is over.

Owns that order, for whoever writes over an object or deletes it: a client's write, or the expirer. What a mark asks for is
`marks`' and `freeing`'s. The record is what a completer goes by who comes late: while it says that the upload is still being
completed, its object stands or never stood, so that he may write it without bringing back what was replaced since.
"""

from typing import Final

from proxy.cluster.decisions import Judge, Outcome
from proxy.cluster.offers import Content
from proxy.cluster.placement import Key
from proxy.cluster.register import Registers, Written
from proxy.store import manifests
from proxy.store.contract import Objects
from proxy.store.ending import close
from proxy.store.errors import Unavailable
from proxy.store.marks import MICROS, Graces, Marks
from proxy.store.upload_names import UploadName
from proxy.store.values import attributes_of
from swiftlike.entries import Entry
from swiftlike.timestamps import Ballot

TRIES_MAX: Final = 4
"""Times that an operation begins again because what it found was replaced meanwhile: a container, a body, an object."""


class Replacing:
    """Conditional writes that mark what they replace."""

    def __init__(self, registers: Registers, marks: Marks, records: Objects, graces: Graces) -> None:
        """Take what it stands on, where uploads have their records, and how long replaced parts are kept."""
        self._registers: Final = registers
        self._marks: Final = marks
        self._records: Final = records
        self._graces: Final = graces

    async def write_if(
        self, key: Key, upload: UploadName, judge: Judge, body: Content = None, *, deadline: float
    ) -> Written:
        """Write what `judge` makes; where that replaces an object that names an upload, mark and close the upload before.

        `upload` tells where the object is: its id is filled in. Raises Unavailable, OutcomeUnknown.
        """
        marked = set[str]()
        unmarked: Entry | None = None

        def judge_marked(newest: Entry | None, ballot: Ballot) -> Entry | None:
            nonlocal unmarked
            made, unmarked = judge(newest, ballot), None
            replaced = manifests.upload_of(newest)
            if made is None or not replaced or replaced in {*marked, manifests.upload_of(made)}:
                return made
            unmarked = newest
            return None

        for _ in range(TRIES_MAX):
            written = await self._registers.write_if(key, judge_marked, body, deadline=deadline)
            if written.outcome is not Outcome.REFUSED or unmarked is None:
                return written
            due_us = self._registers.clock.now_us() + int(self._graces.read_s * MICROS)
            replaced = upload._replace(id=manifests.upload_of(unmarked))
            await self._marks.mark(replaced, due_us, deadline=deadline)
            await close(self._records, replaced, attributes_of(unmarked), deadline=deadline)
            marked.add(replaced.id)
        raise Unavailable("the object is replaced again and again; provably without effect")
