"""Tokens: what `/auth/v1.0` hands out, so that any proxy knows its user again without asking who made it.

Owns the text form and its signature. Time is handed in. Whether the user still is who the token says, by the generation of
his key, is for whoever knows the users.

    token, version 1:  "AUTH_tk" and, in base64url without padding:
                       offset  size  field
                            0     1  version = 1
                            1     8  good until, microseconds since 1970, big-endian
                            9     8  generation of the user's key
                           17     1  account_bytes
                           18        account, then user
                                 32  HMAC-SHA256 of all before, under a key derived from the cluster's secret
"""

import base64
import hmac
from struct import Struct
from struct import error as StructError  # noqa: N812 (it is a class)
from typing import Final, NamedTuple

from proxy.auth.sealing import derive_key
from swiftlike.user_config import NAME_BYTES_MAX

PREFIX: Final = "AUTH_tk"
GENERATION_BYTES: Final = 8

_HEAD: Final = Struct(">BQ8sB")
assert _HEAD.size == 18, "the table and the code must agree"
_VERSION: Final = 1
_MAC_BYTES: Final = 32
_PROVEN_MAX: Final = 4096
"""Tokens that need no second proof: only their time and their user are looked at again. About a megabyte."""
_TEXT_CHARACTERS_MAX: Final = len(PREFIX) + (_HEAD.size + 2 * NAME_BYTES_MAX + _MAC_BYTES) * 4 // 3 + 1


class TokenRefused(Exception):
    """A text that proves nothing: ask for a new token."""


class TokenForged(TokenRefused):
    """Not made under this cluster's secret, or changed since."""


class TokenExpired(TokenRefused):
    """It was good, and its time is over."""


class Token(NamedTuple):
    """What a sound token says."""

    account: str
    user: str
    generation: bytes
    """Of the user's key when the token was made: with another key, or none, the token is over."""
    until_us: int


class Tokens:
    """Makes and verifies tokens under one cluster's secret."""

    def __init__(self, secret: bytes, lifetime_s: int) -> None:
        """Take the cluster's secret, and how long a token is good."""
        self._key = derive_key(secret, b"tokens")
        self._lifetime_us = lifetime_s * 1_000_000
        self._proven: dict[str, Token] = {}

    def issue(self, account: str, user: str, generation: bytes, now_us: int) -> tuple[str, Token]:
        """Return a new token as the text to hand out, and what it says."""
        assert len(generation) == GENERATION_BYTES
        token = Token(account, user, generation, now_us + self._lifetime_us)
        return self._write(token), token

    def verify(self, text: str, now_us: int) -> Token:
        """Return what a token says. Raises TokenForged, TokenExpired."""
        # One text for one token: whatever decodes to the same bytes is not it, so the texts are compared.
        token = self._proven.get(text)
        if token is None:
            token = _read(text)
            if token is None or not hmac.compare_digest(self._write(token), text):
                raise TokenForged("the token was not made by this cluster")
            if len(self._proven) >= _PROVEN_MAX:
                self._proven.clear()
            self._proven[text] = token
        if now_us >= token.until_us:
            raise TokenExpired(
                f"the token of {token.account}:{token.user} was good until {token.until_us} µs"
            )
        return token

    def _write(self, token: Token) -> str:
        account = token.account.encode()
        head = _HEAD.pack(_VERSION, token.until_us, token.generation, len(account))
        signed = head + account + token.user.encode()
        mac = hmac.digest(self._key, signed, "sha256")
        return PREFIX + base64.urlsafe_b64encode(signed + mac).rstrip(b"=").decode("ascii")


def _read(text: str) -> Token | None:
    """Read what a text claims, before it is known who wrote it; None when no token looks so."""
    if len(text) > _TEXT_CHARACTERS_MAX or not text.isascii() or not text.startswith(PREFIX):
        return None
    body = text[len(PREFIX) :]
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        version, until_us, generation, account_bytes = _HEAD.unpack_from(raw)
        names = raw[_HEAD.size : -_MAC_BYTES].decode("ascii")
    except (ValueError, StructError):
        return None
    if version != _VERSION or len(raw) < _HEAD.size + account_bytes + _MAC_BYTES:
        return None
    return Token(names[:account_bytes], names[account_bytes:], generation, until_us)
