"""Accounts: list, describe, make, delete.

Owns the answers of `/v1/account`. One that nobody wrote yet is there, and empty.
"""

from proxy.auth.decisions import Action
from proxy.http.response import Response
from proxy.store.errors import AccountDeleted
from proxy.swift_api.asks import Ask
from proxy.swift_api.facts import account_headers
from proxy.swift_api.listings import Format, choose_format, fetch_page, parse_wanted, write_containers
from proxy.swift_api.metadata import merge, read_metadata
from proxy.swift_api.refusals import Refusal, told


async def show(ask: Ask) -> Response:
    """HEAD: what it holds."""
    ask.require(Action.READ_ACCOUNT)
    format_ = choose_format(ask.request.query, ask.headers.get("Accept"))
    return Response(204, await _headers(ask, format_))


async def list_containers(ask: Ask) -> Response:
    """GET: a page of its containers."""
    ask.require(Action.READ_ACCOUNT)
    wanted = parse_wanted(ask.request)
    headers = await _headers(ask, wanted.format)
    accounts, account = ask.around.store.accounts, ask.resource.account
    items = await fetch_page(wanted, lambda query: accounts.list(account, query, deadline=ask.deadline))
    if not items and wanted.format is Format.PLAIN:
        return Response(204, headers)
    return Response(200, headers, write_containers(wanted.format, account, items))


async def _headers(ask: Ask, format_: Format) -> list[tuple[str, str]]:
    accounts, account = ask.around.store.accounts, ask.resource.account
    try:
        info = await accounts.read(account, deadline=ask.deadline)
    except AccountDeleted:
        raise Refusal(410, "The account was deleted.") from None
    usage = await accounts.usage(account, deadline=ask.deadline)
    return [
        ("Content-Type", format_.content_type),
        *account_headers(info, usage, ask.around.policy_names),
    ]


async def make(ask: Ask) -> Response:
    """PUT: make it, or describe it anew; for a reseller_admin."""
    ask.require(Action.CREATE_ACCOUNT)
    return told(201 if await _write(ask) else 202)


async def describe(ask: Ask) -> Response:
    """POST: change its metadata."""
    ask.require(Action.DESCRIBE_ACCOUNT)
    await _write(ask)
    return told(204)


async def _write(ask: Ask) -> bool:
    changes = read_metadata(ask.headers, "Account")
    return await ask.around.store.accounts.write(
        ask.resource.account, lambda old: merge(old, changes), deadline=ask.deadline
    )


async def delete(ask: Ask) -> Response:
    """DELETE: mark it deleted; for a reseller_admin."""
    ask.require(Action.DELETE_ACCOUNT)
    if ask.request.target.raw_query:
        raise Refusal(400, "DELETE of an account takes no parameters: did you mean something in it?")
    await ask.around.store.accounts.delete(ask.resource.account, deadline=ask.deadline)
    return told(204)
