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
from proxy.store.manifest_bodies import manifest_of
from proxy.store.manifests import Manifest
from proxy.store.values import ObjectInfo
from swiftlike.limits import PARTS_MAX

PAGE_MAX: Final = 1_000
_HEADER: Final = "x-amz-object-attributes"
_MAX_PARTS: Final = "x-amz-max-parts"
_MARKER: Final = "x-amz-part-number-marker"
_NAMES: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


async def show(ask: Ask) -> Response:
    """GET of an object's `attributes`."""
    check_version(ask)
    text = ",".join(ask.headers.getall(_HEADER, []))
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if not wanted or not _NAMES.issuperset(wanted):
        raise invalid_argument("Invalid attribute name specified.", _HEADER, text)
    bucket = await ask.bucket()
    limit = _read_number(ask, _MAX_PARTS, PAGE_MAX)
    after = min(_read_number(ask, _MARKER, 0), PARTS_MAX)
    info, body = await ask.find_object(ask.object_in(bucket), bucket, Action.READ_OBJECT, inline_bytes=0)
    elements = [element for name in dict.fromkeys(wanted) for element in _facts(name, info)]
    manifest = await manifest_of(body) if "ObjectParts" in wanted else None
    if manifest is not None:
        elements.append(_parts(info, manifest, after, min(limit, PAGE_MAX)))
    headers = [("Content-Type", XML_TYPE), ("Last-Modified", last_modified(info.modified_us))]
    return Response(200, headers, write_document("GetObjectAttributesResponse", elements))


def _read_number(ask: Ask, header: str, default: int) -> int:
    text = ask.headers.get(header)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise invalid_argument(f"Provided {header} not an integer or within integer range", header, text)
    return int(text)


def _parts(info: ObjectInfo, manifest: Manifest, after: int, limit: int) -> Element:
    """Return a page of the parts, which are numbered by their order."""
    count = len(manifest.parts)
    stop = min(after + limit, count)
    algorithm = next((one for one, _ in kept(info.attributes)), None)
    elements = [
        Element("PartsCount", str(count)),
        Element("PartNumberMarker", str(after)),
        Element("NextPartNumberMarker", str(stop if stop > after else 0)),
        Element("MaxParts", str(limit)),
        Element("IsTruncated", "true" if limit and stop < count else "false"),
    ]
    for number in range(after + 1, stop + 1):
        part = manifest.parts[number - 1]
        sums = () if algorithm is None else (Element(f"Checksum{algorithm.value}", part.checksum),)
        facts = (Element("PartNumber", str(number)), Element("Size", str(part.size)), *sums)
        elements.append(Element("Part", facts))
    return Element("ObjectParts", elements)


def _facts(name: str, info: ObjectInfo) -> tuple[Element, ...]:
    """Return what is said of one attribute; of parts that is said elsewhere."""
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
