"""A device as the ring knows it: where it is, how to reach it, and how much it should hold."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NewType
from uuid import UUID

DeviceId = NewType("DeviceId", int)
"""Index of a device in the ring's table, 32 bits. Ids of removed devices are not used again."""

Partition = NewType("Partition", int)
"""A slice of the hash space: the top `part_power` bits of a path hash."""

DEVICE_ID_MAX = 2**32 - 2
"""The largest device id; the value above it means "nobody" in a ring file."""

WEIGHT_MAX: Final = 1e18
"""An exabyte, should weights be bytes. Bounded, so that the sum over all devices is a number."""


class Tier(IntEnum):
    """The levels at which devices fail together, from the widest to the narrowest."""

    REGION = 0
    ZONE = 1
    HOST = 2
    DEVICE = 3


@dataclass(frozen=True, slots=True)
class Device:
    """One disk of the cluster.

    `weight` is this device's share of partitions relative to the others; zero means "drain me".
    `uuid` is None until the device is bound; an unbound device holds copies but does not vote.
    """

    id: DeviceId
    region: int
    zone: int
    host: str
    """IP address or host name, and the failure domain below the zone."""
    port: int
    name: str
    """Directory name of the device on its host, such as `sdb1`."""
    weight: float
    meta: str = ""
    uuid: UUID | None = None

    def location(self, tier: Tier) -> tuple[int | str, ...]:
        """Return the path of names from the region down to `tier`; two devices share a tier when these are equal."""
        return (self.region, self.zone, self.host, self.id)[: tier + 1]

    def __str__(self) -> str:
        """Write the device the way the ring builder's operators do: `d3r1z2-10.0.0.5:6200/sdb1_meta`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        meta = f"_{self.meta}" if self.meta else ""
        return f"d{self.id}r{self.region}z{self.zone}-{host}:{self.port}/{self.name}{meta}"
