"""Listings of what is under way: the parts of an upload, and the uploads of a bucket.

Owns their parameters, where a page goes on, and how they are written. Source: the S3 API reference, ListParts and
ListMultipartUploads.
"""

from typing import Final

from proxy.auth.decisions import Action
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import PartChecksums
from proxy.s3_api.descriptions import quoted
from proxy.s3_api.grants import owner_element
from proxy.s3_api.later import STANDARD
from proxy.s3_api.listings import Wanted, iso, read_number, read_wanted
from proxy.s3_api.multipart import checksums_of, checksums_of_note, find_upload
from proxy.s3_api.xml import XML_TYPE, Element, write_document
from proxy.store.multipart import ListedUpload, StoredPart
from proxy.store.values import ListedPrefix
from swiftlike.limits import PARTS_MAX

PAGE_MAX: Final = 1_000


def _initiator(account: bytes) -> Element:
    """Return who began an upload: the account that owns the bucket, since objects have no other owner here."""
    return Element("Initiator", owner_element(account).content)


async def list_parts(ask: Ask) -> Response:
    """GET with `uploadId`."""
    limit = read_number(ask, "max-parts", PAGE_MAX, PAGE_MAX)
    after = read_number(ask, "part-number-marker", 0, PARTS_MAX)
    bucket, upload = await find_upload(ask, Action.WRITE_OBJECT)
    how = checksums_of(upload.attributes)
    parts: list[StoredPart] = []
    is_truncated = False
    if limit:
        parts, is_truncated = await ask.around.uploads.parts(
            upload.name, deadline=ask.deadline, after=after, limit=limit
        )
    elements = [
        Element("Bucket", bucket.name.container.decode()),
        Element("Key", ask.resource.key.decode()),
        Element("UploadId", upload.name.id),
        _initiator(bucket.name.account),
        owner_element(bucket.name.account),
        Element("StorageClass", STANDARD),
        Element("PartNumberMarker", str(after)),
        Element("NextPartNumberMarker", str(parts[-1].number if parts else 0)),
        Element("MaxParts", str(limit)),
        Element("IsTruncated", "true" if is_truncated else "false"),
        *(_checksum_facts(how) if how.is_asked else ()),
        *(_part(one, how) for one in parts),
    ]
    return Response(200, [("Content-Type", XML_TYPE)], write_document("ListPartsResult", elements))


def _checksum_facts(how: PartChecksums) -> tuple[Element, ...]:
    return (
        Element("ChecksumAlgorithm", how.algorithm.value),
        Element("ChecksumType", how.coverage.value),
    )


def _part(one: StoredPart, how: PartChecksums) -> Element:
    return Element(
        "Part",
        (
            Element("PartNumber", str(one.number)),
            Element("LastModified", iso(one.modified_us)),
            Element("ETag", quoted(one.part.etag)),
            Element("Size", str(one.part.size)),
            Element(f"Checksum{how.algorithm.value}", one.part.checksum),
        ),
    )


async def list_uploads(ask: Ask) -> Response:
    """GET of a bucket with `uploads`."""
    bucket = await ask.bucket()
    ask.require(Action.READ_CONTAINER, bucket)
    wanted = read_wanted(ask, "max-uploads")
    key_marker = ask.text("key-marker")
    id_marker = ask.text("upload-id-marker") if key_marker else ""  # which means nothing alone
    page = await ask.around.uploads.list(
        bucket,
        deadline=ask.deadline,
        prefix=wanted.prefix,
        delimiter=wanted.delimiter,
        after_key=key_marker.encode(),
        after_id=id_marker,
        limit=wanted.limit,
    )
    elements = [
        Element("Bucket", bucket.name.container.decode()),
        Element("KeyMarker", wanted.name(key_marker.encode())),
        Element("UploadIdMarker", id_marker),
        *wanted.echo(),
        Element("IsTruncated", "true" if page.is_truncated else "false"),
    ]
    if page.is_truncated:
        last = page.items[-1]
        key, upload = (last.prefix, "") if isinstance(last, ListedPrefix) else (last.key, last.id)
        elements.append(Element("NextKeyMarker", wanted.name(key)))
        elements.append(Element("NextUploadIdMarker", upload))
    account = bucket.name.account
    elements += [_upload(wanted, account, one) for one in page.items if isinstance(one, ListedUpload)]
    elements += [wanted.rolled(one) for one in page.items if isinstance(one, ListedPrefix)]
    return Response(200, [("Content-Type", XML_TYPE)], write_document("ListMultipartUploadsResult", elements))


def _upload(wanted: Wanted, account: bytes, one: ListedUpload) -> Element:
    how = checksums_of_note(one.note)
    return Element(
        "Upload",
        (
            Element("Key", wanted.name(one.key)),
            Element("UploadId", one.id),
            _initiator(account),
            owner_element(account),
            Element("StorageClass", STANDARD),
            Element("Initiated", iso(one.began_us)),
            *(() if how is None else _checksum_facts(how)),
        ),
    )
