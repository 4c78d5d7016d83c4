"""What the dialects ask of the domain, as protocols: `store.Store` fulfils them, and so does the fake of their tests.

Owns signatures and what each raises; the rules behind them are the domain's. Deadlines are moments on the loop's clock.
Everything here may raise Unavailable, and what writes may raise OutcomeUnknown besides.
"""

from collections.abc import Callable
from typing import Protocol

from proxy.store.manifests import Manifest, Origin
from proxy.store.marks import Marks
from proxy.store.names import ContainerName, ObjectName
from proxy.store.upload_names import UploadName
from proxy.store.values import (
    AccountInfo,
    Condition,
    ContainerInfo,
    ContainerPage,
    Describe,
    Description,
    ObjectBody,
    ObjectInfo,
    ObjectPage,
    Received,
    Upload,
    Usage,
)
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.node_calls import Query
from swiftlike.timestamps import WriteId


class Accounts(Protocol):
    """Accounts and the listings of their containers."""

    async def read(self, account: bytes, *, deadline: float) -> AccountInfo:
        """Return an account; one that nobody wrote has no entry. Raises AccountDeleted."""

    async def usage(self, account: bytes, *, deadline: float) -> Usage:
        """Return what all of its containers hold."""

    async def write(self, account: bytes, describe: Describe, *, deadline: float) -> bool:
        """Describe it anew; say whether that created it. Raises AccountDeleted."""

    async def delete(self, account: bytes, *, deadline: float) -> None:
        """Mark it deleted. Raises NoSuchAccount."""

    async def list(self, account: bytes, query: Query, *, deadline: float) -> ContainerPage:
        """Return a page of its containers."""


class Containers(Protocol):
    """Containers and the listings of their objects. Everything but `create` raises NoSuchContainer."""

    async def read(self, name: ContainerName, *, deadline: float, max_age_s: float = 1.0) -> ContainerInfo:
        """Return a container as it was at most `max_age_s` ago."""

    async def usage(self, name: ContainerName, *, deadline: float) -> Usage:
        """Return what it holds."""

    async def create(
        self, name: ContainerName, describe: Describe, policy: int | None, *, deadline: float
    ) -> tuple[ContainerInfo, bool]:
        """Create it, or describe it anew where it is there; say which. Raises PolicyDiffers, AccountDeleted."""

    async def describe(self, name: ContainerName, describe: Describe, *, deadline: float) -> ContainerInfo:
        """Describe it anew."""

    async def delete(self, name: ContainerName, *, deadline: float) -> None:
        """Delete it. Raises ContainerNotEmpty."""

    async def list(self, name: ContainerName, query: Query, *, deadline: float) -> ObjectPage:
        """Return a page of its objects."""


class Objects(Protocol):
    """Objects. Everything raises NoSuchContainer, and what takes a condition ConditionFailed."""

    async def put(
        self, name: ObjectName, upload: Upload, *, deadline: float, condition: Condition | None = None
    ) -> ObjectInfo:
        """Store a body under a description."""

    async def read(
        self, name: ObjectName, *, deadline: float, inline_bytes: int = RPC_BODY_BYTES_MAX
    ) -> tuple[ObjectInfo, ObjectBody]:
        """Return an object and its body, which comes along when it has at most `inline_bytes`. Raises NoSuchObject."""

    async def describe(
        self,
        name: ObjectName,
        describe: Callable[[ObjectInfo], Description],
        *,
        deadline: float,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Describe it anew, its body kept. Raises NoSuchObject."""

    async def delete(self, name: ObjectName, *, deadline: float, condition: Condition | None = None) -> bool:
        """Delete it; say whether it was there."""

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
        """Store one object's body under another name; return the source as it was read, and the copy. Raises NoSuchObject."""


class ManifestObjects(Objects, Protocol):
    """Objects, some of which are the sum of others."""

    @property
    def marks(self) -> Marks:
        """What writes marks."""

    async def last_write(self, upload: UploadName, *, deadline: float) -> WriteId:
        """Return what was written last at an upload's key, be it a deletion; NO_WRITE: nothing, as far as anybody knows."""

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
        """Store one that is the sum of others, if it stands there already or what was written last is `over`; None: neither,
        and nothing was written. Raises ManifestRefused.
        """


class Store(Protocol):
    """All of it."""

    @property
    def accounts(self) -> Accounts:
        """Accounts."""

    @property
    def containers(self) -> Containers:
        """Containers."""

    @property
    def objects(self) -> Objects:
        """Objects."""
