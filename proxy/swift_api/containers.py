"""Containers: make, describe, list, delete.

Owns the answers of `/v1/account/container`.
"""

from proxy.auth.decisions import Action
from proxy.http.response import Headers, Response
from proxy.store.values import ObjectPage, Usage
from proxy.swift_api.asks import Ask
from proxy.swift_api.descriptions import read_container
from proxy.swift_api.facts import container_headers
from proxy.swift_api.listings import Format, choose_format, fetch_page, parse_wanted, write_objects
from proxy.swift_api.metadata import merge, text_of
from proxy.swift_api.refusals import Refusal, told
from swiftlike.node_calls import Query


async def show(ask: Ask) -> Response:
    """HEAD: what it holds."""
    decision = await ask.require_by_acl(Action.READ_CONTAINER)
    format_ = choose_format(ask.request.query, ask.headers.get("Accept"))
    return Response(204, await _headers(ask, format_, decision.is_owner, max_age_s=0.0))


async def list_objects(ask: Ask) -> Response:
    """GET: a page of its objects."""
    decision = await ask.require_by_acl(Action.READ_CONTAINER)
    wanted = parse_wanted(ask.request)
    if wanted.format is Format.PLAIN and not wanted.query.delimiter:
        wanted = wanted._replace(query=wanted.query._replace(names_only=True))
    containers, name = ask.around.store.containers, ask.resource.of_container
    usage: Usage | None = None

    async def fetch(query: Query) -> ObjectPage:
        nonlocal usage
        page = await containers.list(name, query, deadline=ask.deadline)
        usage = usage or page.usage
        return page

    items = await fetch_page(wanted, fetch)
    headers = await _headers(ask, wanted.format, decision.is_owner, max_age_s=1.0, usage=usage)
    if not items and wanted.format is Format.PLAIN:
        return Response(204, headers)
    return Response(200, headers, write_objects(wanted.format, name.container, items))


async def _headers(
    ask: Ask, format_: Format, is_owner: bool, max_age_s: float, usage: Usage | None = None
) -> Headers:
    containers, name = ask.around.store.containers, ask.resource.of_container
    info = await containers.read(name, deadline=ask.deadline, max_age_s=max_age_s)
    if usage is None:
        usage = await containers.usage(name, deadline=ask.deadline)
    return [
        ("Content-Type", format_.content_type),
        *container_headers(info, usage, ask.around.policy_names, is_owner),
    ]


async def make(ask: Ask) -> Response:
    """PUT: make it, or describe it anew."""
    ask.require(Action.CREATE_CONTAINER)
    changes = read_container(ask.headers)
    _, created = await ask.around.store.containers.create(
        ask.resource.of_container,
        lambda old: merge(old, changes),
        _policy(ask),
        deadline=ask.deadline,
    )
    return told(201 if created else 202)


def _policy(ask: Ask) -> int | None:
    """Return the policy that is asked for by name, whatever its case; None: the default."""
    header = ask.headers.get("X-Storage-Policy")
    if not header:
        return None
    wanted = text_of("X-Storage-Policy", header).lower()
    for policy in ask.around.policies:
        if policy.name.lower() == wanted:
            return policy.index
    raise Refusal(400, "Invalid X-Storage-Policy: no storage policy has this name.")


async def describe(ask: Ask) -> Response:
    """POST: change its metadata and ACLs."""
    ask.require(Action.DESCRIBE_CONTAINER)
    changes = read_container(ask.headers)
    await ask.around.store.containers.describe(
        ask.resource.of_container, lambda old: merge(old, changes), deadline=ask.deadline
    )
    return told(204)


async def delete(ask: Ask) -> Response:
    """DELETE: an empty one."""
    ask.require(Action.DELETE_CONTAINER)
    await ask.around.store.containers.delete(ask.resource.of_container, deadline=ask.deadline)
    return told(204)
