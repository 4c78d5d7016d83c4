"""The Swift dialect: which handler a request goes to.

Owns the table of methods, and the order of what is asked before a handler: path, method, features that are not there,
who asks. Never asks for a body.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from proxy.http.errors import RequestError
from proxy.http.request import Request
from proxy.http.response import Response
from proxy.store.errors import StoreError
from proxy.swift_api import accounts, containers, copies, objects, root
from proxy.swift_api.access import identify
from proxy.swift_api.asks import Ask, Surroundings
from proxy.swift_api.later import refuse_later
from proxy.swift_api.paths import parse_resource
from proxy.swift_api.refusals import PLAIN, Refusal, response_to

Handler = Callable[[Ask], Awaitable[Response]]


async def _store_or_copy(ask: Ask) -> Response:
    return await (copies.copy_from(ask) if "X-Copy-From" in ask.headers else objects.store(ask))


ACCOUNT: Final[Mapping[str, Handler]] = {
    "DELETE": accounts.delete,
    "GET": accounts.list_containers,
    "HEAD": accounts.show,
    "POST": accounts.describe,
    "PUT": accounts.make,
}
CONTAINER: Final[Mapping[str, Handler]] = {
    "DELETE": containers.delete,
    "GET": containers.list_objects,
    "HEAD": containers.show,
    "POST": containers.describe,
    "PUT": containers.make,
}
OBJECT: Final[Mapping[str, Handler]] = {
    "COPY": copies.copy_to,
    "DELETE": objects.delete,
    "GET": objects.read,
    "HEAD": objects.read,
    "POST": objects.describe,
    "PUT": _store_or_copy,
}


def _allow(methods: Mapping[str, object]) -> tuple[str, str]:
    return "Allow", ", ".join(sorted([*methods, "OPTIONS"]))


_ALLOWED: Final = {id(table): _allow(table) for table in (ACCOUNT, CONTAINER, OBJECT)}
_ROOT_ALLOWED: Final = _allow({"GET": None, "HEAD": None})


class SwiftApi:
    """The dialect of one worker."""

    def __init__(self, around: Surroundings) -> None:
        """Take what it stands on."""
        self._around = around
        self._info = root.describe_cluster(around.policies)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        try:
            if request.path.startswith(b"/v1/") or request.path == b"/v1":
                return await self._answer(request)
            return await self._answer_root(request)
        except (Refusal, StoreError, RequestError) as error:
            return response_to(error)

    async def _answer(self, request: Request) -> Response:
        resource = parse_resource(request.path)
        table = OBJECT if resource.name else CONTAINER if resource.container else ACCOUNT
        handler = table.get(request.method)
        if handler is None:
            if request.method == "OPTIONS":
                return Response(200, [PLAIN, _ALLOWED[id(table)]])
            raise Refusal(405, "This cannot be done to this resource.", [_ALLOWED[id(table)]])
        refuse_later(request)
        identity = await identify(self._around.users, request)
        return await handler(Ask(self._around, request, identity, resource))

    async def _answer_root(self, request: Request) -> Response:
        path = request.path
        if path not in (b"/healthcheck", b"/info", b"/auth/v1.0", b"/auth/v1", b"/auth/v1.0/", b"/auth/v1/"):
            return root.not_found()
        if not request.reads:
            if request.method == "OPTIONS":
                return Response(200, [PLAIN, _ROOT_ALLOWED])
            raise Refusal(405, "This can only be read.", [_ROOT_ALLOWED])
        if path == b"/healthcheck":
            return root.healthy()
        if path == b"/info":
            return root.info(self._info)
        return await root.sign_in(self._around.users, request)


def speaks_swift(request: Request) -> bool:
    """Say whether a request is in this dialect, when both are served on one port: by its path, unless it is signed as S3
    requests are, since a bucket may be called `info`.
    """
    headers = request.headers
    if headers.get("Authorization", "").startswith("AWS") or "X-Amz-Date" in headers:
        return False
    if request.path.startswith((b"/v1/", b"/auth/")) or request.path in (b"/v1", b"/info", b"/healthcheck"):
        return "X-Auth-Token" in headers or _SIGNED_QUERY.search(request.target.raw_query) is None
    return False


_SIGNED_QUERY: Final = re.compile(r"(?:^|&)(?:X-Amz-Signature|AWSAccessKeyId)=")
"""The parameters that presigned requests have; a value may well look like one."""
