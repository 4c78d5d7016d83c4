"""Laws of place and of movement, over random clusters."""

from collections.abc import Iterator
from copy import deepcopy
from math import ceil, floor
from uuid import UUID

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from ring.builder import Reason, RingBuilder
from ring.device import Device, DeviceId, Tier
from ring.errors import BuilderError
from tests.unit.ring.clusters import (
    HOUR_S,
    Change,
    builders,
    change_builder,
    changes,
    counts,
    owners_by_partition,
    shares,
    to_fixed_point,
)

NOW_S = 10 * HOUR_S


def live(builder: RingBuilder, life: list[Change]) -> int:
    """Build the first ring, live through the changes, and come to rest."""
    now_s = to_fixed_point(builder, NOW_S)
    for change in life:
        change_builder(builder, change)
        now_s = to_fixed_point(builder, now_s)
    return now_s


def nodes(devices: list[Device]) -> Iterator[tuple[Tier, tuple[int | str, ...], list[Device]]]:
    """Yield every node of every tier with its devices."""
    for tier in Tier:
        for place in sorted({device.location(tier) for device in devices}, key=str):
            yield tier, place, [device for device in devices if device.location(tier) == place]


@given(builders(), changes())
def test_no_device_holds_a_partition_twice(builder: RingBuilder, life: list[Change]) -> None:
    live(builder, life)
    for owners in owners_by_partition(builder):
        assert len({device.id for device in owners}) == len(owners)
    assert sum(map(len, owners_by_partition(builder))) == builder.slots_wanted


@given(builders(), changes())
def test_no_node_has_two_replicas_while_a_sibling_that_could_hold_one_has_none(
    builder: RingBuilder, life: list[Change]
) -> None:
    live(builder, life)
    present, share, loads = builder.present(), shares(builder), builder.loads()

    def could_hold(node: list[Device]) -> bool:
        limit = sum(share[device.id] for device in node) * (1 + builder.overload)
        return sum(int(loads[device.id]) for device in node) + 1 <= limit

    def takes_one_more(tier: Tier, node: list[Device]) -> bool:
        """Tell whether some branch below this node could hold one more at every level."""
        if not could_hold(node):
            return False
        if tier is Tier.DEVICE:
            return True
        below = Tier(tier + 1)
        places = {device.location(below) for device in node}
        return any(takes_one_more(below, [d for d in node if d.location(below) == place]) for place in places)

    roomy = [(tier, place) for tier, place, node in nodes(present) if takes_one_more(tier, node)]
    for owners in owners_by_partition(builder):
        for tier, place in roomy:
            here = counts(owners, tier)
            siblings = [count for other, count in here.items() if other[:-1] == place[:-1]]
            assert here[place] or max(siblings, default=0) < 2, (tier, place, owners)


@given(builders(), changes())
def test_siblings_differ_by_no_more_than_their_shares_do(builder: RingBuilder, life: list[Change]) -> None:
    """A node's replicas of any one partition are its average rounded down or up."""
    live(builder, life)
    loads, partitions = builder.loads(), owners_by_partition(builder)
    for tier, place, node in nodes(builder.present()):
        average = sum(int(loads[device.id]) for device in node) / builder.partitions
        found = {counts(owners, tier)[place] for owners in partitions}
        assert found <= {floor(average), ceil(average)}, (tier, place)


@given(builders(overload=st.just(0.0)), changes())
def test_without_overload_a_device_is_within_one_replica_of_its_weights_share(
    builder: RingBuilder, life: list[Change]
) -> None:
    """Apart from what a device cannot hold, since it may have each partition once; the others share that by weight."""
    live(builder, life)
    fair = shares(builder)
    note(str(fair))
    heavy: set[DeviceId] = set()
    while more := {device for device, share in fair.items() if share > builder.partitions + 1e-6} - heavy:
        heavy |= more
        left = builder.slots_wanted - len(heavy) * builder.partitions
        free = sum(device.weight for device in builder.present() if device.id not in heavy)
        fair = {d.id: left * d.weight / free for d in builder.present() if d.id not in heavy}
    for device in heavy:
        fair[device] = builder.partitions
    loads = builder.loads()
    for device, share in fair.items():
        assert abs(loads[device] - share) < 1 + 1e-6, builder.device(device)


@given(builders(), changes())
def test_overload_bounds_what_dispersion_adds_and_what_goes_beyond_is_explained(
    builder: RingBuilder, life: list[Change]
) -> None:
    now_s = live(builder, life)
    explained = {str(note.device) for note in builder.rebalance(now_s).notes}
    loads = builder.loads()
    for device, share in shares(builder).items():
        if loads[device] > share * (1 + builder.overload) * 1.006 + 1:
            assert str(builder.device(device)) in explained, (share, loads[device])


@given(builders(), changes(), changes())
def test_one_replica_of_a_partition_moves_at_a_time_but_a_removed_device_is_emptied_at_once(
    builder: RingBuilder, life: list[Change], more: list[Change]
) -> None:
    now_s = live(builder, life)
    before = owners_by_partition(builder)
    present = {device.id for device in builder.present()}
    for change in more:
        change_builder(builder, change)
    removed = present - {device.id for device in builder.present()}
    builder.rebalance(now_s)
    loads = builder.loads()
    assert not any(loads[device] for device in removed)
    for old, new in zip(before, owners_by_partition(builder), strict=True):
        lost = {device.id for device in old} - {device.id for device in new}
        assert len(lost - removed) <= (0 if lost & removed else 1)


@given(builders(), changes(), changes())
def test_a_partition_that_moved_rests_for_min_part_hours(
    builder: RingBuilder, life: list[Change], more: list[Change]
) -> None:
    now_s = live(builder, life)
    change_builder(builder, ("add", 3, 4.0))
    builder.rebalance(now_s)
    moved = set(map(int, builder.moving_partitions))
    if builder.is_moving:
        builder.settle()
    before = owners_by_partition(builder)
    present = {device.id for device in builder.present()}
    for change in more:
        change_builder(builder, change)
    removed = present - {device.id for device in builder.present()}
    builder.rebalance(now_s + HOUR_S - 1)
    after = owners_by_partition(builder)
    for partition in moved:
        lost = {device.id for device in before[partition]} - {device.id for device in after[partition]}
        assert lost <= removed


def lent(builder: RingBuilder) -> int:
    """Count what devices hold above their weights: for dispersion, or in the stead of others that cannot.

    A change may end the reason for it, and then it is given back.
    """
    loads = builder.loads()
    return sum(max(0, int(loads[device]) - ceil(share - 1e-6)) for device, share in shares(builder).items())


@given(builders(), changes(), st.integers(0, 40), st.sampled_from([0.5, 1.0, 4.0]))
def test_adding_a_device_moves_no_more_than_its_share_and_what_dispersion_demands(
    builder: RingBuilder, life: list[Change], where: int, weight: float
) -> None:
    now_s = live(builder, life)
    given_back = lent(builder)
    change_builder(builder, ("add", where, weight))
    share = shares(builder)[DeviceId(len(builder.devices) - 1)]
    outcome = builder.rebalance(now_s)
    assert outcome.moved[Reason.BALANCE] <= ceil(share) + given_back + len(Tier)
    assert outcome.moved[Reason.REMOVED] == outcome.moved[Reason.ADDED] == 0


@given(builders(), changes(), st.integers(0, 40))
def test_removing_a_device_moves_only_what_it_held_and_what_dispersion_demands(
    builder: RingBuilder, life: list[Change], which: int
) -> None:
    now_s = live(builder, life)
    given_back = lent(builder)
    loads, present = builder.loads(), {device.id for device in builder.present()}
    change_builder(builder, ("remove", which, 0.0))
    removed = present - {device.id for device in builder.present()}
    outcome = builder.rebalance(now_s)
    assert outcome.moved[Reason.REMOVED] == sum(int(loads[device]) for device in removed)
    assert outcome.moved[Reason.BALANCE] <= given_back + len(Tier)


@given(builders(), changes(), st.integers(0, 40), st.sampled_from([0.0, 0.5, 1.0, 4.0]))
def test_a_weight_change_moves_the_difference_and_what_dispersion_demands(
    builder: RingBuilder, life: list[Change], which: int, weight: float
) -> None:
    now_s = live(builder, life)
    given_back = lent(builder)
    before = shares(builder)
    change_builder(builder, ("weigh", which, weight))
    after = shares(builder)
    difference = sum(max(0.0, before[device] - after[device]) for device in before)
    outcome = builder.rebalance(now_s)
    assert outcome.moved[Reason.BALANCE] <= ceil(difference) + given_back + len(after)


def flat(devices: int, part_power: int) -> RingBuilder:
    """A cluster in which dispersion asks for nothing but different devices."""
    builder = RingBuilder(UUID(int=7), "object-0", part_power, 3, 1)
    for number in range(devices):
        builder.add(Device(DeviceId(number), 1, 1, f"10.0.0.{number}", 6200, "sda", 1.0 + number % 3))
    return builder


@given(st.integers(8, 30), st.integers(4, 9), st.sampled_from([0.5, 1.0, 3.0]))
def test_where_domains_do_not_matter_a_change_moves_the_least_there_is(
    devices: int, part_power: int, weight: float
) -> None:
    builder = flat(devices, part_power)
    now_s = to_fixed_point(builder, NOW_S)
    builder.add(Device(builder.next_id(), 1, 1, "10.0.1.1", 6200, "sda", weight))
    outcome = builder.rebalance(now_s)
    assert outcome.replicas_moved <= ceil(shares(builder)[DeviceId(devices)]) + 1
    now_s = to_fixed_point_after(builder, now_s)
    held = int(builder.loads()[0])
    builder.remove(DeviceId(0))
    outcome = builder.rebalance(now_s)
    assert outcome.replicas_moved <= held + 1


def to_fixed_point_after(builder: RingBuilder, now_s: int) -> int:
    """Settle what moves and come to rest."""
    if builder.is_moving:
        builder.settle()
    return to_fixed_point(builder, now_s + 2 * HOUR_S)


@given(builders(), changes())
def test_the_same_input_and_seed_give_the_same_ring(builder: RingBuilder, life: list[Change]) -> None:
    twin = deepcopy(builder)
    live(builder, life)
    live(twin, life)
    assert (builder.owners == twin.owners).all()
    assert builder.lineage == twin.lineage


@given(builders(most=6))
def test_more_replicas_than_devices_are_refused(builder: RingBuilder) -> None:
    builder.set_replicas(7)
    with pytest.raises(BuilderError, match=r"7 replicas need 7 devices .* add devices or set_replicas"):
        builder.rebalance(NOW_S)
    assert builder.epoch == 0
