"""How much each device should hold: weights, tempered by failure domains and by what one device can take.

Shares are in *replicas per partition*: a device's share lies in [0, 1], a zone's in [0, its devices], and all of
them add up to the replica count. Pure arithmetic over the tree; knows nothing of which partition is where.

Two pulls meet here. *Weight* asks for shares proportional to weights, except that no device can hold a second replica
of the same partition. *Dispersion* asks that siblings (regions, zones of a region, ...) differ by at most one replica
of a partition. Overload is how far above its weight a device may be taken to please dispersion.

That every plan can be carried out exactly is a theorem, not a hope: "partition p has floor(t) or ceil(t) replicas in a
node of share t" and "device d holds its quota" are two laminar families of constraints, so their matrix is totally
unimodular, and the fractional solution that spreads every share evenly proves that a whole one exists.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ring.builder.tree import TIERS, Floats, Ints, Tree
from ring.device import Tier

NEAR: Final = 1e-9
"""Shares this close to a whole number are that number: floats, not intentions, made the difference."""

NOISE: Final = 1e-6
"""The same for partition-replicas, which are up to 2**32 times larger."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Shares in replicas per partition."""

    weighted: Floats
    """Per device: its weight's share of all replicas, which may exceed 1 where weights are lopsided."""
    fair: Floats
    """Per device: the same with nobody above 1, and so what a device holds that dispersion does not concern."""
    wanted: tuple[Floats, ...]
    """Per tier, per node: what the node is to hold."""


def make_plan(tree: Tree, replicas: float, overload: float) -> Plan:
    """Decide the share of every node.

    `replicas` is at most the number of devices whose weight is above zero; the caller has checked.
    """
    weights = np.array([device.weight for device in tree.devices])
    weighted = replicas * weights / weights.sum()
    fair = share_by_weight(weights, replicas)
    if overload == 0:
        return Plan(weighted, fair, tuple(tree.sums(tier, fair) for tier in TIERS))
    most = np.minimum(1.0, np.maximum(fair, weighted * (1 + overload)))
    wanted: list[Floats] = []
    above = np.array([replicas])
    for tier in TIERS:
        parent = tree.parent_of[tier]
        fair_here, most_here, slots = (tree.sums(tier, values) for values in (fair, most, weights > 0))
        shares = np.zeros(tree.nodes(tier))
        first = np.searchsorted(parent, np.arange(len(above) + 1))
        for node, share in enumerate(above):
            family = slice(first[node], first[node + 1])
            shares[family] = disperse(share, fair_here[family], most_here[family], slots[family])
        wanted.append(shares)
        above = shares
    return Plan(weighted, fair, tuple(wanted))


def share_by_weight(weights: Floats, replicas: float) -> Floats:
    """Share `replicas` by weight, but at most 1 for each device; what the heavy cannot take, the others share."""
    shares = np.zeros(len(weights))
    free = weights > 0
    left = replicas
    while left > NEAR and free.any():
        offered = left * weights / weights[free].sum()
        heavy = free & (offered >= 1)
        if not heavy.any():
            shares[free] = offered[free]
            break
        shares[heavy] = 1.0
        free &= ~heavy
        left = replicas - shares.sum()
    return shares


def disperse(share: float, fair: Floats, most: Floats, slots: Floats) -> Floats:
    """Split a node's share among its children: as even as their limits allow, else as close to `fair` as that allows.

    `most` is what a child may take at the most, `slots` how many devices it has. The children's `most` add up to at
    least `share`. Children that cannot take an even part are filled to the brim, and the others share the rest.
    """
    shares = np.zeros(len(fair))
    free = slots > 0
    left = share
    while free.any():
        low, high = even_bounds(left, slots[free])
        brim = most[free]
        short = brim < low - NEAR
        if not short.any() and np.minimum(high, brim).sum() < left - NEAR:
            short = brim <= high
        if not short.any():
            shares[free] = scale_between(left, fair[free], np.minimum(low, brim), np.minimum(high, brim))
            break
        filled = np.flatnonzero(free)[short]
        shares[filled] = most[filled]
        free[filled] = False
        left = max(0.0, left - most[filled].sum())
    return shares


def even_bounds(share: float, slots: Floats) -> tuple[Floats, Floats]:
    """Return the fewest and the most replicas of one partition that each child holds when they are spread evenly.

    Even: dealt one by one to the child that has fewest and still has a device free.
    """
    fewest, most = round_down(share), round_up(share)
    level = 0
    while np.minimum(slots, level + 1).sum() <= fewest and level < fewest:
        level += 1
    low = np.minimum(slots, level)
    while np.minimum(slots, level).sum() < most:
        level += 1
    return low, np.minimum(slots, level)


def scale_between(total: float, fair: Floats, low: Floats, high: Floats) -> Floats:
    """Scale `fair` by one factor, clipped between `low` and `high`, so that the result adds up to `total`."""
    fair = np.maximum(fair, NEAR)
    shares = fair * (total / fair.sum())
    if (low <= shares).all() and (shares <= high).all():
        return shares
    least, most = 0.0, max(1.0, float((high / fair).max()))
    for _ in range(100):
        factor = (least + most) / 2
        if np.clip(factor * fair, low, high).sum() < total:
            least = factor
        else:
            most = factor
    shares = np.clip(most * fair, low, high)
    between = (shares > low) & (shares < high)
    if between.any():
        shares[between] += (total - shares.sum()) * fair[between] / fair[between].sum()
    return shares


def round_down(share: float) -> int:
    """Round a share down, forgiving float noise."""
    return int(np.floor(share + NEAR))


def round_up(share: float) -> int:
    """Round a share up, forgiving float noise."""
    return int(np.ceil(share - NEAR))


def quotas(tree: Tree, plan: Plan, partitions: int, total: int, loads: Ints) -> tuple[Ints, ...]:
    """Turn shares into whole partition-replicas for every node of every tier; a node's quota is the sum of its children's.

    Every quota is its exact share rounded down or up. Nodes that hold the extra one already keep it (`loads`, per device),
    then those with the largest remainder get it, so that a rebalance without a change moves nothing.
    """
    above = np.array([total], np.int64)
    result: list[Ints] = []
    for tier in TIERS:
        exact = plan.wanted[tier] * partitions
        floor = np.floor(exact).astype(np.int64)
        rest = exact - floor
        # A remainder of float noise is none, and one that only noise keeps from being whole comes before all others.
        kind = np.where(rest > 1 - NOISE, 0, np.where(rest > NOISE, 1, 2))
        held = np.minimum(tree.sums(tier, loads) - floor, 1)
        parent = tree.parent_of[tier]
        extra = above - np.bincount(parent, weights=floor, minlength=len(above)).astype(np.int64)
        order = np.lexsort((-rest, -held, kind, parent))
        first = np.searchsorted(parent, np.arange(len(above)))
        rank = np.empty(len(parent), np.int64)
        rank[order] = np.arange(len(parent)) - first[parent[order]]
        quota = floor + (rank < extra[parent])
        assert (np.bincount(parent, weights=quota, minlength=len(above)) == above).all(), "quotas must add up"
        result.append(quota)
        above = quota
    return tuple(result)


def per_partition_bounds(quota: tuple[Ints, ...], partitions: int) -> tuple[tuple[Ints, Ints], ...]:
    """Return per tier the fewest and the most replicas of one partition that each node holds."""
    return tuple((each // partitions, -(-each // partitions)) for each in quota[: Tier.DEVICE + 1])
