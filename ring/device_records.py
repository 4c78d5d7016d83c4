"""Device records: how a device stands in a ring file and in a builder file, and how a field is believed.

Owns the order of a record's fields, and the checks that a msgpack value is of the type and within the bounds that its
reader expects. Raises TypeError and ValueError only: whoever reads a file adds which one it is. Never opens anything.

    record, an array: region, zone, host, port, name, weight (float), meta, uuid (16 bytes or nil)
"""

import sys
from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from ring.device import DEVICE_ID_MAX, WEIGHT_MAX, Device, DeviceId

T = TypeVar("T")


def pack_devices(devices: Sequence[Device | None]) -> list[list[Any] | None]:
    """Return the records of devices by id; a hole is nil."""
    return [None if device is None else _pack(device) for device in devices]


def unpack_devices(records: Sequence[Any]) -> list[Device | None]:
    """Return the devices of records, each of which takes its place for its id."""
    if len(records) > DEVICE_ID_MAX + 1:
        raise ValueError(f"{len(records)} devices")
    return [None if record is None else _unpack(number, record) for number, record in enumerate(records)]


def _pack(device: Device) -> list[Any]:
    uuid = None if device.uuid is None else device.uuid.bytes
    weight = float(device.weight)
    return [device.region, device.zone, device.host, device.port, device.name, weight, device.meta, uuid]


def _unpack(number: int, record: Sequence[Any]) -> Device:
    region, zone, host, port, name, weight, meta, uuid = record
    return Device(
        id=DeviceId(number),
        region=typed(region, int),
        zone=typed(zone, int),
        host=sys.intern(typed(host, str)),
        port=typed(port, int),
        name=sys.intern(typed(name, str)),
        weight=between(weight, 0.0, WEIGHT_MAX),
        meta=sys.intern(typed(meta, str)),
        uuid=None if uuid is None else UUID(bytes=typed(uuid, bytes)),
    )


def typed(value: Any, kind: type[T]) -> T:
    """Return a value that is of this very type."""
    # Not isinstance: True would be a port.
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value


def within(value: Any, least: int, most: int) -> int:
    """Return a whole number that lies from `least` to `most`."""
    if not least <= typed(value, int) <= most:
        raise ValueError(f"{value} where {least} to {most} belongs")
    return int(value)


def between(value: Any, least: float, most: float) -> float:
    """Return a float that lies from `least` to `most`, which no NaN does."""
    if not least <= typed(value, float) <= most:
        raise ValueError(f"{value} where {least:g} to {most:g} belongs")
    return float(value)
