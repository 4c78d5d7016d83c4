"""The failure domains of a cluster as flat arrays: regions, zones, hosts, devices.

Devices stand in tree order (sorted by region, zone, host, id), so that the devices of any node are one contiguous
run and a node of one tier is numbered in the order of its first device. Knows nothing of partitions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ring.device import Device, Tier

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

TIERS = (Tier.REGION, Tier.ZONE, Tier.HOST, Tier.DEVICE)


@dataclass(frozen=True, slots=True)
class Tree:
    """Devices in tree order, and for each tier which node every device belongs to."""

    devices: tuple[Device, ...]
    node_of: tuple[Ints, ...]
    """One array a tier: the node of each device, numbered from 0 in tree order."""
    parent_of: tuple[Ints, ...]
    """One array a tier: the node of the tier above that each node belongs to (all 0 for regions)."""

    @classmethod
    def of(cls, devices: Sequence[Device]) -> "Tree":
        """Sort `devices` into tree order and number the nodes of every tier."""
        ordered = tuple(sorted(devices, key=lambda device: device.location(Tier.DEVICE)))
        node_of: list[Ints] = []
        parent_of: list[Ints] = []
        above = np.zeros(len(ordered), np.int64)
        for tier in TIERS:
            places = [device.location(tier) for device in ordered]
            starts = np.array([n == 0 or places[n] != places[n - 1] for n in range(len(places))], dtype=bool)
            nodes = np.cumsum(starts) - 1
            node_of.append(nodes)
            parent_of.append(above[starts])
            above = nodes
        return cls(ordered, tuple(node_of), tuple(parent_of))

    def nodes(self, tier: Tier) -> int:
        """Count the nodes of a tier."""
        return len(self.parent_of[tier])

    def sums(self, tier: Tier, per_device: npt.NDArray[np.generic]) -> Floats:
        """Add up a value of the devices for every node of a tier."""
        return np.bincount(self.node_of[tier], weights=per_device, minlength=self.nodes(tier)).astype(
            np.float64
        )
