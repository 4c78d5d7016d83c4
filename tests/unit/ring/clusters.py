"""Random clusters, and what a test needs to know of their rings."""

from collections import Counter
from dataclasses import replace
from math import ceil
from uuid import UUID

from hypothesis import strategies as st

from ring.builder import RingBuilder
from ring.device import Device, DeviceId, Partition, Tier

HOUR_S = 3600
WEIGHTS = st.sampled_from([1.0, 1.0, 1.0, 2.0, 3.5, 0.25, 10.0, 0.0])
POWERS = st.integers(0, 7)
FIXED_POINT_ROUNDS_MAX = 60


@st.composite
def devices(draw: st.DrawFn, *, most: int = 24) -> list[Device]:
    """Draw devices in up to 3 regions of up to 4 zones of up to 4 hosts; some places stay empty, some weigh nothing."""
    places = draw(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), WEIGHTS),
            min_size=1,
            max_size=most,
        )
    )
    return [
        Device(DeviceId(number), region, zone, f"10.{region}.{zone}.{host}", 6200, f"sd{number}", weight)
        for number, (region, zone, host, weight) in enumerate(places)
    ]


@st.composite
def builders(
    draw: st.DrawFn,
    *,
    most: int = 24,
    overload: st.SearchStrategy[float] | None = None,
    part_powers: st.SearchStrategy[int] = POWERS,
) -> RingBuilder:
    """Draw a builder with at least as many usable devices as replicas, and no ring yet."""
    builder = RingBuilder(
        UUID(int=7),
        "object-0",
        part_power=draw(part_powers),
        replicas=1,
        min_part_hours=1,
        seed=draw(st.integers(0, 5)),
        overload=draw(overload if overload is not None else st.sampled_from([0.0, 0.0, 0.1, 0.5, 10.0])),
    )
    for device in draw(devices(most=most)):
        builder.add(device)
    usable = sum(device.weight > 0 for device in builder.present())
    if not usable:
        builder.update(replace(builder.device(0), weight=1.0))
    builder.set_replicas(min(max(usable, 1), draw(st.sampled_from([3.0, 3.0, 2.0, 1.0, 3.25, 1.5, 5.0]))))
    return builder


Change = tuple[str, int, float]


def changes(*, least: int = 0) -> st.SearchStrategy[list[Change]]:
    """Draw a life: adding, draining, removing and reweighing devices, in any order."""
    return st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "weigh"]),
            st.integers(0, 40),
            st.sampled_from([0.0, 0.5, 1.0, 4.0]),
        ),
        min_size=least,
        max_size=4,
    )


def change_builder(builder: RingBuilder, change: Change) -> None:
    """Make one change, leaving enough devices for the replicas."""
    what, which, weight = change
    present = builder.present()
    device = present[which % len(present)]
    if what == "add":
        number = builder.next_id()
        zone = which % 4 + 1
        builder.add(
            Device(number, which % 3 + 1, zone, f"10.9.{zone}.{which}", 6200, f"new{number}", weight or 1.0)
        )
        return
    others = sum(other.weight > 0 for other in present if other.id != device.id)
    if others < ceil(builder.replicas):
        return
    if what == "remove":
        builder.remove(device.id)
    else:
        builder.update(replace(device, weight=weight))


def to_fixed_point(builder: RingBuilder, now_s: int) -> int:
    """Rebalance, settle and let hours pass until nothing moves; return the time it is then."""
    for _ in range(FIXED_POINT_ROUNDS_MAX):
        outcome = builder.rebalance(now_s)
        now_s += 2 * HOUR_S
        if (
            not builder.is_moving
            and outcome.partitions_moved == 0
            and outcome.epoch > 0
            and now_s > 4 * HOUR_S
        ):
            return now_s
        if builder.is_moving:
            builder.settle()
    raise AssertionError(f"still moving after {FIXED_POINT_ROUNDS_MAX} rebalances: {outcome}")


def owners_by_partition(builder: RingBuilder) -> list[tuple[Device, ...]]:
    """List the owners of every partition."""
    return [builder.owners_of(Partition(partition)) for partition in range(builder.partitions)]


def counts(owners: tuple[Device, ...], tier: Tier) -> Counter[tuple[int | str, ...]]:
    """Count one partition's replicas in each node of a tier."""
    return Counter(device.location(tier) for device in owners)


def shares(builder: RingBuilder) -> dict[DeviceId, float]:
    """Return each device's share by weight alone, in partition-replicas."""
    present = builder.present()
    total = sum(device.weight for device in present)
    return {device.id: builder.slots_wanted * device.weight / total for device in present}
