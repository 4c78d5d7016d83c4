"""The assignment while it is being changed: who holds what, who should, and what one exchange would do.

A *slot* is one replica of one partition, numbered `row * partitions + partition`. An *exchange* gives a slot to another
device. A board knows for each node how many replicas of one partition it may hold (`low`, `high`) and for each device
how many slots it should (`quota`); it counts every exchange by its reason and moves no partition twice.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from ring.builder.plan import NOISE, Plan
from ring.builder.tree import TIERS, Floats, Ints, Tree
from ring.device import Tier

Owners = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

NOBODY: Final = -1
GRAVEST_FIRST: Final = (Tier.DEVICE, Tier.REGION, Tier.ZONE, Tier.HOST)


class Reason(StrEnum):
    """Why a replica changes its device."""

    REMOVED = "removed"
    """Its device was removed."""
    ADDED = "added"
    """It is a new replica: the replica count grew."""
    BALANCE = "balance"
    """Its device had more than its weight asks for, and the new one less."""
    DISPERSION = "dispersion"
    """It stood too close to another replica of its partition, or made room for one that did."""


@dataclass(slots=True)
class Board:
    """One rebalance's working state; devices are named by their place in the tree."""

    tree: Tree
    owners: Owners
    """One row a replica, one column a partition; NOBODY where a slot is empty."""
    wanted: Mask
    """Which slots are to be filled, in the shape of `owners`."""
    quota: tuple[Ints, ...]
    """Per tier: the slots that each node should hold."""
    exact: tuple[Floats, ...]
    """Per tier: the same before rounding."""
    fair: Floats
    """Per device: the slots its weight asks for, whatever dispersion wants."""
    resting: Mask
    """Per partition: moved too recently to move again, except away from a removed device."""
    bereft: Mask
    """Per partition: lost a removed device."""
    before: Owners = field(init=False)
    """The owners as they were, without removed devices and the replicas that are no longer wanted."""
    moved: Mask = field(init=False)
    """Per partition: a replica moves in this rebalance, and no other may."""
    given: Mask = field(init=False)
    """Which slots were given a device in this rebalance; giving them to yet another costs no further move."""
    loads: Ints = field(init=False)
    low: tuple[Ints, ...] = field(init=False)
    high: tuple[Ints, ...] = field(init=False)
    node_of: tuple[Ints, ...] = field(init=False)
    """Per tier: the node of each device, and -1 for NOBODY, which indexes the last element."""

    def __post_init__(self) -> None:
        """Derive what follows from the rest."""
        self.moved = self.bereft.copy()
        self.given = np.zeros(self.owners.shape, bool)
        self.loads = np.bincount(self.owners[self.owners != NOBODY], minlength=len(self.tree.devices))
        self.low = tuple(quota // self.partitions for quota in self.quota)
        self.high = tuple(-(-quota // self.partitions) for quota in self.quota)
        self.node_of = tuple(_narrow(np.append(nodes, NOBODY)) for nodes in self.tree.node_of)
        self.remember()

    def remember(self) -> None:
        """Take the owners as they are for those that moves are counted from."""
        self.before = self.owners.copy()

    @classmethod
    def of(
        cls,
        tree: Tree,
        plan: Plan,
        quota: tuple[Ints, ...],
        owners: Owners,
        wanted: Mask,
        resting: Mask,
        bereft: Mask,
    ) -> "Board":
        """Set up a board for one rebalance."""
        exact = tuple(share * owners.shape[1] for share in plan.wanted)
        return cls(tree, owners, wanted, quota, exact, plan.fair * owners.shape[1], resting, bereft)

    @property
    def partitions(self) -> int:
        """Count the partitions."""
        return self.owners.shape[1]

    @property
    def excess(self) -> Ints:
        """Count the slots each device holds above its quota; below zero, what it lacks."""
        return self.loads - self.quota[Tier.DEVICE]

    def lacking(self) -> int:
        """Count the slots by which devices fall short of their quotas."""
        return int(np.maximum(-self.excess, 0).sum())

    def demanded_by_weights(self) -> int:
        """Count the slots that devices must give up because they hold more than their weights ask for."""
        kept = np.maximum(self.quota[Tier.DEVICE], np.floor(self.fair + NOISE))
        return int(np.maximum(self.loads - kept, 0).sum())

    def free_to_move(self) -> Mask:
        """Tell which partitions may move a replica that nothing forces."""
        return ~(self.resting | self.moved)

    def owners_of(self, slots: Ints) -> Owners:
        """Return the device that holds each slot."""
        return self.owners.ravel()[slots]

    def effect(self, slots: Ints, targets: Ints | int) -> tuple[Ints, Ints]:
        """Weigh giving each slot to its target: (bounds broken, bounds mended), one bit a tier.

        The gravest bit is the highest, so that the two compare as numbers: twice on one device, then regions, zones, hosts.
        """
        columns = slots % self.partitions
        holders = self.owners[:, columns]
        givers = self.owners_of(slots)
        harm = np.zeros(len(slots), np.int64)
        gain = np.zeros(len(slots), np.int64)
        for tier in GRAVEST_FIRST:
            nodes = self.node_of[tier]
            here, source, target = nodes[holders], nodes[givers], nodes[targets]
            arriving = (here == target).sum(axis=0)
            leaving = (here == source).sum(axis=0)
            crossing = source != target
            filled = source != NOBODY
            low, high = self.low[tier], self.high[tier]
            broken = (arriving >= high[target]) | (filled & (leaving <= low[source]))
            mended = (arriving < low[target]) | (filled & (leaving > high[source]))
            harm = harm << 1 | (broken & crossing)
            gain = gain << 1 | (mended & crossing)
        return harm, gain

    def give(self, slots: Ints, targets: Ints) -> None:
        """Give each slot to its target; the slots belong to different partitions."""
        self._hand_over(slots, targets)
        self.moved[slots % self.partitions] = True
        self.given.ravel()[slots] = True

    def take_back(self, slot: int) -> None:
        """Return a slot to the device that had it before, as if it had not been given."""
        self._hand_over(np.array([slot]), self.before.ravel()[[slot]])
        self.moved[slot % self.partitions] = False
        self.given.ravel()[slot] = False

    def _hand_over(self, slots: Ints, targets: Ints) -> None:
        givers = self.owners_of(slots)
        np.subtract.at(self.loads, givers[givers != NOBODY], 1)
        np.add.at(self.loads, targets, 1)
        self.owners.ravel()[slots] = targets

    def needless(self) -> Ints:
        """List the slots that changed their device although nothing emptied them."""
        return np.flatnonzero((self.owners != self.before) & (self.before != NOBODY))

    def counts(self, demanded: int) -> dict[Reason, int]:
        """Count the moves by reason; what goes beyond what weights `demanded` made room for dispersion."""
        filled = (self.owners != NOBODY) & (self.before == NOBODY)
        removed = int(filled[:, self.bereft].sum())
        free = len(self.needless())
        return {
            Reason.REMOVED: removed,
            Reason.ADDED: int(filled.sum()) - removed,
            Reason.BALANCE: min(free, demanded),
            Reason.DISPERSION: max(0, free - demanded),
        }

    def crowded(self, columns: Ints | slice = slice(None)) -> Mask:
        """Tell which slots stand in a node that holds more replicas of their partition than it should."""
        owners = self.owners[:, columns]
        result = np.zeros(owners.shape, bool)
        for tier in TIERS:
            here = self.node_of[tier][owners]
            limit = _narrow(np.append(self.high[tier], len(here)))[here]
            for row in range(len(here)):
                result[row] |= (here == here[row]).sum(axis=0, dtype=np.int8) > limit[row]
        return result & (owners != NOBODY)

    def starved(self, columns: Ints | slice = slice(None)) -> Mask:
        """Tell which partitions have fewer replicas in some node than they should."""
        owners = self.owners[:, columns]
        result = np.zeros(owners.shape[1], bool)
        for tier in TIERS[:-1]:
            here = self.node_of[tier][owners]
            for node in np.flatnonzero(self.low[tier]):
                result |= (here == node).sum(axis=0) < self.low[tier][node]
        return result

    def pliable(self, tier: Tier) -> Mask:
        """Tell which nodes' quotas may be rounded the other way without a change of their bounds per partition."""
        floor = np.floor(self.exact[tier]).astype(np.int64)
        rest = self.exact[tier] - floor
        rounded = (
            (rest > NOISE)
            & (rest < 1 - NOISE)
            & ((self.quota[tier] == floor) | (self.quota[tier] == floor + 1))
        )
        up = -(-(floor + 1) // self.partitions) == -(-floor // self.partitions)
        return rounded & up & ((floor + 1) // self.partitions == floor // self.partitions)


def _narrow(numbers: Ints) -> Ints:
    """Store numbers as narrowly as they fit, since passes over all slots cost what they read."""
    return numbers.astype(np.int16) if numbers.max(initial=0) < 2**15 else numbers.astype(np.int32)
