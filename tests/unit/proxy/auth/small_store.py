"""A store small enough to hold in the head: what users are kept in, with every call countable, breakable and delayable."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from proxy.store.errors import ConditionFailed, NoSuchContainer, NoSuchObject, Unavailable
from proxy.store.names import ContainerName, ObjectName
from proxy.store.values import (
    Attributes,
    Condition,
    ContainerInfo,
    Describe,
    Description,
    ListedObject,
    ObjectBody,
    ObjectInfo,
    ObjectPage,
    Received,
    Upload,
)
from swiftlike.entries import Entry
from swiftlike.node_calls import Query
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import Ballot, Timestamp, WriteId

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"


_NO_BODY: Final[tuple[Body, ...]] = ()


class NoBody:
    """A body without bytes."""

    whole: Body | None = b""

    async def stream(self, start: int, stop: int) -> AsyncIterator[Body]:
        """Yield nothing."""
        for chunk in _NO_BODY:
            yield chunk


class SmallStore:
    """Both halves of a store; `calls` counts them, `fail_after` breaks them, `gate` holds them back."""

    def __init__(self) -> None:
        self.held: dict[ObjectName, ObjectInfo] = {}
        self.made: set[ContainerName] = set()
        self.calls = 0
        self.fail_after: int | None = None
        self.gate: asyncio.Event | None = None
        self.page_items = 2

    @property
    def containers(self) -> "SmallStore":
        """Itself: the calls of containers and objects have different names but for one, and that is listed first."""
        return self

    @property
    def objects(self) -> "SmallObjects":
        """The half that holds objects."""
        return SmallObjects(self)

    async def step(self) -> None:
        """Begin a call."""
        self.calls += 1
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise Unavailable("as the test wanted")
            self.fail_after -= 1

    def next_entry(self) -> Entry:
        """Return an entry of a write that was never before."""
        stamp = Timestamp.of(self.calls, 1)
        return Entry(Ballot(bytes(16) + stamp), WriteId(bytes(stamp)), self.calls)

    async def create(
        self, name: ContainerName, describe: Describe, policy: int | None, *, deadline: float
    ) -> tuple[ContainerInfo, bool]:
        """Make a container."""
        await self.step()
        is_new = name not in self.made
        self.made.add(name)
        return ContainerInfo(name, self.next_entry(), describe({})), is_new

    async def list(self, name: ContainerName, query: Query, *, deadline: float) -> ObjectPage:
        """Return a page of names."""
        await self.step()
        self.demand(name)
        names = sorted(
            held.name
            for held in self.held
            if held.parent == name and held.name.startswith(query.prefix) and held.name > query.marker
        )
        page = names[: self.page_items]
        items = tuple(ListedObject(one, 0, EMPTY_MD5, "text/plain", 0) for one in page)
        return ObjectPage(items, page[-1] if len(names) > len(page) else None)

    def demand(self, name: ContainerName) -> None:
        """Refuse what is asked of a container that is not there."""
        if name not in self.made:
            raise NoSuchContainer


class SmallObjects:
    """Objects without bodies."""

    def __init__(self, store: SmallStore) -> None:
        self.store = store

    async def put(
        self, name: ObjectName, upload: Upload, *, deadline: float, condition: Condition | None = None
    ) -> ObjectInfo:
        """Write an object."""
        await self.store.step()
        self.store.demand(name.parent)
        async for _ in upload.chunks():
            raise AssertionError("users have no bodies")
        assert upload.size == 0
        description = upload.finish(Received(0, EMPTY_MD5))
        self._judge(name, condition)
        return self._write(name, description.attributes)

    async def read(
        self, name: ObjectName, *, deadline: float, inline_bytes: int = 0
    ) -> tuple[ObjectInfo, ObjectBody]:
        """Read an object."""
        await self.store.step()
        self.store.demand(name.parent)
        if name not in self.store.held:
            raise NoSuchObject
        return self.store.held[name], NoBody()

    async def describe(
        self,
        name: ObjectName,
        describe: Callable[[ObjectInfo], Description],
        *,
        deadline: float,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Describe an object anew; it is asked twice, as after a lost race."""
        await self.store.step()
        self.store.demand(name.parent)
        if name not in self.store.held:
            raise NoSuchObject
        described = describe(self.store.held[name]).attributes
        assert describe(self.store.held[name]).attributes == described, "pure"
        return self._write(name, described)

    async def delete(self, name: ObjectName, *, deadline: float, condition: Condition | None = None) -> bool:
        """Delete an object."""
        await self.store.step()
        self.store.demand(name.parent)
        self._judge(name, condition)
        return self.store.held.pop(name, None) is not None

    def _judge(self, name: ObjectName, condition: Condition | None) -> None:
        current = self.store.held.get(name)
        if condition is not None and not condition(current):
            raise ConditionFailed(current)

    def _write(self, name: ObjectName, attributes: Attributes) -> ObjectInfo:
        assert attributes["etag"] == EMPTY_MD5
        assert all(type(value) is str for value in attributes.values())
        info = ObjectInfo(name, self.store.next_entry(), dict(attributes))
        self.store.held[name] = info
        return info
