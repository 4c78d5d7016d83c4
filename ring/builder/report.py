"""What there is to say about a builder: how loads follow weights, how far apart replicas stand, what a change moves, what is wrong.

Owns the figures that an operator judges a ring by. Changes nothing, opens nothing, prints nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ring.builder.builder import Ids, RingBuilder
from ring.builder.plan import make_plan, per_partition_bounds, quotas
from ring.builder.tree import TIERS, Ints, Tree
from ring.device import Device, Tier
from ring.ring import CHECKSUM_BYTES
from ring.ring import NOBODY as NOBODY_ON_DISK

Place = TypeVar("Place")

NOWHERE: Final = -1
SHOWN: Final = 5
"""Devices that a sentence names before it says "..."."""
PAIR_COLUMNS: Final = 1 << 20
"""Partitions whose pairs of owners are sorted at a time: 8 MB a pair of replicas."""


# Balance


@dataclass(frozen=True, slots=True)
class DeviceBalance:
    """What one device holds beside what its weight asks for, in partition-replicas."""

    device: Device
    removed: bool
    """It is to be emptied, or emptied and remembered until its partitions are settled."""
    wanted: float
    held: int

    @property
    def deviation_percent(self) -> float | None:
        """How much more (or, below zero, less) it holds than its weight asks for; None when that is nothing."""
        return 100.0 * (self.held / self.wanted - 1) if self.wanted else None


def balance(builder: RingBuilder) -> tuple[DeviceBalance, ...]:
    """Weigh every device, removed ones too, in the order of their ids."""
    devices = known(builder)
    total = math.fsum(device.weight for device in devices)
    loads = builder.loads()
    return tuple(
        DeviceBalance(
            device,
            device.id in builder.removed,
            builder.slots_wanted * (device.weight / total) if total else 0.0,
            int(loads[device.id]),
        )
        for device in devices
    )


def largest_deviation_percent(balances: Sequence[DeviceBalance]) -> float:
    """Return the largest deviation from weight, up or down; devices that should hold nothing are left out."""
    deviations = [balance.deviation_percent for balance in balances]
    return max((abs(deviation) for deviation in deviations if deviation is not None), default=0.0)


def draining(balances: Sequence[DeviceBalance]) -> int:
    """Count the replicas on devices that should hold nothing."""
    return sum(balance.held for balance in balances if not balance.wanted)


# Dispersion


@dataclass(frozen=True, slots=True)
class TierDispersion:
    """How far apart the replicas of a partition stand, at one tier."""

    tier: Tier
    nodes: int
    """How many regions, zones, hosts or devices with a weight there are."""
    partitions_by_distinct: dict[int, int]
    """How many partitions have their replicas in so many distinct nodes."""
    crowded: int
    """Replicas that share a node with more of their partition than the plan asks of that node."""


@dataclass(frozen=True, slots=True)
class Dispersion:
    """How far apart the replicas of a partition stand."""

    tiers: tuple[TierDispersion, ...]
    crowded: int
    """Replicas that are crowded at any tier."""
    replicas: int

    @property
    def percent(self) -> float:
        """The share of all replicas that are crowded; zero is best."""
        return 100.0 * self.crowded / self.replicas if self.replicas else 0.0


def dispersion(builder: RingBuilder) -> Dispersion:
    """Count distinct failure domains per partition, and the replicas that stand closer than they need to."""
    tree = Tree.of(known(builder))
    weighted = np.array([device.weight for device in tree.devices]) > 0
    most = _most_per_partition(builder, tree)
    anywhere = np.zeros(builder.owners.shape, bool)
    tiers = []
    for tier in TIERS:
        nodes = _nodes_by_id(builder, tree, tier)[np.minimum(builder.owners, len(builder.devices))]
        there = nodes != NOWHERE
        rank = _rank_in_node(nodes)
        crowded = there & (rank > most[tier][nodes])
        anywhere |= crowded
        distinct = (there & (rank == 1)).sum(axis=0)
        tiers.append(
            TierDispersion(
                tier,
                len(np.unique(tree.node_of[tier][weighted])),
                {count: int(times) for count, times in enumerate(np.bincount(distinct)) if times},
                int(crowded.sum()),
            )
        )
    return Dispersion(tuple(tiers), int(anywhere.sum()), int((builder.owners != NOBODY_ON_DISK).sum()))


def partners_per_device(builder: RingBuilder) -> dict[int, int]:
    """Count, for each device that holds anything, the others with which it shares partitions."""
    size = len(builder.devices)
    pairs = np.empty(0, np.int64)
    for start in range(0, builder.owners.shape[1], PAIR_COLUMNS):
        block = builder.owners[:, start : start + PAIR_COLUMNS].astype(np.int64)
        for upper in range(len(block)):
            for lower in range(upper):
                both = (block[upper] < size) & (block[lower] < size) & (block[upper] != block[lower])
                low, high = np.minimum(block[upper], block[lower]), np.maximum(block[upper], block[lower])
                pairs = np.union1d(pairs, (low * size + high)[both])
    count = np.bincount(np.concatenate([pairs // max(size, 1), pairs % max(size, 1)]), minlength=size)
    return {int(number): int(count[number]) for number in np.flatnonzero(builder.loads())}


# Moves


@dataclass(frozen=True, slots=True)
class Flow(Generic[Place]):
    """Replicas that go from one place to another; None is nowhere: there is a replica more, or one less."""

    source: Place | None
    target: Place | None
    replicas: int


@dataclass(frozen=True, slots=True)
class Moves:
    """What changes between two assignments, the largest flows first."""

    partitions: int
    """Partitions whose owners are not the same set."""
    replicas: int
    """Replicas that a device is given and did not hold before."""
    replicas_in_all: int
    devices: tuple[Flow[Device], ...]
    zones: tuple[Flow[tuple[int, int]], ...]
    """Zones as (region, zone)."""

    @property
    def percent(self) -> float:
        """The share of the cluster's replicas that moves."""
        return 100.0 * self.replicas / self.replicas_in_all if self.replicas_in_all else 0.0


def moves(before: Ids, after: Ids, devices: Sequence[Device | None]) -> Moves:
    """Compare two assignments of as many partitions; `devices` knows, by id, everyone that either of them names.

    A replica that only changes its row has not moved. Before the first rebalance there is nothing to move from.
    """
    in_all = int((after != NOBODY_ON_DISK).sum())
    if not before.size:
        return Moves(0, 0, in_all, (), ())
    sources, targets = _exchanges(before, after)
    touched = (sources != NOBODY_ON_DISK) | (targets != NOBODY_ON_DISK)
    pairs, replicas = np.unique(
        np.stack([sources[touched], targets[touched]]).astype(np.int64), axis=1, return_counts=True
    )
    found = [
        Flow(_device_at(devices, source), _device_at(devices, target), int(count))
        for source, target, count in zip(*pairs, replicas, strict=True)
    ]
    return Moves(
        int(touched.any(axis=0).sum()),
        sum(flow.replicas for flow in found if flow.target is not None),
        in_all,
        tuple(sorted(found, key=lambda flow: (-flow.replicas, _order(flow)))),
        _by_zone(found),
    )


def _exchanges(before: Ids, after: Ids) -> tuple[Ids, Ids]:
    """Return who leaves and who arrives, one column a changed partition, paired from the top; NOBODY fills the rest."""
    rows = max(len(before), len(after))
    old, new = (
        np.vstack([ids, np.full((rows - len(ids), ids.shape[1]), NOBODY_ON_DISK, np.uint32)])
        for ids in (before, after)
    )
    changed = np.flatnonzero((old != new).any(axis=0))
    old, new = old[:, changed], new[:, changed]
    leaving = np.where((old[:, None] == new).any(axis=1), NOBODY_ON_DISK, old).astype(np.uint32)
    arriving = np.where((new[:, None] == old).any(axis=1), NOBODY_ON_DISK, new).astype(np.uint32)
    return _packed(leaving), _packed(arriving)


def _packed(ids: Ids) -> Ids:
    """Bring whoever is somebody to the top of each column, in order."""
    return np.take_along_axis(ids, np.argsort(ids == NOBODY_ON_DISK, axis=0, kind="stable"), axis=0)


def _device_at(devices: Sequence[Device | None], number: int) -> Device | None:
    return None if number == NOBODY_ON_DISK else devices[number]


def _order(flow: Flow[Device]) -> tuple[int, int]:
    return (flow.source.id if flow.source else NOWHERE, flow.target.id if flow.target else NOWHERE)


def _by_zone(flows: Sequence[Flow[Device]]) -> tuple[Flow[tuple[int, int]], ...]:
    totals: dict[tuple[tuple[int, int] | None, tuple[int, int] | None], int] = {}
    for flow in flows:
        ends = (_zone_of(flow.source), _zone_of(flow.target))
        totals[ends] = totals.get(ends, 0) + flow.replicas
    found = [Flow(source, target, replicas) for (source, target), replicas in totals.items()]
    return tuple(sorted(found, key=lambda flow: (-flow.replicas, str((flow.source, flow.target)))))


def _zone_of(device: Device | None) -> tuple[int, int] | None:
    return (device.region, device.zone) if device else None


# Validation


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a builder that is not as it should be."""

    broken: bool
    """The builder contradicts itself; otherwise a rebalance, a settle or the hours mend it."""
    sentence: str


def validate(builder: RingBuilder) -> tuple[Finding, ...]:
    """Look for what no builder may be, and, when there is none of it, for what the next rebalance is to mend."""
    if not builder.owners.size:
        return (Finding(False, "there is no ring yet; add devices and rebalance"),)
    broken = [*_broken_tables(builder), *_broken_owners(builder), *_broken_moves(builder)]
    if broken:
        return tuple(Finding(True, sentence) for sentence in broken)
    return tuple(Finding(False, sentence) for sentence in _pending(builder))


def _broken_tables(builder: RingBuilder) -> list[str]:
    """Tell which tables do not have the shape that the others ask for."""
    found = []
    if builder.owners.shape[1] != builder.partitions:
        found.append(
            f"the assignment has {builder.owners.shape[1]} partitions instead of {builder.partitions}"
        )
    if builder.moved_at_s.shape != (builder.owners.shape[1],):
        found.append(
            f"{len(builder.moved_at_s)} partitions know when they moved, of {builder.owners.shape[1]}"
        )
    if len(builder.lineage) % CHECKSUM_BYTES or not builder.lineage:
        found.append(f"the lineage has {len(builder.lineage)} bytes, which are no whole number of checksums")
    empty = (builder.owners == NOBODY_ON_DISK).ravel()
    if not empty.all() and empty[: np.flatnonzero(~empty)[-1]].any():
        found.append("there are empty slots between the others, where no ring file can have them")
    for number, device in enumerate(builder.devices):
        if device is not None and device.id != number:
            found.append(f"{device} stands in the table as d{number}")
    return found


def _broken_owners(builder: RingBuilder) -> list[str]:
    """Tell which slots name a device that is not there, and which partitions name one twice."""
    found = []
    unknown = _unknown_ids(builder, builder.owners)
    if len(unknown):
        found.append(f"partitions belong to devices that are not in the table: {_some(unknown)}")
    ordered = np.sort(builder.owners, axis=0)
    twice = (ordered[1:] == ordered[:-1]) & (ordered[1:] != NOBODY_ON_DISK)
    if twice.any():
        columns = np.flatnonzero(twice.any(axis=0))
        found.append(f"{len(columns)} partitions have two replicas on one device, first {columns[0]}")
    return found


def _broken_moves(builder: RingBuilder) -> list[str]:
    """Tell what is wrong with the previous owners."""
    found = []
    moving = builder.moving_partitions.astype(np.int64)
    if builder.moving_rows.shape[1] != len(moving):
        return [f"{builder.moving_rows.shape[1]} sets of previous owners belong to {len(moving)} partitions"]
    if len(moving) and (moving[-1] >= builder.partitions or (np.diff(moving) <= 0).any()):
        found.append("the moving partitions are out of range or out of order")
    unknown = _unknown_ids(builder, builder.moving_rows)
    if len(unknown):
        found.append(f"previous owners are not in the table: {_some(unknown)}")
    return found


def _pending(builder: RingBuilder) -> list[str]:
    """Tell what a rebalance would still change."""
    found = []
    held = int((builder.owners != NOBODY_ON_DISK).sum())
    if held != builder.slots_wanted:
        found.append(f"there are {held} replicas where {builder.slots_wanted} are wanted; rebalance")
    loads = builder.loads()
    for number in sorted(builder.removed):
        if loads[number]:
            device = builder.devices[number]
            found.append(f"{device} was removed and still holds {loads[number]} replicas; rebalance")
    tree = Tree.of(known(builder))
    quota = _quotas(builder, tree)
    if quota is None:
        usable = sum(device.weight > 0 for device in builder.present())
        found.append(
            f"{builder.replicas:g} replicas need more than {usable} devices with a weight; add devices or set_replicas"
        )
        return found
    off = [
        f"{device} holds {loads[device.id]} replicas instead of {should}"
        for device, should in zip(tree.devices, quota[Tier.DEVICE], strict=True)
        if abs(loads[device.id] - should) > 1 and device.id not in builder.removed
    ]
    if off:
        shown = ", ".join(off[:SHOWN]) + (", ..." if len(off) > SHOWN else "")
        found.append(f"{len(off)} devices are not at their share ({shown}); rebalance")
    crowded = dispersion(builder).crowded
    if crowded:
        found.append(
            f"{crowded} replicas stand closer to another of their partition than they need to; rebalance"
        )
    return found


# Shared


def known(builder: RingBuilder) -> list[Device]:
    """List all devices, those that are being emptied too."""
    return [device for device in builder.devices if device is not None]


def _nodes_by_id(builder: RingBuilder, tree: Tree, tier: Tier) -> npt.NDArray[np.int32]:
    """Return the node of each device by its id; the element behind the last is NOWHERE, and so are holes."""
    nodes = np.full(len(builder.devices) + 1, NOWHERE, np.int32)
    nodes[[device.id for device in tree.devices]] = tree.node_of[tier]
    return nodes


def _rank_in_node(nodes: npt.NDArray[np.int32]) -> npt.NDArray[np.int8]:
    """Number the replicas of a partition that stand in one node: 1, 2, … from the top."""
    rank = np.ones(nodes.shape, np.int8)
    for row in range(1, len(nodes)):
        rank[row] += (nodes[:row] == nodes[row]).sum(axis=0, dtype=np.int8)
    return rank


def _quotas(builder: RingBuilder, tree: Tree) -> tuple[Ints, ...] | None:
    """Return what each node should hold, or None when there are fewer usable devices than replicas."""
    replicas = builder.slots_wanted / builder.partitions
    if sum(device.weight > 0 for device in tree.devices) < math.ceil(replicas):
        return None
    loads = builder.loads()
    held = np.array([loads[device.id] for device in tree.devices], np.int64)
    plan = make_plan(tree, replicas, builder.overload)
    return quotas(tree, plan, builder.partitions, builder.slots_wanted, held)


def _most_per_partition(builder: RingBuilder, tree: Tree) -> list[Ints]:
    """Return per tier and node the most replicas of one partition; the last element, for NOWHERE, is never passed.

    With fewer usable devices than replicas nothing can be said of where they should stand, and so nothing is crowded.
    """
    quota = _quotas(builder, tree)
    unlimited = len(builder.owners)
    if quota is None:
        return [np.full(tree.nodes(tier) + 1, unlimited) for tier in TIERS]
    # At least one: a replica alone in a node that is to be emptied is in the wrong place, but close to no other.
    bounds = per_partition_bounds(quota, builder.partitions)
    return [np.append(np.maximum(most, 1), unlimited) for _, most in bounds]


def _unknown_ids(builder: RingBuilder, ids: Ids) -> Ids:
    there = np.array([device.id for device in known(builder)] + [NOBODY_ON_DISK], np.uint32)
    return np.setdiff1d(ids, there)


def _some(ids: Ids) -> str:
    shown = ", ".join(f"d{number}" for number in ids[:SHOWN])
    return f"{shown}, ..." if len(ids) > SHOWN else shown
