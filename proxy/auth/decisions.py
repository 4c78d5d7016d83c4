"""The one decision: may this identity do this to that, and why.

Owns what each action needs, from whichever dialect it is asked: ownership, an item of a Swift ACL, or an S3 grant. Pure.
What is not allowed by name is denied. How a denial is told to a client (401 for whoever may still say who he is, 403
otherwise) is its dialect's.

    what is asked for                  allowed to anyone but the owner by
    list a container, read its facts   X-Container-Read: a user; a referrer together with .rlistings · READ on the bucket
    read an object                     X-Container-Read: a user, a referrer · READ on the object
    write or delete an object          X-Container-Write: a user · WRITE on the bucket
    read, write a bucket's ACL         READ_ACP, WRITE_ACP on the bucket
    read, write an object's ACL        READ_ACP, WRITE_ACP on the object
    everything else                    nothing

The owner is a user with the role admin in the account, and does all but make and delete the account itself: that is for a
reseller_admin, who owns every account.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from proxy.auth.acls import NOBODY, Acl, Item
from proxy.auth.identities import HIDDEN, Identity, account_of


class Action(Enum):
    """What is asked for, by what it does: HEAD is a read like GET, and COPY is a read and a write."""

    READ_ACCOUNT = "read the account"
    DESCRIBE_ACCOUNT = "describe the account"
    CREATE_ACCOUNT = "make the account"
    DELETE_ACCOUNT = "delete the account"
    CREATE_CONTAINER = "make the container"
    READ_CONTAINER = "list the container"
    DESCRIBE_CONTAINER = "describe the container"
    DELETE_CONTAINER = "delete the container"
    READ_CONTAINER_ACL = "read the container's ACL"
    WRITE_CONTAINER_ACL = "write the container's ACL"
    READ_OBJECT = "read the object"
    WRITE_OBJECT = "write the object"
    DELETE_OBJECT = "delete the object"
    READ_OBJECT_ACL = "read the object's ACL"
    WRITE_OBJECT_ACL = "write the object's ACL"


class Permission(Enum):
    """What an S3 grant gives."""

    READ = "READ"
    WRITE = "WRITE"
    READ_ACP = "READ_ACP"
    WRITE_ACP = "WRITE_ACP"
    FULL_CONTROL = "FULL_CONTROL"
    """All of the others."""


class Group(Enum):
    """Grantees that are no account."""

    ALL_USERS = "AllUsers"
    AUTHENTICATED_USERS = "AuthenticatedUsers"


class Grant(NamedTuple):
    """One grant of an S3 ACL: a permission to an account of the store (all of its users) or to a group."""

    grantee: bytes | Group
    permission: Permission

    def gives(self, permission: Permission, identity: Identity) -> bool:
        """Whether it gives a permission to somebody."""
        if self.permission not in (permission, Permission.FULL_CONTROL):
            return False
        if self.grantee is Group.ALL_USERS:
            return True
        if identity.is_anonymous:
            return False
        return self.grantee is Group.AUTHENTICATED_USERS or self.grantee == account_of(identity.account)


@dataclass(frozen=True, slots=True)
class Acls:
    """All that was granted on a container and, where one is asked for, on an object of it."""

    read: Acl = NOBODY
    """`X-Container-Read`."""
    write: Acl = NOBODY
    """`X-Container-Write`."""
    bucket: tuple[Grant, ...] = ()
    """The S3 ACL of the container."""
    object: tuple[Grant, ...] = ()
    """The S3 ACL of the object."""


NO_ACLS: Final = Acls()


class Decision(NamedTuple):
    """Whether it may be done."""

    allowed: bool
    reason: str
    """For the log: what allowed it, or what would have been needed."""
    is_owner: bool = False
    """Whether the account is the asker's own: only then he is shown what is for owners, such as its ACLs."""


def decide(
    identity: Identity, action: Action, account: bytes, acls: Acls = NO_ACLS, *, referer: str = ""
) -> Decision:
    """Decide whether `identity` may do `action` to something in the store's `account`, under what was granted on it.

    `referer` is the request's Referer header, empty without one.
    """
    if account.startswith(HIDDEN):
        return Decision(False, "what the cluster keeps for itself is reached by no request")
    if identity.is_admin_of(account):
        if action in _RESELLERS and not identity.is_reseller_admin:
            return Decision(False, f"only a reseller_admin may {action.value}", is_owner=True)
        return _as_owner(identity)
    granted = _granted(identity, action, acls, referer)
    if granted is not None:
        return Decision(True, granted)
    return Decision(False, f"nothing allows {identity.name} to {action.value}")


@lru_cache(1024)
def _as_owner(identity: Identity) -> Decision:
    role = "a reseller_admin" if identity.is_reseller_admin else "an admin of the account"
    return Decision(True, f"{identity.name} is {role}", is_owner=True)


_RESELLERS: Final = frozenset({Action.CREATE_ACCOUNT, Action.DELETE_ACCOUNT})


def _granted(identity: Identity, action: Action, acls: Acls, referer: str) -> str | None:
    """Say which grant allows an action to somebody who is not the owner; None when none does."""
    match action:
        case Action.READ_CONTAINER:
            by_referrer = acls.read.welcomes(referer) if acls.read.grants_listings else None
            item = acls.read.names(identity) or by_referrer
            return _told(item, "read") or _by_grant(identity, Permission.READ, acls.bucket, "bucket")
        case Action.READ_OBJECT:
            item = acls.read.names(identity) or acls.read.welcomes(referer)
            return _told(item, "read") or _by_grant(identity, Permission.READ, acls.object, "object")
        case Action.WRITE_OBJECT | Action.DELETE_OBJECT:
            item = acls.write.names(identity)
            return _told(item, "write") or _by_grant(identity, Permission.WRITE, acls.bucket, "bucket")
        case Action.READ_CONTAINER_ACL:
            return _by_grant(identity, Permission.READ_ACP, acls.bucket, "bucket")
        case Action.WRITE_CONTAINER_ACL:
            return _by_grant(identity, Permission.WRITE_ACP, acls.bucket, "bucket")
        case Action.READ_OBJECT_ACL:
            return _by_grant(identity, Permission.READ_ACP, acls.object, "object")
        case Action.WRITE_OBJECT_ACL:
            return _by_grant(identity, Permission.WRITE_ACP, acls.object, "object")
        case _:
            return None


def _told(item: Item | None, kind: str) -> str | None:
    return None if item is None else f"the container's {kind} ACL has {item}"


def _by_grant(identity: Identity, permission: Permission, grants: Iterable[Grant], what: str) -> str | None:
    if any(grant.gives(permission, identity) for grant in grants):
        return f"the ACL of the {what} grants {permission.value}"
    return None
