"""The S3 dialect: which handler a request goes to.

Owns the table of operations, and the order of what is asked before a handler: what the request is about, who asks, features
that are not there. Never asks for a body.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from proxy.http.errors import RequestError
from proxy.http.request import Request
from proxy.http.response import Response
from proxy.s3_api import (
    attributes,
    buckets,
    completing,
    copies,
    deletes,
    listings,
    multipart,
    objects,
    part_copies,
    posts,
    tags,
    upload_listings,
)
from proxy.s3_api.access import identify
from proxy.s3_api.asks import Ask, Surroundings
from proxy.s3_api.errors import S3Error, Told, invalid_argument, response_to
from proxy.s3_api.hoisted import unhoist
from proxy.s3_api.later import refuse_later
from proxy.s3_api.probes import BUCKET_PROBES, OBJECT_PROBES, probe_bucket, probe_object
from proxy.s3_api.resources import Resource, bucket_of_host, parse_resource
from proxy.s3_api.signatures import SignatureRefused
from proxy.s3_api.versions import check_no_version
from proxy.store.errors import StoreError

log: Final = logging.getLogger("proxy.s3_api")

Handler = Callable[[Ask], Awaitable[Response]]


async def _store_or_copy(ask: Ask) -> Response:
    if ask.request.target.raw_query and "partNumber" in ask.request.query:
        raise invalid_argument("A part number needs an upload ID.", "partNumber", ask.text("partNumber"))
    return await (copies.copy(ask) if copies.SOURCE in ask.headers else objects.store(ask))


async def _send_or_copy_part(ask: Ask) -> Response:
    return await (part_copies.copy_part(ask) if copies.SOURCE in ask.headers else multipart.send_part(ask))


_SERVICE: Final[Mapping[tuple[str, str], Handler]] = {("GET", ""): buckets.list_buckets}
_BUCKET: Final[Mapping[tuple[str, str], Handler]] = {
    ("GET", ""): listings.list_objects,
    ("HEAD", ""): buckets.look,
    ("PUT", ""): buckets.make,
    ("DELETE", ""): buckets.delete,
    ("POST", ""): posts.post,
    ("GET", "acl"): buckets.show_acl,
    ("PUT", "acl"): buckets.write_acl,
    ("GET", "location"): buckets.show_location,
    ("GET", "versions"): listings.list_versions,
    ("GET", "uploads"): upload_listings.list_uploads,
    ("POST", "delete"): deletes.delete_objects,
}
_OBJECT: Final[Mapping[tuple[str, str], Handler]] = {
    ("GET", ""): objects.read,
    ("HEAD", ""): objects.read,
    ("PUT", ""): _store_or_copy,
    ("DELETE", ""): objects.delete,
    ("POST", "uploads"): multipart.begin,
    ("GET", "uploadId"): upload_listings.list_parts,
    ("PUT", "uploadId"): _send_or_copy_part,
    ("POST", "uploadId"): completing.complete,
    ("DELETE", "uploadId"): multipart.abort,
    ("GET", "acl"): objects.show_acl,
    ("PUT", "acl"): objects.write_acl,
    ("GET", "attributes"): attributes.show,
    ("GET", "tagging"): tags.show,
    ("PUT", "tagging"): tags.write,
    ("DELETE", "tagging"): tags.delete,
}
"""What is done, by method and sub-resource."""

_OF_VERSIONS: Final = frozenset(
    {(method, part) for method in ("GET", "HEAD", "DELETE") for part in ("", "acl", "attributes", "tagging")}
    | {("PUT", "acl"), ("PUT", "tagging")}
)
"""What may name a version of an object; the others make one, or have nothing to do with any."""

_PARTS: Final = (
    frozenset(name for table in (_BUCKET, _OBJECT) for _, name in table) | BUCKET_PROBES | OBJECT_PROBES
) - {""}
"""All sub-resources, whatever they are of: what a bucket has and an object has not is refused there, never taken for the object."""
_NOTHING: Final = frozenset[str]()
_METHODS: Final = "GET, HEAD, PUT, POST, DELETE"


def part_of(names: Collection[str], known: frozenset[str]) -> str:
    """Return the sub-resource that parameters name; empty: none. Raises S3Error when there are several."""
    found = sorted(known.intersection(names))
    if len(found) > 1:
        if found == ["uploadId", "uploads"] or "uploadId" not in found:
            raise S3Error(
                "InvalidArgument",
                "Conflicting query string parameters: " + ", ".join(found),
                {"ArgumentName": "ResourceType", "ArgumentValue": found[0]},
            )
        return "uploadId"
    return found[0] if found else ""


class S3Api:
    """The dialect of one worker."""

    def __init__(self, around: Surroundings) -> None:
        """Take what it stands on."""
        self._around = around

    def is_named_by_host(self, request: Request) -> bool:
        """Whether the host names a bucket: then the request is in this dialect, whatever its path."""
        domain = self._around.domain
        return bool(domain and bucket_of_host(request.headers.get("Host", ""), domain))

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        try:
            return self._named(await self._answer(request), request)
        except (S3Error, StoreError, RequestError, SignatureRefused) as error:
            return self._refuse(error, request)
        except Exception:
            # Clients of this dialect take an error without a code for a proxy of somebody else's in between.
            log.exception("%s: %s %s failed", request.transaction_id, request.method, request.target.raw_path)
            return self._refuse(S3Error("InternalError"), request)

    async def refuse(self, request: Request, refusal: RequestError) -> Response:
        """Answer a request of which nothing could be read but its head."""
        return self._refuse(refusal, request)

    async def slow_down(self, request: Request) -> Response:
        """Answer a request for which there is no room."""
        return self._refuse(S3Error("SlowDown"), request)

    def _refuse(self, error: Told, request: Request) -> Response:
        return self._named(response_to(error, request, self._around.host_id), request)

    def _named(self, response: Response, request: Request) -> Response:
        """Put on an answer what it is asked about by."""
        response.headers.append(("x-amz-request-id", request.transaction_id))
        response.headers.append(("x-amz-id-2", self._around.host_id))
        return response

    async def _answer(self, request: Request) -> Response:
        around = self._around
        bucket = bucket_of_host(request.headers.get("Host", ""), around.domain)
        resource = parse_resource(request.path, bucket)
        if request.method == "OPTIONS":
            raise S3Error("AccessForbidden")
        handler = self._handler(request, resource)
        asker = await identify(around.users, request, bucket, around.rules, around.now_us())
        unhoist(request)
        refuse_later(request.headers)
        return await handler(Ask(around, request, asker, resource))

    def _handler(self, request: Request, resource: Resource) -> Handler:
        """Return what answers a request. Raises S3Error, TargetRefused."""
        if resource.key:
            table, probes, probe = _OBJECT, OBJECT_PROBES, probe_object
        elif resource.bucket:
            table, probes, probe = _BUCKET, BUCKET_PROBES, probe_bucket
        else:
            table, probes, probe = _SERVICE, _NOTHING, probe_bucket
        part = part_of(request.query, _PARTS) if request.target.raw_query else ""
        handler = table.get((request.method, part))
        if handler is not None:
            if table is _OBJECT and (request.method, part) not in _OF_VERSIONS:
                check_no_version(request)
            return handler
        if part not in probes:
            raise S3Error("MethodNotAllowed", headers=[("Allow", _METHODS)])
        return lambda ask: probe(ask, part)
