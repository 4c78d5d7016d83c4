"""Who asks, and what he may do: the door to `proxy/auth`.

Owns what of a request a signature is held against, and how a denial is told. Never decides.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from proxy.auth.acls import parse_acl
from proxy.auth.decisions import Acls, Action, Decision, decide
from proxy.auth.identities import ANONYMOUS, Identity
from proxy.http.request import Request
from proxy.s3_api.claims import read_claim
from proxy.s3_api.errors import S3Error
from proxy.s3_api.grants import ATTRIBUTE as GRANTS
from proxy.s3_api.grants import read_grants
from proxy.s3_api.signatures import Head, Proven, Rules
from proxy.store.values import Attributes


class SignedUser(Protocol):
    """A user of the cluster, as far as this dialect looks."""

    @property
    def identity(self) -> Identity:
        """Who it is."""


class Users(Protocol):
    """Those who know users."""

    async def by_access_key(self, access_key: str, *, deadline: float) -> tuple[SignedUser, str] | None:
        """Return whose S3 key it is, and its secret; None when it is nobody's."""


class Asker(NamedTuple):
    """Who asks, and what his signature proves of the body."""

    identity: Identity
    proven: Proven | None
    """None: nobody signed."""


async def identify(users: Users, request: Request, bucket: str, rules: Rules, now_us: int) -> Asker:
    """Return who asks; nobody in particular without a signature. Raises SignatureRefused, S3Error."""
    head = Head(
        request.method,
        request.target.raw_path,
        request.target.raw_query,
        tuple((name.lower(), value) for name, value in request.headers.items()),
        bucket,
    )
    claim = read_claim(head, rules, now_us)
    if claim is None:
        return Asker(ANONYMOUS, None)
    user, secret = await find_signer(users, claim.access_key, request.deadline)
    proven = claim.prove(secret)
    request.who = user.identity.name
    return Asker(user.identity, proven)


async def find_signer(users: Users, access_key: str, deadline: float) -> tuple[SignedUser, str]:
    """Return whose key it is, and the secret that goes with it. Raises S3Error when it is nobody's."""
    found = await users.by_access_key(access_key, deadline=deadline)
    if found is None:
        raise S3Error("InvalidAccessKeyId", facts={"AWSAccessKeyId": access_key[:128]})
    return found


def acls_of(bucket: Attributes, of_object: Attributes | None = None) -> Acls:
    """Return what was granted, by either dialect, on a bucket and on an object of it."""
    return Acls(
        parse_acl(bucket.get("sys:read-acl", "")),
        parse_acl(bucket.get("sys:write-acl", ""), is_write=True),
        read_grants(bucket.get(GRANTS, "")),
        () if of_object is None else read_grants(of_object.get(GRANTS, "")),
    )


def require(
    identity: Identity, action: Action, account: bytes, headers: Mapping[str, str], acls: Acls
) -> Decision:
    """Return the decision when it allows. Raises S3Error."""
    decision = decide(identity, action, account, acls, referer=headers.get("Referer", ""))
    if not decision.allowed:
        raise S3Error("AccessDenied")
    return decision
