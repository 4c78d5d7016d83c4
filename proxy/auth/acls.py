"""Container ACLs as Swift writes them: parsed, written in one form, and what each item of them matches.

Owns the grammar of `X-Container-Read` and `X-Container-Write`. Who may do what is decided elsewhere.

    .r:*             anyone, whatever page he comes from
    .r:host          whoever comes from a page of that host, by his Referer
    .r:.domain       whoever comes from a page of a host that ends so
    .r:-host         not those; of several .r: items the last one that matches has its way
    .rlistings       those whom .r: lets in may list, too
    account          every user of an account; also account:*
    account:user     one user
    *:user           a user of that name in any account
    *                whoever has shown who he is; also *:*

`.ref:`, `.referer:` and `.referrer:` read as `.r:`. Items are separated by commas; spaces around them are dropped. A write
ACL holds no `.r:` and no `.rlistings`: a Referer is whatever its sender says.
Source: the access control page of OpenStack Swift's documentation.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from proxy.auth.identities import Identity

ACL_BYTES_MAX: Final = 8_192
"""As long as a header may be."""

ANY: Final = "*"
_NAMELESS: Final = frozenset(":*/")
_REFERRER: Final = frozenset({".r", ".ref", ".referer", ".referrer"})
_HOST: Final = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", re.ASCII)
_NAME: Final = re.compile(r"[!-~]+", re.ASCII)


class AclRefused(ValueError):
    """A text that is no ACL; the sentence is for the client."""


class Referrer(NamedTuple):
    """Whoever comes from a page of a host, or does not."""

    host: str
    """`*`, a host, or a domain with its leading dot; in lower case."""
    is_refused: bool = False

    def __str__(self) -> str:
        """Write it as an item."""
        return f".r:{'-' * self.is_refused}{self.host}"

    def covers(self, host: str) -> bool:
        """Whether a page's host is meant."""
        return self.host in (ANY, host) or (self.host.startswith(".") and host.endswith(self.host))


class Listings(NamedTuple):
    """Those whom `.r:` lets in may list, too."""

    def __str__(self) -> str:
        """Write it as an item."""
        return ".rlistings"


class Members(NamedTuple):
    """Users who have shown who they are: by account and name, `*` for any."""

    account: str
    user: str | None = None
    """None: any, and not written down; `*` means the same."""

    def __str__(self) -> str:
        """Write it as an item."""
        return self.account if self.user is None else f"{self.account}:{self.user}"

    def has(self, identity: Identity) -> bool:
        """Whether a user is meant."""
        return (
            not identity.is_anonymous
            and self.account in (ANY, identity.account)
            and self.user in (None, ANY, identity.user)
        )


Item: TypeAlias = Referrer | Listings | Members


@dataclass(frozen=True, slots=True)
class Acl:
    """What one header grants: its items in their order."""

    items: tuple[Item, ...] = ()

    def __str__(self) -> str:
        """Write it in its one form, which parses to the same."""
        return ",".join(map(str, self.items))

    def names(self, identity: Identity) -> Members | None:
        """Return the item that means this user."""
        return next((one for one in self.items if isinstance(one, Members) and one.has(identity)), None)

    def welcomes(self, referer: str) -> Referrer | None:
        """Return the item that lets in whoever comes from a page, by his Referer header; it may be empty."""
        host = _host_of(referer)
        last = next(
            (one for one in reversed(self.items) if isinstance(one, Referrer) and one.covers(host)), None
        )
        return None if last is None or last.is_refused else last

    @property
    def grants_listings(self) -> bool:
        """Whether those whom a referrer item lets in may list."""
        return any(isinstance(one, Listings) for one in self.items)


NOBODY: Final = Acl()


@lru_cache(maxsize=1_024)
def parse_acl(text: str, *, is_write: bool = False) -> Acl:
    """Read an ACL; an empty text grants nothing. Raises AclRefused.

    Remembered, since every request to a container reads the same texts again.
    """
    if len(text) > ACL_BYTES_MAX:  # an item that is not ASCII is refused, so characters are bytes
        raise AclRefused(f"the ACL is over {ACL_BYTES_MAX} bytes long")
    items = [item for item in (item.strip() for item in text.split(",")) if item]
    return Acl(tuple(_parse_item(item, is_write) for item in items))


def _parse_item(item: str, is_write: bool) -> Item:
    first, colon, second = (part.strip() for part in item.partition(":"))
    if first.startswith("."):
        if is_write:
            raise AclRefused(f"{item!r} cannot stand in a write ACL: anyone can send a Referer")
        if item == ".rlistings":
            return Listings()
        if colon and first.lower() in _REFERRER:
            return _parse_referrer(item, second)
        raise AclRefused(f"{item!r} is unknown: an item that begins with a dot is .r:<host> or .rlistings")
    for name in (first, second) if colon else (first,):
        if name != ANY and (not _NAME.fullmatch(name) or not _NAMELESS.isdisjoint(name)):
            raise AclRefused(
                f"{item!r} is no ACL item: write account, account:user, *:user, .r:<host> or .rlistings"
            )
    return Members(first, second if colon else None)


def _parse_referrer(item: str, host: str) -> Referrer:
    is_refused = host.startswith("-")
    if is_refused:
        host = host[1:].strip()
    if host.startswith("*."):
        host = host[1:]  # *.example.com is a common way to write .example.com
    host = host.lower()
    if host != ANY and not _HOST.fullmatch(host):
        raise AclRefused(f"{item!r} names no host: write .r:*, .r:www.example.com or .r:.example.com")
    return Referrer(host, is_refused)


def _host_of(referer: str) -> str:
    """Return the host of a page's address, in lower case; empty when it has none."""
    try:
        host = urlsplit(referer).hostname or ""
    except ValueError:
        return ""
    return f"[{host}]" if ":" in host else host
