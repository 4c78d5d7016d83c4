"""Multipart uploads: parts that are sent one by one, and become one object by one write of one register.

Owns what a part is, what becomes the object, and the order of the writes by which it does. An upload is a record beside its
bucket; its parts are objects; the object that it becomes names them (`manifests`). Its states are `upload_states`', and who
of many ends it `ending`'s. Never a rule of S3: sizes, order and sums are its dialect's.

To complete an upload is three writes: the upload is claimed, the object is written, and then the record says so, and only then
is anybody told. It is written once, however many complete it, and whatever is written at its key after that: each of them looks
what stands at the key, then whether the upload is still being completed, and writes over that very thing alone; where there is
something else by then, he looks again. An object is replaced only once the record of its upload says that it is over (`replacing`),
so who finds it still being completed, and the object not there, knows that it never was.

Each part is looked at once more after its last byte, so an upload that is over takes none. Every end of an
upload is marked before it is written (`marks`); `freeing` then removes whatever no object names, and the record. A proxy that
dies in between leaves its claim, and completing the upload again with the same parts is the same write again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from proxy.store import manifests
from proxy.store.containers import ALL, CACHED_S, HAS_MANIFESTS, SOON
from proxy.store.contract import Containers, ManifestObjects
from proxy.store.ending import Ending
from proxy.store.errors import (
    NoSuchContainer,
    NoSuchUpload,
    NotThere,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from proxy.store.manifests import Manifest, ManifestRefused, Origin, Part
from proxy.store.marks import MICROS, Graces, Record, put_hidden
from proxy.store.names import ContainerName, ObjectName
from proxy.store.upload_names import (
    LAST,
    UploadName,
    attempted_us,
    began_us,
    is_upload_id,
    split_part,
    split_record,
    upload_id,
    upload_in,
)
from proxy.store.upload_states import (
    ABORTED,
    COMPLETED,
    COMPLETING,
    STATE,
    begun,
    is_completed_with,
    is_over,
    new_claim,
    note_of,
    result_of,
)
from proxy.store.values import (
    Attributes,
    Condition,
    ContainerInfo,
    Description,
    ListedObject,
    ListedPrefix,
    ObjectInfo,
    Received,
    Upload,
)
from swiftlike.limits import LISTING_ROWS_MAX
from swiftlike.node_calls import Query
from swiftlike.rpc.transport import Body

_BEGUN: Final = "begun:"
"""Before the names of attributes: of what an upload was begun with."""
CHECKSUM: Final = "checksum"
"""The attribute by which a dialect tells a part's checksum, in base64."""
OF_KEY: Final = "sys:part-of-key"
"""Of a part: the key that its upload is for."""
WRITES_MAX: Final = 8
"""Times that an object is written, where others write at its key meanwhile."""
_PAGE: Final = 1_000


class UploadInfo(NamedTuple):
    """An upload that is there."""

    name: UploadName
    record: ObjectInfo

    @property
    def state(self) -> str:
        """OPEN, COMPLETING, COMPLETED or ABORTED."""
        return self.record.attributes[STATE]

    @property
    def attributes(self) -> Attributes:
        """What it was begun with."""
        return _under(_BEGUN, self.record.attributes)

    @property
    def began_us(self) -> int:
        """When it was begun."""
        return began_us(self.name.id)


class StoredPart(NamedTuple):
    """A part that is there."""

    number: int
    part: Part
    modified_us: int


class ListedUpload(NamedTuple):
    """A row of a bucket's uploads."""

    key: bytes
    id: str
    began_us: int
    note: str
    """What it was begun with for listings."""


class UploadPage(NamedTuple):
    """Part of a bucket's uploads, by key, and of one key as they began."""

    items: tuple[ListedUpload | ListedPrefix, ...]
    is_truncated: bool


class Multipart:
    """The uploads of the cluster."""

    def __init__(
        self,
        objects: ManifestObjects,
        containers: Containers,
        graces: Graces,
        now_us: Callable[[], int],
        now: Callable[[], float],
        random: Callable[[int], bytes],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the domain beneath, the host's clock and the loop's, and where ids come from that nobody guesses."""
        self._objects: Final = objects
        self._containers: Final = containers
        self._graces: Final = graces
        self._now_us: Final = now_us
        self._now: Final = now
        self._random: Final = random
        self._sleep: Final = sleep
        self.ending: Final = Ending(objects, graces, now_us, now)

    # --- an upload's life ---------------------------------------------------------------------------------------

    async def create(
        self, bucket: ContainerInfo, key: bytes, attributes: Attributes, note: str, *, deadline: float
    ) -> UploadName:
        """Begin an upload. `note`: what listings of uploads tell of it, a short text. Raises NoSuchContainer."""
        if bucket.attributes.get(HAS_MANIFESTS) != ALL:
            await self._say_so(bucket, deadline)
        name = upload_in(bucket, key, upload_id(self._now_us(), self._random(16)))
        record = Record(begun({_BEGUN + attribute: value for attribute, value in attributes.items()}, note))
        await put_hidden(
            self._objects, self._containers, name.record, record, bucket.policy, deadline=deadline
        )
        if not await self._is_there(bucket, deadline):
            # What stands beside it may have been looked through already.
            due_us = self._now_us() + int(self._graces.write_s * MICROS)
            await self._objects.marks.mark_bucket(name, due_us, deadline=deadline)
            raise NoSuchContainer
        return name

    async def _say_so(self, bucket: ContainerInfo, deadline: float) -> None:
        """See to it that all writes in a bucket look at what they replace. Raises NoSuchContainer, Unavailable, OutcomeUnknown.

        What another proxy saw of the bucket it believes for CACHED_S. So an upload begins only that long after it was said, also one
        that finds it said: it may have been a moment ago. This delays the first upload of a bucket, and those that come within a moment
        of it.
        """
        if HAS_MANIFESTS not in bucket.attributes:
            await self._containers.describe(
                bucket.name, lambda old: {HAS_MANIFESTS: SOON, **old}, deadline=deadline
            )
        await self._sleep(CACHED_S)
        await self._containers.describe(
            bucket.name, lambda old: {**old, HAS_MANIFESTS: ALL}, deadline=deadline
        )

    async def _is_there(self, bucket: ContainerInfo, deadline: float) -> bool:
        try:
            stands = await self._containers.read(bucket.name, deadline=deadline, max_age_s=0)
        except NoSuchContainer:
            return False
        return stands.incarnation == bucket.incarnation

    async def read(self, bucket: ContainerInfo, key: bytes, upload: str, *, deadline: float) -> UploadInfo:
        """Return an upload, open or over. Raises NoSuchUpload."""
        if not is_upload_id(upload):
            raise NoSuchUpload
        name = upload_in(bucket, key, upload)
        try:
            record, _ = await self._objects.read(name.record, deadline=deadline)
        except NotThere:
            raise NoSuchUpload from None
        return UploadInfo(name, record)

    async def read_open(
        self, bucket: ContainerInfo, key: bytes, upload: str, *, deadline: float
    ) -> UploadInfo:
        """Return an upload that is not over: open, or being completed. Raises NoSuchUpload."""
        found = await self.read(bucket, key, upload, deadline=deadline)
        if is_over(found.record.attributes):
            raise NoSuchUpload
        return found

    async def put_part(self, upload: UploadInfo, number: int, body: Upload, *, deadline: float) -> ObjectInfo:
        """Store a part, in the place of what was sent under its number before.

        Raises NoSuchUpload, Unavailable, OutcomeUnknown, and whatever the body raises.
        """
        name, allowed_s = upload.name, deadline - self._now()
        before = await self._newest_attempt(name, number, deadline)

        async def check() -> None:
            deadline = self._now() + allowed_s
            await self._check_open(upload, deadline)
            if before:
                await self._mark(name, deadline)

        # Attempts at one number are told apart by their names, and the last is the part: whatever the clocks of other
        # proxies say, this one comes behind all that were stored before it began.
        began_us = max(self._now_us(), attempted_us(before) + 1 if before else 0)
        part = name.part(number, f"{began_us:016x}{self._random(4).hex()}")
        try:
            return await self._objects.put(part, _PartBody(body, name.key, check), deadline=deadline)
        except NoSuchContainer:
            raise NoSuchUpload from None

    async def _newest_attempt(self, upload: UploadName, number: int, deadline: float) -> bytes:
        """Return the name of what was sent last under a number; empty: nothing was. Raises NoSuchUpload."""
        query = Query(prefix=upload.attempts_prefix(number), limit=1, reverse=True)
        try:
            page = await self._containers.list(upload.hidden, query, deadline=deadline)
        except NoSuchContainer:
            raise NoSuchUpload from None
        return next((row.name for row in page.items if isinstance(row, ListedObject)), b"")

    async def parts(
        self, upload: UploadName, *, deadline: float, after: int = 0, limit: int = LISTING_ROWS_MAX
    ) -> tuple[list[StoredPart], bool]:
        """Return the parts whose numbers are above `after`, and whether there are more than `limit`. Raises NoSuchUpload."""
        found: dict[int, StoredPart] = {}
        query = Query(
            prefix=upload.parts_prefix, marker=upload.parts_after(after) if after else b"", limit=_PAGE
        )
        while True:
            try:
                page = await self._containers.list(upload.hidden, query, deadline=deadline)
            except NoSuchContainer:
                raise NoSuchUpload from None
            for row in page.items:
                if isinstance(row, ListedObject):
                    one = _stored_part(upload.hidden, row)
                    if one.number not in found and len(found) == limit:
                        return list(found.values()), True
                    found[one.number] = one  # attempts at one number come as they began
            if page.more is None:
                return list(found.values()), False
            query = query._replace(marker=page.more)

    async def complete(
        self,
        upload: UploadInfo,
        parts: Sequence[Part],
        fingerprint: str,
        attributes: Attributes,
        *,
        deadline: float,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Make an upload that was open a moment ago the object that it is to be: these of its parts, in this order.

        `fingerprint`: what was asked for. One that is being completed with the same, by whoever is still at it or died at
        it, is completed again, whatever the condition where that was done; `completed` knows what is over, perhaps only since
        this began.

        Raises NoSuchUpload, UploadClaimed, ManifestRefused, NoSuchContainer, ConditionFailed, Unavailable, OutcomeUnknown.
        """
        # What is written later than this might be of an upload that was given up, and name parts that are freed.
        claim = new_claim(self._now_us(), self._random(4))
        deadline = min(deadline, self._now() + self._graces.write_s / 2)

        def holds(current: ObjectInfo | None) -> bool:
            if self._now() > deadline:
                raise OutcomeUnknown("this process stood still for longer than a completion may take")
            return condition is None or condition(current)

        over = await self._objects.last_write(upload.name, deadline=deadline)
        await self._claim(upload.name, claim, fingerprint, deadline)
        origin = Origin(upload.name.id, fingerprint, upload.name.incarnation)
        manifest, described = Manifest(parts), Description(attributes)
        try:
            for _ in range(WRITES_MAX):
                info = await self._objects.put_manifest(
                    upload.name.target,
                    manifest,
                    origin,
                    described,
                    over=over,
                    deadline=deadline,
                    condition=holds,
                )
                if info is not None:
                    break
                over = await self._objects.last_write(upload.name, deadline=deadline)
                await self.ending.check(upload.name, claim, deadline=deadline)
            else:
                raise Unavailable("the key is written again and again; provably without effect")
        except (NotThere, Refused, Unavailable, ManifestRefused):
            await self.ending.release(upload.name, claim, deadline=deadline)
            raise
        await self.ending.finish(upload.name, info.attributes, deadline=deadline)
        return info

    async def _claim(self, upload: UploadName, claim: str, fingerprint: str, deadline: float) -> None:
        """Claim an upload, and have it looked at when the claim is old; both are so when the object is written."""
        claimed, marked = await asyncio.gather(
            self.ending.claim(upload, claim, fingerprint, deadline=deadline),
            self._mark(upload, deadline),
            return_exceptions=True,
        )
        if claimed is None and marked is None:
            return
        if claimed is None or isinstance(claimed, OutcomeUnknown):
            await self.ending.release(upload, claim, deadline=deadline)
        for one in (claimed, marked):
            if one is not None:
                raise one

    async def completed(
        self, bucket: ContainerInfo, key: bytes, upload: str, fingerprint: str, *, deadline: float
    ) -> Attributes | None:
        """Return what an upload was completed as, if it was with this fingerprint."""
        try:
            found = await self.read(bucket, key, upload, deadline=deadline)
        except NoSuchUpload:
            return await self._completed_object(bucket, key, upload, fingerprint, deadline)
        said = found.record.attributes
        return result_of(said) if is_completed_with(said, fingerprint) else None

    async def _completed_object(
        self, bucket: ContainerInfo, key: bytes, upload: str, fingerprint: str, deadline: float
    ) -> Attributes | None:
        """The same, of one whose record is gone: the object remembers for as long as it stands."""
        try:
            info, _ = await self._objects.read(
                ObjectName(*bucket.name, key), deadline=deadline, inline_bytes=0
            )
        except NotThere:
            return None
        return info.attributes if _is_it(info, upload, fingerprint) else None

    async def abort(self, bucket: ContainerInfo, key: bytes, upload: str, *, deadline: float) -> None:
        """End an upload; its parts go before long.

        Raises NoSuchUpload, also for one that was completed, UploadClaimed, Unavailable, OutcomeUnknown.
        """
        found = await self.read(bucket, key, upload, deadline=deadline)
        if found.state == COMPLETED:
            raise NoSuchUpload
        if found.state == COMPLETING:
            await self.ending.decide(found.name, found.record, deadline=deadline)
        await self._mark(found.name, deadline)
        if found.state != ABORTED:
            await self.ending.abort(found.name, deadline=deadline)

    async def _check_open(self, upload: UploadInfo, deadline: float) -> None:
        try:
            record, _ = await self._objects.read(upload.name.record, deadline=deadline)
        except NotThere:
            raise NoSuchUpload from None
        if is_over(record.attributes):
            raise NoSuchUpload

    async def _mark(self, upload: UploadName, deadline: float) -> None:
        due_us = self._now_us() + int(self._graces.write_s * MICROS)
        await self._objects.marks.mark(upload, due_us, deadline=deadline)

    # --- all uploads of a bucket --------------------------------------------------------------------------------

    async def list(
        self,
        bucket: ContainerInfo,
        *,
        deadline: float,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after_key: bytes = b"",
        after_id: str = "",
        limit: int = _PAGE,
    ) -> UploadPage:
        """Return a page of the uploads that are open: behind a key, or behind an upload of it."""
        # A page may have ended with a prefix: then it goes on behind all that is rolled up there.
        skipped = after_key if after_key and _rolled(after_key, prefix, delimiter) == after_key else b""
        behind = LAST if skipped else b"\0" + (after_id.encode() or LAST)
        marker = b"u" + after_key + behind if after_key else b""
        query = Query(prefix=b"u" + prefix, marker=marker, limit=_PAGE)
        hidden = upload_in(bucket, b"", "").hidden
        items: list[ListedUpload | ListedPrefix] = []
        while limit:
            try:
                page = await self._containers.list(hidden, query, deadline=deadline)
            except NoSuchContainer:
                break
            at = page.more
            for row in page.items:
                if not isinstance(row, ListedObject) or (note := note_of(row.content_type)) is None:
                    continue
                key, upload = split_record(row.name)
                rolled = _rolled(key, prefix, delimiter)
                if rolled is not None and rolled == skipped:
                    continue
                if len(items) == limit:
                    return UploadPage(tuple(items), True)
                if rolled is None:
                    items.append(ListedUpload(key, upload, began_us(upload), note))
                    continue
                items.append(ListedPrefix(rolled))
                skipped = rolled
                if at is not None:
                    at = max(at, b"u" + rolled + LAST)
            if at is None:
                break
            query = query._replace(marker=at)
        return UploadPage(tuple(items), False)


class _PartBody:
    """The body of a part, behind whose last byte something is looked at once more."""

    def __init__(self, body: Upload, key: bytes, check: Callable[[], Awaitable[None]]) -> None:
        self._body: Final = body
        self._key: Final = key
        self._check: Final = check

    @property
    def size(self) -> int | None:
        return self._body.size

    async def chunks(self) -> AsyncIterator[Body]:
        source: Any = self._body.chunks()
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                yield chunk
        await self._check()

    def finish(self, received: Received) -> Description:
        """Describe the part: the type of its row is its checksum, and its key says whose it is (see `freeing`)."""
        said = self._body.finish(received).attributes
        return Description({"etag": said["etag"], "type": said.get(CHECKSUM, ""), OF_KEY: self._key.decode()})


def _under(lead: str, attributes: Attributes) -> dict[str, str]:
    return {name.removeprefix(lead): value for name, value in attributes.items() if name.startswith(lead)}


def _is_it(found: ObjectInfo | None, upload: str, fingerprint: str) -> bool:
    """Whether an object is what an upload was completed as."""
    said = {} if found is None else found.attributes
    return (said.get(manifests.UPLOAD), said.get(manifests.FINGERPRINT)) == (upload, fingerprint)


def _rolled(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """Return what a key is rolled up into; None: nothing."""
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


def _stored_part(hidden: ContainerName, row: ListedObject) -> StoredPart:
    name = ObjectName(*hidden, row.name)
    return StoredPart(split_part(row.name), Part(name, row.size, row.etag, row.content_type), row.modified_us)
