"""Ending: of all who would end an upload at once, one does.

Owns the writes that take an upload's record from one state to another (`upload_states`), each of them conditional, and what
becomes of an upload whose completer died. What an object is made of is `multipart`'s, what goes then is `freeing`'s.

Nobody holds a claim for longer than half of the grace for writes: what is not written by then never is. So a claim that is
older than the grace is a dead one's, and where the object stands already, nobody need be waited for. Whether it came to anything is asked of the key, which is settled by that, above
whatever was offered to few: either the object names the upload, or nothing of this claim ever will. Nor did anything of it
come and go, since whoever replaces an object closes its upload first (`close`).
"""

import logging
from collections.abc import Callable
from typing import Final

from proxy.store import manifests
from proxy.store.contract import ManifestObjects, Objects
from proxy.store.errors import (
    ConditionFailed,
    NoSuchUpload,
    NotThere,
    OutcomeUnknown,
    StoreError,
    Unavailable,
    UploadClaimed,
)
from proxy.store.marks import MICROS, Graces
from proxy.store.names import ObjectName
from proxy.store.upload_names import UploadName
from proxy.store.upload_states import (
    COMPLETING,
    STATE,
    Step,
    aborting,
    claimed_us,
    claiming,
    finishing,
    has_claim,
    is_completed_with,
    is_over,
    releasing,
    reopening,
)
from proxy.store.values import Attributes, Condition, Description, ObjectInfo

log: Final = logging.getLogger("proxy.ending")

TRIES_MAX: Final = 3
"""Times that a step is tried because what stood in its way was decided meanwhile."""
RELEASE_S: Final = 5.0
"""For a claim to be given back: the deadline of what failed may be over by then."""


async def close(records: Objects, upload: UploadName, written: Attributes, *, deadline: float) -> None:
    """Have the record of an upload say that it was completed, whose object stands, `written`, and is about to be replaced.

    Raises Unavailable, OutcomeUnknown.
    """
    for tries_left in reversed(range(TRIES_MAX)):
        try:
            record, _ = await records.read(upload.record, deadline=deadline)
            if record.attributes[STATE] == COMPLETING:
                await _change(records, upload.record, finishing(written), deadline)
            return
        except (ConditionFailed, NotThere):
            return  # it says so by now, or is gone, as some time after its end
        except OutcomeUnknown:  # several may be at this; closing twice is closing
            if not tries_left:
                raise


class Ending:
    """The ends of uploads."""

    def __init__(
        self,
        objects: ManifestObjects,
        graces: Graces,
        now_us: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        """Take the domain beneath, the host's clock and the loop's."""
        self._objects: Final = objects
        self._graces: Final = graces
        self._now_us: Final = now_us
        self._now: Final = now

    async def claim(self, upload: UploadName, claim: str, fingerprint: str, *, deadline: float) -> None:
        """Begin to complete an upload that is open, or is being completed with the same parts.

        Raises NoSuchUpload, UploadClaimed, Unavailable, OutcomeUnknown.
        """
        await self._go(upload, claiming(claim, fingerprint), deadline)

    async def check(self, upload: UploadName, claim: str, *, deadline: float) -> None:
        """Say whether an upload is still being completed under a claim. Raises NoSuchUpload: it is over; Unavailable."""
        try:
            record, _ = await self._objects.read(upload.record, deadline=deadline)
        except NotThere:
            raise NoSuchUpload from None
        if is_over(record.attributes):
            raise NoSuchUpload
        if not has_claim(record.attributes, claim):
            raise Unavailable("the upload was given to others meanwhile; provably without effect")

    async def abort(self, upload: UploadName, *, deadline: float) -> None:
        """Give up an upload that is open. Raises NoSuchUpload, UploadClaimed, Unavailable, OutcomeUnknown."""
        await self._go(upload, aborting, deadline)

    async def release(self, upload: UploadName, claim: str, *, deadline: float) -> None:
        """Give back a claim under which nothing was written; where that fails, it is let lie until it is old."""
        deadline = max(deadline, self._now() + RELEASE_S)
        try:
            await self._change(upload.record, releasing(claim), deadline)
        except (ConditionFailed, NotThere):
            return  # it never got there, or the upload is over
        except StoreError as error:
            log.info("a claim on upload %s stays for a while: %s", upload.id, error)

    async def finish(self, upload: UploadName, written: Attributes, *, deadline: float) -> None:
        """Write down that an upload was completed: its object is `written`. Raises OutcomeUnknown."""
        try:
            await self._change(upload.record, finishing(written), deadline)
        except ConditionFailed as failed:
            if failed.current is None or not is_completed_with(
                failed.current.attributes, written[manifests.FINGERPRINT]
            ):
                raise OutcomeUnknown("the object is written, and its upload ended in another way") from None
        except StoreError as error:
            raise OutcomeUnknown("the object is written, and its upload does not say so yet") from error

    async def decide(self, upload: UploadName, record: ObjectInfo, *, deadline: float) -> None:
        """Have a completion whose completers are all dead, or that is done but for saying so, come to its end, or never have been.

        `record`: as it was read, in the state COMPLETING; where it has changed since, nothing is done. Raises
        UploadClaimed while one of them may be alive and has not written the object, NoSuchContainer, Unavailable, OutcomeUnknown.
        """
        is_old = self._now_us() - claimed_us(record.attributes) >= self._graces.write_s * MICROS
        chosen = await (self._settled if is_old else self._found)(upload.target, deadline)
        is_named = chosen is not None and chosen.attributes.get(manifests.UPLOAD) == upload.id
        if not is_old and not is_named:
            raise UploadClaimed
        step = finishing(chosen.attributes) if chosen is not None and is_named else reopening
        try:
            await self._change(record.name, step, deadline, _is_still(record))
        except (ConditionFailed, NotThere):
            return

    async def _found(self, target: ObjectName, deadline: float) -> ObjectInfo | None:
        """Return what stands at a key; where nothing does, something may yet."""
        try:
            return (await self._objects.read(target, deadline=deadline, inline_bytes=0))[0]
        except NotThere:
            return None

    async def _settled(self, target: ObjectName, deadline: float) -> ObjectInfo | None:
        """Return what is chosen at a key; where nothing stands, nothing that was offered before comes to stand there."""
        try:
            # The condition is judged on what is chosen, which is carried through then; the tombstone of nothing stands
            # above whatever was offered to few.
            await self._objects.delete(target, deadline=deadline, condition=lambda current: current is None)
        except ConditionFailed as failed:
            return failed.current
        return None

    async def _go(self, upload: UploadName, step: Step, deadline: float) -> None:
        """Take a step from open, or say what stands in its way; a claim that is a dead one's does not."""
        for _ in range(TRIES_MAX):
            try:
                await self._change(upload.record, step, deadline)
            except NotThere:
                raise NoSuchUpload from None
            except ConditionFailed as failed:
                found = failed.current
                if found is None or is_over(found.attributes):
                    raise NoSuchUpload from None
                if found.attributes[STATE] == COMPLETING:
                    await self.decide(upload, found, deadline=deadline)
            else:
                return
        raise UploadClaimed

    async def _change(
        self, record: ObjectName, step: Step, deadline: float, condition: Condition | None = None
    ) -> None:
        await _change(self._objects, record, step, deadline, condition)


async def _change(
    records: Objects, record: ObjectName, step: Step, deadline: float, condition: Condition | None = None
) -> None:
    """Take a step. Raises ConditionFailed where it does not lead from what the record says, NotThere."""

    def holds(current: ObjectInfo | None) -> bool:
        is_right = condition is None or condition(current)
        return is_right and current is not None and step(current.attributes) is not None

    def describe(current: ObjectInfo) -> Description:
        after = step(current.attributes)
        assert after is not None, "the condition says so"
        return Description(after)

    await records.describe(record, describe, deadline=deadline, condition=holds)


def _is_still(found: ObjectInfo) -> Condition:
    return lambda current: current is not None and current.write_id == found.write_id
