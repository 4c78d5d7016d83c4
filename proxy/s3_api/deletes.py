"""DeleteObjects: up to a thousand keys in one request.

Owns the document of the request and that of the answer. Each key is deleted by itself: one that fails keeps no other.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.auth.decisions import Action
from proxy.http.conditions import Conditions, parse_tags
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import Algorithm
from proxy.s3_api.conditional import condition_of, refusal_of_delete
from proxy.s3_api.errors import S3Error, not_implemented, told
from proxy.s3_api.resources import check_key
from proxy.s3_api.versions import NULL_VERSION
from proxy.s3_api.xml import XML_TYPE, Element, Node, XmlRefused, write_document
from proxy.store.errors import ConditionFailed, StoreError
from proxy.store.names import ContainerName, ObjectName

KEYS_MAX: Final = 1000
DOCUMENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""A thousand of the longest keys, each character written as a reference."""
_AT_ONCE: Final = 16
_CONDITIONS_NOT_HERE: Final = ("LastModifiedTime", "Size")


class Wanted(NamedTuple):
    """One object that is to go."""

    key: str
    version: str | None
    etag: str | None


async def delete_objects(ask: Ask) -> Response:
    """POST of a bucket with `delete`."""
    bucket = await ask.bucket()
    ask.require(Action.DELETE_OBJECT, bucket)
    headers = ask.headers
    promised = ("Content-MD5", "x-amz-trailer", *(algorithm.header for algorithm in Algorithm))
    if not any(name in headers for name in promised):
        raise S3Error(
            "InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
        )
    document = await ask.read_xml("Delete", DOCUMENT_BYTES_MAX)
    if document is None:
        raise S3Error("MalformedXML")
    try:
        wanted, is_quiet = read_wanted(document)
    except XmlRefused:
        raise S3Error("MalformedXML") from None
    del document  # many times what it lists, while a thousand objects are deleted
    results: list[Element] = []
    for at in range(0, len(wanted), _AT_ONCE):
        some = wanted[at : at + _AT_ONCE]
        results += await _delete_some(ask, bucket.name, some, is_quiet)
    return Response(200, [("Content-Type", XML_TYPE)], write_document("DeleteResult", results))


def read_wanted(document: Node) -> tuple[list[Wanted], bool]:
    """Read which keys are to go, and whether the answer tells of failures alone. Raises S3Error, XmlRefused."""
    found = []
    for node in document.all("Object"):
        key = node.value("Key")
        if not key:
            raise XmlRefused("an Object has no Key")
        for name in _CONDITIONS_NOT_HERE:
            if node.first(name) is not None:
                raise not_implemented(f"{name} as the condition of a deletion")
        found.append(Wanted(key, node.value("VersionId"), node.value("ETag")))
    if not 1 <= len(found) <= KEYS_MAX:
        raise XmlRefused(f"there are {len(found)} keys")
    return found, (document.value("Quiet") or "").strip().lower() == "true"


async def _delete_some(
    ask: Ask, container: ContainerName, some: Sequence[Wanted], is_quiet: bool
) -> list[Element]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_delete_one(ask, container, one)) for one in some]
    refusals = [task.result() for task in tasks]
    return [
        _told(one, refusal)
        for one, refusal in zip(some, refusals, strict=True)
        if refusal is not None or not is_quiet
    ]


async def _delete_one(ask: Ask, container: ContainerName, one: Wanted) -> S3Error | None:
    """Delete one object; return why not."""
    conditions = None if one.etag is None else Conditions(match=parse_tags(one.etag))
    try:
        key = check_key(one.key.encode("utf-8", "surrogatepass"))
        if one.version not in (None, "", NULL_VERSION):
            raise S3Error("NoSuchVersion")
        await ask.around.store.objects.delete(
            ObjectName(*container, key), deadline=ask.deadline, condition=condition_of(conditions)
        )
    except ConditionFailed:
        return refusal_of_delete()
    except (S3Error, StoreError) as error:
        return told(error)
    return None


def _told(one: Wanted, refusal: S3Error | None) -> Element:
    elements = [Element("Key", one.key)]
    if one.version:
        elements.append(Element("VersionId", one.version))
    if refusal is None:
        return Element("Deleted", elements)
    return Element("Error", [*elements, Element("Code", refusal.code), Element("Message", str(refusal))])
