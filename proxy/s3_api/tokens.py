"""Continuation tokens: where a listing goes on, in a form that says nothing to clients.

Owns that form: base64 of a version, the name after which to go on, and a checksum, so that what was not made here is refused
rather than read as a place.
"""

import base64
import binascii
from typing import Final

from xxhash import xxh3_64_digest

_VERSION: Final = b"\x01"
_CHECK_BYTES: Final = 8
_TOKEN_MAX: Final = 2048


class TokenRefused(ValueError):
    """A text that is no token of ours."""


def write_token(name: bytes) -> str:
    """Return the token for what comes after a name."""
    raw = _VERSION + name
    return base64.urlsafe_b64encode(raw + xxh3_64_digest(raw)).decode("ascii")


def read_token(token: str) -> bytes:
    """Return the name after which to go on. Raises TokenRefused."""
    try:
        raw = base64.b64decode(token[:_TOKEN_MAX].encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefused("it is not base64") from None
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not body.startswith(_VERSION) or xxh3_64_digest(body) != check:
        raise TokenRefused("it was not made here")
    return body[len(_VERSION) :]
