"""Objects: written, read, described anew, deleted and copied, each a register of its container's incarnation.

Owns the order in which an acknowledged write becomes visible: the register at a majority of the object's owners, then its
row at a majority of the container's, then the answer; what the owners are owed is paid later. Owns also what becomes of a
write whose container went away meanwhile. Never sees a header, never touches a device.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final, TypeVar

from proxy.cluster.decisions import Judge, Outcome, is_present
from proxy.cluster.offers import Content
from proxy.cluster.register import Registers, Written
from proxy.cluster.uploads import TooFewOwners
from proxy.store import manifests
from proxy.store.bodies import STALL_S, StoredBody
from proxy.store.containers import HAS_MANIFESTS, Containers
from proxy.store.debts import Debts
from proxy.store.errors import (
    BodyGone,
    ConditionFailed,
    CopyTooLarge,
    NoSuchContainer,
    NoSuchObject,
    OutcomeUnknown,
    OutOfSpace,
    Unavailable,
)
from proxy.store.manifest_bodies import ManifestBody
from proxy.store.manifests import Manifest, Origin
from proxy.store.marks import Graces, Marks
from proxy.store.names import ContainerName, ObjectName
from proxy.store.object_listing import ListedEnd, ObjectListing, tombstone_of
from proxy.store.outcomes import is_done, known, known_behind_write
from proxy.store.replacing import TRIES_MAX, Replacing
from proxy.store.upload_names import UploadName, upload_in
from proxy.store.uploads import Arriving, Copy
from proxy.store.usage import UsageCarrier
from proxy.store.values import (
    Condition,
    ContainerInfo,
    Description,
    ObjectBody,
    ObjectInfo,
    Received,
    Upload,
    attributes_of,
    micros_of,
)
from swiftlike.entries import Entry, pack_metadata
from swiftlike.limits import BODY_BYTES_MAX, RPC_BODY_BYTES_MAX
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import NO_WRITE, ZERO_BALLOT, Ballot, WriteId

T = TypeVar("T")


class _OtherIncarnation(Exception):
    """The container in hand is not the one of today: begin again with that."""


class Objects:
    """The objects of the cluster."""

    def __init__(
        self,
        registers: Registers,
        containers: Containers,
        listing: ObjectListing,
        debts: Debts,
        usage: UsageCarrier,
        graces: Graces,
    ) -> None:
        """Take what objects stand on, and how long replaced parts are kept."""
        self._registers: Final = registers
        self._containers: Final = containers
        self._listing: Final = listing
        self._debts: Final = debts
        self._usage: Final = usage
        self.marks: Final = Marks(self, containers)
        self.replacing: Final = Replacing(registers, self.marks, self, graces)

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(
        self, name: ObjectName, *, deadline: float, inline_bytes: int = RPC_BODY_BYTES_MAX
    ) -> tuple[ObjectInfo, ObjectBody]:
        """Return an object, and its body along with it where that is no longer than `inline_bytes`.

        Raises NoSuchContainer, NoSuchObject, BodyGone, Unavailable.
        """

        async def read(container: ContainerInfo) -> tuple[ObjectInfo, ObjectBody] | None:
            key = name.key(container.policy, container.incarnation)
            for _ in range(TRIES_MAX):
                found = known(await self._registers.read(key, deadline=deadline, inline_bytes=inline_bytes))
                info = _current(name, container, found.entry, self._registers.clock.now_us())
                if info is None:
                    return None
                if found.body is not None or not 0 < info.entry.size <= inline_bytes:
                    body = StoredBody(self._registers.bodies, self._registers.nodes.now, found, info.entry)
                    if manifests.is_manifest(info.attributes):
                        return info, ManifestBody(body, info.size, self._look)
                    return info, body
            raise BodyGone

        found = await self._in_container(name.parent, read, deadline)
        if found is None:
            raise NoSuchObject
        return found

    async def _look(self, part: ObjectName) -> tuple[ObjectInfo, ObjectBody]:
        """Read a part of another object."""
        return await self.read(part, deadline=self._registers.nodes.now() + STALL_S)

    # --- writing ------------------------------------------------------------------------------------------------

    async def put(
        self, name: ObjectName, upload: Upload, *, deadline: float, condition: Condition | None = None
    ) -> ObjectInfo:
        """Store an object, all of it or nothing. The deadline is for what is left to do once its body is here.

        Raises NoSuchContainer, AccountDeleted, ConditionFailed, Unavailable, OutcomeUnknown, and whatever the upload raises.
        """
        now = self._registers.nodes.now
        allowed_s = deadline - now()
        await self._containers.read_to_write(name.parent, deadline=deadline)  # before a body is taken in vain
        async with aclosing(Arriving(upload)) as arriving:
            body = await arriving.small()
            if body is None:
                return await self._put_streamed(name, upload, arriving, condition, allowed_s)
        description = _without_manifest(upload.finish(arriving.received()))
        return await self._put_whole(name, body, description, now() + allowed_s, condition)

    async def last_write(self, upload: UploadName, *, deadline: float) -> WriteId:
        """Return what was written last at an upload's key, be it a deletion; NO_WRITE: nothing, as far as anybody knows.

        Raises Unavailable.
        """
        key = upload.target.key(upload.policy, upload.incarnation)
        entry = known(await self._registers.read(key, deadline=deadline, inline_bytes=0)).entry
        is_of_it = entry is not None and entry.ballot.incarnation == upload.incarnation
        return entry.write_id if entry is not None and is_of_it else NO_WRITE

    async def put_manifest(
        self,
        name: ObjectName,
        manifest: Manifest,
        origin: Origin,
        description: Description,
        *,
        over: WriteId,
        deadline: float,
        condition: Condition | None = None,
    ) -> ObjectInfo | None:
        """Store an object that is the sum of others, which are there, over this very write (see `last_write`).

        Where it stands already, it is left as it is, whatever the condition. None: something else stands there, and nothing
        was written. Raises ManifestRefused, NoSuchContainer, also when it was made anew meanwhile, ConditionFailed,
        Unavailable, OutcomeUnknown.
        """
        await self._containers.read_to_write(name.parent, deadline=deadline)
        attributes = {**description.attributes, **manifests.attributes_for(manifest, origin)}
        described = Description(attributes, description.delete_at_us)
        body = manifests.pack(manifest)
        is_other = False

        async def put(container: ContainerInfo) -> ObjectInfo | None:
            nonlocal is_other
            is_other = False
            if container.incarnation != origin.incarnation:
                return None
            entry = self._entry(self._registers.new_write_id(), container, len(body), described)

            def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
                nonlocal is_other
                current = _current(name, container, newest, ballot.micros)
                is_there = manifests.is_from(newest, origin)
                is_other = not is_there and (NO_WRITE if newest is None else newest.write_id) != over
                if is_there or is_other:
                    return None
                return None if condition is not None and not condition(current) else entry

            written = await self._write_if(name, container, judge, body, deadline)
            if written.outcome is Outcome.REFUSED and manifests.is_from(written.entry, origin):
                # Whoever wrote it may not have lived to list it.
                assert written.entry is not None, "it names its upload"
                final = await self._list(name, container, written, written.entry.write_id, deadline)
                return ObjectInfo(name, final, attributes)
            if written.outcome is Outcome.REFUSED and is_other:
                return None
            return await self._finish_put(name, container, entry, written, described, deadline)

        info = await self._in_container(name.parent, put, deadline)
        if info is None and not is_other:
            raise NoSuchContainer
        return info

    async def _put_whole(
        self,
        name: ObjectName,
        body: Body,
        description: Description,
        deadline: float,
        condition: Condition | None,
    ) -> ObjectInfo:
        """Store a body that is here."""

        async def put(container: ContainerInfo) -> ObjectInfo | None:
            entry = self._entry(self._registers.new_write_id(), container, len(body), description)
            written = await self._write(name, container, entry, body, condition, deadline)
            return await self._finish_put(name, container, entry, written, description, deadline)

        info = await self._in_container(name.parent, put, deadline)
        if info is None:
            raise NoSuchContainer
        return info

    async def _put_streamed(
        self,
        name: ObjectName,
        upload: Upload,
        arriving: Arriving,
        condition: Condition | None,
        allowed_s: float,
    ) -> ObjectInfo:
        """Store a body that is larger than memory should hold: it goes to all owners as it comes.

        It cannot begin again, so the container is looked at as it stands now; one that goes away meanwhile is gone.
        """
        now = self._registers.nodes.now
        container = await self._containers.read(name.parent, deadline=now() + allowed_s, max_age_s=0)
        key, write_id = name.key(container.policy, container.incarnation), self._registers.new_write_id()
        try:
            async with self._registers.open_upload(key, write_id, upload.size) as streamed:
                async with aclosing(arriving.stream(streamed.piece_bytes)) as pieces:
                    async for piece in pieces:
                        await streamed.send(piece)
                received = arriving.received()
                description = _without_manifest(upload.finish(received))
                deadline = now() + allowed_s
                entry = self._entry(write_id, container, received.size, description)
                today = await self._containers.read(name.parent, deadline=deadline)
                written = await self._write(name, container, entry, streamed, condition, deadline, today)
            return await self._finish_put(name, container, entry, written, description, deadline)
        except TooFewOwners as few:
            raise (OutOfSpace if few.is_full else Unavailable)(str(few)) from few
        except _OtherIncarnation:
            raise NoSuchContainer from None

    async def _write(
        self,
        name: ObjectName,
        container: ContainerInfo,
        entry: Entry,
        body: Content,
        condition: Condition | None,
        deadline: float,
        today: ContainerInfo | None = None,
    ) -> Written:
        """Write over whatever stands there. `today`: the container as it is now, where that in hand is old."""
        key = name.key(container.policy, container.incarnation)
        if condition is None and HAS_MANIFESTS not in (today or container).attributes:
            return await self._registers.write(key, entry, body, deadline=deadline)
        judge = _judging(name, container, condition, lambda current: entry)
        return await self._write_if(name, container, judge, body, deadline)

    async def _write_if(
        self, name: ObjectName, container: ContainerInfo, judge: Judge, body: Content, deadline: float
    ) -> Written:
        key, upload = name.key(container.policy, container.incarnation), upload_in(container, name.name, "")
        return await self.replacing.write_if(key, upload, judge, body, deadline=deadline)

    async def _finish_put(
        self,
        name: ObjectName,
        container: ContainerInfo,
        entry: Entry,
        written: Written,
        description: Description,
        deadline: float,
    ) -> ObjectInfo:
        if not _is_done_in(container, written):
            now_us = self._registers.clock.now_us()
            raise ConditionFailed(_current(name, container, written.entry, now_us))
        final = await self._list(name, container, written, entry.write_id, deadline)
        mine = final if final.write_id == entry.write_id else entry
        return ObjectInfo(name, mine, description.attributes)

    async def describe(
        self,
        name: ObjectName,
        describe: Callable[[ObjectInfo], Description],
        *,
        deadline: float,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Describe an object anew; its body stays.

        Raises NoSuchContainer, NoSuchObject, AccountDeleted, ConditionFailed, Unavailable, OutcomeUnknown.
        """
        await self._containers.read_to_write(name.parent, deadline=deadline)

        async def describe_in(container: ContainerInfo) -> ObjectInfo | None:
            write_id = self._registers.new_write_id()
            described: Entry | None = None

            def make(current: ObjectInfo | None) -> Entry | None:
                nonlocal described
                if current is None:
                    return None
                description = describe(current)
                described = current.entry._replace(
                    write_id=write_id,
                    modified=micros_of(write_id) if description.is_modified else current.entry.modified,
                    metadata=pack_metadata(
                        {
                            **manifests.without(description.attributes),
                            **manifests.only(current.attributes),
                        }
                    ),
                    delete_at=description.delete_at_us,
                )
                return described

            key = name.key(container.policy, container.incarnation)
            judge = _judging(name, container, condition, make)
            written = await self._registers.write_if(key, judge, deadline=deadline)
            if not _is_done_in(container, written):
                current = _current(name, container, written.entry, self._registers.clock.now_us())
                if current is None:
                    return None
                raise ConditionFailed(current)
            final = await self._list(name, container, written, write_id, deadline)
            assert described is not None, "what is done was described"
            mine = final if final.write_id == write_id else described
            return ObjectInfo(name, mine, attributes_of(mine))

        info = await self._in_container(name.parent, describe_in, deadline)
        if info is None:
            raise NoSuchObject
        return info

    async def delete(self, name: ObjectName, *, deadline: float, condition: Condition | None = None) -> bool:
        """Delete an object; say whether it was there.

        Raises NoSuchContainer, ConditionFailed, Unavailable, OutcomeUnknown.
        """

        async def delete(container: ContainerInfo) -> bool | None:
            write_id = self._registers.new_write_id()
            tombstone = tombstone_of(write_id, container.policy)
            written = await self._write(name, container, tombstone, None, condition, deadline)
            if not _is_done_in(container, written):
                now_us = self._registers.clock.now_us()
                raise ConditionFailed(_current(name, container, written.entry, now_us))
            await self._list(name, container, written, write_id, deadline)
            return True if written.replaced_live else None

        return await self._in_container(name.parent, delete, deadline) is not None

    async def copy(
        self,
        source: ObjectName,
        target: ObjectName,
        describe: Callable[[ObjectInfo, Received], Description],
        *,
        deadline: float,
        source_condition: Condition | None = None,
        condition: Condition | None = None,
    ) -> tuple[ObjectInfo, ObjectInfo]:
        """Copy an object, or describe it anew where the target is itself; return the source as it was read, and the target.

        Raises NoSuchContainer, NoSuchObject, ConditionFailed, CopyTooLarge, BodyGone, Unavailable, OutcomeUnknown.
        """
        if source == target:
            return await self._copy_onto_itself(source, describe, deadline, source_condition, condition)
        for _ in range(TRIES_MAX):
            info, body = await self.read(source, deadline=deadline)
            if source_condition is not None and not source_condition(info):
                raise ConditionFailed(info)
            if info.size > BODY_BYTES_MAX:
                raise CopyTooLarge
            upload = Copy(info, body, describe)
            # The source may be replaced while it is read: then nothing is stored, and it is read again.
            with suppress(BodyGone):
                return info, await self.put(target, upload, deadline=deadline, condition=condition)
        raise BodyGone

    async def _copy_onto_itself(
        self,
        name: ObjectName,
        describe: Callable[[ObjectInfo, Received], Description],
        deadline: float,
        source_condition: Condition | None,
        condition: Condition | None,
    ) -> tuple[ObjectInfo, ObjectInfo]:
        source: ObjectInfo | None = None

        def describe_same(current: ObjectInfo) -> Description:
            nonlocal source
            source = current
            return describe(current, Received(current.size, current.etag))

        def holds(current: ObjectInfo | None) -> bool:
            return all(each is None or each(current) for each in (source_condition, condition))

        written = await self.describe(name, describe_same, deadline=deadline, condition=holds)
        assert source is not None, "what is done was described"
        return source, written

    # --- behind a write -----------------------------------------------------------------------------------------

    async def _list(
        self, name: ObjectName, container: ContainerInfo, written: Written, write_id: WriteId, deadline: float
    ) -> Entry:
        """Bring the row of what was written to its listing, and pay for it later; return what was written.

        Where the container is gone meanwhile, what was written goes too, and _OtherIncarnation is raised.
        """
        key, entry = name.key(container.policy, container.incarnation), written.entry
        if entry is None:  # it is forgotten already what was chosen; what stands now has been judged on it
            read = await self._registers.read(key, deadline=deadline, inline_bytes=0)
            entry = known_behind_write(read).entry
            assert entry is not None, "what was written leaves a tombstone at least"
        match await self._listing.list(key, name.parent, entry, write_id, deadline=deadline):
            case ListedEnd.LISTED:
                self._debts.pay_later(key, entry.version)
                self._usage.mark(container)
                return entry
            case ListedEnd.GONE:
                raise _OtherIncarnation
            case ListedEnd.UNKNOWN:
                raise OutcomeUnknown("the object is written, and its container may not list it yet")

    async def _in_container(
        self, name: ContainerName, operation: Callable[[ContainerInfo], Awaitable[T | None]], deadline: float
    ) -> T | None:
        """Do something in a container as it was a moment ago, and again if that proves to be of the past.

        None means that something is missing, which only a container as it stands now may say; like a condition that
        does not hold.
        """
        container, is_fresh = await self._containers.look(name, deadline=deadline)
        for _ in range(TRIES_MAX):
            refused: ConditionFailed | None = None
            is_of_the_past = False
            try:
                found = await operation(container)
                if found is not None or is_fresh:
                    return found
            except ConditionFailed as failed:
                if is_fresh:
                    raise
                refused = failed
            except _OtherIncarnation:
                is_of_the_past = True
            again = await self._containers.read(name, deadline=deadline, max_age_s=0)
            is_same, container, is_fresh = again.incarnation == container.incarnation, again, True
            if is_same and not is_of_the_past:
                if refused is not None:
                    raise refused
                return None
        raise OutcomeUnknown("the container is made anew again and again")

    def _entry(
        self, write_id: WriteId, container: ContainerInfo, size: int, description: Description
    ) -> Entry:
        return Entry(
            ZERO_BALLOT,
            write_id,
            self._registers.clock.now_us(),  # a large body came long after its write began
            body_id=write_id,
            size=size,
            metadata=pack_metadata(dict(description.attributes)),
            policy=container.policy,
            delete_at=description.delete_at_us,
        )


def _without_manifest(description: Description) -> Description:
    """Return a description of an object that has a body of its own: perhaps it was described by another's attributes."""
    if not manifests.is_manifest(description.attributes):
        return description
    return Description(manifests.without(description.attributes), description.delete_at_us)


def _current(
    name: ObjectName, container: ContainerInfo, entry: Entry | None, now_us: int
) -> ObjectInfo | None:
    """Return what stands there for clients of this incarnation. Raises _OtherIncarnation when it is of a newer one."""
    if entry is None:
        return None
    found, wanted = entry.ballot.incarnation, container.entry.incarnation
    if found < wanted:
        return None
    if found > wanted:
        raise _OtherIncarnation
    return ObjectInfo(name, entry, attributes_of(entry)) if is_present(entry, now_us) else None


def _is_done_in(container: ContainerInfo, written: Written) -> bool:
    """Say whether a write was done; see `is_done`. Raises _OtherIncarnation when a newer one stands in its way."""
    if written.outcome is not Outcome.DONE and written.above.incarnation > container.incarnation:
        raise _OtherIncarnation
    return is_done(written)


def _judging(
    name: ObjectName,
    container: ContainerInfo,
    condition: Condition | None,
    make: Callable[[ObjectInfo | None], Entry | None],
) -> Judge:
    def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
        current = _current(name, container, newest, ballot.micros)
        return None if condition is not None and not condition(current) else make(current)

    return judge
