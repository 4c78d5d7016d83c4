"""Who asks, and what he may do: the door to `proxy/auth`.

Owns how Swift's headers say who asks, and how a denial is told: 401 to whoever may still say who he is, 403 otherwise.
Never decides.
"""

from collections.abc import Mapping
from typing import Protocol

from proxy.auth.acls import parse_acl
from proxy.auth.decisions import NO_ACLS, Acls, Action, Decision, decide
from proxy.auth.identities import ANONYMOUS, Identity
from proxy.auth.users import SignedIn
from proxy.http.request import Request
from proxy.store.values import Attributes
from proxy.swift_api.refusals import Refusal


class Users(Protocol):
    """Those who know users."""

    async def sign_in(self, account: str, user: str, key: str, *, deadline: float) -> SignedIn | None:
        """Return a token for whoever knows the key of `account:user`; None when these do not fit."""

    async def identify(self, token: str, *, deadline: float) -> Identity | None:
        """Return who holds a token; None when it is forged, expired or ended."""


async def identify(users: Users, request: Request) -> Identity:
    """Return who asks; nobody in particular without a token. Raises Refusal when a token is not good."""
    token = request.headers.get("X-Auth-Token") or request.headers.get("X-Storage-Token")
    if not token:
        return ANONYMOUS
    identity = await users.identify(token, deadline=request.deadline)
    if identity is None:
        raise unauthorized("unknown", "The token is not good, or no longer: sign in again.")
    request.who = identity.name
    return identity


def acls_of(attributes: Attributes) -> Acls:
    """Return what was granted on a container."""
    read, write = attributes.get("sys:read-acl"), attributes.get("sys:write-acl")
    if not read and not write:
        return NO_ACLS
    return Acls(parse_acl(read or ""), parse_acl(write or "", is_write=True))


def require(
    identity: Identity, action: Action, account: bytes, headers: Mapping[str, str], acls: Acls = NO_ACLS
) -> Decision:
    """Return the decision when it allows. Raises Refusal."""
    decision = decide(identity, action, account, acls, referer=headers.get("Referer", ""))
    if decision.allowed:
        return decision
    if identity.is_anonymous:
        raise unauthorized(account.decode("ascii", "replace"), "Sign in first.")
    raise Refusal(403, "You may not do this.")


def unauthorized(realm: str, text: str) -> Refusal:
    """Return the refusal of somebody who may still say who he is."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in realm)
    return Refusal(401, text, [("Www-Authenticate", f'Swift realm="{safe}"')])
