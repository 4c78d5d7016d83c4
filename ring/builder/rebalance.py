"""Change an assignment by as few moves as the plan allows.

In order: slots without a device are filled, replicas that stand too close are spread, and devices above their quota give
to devices below. Each step first matches many slots with many devices at random and keeps what fits, which settles nearly
everything in a few passes over flat arrays; what is left is searched one by one (`chains`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ring.builder import chains
from ring.builder.board import GRAVEST_FIRST, NOBODY, Board, Mask, Reason
from ring.builder.tree import Ints
from ring.device import Tier

IDLE_ROUNDS_MAX: Final = 6
"""Matching stops after this many rounds in a row that settled nothing."""
SINGLE_PLACEMENTS_MAX: Final = 20_000
"""Most slots or partitions that one step searches singly; the next rebalance takes up the rest."""

Judge = Callable[[Ints, Ints], Mask]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rebalance of the board came to."""

    moved: dict[Reason, int]
    """Replicas that were given a device, by reason."""
    held_back: int
    """Replicas that stay for now on devices above their quota, or too close to another."""


def rebalance(board: Board, rng: np.random.Generator) -> Outcome:
    """Bring the board as near to its quotas and bounds as one move a partition can."""
    drop_surplus_replicas(board, rng)
    board.remember()
    demanded, least = board.demanded_by_weights(), int(np.maximum(board.excess, 0).sum())
    fill(board, rng)
    chains.settle(board, rng, only_given=True)
    crowded = np.flatnonzero(spread(board, rng))
    level(board, rng)
    chains.settle(board, rng, only_given=True)
    chains.settle(board, rng)
    if len(board.needless()) > least:
        chains.spare(board, rng)
    held_back = max(np.maximum(board.excess, 0).sum(), board.crowded(crowded).sum())
    return Outcome(board.counts(demanded), int(held_back))


def drop_surplus_replicas(board: Board, rng: np.random.Generator) -> None:
    """Empty as many slots of each partition as it holds too many, at the bottom, taking from those who have most to give."""
    rows = len(board.owners)
    while True:
        surplus = (board.owners != NOBODY).sum(axis=0) - board.wanted.sum(axis=0)
        columns = np.flatnonzero(surplus > 0)
        if not len(columns):
            break
        # In blocks, so that each sees what the ones before it took.
        for block in np.array_split(rng.permutation(columns), min(len(columns), 256)):
            owners = board.owners[:, block]
            gravity = np.zeros(owners.shape)
            for weight, tier in enumerate(reversed(GRAVEST_FIRST), start=1):
                here = board.node_of[tier][owners]
                low, high = board.low[tier][here], board.high[tier][here]
                for row in range(rows):
                    leaving = (here == here[row]).sum(axis=0)
                    gravity[row] += 4.0**weight * ((leaving > high[row]).astype(int) - (leaving <= low[row]))
            share = board.excess / np.maximum(board.loads, 1)
            row = np.argmax(np.where(owners == NOBODY, -np.inf, gravity + share[owners]), axis=0)
            np.subtract.at(board.loads, board.owners[row, block], 1)
            board.owners[row, block] = NOBODY
    _close_gaps(board, np.flatnonzero(((board.owners != NOBODY) & ~board.wanted).any(axis=0)))


def _close_gaps(board: Board, columns: Ints) -> None:
    """Move the empty slots of these partitions to the bottom, keeping the order of the others."""
    owners = board.owners[:, columns]
    order = np.argsort(owners == NOBODY, axis=0, kind="stable")
    board.owners[:, columns] = np.take_along_axis(owners, order, axis=0)


def fill(board: Board, rng: np.random.Generator) -> None:
    """Give every wanted slot that is empty to a device, whatever the time since its partition's last move."""
    empty = np.flatnonzero(board.wanted & (board.owners == NOBODY))
    left = _match(board, empty, rng, lambda slots, targets: _fits(board, slots, targets))
    for slot in _match_through(board, left, rng):
        _place(board, slot, rng)


def _fits(board: Board, slots: Ints, targets: Ints) -> Mask:
    harm, gain = board.effect(slots, targets)
    return (harm == 0) & ((gain > 0) | ~board.starved(slots % board.partitions))


def _place(board: Board, slot: int, rng: np.random.Generator) -> None:
    """Give one slot to the device that suits it best of all."""
    everyone = np.arange(len(board.tree.devices))
    harm, gain = board.effect(np.full(len(everyone), slot), everyone)
    weighted = board.quota[Tier.DEVICE] > 0
    order = np.lexsort((rng.random(len(everyone)), board.excess, board.excess >= 0, -gain, harm, ~weighted))
    board.give(np.array([slot]), order[:1])


def spread(board: Board, rng: np.random.Generator) -> Mask:
    """Move replicas that stand too close to others, where another place can hold them.

    Returns which partitions had such replicas, whether or not they could be moved.
    """
    crowded = board.crowded()
    suspects = (crowded | board.starved()) & board.free_to_move() & (board.owners != NOBODY)
    slots = np.flatnonzero(suspects)
    giving = board.excess[board.owners_of(slots)] > 0
    for part in (slots[giving], slots[~giving]):
        _match(board, part, rng, lambda slots, targets: _mends(board, slots, targets))
    columns = np.flatnonzero(suspects.any(axis=0) & board.free_to_move())
    for column in rng.permutation(columns)[:SINGLE_PLACEMENTS_MAX]:
        _spread_one(board, column, rng)
    return np.logical_or.reduce(crowded)


def _mends(board: Board, slots: Ints, targets: Ints) -> Mask:
    harm, gain = board.effect(slots, targets)
    return (harm == 0) & (gain > 0) & ~board.moved[slots % board.partitions]


def _spread_one(board: Board, column: int, rng: np.random.Generator) -> None:
    """Make the one exchange that helps this partition's dispersion most, if there is any."""
    rows = np.flatnonzero(board.owners[:, column] != NOBODY)
    devices = np.flatnonzero(board.quota[Tier.DEVICE] > 0)
    slots = np.repeat(rows * board.partitions + column, len(devices))
    targets = np.tile(devices, len(rows))
    harm, gain = board.effect(slots, targets)
    helps = np.flatnonzero(gain > harm)
    if not len(helps):
        return
    slots, targets = slots[helps], targets[helps]
    excess = board.excess
    order = np.lexsort(
        (rng.random(len(helps)), excess[targets] - excess[board.owners_of(slots)], -(gain - harm)[helps])
    )
    best = order[:1]
    board.give(slots[best], targets[best])


def level(board: Board, rng: np.random.Generator) -> None:
    """Let devices above their quota give to devices below it."""
    oversampling = 4
    while lacking := board.lacking():
        giving = np.maximum(board.excess, 0)
        chance = np.minimum(1.0, oversampling * giving / np.maximum(board.loads, 1)).astype(np.float32)
        drawn = (
            rng.random(board.owners.shape, dtype=np.float32) < np.append(chance, np.float32(0))[board.owners]
        )
        slots = np.flatnonzero(drawn & board.free_to_move())
        _match(board, slots, rng, lambda slots, targets: _harmless(board, slots, targets), limit_givers=True)
        if (lacking - board.lacking()) * 4 < lacking:
            if (chance[giving > 0] >= 1).all():
                return
            oversampling *= 8


def _harmless(board: Board, slots: Ints, targets: Ints) -> Mask:
    harm, _ = board.effect(slots, targets)
    return harm == 0


def _match(
    board: Board, slots: Ints, rng: np.random.Generator, judge: Judge, *, limit_givers: bool = False
) -> Ints:
    """Offer slots to devices below their quota, at random, round after round; return the slots that found no taker.

    At most one slot of a partition is given in a round, and with `limit_givers` no device gives below its quota.
    """
    idle = 0
    pool, rejected = rng.permutation(slots), [slots[:0]]
    while idle < IDLE_ROUNDS_MAX:
        if not len(pool):
            pool, rejected = rng.permutation(np.concatenate(rejected)), [slots[:0]]
        if limit_givers:
            pool = pool[~board.moved[pool % board.partitions] & (board.excess[board.owners_of(pool)] > 0)]
        lacking = np.maximum(-board.excess, 0)
        takers = rng.permutation(np.repeat(np.arange(len(lacking)), lacking))
        pairs = min(len(takers), len(pool))
        if not pairs:
            break
        offered, targets, pool = pool[:pairs], takers[:pairs], pool[pairs:]
        fits = np.flatnonzero(judge(offered, targets))
        fits = fits[np.unique(offered[fits] % board.partitions, return_index=True)[1]]
        if limit_givers:
            givers = board.owners_of(offered[fits])
            fits = fits[_rank_within(givers) < board.excess[givers]]
        board.give(offered[fits], targets[fits])
        idle = 0 if len(fits) else idle + 1
        rejected.append(np.delete(offered, fits))
    return np.concatenate([pool, *rejected])


def _match_through(board: Board, slots: Ints, rng: np.random.Generator) -> Ints:
    """Place slots that no lacking device can take: in the stead of a slot given before, which can go to that device.

    Random matching gives choosy devices' slots to the easily pleased; this takes them back. Returns what is left.
    """
    idle = 0
    while len(slots) and idle < IDLE_ROUNDS_MAX * 2:
        lacking = np.maximum(-board.excess, 0)
        takers = rng.permutation(np.repeat(np.arange(len(lacking)), lacking))
        given = np.flatnonzero(board.given)
        pairs = min(len(takers), len(slots))
        if not pairs or not len(given):
            break
        slots = rng.permutation(slots)
        middle = rng.choice(given, pairs)
        works = _fits(board, slots[:pairs], board.owners_of(middle)) & _harmless(
            board, middle, takers[:pairs]
        )
        fits = np.flatnonzero(works)
        both = np.concatenate([slots[fits], middle[fits]]) % board.partitions
        _, which, times = np.unique(both, return_inverse=True, return_counts=True)
        alone = (times == 1)[which].reshape(2, -1).all(axis=0)
        fits = fits[alone]
        board.give(slots[fits], board.owners_of(middle[fits]))
        board.give(middle[fits], takers[fits])
        slots = np.delete(slots, fits)
        idle = 0 if len(fits) else idle + 1
    return slots


def _rank_within(groups: Ints) -> Ints:
    """Number the members of each group from 0 in order of appearance."""
    order = np.argsort(groups, kind="stable")
    grouped = groups[order]
    first = np.searchsorted(grouped, grouped)
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank
