"""Which bucket and object a request is about: by its path, or by the host that it names.

Owns the split, and S3's words for names that nothing can have. The path was percent-decoded already; a key keeps every `/`.

    path style           /bucket/key                  a slash behind the bucket alone is the bucket
    virtual-host style   Host: bucket.<domain>, /key  where this cluster has a domain
"""

from typing import NamedTuple

from proxy.s3_api.errors import S3Error
from proxy.store.buckets import is_bucket_name
from swiftlike.names import OBJECT_BYTES_MAX


class Resource(NamedTuple):
    """What a request is about; empty parts are not named."""

    bucket: bytes = b""
    key: bytes = b""


def bucket_of_host(host: str, domain: str) -> str:
    """Return the bucket that a Host header names; empty when it names none."""
    if not domain:
        return ""
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        host = name
    host, domain = host.lower(), domain.lower()
    return host[: -len(domain) - 1] if host.endswith("." + domain) else ""


def parse_resource(path: bytes, bucket: str) -> Resource:
    """Split a path, below a bucket where the host names one. Raises S3Error."""
    rest = path[1:]
    if bucket:
        found = Resource(bucket.encode("utf-8", "surrogateescape"), rest)
    else:
        first, _, key = rest.partition(b"/")
        found = Resource(first, key)
    if found.bucket:
        check_key(found.key)
    return found


def check_key(key: bytes) -> bytes:
    """Return a key that an object can have, or none at all. Raises S3Error."""
    if b"\0" in key or not _is_text(key):
        raise S3Error("InvalidURI", "A key is UTF-8 without NUL.")
    if len(key) > OBJECT_BYTES_MAX:
        raise S3Error(
            "KeyTooLongError",
            facts={"Size": str(len(key)), "MaxSizeAllowed": str(OBJECT_BYTES_MAX)},
        )
    return key


def check_bucket(bucket: bytes) -> bytes:
    """Return a name that a bucket can have. Raises S3Error."""
    if not is_bucket_name(bucket):
        raise S3Error("InvalidBucketName", facts={"BucketName": bucket[:100].decode("utf-8", "replace")})
    return bucket


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
