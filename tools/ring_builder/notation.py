r"""How operators write devices and searches, in the notation that Swift's operators know.

Owns the grammar, both ways, and what it can match. Knows nothing of builders, files or the command line.

    device   [d3][r1]z2-10.0.0.5:6200/sdb1[_meta]     region 1 when left out; IPv6 in brackets
    search   any of these, in this order: d3 r1 z2 -10.0.0.5 :6200 /sdb1 _meta; the "-" stands only behind another part

A device name ends at the first "_", as in Swift. A name that contains one can be given and searched as an option.
"""

import ipaddress
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ring.device import Device, DeviceId
from ring.errors import RingError

REGION_MAX: Final = 10**9 - 1
"""Also of zones; nine digits, which any reader of a ring file can hold."""
NAME_BYTES_MAX: Final = 255
"""What a file system allows a directory's name."""
META_BYTES_MAX: Final = 1024

_HOST: Final = r"\[[^\]]*\]|[^\[\]:/]+"
_DEVICE: Final = re.compile(
    rf"(?:d(?P<id>[0-9]{{1,10}}))?(?:r(?P<region>[0-9]{{1,9}}))?z(?P<zone>[0-9]{{1,9}})-(?P<host>{_HOST})"
    r":(?P<port>[0-9]{1,5})/(?P<name>[^_]+)(?:_(?P<meta>.*))?",
    re.DOTALL,
)
_SEARCH: Final = re.compile(
    r"(?:d(?P<id>[0-9]{1,10})(?=[rz:/_-]|$))?(?:r(?P<region>[0-9]{1,9})(?=[z:/_-]|$))?"
    r"(?:z(?P<zone>[0-9]{1,9})(?=[:/_-]|$))?(?:-?(?P<host>\[[^\]]*\]|[A-Za-z0-9.][A-Za-z0-9.-]*))?"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/(?P<name>[^_]+))?(?:_(?P<meta>.*))?",
    re.DOTALL,
)
_REPLICATION: Final = re.compile(r"[^/_]*:[0-9]+R[^/]*")
_HOST_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)

_DEVICE_LIKE: Final = "write it like r1z1-127.0.0.1:6200/sdb1_meta"
_SEARCH_LIKE: Final = (
    "write it like d3, r1z2, z1-127.0.0.1, :6200, /sdb1 or _meta, in this order when combined"
)


class NotationError(RingError):
    """Something that was typed is not what it should be; the message shows what it should look like."""


@dataclass(frozen=True, slots=True)
class Search:
    """What devices are to be found by; None is "whatever it is"."""

    id: int | None = None
    region: int | None = None
    zone: int | None = None
    host: str | None = None
    port: int | None = None
    name: str | None = None
    weight: float | None = None
    meta: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it would find every device."""
        return self == Search()

    def matches(self, device: Device) -> bool:
        """Say whether all that is asked for is so."""
        asked_and_found = (
            (self.id, device.id),
            (self.region, device.region),
            (self.zone, device.zone),
            (self.host, device.host),
            (self.port, device.port),
            (self.name, device.name),
            (self.weight, device.weight),
            (self.meta, device.meta),
        )
        return all(asked is None or asked == found for asked, found in asked_and_found)


def parse_device(text: str, weight: float, new_id: int, uuid: UUID | None = None) -> Device:
    """Read a device; it gets `new_id` unless it names an id of its own, as `str(device)` does."""
    _refuse_replication_address(text)
    found = _DEVICE.fullmatch(text)
    if not found:
        raise NotationError(f"{text!r} is not a device; {_DEVICE_LIKE}")
    return make_device(
        id=int(found["id"] or new_id),
        region=int(found["region"] or 1),
        zone=int(found["zone"]),
        host=found["host"],
        port=int(found["port"]),
        name=found["name"],
        weight=weight,
        meta=found["meta"] or "",
        uuid=uuid,
    )


def make_device(
    *,
    id: int,  # noqa: A002  what a device calls it, and its operators
    region: int,
    zone: int,
    host: str,
    port: int,
    name: str,
    weight: float,
    meta: str = "",
    uuid: UUID | None = None,
) -> Device:
    """Return a device of these parts, the host in its one spelling. What a builder refuses is left to it."""
    return Device(
        DeviceId(id),
        region,
        zone,
        normal_host(host),
        port,
        checked_name(name),
        weight,
        checked_meta(meta),
        uuid,
    )


def parse_search(text: str) -> Search:
    """Read a search value."""
    _refuse_replication_address(text)
    found = _SEARCH.fullmatch(text)
    if not text or not found:
        raise NotationError(f"{text!r} is not a search value; {_SEARCH_LIKE}")
    number = {key: int(found[key]) if found[key] else None for key in ("id", "region", "zone", "port")}
    host = normal_host(found["host"]) if found["host"] else None
    return Search(**number, host=host, name=found["name"], meta=found["meta"])


def parse_change(text: str) -> Search:
    """Read what `set_info` is to change: host, port, name and meta, in the notation of a search value."""
    try:
        change = parse_search(text)
    except NotationError:
        raise NotationError(
            f"{text!r} is not what a device can become; write it like 127.0.0.1:6200/sdb1_meta"
        ) from None
    if (change.id, change.region, change.zone) != (None, None, None):
        raise NotationError(
            f"{text!r} names an id, region or zone, which set_info does not change; use set_region or set_zone"
        )
    return change


def changed(device: Device, change: Search) -> Device:
    """Return the device with the host, port, name and meta that a change names."""
    return replace(
        device,
        host=device.host if change.host is None else normal_host(change.host),
        port=device.port if change.port is None else change.port,
        name=device.name if change.name is None else checked_name(change.name),
        meta=device.meta if change.meta is None else checked_meta(change.meta),
    )


def parse_weight(text: str) -> float:
    """Read a weight. One below zero is a number as well; the builder refuses it."""
    try:
        weight = float(text)
    except ValueError:
        raise NotationError(
            f"{text!r} is not a weight; write a number such as 100, or 0 to drain the device"
        ) from None
    if not math.isfinite(weight):
        raise NotationError(f"a weight of {text} is no share of anything; write a number such as 100")
    return weight


def parse_overload(text: str) -> float:
    """Read an overload, as a factor (0.1) or in percent (10%)."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise NotationError(
            f"{text!r} is not an overload; write 0.1 or 10% to let a device hold a tenth more"
        ) from None


def parse_place(text: str, what: str) -> int:
    """Read the number of a region or zone."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise NotationError(f"{text!r} is not a {what}; write a whole number from 0 to {REGION_MAX}")
    return int(text)


def pairs_of(values: Iterable[str], what: str) -> list[tuple[str, str]]:
    """Take values two by two; `what` names the two for the refusal of an odd one."""
    values = tuple(values)
    if not values or len(values) % 2:
        raise NotationError(
            f"{len(values)} values are not pairs of {what}; give one of each, any number of times"
        )
    return list(zip(values[::2], values[1::2], strict=True))


def normal_host(text: str) -> str:
    """Return an address or host name in its one spelling: IPv6 short and without brackets, names in lower case."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if ":" in bare or bare != text:
            address = ipaddress.IPv6Address(bare)
            if address.scope_id:
                raise NotationError(
                    f"host {text!r} is good on one machine only; leave out the %{address.scope_id}"
                )
            return str(address)
        if re.fullmatch(r"[0-9.]+", bare):
            return str(ipaddress.IPv4Address(bare))
    except ValueError:
        raise NotationError(f"{text!r} is not an IP address; write it like 10.0.0.5 or [fd00::5]") from None
    name = bare.lower()
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise NotationError(
            f"{text!r} is neither an IP address nor a host name; write it like 10.0.0.5 or [fd00::5]"
        )
    return name


def checked_name(name: str) -> str:
    """Return a device name that can be the name of a directory."""
    if not _is_text(name, NAME_BYTES_MAX) or "/" in name or name in ("", ".", ".."):
        raise NotationError(
            f"{name!r} is not a device name; write the name of its directory, such as sdb1, without a slash"
        )
    return name


def checked_meta(meta: str) -> str:
    """Return a meta text that fits a line of a table."""
    if not _is_text(meta, META_BYTES_MAX):
        raise NotationError(
            f"a meta text has up to {META_BYTES_MAX} bytes of printable characters, and this one has not; shorten or clean it"
        )
    return meta


def _is_text(text: str, bytes_max: int) -> bool:
    """Say whether a text is printable UTF-8 of up to so many bytes."""
    return text.isprintable() and len(text.encode(errors="replace")) <= bytes_max


def _refuse_replication_address(text: str) -> None:
    if _REPLICATION.match(text):
        raise NotationError(
            f"{text!r} has a replication address, which is not supported, since a device is reached at one address for"
            " everything; leave out what follows the R, and the R"
        )
