"""Replacing: no object that names an upload is replaced before that upload is marked.

Owns that order, for whoever writes over an object or deletes it: a client's write, or the expirer. What a mark asks for is
`marks`' and `freeing`'s.
"""

from typing import Final

from proxy.cluster.decisions import Judge, Outcome
from proxy.cluster.offers import Content
from proxy.cluster.placement import Key
from proxy.cluster.register import Registers, Written
from proxy.store import manifests
from proxy.store.errors import Unavailable
from proxy.store.marks import MICROS, Graces, Marks
from proxy.store.upload_names import UploadName
from swiftlike.entries import Entry
from swiftlike.timestamps import Ballot

TRIES_MAX: Final = 4
"""Times that an operation begins again because what it found was replaced meanwhile: a container, a body, an object."""


class Replacing:
    """Conditional writes that mark what they replace."""

    def __init__(self, registers: Registers, marks: Marks, graces: Graces) -> None:
        """Take what it stands on, and how long replaced parts are kept."""
        self._registers: Final = registers
        self._marks: Final = marks
        self._graces: Final = graces

    async def write_if(
        self, key: Key, upload: UploadName, judge: Judge, body: Content = None, *, deadline: float
    ) -> Written:
        """Write what `judge` makes; where that replaces an object that names an upload, mark the upload before.

        `upload` tells where the object is: its id is filled in. Raises Unavailable, OutcomeUnknown.
        """
        marked, unmarked = set[str](), ""

        def judge_marked(newest: Entry | None, ballot: Ballot) -> Entry | None:
            nonlocal unmarked
            made, unmarked = judge(newest, ballot), ""
            replaced = manifests.upload_of(newest)
            if made is None or not replaced or replaced in {*marked, manifests.upload_of(made)}:
                return made
            unmarked = replaced
            return None

        for _ in range(TRIES_MAX):
            written = await self._registers.write_if(key, judge_marked, body, deadline=deadline)
            if written.outcome is not Outcome.REFUSED or not unmarked:
                return written
            due_us = self._registers.clock.now_us() + int(self._graces.read_s * MICROS)
            await self._marks.mark(upload._replace(id=unmarked), due_us, deadline=deadline)
            marked.add(unmarked)
        raise Unavailable("the object is replaced again and again; provably without effect")
