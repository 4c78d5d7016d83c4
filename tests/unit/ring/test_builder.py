"""What an operator's changes do to a ring: epochs, moves, undo, refusals, spread of partners."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given

from ring.builder import Reason, RingBuilder
from ring.device import Device, DeviceId, Partition, Tier
from ring.errors import BuilderError
from ring.file import decode_ring
from ring.ring import Ring
from tests.unit.ring.clusters import HOUR_S, builders, counts, owners_by_partition, to_fixed_point

NOW_S = 1_000_000


def cluster(devices: int = 9, part_power: int = 6, **settings: float) -> RingBuilder:
    """Three zones of three hosts, one device or more on each, all of one weight; no ring yet."""
    builder = RingBuilder(UUID(int=1), "object-0", part_power, settings.pop("replicas", 3), 1)
    for number in range(devices):
        builder.add(
            Device(DeviceId(number), 1, number % 3, f"10.0.0.{number % 9}", 6200, f"sd{number}", 100.0)
        )
    return builder


def ring_of(builder: RingBuilder) -> Ring:
    return decode_ring(bytes(builder.publish()), 0, "the ring")


def a_disk(builder: RingBuilder, zone: int = 0, weight: float = 100.0) -> Device:
    number = builder.next_id()
    return Device(number, 1, zone, f"10.0.1.{number}", 6200, "sda", weight)


def test_a_first_rebalance_is_epoch_1_with_nothing_moving() -> None:
    builder = cluster()
    outcome = builder.rebalance(NOW_S)
    assert (outcome.epoch, outcome.replicas_moved, builder.is_moving) == (1, 0, False)
    assert ring_of(builder).epoch == 1


def test_a_rebalance_names_the_whole_previous_owner_set_of_every_changed_partition_and_no_other() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    before = ring_of(builder)
    builder.add(a_disk(builder))
    outcome = builder.rebalance(NOW_S)
    after = ring_of(builder)
    assert outcome.epoch == after.epoch == 2
    assert outcome.partitions_moved > 0
    for number in range(builder.partitions):
        partition = Partition(number)
        changed = before.primaries(partition) != after.primaries(partition)
        assert after.previous_owners(partition) == (before.primaries(partition) if changed else ())


@pytest.mark.parametrize(("first", "then"), [(2, 3), (3, 2), (2, 3.25), (3.25, 2.5), (1, 3)])
def test_a_new_replica_count_moves_whole_owner_sets_too(first: float, then: float) -> None:
    builder = cluster(replicas=first)
    builder.rebalance(NOW_S)
    before = ring_of(builder)
    builder.set_replicas(then)
    builder.rebalance(NOW_S)
    after = ring_of(builder)
    assert sum(len(row) for row in after.rows) == round(then * 64)
    for number in range(builder.partitions):
        partition = Partition(number)
        if set(before.primaries(partition)) != set(after.primaries(partition)):
            assert set(after.previous_owners(partition)) == set(before.primaries(partition))


def test_settling_is_the_next_epoch_and_until_then_nothing_else_moves() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    builder.add(a_disk(builder))
    builder.rebalance(NOW_S)
    with pytest.raises(BuilderError, match="still moving; settle"):
        builder.rebalance(NOW_S + 5 * HOUR_S)
    owners = builder.owners.copy()
    assert builder.settle() > 0
    assert (builder.epoch, builder.is_moving) == (3, False)
    assert (builder.owners == owners).all()
    assert ring_of(builder).previous_owners(Partition(0)) == ()
    with pytest.raises(BuilderError, match="nothing to settle"):
        builder.settle()


def test_every_ring_descends_from_all_before_it_and_from_no_other() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    rings = [ring_of(builder)]
    builder.add(a_disk(builder))
    builder.rebalance(NOW_S)
    rings.append(ring_of(builder))
    builder.settle()
    rings.append(ring_of(builder))
    for older, newer in [(0, 1), (0, 2), (1, 2)]:
        assert rings[newer].descends_from(rings[older])
        assert not rings[older].descends_from(rings[newer])
    other = cluster(devices=10)
    other.rebalance(NOW_S)
    assert not rings[2].descends_from(ring_of(other))


def test_a_rebalance_that_changes_nothing_makes_no_epoch() -> None:
    builder = cluster()
    to_fixed_point(builder, NOW_S)
    epoch = builder.epoch
    outcome = builder.rebalance(NOW_S + 100 * HOUR_S)
    assert (outcome.epoch, outcome.partitions_moved, builder.epoch) == (epoch, 0, epoch)


def test_binding_a_device_makes_a_new_epoch_when_published_since_a_ring_of_one_epoch_never_changes() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    assert builder.publish().checksum == builder.publish().checksum
    builder.update(replace(builder.device(0), uuid=UUID(int=5)))
    ring = ring_of(builder)
    assert ring.epoch == 2
    assert ring.devices[0] == builder.device(0)


def test_a_removed_device_stays_known_until_its_partitions_are_settled() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    held = int(builder.loads()[4])
    builder.remove(DeviceId(4))
    outcome = builder.rebalance(NOW_S)
    assert outcome.moved == {Reason.REMOVED: held, Reason.ADDED: 0, Reason.BALANCE: 0, Reason.DISPERSION: 0}
    moving = [Partition(int(partition)) for partition in builder.moving_partitions]
    assert all(
        4 in {device.id for device in ring_of(builder).previous_owners(partition)} for partition in moving
    )
    builder.settle()
    assert ring_of(builder).devices[4] is None
    assert builder.next_id() == 9, "its id is not used again"


def test_a_device_that_holds_nothing_is_removed_without_a_trace() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    builder.add(a_disk(builder))
    builder.remove(DeviceId(9))
    assert builder.devices[9] is None
    assert builder.rebalance(NOW_S).partitions_moved == 0


def test_a_drained_device_is_emptied_one_replica_of_a_partition_at_a_time() -> None:
    builder = cluster()
    now_s = to_fixed_point(builder, NOW_S)
    builder.update(replace(builder.device(0), weight=0.0))
    now_s = to_fixed_point(builder, now_s)
    assert builder.loads()[0] == 0
    assert builder.device(0).weight == 0


def test_what_must_rest_is_told_and_moves_when_the_hours_have_passed() -> None:
    builder = cluster()
    now_s = to_fixed_point(builder, NOW_S)
    builder.add(a_disk(builder))
    builder.rebalance(now_s)
    builder.settle()
    builder.update(replace(builder.device(9), weight=0.0))
    outcome = builder.rebalance(now_s + 60)
    assert outcome.partitions_moved == 0
    assert outcome.held_back > 0
    assert builder.seconds_to_wait(now_s + 60) == HOUR_S - 60
    builder.pretend_min_part_hours_passed()
    assert builder.rebalance(now_s + 60).partitions_moved > 0


# Undo


def test_undo_brings_back_the_owners_as_a_new_epoch_in_which_they_move() -> None:
    builder = cluster()
    now_s = to_fixed_point(builder, NOW_S)
    earlier = deepcopy(builder)
    builder.add(a_disk(builder))
    builder.rebalance(now_s)
    builder.settle()
    between = ring_of(builder)
    builder.undo_to(earlier, now_s)
    assert (np.sort(builder.owners, axis=0) == np.sort(earlier.owners, axis=0)).all()
    ring = ring_of(builder)
    assert ring.epoch == between.epoch + 1
    assert ring.descends_from(between)
    moving = [Partition(int(partition)) for partition in builder.moving_partitions]
    assert moving
    for partition in moving:
        previous = [device.id for device in ring.previous_owners(partition)]
        assert previous == [device.id for device in between.primaries(partition)]
        assert 9 in previous


def test_undo_in_the_middle_of_a_move_returns_to_the_owners_that_vote_and_is_settled_at_once() -> None:
    builder = cluster()
    now_s = to_fixed_point(builder, NOW_S)
    earlier = deepcopy(builder)
    builder.add(a_disk(builder))
    builder.rebalance(now_s)
    epoch = builder.epoch
    builder.undo_to(earlier, now_s)
    assert builder.epoch == epoch + 1
    assert not builder.is_moving
    assert (np.sort(builder.owners, axis=0) == np.sort(earlier.owners, axis=0)).all()
    assert builder.devices[9] is None


def test_undo_of_a_change_that_was_not_rebalanced_makes_no_epoch() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    earlier = deepcopy(builder)
    builder.add(a_disk(builder))
    builder.undo_to(earlier, NOW_S)
    assert builder.epoch == 1
    assert [device.id for device in builder.present()] == list(range(9))


def test_undo_keeps_a_uuid_that_was_bound_since() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    earlier = deepcopy(builder)
    builder.update(replace(builder.device(3), uuid=UUID(int=33)))
    builder.undo_to(earlier, NOW_S)
    assert builder.device(3).uuid == UUID(int=33)


def test_undo_refuses_what_cannot_be_undone() -> None:
    builder = cluster()
    created = deepcopy(builder)
    builder.rebalance(NOW_S)
    with pytest.raises(BuilderError, match="the first ring cannot be undone"):
        builder.undo_to(created, NOW_S)
    earlier = deepcopy(builder)
    builder.increase_part_power()
    with pytest.raises(BuilderError, match="partition power increase cannot be undone"):
        builder.undo_to(earlier, NOW_S)
    with pytest.raises(BuilderError, match="of another builder"):
        builder.undo_to(replace(builder, id=UUID(int=99)), NOW_S)


# Partition power


@given(builders())
def test_a_partition_power_increase_moves_nothing(builder: RingBuilder) -> None:
    now_s = to_fixed_point(builder, NOW_S)
    before = ring_of(builder)
    builder.increase_part_power()
    after = ring_of(builder)
    assert after.epoch == before.epoch + 1
    assert after.descends_from(before)
    for partition in range(after.partition_count):
        assert after.primaries(Partition(partition)) == before.primaries(Partition(partition // 2))
    path = (b"account", b"container", b"object")
    assert after.partition_of(*path) // 2 == before.partition_of(*path)
    assert builder.rebalance(now_s).moved[Reason.REMOVED] == 0


def test_a_partition_power_increase_is_refused_while_partitions_move() -> None:
    builder = cluster()
    builder.rebalance(NOW_S)
    builder.add(a_disk(builder))
    builder.rebalance(NOW_S)
    with pytest.raises(BuilderError, match="settle the ring before"):
        builder.increase_part_power()


# Refusals


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(lambda b: b.set_replicas(0.5), "replica count of 0.5", id="replicas below 1"),
        pytest.param(lambda b: b.set_replicas(float("nan")), "replica count of nan", id="replicas nan"),
        pytest.param(lambda b: b.set_overload(-0.1), "below zero", id="overload below 0"),
        pytest.param(lambda b: b.set_overload(float("inf")), "overload", id="overload endless"),
        pytest.param(lambda b: b.set_min_part_hours(-1), "below zero", id="hours below 0"),
        pytest.param(lambda b: b.remove(DeviceId(77)), "no device d77", id="remove unknown"),
        pytest.param(
            lambda b: b.update(replace(b.device(0), id=DeviceId(77))), "no device d77", id="update unknown"
        ),
        pytest.param(
            lambda b: b.update(replace(b.device(0), weight=-1.0)), "weight of -1", id="weight below 0"
        ),
        pytest.param(
            lambda b: b.update(replace(b.device(0), weight=float("nan"))), "weight of nan", id="weight nan"
        ),
        pytest.param(lambda b: b.update(replace(b.device(0), port=0)), "port 0", id="port"),
        pytest.param(lambda b: b.update(replace(b.device(0), zone=-1)), "zone -1", id="zone below 0"),
        pytest.param(lambda b: b.update(replace(b.device(0), name="a/b")), "no slash", id="slash in name"),
        pytest.param(
            lambda b: b.add(replace(b.device(0), id=DeviceId(9))), "in the ring already, as d0", id="twice"
        ),
        pytest.param(
            lambda b: b.add(replace(a_disk(b), id=DeviceId(3))), "a device d3 already", id="id taken"
        ),
        pytest.param(
            lambda b: b.add(replace(a_disk(b), id=DeviceId(2**32 - 1))), "device id of", id="id too large"
        ),
    ],
)
def test_a_refused_change_changes_nothing(change: Callable[[RingBuilder], None], sentence: str) -> None:
    builder = cluster()
    before = deepcopy(builder)
    with pytest.raises(BuilderError, match=sentence):
        change(builder)
    assert (builder.devices, builder.replicas, builder.overload) == (
        before.devices,
        before.replicas,
        before.overload,
    )


def test_two_devices_cannot_have_one_uuid() -> None:
    builder = cluster()
    builder.update(replace(builder.device(0), uuid=UUID(int=5)))
    with pytest.raises(BuilderError, match="d0 has the uuid"):
        builder.update(replace(builder.device(1), uuid=UUID(int=5)))


def test_a_builder_that_cannot_be_is_refused() -> None:
    for part_power in (-1, 33):
        with pytest.raises(BuilderError, match="part power"):
            RingBuilder(UUID(int=1), "object-0", part_power, 3, 1)


def test_there_is_no_ring_to_publish_before_the_first_rebalance() -> None:
    with pytest.raises(BuilderError, match="no ring yet"):
        cluster().publish()


def test_devices_that_neither_weight_nor_overload_explains_are_named_with_the_reason() -> None:
    builder = cluster(devices=4, part_power=8)
    builder.update(replace(builder.device(0), weight=1000.0))
    notes = {note.device.id: str(note) for note in builder.rebalance(NOW_S).notes}
    assert "2.31 replicas of every partition, and a device can hold one" in notes[DeviceId(0)]
    assert "less than its weight asks for" in notes[DeviceId(0)]
    assert "takes what d0 cannot hold" in notes[DeviceId(1)]


# Spread


def test_a_devices_partners_are_at_least_half_as_many_as_chance_would_give() -> None:
    builder = RingBuilder(UUID(int=1), "object-0", 12, 3, 1)
    for number in range(90):
        builder.add(
            Device(DeviceId(number), 1, number % 3, f"10.0.0.{number % 30}", 6200, f"sd{number}", 1.0)
        )
    builder.rebalance(NOW_S)
    partners: dict[int, set[int]] = {number: set() for number in range(90)}
    for owners in owners_by_partition(builder):
        for device in owners:
            partners[device.id] |= {other.id for other in owners}
    # 4096 * 3 / 90 partitions with two partners each of the 60 devices in other zones: chance finds nearly all of them.
    assert min(map(len, partners.values())) >= 30


def test_every_replica_row_holds_every_device_so_that_none_is_always_asked_first() -> None:
    builder = cluster(part_power=10)
    builder.rebalance(NOW_S)
    for row in builder.owners:
        assert np.bincount(row, minlength=9).min() > 1024 / 9 / 2


def test_a_thousand_devices_are_placed_by_the_laws() -> None:
    builder = RingBuilder(UUID(int=1), "object-0", 13, 3, 1, overload=0.1)
    for number in range(1000):
        place = number % 8
        builder.add(
            Device(
                DeviceId(number),
                place // 4,
                place % 4,
                f"10.0.{place}.{number // 8 % 13}",
                6200,
                f"sd{number}",
                1.0 + number % 3,
            )
        )
    now_s = to_fixed_point(builder, NOW_S)
    builder.remove(DeviceId(17))
    builder.add(a_disk(builder, zone=2))
    builder.update(replace(builder.device(18), weight=9.0))
    to_fixed_point(builder, now_s)
    total = sum(device.weight for device in builder.present())
    loads = builder.loads()
    for device in builder.present():
        assert abs(loads[device.id] - 3 * 8192 * device.weight / total) < 1
    for owners in owners_by_partition(builder):
        assert [max(counts(owners, tier).values()) for tier in Tier] == [2, 1, 1, 1]


# One disk, one device


def test_an_address_is_free_again_only_when_its_removed_device_is_settled() -> None:
    builder = cluster()
    now_s = to_fixed_point(builder, NOW_S)
    gone = builder.device(4)
    builder.remove(DeviceId(4))
    again = replace(gone, id=builder.next_id())
    with pytest.raises(BuilderError, match="as d4, which is leaving: rebalance and settle first"):
        builder.add(again)
    builder.rebalance(now_s)
    with pytest.raises(BuilderError, match="which is leaving"):
        builder.add(again)
    builder.settle()
    builder.add(again)
    assert builder.device(9) == again


def test_undo_refuses_to_bring_back_a_device_whose_disk_has_another_id_now() -> None:
    builder = cluster()
    now_s = to_fixed_point(builder, NOW_S)
    earlier = deepcopy(builder)
    gone = builder.device(4)
    builder.remove(DeviceId(4))
    builder.rebalance(now_s)
    builder.settle()
    builder.add(replace(gone, id=builder.next_id()))
    builder.rebalance(now_s + 5 * HOUR_S)
    builder.settle()
    epoch = builder.epoch
    with pytest.raises(BuilderError, match="d4 and d9 would be one disk"):
        builder.undo_to(earlier, now_s)
    assert builder.epoch == epoch
    assert builder.devices[4] is None


def test_undo_does_not_turn_back_a_uuid_that_was_bound_anew() -> None:
    builder = cluster()
    builder.update(replace(builder.device(3), uuid=UUID(int=33)))
    builder.rebalance(NOW_S)
    earlier = deepcopy(builder)
    builder.update(replace(builder.device(3), uuid=UUID(int=34)))
    builder.undo_to(earlier, NOW_S)
    assert builder.device(3).uuid == UUID(int=34)


def test_a_clock_that_cannot_be_is_refused() -> None:
    builder = cluster()
    for now_s in (-5, 0, 2**32):
        with pytest.raises(BuilderError, match=f"the clock says {now_s}"):
            builder.rebalance(now_s)
