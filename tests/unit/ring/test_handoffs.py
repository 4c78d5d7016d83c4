"""Who stands in for the primaries: laws over any ring, and how the load of a dead device spreads."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from ring.device import Device, DeviceId, Partition, Tier
from ring.file import RingFields
from ring.handoffs import HandoffOrder
from ring.ring import Ring
from tests.unit.ring.rings import device, devices_by_id, fields, ring_fields, ring_of


def partitions(ring: Ring) -> list[Partition]:
    return [Partition(number) for number in range(ring.partition_count)]


@given(ring_fields())
def test_handoffs_are_each_other_device_with_weight_once(described: RingFields) -> None:
    ring = ring_of(described)
    weighted = {there.id for there in ring.devices if there is not None and there.weight > 0}
    for partition in partitions(ring):
        handoffs = [handoff.id for handoff in ring.handoffs(partition)]
        assert sorted(handoffs) == sorted(weighted - {owner.id for owner in ring.primaries(partition)})


def check_far_apart(
    devices: Sequence[Device | None], partition: Partition, primaries: Sequence[Device]
) -> None:
    """Each handoff is in the widest place that nobody before it is in, and nobody is left out."""
    left = [found for found in devices if found is not None and found.weight > 0 and found not in primaries]
    used = list(primaries)
    for handoff in HandoffOrder(devices).walk(partition, primaries):
        for tier in Tier:
            places = {place.location(tier) for place in used}
            apart = [found for found in left if found.location(tier) not in places]
            if apart:
                assert handoff in apart, f"{tier.name} of {handoff} is used, that of {apart[0]} is not"
                break
        left.remove(handoff)
        used.append(handoff)
    assert left == []


@given(devices_by_id(), st.integers(0, 2**32 - 1), st.data())
def test_each_handoff_is_in_the_widest_place_that_nobody_before_it_is_in(
    devices: list[Device | None], number: int, data: st.DataObject
) -> None:
    there = [found for found in devices if found is not None]
    primaries = data.draw(st.lists(st.sampled_from(there), min_size=1, max_size=3))
    check_far_apart(devices, Partition(number), primaries)


@given(ring_fields())
def test_handoffs_are_the_same_in_every_process(described: RingFields) -> None:
    # Two rings share nothing but the file, as two processes do.
    one, other = ring_of(described), ring_of(described)
    for partition in partitions(one):
        assert list(one.handoffs(partition)) == list(other.handoffs(partition))
        assert list(one.handoffs(partition)) == list(one.handoffs(partition)), (
            "nor does asking change the order"
        )


def _cluster(devices_per_host: int, *, weight_of_odd: float = 100.0) -> list[Device | None]:
    """Two regions of two zones of four hosts."""
    return [
        device(
            number,
            1 + number % 2,
            1 + number // 2 % 2,
            f"h{number // 4 % 4}",
            weight_of_odd if number // 16 % 2 else 100,
        )
        for number in range(16 * devices_per_host)
    ]


def test_the_load_of_a_dead_device_spreads_over_many() -> None:
    devices = _cluster(8)
    count = len(devices)
    rows = [[(number * 7 + replica * 37) % count for number in range(4096)] for replica in range(3)]
    ring = ring_of(fields(devices, rows))
    dead = [
        partition for partition in partitions(ring) if 5 in {owner.id for owner in ring.primaries(partition)}
    ]
    stand_ins = Counter(next(ring.handoffs(partition)).id for partition in dead)
    assert len(dead) == 96
    assert len(stand_ins) > 32, "balls into bins would leave about half of 128 devices without one"
    assert max(stand_ins.values()) < 10


def test_a_device_stands_in_as_often_as_its_weight_says() -> None:
    devices: list[Device | None] = [
        device(number, weight=300.0 if number == 9 else 100.0) for number in range(10)
    ]
    order = HandoffOrder(devices)
    firsts = Counter(next(order.walk(Partition(number), ())).id for number in range(12_000))
    assert 2900 < firsts.pop(DeviceId(9)) < 3100, "a quarter of the weight"
    assert all(900 < times < 1100 for times in firsts.values())


def test_the_second_handoff_keeps_away_from_the_first() -> None:
    devices = _cluster(4)
    order = HandoffOrder(devices)
    owner = devices[0]
    assert owner is not None
    for number in range(200):
        regions, zones = zip(
            *(
                (found.region, found.location(Tier.ZONE))
                for found in islice(order.walk(Partition(number), [owner]), 3)
            ),
            strict=True,
        )
        assert regions[0] != owner.region
        assert len({*zones, owner.location(Tier.ZONE)}) == 4, (
            "all four zones are used before one is used again"
        )


def _beside_a_giant() -> tuple[Device, list[Device | None]]:
    """A primary that every draw falls on, and 12 devices in two zones of the other region that no draw finds."""
    giant = device(0, region=1, weight=1e18)
    return giant, [
        giant,
        *(device(n, region=2, zone=1 + n % 2, weight=3.0 if n == 1 else 1.0) for n in range(1, 13)),
    ]


def test_devices_that_no_draw_finds_are_as_far_apart() -> None:
    giant, devices = _beside_a_giant()
    for number in range(100):
        check_far_apart(devices, Partition(number), [giant])


def test_devices_that_no_draw_finds_stand_in_as_often_as_their_weight_says() -> None:
    giant, devices = _beside_a_giant()
    order = HandoffOrder(devices)
    firsts = Counter(next(order.walk(Partition(number), [giant])).id for number in range(7_000))
    assert 1400 < firsts.pop(DeviceId(1)) < 1600, "three parts of fourteen"
    assert len(firsts) == 11
    assert all(420 < times < 580 for times in firsts.values())


def test_a_device_of_hardly_any_weight_is_still_found() -> None:
    devices: list[Device | None] = [
        device(0),
        device(1, weight=1e-300),
        device(2, weight=1e18),
        device(3, weight=0.0),
    ]
    assert {found.id for found in HandoffOrder(devices).walk(Partition(1), ())} == {0, 1, 2}


def test_a_ring_whose_devices_all_drain_has_no_handoffs() -> None:
    assert list(HandoffOrder([device(0, weight=0.0), None]).walk(Partition(0), ())) == []
