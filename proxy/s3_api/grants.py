"""S3's ACLs: in headers, canned or grant by grant, in XML both ways, and as they are stored.

Owns the attribute in which they stand, of a bucket and of an object alike: items with commas between, each a grantee, `=`, and
a permission. Who may do what is decided in `proxy/auth`; the owner may do everything without a grant, and is not among them.

    group:AllUsers=READ,account:AUTH_test=FULL_CONTROL      an account's name is percent-encoded

An object belongs to the account of its bucket, whoever put it there, so what is canned for the bucket's owner grants nothing.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from proxy.auth.decisions import Grant, Group, Permission
from proxy.s3_api.errors import S3Error, invalid_argument, not_implemented
from proxy.s3_api.xml import Element, Node, XmlRefused, write_document
from swiftlike.names import ACCOUNT_BYTES_MAX, NameRefused, check_name

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
_GRANT_HEADERS: Final = {
    "x-amz-grant-read": Permission.READ,
    "x-amz-grant-write": Permission.WRITE,
    "x-amz-grant-read-acp": Permission.READ_ACP,
    "x-amz-grant-write-acp": Permission.WRITE_ACP,
    "x-amz-grant-full-control": Permission.FULL_CONTROL,
}
GRANTS_MAX: Final = 100
_GROUP_URI: Final = "http://acs.amazonaws.com/groups/global/"
_SCHEMA: Final = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{}"'


def canned(name: str) -> tuple[Grant, ...]:
    """Return the grants of a canned ACL. Raises S3Error."""
    if name in _NOT_HERE:
        raise not_implemented(f"the canned ACL {name}")
    if name not in _CANNED:
        raise invalid_argument("", "x-amz-acl", name)
    return _CANNED[name]


def read_headers(headers: Mapping[str, str]) -> tuple[Grant, ...]:
    """Return what the headers of a request grant, one way or the other. Raises S3Error."""
    found: list[Grant] = []
    for header, permission in _GRANT_HEADERS.items():
        value = headers.get(header)
        if value is not None:
            found += [Grant(grantee, permission) for grantee in _grantees(header, value)]
    if "x-amz-acl" not in headers:
        return _checked(found)
    if any(header in headers for header in _GRANT_HEADERS):
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    return canned(headers["x-amz-acl"])


def _grantees(header: str, value: str) -> list[bytes | Group]:
    found = []
    for item in value.split(","):
        kind, equals, name = item.strip().partition("=")
        if not equals:
            raise invalid_argument("Argument format not recognized", header, value)
        found.append(_read_grantee(kind.strip(), name.strip().strip('"')))
    return found


def _read_grantee(kind: str, name: str) -> bytes | Group:
    """Return an account or a group. Raises S3Error."""
    if kind == "uri":
        group = name.removeprefix(_GROUP_URI)
        if group == name or group not in {one.value for one in Group}:
            raise invalid_argument("Invalid group uri", "uri", name)
        return Group(group)
    if kind == "id":
        try:
            return check_name("account", name.encode(), ACCOUNT_BYTES_MAX)
        except (NameRefused, UnicodeEncodeError):
            raise invalid_argument("Invalid id", "CanonicalUser/ID", name) from None
    raise not_implemented(f"a grantee by {kind[:40]}")


def read_policy(document: Node, account: bytes) -> tuple[Grant, ...]:
    """Read the XML of an ACL for something that an account owns. Raises S3Error."""
    try:
        owner = document.first("Owner")
        listed = document.first("AccessControlList")
        if listed is None or (owner is not None and (owner.value("ID") or "").encode() != account):
            raise XmlRefused("it has no AccessControlList, or another Owner")
        found = [_read_grant(node) for node in listed.all("Grant")]
    except (XmlRefused, UnicodeEncodeError):
        raise S3Error("MalformedACLError") from None
    return _checked([grant for grant in found if grant.grantee != account])


def _read_grant(node: Node) -> Grant:
    grantee, permission = node.first("Grantee"), node.value("Permission")
    if grantee is None or permission not in {one.value for one in Permission}:
        raise XmlRefused("a Grant has no Grantee, or no Permission that there is")
    for name, kind in (("ID", "id"), ("URI", "uri"), ("EmailAddress", "EmailAddress")):
        value = grantee.value(name)
        if value is not None:
            return Grant(_read_grantee(kind, value.strip()), Permission(permission))
    raise XmlRefused("a Grantee is nobody")


def _checked(grants: list[Grant]) -> tuple[Grant, ...]:
    found = tuple(dict.fromkeys(grants))
    if len(found) > GRANTS_MAX:
        raise S3Error("MalformedACLError", f"An ACL has at most {GRANTS_MAX} grants.")
    return found


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
