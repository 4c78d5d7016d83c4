"""The registry of bucket names: which account a name belongs to among all accounts, first come first served.

Owns what a legal bucket name is, and the one object for each name under names that no request reaches. A *claim* names an
account, and the bucket is that account's container. Both dialects make and delete containers through here, so a name is
claimed with its container, whoever makes it; where it is another's already, the container is reachable by Swift only.

    NUL buckets / NUL names / bucket      whose container the bucket is: the attribute sys:account

A container is made between two writes of its claim, and a claim goes after its container, each a compare-and-swap:

    make      claim, unless it is another's · make the container · confirm: write the claim once more, if still one's own
    delete    look at the claim · delete the container · delete that very claim, unless it was written since

Whoever dies in between leaves a claim without a container. Its account may make the container at any time; to anybody else
the name is free again once such a claim is ABANDONED_S old. One who takes it swaps the claim that he saw, so either his swap
or the confirmation of the one who is late fails, and that one knows. Nothing is ever remembered of a name that is free.
"""

import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

from proxy.store.contract import Containers, Objects
from proxy.store.errors import (
    BucketTaken,
    ConditionFailed,
    NoSuchContainer,
    NotThere,
    OutcomeUnknown,
    Unavailable,
)
from proxy.store.names import ContainerName, ObjectName
from proxy.store.values import (
    Condition,
    ContainerInfo,
    Describe,
    Description,
    ObjectInfo,
    ObjectPage,
    Received,
    Usage,
)
from swiftlike.limits import BUCKETS_CACHED_MAX
from swiftlike.node_calls import Query
from swiftlike.rpc.transport import Body

NAMES: Final = ContainerName(b"\0buckets", b"\0names")
CACHED_S: Final = 1.0
"""How long a claim that was seen is believed."""
ABANDONED_S: Final = 60.0
"""How old a claim without a container must be for others to take it: longer than any request that would make one."""

_ACCOUNT: Final = "sys:account"
_MICROS: Final = 1_000_000
_TRIES_MAX: Final = 8

_LEGAL: Final = re.compile(rb"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS: Final = re.compile(rb"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_RESERVED_LEADS: Final = (b"xn--", b"sthree-", b"amzn-s3-demo-")
_RESERVED_ENDS: Final = (b"-s3alias", b"--ol-s3", b".mrap", b"--x-s3", b"--table-s3")


def is_bucket_name(name: bytes) -> bool:
    """Whether a container of this name can be a bucket. Source: "General purpose bucket naming rules", S3 user guide."""
    return (
        _LEGAL.fullmatch(name) is not None
        and b".." not in name
        and not _ADDRESS.fullmatch(name)
        and not name.startswith(_RESERVED_LEADS)
        and not name.endswith(_RESERVED_ENDS)
    )


class Claim(NamedTuple):
    """Whose a name is, as it was seen."""

    account: bytes
    asked_at: float


class Buckets:
    """The names of all buckets."""

    def __init__(
        self,
        containers: Containers,
        objects: Objects,
        now_us: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        """Take the domain beneath, the host's clock and the loop's."""
        self._containers: Final = containers
        self._objects: Final = objects
        self._now_us: Final = now_us
        self._now: Final = now
        self._seen: OrderedDict[bytes, Claim] = OrderedDict()

    # --- looking ------------------------------------------------------------------------------------------------

    async def owner(self, bucket: bytes, *, deadline: float, max_age_s: float = CACHED_S) -> bytes | None:
        """Return whose a name is, as it stood at most `max_age_s` ago; None: nobody's."""
        asked_at = self._now()
        seen = self._seen.get(bucket)
        if seen is not None and seen.asked_at > asked_at - max_age_s:
            self._seen.move_to_end(bucket)
            return seen.account
        found = await self._read(bucket, deadline)
        if found is None:
            self._seen.pop(bucket, None)
            return None
        self._remember(bucket, _account_of(found), asked_at)
        return _account_of(found)

    async def locate(self, bucket: bytes, *, deadline: float, max_age_s: float = CACHED_S) -> ContainerInfo:
        """Return the container that a bucket is, as it stood at most `max_age_s` ago.

        Raises NoSuchContainer, only for what is not there now.
        """
        for age_s in (max_age_s, 0.0):
            account = await self.owner(bucket, deadline=deadline, max_age_s=age_s)
            if account is not None:
                name = ContainerName(account, bucket)
                try:
                    return await self._containers.read(name, deadline=deadline, max_age_s=age_s)
                except NoSuchContainer:
                    continue  # perhaps it is another's by now
        raise NoSuchContainer

    # --- making and deleting ------------------------------------------------------------------------------------

    async def create(
        self,
        name: ContainerName,
        describe: Describe,
        policy: int | None,
        *,
        deadline: float,
        must_be_bucket: bool = False,
    ) -> tuple[ContainerInfo, bool]:
        """Make a container and claim its name, or describe the one that is there anew; say which.

        Raises BucketTaken, where it must be a bucket and the name is another's, and what making a container raises.
        """
        bucket = name.container
        if not is_bucket_name(bucket):
            assert not must_be_bucket, "the dialect refuses names that are not legal"
            return await self._containers.create(name, describe, policy, deadline=deadline)
        is_known = await self.owner(bucket, deadline=deadline) == name.account
        is_mine = is_known or await self._claim(name, deadline)
        if must_be_bucket and not is_mine:
            raise BucketTaken
        info, created = await self._containers.create(name, describe, policy, deadline=deadline)
        if is_mine and (created or not is_known):
            is_mine = await self._claim(name, deadline)
            if must_be_bucket and not is_mine:
                if created:
                    await self._containers.delete(name, deadline=deadline)
                raise BucketTaken
        return info, created

    async def delete(self, name: ContainerName, *, deadline: float) -> None:
        """Delete a container and let its name go. Raises what deleting a container raises."""
        claim = await self._read(name.container, deadline) if is_bucket_name(name.container) else None
        is_gone = False
        try:
            await self._containers.delete(name, deadline=deadline)
            is_gone = True
        except NoSuchContainer:
            is_gone = True
            raise
        finally:
            if is_gone and claim is not None and _account_of(claim) == name.account:
                await self._release(claim, deadline)

    async def _claim(self, name: ContainerName, deadline: float) -> bool:
        """Write the claim of an account, unless the name is another's; say whether it is one's own now."""
        bucket = name.container
        condition, seen = _free_or_of(name.account), None
        contested: OutcomeUnknown | Unavailable | None = None
        for _ in range(_TRIES_MAX):
            asked_at = self._now()
            try:
                await self._put(bucket, name.account, condition, deadline)
            except (OutcomeUnknown, Unavailable) as failed:
                # Many may claim it at once. Where another of one's own account has done so since, that is as good.
                contested = failed
                now = await self._read(bucket, deadline)  # in an outage this says so, without another try
                if now is not None and _account_of(now) == name.account and seen not in (None, now.write_id):
                    self._remember(bucket, name.account, asked_at)
                    return True
                seen = None if now is None else now.write_id
                continue
            except ConditionFailed as failed:
                standing = failed.current
                if standing is None or _account_of(standing) == name.account:
                    condition = _free_or_of(name.account)
                elif await self._is_abandoned(bucket, standing, deadline):
                    condition = _is_still(standing)
                else:
                    self._remember(bucket, _account_of(standing), asked_at)
                    return False
                continue
            self._remember(bucket, name.account, asked_at)
            return True
        if contested is not None:
            raise contested
        return False

    async def _is_abandoned(self, bucket: bytes, claim: ObjectInfo, deadline: float) -> bool:
        if self._now_us() - claim.modified_us < ABANDONED_S * _MICROS:
            return False
        try:
            name = ContainerName(_account_of(claim), bucket)
            await self._containers.read(name, deadline=deadline, max_age_s=0)
        except NoSuchContainer:
            return True
        return False

    async def _release(self, claim: ObjectInfo, deadline: float) -> None:
        self._seen.pop(claim.name.name, None)
        try:
            await self._objects.delete(claim.name, deadline=deadline, condition=_is_still(claim))
        except (ConditionFailed, NotThere):
            return  # it was claimed anew meanwhile
        finally:
            self._seen.pop(claim.name.name, None)

    # --- the objects that claims are ------------------------------------------------------------------------------

    async def _read(self, bucket: bytes, deadline: float) -> ObjectInfo | None:
        try:
            info, _ = await self._objects.read(ObjectName(*NAMES, bucket), deadline=deadline)
        except NotThere:
            return None
        return info

    async def _put(self, bucket: bytes, account: bytes, condition: Condition, deadline: float) -> None:
        name, record = ObjectName(*NAMES, bucket), _Record(account)
        try:
            await self._objects.put(name, record, deadline=deadline, condition=condition)
        except NoSuchContainer:
            await self._containers.create(NAMES, lambda found: found, None, deadline=deadline)
            await self._objects.put(name, record, deadline=deadline, condition=condition)

    def _remember(self, bucket: bytes, account: bytes, asked_at: float) -> None:
        self._seen[bucket] = Claim(account, asked_at)
        self._seen.move_to_end(bucket)
        if len(self._seen) > BUCKETS_CACHED_MAX:
            self._seen.popitem(last=False)


class RegisteredContainers:
    """The containers that the dialects see: made and deleted with their names."""

    def __init__(self, containers: Containers, buckets: Buckets) -> None:
        """Take the containers beneath and the names."""
        self._beneath: Final = containers
        self._buckets: Final = buckets

    async def read(
        self, name: ContainerName, *, deadline: float, max_age_s: float = CACHED_S
    ) -> ContainerInfo:
        """Return a container as it was at most `max_age_s` ago. Raises NoSuchContainer."""
        return await self._beneath.read(name, deadline=deadline, max_age_s=max_age_s)

    async def usage(self, name: ContainerName, *, deadline: float) -> Usage:
        """Return what it holds. Raises NoSuchContainer."""
        return await self._beneath.usage(name, deadline=deadline)

    async def create(
        self, name: ContainerName, describe: Describe, policy: int | None, *, deadline: float
    ) -> tuple[ContainerInfo, bool]:
        """Create it, or describe it anew where it is there, and claim its name if that is free."""
        return await self._buckets.create(name, describe, policy, deadline=deadline)

    async def describe(self, name: ContainerName, describe: Describe, *, deadline: float) -> ContainerInfo:
        """Describe it anew. Raises NoSuchContainer."""
        return await self._beneath.describe(name, describe, deadline=deadline)

    async def delete(self, name: ContainerName, *, deadline: float) -> None:
        """Delete it, and let its name go. Raises NoSuchContainer, ContainerNotEmpty."""
        await self._buckets.delete(name, deadline=deadline)

    async def list(self, name: ContainerName, query: Query, *, deadline: float) -> ObjectPage:
        """Return a page of its objects. Raises NoSuchContainer."""
        return await self._beneath.list(name, query, deadline=deadline)


_NO_BODY: Final[tuple[Body, ...]] = ()


class _Record:
    """An upload of nothing but whose a name is."""

    def __init__(self, account: bytes) -> None:
        self._account = account

    @property
    def size(self) -> int | None:
        return 0

    async def chunks(self) -> AsyncIterator[Body]:
        for chunk in _NO_BODY:
            yield chunk

    def finish(self, received: Received) -> Description:
        return Description({_ACCOUNT: self._account.decode(), "etag": received.md5})


def _account_of(claim: ObjectInfo) -> bytes:
    return claim.attributes[_ACCOUNT].encode()


def _free_or_of(account: bytes) -> Condition:
    return lambda current: current is None or _account_of(current) == account


def _is_still(claim: ObjectInfo) -> Condition:
    return lambda current: current is not None and current.write_id == claim.write_id
