"""AWS Signature Version 4: in the Authorization header, in the query (presigned), and of POST policies.

Owns the canonical request, the string to sign and the signing key, and what a well-made claim must say. A request is
canonical by what it means, not by how it was escaped: path and query are decoded and escaped again, the path is never
normalized. Every `x-amz-*` header that is there must be signed, or it could be added on the way.
Source: "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import quote_from_bytes

from proxy.http.dates import format_iso, parse_date
from proxy.http.target import decode_percent
from proxy.s3_api.signatures import (
    SKEW_MAX_US,
    Chain,
    Head,
    Payload,
    Proven,
    Rules,
    SignatureRefused,
    parameters_of,
    raw,
)

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EXPIRES_MAX_S: Final = 7 * 86_400
"""How long a presigned request may be good."""

_SERVICE: Final = "s3"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_HEX_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_IN_QUERY: Final = frozenset(
    {
        b"X-Amz-Algorithm",
        b"X-Amz-Credential",
        b"X-Amz-Date",
        b"X-Amz-Expires",
        b"X-Amz-SignedHeaders",
        b"X-Amz-Signature",
    }
)
_BODY_IN_QUERY: Final = b"X-Amz-Content-Sha256"
"""Some clients say in the query what the body is, and sign that; the others leave it open."""


@lru_cache(maxsize=10_000)
def signing_key(secret: str, day: str, region: str) -> bytes:
    """Return the key of one day and region. Remembered, since it is the same for all requests of a day."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, _SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_request(head: Head, signed: Sequence[str], payload: str, host: str | None = None) -> bytes:
    """Return what is signed of a head; `host`, where given, stands in for the Host header's value.

    Raises TargetRefused for bad escapes.
    """
    path = quote_from_bytes(decode_percent(head.raw_path), safe="/-._~") or "/"
    query = sorted(
        (quote_from_bytes(name, safe="-._~"), quote_from_bytes(value, safe="-._~"))
        for name, value in parameters_of(head.raw_query)
        if name != b"X-Amz-Signature"
    )
    lines = [
        head.method.encode(),
        path.encode(),
        "&".join(f"{name}={value}" for name, value in query).encode(),
    ]
    for name in signed:
        values = [host] if name == "host" and host is not None else head.values(name)
        lines.append(name.encode() + b":" + b",".join(b" ".join(raw(value).split()) for value in values))
    return b"\n".join([*lines, b"", ";".join(signed).encode(), payload.encode()])


def string_to_sign(stamp: str, scope: str, canonical: bytes) -> str:
    """Return the text that the signing key signs."""
    return "\n".join((ALGORITHM, stamp, scope, sha256(canonical).hexdigest()))


@dataclass(frozen=True, slots=True)
class Credential:
    """Whose key, and for which day and region it was derived."""

    access_key: str
    day: str
    region: str

    @property
    def scope(self) -> str:
        """What a derived key is good for."""
        return f"{self.day}/{self.region}/{_SERVICE}/aws4_request"


@dataclass(frozen=True, slots=True)
class V4Claim:
    """That whoever has a key signed this request at a time."""

    head: Head
    credential: Credential
    stamp: str
    signed: tuple[str, ...]
    signature: str
    payload: Payload
    payload_text: str
    """What stands for the body in the canonical request."""

    @property
    def access_key(self) -> str:
        """Whose secret the signature takes."""
        return self.credential.access_key

    def prove(self, secret: str) -> Proven:
        """Return what the signature proves. Raises SignatureRefused when it was not made with this secret."""
        credential = self.credential
        key = signing_key(secret, credential.day, credential.region)
        told: Mapping[str, str] | None = None
        for host in _hosts(self.head):
            canonical = canonical_request(self.head, self.signed, self.payload_text, host)
            text = string_to_sign(self.stamp, credential.scope, canonical)
            if hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), self.signature):
                return self._proven(key)
            told = told or {
                "AWSAccessKeyId": credential.access_key,
                "StringToSign": text,
                "SignatureProvided": self.signature,
                "CanonicalRequest": canonical.decode("utf-8", "replace"),
            }
        raise SignatureRefused(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
            told,
        )

    def _proven(self, key: bytes) -> Proven:
        if self.payload is Payload.SIGNED:
            return Proven(self.payload, sha256=self.payload_text)
        if self.payload in (Payload.CHUNKS, Payload.CHUNKS_AND_TRAILER):
            return Proven(self.payload, chain=Chain(key, self.stamp, self.credential.scope, self.signature))
        return Proven(self.payload)


def _hosts(head: Head) -> list[str | None]:
    """Return the hosts that may have been signed: the one that came and, since some clients sign it so, without its port."""
    host = head.header("host") or ""
    name, colon, port = host.rpartition(":")
    return [None, name] if colon and port.isdecimal() else [None]


# --- in the header ------------------------------------------------------------------------------------------------


def read_header(head: Head, authorization: str, rules: Rules, now_us: int) -> V4Claim:
    """Read a claim out of an Authorization header that begins with the algorithm. Raises SignatureRefused."""
    fields: dict[str, str] = {}
    for item in authorization[len(ALGORITHM) :].split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or name in fields:
            raise _malformed_header(f"{item.strip()[:60]!r} is no field of it, or is there twice")
        fields[name] = value
    if set(fields) != {"Credential", "SignedHeaders", "Signature"}:
        raise _malformed_header("it must have Credential, SignedHeaders and Signature")
    stamp = _stamp_of(head)
    _check_skew(stamp, now_us)
    try:
        credential = _read_credential(fields["Credential"], stamp, rules)
        signed = _read_signed(fields["SignedHeaders"])
        signature = _read_signature(fields["Signature"])
    except _Malformed as malformed:
        raise _malformed_header(str(malformed), malformed.facts) from None
    _check_all_signed(head, signed)
    text = head.header("x-amz-content-sha256")
    if text is None:
        raise SignatureRefused(
            "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
        )
    return V4Claim(head, credential, stamp, signed, signature, _read_payload(text), text)


def _stamp_of(head: Head) -> str:
    """Return when a request was signed: `x-amz-date`, else Date."""
    stamp = head.header("x-amz-date")
    if stamp is not None and _micros(stamp) is not None:
        return stamp
    seconds = parse_date(head.header("date") or "") if stamp is None else None
    if seconds is None or not 0 <= seconds < 2**34:
        raise SignatureRefused(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        )
    return datetime.fromtimestamp(seconds, UTC).strftime(_STAMP)


# --- in the query -------------------------------------------------------------------------------------------------


def is_presigned(raw_query: str) -> bool:
    """Whether a query says that it is signed so."""
    return any(name == b"X-Amz-Algorithm" for name, _ in parameters_of(raw_query))


def read_query(head: Head, rules: Rules, now_us: int) -> V4Claim:
    """Read a claim out of the query. Raises SignatureRefused."""
    fields: dict[bytes, str] = {}
    for name, value in parameters_of(head.raw_query):
        if name in _IN_QUERY or name == _BODY_IN_QUERY:
            if name in fields:
                raise _malformed_query(f"{name.decode()} is there twice")
            fields[name] = value.decode("utf-8", "replace")
    missing = sorted(_IN_QUERY - set(fields))
    if missing:
        raise _malformed_query(f"{missing[0].decode()} is missing")
    if fields[b"X-Amz-Algorithm"] != ALGORITHM:
        raise _malformed_query(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    stamp = fields[b"X-Amz-Date"]
    if _micros(stamp) is None:
        raise _malformed_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    expires_s = _read_expires(fields[b"X-Amz-Expires"])
    try:
        credential = _read_credential(fields[b"X-Amz-Credential"], stamp, rules)
        signed = _read_signed(fields[b"X-Amz-SignedHeaders"])
        signature = _read_signature(fields[b"X-Amz-Signature"])
    except _Malformed as malformed:
        raise _malformed_query(str(malformed), malformed.facts) from None
    _check_not_expired(stamp, expires_s, now_us)
    _check_all_signed(head, signed)
    text = head.header("x-amz-content-sha256") or fields.get(_BODY_IN_QUERY) or Payload.UNSIGNED.value
    return V4Claim(head, credential, stamp, signed, signature, _read_payload(text), text)


def _read_expires(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        raise _malformed_query("X-Amz-Expires should be a number")
    if not 1 <= int(text) <= EXPIRES_MAX_S:
        raise _malformed_query(f"X-Amz-Expires must be from 1 to {EXPIRES_MAX_S}, a week in seconds")
    return int(text)


def _check_not_expired(stamp: str, expires_s: int, now_us: int) -> None:
    signed_us = _micros(stamp)
    assert signed_us is not None, "it was read before"
    if signed_us > now_us + SKEW_MAX_US:
        raise SignatureRefused("AccessDenied", "Request is not valid yet", {"ServerTime": _iso(now_us)})
    expired_us = signed_us + expires_s * 1_000_000
    if now_us >= expired_us:
        facts = {"X-Amz-Expires": str(expires_s), "Expires": _iso(expired_us), "ServerTime": _iso(now_us)}
        raise SignatureRefused("AccessDenied", "Request has expired", facts)


# --- of a POST policy ---------------------------------------------------------------------------------------------


def prove_policy(policy: str, credential: Credential, signature: str, secret: str) -> None:
    """Check the signature of a POST policy, which covers its text in base64. Raises SignatureRefused."""
    key = signing_key(secret, credential.day, credential.region)
    wanted = hmac.digest(key, raw(policy), "sha256").hex()
    if not hmac.compare_digest(wanted.encode(), raw(signature)):
        raise SignatureRefused(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
            {
                "AWSAccessKeyId": credential.access_key,
                "StringToSign": policy,
                "SignatureProvided": signature,
            },
        )


def read_policy_credential(text: str, stamp: str, rules: Rules) -> Credential:
    """Read the credential and date fields of a browser's form. Raises SignatureRefused."""
    try:
        if _micros(stamp) is None:
            raise _Malformed("x-amz-date is no time such as 20130524T000000Z")
        return _read_credential(text, stamp, rules)
    except _Malformed as malformed:
        raise SignatureRefused(
            "InvalidArgument", f"The form is malformed; {malformed}", malformed.facts
        ) from None


# --- what both have -----------------------------------------------------------------------------------------------


class _Malformed(Exception):
    """A field of a claim that is none; where it stands decides the code."""

    def __init__(self, message: str, facts: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.facts = facts


def _read_credential(text: str, stamp: str, rules: Rules) -> Credential:
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise _Malformed("the Credential is not <access key>/YYYYMMDD/region/service/aws4_request")
    access_key, day, region, service, terminator = parts
    if terminator != "aws4_request":
        raise _Malformed('the Credential must end with "aws4_request"')
    if service != _SERVICE:
        raise _Malformed(f'incorrect service "{service[:60]}"; this endpoint belongs to "{_SERVICE}"')
    if region != rules.region:
        raise _Malformed(
            f"the region '{region[:60]}' is wrong; expecting '{rules.region}'", {"Region": rules.region}
        )
    if day != stamp[:8]:
        raise _Malformed(
            f'invalid credential date "{day[:60]}"; it must be the day of the signature, {stamp[:8]}'
        )
    return Credential(access_key, day, region)


def _read_signed(text: str) -> tuple[str, ...]:
    names = tuple(text.split(";"))
    if not all(_HEADER_NAME.fullmatch(name) for name in names) or list(names) != sorted(set(names)):
        raise _Malformed("SignedHeaders must be names in lower case, in order, with ; between")
    if "host" not in names:
        raise _Malformed("SignedHeaders must have host")
    return names


def _read_signature(text: str) -> str:
    if not _HEX_SHA256.fullmatch(text):
        raise _Malformed("the Signature must be 64 hexadecimal digits")
    return text


def _read_payload(text: str) -> Payload:
    if _HEX_SHA256.fullmatch(text):
        return Payload.SIGNED
    for payload in Payload:
        if payload is not Payload.SIGNED and payload.value == text:
            return payload
    raise SignatureRefused(
        "InvalidArgument",
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or a valid sha256 value.",
        {"ArgumentName": "x-amz-content-sha256", "ArgumentValue": text[:100]},
    )


def _check_all_signed(head: Head, signed: Sequence[str]) -> None:
    """Refuse headers that anybody could have added."""
    unsigned = sorted({name for name, _ in head.headers if name.startswith("x-amz-")} - set(signed))
    if unsigned:
        raise SignatureRefused(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            {"HeadersNotSigned": ", ".join(unsigned)},
        )


def _check_skew(stamp: str, now_us: int) -> None:
    signed_us = _micros(stamp)
    assert signed_us is not None, "it was read before"
    if abs(signed_us - now_us) > SKEW_MAX_US:
        facts = {
            "RequestTime": stamp,
            "ServerTime": _iso(now_us),
            "MaxAllowedSkewMilliseconds": str(SKEW_MAX_US // 1000),
        }
        raise SignatureRefused(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            facts,
        )


@lru_cache(maxsize=1_024)
def _micros(stamp: str) -> int | None:
    """Read a time such as 20130524T000000Z; None when it is none."""
    if not re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", stamp):
        return None
    try:
        return int(datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp()) * 1_000_000
    except ValueError:
        return None


def _iso(micros: int) -> str:
    return format_iso(micros - micros % 1_000_000).partition(".")[0] + "Z"


def _malformed_header(why: str, facts: Mapping[str, str] | None = None) -> SignatureRefused:
    return SignatureRefused(
        "AuthorizationHeaderMalformed", f"The authorization header is malformed; {why}", facts
    )


def _malformed_query(why: str, facts: Mapping[str, str] | None = None) -> SignatureRefused:
    return SignatureRefused("AuthorizationQueryParametersError", why, facts)
