"""S3's ACLs: canned ones in headers, grants as they are stored, and the XML that shows them.

Owns the attribute in which they stand, of a bucket and of an object alike: items with commas between, each a grantee, `=`, and
a permission. Who may do what is decided in `proxy/auth`; the owner needs no grant, and is not among them.

    group:AllUsers=READ,account:AUTH_test=FULL_CONTROL      an account's name is percent-encoded

An object belongs to the account of its bucket, whoever put it there, so what is canned for the bucket's owner grants nothing.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from proxy.auth.decisions import Grant, Group, Permission
from proxy.s3_api.errors import invalid_argument, not_implemented
from proxy.s3_api.xml import Element, write_document

ATTRIBUTE: Final = "sys:s3-acl"

_ALL, _KNOWN = Group.ALL_USERS, Group.AUTHENTICATED_USERS
_CANNED: Final[Mapping[str, tuple[Grant, ...]]] = {
    "private": (),
    "public-read": (Grant(_ALL, Permission.READ),),
    "public-read-write": (Grant(_ALL, Permission.READ), Grant(_ALL, Permission.WRITE)),
    "authenticated-read": (Grant(_KNOWN, Permission.READ),),
    "bucket-owner-read": (),
    "bucket-owner-full-control": (),
}
_NOT_HERE: Final = frozenset({"aws-exec-read", "log-delivery-write"})
_GROUP_URI: Final = "http://acs.amazonaws.com/groups/global/"
_SCHEMA: Final = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{}"'


def canned(name: str) -> tuple[Grant, ...]:
    """Return the grants of a canned ACL. Raises S3Error."""
    if name in _NOT_HERE:
        raise not_implemented(f"the canned ACL {name}")
    if name not in _CANNED:
        raise invalid_argument("", "x-amz-acl", name)
    return _CANNED[name]


def write_grants(grants: tuple[Grant, ...]) -> str:
    """Write grants down; none: an empty text."""
    return ",".join(f"{_grantee(one)}={one.permission.value}" for one in grants)


def _grantee(grant: Grant) -> str:
    if isinstance(grant.grantee, Group):
        return f"group:{grant.grantee.value}"
    return f"account:{quote(grant.grantee, safe='')}"


@lru_cache(maxsize=1_024)
def read_grants(text: str) -> tuple[Grant, ...]:
    """Read what `write_grants` wrote."""
    found = []
    for item in text.split(",") if text else ():
        grantee, _, permission = item.rpartition("=")
        kind, _, name = grantee.partition(":")
        who: bytes | Group = Group(name) if kind == "group" else unquote(name).encode()
        found.append(Grant(who, Permission(permission)))
    return tuple(found)


def owner_element(account: bytes) -> Element:
    """Return who owns something: an account, which is its own display name."""
    name = account.decode("utf-8", "replace")
    return Element("Owner", (Element("ID", name), Element("DisplayName", name)))


def write_policy(account: bytes, grants: tuple[Grant, ...]) -> bytes:
    """Write the ACL of something that an account owns: the owner may do everything, and then what was granted."""
    owner = owner_element(account)
    listed = [Grant(account, Permission.FULL_CONTROL), *grants]
    return write_document(
        "AccessControlPolicy",
        (owner, Element("AccessControlList", tuple(_grant_element(grant) for grant in listed))),
    )


def _grant_element(grant: Grant) -> Element:
    if isinstance(grant.grantee, Group):
        inside: tuple[Element, ...] = (Element("URI", _GROUP_URI + grant.grantee.value),)
        kind = "Group"
    else:
        name = grant.grantee.decode("utf-8", "replace")
        inside, kind = (Element("ID", name), Element("DisplayName", name)), "CanonicalUser"
    grantee = Element("Grantee", inside, _SCHEMA.format(kind))
    return Element("Grant", (grantee, Element("Permission", grant.permission.value)))
