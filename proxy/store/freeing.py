"""Freeing: parts of uploads that belong to nothing any more give their space back.

Owns what is free, and the job that looks after marks that are due (`marks`). Any proxy may do it, at any time, several at
once: everything is looked up anew, and deleting twice is deleting. It goes slowly, a few deletes at a time.

What a mark asks:

1.  What is chosen at the key? It is settled first, and where nothing stands a tombstone is written, so that no write that
    came to nothing there can come back later, from a device that was away.
2.  Is the mark still the same? Whoever replaces an object marks it before, so what 1 found is what has stood there since the
    mark became due.
3.  Parts that the chosen object names stay.
4.  An upload that is over: the others go, and its record. It has been over for longer than any request takes that still held
    it for open, and so any object that could name its parts stands by now.
    One that is being completed is decided before anything else, and left for later while somebody may be at that (`ending`).
5.  An upload that is open: the attempts that another of the same number has replaced go, once that one is as old.
6.  The mark goes, unless it was written anew meanwhile.

A bucket that is gone takes everything beside it along, when its own mark is due. A part that comes to be listed long after its
writer died has its upload marked anew by whoever lists it (`LateParts`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random
from typing import Final, NamedTuple

from proxy.cluster.register import Registers
from proxy.store import manifests, upload_states
from proxy.store.containers import HAS_MANIFESTS
from proxy.store.containers import Containers as PlainContainers
from proxy.store.contract import Containers
from proxy.store.ending import Ending
from proxy.store.errors import (
    ConditionFailed,
    ContainerNotEmpty,
    NoSuchContainer,
    NotThere,
    StoreError,
    Unavailable,
)
from proxy.store.manifest_bodies import ManifestBody
from proxy.store.manifests import ManifestRefused
from proxy.store.marks import MICROS, Graces, Mark, Marks, read_mark
from proxy.store.multipart import OF_KEY
from proxy.store.names import ContainerName, ObjectName
from proxy.store.object_listing import tombstone_of
from proxy.store.objects import Objects
from proxy.store.outcomes import is_done
from proxy.store.upload_names import (
    FREEING,
    SHARDS,
    UploadName,
    shard_name,
    split_part,
    upload_in,
    upload_of_part,
)
from proxy.store.upload_states import COMPLETING, STATE
from proxy.store.values import Condition, ListedObject, ObjectInfo, attributes_of
from swiftlike.entries import Entry, EntryDamaged
from swiftlike.limits import MARKS_PER_PASS_MAX, PARTS_FREED_AT_ONCE
from swiftlike.node_calls import Query
from swiftlike.timestamps import Ballot

log: Final = logging.getLogger("proxy.freeing")

PAUSE_S: Final = 30.0
"""Between two looks at one of the shards, which are taken in turns: all of them in eight minutes, by one proxy alone."""
PATIENCE_S: Final = 30.0
"""Of one thing that is asked of the cluster."""
_PAGE: Final = 1_000


class Freeing:
    """Frees what marks are due for."""

    def __init__(
        self,
        registers: Registers,
        containers: Containers,
        objects: Objects,
        ending: Ending,
        graces: Graces,
        random: Random,
    ) -> None:
        """Take what it stands on, and what spreads the proxies over the shards."""
        self._registers: Final = registers
        self._containers: Final = containers
        self._objects: Final = objects
        self._ending: Final = ending
        self._graces: Final = graces
        self._random: Final = random
        self._turns = asyncio.Semaphore(PARTS_FREED_AT_ONCE)
        self.freed = 0
        """Objects deleted."""

    async def run(self) -> None:
        """Free until cancelled."""
        shard = self._random.randrange(SHARDS)
        while True:
            await asyncio.sleep(PAUSE_S * (0.5 + self._random.random()))
            shard = (shard + 1) % SHARDS
            await self.free_shard(shard)

    async def free_all(self) -> None:
        """Do all that is due now."""
        for shard in range(SHARDS):
            await self.free_shard(shard)

    async def free_shard(self, shard: int) -> None:
        """Do what is due in one shard; what cannot be done now is left for later."""
        container = ContainerName(FREEING, shard_name(shard))
        try:
            names = await self._due(container)
        except StoreError as error:
            log.info("the marks of shard %d cannot be read now: %s", shard, error)
            return
        for name in names:
            try:
                info, _ = await self._objects.read(ObjectName(*container, name), deadline=self._soon())
                await self._free(read_mark(info))
            except NotThere:
                continue  # another proxy was here
            except StoreError as error:
                log.info("a mark is left for later: %s", error)
            except (EntryDamaged, ManifestRefused) as error:
                log.error("a mark is left, since what it is about cannot be read: %s", error)

    async def _due(self, container: ContainerName) -> list[bytes]:
        found: list[bytes] = []
        query, now_us = Query(limit=_PAGE), self._registers.clock.now_us()
        while len(found) < MARKS_PER_PASS_MAX:
            try:
                page = await self._containers.list(container, query, deadline=self._soon())
            except NoSuchContainer:
                break  # nothing was ever marked here
            found += [
                row.name
                for row in page.items
                if isinstance(row, ListedObject) and int(row.content_type) <= now_us
            ]
            if page.more is None:
                break
            query = query._replace(marker=page.more)
        return found[:MARKS_PER_PASS_MAX]

    # --- one mark -----------------------------------------------------------------------------------------------

    async def _free(self, mark: Mark) -> None:
        """Do what a mark asks for. Raises StoreError when that cannot be done now."""
        name = mark.name
        try:
            bucket = await self._containers.read(name.bucket, deadline=self._soon(), max_age_s=0)
            is_there = bucket.incarnation == name.incarnation
        except NoSuchContainer:
            is_there = False
        if name.id and not is_there:
            await self._objects.marks.mark_bucket(
                name, self._due_us(self._graces.read_s), deadline=self._soon()
            )
        elif name.id and not await self._free_upload(mark):
            return
        elif not is_there:
            await self._free_hidden(name.hidden)
        await self._delete(mark.info.name, _is_still(mark.info))

    async def _free_upload(self, mark: Mark) -> bool:
        """Free what an upload has left behind; False when it is too early for some of it.

        What the key holds is looked at last: whoever could still name what seems free here has done so by then.
        """
        upload = mark.name
        record = await self._record(upload)
        if record is not None and record.attributes[STATE] == COMPLETING:
            await self._ending.decide(upload, record, deadline=self._soon())
            record = await self._record(upload)
        is_over = record is None or upload_states.is_over(record.attributes)
        if record is not None and is_over and not self._is_settled(record.modified_us):
            return False
        rows = await self._parts(upload)
        replaced = [(one, by) for one, by in pairwise(rows) if _number(one) == _number(by)]
        is_early = not is_over and not all(self._is_settled(by.modified_us) for _, by in replaced)
        doomed = rows if is_over else [one for one, by in replaced if self._is_settled(by.modified_us)]

        chosen = await self._chosen(upload)
        if not await self._stands(mark):
            return False
        is_named = manifests.upload_of(chosen) == upload.id
        kept = await self._named(upload) if is_named else frozenset()
        await self._delete_all(row.name for row in doomed if row.name not in kept)
        if record is not None and is_over:
            await self._delete(record.name, _is_still(record))
        # One that was claimed just now by somebody is marked by him, too.
        return not is_early

    async def _stands(self, mark: Mark) -> bool:
        """Whether a mark is still the one that was read."""
        try:
            info, _ = await self._objects.read(mark.info.name, deadline=self._soon())
        except NotThere:
            return False
        return info.write_id == mark.info.write_id

    async def _chosen(self, upload: UploadName) -> Entry | None:
        """Return what is chosen at the key, above whatever was offered to few; nothing may stand there, but not be missing."""
        key = upload.target.key(upload.policy, upload.incarnation)
        tombstone = tombstone_of(self._registers.new_write_id(), upload.policy)

        def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
            return tombstone if newest is None else None

        # Nobody ever listed what is not there, so the tombstone owes no row.
        written = await self._registers.write_if(key._replace(owes=False), judge, deadline=self._soon())
        return None if is_done(written) else written.entry

    async def _named(self, upload: UploadName) -> frozenset[ObjectName]:
        """Return the parts that the object names. Raises StoreError."""
        info, body = await self._objects.read(upload.target, deadline=self._soon())
        if not isinstance(body, ManifestBody) or info.attributes.get(manifests.UPLOAD) != upload.id:
            raise Unavailable("the object was replaced just now")
        return frozenset(part.name for part in (await body.manifest()).parts)

    async def _parts(self, upload: UploadName) -> list["_Row"]:
        """Return all attempts at all parts, in order."""
        found: list[_Row] = []
        query = Query(prefix=upload.parts_prefix, limit=_PAGE)
        while True:
            try:
                page = await self._containers.list(upload.hidden, query, deadline=self._soon())
            except NoSuchContainer:
                return found
            found += [
                _Row(ObjectName(*upload.hidden, row.name), row.modified_us)
                for row in page.items
                if isinstance(row, ListedObject)
            ]
            if page.more is None:
                return found
            query = query._replace(marker=page.more)

    async def _record(self, upload: UploadName) -> ObjectInfo | None:
        try:
            info, _ = await self._objects.read(upload.record, deadline=self._soon())
        except NotThere:
            return None
        return info

    # --- buckets that are gone ----------------------------------------------------------------------------------

    async def _free_hidden(self, hidden: ContainerName) -> None:
        """Free all that stands beside a bucket that is gone."""
        query = Query(limit=_PAGE)
        while True:
            try:
                page = await self._containers.list(hidden, query, deadline=self._soon())
                if not page.items:
                    await self._containers.delete(hidden, deadline=self._soon())
                    return
            except NoSuchContainer:
                return
            except ContainerNotEmpty:
                raise Unavailable("something came beside a bucket that is gone just now") from None
            await self._delete_all(
                ObjectName(*hidden, row.name) for row in page.items if isinstance(row, ListedObject)
            )

    # --- deleting -----------------------------------------------------------------------------------------------

    async def _delete_all(self, names: Iterable[ObjectName]) -> None:
        """Delete objects, a few at a time. Raises the first StoreError there was, after all were tried."""
        results = await asyncio.gather(*(self._delete(name) for name in names), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _delete(self, name: ObjectName, condition: Condition | None = None) -> None:
        async with self._turns:
            try:
                await self._objects.delete(name, deadline=self._soon(), condition=condition)
            except (ConditionFailed, NoSuchContainer):
                return
            self.freed += 1

    def _is_settled(self, since_us: int) -> bool:
        """Whether every request has ended by now that was at work then."""
        return self._registers.clock.now_us() - since_us >= self._graces.write_s * MICROS

    def _due_us(self, grace_s: float) -> int:
        return self._registers.clock.now_us() + int(grace_s * MICROS)

    def _soon(self) -> float:
        return self._registers.nodes.now() + PATIENCE_S


class MarkedContainers:
    """Containers, what stands beside which is marked before they are deleted."""

    def __init__(
        self, beneath: PlainContainers, objects: Objects, graces: Graces, registers: Registers
    ) -> None:
        """Take the containers beneath, and what marks are written with."""
        self._beneath: Final = beneath
        self._objects: Final = objects
        self._graces: Final = graces
        self._registers: Final = registers
        self.read: Final = beneath.read
        self.usage: Final = beneath.usage
        self.create: Final = beneath.create
        self.describe: Final = beneath.describe
        self.list: Final = beneath.list

    async def delete(self, name: ContainerName, *, deadline: float) -> None:
        """Delete it, with the uploads that are open in it. Raises NoSuchContainer, ContainerNotEmpty."""
        info = await self._beneath.read(name, deadline=deadline, max_age_s=0)
        if HAS_MANIFESTS not in info.attributes:
            try:
                await self._beneath.delete(name, deadline=deadline, without=HAS_MANIFESTS)
                return
            except ContainerNotEmpty:
                info = await self._beneath.read(name, deadline=deadline, max_age_s=0)
                if HAS_MANIFESTS not in info.attributes:
                    raise
        due_us = self._registers.clock.now_us() + int(self._graces.read_s * MICROS)
        await self._objects.marks.mark_bucket(upload_in(info, b"", ""), due_us, deadline=deadline)
        await self._beneath.delete(name, deadline=deadline)


class LateParts:
    """What a payer asks of parts that come to be listed when their writer is gone."""

    def __init__(self, marks: Marks, graces: Graces, now_us: Callable[[], int]) -> None:
        """Take what marks are written with, and the host's clock."""
        self._marks: Final = marks
        self._graces: Final = graces
        self._now_us: Final = now_us

    async def mark(self, name: ObjectName, entry: Entry, *, deadline: float) -> None:
        """Have the upload of a part looked at, which may be over by now. Raises Unavailable, OutcomeUnknown."""
        if entry.tombstone or not name.account.startswith(b"\0"):
            return
        key = attributes_of(entry).get(OF_KEY)
        upload = None if key is None else upload_of_part(name, entry.policy, key.encode())
        if upload is not None:
            due_us = self._now_us() + int(self._graces.write_s * MICROS)
            await self._marks.mark(upload, due_us, deadline=deadline)


class _Row(NamedTuple):
    """An attempt at a part."""

    name: ObjectName
    modified_us: int


def _number(row: _Row) -> int:
    return split_part(row.name.name)


def _is_still(found: ObjectInfo) -> Condition:
    return lambda current: current is not None and current.write_id == found.write_id
