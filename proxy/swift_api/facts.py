"""What stands there, as headers.

Owns their names and forms: times as Swift writes them, counts by policy, etags without quotes.
"""

from collections.abc import Mapping

from proxy.http.dates import format_date, seconds_up
from proxy.http.response import Headers
from proxy.store.values import AccountInfo, ContainerInfo, ObjectInfo, Usage
from proxy.swift_api.descriptions import kept_header
from proxy.swift_api.metadata import META, add_metadata

_MICROS = 1_000_000


def format_timestamp(micros: int) -> str:
    """Write a time as `1700000000.12345`, as `X-Timestamp` does."""
    seconds, fraction = divmod(micros, _MICROS)
    return f"{seconds:010d}.{fraction // 10:05d}"


def last_modified(micros: int) -> str:
    """Write a time as `Last-Modified`, rounded up to the second."""
    return format_date(seconds_up(micros))


def account_headers(info: AccountInfo, usage: Usage, policies: Mapping[int, str]) -> Headers:
    """Return the headers of an account."""
    headers = [
        ("X-Account-Container-Count", str(usage.containers)),
        ("X-Account-Object-Count", str(usage.objects)),
        ("X-Account-Bytes-Used", str(usage.bytes)),
        ("Accept-Ranges", "bytes"),
    ]
    for index, share in sorted(usage.policies.items()):
        lead = f"X-Account-Storage-Policy-{policies.get(index, str(index))}"
        headers.append((f"{lead}-Container-Count", str(share.containers)))
        headers.append((f"{lead}-Object-Count", str(share.objects)))
        headers.append((f"{lead}-Bytes-Used", str(share.bytes)))
    if info.entry is not None:
        headers.append(("X-Timestamp", format_timestamp(info.entry.modified)))
    add_metadata(headers, info.attributes, "Account")
    return headers


def container_headers(
    info: ContainerInfo, usage: Usage, policies: Mapping[int, str], is_owner: bool
) -> Headers:
    """Return the headers of a container; its ACLs are for its owner."""
    headers = [
        ("X-Container-Object-Count", str(usage.objects)),
        ("X-Container-Bytes-Used", str(usage.bytes)),
        ("X-Storage-Policy", policies.get(info.policy, str(info.policy))),
        ("X-Timestamp", format_timestamp(info.created_us)),
        ("Last-Modified", last_modified(info.modified_us)),
        ("Accept-Ranges", "bytes"),
    ]
    if is_owner:
        for header, attribute in (
            ("X-Container-Read", "sys:read-acl"),
            ("X-Container-Write", "sys:write-acl"),
        ):
            if value := info.attributes.get(attribute):
                headers.append((header, value))
    add_metadata(headers, info.attributes, "Container")
    return headers


def object_headers(info: ObjectInfo) -> Headers:
    """Return the headers of an object, but for what its body is in this answer."""
    entry = info.entry
    headers = [
        ("Etag", info.etag),
        ("Last-Modified", last_modified(entry.modified)),
        ("X-Timestamp", format_timestamp(entry.modified)),
        ("Accept-Ranges", "bytes"),
    ]
    if entry.delete_at:
        headers.append(("X-Delete-At", str(entry.delete_at // _MICROS)))
    has_metadata = False
    for name, value in info.attributes.items():
        if name == "etag" or name == "type":
            continue
        if name.startswith(META):
            has_metadata = True
        elif (header := kept_header(name)) is not None:
            headers.append((header, value))
    if has_metadata:
        add_metadata(headers, info.attributes, "Object")
    return headers
