"""The first placement: every partition-replica dealt at once, in a handful of passes over flat arrays.

The rule is that of a dealer: lay the quotas of a node's children end to end, as tokens, and deal them to the node's
partitions round after round. A child then gets floor or ceil of its share of every partition, whatever the numbers:
dispersion and balance are exact by construction. Left at that, a device would share its partitions with the two or three
devices that lie one round away. So the tokens of each round are then exchanged between random partitions wherever that
keeps the bounds, which turns a device's few partners into as many as chance would give.
"""

import numpy as np
import numpy.typing as npt

from ring.builder.tree import TIERS, Ints, Tree
from ring.device import Tier

Labels = npt.NDArray[np.int32]

NOBODY = -1


def deal(tree: Tree, quota: tuple[Ints, ...], partitions: int, rng: np.random.Generator) -> Labels:
    """Assign a device (by its place in the tree) to every replica of every partition.

    Returns an array of one row a replica, one column a partition; where replicas are fractional, the end of the last
    row is NOBODY. The quotas of a tier add up to the partition-replicas.
    """
    total = int(quota[Tier.DEVICE].sum())
    rows = -(-total // partitions)
    flat = np.full(rows * partitions, NOBODY, np.int32)
    last = total - (rows - 1) * partitions
    # slots[r, p] is replica r of partition p. Half as wide where that suffices: most of the time goes to moving them.
    numbers: Ints = np.arange(flat.size).astype(np.int32 if flat.size < 2**31 else np.int64)
    slots = numbers.reshape(rows, partitions)
    slots[-1, last:] = NOBODY
    _deal_node(tree, quota, partitions, -1, np.zeros(1, np.int64), slots, flat, rng)
    return flat.reshape(rows, partitions)


def _deal_node(
    tree: Tree,
    quota: tuple[Ints, ...],
    partitions: int,
    tier: int,
    nodes: Ints,
    slots: Ints,
    flat: Labels,
    rng: np.random.Generator,
) -> None:
    """Deal the slots of one node of `tier` (-1 for the whole cluster) to its children, and theirs to theirs.

    `slots` has one column for each partition of the node; a column's slots stand at its top, and columns with more come
    first.
    """
    children_tier = TIERS[tier + 1]
    children = np.flatnonzero(np.isin(tree.parent_of[children_tier], nodes))
    columns = rng.permutation(np.arange(slots.shape[1], dtype=slots.dtype))
    full = int((slots[-1] != NOBODY).sum())
    slots = slots[:, np.concatenate([columns[columns < full], columns[columns >= full]])]
    share = quota[children_tier][children]
    low, high = share // partitions, -(-share // partitions)
    labels = _rounds(share, slots.shape, rng)
    if len(children) > 2 and len(labels) > 1:
        for row in range(len(labels)):
            _exchange(labels, row, low, high, rng)
    crowded = np.flatnonzero(high > 1)
    for child in crowded:
        inner = _nest(slots, labels == child)
        _deal_node(tree, quota, partitions, children_tier, children[[child]], inner, flat, rng)
    _deal_devices(tree, quota, children_tier, children, slots, labels, high <= 1, flat, rng)


def _rounds(quota: Ints, shape: tuple[int, ...], rng: np.random.Generator) -> Labels:
    """Deal the children's tokens round after round, then turn each column by a random number of places.

    The turn mixes the rounds, so that no child is always the first replica and any two children may meet.
    """
    rows, columns = shape
    order = rng.permutation(len(quota))
    labels = np.full((rows, columns), NOBODY, np.int32)
    tokens = np.repeat(order.astype(np.int32), quota[order])
    labels.ravel()[: len(tokens)] = tokens
    if rows == 1:
        return labels
    full = len(tokens) - (rows - 1) * columns
    for part, depth in ((slice(0, full), rows), (slice(full, columns), rows - 1)):
        turned = labels[:depth, part].copy()
        turn = rng.integers(depth, size=turned.shape[1])
        for by in range(1, depth):
            which = turn == by
            labels[:depth, part][:, which] = np.roll(turned[:, which], by, axis=0)
    return labels


def _exchange(labels: Labels, row: int, low: Ints, high: Ints, rng: np.random.Generator) -> None:
    """Pair the columns at random and exchange their tokens of this row, wherever both columns keep their bounds.

    Each column takes part in one pair, so that all exchanges are independent of one another.
    """
    held = np.flatnonzero(labels[row] != NOBODY)
    shuffled = rng.permutation(held)
    half = len(shuffled) // 2
    left, right = shuffled[:half], shuffled[half : 2 * half]
    mine, theirs = labels[row, left], labels[row, right]
    others = np.delete(labels, row, axis=0)
    fits = np.ones(half, bool)
    for columns, gives, takes in ((left, mine, theirs), (right, theirs, mine)):
        held_others = others[:, columns]
        fits &= (held_others == takes).sum(axis=0) < high[takes]
        if low.any():
            fits &= (held_others == gives).sum(axis=0) >= low[gives]
    fits |= mine == theirs
    labels[row, left[fits]] = theirs[fits]
    labels[row, right[fits]] = mine[fits]


def _nest(slots: Ints, chosen: npt.NDArray[np.bool_]) -> Ints:
    """Pick the chosen slots into columns of their own, those of one partition below one another, longest columns first."""
    count = chosen.sum(axis=0)
    columns = np.argsort(-count, kind="stable")[: np.count_nonzero(count)]
    nested = np.full((int(count.max(initial=0)), len(columns)), NOBODY, slots.dtype)
    depth = np.zeros(len(columns), np.int64)
    for row in range(len(slots)):
        here = np.flatnonzero(chosen[row, columns])
        nested[depth[here], here] = slots[row, columns[here]]
        depth[here] += 1
    return nested


def _deal_devices(
    tree: Tree,
    quota: tuple[Ints, ...],
    tier: Tier,
    nodes: Ints,
    slots: Ints,
    labels: Labels,
    simple: npt.NDArray[np.bool_],
    flat: Labels,
    rng: np.random.Generator,
) -> None:
    """Give the slots of the `simple` nodes, which hold at most one replica of a partition, to their devices in any order."""
    wanted = labels != NOBODY
    if not simple.all():
        wanted &= simple[labels]
    mixed = rng.permutation(np.flatnonzero(wanted))
    label = labels.ravel()[mixed]
    narrow = label.astype(np.uint16) if len(nodes) < 2**16 else label  # numpy sorts 16-bit keys by radix
    mixed = mixed[np.argsort(narrow, kind="stable")]
    devices = np.flatnonzero(np.isin(tree.node_of[tier], nodes[simple]))
    flat[slots.ravel()[mixed]] = np.repeat(devices.astype(np.int32), quota[Tier.DEVICE][devices])
