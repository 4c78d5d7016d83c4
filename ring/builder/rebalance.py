"""Change an assignment by as few moves as the plan allows.

In order: slots without a device are filled, replicas that stand too close are spread, and devices above their quota give
to devices below. Each step first matches many slots with many devices at random and keeps what fits, which settles nearly
everything in a few passes over flat arrays; what is left is searched one by one (`chains`).
"""

from collections.abc import Callable
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


def rebalance(board: Board, rng: np.random.Generator) -> None:
    """Bring the board as near to its quotas and bounds as one move a partition can."""
    drop_surplus_replicas(board, rng)
    demanded = board.demanded_by_weights()
    fill(board, rng)
    chains.settle(board, rng, only_given=True)
    spread(board, rng)
    level(board, rng)
    chains.settle(board, rng, only_given=True)
    chains.settle(board, rng)
    # Whatever went beyond what the weights demand made room: for replicas that failure domains kept from a better place.
    beyond = max(0, board.counts[Reason.BALANCE] - demanded)
    board.counts[Reason.BALANCE] -= beyond
    board.counts[Reason.DISPERSION] += beyond


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
    """Give every wanted slot that is empty to a device, whatever the time since the partition's last move."""
    empty = np.flatnonzero(board.wanted.ravel() & (board.owners.ravel() == NOBODY))
    fresh = ~board.moved[empty % board.partitions]  # a partition that lost nothing but gets one more
    for reason, slots in ((Reason.REMOVED, empty[~fresh]), (Reason.ADDED, empty[fresh])):
        left = _match(board, slots, reason, rng, lambda s, t: _fits(board, s, t))
        for slot in _match_through(board, left, reason, rng):
            _place(board, slot, reason, rng)


def _fits(board: Board, slots: Ints, targets: Ints) -> Mask:
    harm, gain = board.effect(slots, targets)
    return (harm == 0) & ((gain > 0) | ~board.starved(slots % board.partitions))


def _place(board: Board, slot: int, reason: Reason, rng: np.random.Generator) -> None:
    """Give one slot to the device that suits it best of all."""
    everyone = np.arange(len(board.tree.devices))
    harm, gain = board.effect(np.full(len(everyone), slot), everyone)
    weighted = board.quota[Tier.DEVICE] > 0
    order = np.lexsort((rng.random(len(everyone)), board.excess, board.excess >= 0, -gain, harm, ~weighted))
    board.give(np.array([slot]), order[:1], reason)


def spread(board: Board, rng: np.random.Generator) -> None:
    """Move replicas that stand too close to others, where another place can hold them."""
    free = board.free_to_move()
    suspects = (board.crowded() | board.starved()) & free & (board.owners != NOBODY)
    slots = np.flatnonzero(suspects)
    if not len(slots):
        return
    giving = board.excess[board.owners_of(slots)] > 0
    for part, reason in ((slots[giving], Reason.BALANCE), (slots[~giving], Reason.DISPERSION)):
        _match(board, part, reason, rng, lambda s, t: _mends(board, s, t))
    columns = np.flatnonzero(suspects.any(axis=0) & board.free_to_move())
    for column in rng.permutation(columns)[:SINGLE_PLACEMENTS_MAX]:
        _spread_one(board, column, rng)


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
    board.give(slots[best], targets[best], Reason.DISPERSION)


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
        _match(board, slots, Reason.BALANCE, rng, lambda s, t: _harmless(board, s, t), limit_givers=True)
        if (lacking - board.lacking()) * 4 < lacking:
            if (chance[giving > 0] >= 1).all():
                return
            oversampling *= 8


def _harmless(board: Board, slots: Ints, targets: Ints) -> Mask:
    harm, _ = board.effect(slots, targets)
    return harm == 0


def _match(
    board: Board,
    slots: Ints,
    reason: Reason,
    rng: np.random.Generator,
    judge: Judge,
    *,
    limit_givers: bool = False,
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
        board.give(offered[fits], targets[fits], reason)
        idle = 0 if len(fits) else idle + 1
        rejected.append(np.delete(offered, fits))
    return np.concatenate([pool, *rejected])


def _match_through(board: Board, slots: Ints, reason: Reason, rng: np.random.Generator) -> Ints:
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
        board.give(slots[fits], board.owners_of(middle[fits]), reason)
        board.give(middle[fits], takers[fits], reason)
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
