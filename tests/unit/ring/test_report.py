"""What is told of a builder: balance, dispersion, moves, faults, partners; by hand, and against plain counting."""

from collections import Counter
from collections.abc import Callable
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings

from ring.builder import RingBuilder
from ring.builder.report import (
    Finding,
    balance,
    dispersion,
    draining,
    largest_deviation_percent,
    moves,
    partners_per_device,
    validate,
)
from ring.device import Device, DeviceId, Partition, Tier
from ring.ring import NOBODY
from tests.unit.ring.clusters import HOUR_S, builders, to_fixed_point

NOW_S = 1_800_000_000


def device(
    number: int, zone: int = 1, host: str = "10.0.0.1", weight: float = 100.0, region: int = 1
) -> Device:
    return Device(DeviceId(number), region, zone, host, 6200, f"sd{number}", weight)


def builder_of(
    *devices: Device, rows: list[list[int]] | None = None, replicas: float | None = None
) -> RingBuilder:
    """A builder of these devices and, without any rebalance, of these rows."""
    partitions = len(rows[0]) if rows else 4
    builder = RingBuilder(
        UUID(int=7),
        "object-0",
        partitions.bit_length() - 1,
        replicas or (len(rows) if rows else 1),
        min_part_hours=1,
    )
    for each in devices:
        builder.add(each)
    if rows:
        builder.owners = np.array(rows, np.uint32)
        builder.moved_at_s = np.zeros(partitions, np.uint32)
        builder.publish()
    return builder


# Balance


def test_balance_tells_what_weight_asks_for_and_what_is_held() -> None:
    light, heavy = balance(builder_of(device(0), device(1, weight=300), rows=[[0, 0, 1, 1]]))
    assert (light.wanted, light.held, light.deviation_percent) == (1.0, 2, 100.0)
    assert (heavy.wanted, heavy.held) == (3.0, 2)
    assert heavy.deviation_percent == pytest.approx(-100 / 3)
    assert largest_deviation_percent([light, heavy]) == 100.0


def test_a_device_that_should_hold_nothing_is_draining_and_has_no_deviation() -> None:
    builder = builder_of(device(0), device(1, weight=0), rows=[[0, 0, 1, 1]])
    balances = balance(builder)
    assert balances[1].deviation_percent is None
    assert draining(balances) == 2
    assert largest_deviation_percent(balances) == 50.0


def test_a_removed_device_is_told_apart_until_it_is_settled() -> None:
    builder = builder_of(device(0), device(1), rows=[[0, 0, 1, 1]])
    builder.remove(DeviceId(1))
    assert [(each.device.id, each.removed) for each in balance(builder)] == [(0, False), (1, True)]


def test_a_builder_without_devices_is_in_balance() -> None:
    assert balance(builder_of()) == ()
    assert largest_deviation_percent(()) == 0.0


def test_devices_that_all_weigh_nothing_want_nothing() -> None:
    assert [each.wanted for each in balance(builder_of(device(0, weight=0)))] == [0.0]


# Dispersion


def test_dispersion_counts_distinct_domains_and_crowded_replicas() -> None:
    devices = [device(0, zone=1), device(1, zone=1), device(2, zone=2, host="10.0.0.2", weight=200)]
    measured = dispersion(builder_of(*devices, rows=[[0, 0, 0, 0], [1, 2, 2, 1]]))
    region, zone, host, disk = measured.tiers
    assert [tier.tier for tier in measured.tiers] == list(Tier)
    assert (region.nodes, region.partitions_by_distinct, region.crowded) == (1, {1: 4}, 0)
    assert (zone.nodes, zone.partitions_by_distinct, zone.crowded) == (2, {1: 2, 2: 2}, 2)
    assert (host.nodes, host.partitions_by_distinct, host.crowded) == (2, {1: 2, 2: 2}, 2)
    assert (disk.nodes, disk.partitions_by_distinct, disk.crowded) == (3, {2: 4}, 0)
    assert (measured.crowded, measured.replicas, measured.percent) == (2, 8, 25.0)


def test_a_second_replica_in_the_only_zone_is_not_crowded() -> None:
    measured = dispersion(builder_of(device(0), device(1), rows=[[0, 1], [1, 0]]))
    assert (measured.crowded, measured.percent) == (0, 0.0)


def test_two_replicas_on_one_device_are_crowded() -> None:
    assert dispersion(builder_of(device(0), device(1), rows=[[0, 1], [0, 0]])).tiers[Tier.DEVICE].crowded == 1


def test_a_replica_alone_in_a_zone_that_is_drained_is_not_crowded() -> None:
    devices = [device(0), device(1), device(2, zone=2, weight=0)]
    assert dispersion(builder_of(*devices, rows=[[0, 1], [2, 2]])).crowded == 0


def test_nothing_is_crowded_where_there_are_too_few_devices_to_say_where_it_belongs() -> None:
    builder = builder_of(device(0), device(1), rows=[[0, 1], [1, 0]])
    builder.remove(DeviceId(1))
    assert dispersion(builder).crowded == 0


def test_a_builder_without_a_ring_is_fully_dispersed() -> None:
    assert dispersion(builder_of(device(0))).percent == 0.0


@settings(deadline=None)
@given(builder=builders())
def test_dispersion_agrees_with_counting_by_hand(builder: RingBuilder) -> None:
    builder.rebalance(NOW_S)
    for tier in dispersion(builder).tiers:
        counted = Counter(
            len({owner.location(tier.tier) for owner in builder.owners_of(Partition(partition))})
            for partition in range(builder.partitions)
        )
        assert tier.partitions_by_distinct == counted


@settings(deadline=None, max_examples=30)
@given(builder=builders())
def test_nothing_is_crowded_or_to_be_done_at_the_fixed_point(builder: RingBuilder) -> None:
    to_fixed_point(builder, NOW_S)
    assert dispersion(builder).crowded == 0
    assert validate(builder) == ()


# Partners


@settings(deadline=None)
@given(builder=builders())
def test_partners_are_the_other_owners_of_a_devices_partitions(builder: RingBuilder) -> None:
    builder.rebalance(NOW_S)
    partners: dict[int, set[int]] = {}
    for partition in range(builder.partitions):
        owners = {owner.id for owner in builder.owners_of(Partition(partition))}
        for owner in owners:
            partners.setdefault(owner, set()).update(owners - {owner})
    assert partners_per_device(builder) == {number: len(others) for number, others in partners.items()}


def test_partners_are_counted_across_blocks_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = builder_of(*(device(number) for number in range(3)), rows=[[0, 0, 0, 1], [1, 2, 1, 0]])
    whole = partners_per_device(builder)
    monkeypatch.setattr("ring.builder.report.PAIR_COLUMNS", 1)
    assert partners_per_device(builder) == whole == {0: 2, 1: 1, 2: 1}


# Moves


def ids(*rows: list[int]) -> "np.ndarray[tuple[int, int], np.dtype[np.uint32]]":
    return np.array(rows, np.uint32)


DEVICES = [device(0, zone=1), device(1, zone=1), device(2, zone=2), device(3, zone=2)]


def test_moves_are_told_by_device_and_by_zone_the_largest_first() -> None:
    told = moves(ids([0, 0, 0, 1], [1, 1, 1, 2]), ids([2, 2, 0, 1], [1, 1, 3, 2]), DEVICES)
    assert [(flow.source, flow.target, flow.replicas) for flow in told.devices] == [
        (DEVICES[0], DEVICES[2], 2),
        (DEVICES[1], DEVICES[3], 1),
    ]
    assert [(flow.source, flow.target, flow.replicas) for flow in told.zones] == [((1, 1), (1, 2), 3)]
    assert (told.partitions, told.replicas, told.replicas_in_all, told.percent) == (3, 3, 8, 37.5)


def test_a_replica_that_only_changes_its_row_has_not_moved() -> None:
    assert moves(ids([0, 1], [1, 2]), ids([1, 2], [0, 1]), DEVICES).partitions == 0


def test_a_new_replica_comes_from_nowhere_and_a_dropped_one_goes_nowhere() -> None:
    more = moves(ids([0, 1]), ids([0, 1], [2, NOBODY]), DEVICES)
    assert [(flow.source, flow.target) for flow in more.devices] == [(None, DEVICES[2])]
    assert (more.partitions, more.replicas) == (1, 1)
    fewer = moves(ids([0, 1], [2, NOBODY]), ids([0, 1]), DEVICES)
    assert [(flow.source, flow.target) for flow in fewer.devices] == [(DEVICES[2], None)]
    assert (fewer.partitions, fewer.replicas) == (1, 0)


def test_a_first_ring_moves_nothing() -> None:
    told = moves(np.empty((0, 0), np.uint32), ids([0, 1]), DEVICES)
    assert (told.partitions, told.replicas, told.replicas_in_all, told.devices) == (0, 0, 2, ())


@settings(deadline=None)
@given(builder=builders())
def test_moves_agree_with_what_the_rebalance_counted(builder: RingBuilder) -> None:
    builder.rebalance(NOW_S)
    before = builder.owners
    builder.add(Device(builder.next_id(), 1, 9, "10.9.9.9", 6200, "sdx", 5.0))
    outcome = builder.rebalance(NOW_S + 2 * HOUR_S)
    told = moves(before, builder.owners, builder.devices)
    assert (told.partitions, told.replicas) == (outcome.partitions_moved, outcome.replicas_moved)
    assert sum(flow.replicas for flow in told.zones) == sum(flow.replicas for flow in told.devices)


# Validation


def two_by_two() -> RingBuilder:
    return builder_of(*DEVICES, rows=[[0, 1, 2, 3], [2, 3, 0, 1]])


def name_a_device_that_is_not_there(builder: RingBuilder) -> None:
    builder.owners[0, 0] = 9


def put_two_replicas_on_one_device(builder: RingBuilder) -> None:
    builder.owners[1, 2] = 2


def leave_a_slot_empty(builder: RingBuilder) -> None:
    builder.owners[0, 1] = NOBODY


def lose_a_partition(builder: RingBuilder) -> None:
    builder.owners = builder.owners[:, :3]


def forget_when_partitions_moved(builder: RingBuilder) -> None:
    builder.moved_at_s = builder.moved_at_s[:2]


def cut_the_lineage(builder: RingBuilder) -> None:
    builder.lineage = builder.lineage[:-1]


def swap_two_devices(builder: RingBuilder) -> None:
    builder.devices[0], builder.devices[1] = builder.devices[1], builder.devices[0]


def move_out_of_order(builder: RingBuilder) -> None:
    builder.moving_partitions, builder.moving_rows = np.array([1, 0], np.uint32), ids([1, 0])


def move_from_a_stranger(builder: RingBuilder) -> None:
    builder.moving_partitions, builder.moving_rows = np.array([1], np.uint32), ids([9])


def move_without_previous_owners(builder: RingBuilder) -> None:
    builder.moving_partitions = np.array([1], np.uint32)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (name_a_device_that_is_not_there, "partitions belong to devices that are not in the table: d9"),
        (put_two_replicas_on_one_device, "1 partitions have two replicas on one device, first 2"),
        (leave_a_slot_empty, "there are empty slots between the others, where no ring file can have them"),
        (lose_a_partition, "the assignment has 3 partitions instead of 4"),
        (forget_when_partitions_moved, "2 partitions know when they moved, of 4"),
        (cut_the_lineage, "the lineage has 15 bytes, which are no whole number of checksums"),
        (swap_two_devices, "d1r1z1-10.0.0.1:6200/sd1 stands in the table as d0"),
        (move_out_of_order, "the moving partitions are out of range or out of order"),
        (move_from_a_stranger, "previous owners are not in the table: d9"),
        (move_without_previous_owners, "0 sets of previous owners belong to 1 partitions"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_builder_that_contradicts_itself_is_found_broken(
    harm: Callable[[RingBuilder], None], sentence: str
) -> None:
    builder = two_by_two()
    assert validate(builder) == ()
    harm(builder)
    assert Finding(True, sentence) in validate(builder)


def sentences(builder: RingBuilder) -> list[str]:
    findings = validate(builder)
    assert not any(finding.broken for finding in findings)
    return [finding.sentence for finding in findings]


def test_what_the_next_rebalance_is_to_mend_is_pending_and_not_broken() -> None:
    builder = two_by_two()
    builder.remove(DeviceId(3))
    builder.set_replicas(3)
    assert sentences(builder) == [
        "there are 8 replicas where 12 are wanted; rebalance",
        "d3r1z2-10.0.0.1:6200/sd3 was removed and still holds 2 replicas; rebalance",
        (
            "3 devices are not at their share (d0r1z1-10.0.0.1:6200/sd0 holds 2 replicas instead of 4, "
            "d1r1z1-10.0.0.1:6200/sd1 holds 2 replicas instead of 4, "
            "d2r1z2-10.0.0.1:6200/sd2 holds 2 replicas instead of 4); rebalance"
        ),
    ]


def test_too_few_devices_are_pending() -> None:
    builder = two_by_two()
    for number in range(3):
        builder.remove(DeviceId(number))
    assert sentences(builder)[-1] == (
        "2 replicas need more than 1 devices with a weight; add devices or set_replicas"
    )


def test_crowded_replicas_are_pending() -> None:
    builder = builder_of(*DEVICES, rows=[[0, 1, 2, 3], [1, 0, 3, 2]])
    assert sentences(builder) == [
        "4 replicas stand closer to another of their partition than they need to; rebalance"
    ]


def test_a_builder_without_a_ring_says_what_comes_next() -> None:
    assert sentences(builder_of(device(0))) == ["there is no ring yet; add devices and rebalance"]
