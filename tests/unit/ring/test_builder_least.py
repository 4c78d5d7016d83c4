"""How many moves a change costs, beside the exact least: a linear program that knows nothing of the builder.

The program has one unknown for each partition and device, in [0, 1]; the same bounds for every failure domain and the same
loads as the builder reached; and counts what was not there before. Its matrix is totally unimodular, so its optimum is whole.
"""

from collections.abc import Iterator
from math import ceil

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import coo_array

from ring.builder import RingBuilder
from ring.device import DeviceId, Tier
from tests.unit.ring.clusters import (
    HOUR_S,
    Change,
    builders,
    change_builder,
    changes,
    owners_by_partition,
    to_fixed_point,
)

NOW_S = 10 * HOUR_S
EXCESS = 1.3
"""A change moves at most this many times the least: one move of a partition at a time has its price in small clusters."""

Row = tuple[list[int], float]


def least_moves(before: list[set[DeviceId]], after: RingBuilder) -> float:
    """Return the fewest moves that lead from `before` to loads and spread such as `after` has."""
    devices = [device for device in after.present() if device.weight > 0]
    place = {device.id: number for number, device in enumerate(devices)}
    loads, width = after.loads(), len(devices)

    def upper() -> Iterator[Row]:
        for tier in (Tier.REGION, Tier.ZONE, Tier.HOST):
            for node in {device.location(tier) for device in devices}:
                inside = [place[device.id] for device in devices if device.location(tier) == node]
                load = sum(int(loads[devices[number].id]) for number in inside)
                for partition in range(after.partitions):
                    cells = [partition * width + number for number in inside]
                    yield cells, -(-load // after.partitions)
                    yield [~cell for cell in cells], -(load // after.partitions)

    def equal() -> Iterator[Row]:
        for partition, owners in enumerate(owners_by_partition(after)):
            yield [partition * width + number for number in range(width)], len(owners)
        for number, device in enumerate(devices):
            yield [partition * width + number for partition in range(after.partitions)], int(loads[device.id])

    cost = np.ones(after.partitions * width)
    for partition, owners in enumerate(before):
        for owner in owners & place.keys():
            cost[partition * width + place[owner]] = 0
    a_ub, b_ub = matrix(upper(), len(cost))
    a_eq, b_eq = matrix(equal(), len(cost))
    solved = linprog(cost, a_ub, b_ub, a_eq, b_eq, bounds=(0, 1), method="highs")
    assert solved.status == 0, "the builder's own outcome satisfies these bounds"
    return float(solved.fun)


def matrix(rows: Iterator[Row], width: int) -> tuple[coo_array, list[float]]:
    """Write rows of cells as a sparse matrix; a cell's complement stands for minus one."""
    listed = list(rows)
    entries = [
        (number, max(cell, ~cell), 1 if cell >= 0 else -1)
        for number, (cells, _) in enumerate(listed)
        for cell in cells
    ]
    numbers, cells, values = zip(*entries, strict=True)
    return coo_array((values, (numbers, cells)), shape=(len(listed), width)), [bound for _, bound in listed]


@given(builders(most=10, overload=st.just(0.0), part_powers=st.integers(2, 5)), changes(), changes(least=1))
def test_changes_move_hardly_more_than_the_least_that_leads_there(
    builder: RingBuilder, life: list[Change], more: list[Change]
) -> None:
    now_s = to_fixed_point(builder, NOW_S)
    for change in life:
        change_builder(builder, change)
        now_s = to_fixed_point(builder, now_s)
    before = [{device.id for device in owners} for owners in owners_by_partition(builder)]
    change_builder(builder, more[0])
    moves = 0
    for _ in range(20):
        outcome = builder.rebalance(now_s)
        if not builder.is_moving:
            break
        builder.settle()
        now_s += 2 * HOUR_S
        moves += outcome.replicas_moved
    assert moves <= ceil(EXCESS * least_moves(before, builder)) + len(Tier)
