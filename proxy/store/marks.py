"""Marks: what is to be looked at before long because parts of an upload may belong to nothing any more.

Owns how a mark is written and read. Each is a hidden object, so that it survives whoever wrote it, and any proxy may do what
it asks for. It is written before whatever may leave parts behind: before an object that names an upload is replaced, before an
upload is completed or aborted. It says where to look and when, never what is free: that is `freeing`'s to find out, then.

A mark that stands is only ever put off, by writing it anew, so whoever is at work on it notices: it deletes what it read.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from proxy.store.errors import ConditionFailed, NoSuchContainer
from proxy.store.names import ContainerName, ObjectName
from proxy.store.upload_names import UploadName, shard_of
from proxy.store.values import (
    Attributes,
    Condition,
    ContainerInfo,
    Describe,
    Description,
    ObjectInfo,
    Received,
    Upload,
)
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import Timestamp

MICROS: Final = 1_000_000


class Graces(NamedTuple):
    """How long what is behind a mark is left alone."""

    write_s: float = 600.0
    """Longer than any request may take from its look at an upload to the end of what it writes then."""
    read_s: float = 86_400.0
    """Longer than any read of an object that was replaced meanwhile: 5 TiB, at 64 MiB a second, take a day."""


class Mark(NamedTuple):
    """What a mark says, and the object that it is."""

    name: UploadName
    """Without an id: all uploads of a bucket that is gone."""
    info: ObjectInfo


class Putting(Protocol):
    """What puts an object."""

    async def put(
        self, name: ObjectName, upload: Upload, *, deadline: float, condition: Condition | None = None
    ) -> ObjectInfo:
        """Store it. Raises NoSuchContainer, ConditionFailed, Unavailable, OutcomeUnknown."""


class Creating(Protocol):
    """What creates a container."""

    async def create(
        self, name: ContainerName, describe: Describe, policy: int | None, *, deadline: float
    ) -> tuple[ContainerInfo, bool]:
        """Create it, or leave it as it is."""


class Record:
    """An object without a body."""

    def __init__(self, attributes: Attributes) -> None:
        """Take what it says."""
        self._attributes: Final = attributes

    @property
    def size(self) -> int | None:
        """Nothing."""
        return 0

    async def chunks(self) -> AsyncIterator[Body]:
        """Yield nothing."""
        for chunk in _NO_BODY:
            yield chunk

    def finish(self, received: Received) -> Description:
        """Describe it."""
        return Description({"etag": received.md5, **self._attributes})


_NO_BODY: Final[tuple[Body, ...]] = ()


async def put_hidden(
    objects: Putting,
    containers: Creating,
    name: ObjectName,
    upload: Upload,
    policy: int | None,
    *,
    deadline: float,
    condition: Condition | None = None,
) -> ObjectInfo:
    """Put a hidden object, which has no body to lose, and its container first where that is not there."""
    try:
        return await objects.put(name, upload, deadline=deadline, condition=condition)
    except NoSuchContainer:
        await containers.create(name.parent, lambda found: found, policy, deadline=deadline)
    return await objects.put(name, upload, deadline=deadline, condition=condition)


class Marks:
    """Writes marks."""

    def __init__(self, objects: Putting, containers: Creating) -> None:
        """Take what they are written with."""
        self._objects: Final = objects
        self._containers: Final = containers

    async def mark(self, upload: UploadName, due_us: int, *, deadline: float) -> None:
        """Have an upload, or a bucket's, looked at no earlier than `due_us`. Raises Unavailable, OutcomeUnknown."""
        attributes = {
            "type": str(due_us),  # which a row repeats, so that marks that are not due are never read
            "sys:account": upload.bucket.account.decode(),
            "sys:bucket": upload.bucket.container.decode(),
            "sys:incarnation": upload.incarnation.hex(),
            "sys:policy": str(upload.policy),
            "sys:key": upload.key.decode(),
            "sys:upload": upload.id,
        }

        def is_later(current: ObjectInfo | None) -> bool:
            return current is None or int(current.content_type) < due_us

        with suppress(ConditionFailed):  # one that is put off for longer already
            await put_hidden(
                self._objects,
                self._containers,
                mark_of(upload),
                Record(attributes),
                None,
                deadline=deadline,
                condition=is_later,
            )

    async def mark_bucket(self, upload: UploadName, due_us: int, *, deadline: float) -> None:
        """Have all uploads of a bucket looked at, when it is gone by then. Raises Unavailable, OutcomeUnknown."""
        await self.mark(upload._replace(key=b"", id=""), due_us, deadline=deadline)


def mark_of(upload: UploadName) -> ObjectName:
    """Return the name of an upload's mark, or of a bucket's."""
    if upload.id:
        return shard_of(b"u" + upload.id.encode())
    return shard_of(b"b" + upload.incarnation.hex().encode())


def read_mark(info: ObjectInfo) -> Mark:
    """Read a mark."""
    said = info.attributes
    name = UploadName(
        ContainerName(said["sys:account"].encode(), said["sys:bucket"].encode()),
        Timestamp(bytes.fromhex(said["sys:incarnation"])),
        int(said["sys:policy"]),
        said["sys:key"].encode(),
        said["sys:upload"],
    )
    return Mark(name, info)
