"""CompleteMultipartUpload: the parts that a client names become one object.

Owns what a list of parts must be: in order, each as it was sent, none too small but the last. Owns also the etag and the
checksum of the whole, which are made of theirs. Source: the S3 API reference, CompleteMultipartUpload.
"""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import md5, sha256
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import quote

from proxy.auth.decisions import Action
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import (
    COVERAGE,
    Algorithm,
    Coverage,
    PartChecksums,
    check_form,
    check_known,
    coverage_of,
    kept,
    sum_of_parts,
)
from proxy.s3_api.conditional import condition_of, refusal_of, write_conditions
from proxy.s3_api.descriptions import quoted
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.multipart import check_part_number, checksums_of, described
from proxy.s3_api.patience import answer_patiently
from proxy.s3_api.xml import XML_TYPE, Element, Node, XmlRefused, write_document
from proxy.store.errors import ConditionFailed, NoSuchUpload
from proxy.store.manifests import Part
from proxy.store.multipart import StoredPart, UploadInfo
from proxy.store.values import Attributes, ContainerInfo
from swiftlike.limits import OBJECT_BYTES_MAX, PARTS_MAX

DOCUMENT_BYTES_MAX: Final = 4 * 1024**2
"""10,000 parts with their checksums take 3 MB."""
PATIENCE_S: Final = 120.0
"""Of the whole completion: what it asks of the cluster grows with the parts."""
_SUMS: Final = frozenset(f"Checksum{algorithm.value}" for algorithm in Algorithm)
_SIZE: Final = "x-amz-mp-object-size"
_TYPE: Final = "x-amz-checksum-type"


class NamedPart(NamedTuple):
    """A part as the client names it."""

    number: int
    etag: str
    checksums: Mapping[Algorithm, str]


def read_parts(document: Node) -> list[NamedPart]:
    """Return the parts that a document names. Raises S3Error, XmlRefused."""
    found: list[NamedPart] = []
    for node in document.all("Part"):
        number, etag = node.value("PartNumber"), node.value("ETag")
        if number is None or etag is None:
            raise XmlRefused("a Part has no PartNumber, or no ETag")
        sums = {one: node.value(f"Checksum{one.value}") for one in Algorithm}
        given = {one: check_form(one, text) for one, text in sums.items() if text}
        if any(child.name.startswith("Checksum") and child.name not in _SUMS for child in node.children):
            raise S3Error("InvalidRequest", "A part names a checksum whose algorithm is not supported.")
        found.append(NamedPart(check_part_number(number.strip(), "PartNumber"), _bare(etag), given))
    if not 1 <= len(found) <= PARTS_MAX:
        raise XmlRefused(f"there are {len(found)} parts")
    if any(one.number >= other.number for one, other in pairwise(found)):
        raise S3Error("InvalidPartOrder")
    return found


def _bare(etag: str) -> str:
    return etag.strip().removeprefix('"').removesuffix('"').lower()


def fingerprint_of(parts: Sequence[NamedPart]) -> str:
    """Return what tells one list of parts from another."""
    lines = "\n".join(f"{one.number} {one.etag}" for one in parts)
    return sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def choose(
    named: Sequence[NamedPart],
    stored: Sequence[StoredPart],
    how: PartChecksums,
    part_bytes_min: int,
    upload: str,
) -> list[Part]:
    """Return the parts that are named, as they are stored. Raises S3Error."""
    standing = {one.number: one.part for one in stored}
    chosen: list[Part] = []
    for one in named:
        part = standing.get(one.number)
        facts = {"UploadId": upload, "PartNumber": str(one.number), "ETag": one.etag[:100]}
        if part is None or part.etag != one.etag:
            raise S3Error("InvalidPart", facts=facts)
        promised = one.checksums.get(how.algorithm)
        if promised is not None and promised != part.checksum:
            raise S3Error("InvalidPart", facts=facts)
        if how.is_asked and promised is None and one.checksums:
            raise S3Error(
                "InvalidRequest",
                f"The upload was created using a {how.algorithm.value.lower()} checksum. The complete request must include "
                f"that checksum for part {one.number}, or none.",
            )
        chosen.append(part)
    for one, part in zip(named[:-1], chosen[:-1], strict=True):
        if part.size < part_bytes_min:
            facts = {
                "ProposedSize": str(part.size),
                "MinSizeAllowed": str(part_bytes_min),
                "PartNumber": str(one.number),
                "ETag": part.etag,
            }
            raise S3Error("EntityTooSmall", facts=facts)
    return chosen


def etag_of(parts: Sequence[Part]) -> str:
    """Return the etag of an object of parts: the MD5 of their MD5s, and how many they are."""
    digest = md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(parts)}"


def summed_up(headers: Mapping[str, str], how: PartChecksums, parts: Sequence[Part]) -> dict[str, str]:
    """Return size, etag and checksum of the whole as attributes, once they are what a request promises. Raises S3Error."""
    size = sum(part.size for part in parts)
    if size > OBJECT_BYTES_MAX:
        facts = {"ProposedSize": str(size), "MaxSizeAllowed": str(OBJECT_BYTES_MAX)}
        raise S3Error("EntityTooLarge", facts=facts)
    promised = headers.get(_SIZE)
    if promised is not None:
        if not promised.isascii() or not promised.isdecimal() or len(promised) > 20:
            raise invalid_argument(f"Value for {_SIZE} header is invalid.", _SIZE, promised)
        if int(promised) != size:
            raise S3Error(
                "InvalidRequest",
                f"The provided '{_SIZE}' header value {promised} does not match the size {size}.",
            )
    covered = headers.get(_TYPE)
    if covered is not None and covered != how.coverage.value:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using the {how.coverage.value} checksum mode. The complete request must use the same "
            "checksum mode.",
        )
    total = sum_of_parts(how, [(part.checksum, part.size) for part in parts])
    for algorithm in Algorithm:
        text = headers.get(algorithm.header)
        if text is None:
            continue
        if algorithm is not how.algorithm:
            raise S3Error(
                "InvalidRequest",
                f"The upload was created using a {how.algorithm.value.lower()} checksum, and the complete request has another.",
            )
        if text.strip().partition("-")[0] != total.partition("-")[0]:
            raise S3Error(
                "BadDigest", f"The {algorithm.value} you specified did not match the calculated checksum."
            )
    found = {"etag": etag_of(parts), how.algorithm.attribute: total}
    if how.coverage is Coverage.COMPOSITE:
        found[COVERAGE] = how.coverage.value
    return found


async def complete(ask: Ask) -> Response:
    """POST with `uploadId`."""
    conditions = write_conditions(ask.headers)
    check_known(ask.headers)
    bucket = await ask.bucket()
    ask.require(Action.WRITE_OBJECT, bucket)
    # What the head says of a checksum is the object's.
    document = await ask.read_xml("CompleteMultipartUpload", DOCUMENT_BYTES_MAX, is_summed=False)
    try:
        if document is None:
            raise XmlRefused("there is no document")
        named = read_parts(document)
    except XmlRefused as refused:
        raise S3Error("MalformedXML", f"The XML you provided is not taken: {refused}") from None
    del document  # many times what it lists

    async def work() -> Response:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        try:
            told = await _complete(ask, bucket, named, deadline)
        except ConditionFailed as failed:
            raise refusal_of(failed, conditions) from None
        return _answer(ask, bucket, told)

    return await answer_patiently(ask, work())


async def _complete(
    ask: Ask, bucket: ContainerInfo, named: Sequence[NamedPart], deadline: float
) -> Attributes:
    """Return what the object is described by that an upload has become, now or before. Raises S3Error, StoreError."""
    uploads, key, upload = ask.around.uploads, ask.resource.key, ask.text("uploadId")
    fingerprint = fingerprint_of(named)
    try:
        found = await uploads.read_open(bucket, key, upload, deadline=deadline)
        return await _write(ask, found, named, fingerprint, deadline)
    except NoSuchUpload:  # at first, or by now
        before = await uploads.completed(bucket, key, upload, fingerprint, deadline=deadline)
        if before is None:
            raise
        return before


async def _write(
    ask: Ask, upload: UploadInfo, named: Sequence[NamedPart], fingerprint: str, deadline: float
) -> Attributes:
    uploads = ask.around.uploads
    stored, _ = await uploads.parts(upload.name, deadline=deadline)
    how = checksums_of(upload.attributes)
    parts = choose(named, stored, how, ask.around.part_bytes_min, upload.name.id)
    attributes = described(upload.attributes) | summed_up(ask.headers, how, parts)
    info = await uploads.complete(
        upload,
        parts,
        fingerprint,
        attributes,
        deadline=deadline,
        condition=condition_of(write_conditions(ask.headers)),
    )
    return info.attributes


def _answer(ask: Ask, bucket: ContainerInfo, told: Attributes) -> Response:
    host, key = ask.headers.get("Host", ""), ask.resource.key
    path = ask.request.path.decode()
    elements = [
        Element("Location", f"{ask.request.scheme}://{host}{quote(path)}"),
        Element("Bucket", bucket.name.container.decode()),
        Element("Key", key.decode()),
        Element("ETag", quoted(told.get("etag", ""))),
        *(Element(f"Checksum{algorithm.value}", text) for algorithm, text in kept(told)),
        Element("ChecksumType", coverage_of(told)),
    ]
    return Response(
        200, [("Content-Type", XML_TYPE)], write_document("CompleteMultipartUploadResult", elements)
    )
