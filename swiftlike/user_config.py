"""Users as people write them: names, roles, keys, and the `[[users]]` tables of `cluster.toml` or of a file of users.

Owns what a name and a key may hold, wherever one comes from. Never knows where users are kept: that is `proxy/auth`'s.

Names are ASCII and free of `:`, `/`, `,`, `*` and spaces, so that `account:user` splits in one way only and a name stands in
a header, an ACL, a URL and a log line as it is.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from swiftlike.toml_tables import Between, ConfigError, load_table

NAME_BYTES_MAX: Final = 128
KEY_BYTES_MAX: Final = 256
ACCESS_KEY_BYTES_MAX: Final = 128

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+=-]*", re.ASCII)
_KEY: Final = re.compile(r"[!-~]+", re.ASCII)
_ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9_.@:+=-]+", re.ASCII)


class Role(StrEnum):
    """What a user may do beyond what ACLs grant."""

    ADMIN = "admin"
    """All in its own account."""
    RESELLER_ADMIN = "reseller_admin"
    """All in every account; makes and deletes accounts."""


class UserRefused(ValueError):
    """A name, a role or a key that no user can have; the sentence says which rule it breaks, and never a secret."""


def check_name(what: str, name: str) -> str:
    """Return the name of an account or of a user. Raises UserRefused."""
    if not 1 <= len(name) <= NAME_BYTES_MAX:
        raise UserRefused(f"{what} has {len(name)} characters; it must have 1 to {NAME_BYTES_MAX}")
    if not _NAME.fullmatch(name):
        raise UserRefused(
            f"{what} {name!r} may hold letters, digits and _ . @ + = - and must begin with one of the first two"
        )
    return name


def check_role(role: str) -> Role:
    """Return the role of this name. Raises UserRefused."""
    try:
        return Role(role)
    except ValueError:
        raise UserRefused(f"role {role!r} is not known; there are {', '.join(Role)}") from None


def check_key(what: str, key: str) -> str:
    """Return a key or a secret key. Raises UserRefused, without showing it."""
    if len(key) > KEY_BYTES_MAX or not _KEY.fullmatch(key):
        raise UserRefused(
            f"{what} must have 1 to {KEY_BYTES_MAX} printable ASCII characters and no spaces; it is not shown here"
        )
    return key


def check_access_key(access_key: str) -> str:
    """Return an S3 access key. Raises UserRefused."""
    if len(access_key) > ACCESS_KEY_BYTES_MAX or not _ACCESS_KEY.fullmatch(access_key):
        raise UserRefused(
            f"access key {access_key!r} must have 1 to {ACCESS_KEY_BYTES_MAX} letters, digits, and any of _ . @ : + = -"
        )
    return access_key


@dataclass(frozen=True, slots=True)
class UserConfig:
    """One `[[users]]`: a user that the cluster has from its start. The file's word wins over what was changed since."""

    account: Annotated[str, Between(1, NAME_BYTES_MAX)]
    """Whose user it is; what it owns is at `/v1/AUTH_<account>`."""
    user: Annotated[str, Between(1, NAME_BYTES_MAX)]
    """Its name in the account; `X-Auth-User` is `account:user`."""
    key: Annotated[str, Between(1, KEY_BYTES_MAX)] = field(repr=False)
    """Its `X-Auth-Key`. Long and random: nothing slows down those who guess."""
    roles: tuple[str, ...] = ()
    """`admin`: owns its account; `reseller_admin`: all accounts; none: only what ACLs grant."""
    s3_access_key: str = ""
    """Name of its S3 key pair. Default: none, so that only the Swift API knows the user."""
    s3_secret_key: str = field(default="", repr=False)
    """The pair's secret; both are set, or neither."""

    @property
    def name(self) -> str:
        """What people call it: `account:user`."""
        return f"{self.account}:{self.user}"


@dataclass(frozen=True, slots=True)
class UsersFile:
    """A file of nothing but users."""

    users: tuple[UserConfig, ...]


def load_users(path: Path) -> tuple[UserConfig, ...]:
    """Read and check a file of `[[users]]`, which only its owner may read. Raises ConfigError."""
    return check_users(path, load_table(UsersFile, path, secret=True).users)


def check_users(path: Path, users: tuple[UserConfig, ...]) -> tuple[UserConfig, ...]:
    """Return the users of a file when all of them can be. Raises ConfigError."""
    names: set[str] = set()
    access_keys: set[str] = set()
    for at, user in enumerate(users):
        where = f"{path}: users[{at}]"
        try:
            check_name("account", user.account)
            check_name("user", user.user)
            check_key("key", user.key)
            for role in user.roles:
                check_role(role)
            if user.s3_access_key:
                check_access_key(user.s3_access_key)
            if user.s3_secret_key:
                check_key("s3_secret_key", user.s3_secret_key)
        except UserRefused as refused:
            raise ConfigError(f"{where}: {refused}") from None
        if bool(user.s3_access_key) != bool(user.s3_secret_key):
            raise ConfigError(f"{where}: set both s3_access_key and s3_secret_key, or neither")
        if user.name in names:
            raise ConfigError(f"{where}: {user.name} is there twice: give each user one table")
        if user.s3_access_key and user.s3_access_key in access_keys:
            raise ConfigError(
                f"{where}: s3_access_key {user.s3_access_key} is there twice: give each its own"
            )
        names.add(user.name)
        access_keys.add(user.s3_access_key)
    return users
