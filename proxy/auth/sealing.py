"""Sealing: keys for each purpose from the cluster's secret, and small secrets encrypted at rest.

Owns the byte form of a sealed secret and how a key is derived. Randomness is handed in. Never knows what a secret is for.

    sealed, version 1:  offset  size  field
                             0     1  version = 1
                             1    12  nonce, random
                            13        AES-256-GCM of the secret, its 16-byte tag last

    key = HKDF-SHA256(cluster's secret, salt "swiftlike", info = purpose), 32 bytes

What a secret belongs to is the associated data, so that one moved to another user or another field does not open. Random
nonces are safe for 2^32 secrets under one key, which is more than users.
"""

import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class SealBroken(Exception):
    """A sealed secret that does not open: changed, moved, or sealed under another cluster's secret."""

    def __init__(self, belongs_to: bytes) -> None:
        where = belongs_to.decode("utf-8", "replace").replace("\0", " of ")
        super().__init__(
            f"the {where} does not open: it was changed at rest, or the cluster's secret is not the one it was sealed "
            "under; bring that secret back, or rotate the user's keys"
        )


def derive_key(secret: bytes, purpose: bytes) -> bytes:
    """Return the 32-byte key for one purpose; knowing it says nothing about the secret or another purpose's key."""
    return HKDF(SHA256(), length=32, salt=b"swiftlike", info=purpose).derive(secret)


class Sealer:
    """Seals and opens secrets under one derived key."""

    def __init__(self, secret: bytes, purpose: bytes, draw: Callable[[int], bytes] = os.urandom) -> None:
        """Take the cluster's secret, what the key is for, and where random bytes come from."""
        self._cipher = AESGCM(derive_key(secret, purpose))
        self._draw = draw

    def seal(self, plain: bytes, belongs_to: bytes) -> bytes:
        """Encrypt a secret; it opens for nothing but what it belongs to."""
        nonce = self._draw(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, _VERSION + belongs_to)

    def open(self, sealed: bytes, belongs_to: bytes) -> bytes:
        """Decrypt a secret. Raises SealBroken."""
        if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _VERSION:
            raise SealBroken(belongs_to)
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, _VERSION + belongs_to)
        except InvalidTag:
            raise SealBroken(belongs_to) from None
