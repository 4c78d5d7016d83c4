"""AWS Signature Version 2, the older one: in the Authorization header, and in the query.

Owns its string to sign. It covers the method, the path as it came, every `x-amz-*` header, some sub-resources, Content-MD5,
Content-Type and a time; neither the body nor the other parameters. Some clients still presign with it.
Source: "Signing and authenticating REST requests" of the S3 user guide.
"""

import base64
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.http.dates import parse_date
from proxy.s3_api.signatures import (
    SKEW_MAX_US,
    Head,
    Payload,
    Proven,
    SignatureRefused,
    parameters_of,
    raw,
)

SCHEME: Final = "AWS "
_SIGNED_PARAMETERS: Final = frozenset(
    {
        b"accelerate",
        b"acl",
        b"analytics",
        b"cors",
        b"delete",
        b"inventory",
        b"lifecycle",
        b"location",
        b"logging",
        b"metrics",
        b"notification",
        b"object-lock",
        b"partNumber",
        b"policy",
        b"replication",
        b"requestPayment",
        b"response-cache-control",
        b"response-content-disposition",
        b"response-content-encoding",
        b"response-content-language",
        b"response-content-type",
        b"response-expires",
        b"restore",
        b"select",
        b"select-type",
        b"tagging",
        b"torrent",
        b"uploadId",
        b"uploads",
        b"versionId",
        b"versioning",
        b"versions",
        b"website",
    }
)


def string_to_sign(head: Head, time: str, ending: str = "") -> bytes:
    """Return what is signed; `time` is the Date, the Expires of a query, or empty where `x-amz-date` is signed.

    `ending` is what the client put behind the path when it signed.
    """
    lines = [
        head.method.encode(),
        raw(head.header("content-md5") or ""),
        raw(head.header("content-type") or ""),
        time.encode("utf-8", "surrogateescape"),
    ]
    names = sorted({name for name, _ in head.headers if name.startswith("x-amz-")})
    lines += [
        name.encode() + b":" + b",".join(b" ".join(raw(value).split()) for value in head.values(name))
        for name in names
    ]
    return b"\n".join([*lines, _resource(head, ending)])


def _resource(head: Head, ending: str) -> bytes:
    """Return the path as it came, under its bucket, and those parameters that are sub-resources, decoded."""
    bucket = f"/{head.bucket}" if head.bucket else ""
    signed = sorted(
        (name, value) for name, value in parameters_of(head.raw_query) if name in _SIGNED_PARAMETERS
    )
    query = b"&".join(name + b"=" + value if value else name for name, value in signed)
    path = raw(bucket + head.raw_path + ending)
    return path + b"?" + query if query else path


@dataclass(frozen=True, slots=True)
class V2Claim:
    """That whoever has a key signed this request."""

    head: Head
    access_key: str
    signature: str
    time: str

    def prove(self, secret: str) -> Proven:
        """Return that it is signed; its body never is. Raises SignatureRefused when it was not made with this secret."""
        for ending in _endings(self.head):
            text = string_to_sign(self.head, self.time, ending)
            wanted = base64.b64encode(hmac.digest(secret.encode(), text, "sha1"))
            if hmac.compare_digest(wanted, raw(self.signature)):
                return Proven(Payload.UNSIGNED)
        told = string_to_sign(self.head, self.time).decode("utf-8", "replace")
        raise _mismatch(self.access_key, told, self.signature)


def _endings(head: Head) -> tuple[str, ...]:
    """Return what may stand behind the path: botocore signs a bucket with the slash that it leaves out of the request."""
    return ("", "/") if not head.bucket and head.raw_path.count("/") == 1 and head.raw_path != "/" else ("",)


def _mismatch(access_key: str, text: str, signature: str) -> SignatureRefused:
    return SignatureRefused(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
        {"AWSAccessKeyId": access_key, "StringToSign": text, "SignatureProvided": signature},
    )


def prove_policy(policy: str, access_key: str, signature: str, secret: str) -> None:
    """Check the signature of a POST policy, which covers its text in base64. Raises SignatureRefused."""
    wanted = base64.b64encode(hmac.digest(secret.encode(), raw(policy), "sha1"))
    if not hmac.compare_digest(wanted, raw(signature)):
        raise _mismatch(access_key, policy, signature)


def read_header(head: Head, authorization: str, now_us: int) -> V2Claim:
    """Read a claim out of an Authorization header that begins with `AWS `. Raises SignatureRefused."""
    access_key, colon, signature = authorization[len(SCHEME) :].strip().rpartition(":")
    if not colon or not access_key or not signature:
        raise SignatureRefused(
            "InvalidArgument", "The Authorization header is not AWS <access key>:<signature>"
        )
    is_amz = head.header("x-amz-date") is not None
    date = head.header("x-amz-date") if is_amz else head.header("date")
    seconds = parse_date(date or "")
    if seconds is None:
        raise SignatureRefused(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        )
    if abs(seconds * 1_000_000 - now_us) > SKEW_MAX_US:
        raise SignatureRefused(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            {"RequestTime": date or "", "MaxAllowedSkewMilliseconds": str(SKEW_MAX_US // 1000)},
        )
    return V2Claim(head, access_key, signature, "" if is_amz else date or "")


def is_presigned(raw_query: str) -> bool:
    """Whether a query says that it is signed so."""
    return {b"AWSAccessKeyId", b"Signature"} <= {name for name, _ in parameters_of(raw_query)}


def read_query(head: Head, now_us: int) -> V2Claim:
    """Read a claim out of the query. Raises SignatureRefused."""
    fields = {name: _only(parameters_of(head.raw_query), name) for name in _IN_QUERY}
    expires = fields[b"Expires"]
    if not expires.isascii() or not expires.isdecimal() or len(expires) > 12:
        raise SignatureRefused(
            "AccessDenied", "Invalid date (should be seconds since epoch): " + expires[:40]
        )
    if now_us >= int(expires) * 1_000_000:
        raise SignatureRefused("AccessDenied", "Request has expired", {"Expires": expires})
    return V2Claim(_with_hoisted(head), fields[b"AWSAccessKeyId"], fields[b"Signature"], expires)


def _with_hoisted(head: Head) -> Head:
    """Return a head with the headers that its query carries: they are signed as headers."""
    hoisted = [
        (lower, value.decode("utf-8", "surrogateescape"))
        for name, value in parameters_of(head.raw_query)
        if is_hoisted(lower := name.decode("utf-8", "replace").lower()) and head.header(lower) is None
    ]
    return head._replace(headers=(*head.headers, *hoisted)) if hoisted else head


def is_hoisted(name: str) -> bool:
    """Whether a parameter of a presigned request is a header; its name in lower case."""
    return name.startswith("x-amz-") or name in ("content-type", "content-md5")


_IN_QUERY: Final = (b"AWSAccessKeyId", b"Expires", b"Signature")


def _only(parameters: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    found = [value for name, value in parameters if name == wanted]
    if len(found) != 1:
        raise SignatureRefused(
            "AccessDenied",
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters, each once",
        )
    return found[0].decode("utf-8", "replace")
