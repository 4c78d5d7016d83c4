"""Signatures: what of a request they cover, what a sound one proves, and how one is refused.

Owns what both versions share. Pure: time and secrets come in, and a claim is read before anybody looks up whose key it is:

    claim = claims.read_claim(head, rules, now_us)     None: the request is anonymous
    proven = claim.prove(secret)                with the secret of claim.access_key
"""

import hmac
from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from proxy.http.target import decode_percent

SKEW_MAX_US: Final = 15 * 60 * 1_000_000
"""How far the time in a signature may be from ours."""


class SignatureRefused(Exception):
    """A request that is refused for its signature, by the code that S3 has for it."""

    def __init__(self, code: str, message: str, facts: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.facts: Final[Mapping[str, str]] = facts or {}
        """More elements of the answer, which help whoever signs wrongly to find out why."""


class Head(NamedTuple):
    """What a signature covers of a request, as it came."""

    method: str
    raw_path: str
    raw_query: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order in which they came."""
    bucket: str = ""
    """The bucket that the Host names, where it does: version 2 signs it as part of the path."""

    def values(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for one, value in self.headers if one == name]

    def header(self, name: str) -> str | None:
        """Return the only value of a header, or the first."""
        return next((value for one, value in self.headers if one == name), None)


class Rules(NamedTuple):
    """What this cluster takes."""

    region: str
    """What clients must call it when they sign."""
    takes_version_2: bool = True


class Payload(Enum):
    """How a signature covers the body."""

    SIGNED = "signed"
    """By its SHA-256."""
    UNSIGNED = "UNSIGNED-PAYLOAD"
    CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    """Chunk by chunk, each signature upon the one before."""
    CHUNKS_AND_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    UNSIGNED_AND_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    """In chunks without signatures."""

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks, which `chunks` decodes."""
        return self not in (Payload.SIGNED, Payload.UNSIGNED)


class Chain:
    """The signatures of a body's chunks, each upon the one before, the first upon that of the head."""

    def __init__(self, signing_key: bytes, stamp: str, scope: str, seed: str) -> None:
        """Take the key, time and scope of the head's signature, and that signature."""
        self._key = signing_key
        self._suffix = f"{stamp}\n{scope}\n"
        self._last = seed

    def take_chunk(self, signature: str, digest: str) -> None:
        """Go on by a chunk, its data's SHA-256 in hex. Raises SignatureRefused."""
        self._take("AWS4-HMAC-SHA256-PAYLOAD", f"{_EMPTY_SHA256}\n{digest}", signature)

    def take_trailer(self, signature: str, lines: bytes) -> None:
        """Go on by the trailer, each of its lines as `name:value` and a newline. Raises SignatureRefused."""
        self._take("AWS4-HMAC-SHA256-TRAILER", sha256(lines).hexdigest(), signature)

    def _take(self, algorithm: str, what: str, signature: str) -> None:
        text = f"{algorithm}\n{self._suffix}{self._last}\n{what}"
        wanted = hmac.digest(self._key, text.encode("ascii"), "sha256").hex()
        if not hmac.compare_digest(wanted, signature):
            raise SignatureRefused(
                "SignatureDoesNotMatch",
                "A chunk's signature is not that of its data.",
                {"StringToSign": text},
            )
        self._last = wanted


_EMPTY_SHA256: Final = sha256(b"").hexdigest()


class Proven(NamedTuple):
    """What a sound signature proves, and what it leaves to the body."""

    payload: Payload
    sha256: str = ""
    """SIGNED: what the whole body must hash to, in hex."""
    chain: Chain | None = None
    """CHUNKS and CHUNKS_AND_TRAILER: where the signatures of chunks go on."""


class Claim(Protocol):
    """That whoever has a key signed this request."""

    @property
    def access_key(self) -> str:
        """Whose secret the signature takes."""

    def prove(self, secret: str) -> Proven:
        """Return what the signature proves. Raises SignatureRefused when it was not made with this secret."""


def parameters_of(raw_query: str) -> list[tuple[bytes, bytes]]:
    """Return all parameters of a query as they came, decoded as forms are: `+` is a space. Raises TargetRefused."""
    found = []
    for item in raw_query.split("&"):
        if item:
            name, _, value = item.replace("+", " ").partition("=")
            found.append((decode_percent(name), decode_percent(value)))
    return found


def raw(value: str) -> bytes:
    """Return the bytes of a header value; what was not UTF-8 came through as surrogates."""
    return value.encode("utf-8", "surrogateescape")
