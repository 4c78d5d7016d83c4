"""Copies: COPY with `Destination`, and PUT with `X-Copy-From`.

Owns what of the request speaks of the source and what of the target: conditions are the source's, but for
`If-None-Match: *`, which asks that nothing stands at the target. The copy is described as its source, and what the
request says wins; with `X-Fresh-Metadata` only what the request says.
"""

from urllib.parse import quote

from proxy.auth.decisions import Action
from proxy.http.conditions import NO_CONDITIONS, Conditions, parse_conditions
from proxy.http.response import Response
from proxy.store.names import ObjectName
from proxy.store.values import Condition, Description, ObjectInfo, Received
from proxy.swift_api.asks import Ask
from proxy.swift_api.descriptions import describe_copy, is_true, read_delete_at_us
from proxy.swift_api.facts import last_modified
from proxy.swift_api.objects import condition_of, stored
from proxy.swift_api.paths import parse_account, parse_reference
from proxy.swift_api.refusals import Refusal


async def copy_to(ask: Ask) -> Response:
    """COPY: this object to `Destination`."""
    headers = ask.headers
    if "Destination" not in headers:
        raise Refusal(412, "Destination header required")
    container, name = parse_reference("Destination", headers["Destination"])
    account = ask.resource.account
    if "Destination-Account" in headers:
        account = parse_account("Destination-Account", headers["Destination-Account"])
    return await _copy(ask, ask.resource.of_object, ObjectName(account, container, name))


async def copy_from(ask: Ask) -> Response:
    """PUT: `X-Copy-From` to this object."""
    headers = ask.headers
    if ask.request.body.size != 0:
        raise Refusal(400, "Copy requests require a zero byte body")
    container, name = parse_reference("X-Copy-From", headers["X-Copy-From"])
    account = ask.resource.account
    if "X-Copy-From-Account" in headers:
        account = parse_account("X-Copy-From-Account", headers["X-Copy-From-Account"])
    return await _copy(ask, ObjectName(account, container, name), ask.resource.of_object)


async def _copy(ask: Ask, source: ObjectName, target: ObjectName) -> Response:
    headers = ask.headers
    if "Range" in headers:
        raise Refusal(501, "A copy of a range is not there yet: copy the whole object.")
    await ask.require_by_acl(Action.READ_OBJECT, source.parent)
    await ask.require_by_acl(Action.WRITE_OBJECT, target.parent)
    # What is wrong with the headers is told without asking the cluster.
    describe_copy(headers, {}, target.name)
    delete_at_us = read_delete_at_us(headers, ask.around.now_us())
    fresh = is_true(headers.get("X-Fresh-Metadata"))

    def describe(found: ObjectInfo, received: Received) -> Description:
        due_us = delete_at_us or (0 if fresh else found.delete_at_us)
        attributes = describe_copy(headers, found.attributes, target.name)
        return Description({**attributes, "etag": received.md5}, due_us)

    source_condition, condition = _conditions(parse_conditions(headers))
    found, info = await ask.around.store.objects.copy(
        source,
        target,
        describe,
        deadline=ask.deadline,
        source_condition=source_condition,
        condition=condition,
    )
    response = stored(info)
    response.headers += [
        ("X-Copied-From", f"{quote(source.container, safe='')}/{quote(source.name)}"),
        ("X-Copied-From-Account", quote(source.account, safe="")),
        ("X-Copied-From-Last-Modified", last_modified(found.modified_us)),
    ]
    return response


def _conditions(given: Conditions) -> tuple[Condition | None, Condition | None]:
    """Say which condition is the source's and which the target's."""
    if given is NO_CONDITIONS:
        return None, None
    if given.none_match is not None and given.none_match.anything:
        rest, anything = given._replace(none_match=None), Conditions(none_match=given.none_match)
        return (None if rest == NO_CONDITIONS else condition_of(rest)), condition_of(anything)
    return condition_of(given), None
