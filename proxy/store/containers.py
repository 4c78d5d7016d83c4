"""Containers: registers that list objects, and their incarnations.

Owns that a container keeps its policy and its incarnation for as long as it is there, that one is deleted only when its
owners have stopped taking rows and have none, and that its account lists it once it is written. Never touches an object.
"""

from collections.abc import Collection, Sequence
from typing import Final

from proxy.cluster.decisions import Judge, is_present
from proxy.cluster.placement import Placement
from proxy.cluster.register import Registers, Written
from proxy.store.accounts import Accounts
from proxy.store.cache import ContainerCache
from proxy.store.debts import Debts
from proxy.store.errors import (
    ContainerNotEmpty,
    NoSuchContainer,
    NoSuchPolicy,
    OutcomeUnknown,
    PolicyDiffers,
)
from proxy.store.listed_rows import ListedRows
from proxy.store.listings import Listings, usage_of
from proxy.store.merging import sums_of_tally
from proxy.store.names import ContainerName
from proxy.store.outcomes import is_done, known, known_behind_write, write_wish
from proxy.store.rows import Rows, Upserted
from proxy.store.values import (
    ContainerInfo,
    Describe,
    ObjectPage,
    Usage,
    attributes_of,
    micros_of,
)
from ring.device import DeviceId
from swiftlike.config import PolicyConfig
from swiftlike.entries import Entry, pack_metadata
from swiftlike.listed import row_of
from swiftlike.node_calls import CONTAINERS, Query
from swiftlike.timestamps import Ballot, WriteId

HAS_MANIFESTS: Final = "sys:has-manifests"
"""Said of a container before the first object whose parts are freed when it is replaced. It stays said: writes to objects of
such a container look at what they replace, which costs them a round trip that others are spared. Its value says for how long: SOON,
until every process that believes otherwise has looked again, then ALL."""
SOON: Final = "soon"
ALL: Final = "yes"

CACHED_S: Final = 1.0
"""How long what was seen of a container is believed, unless somebody asks for less."""


class Containers:
    """The containers of the cluster."""

    def __init__(
        self,
        registers: Registers,
        policies: Sequence[PolicyConfig],
        accounts: Accounts,
        listings: Listings,
        rows: Rows,
        debts: Debts,
        cache: ContainerCache,
    ) -> None:
        """Take what containers stand on."""
        self._registers: Final = registers
        self._policies: Final = frozenset(policy.index for policy in policies)
        self._default: Final = default_policy(policies)
        self._accounts: Final = accounts
        self._listings: Final = listings
        self._rows: Final = rows
        self._debts: Final = debts
        self._cache: Final = cache

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(
        self, name: ContainerName, *, deadline: float, max_age_s: float = CACHED_S
    ) -> ContainerInfo:
        """Return a container as it stood at most `max_age_s` ago (0: as it stands). Raises NoSuchContainer, Unavailable."""
        asked_at = self._registers.nodes.now()
        if max_age_s > 0 and (seen := self._cache.get(name, asked_at - max_age_s)) is not None:
            return seen.info
        read = known(await self._registers.read(name.key, deadline=deadline, inline_bytes=0))
        if read.entry is None or read.entry.tombstone:
            self._cache.forget(name)
            raise NoSuchContainer
        info = _info(name, read.entry)
        self._cache.put(info, asked_at)
        return info

    async def read_to_write(self, name: ContainerName, *, deadline: float) -> ContainerInfo:
        """Return a container, as `read` does, for somebody who means to add to it.

        Raises NoSuchContainer, AccountDeleted, Unavailable.
        """
        await self._accounts.expect_alive(name.account, deadline=deadline)
        return await self.read(name, deadline=deadline)

    async def look(self, name: ContainerName, *, deadline: float) -> tuple[ContainerInfo, bool]:
        """Return a container, and whether it stands so now; else it did a moment ago. Raises NoSuchContainer, Unavailable."""
        seen = self._cache.get(name, self._registers.nodes.now() - CACHED_S)
        if seen is not None:
            return seen.info, False
        return await self.read(name, deadline=deadline, max_age_s=0), True

    async def settle(self, name: ContainerName, *, deadline: float) -> ContainerInfo:
        """Lift a promise that somebody left behind, a closing one too, and return what stands.

        Raises NoSuchContainer, Unavailable.
        """
        asked_at = self._registers.nodes.now()
        settled = await self._registers.settle(name.key, deadline=deadline)
        is_done(settled)  # REFUSED is the good end of it
        if settled.entry is None or settled.entry.tombstone:
            self._cache.forget(name)
            raise NoSuchContainer
        info = _info(name, settled.entry)
        self._cache.put(info, asked_at)
        return info

    async def usage(self, name: ContainerName, *, deadline: float) -> Usage:
        """Return what a container holds. Raises NoSuchContainer, Unavailable."""
        info = await self.read(name, deadline=deadline, max_age_s=0)
        return await self._listings.usage_of_container(info, deadline=deadline)

    async def list(self, name: ContainerName, query: Query, *, deadline: float) -> ObjectPage:
        """Return a page of a container's objects; `now_us` is filled in.

        Raises NoSuchContainer, Unavailable.
        """
        info = await self.read(name, deadline=deadline, max_age_s=0)
        page = await self._listings.page_of_container(info, query, deadline=deadline)
        usage = None if page.tally is None else usage_of(sums_of_tally(page.tally))
        return ObjectPage(ListedRows(page.rows), page.more, usage)

    # --- writing ------------------------------------------------------------------------------------------------

    async def create(
        self, name: ContainerName, describe: Describe, policy: int | None, *, deadline: float
    ) -> tuple[ContainerInfo, bool]:
        """Create a container, or describe the one that is there anew; say which of them it was.

        When it returns, the account is there and lists it. Without a policy a new container has the default one, and one
        that is there keeps its own. One that is described so already is not written again: of many who create it at once,
        the first has written it, and the others only have to find it.

        Raises NoSuchPolicy, PolicyDiffers, AccountDeleted, Unavailable, OutcomeUnknown.
        """
        if policy is not None and policy not in self._policies:
            raise NoSuchPolicy
        await self._accounts.ensure(name.account, deadline=deadline)
        is_new = has_other_policy = False
        made: set[WriteId] = set()

        def judge_for(write_id: WriteId) -> Judge:
            def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
                nonlocal is_new, has_other_policy
                is_new = newest is None or newest.tombstone
                if newest is None or is_new:
                    made.add(write_id)
                    return Entry(
                        ballot,
                        write_id,
                        micros_of(write_id),
                        metadata=pack_metadata(dict(describe({}))),
                        policy=self._default if policy is None else policy,
                        objects=0,
                        incarnation=ballot.timestamp,
                    )
                has_other_policy = policy is not None and policy != newest.policy
                if has_other_policy:
                    return None
                described = _described(newest, write_id, describe)
                return None if attributes_of(described) == attributes_of(newest) else described

            return judge

        asked_at = self._registers.nodes.now()
        written = await write_wish(self._registers, name.key, judge_for, deadline=deadline)
        if not is_done(written) and has_other_policy:
            raise PolicyDiffers
        info = await self._list_and_remember(name, written, asked_at, deadline)
        return info, is_new or info.entry.write_id in made

    async def describe(self, name: ContainerName, describe: Describe, *, deadline: float) -> ContainerInfo:
        """Describe a container anew. Raises NoSuchContainer, AccountDeleted, Unavailable, OutcomeUnknown."""
        await self._accounts.expect_alive(name.account, deadline=deadline)
        write_id = self._registers.new_write_id()

        def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
            if newest is None or not is_present(newest, ballot.micros):
                return None
            return _described(newest, write_id, describe)

        asked_at = self._registers.nodes.now()
        written = await self._registers.write_if(name.key, judge, deadline=deadline)
        if not is_done(written):
            raise NoSuchContainer
        return await self._list_and_remember(name, written, asked_at, deadline)

    async def delete(self, name: ContainerName, *, deadline: float, without: str = "") -> None:
        """Delete a container that lists nothing, and that has not the attribute `without`.

        Raises NoSuchContainer, ContainerNotEmpty, Unavailable, OutcomeUnknown.
        """
        info = await self.read(name, deadline=deadline, max_age_s=0)
        write_id = self._registers.new_write_id()
        modified = micros_of(write_id)
        has_objects = has_attribute = False

        def judge(newest: Entry | None, ballot: Ballot) -> Entry | None:
            nonlocal has_attribute
            if newest is None or newest.tombstone or newest.incarnation != info.incarnation:
                return None
            has_attribute = without in attributes_of(newest)
            if has_attribute:
                return None
            return Entry(
                ballot, write_id, modified, tombstone=True, objects=0, incarnation=newest.incarnation
            )

        async def is_empty(placement: Placement, promised: Collection[DeviceId]) -> bool:
            nonlocal has_objects
            has_objects = await self._listings.has_rows(info, placement, promised, deadline=deadline)
            return not has_objects

        self._cache.forget(name)
        written = await self._registers.write_closing(name.key, judge, is_empty, deadline=deadline)
        self._cache.forget(name)
        if not is_done(written):
            if has_objects or has_attribute:
                raise ContainerNotEmpty
            raise NoSuchContainer
        await self._list_in_account(name, written, deadline)

    async def _list_and_remember(
        self, name: ContainerName, written: Written, asked_at: float, deadline: float
    ) -> ContainerInfo:
        """Have the account of a live container list it, and believe for a moment what was asked for then."""
        entry = await self._list_in_account(name, written, deadline)
        info = _info(name, entry)
        self._cache.put(info, asked_at)
        return info

    async def _list_in_account(self, name: ContainerName, written: Written, deadline: float) -> Entry:
        """Bring the row of what was written to its account, and pay for it later; return what was written."""
        entry = written.entry
        if entry is None:  # it is forgotten already what was chosen; what stands now has been judged on it
            read = await self._registers.read(name.key, deadline=deadline, inline_bytes=0)
            entry = known_behind_write(read).entry
            assert entry is not None, "what was written leaves a tombstone at least"
        upserted = await self._rows.upsert(row_of(CONTAINERS, name.path, entry), deadline=deadline)
        if upserted is not Upserted.TAKEN:
            raise OutcomeUnknown("the container is written, and its account may not list it yet")
        self._debts.pay_later(name.key, entry.version)
        return entry


def default_policy(policies: Sequence[PolicyConfig]) -> int:
    """Return the policy of containers that ask for none."""
    return next((policy.index for policy in policies if policy.default), policies[0].index)


def _info(name: ContainerName, entry: Entry) -> ContainerInfo:
    return ContainerInfo(name, entry, attributes_of(entry))


def _described(newest: Entry, write_id: WriteId, describe: Describe) -> Entry:
    old = attributes_of(newest)
    metadata = pack_metadata(
        {**{name: old[name] for name in (HAS_MANIFESTS,) if name in old}, **describe(old)}
    )
    return newest._replace(write_id=write_id, modified=micros_of(write_id), metadata=metadata)
