"""Judging an assignment by what it is, whoever made it: balance, dispersion, moves, partners.

Works on plain arrays, one row a replica, one column a partition, each number a device id; knows no builder and none
of their own notions of balance.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.clusters import REPLICAS, Disk, Shape

Ints = npt.NDArray[np.integer[Any]]

TIERS: Final = ("region", "zone", "host", "device")


@dataclass(frozen=True, slots=True)
class Domains:
    """Which region, zone, host and device every device is in, as numbers from 0."""

    node_of: tuple[Ints, ...]
    weights: npt.NDArray[np.float64]

    @classmethod
    def of(cls, disks: Sequence[Disk]) -> "Domains":
        """Number the nodes of every tier."""
        return cls(
            (
                _numbered([disk.region for disk in disks]),
                _numbered([(disk.region, disk.zone) for disk in disks]),
                _numbered([(disk.region, disk.zone, disk.host) for disk in disks]),
                np.arange(len(disks)),
            ),
            np.array([disk.weight for disk in disks]),
        )

    def most_distinct(self, tier: int) -> int:
        """Return over how many nodes of a tier the replicas of a partition can be spread at best."""
        return min(REPLICAS, int(self.node_of[tier].max()) + 1)


def _numbered(places: Sequence[Hashable]) -> Ints:
    number_of = {place: number for number, place in enumerate(dict.fromkeys(places))}
    return np.array([number_of[place] for place in places])


def read_assignment(path: Path, shape: Shape) -> Ints:
    """Read rows of u32 device ids."""
    return np.fromfile(path, np.uint32).reshape(REPLICAS, shape.partitions)


def imbalance_percent(owners: Ints, domains: Domains) -> float:
    """Return by how much the device that is furthest from its weight's share is off it, in per cent of that share."""
    loads = np.bincount(owners.ravel(), minlength=len(domains.weights))
    shares = owners.size * domains.weights / domains.weights.sum()
    return float(np.abs(loads / shares - 1).max()) * 100


def spread(owners: Ints, domains: Domains, tier: int) -> list[int]:
    """Count the partitions whose replicas lie on 1, 2, ... distinct nodes of a tier."""
    distinct = _distinct(owners, domains, tier)
    return [int(count) for count in np.bincount(distinct, minlength=REPLICAS + 1)[1:]]


def crowded(owners: Ints, domains: Domains, tier: int) -> int:
    """Count the replicas that share a node with another one of their partition though a node was left without any."""
    return int((domains.most_distinct(tier) - _distinct(owners, domains, tier)).sum())


def _distinct(owners: Ints, domains: Domains, tier: int) -> Ints:
    nodes = np.sort(domains.node_of[tier][owners], axis=0)
    distinct: Ints = 1 + (np.diff(nodes, axis=0) != 0).sum(axis=0)
    return distinct


def moves(before: Ints, after: Ints) -> int:
    """Count the replicas that came to a device which did not hold their partition before."""
    return int(sum((row != before).all(axis=0).sum() for row in after))


def least_moves(shape: Shape, disks: Sequence[Disk]) -> float:
    """Return the share of the last device: what must move when it is added, and nothing else needs to."""
    return shape.slots * disks[-1].weight / sum(disk.weight for disk in disks)


def partners(owners: Ints, devices: int) -> Ints:
    """Count for each device the other devices with which it shares a partition."""
    meets = np.zeros((devices, devices), bool)
    for row, mine in enumerate(owners):
        for other in (*owners[:row], *owners[row + 1 :]):
            meets[mine, other] = True
    np.fill_diagonal(meets, val=False)
    met: Ints = meets.sum(axis=1)
    return met


def random_assignment(shape: Shape, domains: Domains, seed: int) -> Ints:
    """Draw devices by weight for every partition, again until its replicas are as far apart as can be.

    Keeps the rules of place and the weights roughly, and nothing else: what chance alone would give.
    """
    rng = np.random.default_rng(seed)
    edges = np.cumsum(domains.weights) / domains.weights.sum()
    owners = np.zeros((REPLICAS, shape.partitions), np.int64)
    again = np.arange(shape.partitions)
    while len(again):
        owners[:, again] = np.searchsorted(edges, rng.random((REPLICAS, len(again))), side="right")
        apart = [
            _distinct(owners[:, again], domains, tier) == domains.most_distinct(tier)
            for tier in range(len(TIERS))
        ]
        again = again[~np.logical_and.reduce(apart)]
    return owners
