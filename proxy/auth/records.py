"""Records: one user, and how it is written into the attributes of an object.

Owns the names of those attributes and which of them are sealed. Pure but for the nonces of the sealer, which are drawn once
for each change, not in each attempt at it. A change touches only what it means, so that a key is rotated even where
another secret of the user no longer opens.

    sys:roles             names of roles, comma between
    sys:key               the user's key, sealed
    sys:generation        hex; drawn anew with each new key, so that tokens of the old one end
    sys:s3:<access key>   the secret of that S3 key, sealed
    sys:from-file         the access key that a configuration file brought, so that the file can take it back
"""

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxy.auth.identities import Identity
from proxy.auth.sealing import SealBroken, Sealer
from proxy.auth.tokens import GENERATION_BYTES
from proxy.store.values import Attributes
from swiftlike.user_config import Role

ACCESS_KEYS_MAX: Final = 10
"""S3 keys of one user: enough to hand one to each of its programs and to change them one by one."""

_ROLES: Final = "sys:roles"
_KEY: Final = "sys:key"
_GENERATION: Final = "sys:generation"
_S3: Final = "sys:s3:"
_FROM_FILE: Final = "sys:from-file"


class UserName(NamedTuple):
    """A user's name: in its account, and whole."""

    account: str
    user: str

    def __str__(self) -> str:
        """Write it as people do."""
        return f"{self.account}:{self.user}"


@dataclass(frozen=True, slots=True)
class User:
    """A user as it stands in the cluster."""

    name: UserName
    roles: frozenset[str]
    key: str = field(repr=False)
    """What it shows as `X-Auth-Key`."""
    generation: bytes
    """Of that key; a token of another generation is over."""
    access_keys: Mapping[str, str] = field(repr=False)
    """Its S3 keys: the secret of each."""
    unopened: tuple[str, ...] = ()
    """S3 keys whose secret does not open under this cluster's secret: nobody can use them."""

    @property
    def identity(self) -> Identity:
        """Who asks, when this user does."""
        return Identity(self.name.user, self.name.account, self.roles)


def read_user(name: UserName, attributes: Attributes, sealer: Sealer) -> User:
    """Read a record. Raises SealBroken when the user's key does not open."""
    opened: dict[str, str] = {}
    unopened: list[str] = []
    for access_key in access_keys_of(attributes):
        try:
            opened[access_key] = _open(
                sealer, attributes[_S3 + access_key], _owner_of_secret(name, access_key)
            )
        except SealBroken:
            unopened.append(access_key)
    return User(
        name,
        frozenset(filter(None, attributes.get(_ROLES, "").split(","))),
        _open(sealer, attributes.get(_KEY, ""), _owner_of_key(name)),
        bytes.fromhex(attributes.get(_GENERATION, "")),
        opened,
        tuple(unopened),
    )


def access_keys_of(attributes: Attributes) -> tuple[str, ...]:
    """Return the S3 access keys that a record names."""
    return tuple(name.removeprefix(_S3) for name in attributes if name.startswith(_S3))


def access_key_from_file(attributes: Attributes) -> str:
    """Return the access key that a file brought; empty when none did."""
    return attributes.get(_FROM_FILE, "")


def with_roles(attributes: Attributes, roles: Collection[str]) -> Attributes:
    """Return the record with these roles."""
    return {**attributes, _ROLES: ",".join(sorted(Role(role) for role in roles))}


def key_fields(name: UserName, key: str, generation: bytes, sealer: Sealer) -> Attributes:
    """Return what makes a record have another key, of another generation: `{**record, **fields}`."""
    assert len(generation) == GENERATION_BYTES
    return {_KEY: _seal(sealer, key, _owner_of_key(name)), _GENERATION: generation.hex()}


def access_key_fields(name: UserName, access_key: str, secret: str, sealer: Sealer) -> Attributes:
    """Return what makes a record have one more S3 key, or another secret of one: `{**record, **fields}`."""
    return {_S3 + access_key: _seal(sealer, secret, _owner_of_secret(name, access_key))}


def without_access_key(attributes: Attributes, access_key: str) -> Attributes:
    """Return the record without an S3 key."""
    gone = {_S3 + access_key}
    if access_key_from_file(attributes) == access_key:
        gone.add(_FROM_FILE)
    return {name: value for name, value in attributes.items() if name not in gone}


def marked_from_file(attributes: Attributes, access_key: str) -> Attributes:
    """Return the record with a note of which access key a file brought."""
    return {**attributes, _FROM_FILE: access_key}


def _owner_of_key(name: UserName) -> bytes:
    return f"key\0{name}".encode()


def _owner_of_secret(name: UserName, access_key: str) -> bytes:
    return f"secret of S3 key {access_key}\0{name}".encode()


def _seal(sealer: Sealer, secret: str, belongs_to: bytes) -> str:
    return base64.b64encode(sealer.seal(secret.encode(), belongs_to)).decode("ascii")


def _open(sealer: Sealer, text: str, belongs_to: bytes) -> str:
    try:
        sealed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SealBroken(belongs_to) from None
    return sealer.open(sealed, belongs_to).decode()
