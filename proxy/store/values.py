"""What the domain takes and gives, free of any dialect.

Owns how an entry's metadata is read: a flat map of texts, its *attributes*. Both dialects use the same names, so that
what one puts, the other gets:

    meta:<name>          user metadata, the name in lower case, without X-Object-Meta- or x-amz-meta-
    type                 Content-Type
    etag                 what clients are promised: MD5 of the body in hex, without quotes
    header:<name>        another header to be given back, such as content-encoding, content-disposition, cache-control,
                         content-language, expires; the name in lower case
    sys:<name>           what clients never see as metadata, such as sys:read-acl, sys:write-acl of a container
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from proxy.store.names import ContainerName, ObjectName
from swiftlike.entries import Entry, unpack_metadata
from swiftlike.listed import TOTAL_SIZE
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import Timestamp, WriteId

Attributes: TypeAlias = Mapping[str, str]
"""What an account, a container or an object is described by."""

Describe: TypeAlias = Callable[[Attributes], Attributes]
"""Given what stands there, what shall stand there. Pure: it is asked again on every attempt. May raise its dialect's own
refusal, such as too much metadata; then nothing is written."""


def micros_of(write_id: WriteId) -> int:
    """Return the time of a write, which clients are shown."""
    return int.from_bytes(write_id[:8], "big")


def attributes_of(entry: Entry) -> dict[str, str]:
    """Read the attributes of an entry. Raises EntryDamaged when they are none."""
    return {name: str(value) for name, value in unpack_metadata(entry.metadata).items()}


class ObjectInfo(NamedTuple):
    """An object that is there."""

    name: ObjectName
    entry: Entry
    attributes: Attributes

    @property
    def size(self) -> int:
        """Bytes of the body: of all its parts, where what is stored is a list of them."""
        return int(self.attributes.get(TOTAL_SIZE, self.entry.size))

    @property
    def etag(self) -> str:
        """What clients compare, without quotes."""
        return self.attributes.get("etag", "")

    @property
    def content_type(self) -> str:
        """What the body is."""
        return self.attributes.get("type", "application/octet-stream")

    @property
    def modified_us(self) -> int:
        """When it was written, for clients; a new description counts."""
        return self.entry.modified

    @property
    def delete_at_us(self) -> int:
        """When it counts as absent; zero: never."""
        return self.entry.delete_at

    @property
    def write_id(self) -> WriteId:
        """Which write it is: equal exactly when nothing was written in between."""
        return self.entry.write_id


Condition: TypeAlias = Callable[[ObjectInfo | None], bool]
"""Whether a write may go ahead over what stands there. Pure: it is asked again on every attempt."""


class ContainerInfo(NamedTuple):
    """A container that is there."""

    name: ContainerName
    entry: Entry
    attributes: Attributes

    @property
    def incarnation(self) -> Timestamp:
        """Which of the containers of this name it is."""
        return self.entry.incarnation

    @property
    def policy(self) -> int:
        """The storage policy of its objects, for ever."""
        return self.entry.policy

    @property
    def created_us(self) -> int:
        """When it was created."""
        return self.entry.incarnation.micros

    @property
    def modified_us(self) -> int:
        """When it was described last."""
        return self.entry.modified


class AccountInfo(NamedTuple):
    """An account. One that nobody wrote yet is there, without attributes."""

    account: bytes
    entry: Entry | None
    attributes: Attributes


class Usage(NamedTuple):
    """What a container holds, or an account in all its containers."""

    containers: int
    """Of an account; zero for a container."""
    objects: int
    bytes: int
    policies: Mapping[int, "PolicyUsage"]


class PolicyUsage(NamedTuple):
    """The share of one storage policy."""

    containers: int
    objects: int
    bytes: int


# --- bodies on their way ----------------------------------------------------------------------------------------


class Received(NamedTuple):
    """What came of a body."""

    size: int
    md5: str
    """In hex."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a new object is described by; `etag` is among the attributes."""

    attributes: Attributes
    delete_at_us: int = 0
    is_modified: bool = True
    """Of an object that is described anew: whether it counts as modified now. Who may see it, and its tags, are not it."""


class Upload(Protocol):
    """A body that a client sends, and what it says of it."""

    @property
    def size(self) -> int | None:
        """Bytes that were declared; None: they end when they end."""

    def chunks(self) -> AsyncIterator[Body]:
        """Yield the body; asked once. Raises its dialect's own error when the client goes away, sends less than it declared,
        or more than it may.
        """

    def finish(self, received: Received) -> Description:
        """Check the whole against what the client promised, and describe it. Raises its dialect's own error to refuse;
        nothing is stored then.
        """


class ObjectBody(Protocol):
    """The body of an object that was read; stays readable, whatever happens to the object meanwhile, for a while."""

    @property
    def whole(self) -> Body | None:
        """All of it, where it is small and came along."""

    def stream(self, start: int, stop: int) -> AsyncIterator[Body]:
        """Yield the bytes `[start, stop)`. Close it (`aclosing`) when leaving early."""


# --- listings ---------------------------------------------------------------------------------------------------


class ListedObject(NamedTuple):
    """A row of a container's listing."""

    name: bytes
    size: int
    etag: str
    content_type: str
    modified_us: int


class ListedContainer(NamedTuple):
    """A row of an account's listing."""

    name: bytes
    objects: int
    bytes: int
    policy: int
    modified_us: int


class ListedPrefix(NamedTuple):
    """Names rolled up into one that they begin with."""

    prefix: bytes


class ObjectPage(NamedTuple):
    """Part of a container's listing, in the order asked for."""

    items: Sequence[ListedObject | ListedPrefix]
    more: bytes | None
    """The marker of the next page; None when this is the last."""
    usage: Usage | None = None
    """What the whole container holds, where finding the page told it."""


class ContainerPage(NamedTuple):
    """Part of an account's listing, in the order asked for."""

    items: tuple[ListedContainer | ListedPrefix, ...]
    more: bytes | None
