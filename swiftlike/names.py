"""Names of accounts, containers and objects, and the one byte string that a name becomes.

A name is bytes of valid UTF-8. NUL separates the parts of a path and leads the names that no client may
reach (parts of a multipart upload, object versions), so it is refused from outside.
"""

from typing import Final

ACCOUNT_BYTES_MAX: Final = 256
CONTAINER_BYTES_MAX: Final = 256
OBJECT_BYTES_MAX: Final = 1024
ROW_BYTES_MAX: Final = OBJECT_BYTES_MAX + 64
"""The longest name of a row: an object's, and what a hidden one adds."""

SEPARATOR: Final = b"\0"


class NameRefused(ValueError):
    """A name that a client may not use; the message says which limit it breaks."""


def path_of(account: bytes, container: bytes | None = None, obj: bytes | None = None) -> bytes:
    """Join the parts of a name into its path: `account`, `account NUL container` or `account NUL container NUL object`.

    The parts are trusted: `check_name` guards the door.
    """
    if container is None:
        return account
    if obj is None:
        return account + SEPARATOR + container
    return b"\0".join((account, container, obj))


def check_name(kind: str, name: bytes, bytes_max: int) -> bytes:
    """Return `name` unchanged when a client may use it.

    Raises NameRefused when it is empty, longer than `bytes_max`, holds a NUL or is not UTF-8.
    """
    if not name:
        raise NameRefused(f"{kind} name is empty")
    if len(name) > bytes_max:
        raise NameRefused(f"{kind} name is {len(name)} bytes long; the limit is {bytes_max}")
    if SEPARATOR in name:
        raise NameRefused(f"{kind} name contains a NUL byte")
    try:
        name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NameRefused(f"{kind} name is not valid UTF-8 at byte {error.start}") from None
    return name
