"""One request on its way to a handler, and what every handler needs.

Owns nothing that lasts: the surroundings are the worker's, an ask is gone with its answer.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from multidict import CIMultiDictProxy

from proxy.auth.decisions import NO_ACLS, Action, Decision
from proxy.auth.identities import Identity
from proxy.http.request import Request
from proxy.store.contract import Store
from proxy.store.errors import NoSuchContainer
from proxy.store.names import ContainerName
from proxy.swift_api.access import Users, acls_of, require
from proxy.swift_api.paths import Resource
from swiftlike.config import PolicyConfig


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the dialect stands on."""

    store: Store
    users: Users
    policies: tuple[PolicyConfig, ...]
    policy_names: Mapping[int, str]
    now_us: Callable[[], int]
    """The host's clock, for due times."""


class Ask(NamedTuple):
    """A request, who makes it, and what it is about."""

    around: Surroundings
    request: Request
    identity: Identity
    resource: Resource

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The request's headers."""
        return self.request.headers

    @property
    def deadline(self) -> float:
        """When it should be over."""
        return self.request.deadline

    def require(self, action: Action) -> Decision:
        """Return the decision about what only an owner may do. Raises Refusal."""
        return require(self.identity, action, self.resource.account, self.headers)

    async def require_by_acl(self, action: Action, name: ContainerName | None = None) -> Decision:
        """Return the decision about what a container's ACL may grant. Raises Refusal.

        To whoever the container is not open, one that is not there looks the same.
        """
        identity = self.identity
        account = self.resource.account if name is None else name.account
        acls = NO_ACLS
        if not identity.is_admin_of(account):
            container = self.resource.of_container if name is None else name
            with suppress(NoSuchContainer):
                info = await self.around.store.containers.read(container, deadline=self.deadline)
                acls = acls_of(info.attributes)
        return require(identity, action, account, self.request.headers, acls)
