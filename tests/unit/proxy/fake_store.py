"""The domain in memory, for the tests of the dialects: one dictionary, no quorums.

Owns as much of the domain's rules as a dialect can see. `proxy/store/contract.py` is what it fulfils.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from proxy.store import manifests
from proxy.store.errors import (
    AccountDeleted,
    BodyGone,
    ConditionFailed,
    ContainerNotEmpty,
    NoSuchAccount,
    NoSuchContainer,
    NoSuchObject,
    PolicyDiffers,
)
from proxy.store.manifest_bodies import ManifestBody
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
    ListedContainer,
    ListedObject,
    ListedPrefix,
    ObjectBody,
    ObjectInfo,
    ObjectPage,
    PolicyUsage,
    Received,
    Upload,
    Usage,
)
from swiftlike.entries import Entry, pack_metadata
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.node_calls import Query
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import NO_WRITE, Ballot, Clock, Timestamp, WriteId

Item = TypeVar("Item")


class FakeBody:
    """A body in memory, which streams in pieces when it is asked for as one."""

    def __init__(
        self, raw: bytes, inline_bytes: int, piece_bytes: int = 64 * 1024, *, is_gone: bool = False
    ) -> None:
        self._raw = raw
        self._inline = len(raw) <= inline_bytes
        self._piece_bytes = piece_bytes
        self._is_gone = is_gone

    @property
    def whole(self) -> Body | None:
        return self._raw if self._inline else None

    async def fetch_all(self) -> Body:
        return self._raw

    async def stream(self, start: int, stop: int) -> AsyncIterator[Body]:
        if self._is_gone:
            raise BodyGone
        for at in range(start, stop, self._piece_bytes):
            yield self._raw[at : min(stop, at + self._piece_bytes)]


class FakeStore:
    """Accounts, containers and objects at once."""

    def __init__(
        self, clock: Clock, inline_bytes: int = RPC_BODY_BYTES_MAX, page_items: int = 10_000
    ) -> None:
        self.accounts = FakeAccounts(self)
        self.containers = FakeContainers(self)
        self.objects = FakeObjects(self)
        self.clock = clock
        self.inline_bytes = inline_bytes
        self.page_items = page_items
        """Items of one page at most, however many are asked for."""
        self.bodies_gone = 0
        """Of the next objects that are looked up, those whose body is gone before it is read."""
        self.account_infos: dict[bytes, AccountInfo] = {}
        self.deleted_accounts: set[bytes] = set()
        self.container_infos: dict[ContainerName, ContainerInfo] = {}
        self.object_infos: dict[ObjectName, ObjectInfo] = {}
        self.bodies: dict[ObjectName, bytes] = {}

    def entry(
        self, attributes: dict[str, str], *, size: int = 0, policy: int = 0, delete_at: int = 0
    ) -> Entry:
        stamp = self.clock.issue()
        return Entry(
            Ballot.of(stamp.micros, stamp.writer),
            WriteId(stamp),
            stamp.micros,
            size=size,
            metadata=pack_metadata(attributes),
            policy=policy,
            delete_at=delete_at,
            incarnation=Timestamp(stamp),
        )

    def container(self, name: ContainerName) -> ContainerInfo:
        if name not in self.container_infos:
            raise NoSuchContainer
        return self.container_infos[name]

    def object(self, name: ObjectName) -> ObjectInfo | None:
        self.container(name.parent)
        found = self.object_infos.get(name)
        if found is not None and 0 < found.delete_at_us <= self.clock.now_us():
            return None
        return found

    def write(self, name: ObjectName, described: Description, raw: bytes) -> ObjectInfo:
        attributes = dict(described.attributes)
        policy = self.container(name.parent).policy
        entry = self.entry(attributes, size=len(raw), policy=policy, delete_at=described.delete_at_us)
        self.bodies[name] = raw
        self.object_infos[name] = ObjectInfo(name, entry, attributes)
        return self.object_infos[name]

    def usage(self, names: list[ContainerName], containers: int) -> Usage:
        inside = [info for name, info in self.object_infos.items() if name.parent in names]
        shares = {
            policy: PolicyUsage(
                sum(self.container_infos[name].policy == policy for name in names),
                sum(info.entry.policy == policy for info in inside),
                sum(info.size for info in inside if info.entry.policy == policy),
            )
            for policy in {self.container_infos[name].policy for name in names}
        }
        return Usage(containers, len(inside), sum(info.size for info in inside), shares)

    def page(
        self, query: Query, rows: dict[bytes, Item]
    ) -> tuple[tuple[Item | ListedPrefix, ...], bytes | None]:
        """List plainly: everything in order, rolled up, then cut."""
        marker, end = (query.end_marker, query.marker) if query.reverse else (query.marker, query.end_marker)
        rolled: dict[bytes, Item | ListedPrefix] = {}
        for name, item in rows.items():
            if not name.startswith(query.prefix):
                continue
            cut = name.find(query.delimiter, len(query.prefix)) if query.delimiter else -1
            if cut >= 0:
                prefix = name[: cut + len(query.delimiter)]
                rolled[prefix] = ListedPrefix(prefix)
            else:
                rolled.setdefault(name, item)
        names = sorted(
            (name for name in rolled if (not marker or name > marker) and (not end or name < end)),
            reverse=query.reverse,
        )
        cut = min(query.limit, self.page_items)
        more = names[cut - 1] if len(names) > cut > 0 else None
        return tuple(rolled[name] for name in names[:cut]), more


class FakeAccounts:
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def read(self, account: bytes, *, deadline: float) -> AccountInfo:
        if account in self._store.deleted_accounts:
            raise AccountDeleted
        return self._store.account_infos.get(account, AccountInfo(account, None, {}))

    async def usage(self, account: bytes, *, deadline: float) -> Usage:
        names = [name for name in self._store.container_infos if name.account == account]
        return self._store.usage(names, len(names))

    async def write(self, account: bytes, describe: Describe, *, deadline: float) -> bool:
        old = await self.read(account, deadline=deadline)
        attributes = dict(describe(old.attributes))
        entry = self._store.entry(attributes)
        if old.entry is not None:
            entry = entry._replace(modified=old.entry.modified)
        self._store.account_infos[account] = AccountInfo(account, entry, attributes)
        return old.entry is None

    async def delete(self, account: bytes, *, deadline: float) -> None:
        if self._store.account_infos.pop(account, None) is None:
            raise NoSuchAccount
        self._store.deleted_accounts.add(account)

    async def list(self, account: bytes, query: Query, *, deadline: float) -> ContainerPage:
        rows = {}
        for name, info in self._store.container_infos.items():
            if name.account == account:
                usage = self._store.usage([name], 0)
                rows[name.container] = ListedContainer(
                    name.container, usage.objects, usage.bytes, info.policy, info.created_us
                )
        return ContainerPage(*self._store.page(query, rows))


class FakeContainers:
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def read(self, name: ContainerName, *, deadline: float, max_age_s: float = 1.0) -> ContainerInfo:
        return self._store.container(name)

    async def usage(self, name: ContainerName, *, deadline: float) -> Usage:
        self._store.container(name)
        return self._store.usage([name], 0)

    async def create(
        self, name: ContainerName, describe: Describe, policy: int | None, *, deadline: float
    ) -> tuple[ContainerInfo, bool]:
        if name.account in self._store.deleted_accounts:
            raise AccountDeleted
        old = self._store.container_infos.get(name)
        if old is not None:
            if policy is not None and policy != old.policy:
                raise PolicyDiffers
            return await self.describe(name, describe, deadline=deadline), False
        attributes = dict(describe({}))
        entry = self._store.entry(attributes, policy=policy or 0)
        self._store.container_infos[name] = ContainerInfo(name, entry, attributes)
        return self._store.container_infos[name], True

    async def describe(self, name: ContainerName, describe: Describe, *, deadline: float) -> ContainerInfo:
        old = self._store.container(name)
        attributes = dict(describe(old.attributes))
        entry = self._store.entry(attributes, policy=old.policy)
        entry = entry._replace(incarnation=old.incarnation)
        self._store.container_infos[name] = ContainerInfo(name, entry, attributes)
        return self._store.container_infos[name]

    async def delete(self, name: ContainerName, *, deadline: float) -> None:
        self._store.container(name)
        inside = [one for one in self._store.object_infos if one.parent == name]
        if any(self._store.object(one) is not None for one in inside):
            raise ContainerNotEmpty
        for one in inside:  # what is due goes with it
            del self._store.object_infos[one], self._store.bodies[one]
        del self._store.container_infos[name]

    async def list(self, name: ContainerName, query: Query, *, deadline: float) -> ObjectPage:
        self._store.container(name)
        rows = {
            one.name: ListedObject(one.name, info.size, info.etag, info.content_type, info.modified_us)
            for one, info in self._store.object_infos.items()
            if one.parent == name and self._store.object(one) is not None
        }
        return ObjectPage(*self._store.page(query, rows))


class FakeObjects:
    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.marks = Marks(self, store.containers)

    def _judge(self, name: ObjectName, condition: Condition | None) -> ObjectInfo | None:
        found = self._store.object(name)
        if condition is not None and not condition(found):
            raise ConditionFailed(found)
        return found

    async def put(
        self, name: ObjectName, upload: Upload, *, deadline: float, condition: Condition | None = None
    ) -> ObjectInfo:
        self._store.container(name.parent)
        raw = b"".join([bytes(chunk) async for chunk in upload.chunks()])
        described = upload.finish(Received(len(raw), hashlib.md5(raw).hexdigest()))
        self._judge(name, condition)
        described = Description(manifests.without(described.attributes), described.delete_at_us)
        return self._store.write(name, described, raw)

    async def last_write(self, upload: UploadName, *, deadline: float) -> WriteId:
        found = self._store.object_infos.get(upload.target)
        return NO_WRITE if found is None else found.write_id

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
        if self._store.container(name.parent).incarnation != origin.incarnation:
            raise NoSuchContainer
        found = self._store.object_infos.get(name)
        if found is not None and manifests.is_from(found.entry, origin):
            return found
        if (NO_WRITE if found is None else found.write_id) != over:
            return None
        self._judge(name, condition)
        attributes = {**description.attributes, **manifests.attributes_for(manifest, origin)}
        return self._store.write(name, Description(attributes), manifests.pack(manifest))

    def _there(self, name: ObjectName, condition: Condition | None) -> ObjectInfo:
        if self._store.object(name) is None:
            raise NoSuchObject
        found = self._judge(name, condition)
        assert found is not None
        return found

    async def read(
        self, name: ObjectName, *, deadline: float, inline_bytes: int = RPC_BODY_BYTES_MAX
    ) -> tuple[ObjectInfo, ObjectBody]:
        found = self._there(name, None)
        raw = self._store.bodies[name]
        if manifests.is_manifest(found.attributes):
            return found, ManifestBody(FakeBody(raw, len(raw)), found.size, self._look)
        is_gone = self._store.bodies_gone > 0
        self._store.bodies_gone -= is_gone
        return found, FakeBody(raw, min(inline_bytes, self._store.inline_bytes), is_gone=is_gone)

    async def _look(self, part: ObjectName) -> tuple[ObjectInfo, ObjectBody]:
        return await self.read(part, deadline=0.0)

    async def describe(
        self,
        name: ObjectName,
        describe: Callable[[ObjectInfo], Description],
        *,
        deadline: float,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        found = self._there(name, condition)
        described = describe(found)
        kept = {**manifests.without(described.attributes), **manifests.only(found.attributes)}
        return self._store.write(name, Description(kept, described.delete_at_us), self._store.bodies[name])

    async def delete(self, name: ObjectName, *, deadline: float, condition: Condition | None = None) -> bool:
        found = self._judge(name, condition)
        self._store.object_infos.pop(name, None)  # one that is due goes, too, and was not there
        self._store.bodies.pop(name, None)
        return found is not None

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
        found = self._there(source, source_condition)
        raw = await self._whole(source)
        described = describe(found, Received(len(raw), hashlib.md5(raw).hexdigest()))
        self._judge(target, condition)
        if source != target:
            described = Description(manifests.without(described.attributes), described.delete_at_us)
            return found, self._store.write(target, described, raw)
        kept = {**manifests.without(described.attributes), **manifests.only(found.attributes)}
        return found, self._store.write(
            target, Description(kept, described.delete_at_us), self._store.bodies[source]
        )

    async def _whole(self, name: ObjectName) -> bytes:
        info, body = await self.read(name, deadline=0.0)
        return b"".join([bytes(chunk) async for chunk in body.stream(0, info.size)])
