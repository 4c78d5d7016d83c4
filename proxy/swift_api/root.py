"""What needs no account: signing in, what this cluster can do, and whether this proxy lives.

Owns `/auth/v1.0`, `/info` and `/healthcheck`. `/info` names no feature that does not work.
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import quote

from proxy.http.request import Request
from proxy.http.response import Response
from proxy.swift_api.access import Users, unauthorized
from proxy.swift_api.metadata import (
    HEADER_BYTES_MAX,
    ITEMS_MAX,
    NAME_BYTES_MAX,
    TOTAL_BYTES_MAX,
    VALUE_BYTES_MAX,
)
from proxy.swift_api.refusals import PLAIN, told
from swiftlike.config import PolicyConfig
from swiftlike.limits import BODY_BYTES_MAX, LISTING_ROWS_MAX
from swiftlike.names import ACCOUNT_BYTES_MAX, CONTAINER_BYTES_MAX, OBJECT_BYTES_MAX

_JSON: Final = ("Content-Type", "application/json; charset=UTF-8")
_HOST_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]")


def describe_cluster(policies: Sequence[PolicyConfig]) -> bytes:
    """Write what `/info` says."""
    named = [
        {"name": policy.name, "aliases": policy.name}
        | ({"default": True} if policy.default or len(policies) == 1 else {})
        for policy in policies
    ]
    swift = {
        "version": version("swiftlike"),
        "policies": named,
        "max_file_size": BODY_BYTES_MAX,
        "max_meta_name_length": NAME_BYTES_MAX,
        "max_meta_value_length": VALUE_BYTES_MAX,
        "max_meta_count": ITEMS_MAX,
        "max_meta_overall_size": TOTAL_BYTES_MAX,
        "max_header_size": HEADER_BYTES_MAX,
        "max_object_name_length": OBJECT_BYTES_MAX,
        "max_container_name_length": CONTAINER_BYTES_MAX,
        "max_account_name_length": ACCOUNT_BYTES_MAX,
        "account_listing_limit": LISTING_ROWS_MAX,
        "container_listing_limit": LISTING_ROWS_MAX,
        "account_autocreate": True,
        "allow_account_management": True,
        "valid_api_versions": ["v1"],
    }
    return json.dumps({"swift": swift}).encode()


async def sign_in(users: Users, request: Request) -> Response:
    """GET /auth/v1.0: a token for a user and his key."""
    headers = request.headers
    name = headers.get("X-Auth-User") or headers.get("X-Storage-User") or ""
    key = headers.get("X-Auth-Key") or headers.get("X-Storage-Pass") or ""
    account, colon, user = name.partition(":")
    if not account or not colon or not user or not key:
        raise unauthorized("unknown", "Sign in with X-Auth-User: account:user and X-Auth-Key.")
    signed_in = await users.sign_in(account, user, key, deadline=request.deadline)
    if signed_in is None:
        raise unauthorized(account, "These do not fit: no such user, or another key.")
    request.who = name
    return Response(
        200,
        [
            PLAIN,
            ("X-Auth-Token", signed_in.token),
            ("X-Storage-Token", signed_in.token),
            ("X-Auth-Token-Expires", str(signed_in.expires_s)),
            ("X-Storage-Url", f"{request.scheme}://{_host(request)}/v1/{quote(signed_in.account, safe='')}"),
        ],
    )


def _host(request: Request) -> str:
    """Return the host that the client reached us by; what is no host is not repeated."""
    host = request.headers.get("Host", "")
    return host if host and _HOST_CHARACTERS.issuperset(host) else "localhost"


def healthy() -> Response:
    """GET /healthcheck: this proxy answers."""
    return Response(200, [PLAIN], b"OK")


def info(document: bytes) -> Response:
    """GET /info."""
    return Response(200, [_JSON], document)


def not_found() -> Response:
    """Return the answer to a path that is nobody's."""
    return told(404, "There is nothing here.")
