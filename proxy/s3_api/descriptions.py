"""What a request says of an object beside its body, as attributes; and an object's attributes as headers.

Owns S3's limit on user metadata, and the forms of what is not ASCII in it. Attributes are the same that the Swift dialect reads
and writes, so what one puts the other gets.
"""

import base64
import binascii
import re
from typing import Final

from multidict import CIMultiDictProxy

from proxy.http.dates import format_date, seconds_up
from proxy.http.response import Headers
from proxy.s3_api.checksums import coverage_of
from proxy.s3_api.checksums import kept as kept_checksums
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.grants import ATTRIBUTE as ACL
from proxy.s3_api.grants import read_headers, write_grants
from proxy.store.values import Attributes, ObjectInfo

METADATA_BYTES_MAX: Final = 2048
"""Names and values of user metadata together."""
HEADER_BYTES_MAX: Final = 8192
UNKNOWN_TYPE: Final = "binary/octet-stream"

META_HEADER: Final = "x-amz-meta-"
_META: Final = "meta:"
_KEPT: Final = (
    "Content-Encoding",
    "Content-Disposition",
    "Cache-Control",
    "Content-Language",
    "Expires",
)
_SHOWN: Final = {f"header:{name.lower()}": name for name in _KEPT}
_CHUNKED: Final = "aws-chunked"

_ENCODED_WORDS: Final = re.compile(
    r"=\?utf-8\?[bq]\?[^?\s]*\?=(\s+=\?utf-8\?[bq]\?[^?\s]*\?=)*", re.IGNORECASE
)
_WORD_BYTES_MAX: Final = 45
"""Of text in one encoded word, which has at most 75 characters."""


def describe_new(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return what headers say about a new object, but for its etag and checksum. Raises S3Error."""
    attributes = read_metadata(headers)
    for attribute, header in _SHOWN.items():
        value = headers.get(header)
        if value and header == "Content-Encoding":
            value = without_chunked(value)
        if value:
            attributes[attribute] = text_of(header, value)
    attributes["type"] = text_of("Content-Type", headers.get("Content-Type") or UNKNOWN_TYPE)
    return attributes | read_acl(headers)


def read_acl(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return what the headers of a request grant as an attribute; none where that is nothing. Raises S3Error."""
    grants = read_headers(headers)
    return {ACL: write_grants(grants)} if grants else {}


def without_chunked(value: str) -> str:
    """Return a Content-Encoding without what was only the way of this one body: `gzip,aws-chunked` is `gzip`."""
    return ",".join(
        part for part in (part.strip() for part in value.split(",")) if part and part.lower() != _CHUNKED
    )


def is_chunked(value: str | None) -> bool:
    """Whether a Content-Encoding says that the body comes in S3's chunks."""
    return value is not None and any(part.strip().lower() == _CHUNKED for part in value.split(","))


def text_of(name: str, value: str) -> str:
    """Return a header's value that is to be kept. Raises S3Error."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise invalid_argument(f"The value of {name} must be valid UTF-8", name, "") from None
    if size > HEADER_BYTES_MAX:
        raise invalid_argument(f"The value of {name} is longer than {HEADER_BYTES_MAX} bytes", name, "")
    return value


def read_metadata(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return user metadata as attributes; values of one name are joined with commas. Raises S3Error."""
    found: dict[str, str] = {}
    size = 0
    for header, value in headers.items():
        name = header.lower()
        if not name.startswith(META_HEADER):
            continue
        name = name[len(META_HEADER) :]
        if not name:
            raise invalid_argument("The name of user metadata is empty", META_HEADER, "")
        size += len(name) + len(text_of(header.lower(), value).encode())
        attribute = _META + name
        found[attribute] = f"{found[attribute]},{value}" if attribute in found else value
    if size > METADATA_BYTES_MAX:
        raise S3Error(
            "MetadataTooLarge", facts={"Size": str(size), "MaxSizeAllowed": str(METADATA_BYTES_MAX)}
        )
    return {attribute: decode_words(value) for attribute, value in found.items()}


def decode_words(value: str) -> str:
    """Return the text that RFC 2047's encoded words stand for, where that text would be encoded to the very same."""
    if "=?" not in value or not _ENCODED_WORDS.fullmatch(value):
        return value
    raw = b""
    try:
        for word in value.split():
            _, _, how, text, _ = word.split("?")
            if how.lower() != "b":
                return value
            raw += base64.b64decode(text, validate=True)
        decoded = raw.decode()
    except (binascii.Error, ValueError):
        return value
    # A line break must not get into a header of the other dialect, which writes values as they are.
    return decoded if decoded.isprintable() and encode_words(decoded) == value else value


def encode_words(value: str) -> str:
    """Return text as headers can carry it: what is not printable ASCII as RFC 2047's encoded words, as S3 does."""
    if value.isascii() and value.isprintable():
        return value
    words, piece = [], b""
    for character in value:
        raw = character.encode("utf-8", "replace")
        if len(piece) + len(raw) > _WORD_BYTES_MAX:
            words.append(piece)
            piece = b""
        piece += raw
    words.append(piece)
    return " ".join(f"=?UTF-8?B?{base64.b64encode(word).decode()}?=" for word in words)


# --- what stands there, as headers --------------------------------------------------------------------------------


def last_modified(micros: int) -> str:
    """Write a time as `Last-Modified`, rounded up to the second, as listings do."""
    return format_date(seconds_up(micros))


def quoted(etag: str) -> str:
    """Write an etag as S3 does."""
    return f'"{etag}"'


def object_headers(info: ObjectInfo, overrides: Attributes, with_checksums: bool) -> Headers:
    """Return the headers of an object, but for what its body is in this answer; `overrides` stand in for some."""
    attributes = {**info.attributes, **overrides}
    headers = [
        ("Last-Modified", last_modified(info.modified_us)),
        ("ETag", quoted(info.etag)),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", attributes.get("type", UNKNOWN_TYPE)),
    ]
    for attribute, value in attributes.items():
        if attribute.startswith(_META):
            headers.append((META_HEADER + attribute[len(_META) :], encode_words(value)))
        elif attribute in _SHOWN:
            headers.append((_SHOWN[attribute], value))
    if with_checksums:
        headers += checksum_headers(info.attributes)
    return headers


def checksum_headers(attributes: Attributes) -> Headers:
    """Return the checksums that an object is kept with, and what they cover."""
    found = [(algorithm.header, text) for algorithm, text in kept_checksums(attributes)]
    return [*found, ("x-amz-checksum-type", coverage_of(attributes))] if found else []


def checksum_headers_of_part(attributes: Attributes, checksum: str) -> Headers:
    """Return the checksum of one part of an object, which is by the algorithm of the whole."""
    found = [(algorithm.header, checksum) for algorithm, _ in kept_checksums(attributes)[:1]]
    return [*found, ("x-amz-checksum-type", coverage_of(attributes))] if found else []


OVERRIDES: Final = {
    "response-content-type": "type",
    "response-content-language": "header:content-language",
    "response-expires": "header:expires",
    "response-cache-control": "header:cache-control",
    "response-content-disposition": "header:content-disposition",
    "response-content-encoding": "header:content-encoding",
}
"""Parameters that say what an answer's headers shall be, and the attributes that they stand in for."""
