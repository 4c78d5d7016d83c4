"""Content-MD5: what a client promises of the body that it sends.

Owns how the header is read. Never sees a body: a dialect holds what came against it before anything is committed.
"""

import base64
import binascii
from typing import Final

from proxy.http.errors import DigestMalformed

_MD5_BYTES: Final = 16


def read_md5(value: str | None) -> bytes | None:
    """Read Content-MD5; None: nothing was promised. Raises DigestMalformed. Source: RFC 1864."""
    if value is None:
        return None
    digest = read_base64(value)
    if digest is None or len(digest) != _MD5_BYTES:
        raise DigestMalformed("Content-MD5 is no MD5 in base64")
    return digest


def read_base64(value: str) -> bytes | None:
    """Decode base64; None when it is none."""
    try:
        return base64.b64decode(value.strip().encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
