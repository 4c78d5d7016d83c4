"""/v1/account/container/object: which resource a path names.

Owns the split and the limits on names, in Swift's words. The path was percent-decoded already, and is split as it is: an
object's name keeps every `/`.
"""

from typing import NamedTuple

from proxy.http.errors import TargetRefused
from proxy.http.target import decode_percent
from proxy.store.names import ContainerName, ObjectName
from proxy.swift_api.refusals import Refusal
from swiftlike.names import ACCOUNT_BYTES_MAX, CONTAINER_BYTES_MAX, OBJECT_BYTES_MAX


class Resource(NamedTuple):
    """What a request is about; empty parts are not named."""

    account: bytes
    container: bytes = b""
    name: bytes = b""

    @property
    def of_container(self) -> ContainerName:
        """The container."""
        return ContainerName(self.account, self.container)

    @property
    def of_object(self) -> ObjectName:
        """The object."""
        return ObjectName(self.account, self.container, self.name)


def parse_resource(path: bytes) -> Resource:
    """Split a path below `/v1/`. Raises Refusal."""
    _check_text(path)
    parts = path.split(b"/", 4)[2:]
    account = parts[0] if parts else b""
    container = parts[1] if len(parts) > 1 else b""
    name = parts[2] if len(parts) > 2 else b""
    if not account:
        raise Refusal(412, "Bad URL: it names no account.")
    if name and not container:
        raise Refusal(404, "There is no such container: its name is empty.")
    if (
        len(account) > ACCOUNT_BYTES_MAX
        or len(container) > CONTAINER_BYTES_MAX
        or len(name) > OBJECT_BYTES_MAX
    ):
        check_lengths(account, container, name)  # which says what is too long
    return Resource(account, container, name)


def check_lengths(account: bytes, container: bytes, name: bytes) -> None:
    """Refuse names that are too long. Raises Refusal."""
    for kind, given, limit in (
        ("Account", account, ACCOUNT_BYTES_MAX),
        ("Container", container, CONTAINER_BYTES_MAX),
        ("Object", name, OBJECT_BYTES_MAX),
    ):
        if len(given) > limit:
            raise Refusal(400, f"{kind} name length of {len(given)} longer than {limit}")


def parse_reference(header: str, raw: str) -> tuple[bytes, bytes]:
    """Read the value of `Destination` or `X-Copy-From`: container/object, with or without a leading slash.

    Raises Refusal.
    """
    value = _decode(header, raw)
    container, slash, name = value.removeprefix(b"/").partition(b"/")
    if not container or not slash or not name:
        raise Refusal(412, f"{header} header must be of the form <container name>/<object name>")
    check_lengths(b"", container, name)
    return container, name


def parse_account(header: str, raw: str) -> bytes:
    """Read the value of `Destination-Account` or `X-Copy-From-Account`. Raises Refusal."""
    value = _decode(header, raw)
    if not value or b"/" in value:
        raise Refusal(412, f"{header} header must be an account name")
    check_lengths(value, b"", b"")
    return value


def _decode(header: str, raw: str) -> bytes:
    try:
        value = decode_percent(raw)
    except TargetRefused as refused:
        raise Refusal(412, f"{header} header is malformed: {refused}") from None
    _check_text(value)
    return value


def _check_text(value: bytes) -> None:
    if b"\0" in value:
        raise Refusal(412, "Invalid UTF8 or contains NULL")
    try:
        value.decode()
    except UnicodeDecodeError:
        raise Refusal(412, "Invalid UTF8 or contains NULL") from None
