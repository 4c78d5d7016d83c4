"""GetObjectAttributes: some facts of an object, by name.

Owns the names and the document.
"""

from typing import Final

from proxy.auth.decisions import Action
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import coverage_of, kept
from proxy.s3_api.descriptions import last_modified
from proxy.s3_api.errors import invalid_argument
from proxy.s3_api.later import STANDARD
from proxy.s3_api.versions import check_version
from proxy.s3_api.xml import XML_TYPE, Element, write_document
from proxy.store.values import ObjectInfo

_HEADER: Final = "x-amz-object-attributes"
_NAMES: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


async def show(ask: Ask) -> Response:
    """GET of an object's `attributes`."""
    check_version(ask)
    text = ",".join(ask.headers.getall(_HEADER, []))
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if not wanted or not _NAMES.issuperset(wanted):
        raise invalid_argument("Invalid attribute name specified.", _HEADER, text)
    bucket = await ask.bucket()
    info, _ = await ask.find_object(ask.object_in(bucket), bucket, Action.READ_OBJECT, inline_bytes=0)
    elements = [element for name in dict.fromkeys(wanted) for element in _facts(name, info)]
    headers = [("Content-Type", XML_TYPE), ("Last-Modified", last_modified(info.modified_us))]
    return Response(200, headers, write_document("GetObjectAttributesResponse", elements))


def _facts(name: str, info: ObjectInfo) -> tuple[Element, ...]:
    """Return what is said of one attribute; nothing of parts, which an object that was put whole has not."""
    match name:
        case "ETag":
            return (Element(name, info.etag),)
        case "StorageClass":
            return (Element(name, STANDARD),)
        case "ObjectSize":
            return (Element(name, str(info.size)),)
        case "Checksum":
            sums = [Element(f"Checksum{one.value}", text) for one, text in kept(info.attributes)]
            return (
                (Element(name, [*sums, Element("ChecksumType", coverage_of(info.attributes))]),)
                if sums
                else ()
            )
        case _:
            return ()
