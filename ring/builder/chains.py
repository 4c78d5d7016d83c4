"""The last few slots: exact search where random matching found no direct exchange.

A device that lacks a slot may have no donor that failure domains allow, and yet a chain exists: a gives to b, b to c, each a
slot of another partition. The search goes breadth first from the device that lacks, over two kinds of links: a slot that may
be handed on, and a quota that may be rounded the other way (which moves nothing and so comes first). By the theorem in
`plan` a chain exists whenever no partition rests; the search is bounded, and what it leaves undone is off by a slot or two
until the next rebalance.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from ring.builder.board import Board, Mask
from ring.builder.tree import TIERS, Ints
from ring.device import Tier

SCANNED_SLOTS_MAX: Final = 50_000
"""Links out of a device are looked for among this many slots, drawn at random where there are more."""
EFFORT_MAX: Final = 10_000_000
"""Slots looked at by one call, all searches together."""


@dataclass(frozen=True, slots=True)
class Link:
    """How a device could pass a slot, or its claim to one, to `to`."""

    to: int
    slot: int | None
    """The slot to hand on; None where both quotas are rounded the other way instead."""


def settle(board: Board, rng: np.random.Generator, *, only_given: bool = False) -> None:
    """Bring slots from devices above their quota to devices below it along chains, until none is found.

    With `only_given` the chains consist of slots that move in this rebalance anyway.
    """
    effort = EFFORT_MAX
    barren: set[int] = set()  # devices that no chain from a donor reaches
    while effort > 0 and (board.excess > 0).any():
        lacking = [int(device) for device in np.flatnonzero(board.excess < 0) if int(device) not in barren]
        if not lacking:
            return
        slots = np.flatnonzero(
            board.given if only_given else board.given | (board.wanted & board.free_to_move())
        )
        if len(slots) > SCANNED_SLOTS_MAX:
            slots = rng.choice(slots, SCANNED_SLOTS_MAX, replace=False)
        search = _Search(board, slots, barren, effort)
        donor = search.donor_for(lacking[0])
        effort -= search.spent
        if donor is None:
            barren |= search.seen
        else:
            _apply(board, donor, search.links)
            if not only_given:
                barren.clear()


def spare(board: Board, rng: np.random.Generator) -> None:
    """Take back moves that slots which move anyway can stand in for.

    A replica that went from b to c, while another came to b, might have stayed if that other could go to c. So each is
    returned in turn, and stays where it was if a chain of given slots then brings the loads in order again.
    """
    effort = EFFORT_MAX
    for slot in rng.permutation(board.needless()):
        if effort <= 0:
            return
        away, home = int(board.owners.ravel()[slot]), int(board.before.ravel()[slot])
        harm, _ = board.effect(np.array([slot]), home)
        if harm[0] or board.excess[away] > 0 or board.excess[home] < 0:
            continue
        board.take_back(slot)
        search = _Search(board, np.flatnonzero(board.given), set(), effort)
        donor = search.donor_for(away)
        effort -= search.spent
        if donor is None:
            board.give(np.array([slot]), np.array([away]))
        else:
            _apply(board, donor, search.links)


class _Search:
    """One breadth-first search, from the device that lacks a slot to one that has too many."""

    def __init__(self, board: Board, slots: Ints, barren: set[int], effort: int) -> None:
        self.board = board
        self.slots = slots
        self.links: dict[int, Link] = {}
        self.seen = set(barren)
        self.spent = 1
        self.effort = effort

    def donor_for(self, lacking: int) -> int | None:
        """Return a device above its quota from which `links` leads to `lacking`; None when there is no way."""
        self.seen.add(lacking)
        queue = deque([lacking])
        excess = self.board.excess
        while queue and self.spent < self.effort:
            taker = queue.popleft()
            for device in _rounding_partners(self.board, taker):
                if device not in self.seen:
                    self._link(device, Link(taker, None))
                    queue.appendleft(device)
                    if excess[device] > 0:
                        return device
            donors, slots = self._donors_to(taker)
            # Devices with something to give come first: the chain ends there.
            for index in np.argsort(-excess[donors], kind="stable"):
                donor = int(donors[index])
                if donor not in self.seen:
                    self._link(donor, Link(taker, int(slots[index])))
                    queue.append(donor)
                    if excess[donor] > 0:
                        return donor
        return None

    def _link(self, device: int, link: Link) -> None:
        self.seen.add(device)
        self.links[device] = link

    def _donors_to(self, taker: int) -> tuple[Ints, Ints]:
        """List the devices that could hand a slot to `taker`, and one such slot of each."""
        self.spent += len(self.slots)
        harm, _ = self.board.effect(self.slots, taker)
        fits = self.slots[(harm == 0) & ~np.isin(self.slots % self.board.partitions, self._on_the_way(taker))]
        donors, first = np.unique(self.board.owners_of(fits), return_index=True)
        return donors, fits[first]

    def _on_the_way(self, device: int) -> list[int]:
        """List the partitions that the chain from `device` onwards moves already."""
        result = []
        while device in self.links:
            link = self.links[device]
            if link.slot is not None:
                result.append(link.slot % self.board.partitions)
            device = link.to
        return result


def _rounding_partners(board: Board, taker: int) -> list[int]:
    """List the devices that may hold one more if `taker` is to hold one less, by rounding both branches the other way."""
    result: list[int] = []
    partners = np.arange(len(board.tree.devices))
    for tier in reversed(TIERS):
        mine = board.node_of[tier][taker]
        theirs = board.node_of[tier][partners]
        result.extend(
            int(device) for device in partners[_same_parent(board, tier, mine, theirs)] if device != taker
        )
        if not _rounded(board, tier, up=True)[mine]:
            break
        partners = partners[_rounded(board, tier, up=False)[theirs] | (theirs == mine)]
    return result


def _same_parent(board: Board, tier: Tier, mine: int, theirs: Ints) -> Ints:
    parent = board.tree.parent_of[tier]
    swaps = _rounded(board, tier, up=True)[mine] & _rounded(board, tier, up=False)[theirs]
    return np.flatnonzero(swaps & (parent[theirs] == parent[mine]) & (theirs != mine))


def _rounded(board: Board, tier: Tier, *, up: bool) -> Mask:
    """Tell which nodes' quotas are rounded up (or down) and could as well be rounded the other way."""
    is_up = board.quota[tier] > board.exact[tier]
    return board.pliable(tier) & (is_up if up else ~is_up)


def _apply(board: Board, donor: int, links: dict[int, Link]) -> None:
    """Carry out a chain from its donor to the device that lacks."""
    device = donor
    while device in links:
        link = links[device]
        if link.slot is None:
            _round_the_other_way(board, gains=device, loses=link.to)
        else:
            board.give(np.array([link.slot]), np.array([link.to]))
        device = link.to


def _round_the_other_way(board: Board, gains: int, loses: int) -> None:
    """Give one slot of quota from one device to another, in every tier below the node they share."""
    for tier in TIERS:
        up, down = board.node_of[tier][gains], board.node_of[tier][loses]
        if up != down:
            board.quota[tier][up] += 1
            board.quota[tier][down] -= 1
