"""The clusters that are measured: which devices there are, in values that either ring builder takes.

Owns the shape of a cluster and the file in which it is handed to the processes that measure. Knows neither builder.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

REPLICAS: Final = 3
WEIGHTS: Final = (4000.0, 8000.0, 12000.0)
REGIONS: Final = 2
ZONES_PER_REGION: Final = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """How many devices on how many hosts, and how many partitions lie on them."""

    part_power: int
    devices: int
    hosts: int
    """In all: they are dealt to the zones in turn, and the devices to the hosts."""

    @property
    def partitions(self) -> int:
        """Count the partitions."""
        return 1 << self.part_power

    @property
    def slots(self) -> int:
        """Count the partition-replicas."""
        return REPLICAS * self.partitions

    def __str__(self) -> str:
        """Say it in a sentence."""
        return (
            f"2^{self.part_power} partitions, {REPLICAS} replicas, {self.devices:,} devices of weights "
            f"{', '.join(f'{weight:.0f}' for weight in WEIGHTS)} in {REGIONS} regions x {ZONES_PER_REGION} zones, "
            f"{self.hosts:,} hosts in all (about {self.hosts / REGIONS / ZONES_PER_REGION:.0f} in each zone)"
        )


FULL: Final = Shape(part_power=20, devices=1_000, hosts=100)
QUICK: Final = Shape(part_power=16, devices=200, hosts=20)


@dataclass(frozen=True, slots=True)
class Disk:
    """One device; its number is its id."""

    region: int
    zone: int
    host: str
    port: int
    name: str
    weight: float


def disks(shape: Shape) -> list[Disk]:
    """List the devices of a cluster, and after them the one that is added to it."""
    return [_disk(shape, number) for number in range(shape.devices + 1)]


def _disk(shape: Shape, number: int) -> Disk:
    host = number % shape.hosts
    return Disk(
        region=1 + host % REGIONS,
        zone=1 + host // REGIONS % ZONES_PER_REGION,
        host=f"10.{host >> 16}.{host >> 8 & 255}.{host & 255}",
        port=6200,
        name=f"sd{number // shape.hosts}",
        weight=WEIGHTS[number % len(WEIGHTS)],
    )


def write_cluster(path: Path, shape: Shape) -> None:
    """Write what a process that measures must know of the cluster."""
    described = {**asdict(shape), "replicas": REPLICAS, "disks": [asdict(disk) for disk in disks(shape)]}
    path.write_text(json.dumps(described))


def read_cluster(path: Path) -> tuple[Shape, list[Disk]]:
    """Read it back."""
    described: dict[str, Any] = json.loads(path.read_text())
    shape = Shape(described["part_power"], described["devices"], described["hosts"])
    return shape, [Disk(**disk) for disk in described["disks"]]
