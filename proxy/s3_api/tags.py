"""Tags of an object: their limits, in a header and in XML, and as they are kept.

Owns the attribute in which they stand: pairs as in a query, in the order in which they came.
"""

from typing import Final
from urllib.parse import quote, unquote_to_bytes

from proxy.auth.decisions import Action
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.errors import S3Error
from proxy.s3_api.versions import check_version
from proxy.s3_api.xml import XML_TYPE, Element, Node, XmlRefused, write_document
from proxy.store.names import ObjectName
from proxy.store.values import Attributes, Description, ObjectInfo

ATTRIBUTE: Final = "sys:s3-tags"
TAGGING: Final = Action.DESCRIBE_CONTAINER
"""What whoever reads or writes tags must be allowed: no ACL grants it, so it is the owner's."""
TAGS_MAX: Final = 10
KEY_MAX: Final = 128
VALUE_MAX: Final = 256
"""Characters."""
_RESERVED: Final = "aws:"
"""What no client's key begins with."""


Tags = dict[str, str]


def check_tags(pairs: list[tuple[str, str]]) -> Tags:
    """Return tags that an object can have. Raises S3Error."""
    if len(pairs) > TAGS_MAX:
        raise S3Error("BadRequest", f"Object tags cannot be greater than {TAGS_MAX}")
    found: Tags = {}
    for key, value in pairs:
        if not 1 <= len(key) <= KEY_MAX:
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", {"TagKey": key[:KEY_MAX]})
        if key[: len(_RESERVED)].lower() == _RESERVED:
            raise S3Error("InvalidTag", "System tags cannot be added/updated by requester", {"TagKey": key})
        if len(value) > VALUE_MAX:
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", {"TagKey": key})
        if key in found:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", {"TagKey": key})
        found[key] = value
    return found


def write_tags(tags: Tags) -> str:
    """Write tags down, as they are kept; none: an empty text."""
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in tags.items())


def read_tags(text: str) -> Tags:
    """Read what `write_tags` wrote."""
    return dict(_pairs(text))


def _pairs(text: str) -> list[tuple[str, str]]:
    found = []
    for item in text.split("&"):
        if item:
            key, _, value = item.replace("+", " ").partition("=")
            found.append((unquote_to_bytes(key).decode(), unquote_to_bytes(value).decode()))
    return found


def read_header(value: str | None) -> dict[str, str]:
    """Return the tags of `x-amz-tagging`, pairs as in a query, as an attribute; none: none. Raises S3Error."""
    if not value:
        return {}
    try:
        text = write_tags(check_tags(_pairs(value)))
    except UnicodeError:
        raise S3Error("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8.") from None
    return {ATTRIBUTE: text} if text else {}


def read_document(document: Node | None) -> Tags:
    """Return the tags of a Tagging document. Raises S3Error."""
    try:
        listed = None if document is None else document.first("TagSet")
        if listed is None:
            raise XmlRefused("it has no TagSet")
        pairs = []
        for node in listed.all("Tag"):
            key, value = node.value("Key"), node.value("Value")
            if key is None or value is None:
                raise XmlRefused("a Tag has no Key, or no Value")
            pairs.append((key, value))
    except XmlRefused:
        raise S3Error("MalformedXML") from None
    return check_tags(pairs)


# --- the handlers -------------------------------------------------------------------------------------------------


async def show(ask: Ask) -> Response:
    """GET of an object's `tagging`."""
    check_version(ask)
    bucket = await ask.bucket()
    ask.require(TAGGING, bucket)
    info, _ = await ask.find_object(ask.object_in(bucket), bucket, inline_bytes=0)
    tags = read_tags(info.attributes.get(ATTRIBUTE, ""))
    listed = tuple(
        Element("Tag", (Element("Key", key), Element("Value", value))) for key, value in tags.items()
    )
    return Response(
        200, [("Content-Type", XML_TYPE)], write_document("Tagging", (Element("TagSet", listed),))
    )


async def write(ask: Ask) -> Response:
    """PUT of an object's `tagging`."""
    check_version(ask)
    bucket = await ask.bucket()
    ask.require(TAGGING, bucket)
    text = write_tags(read_document(await ask.read_xml("Tagging")))
    await _describe(ask, ask.object_in(bucket), {ATTRIBUTE: text} if text else {})
    return Response(200)


async def delete(ask: Ask) -> Response:
    """DELETE of an object's `tagging`."""
    check_version(ask)
    bucket = await ask.bucket()
    ask.require(TAGGING, bucket)
    await _describe(ask, ask.object_in(bucket), {})
    return Response(204)


async def _describe(ask: Ask, name: ObjectName, tags: Attributes) -> None:
    def describe(old: ObjectInfo) -> Description:
        kept = {attribute: value for attribute, value in old.attributes.items() if attribute != ATTRIBUTE}
        return Description(kept | dict(tags), old.delete_at_us, is_modified=False)

    await ask.around.store.objects.describe(name, describe, deadline=ask.deadline)
