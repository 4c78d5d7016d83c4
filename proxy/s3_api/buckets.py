"""Buckets: list, make, look, delete, and where they are.

Owns the answers of `/` and `/bucket`, but for listings of objects and for sub-resources that are not there.
"""

import asyncio
from typing import Final

from proxy.auth.decisions import NO_ACLS, Action
from proxy.auth.identities import account_of
from proxy.http.response import Headers, Response
from proxy.s3_api.access import require
from proxy.s3_api.asks import Ask
from proxy.s3_api.descriptions import read_acl
from proxy.s3_api.errors import S3Error, invalid_argument, not_implemented
from proxy.s3_api.grants import ATTRIBUTE as GRANTS
from proxy.s3_api.grants import (
    owner_element,
    read_grants,
    read_headers,
    read_policy,
    write_grants,
    write_policy,
)
from proxy.s3_api.listings import iso, read_number
from proxy.s3_api.resources import check_bucket
from proxy.s3_api.tokens import TokenRefused, read_token, write_token
from proxy.s3_api.xml import XML_TYPE, Element, write_document
from proxy.store.buckets import is_bucket_name
from proxy.store.errors import AccountDeleted, NoSuchContainer
from proxy.store.names import ContainerName
from proxy.store.values import Attributes, ListedContainer, ListedPrefix
from swiftlike.node_calls import Query

BUCKETS_MAX: Final = 10_000
"""In one answer."""
_LOOKS_AT_ONCE: Final = 32
DEFAULT_REGION: Final = "us-east-1"


def _own_account(ask: Ask) -> bytes:
    """Return the account of whoever asks. Raises S3Error."""
    if ask.identity.is_anonymous:
        raise S3Error("AccessDenied")
    return account_of(ask.identity.account)


async def list_buckets(ask: Ask) -> Response:
    """GET of the service: the asker's own buckets."""
    account = _own_account(ask)
    require(ask.identity, Action.READ_ACCOUNT, account, ask.headers, NO_ACLS)
    prefix, token = ask.text("prefix").encode(), ask.text("continuation-token")
    region = ask.text("bucket-region")
    wanted = read_number(ask, "max-buckets", BUCKETS_MAX, BUCKETS_MAX)
    if not wanted:
        raise invalid_argument(f"max-buckets must be from 1 to {BUCKETS_MAX}", "max-buckets", "0")
    try:
        marker = read_token(token) if token else b""
    except TokenRefused:
        raise invalid_argument("The continuation token is not valid", "continuation-token", token) from None
    found: list[ListedContainer] = []
    if region in ("", ask.around.rules.region):
        found = await _own_buckets(ask, account, prefix, marker, wanted + 1)
    shown = found[:wanted]
    elements = [owner_element(account), Element("Buckets", tuple(_bucket(ask, one) for one in shown))]
    if len(found) > wanted:
        elements.append(Element("ContinuationToken", write_token(shown[-1].name)))
    if prefix:
        elements.append(Element("Prefix", prefix.decode()))
    return Response(200, [("Content-Type", XML_TYPE)], write_document("ListAllMyBucketsResult", elements))


def _bucket(ask: Ask, listed: ListedContainer) -> Element:
    facts = (
        Element("Name", listed.name.decode()),
        Element("CreationDate", iso(listed.modified_us)),
        Element("BucketRegion", ask.around.rules.region),
    )
    return Element("Bucket", facts)


async def _own_buckets(
    ask: Ask, account: bytes, prefix: bytes, marker: bytes, limit: int
) -> list[ListedContainer]:
    """Return containers of an account that are buckets: those whose names are its own among all accounts."""
    found: list[ListedContainer] = []
    query = Query(prefix=prefix, marker=marker, limit=min(limit, BUCKETS_MAX))
    while len(found) < limit:
        try:
            page = await ask.around.store.accounts.list(account, query, deadline=ask.deadline)
        except AccountDeleted:
            return []
        legal = [
            item for item in page.items if not isinstance(item, ListedPrefix) and is_bucket_name(item.name)
        ]
        for at in range(0, len(legal), _LOOKS_AT_ONCE):
            some = legal[at : at + _LOOKS_AT_ONCE]
            owners = await asyncio.gather(
                *(ask.around.buckets.owner(one.name, deadline=ask.deadline) for one in some),
                return_exceptions=True,
            )
            for one, owner in zip(some, owners, strict=True):
                if isinstance(owner, BaseException):
                    raise owner
                if owner == account:
                    found.append(one)
        if page.more is None:
            break
        query = query._replace(marker=page.more)
    return found[:limit]


async def make(ask: Ask) -> Response:
    """PUT of a bucket."""
    name = check_bucket(ask.resource.bucket)
    account = _own_account(ask)
    require(ask.identity, Action.CREATE_CONTAINER, account, ask.headers, NO_ACLS)
    await _check_location(ask)
    acl = read_acl(ask.headers)
    container = ContainerName(account, name)
    region = ask.around.rules.region
    buckets = ask.around.buckets
    is_mine = await buckets.owner(name, deadline=ask.deadline, max_age_s=0) == account
    if is_mine and region != DEFAULT_REGION and await _is_there(ask, container):
        raise S3Error("BucketAlreadyOwnedByYou", facts={"BucketName": name.decode()})

    def describe(old: Attributes) -> Attributes:
        kept = {attribute: value for attribute, value in old.items() if attribute != GRANTS}
        return kept | acl

    await buckets.create(container, describe, None, deadline=ask.deadline, must_be_bucket=True)
    return Response(200, [("Location", f"/{name.decode()}")])


async def _is_there(ask: Ask, container: ContainerName) -> bool:
    try:
        await ask.around.store.containers.read(container, deadline=ask.deadline, max_age_s=0)
    except NoSuchContainer:
        return False
    return True


async def _check_location(ask: Ask) -> None:
    """Read where a bucket is to be: here, or nowhere in particular. Raises S3Error."""
    document = await ask.read_xml("CreateBucketConfiguration")
    if document is None:
        return
    for child in document.children:
        if child.name != "LocationConstraint":
            raise not_implemented(f"{child.name} of a new bucket")
        wanted = child.text.strip()
        if wanted not in ("", DEFAULT_REGION, ask.around.rules.region):
            raise S3Error(
                "IllegalLocationConstraintException",
                f"The {wanted[:60]} location constraint is incompatible for the region specific endpoint this request was "
                "sent to.",
            )


def _region_header(ask: Ask) -> Headers:
    return [("x-amz-bucket-region", ask.around.rules.region)]


async def look(ask: Ask) -> Response:
    """HEAD of a bucket, which is how clients ask whether it is there: so what was seen before does not do.

    Where it is, is told to those too who may not look into it, since clients find out by this whom to ask next.
    """
    bucket = await ask.bucket(max_age_s=0.0)
    if not ask.may(Action.READ_CONTAINER, bucket):
        raise S3Error("AccessDenied", headers=_region_header(ask))
    return Response(200, [*_region_header(ask), ("Content-Type", XML_TYPE)])


async def delete(ask: Ask) -> Response:
    """DELETE of a bucket that is empty."""
    bucket = await ask.bucket()
    ask.require(Action.DELETE_CONTAINER, bucket)
    await ask.around.buckets.delete(bucket.name, deadline=ask.deadline)
    return Response(204)


async def show_location(ask: Ask) -> Response:
    """GET of `location`, which tells that a bucket is there, as HEAD does."""
    bucket = await ask.bucket(max_age_s=0.0)
    ask.require(Action.DESCRIBE_CONTAINER, bucket)
    region = ask.around.rules.region
    document = write_document("LocationConstraint", (), text="" if region == DEFAULT_REGION else region)
    return Response(200, [("Content-Type", XML_TYPE)], document)


async def show_acl(ask: Ask) -> Response:
    """GET of a bucket's `acl`."""
    bucket = await ask.bucket()
    ask.require(Action.READ_CONTAINER_ACL, bucket)
    grants = read_grants(bucket.attributes.get(GRANTS, ""))
    return Response(200, [("Content-Type", XML_TYPE)], write_policy(bucket.name.account, grants))


async def write_acl(ask: Ask) -> Response:
    """PUT of a bucket's `acl`."""
    bucket = await ask.bucket()
    ask.require(Action.WRITE_CONTAINER_ACL, bucket)
    acl = await read_new_acl(ask, bucket.name.account)

    def describe(old: Attributes) -> Attributes:
        return {attribute: value for attribute, value in old.items() if attribute != GRANTS} | acl

    await ask.around.store.containers.describe(bucket.name, describe, deadline=ask.deadline)
    return Response(200)


async def read_new_acl(ask: Ask, account: bytes) -> dict[str, str]:
    """Return the ACL that a request brings, in headers or in XML, for something that an account owns. Raises S3Error."""
    document = await ask.read_xml("AccessControlPolicy")
    if document is None:
        if "x-amz-acl" not in ask.headers and not read_headers(ask.headers):
            raise S3Error("MissingSecurityHeader", facts={"MissingHeaderName": "x-amz-acl"})
        return read_acl(ask.headers)
    if read_headers(ask.headers) or "x-amz-acl" in ask.headers:
        raise S3Error("InvalidRequest", "An ACL comes in headers or in a document, not in both.")
    grants = read_policy(document, account)
    return {GRANTS: write_grants(grants)} if grants else {}
