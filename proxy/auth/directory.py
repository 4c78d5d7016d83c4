"""The directory: users kept in the cluster itself, as objects without bodies under names that no request reaches.

Owns where a user's record lies and the order in which the two kinds of object change. Nothing is cached here.

    NUL auth / NUL users / account:user      the record of a user: everything there is about it
    NUL auth / NUL keys  / access key        whose S3 key it is

The record is the only truth: an access key works when its pointer names a user *and* that user's record has the key. A key is
claimed before its record names it, and a record gives it up after the pointer has gone, so whoever dies in between leaves
at worst a pointer that means nothing, which the next claim by the same user, or a release, puts right. Each change is a
compare-and-swap on one object.

    DirectoryError
    ├── NoSuchUser
    ├── UserExists
    ├── NoSuchAccessKey
    ├── AccessKeyTaken      it is another user's
    └── TooManyAccessKeys
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Final

from proxy.auth.identities import HIDDEN
from proxy.auth.records import ACCESS_KEYS_MAX, UserName, access_keys_of
from proxy.store.contract import Store
from proxy.store.errors import ConditionFailed, NoSuchContainer, NotThere, Unavailable
from proxy.store.names import ContainerName, ObjectName
from proxy.store.values import (
    Attributes,
    Condition,
    Describe,
    Description,
    ListedObject,
    ObjectInfo,
    Received,
)
from swiftlike.node_calls import Query
from swiftlike.rpc.transport import Body

ACCOUNT: Final = HIDDEN + b"auth"
USERS: Final = ContainerName(ACCOUNT, HIDDEN + b"users")
KEYS: Final = ContainerName(ACCOUNT, HIDDEN + b"keys")

_ATTEMPTS: Final = 10
"""How often a removal begins anew because the user was changed meanwhile."""

_ACCOUNT: Final = "sys:account"
_USER: Final = "sys:user"


class DirectoryError(Exception):
    """A change of users that cannot be made; the sentence is for an operator."""


class NoSuchUser(DirectoryError):
    """There is no such user."""

    def __init__(self, name: UserName) -> None:
        super().__init__(f"there is no user {name}")


class UserExists(DirectoryError):
    """There is such a user already."""

    def __init__(self, name: UserName) -> None:
        super().__init__(f"user {name} exists already; remove it first, or rotate its key")


class NoSuchAccessKey(DirectoryError):
    """The user has no such S3 key."""

    def __init__(self, name: UserName, access_key: str) -> None:
        super().__init__(f"user {name} has no S3 key {access_key}")


class AccessKeyTaken(DirectoryError):
    """The S3 key is another user's."""

    def __init__(self, access_key: str, owner: UserName) -> None:
        super().__init__(f"S3 key {access_key} is already that of {owner}; remove it there first")
        self.owner = owner


class TooManyAccessKeys(DirectoryError):
    """The user has as many S3 keys as it can have."""

    def __init__(self, name: UserName) -> None:
        super().__init__(f"user {name} has {ACCESS_KEYS_MAX} S3 keys already; remove one first")


class Directory:
    """Users in one cluster. Deadlines are on the store's clock; what the store raises comes through."""

    def __init__(self, store: Store) -> None:
        """Take the store that keeps them."""
        self._store: Final = store

    async def read(self, name: UserName, *, deadline: float) -> Attributes | None:
        """Return a user's record; None when there is no such user."""
        return await self._read(_record_of(name), deadline)

    async def owner_of(self, access_key: str, *, deadline: float) -> UserName | None:
        """Return whom the pointer of an S3 key names; whether that user's record has the key is still to be seen."""
        pointer = await self._read(_pointer_of(access_key), deadline)
        return None if pointer is None else _named_by(pointer)

    async def names(self, account: str | None = None, *, deadline: float) -> AsyncGenerator[UserName, None]:
        """Yield all users, or those of one account, in byte order. One removed meanwhile may still be among them."""
        prefix = b"" if account is None else f"{account}:".encode()
        marker: bytes | None = b""
        while marker is not None:
            query = Query(prefix=prefix, marker=marker)
            try:
                page = await self._store.containers.list(USERS, query, deadline=deadline)
            except NoSuchContainer:
                return
            for item in page.items:
                assert isinstance(item, ListedObject), "no delimiter was asked for"
                yield UserName(*item.name.decode().split(":", 1))
            marker = page.more

    async def create(self, name: UserName, record: Attributes, *, deadline: float) -> None:
        """Write the record of a new user. Raises UserExists."""
        try:
            await self._put(_record_of(name), record, _is_absent, deadline)
        except ConditionFailed:
            raise UserExists(name) from None

    async def change(self, name: UserName, edit: Describe, *, deadline: float) -> Attributes:
        """Replace a user's record by what `edit` makes of it, and return that. Raises NoSuchUser and whatever `edit` does."""

        def describe(info: ObjectInfo) -> Description:
            return Description(edit(info.attributes))

        try:
            info = await self._store.objects.describe(_record_of(name), describe, deadline=deadline)
        except NotThere:
            raise NoSuchUser(name) from None
        return info.attributes

    async def remove(self, name: UserName, *, deadline: float) -> None:
        """Remove a user and its S3 keys; cut short, it can be repeated. Raises NoSuchUser."""
        for _ in range(_ATTEMPTS):
            try:
                info, _body = await self._store.objects.read(_record_of(name), deadline=deadline)
            except NotThere:
                raise NoSuchUser(name) from None
            for access_key in access_keys_of(info.attributes):
                await self.release(access_key, name, deadline=deadline)
            if await self._delete(_record_of(name), _unchanged_since(info), deadline):
                return
        raise Unavailable(f"user {name} is being changed by others all the time: remove it again")

    async def claim(self, access_key: str, name: UserName, *, deadline: float) -> None:
        """Make an S3 key point at a user, before its record names it. Raises AccessKeyTaken."""
        pointer = {_ACCOUNT: name.account, _USER: name.user}
        try:
            await self._put(_pointer_of(access_key), pointer, _is_absent, deadline)
        except ConditionFailed as failed:
            standing = failed.current
            if standing is not None and _named_by(standing.attributes) != name:
                raise AccessKeyTaken(access_key, _named_by(standing.attributes)) from None

    async def release(self, access_key: str, name: UserName, *, deadline: float) -> bool:
        """Make an S3 key point at nobody, if it points at this user; whether it did."""
        return await self._delete(
            _pointer_of(access_key),
            lambda current: current is not None and _named_by(current.attributes) == name,
            deadline,
        )

    # --- objects without bodies ------------------------------------------------------------------------------------

    async def _read(self, name: ObjectName, deadline: float) -> Attributes | None:
        try:
            info, _body = await self._store.objects.read(name, deadline=deadline)
        except NotThere:
            return None
        return info.attributes

    async def _put(
        self, name: ObjectName, attributes: Attributes, condition: Condition, deadline: float
    ) -> None:
        record = _Record(attributes)
        try:
            await self._store.objects.put(name, record, deadline=deadline, condition=condition)
        except NoSuchContainer:
            await self._store.containers.create(name.parent, lambda found: found, None, deadline=deadline)
            await self._store.objects.put(name, record, deadline=deadline, condition=condition)

    async def _delete(self, name: ObjectName, condition: Condition, deadline: float) -> bool:
        try:
            return await self._store.objects.delete(name, deadline=deadline, condition=condition)
        except (ConditionFailed, NotThere):
            return False


_NO_BODY: Final[tuple[Body, ...]] = ()


class _Record:
    """An upload of nothing but attributes."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = attributes

    @property
    def size(self) -> int | None:
        return 0

    async def chunks(self) -> AsyncIterator[Body]:
        for chunk in _NO_BODY:
            yield chunk

    def finish(self, received: Received) -> Description:
        return Description({**self._attributes, "etag": received.md5})


def _record_of(name: UserName) -> ObjectName:
    return ObjectName(*USERS, str(name).encode())


def _pointer_of(access_key: str) -> ObjectName:
    return ObjectName(*KEYS, access_key.encode())


def _named_by(pointer: Attributes) -> UserName:
    return UserName(pointer.get(_ACCOUNT, ""), pointer.get(_USER, ""))


def _is_absent(current: ObjectInfo | None) -> bool:
    return current is None


def _unchanged_since(seen: ObjectInfo) -> Condition:
    return lambda current: current is not None and current.write_id == seen.write_id
