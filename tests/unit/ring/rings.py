"""Rings for tests: any that a builder could write, as a Hypothesis strategy, and plain ones by hand."""

import math
from array import array
from collections.abc import Sequence
from uuid import UUID

from hypothesis import strategies as st

from ring.device import Device, DeviceId
from ring.file import RingFields, decode_ring, encode_ring
from ring.ring import CHECKSUM_BYTES, NOBODY, Ring

SEED = 0x5EED
BUILDER = UUID(int=0xB)


def device(
    number: int, region: int = 1, zone: int = 1, host: str = "10.0.0.1", weight: float = 100.0
) -> Device:
    """One disk; whatever the test does not speak of is the same for all."""
    return Device(DeviceId(number), region, zone, host, 6200, f"sd{number}", weight)


def fields(
    devices: Sequence[Device | None],
    rows: Sequence[Sequence[int]],
    *,
    epoch: int = 1,
    ancestors: bytes = b"",
    moving: dict[int, Sequence[int]] | None = None,
    name: str = "object-0",
) -> RingFields:
    """A ring of these rows; `moving` is from partition to previous owners."""
    partitions = len(rows[0])
    moving = moving or {}
    width = max(map(len, moving.values()), default=0)
    return RingFields(
        name=name,
        builder_id=BUILDER,
        epoch=epoch,
        part_power=partitions.bit_length() - 1,
        replicas=sum(map(len, rows)) / partitions,
        devices=devices,
        rows=[array("I", row) for row in rows],
        ancestors=ancestors,
        moving_partitions=array("I", sorted(moving)),
        moving_rows=[
            array("I", [owners[row] if row < len(owners) else NOBODY for _, owners in sorted(moving.items())])
            for row in range(width)
        ],
    )


def ring_of(described: RingFields) -> Ring:
    """The ring that readers of the file would see."""
    return decode_ring(bytes(encode_ring(described)), SEED, "the test's ring")


def successor_of(ring: Ring, described: RingFields) -> RingFields:
    """The same fields as the next epoch after `ring`."""
    return RingFields(
        name=described.name,
        builder_id=described.builder_id,
        epoch=ring.epoch + 1,
        part_power=described.part_power,
        replicas=described.replicas,
        devices=described.devices,
        rows=described.rows,
        ancestors=bytes(ring.ancestors) + ring.checksum,
        moving_partitions=described.moving_partitions,
        moving_rows=described.moving_rows,
        founding=described.founding,
    )


weights = st.one_of(st.just(0.0), st.sampled_from([1.0, 100.0, 3e12]), st.floats(1e-6, 1e9))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def devices_by_id(draw: st.DrawFn, devices_max: int = 16) -> list[Device | None]:
    """A table with holes, of which at least one entry is a device."""
    places = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["a", "b", "c", "::1"]))
    present = draw(st.lists(st.booleans(), min_size=1, max_size=devices_max).filter(any))
    return [
        Device(
            DeviceId(number),
            *draw(places),
            port=draw(st.integers(1, 65535)),
            name=draw(texts),
            weight=draw(weights),
            meta=draw(texts),
            uuid=draw(st.none() | st.uuids()),
        )
        if is_there
        else None
        for number, is_there in enumerate(present)
    ]


@st.composite
def ring_fields(draw: st.DrawFn, part_power_max: int = 4) -> RingFields:
    """Anything that a ring file may hold: fractional replicas, holes, moves, ancestors."""
    devices = draw(devices_by_id())
    ids = st.sampled_from([there.id for there in devices if there is not None])
    part_power = draw(st.integers(0, part_power_max))
    partitions = 1 << part_power
    replicas = draw(st.floats(1, 5) | st.integers(1, 5).map(float))
    slots = draw(st.sampled_from([math.floor(replicas * partitions), math.ceil(replicas * partitions)]))
    lengths = [partitions] * (math.ceil(replicas) - 1)
    lengths.append(slots - sum(lengths))
    epoch = draw(st.integers(1, 4))
    owner_sets = st.lists(ids, min_size=1, max_size=4)
    moving = draw(st.dictionaries(st.integers(0, partitions - 1), owner_sets, max_size=6))
    width = max(map(len, moving.values()), default=0)
    return RingFields(
        name=draw(st.sampled_from(["account", "container", "object-0", "object-17"])),
        builder_id=draw(st.uuids()),
        epoch=epoch,
        part_power=part_power,
        replicas=replicas,
        devices=devices,
        rows=[array("I", draw(st.lists(ids, min_size=length, max_size=length))) for length in lengths],
        ancestors=draw(
            st.binary(min_size=(epoch - 1) * CHECKSUM_BYTES, max_size=(epoch - 1) * CHECKSUM_BYTES)
        ),
        moving_partitions=array("I", sorted(moving)),
        moving_rows=[
            array("I", [owners[row] if row < len(owners) else NOBODY for _, owners in sorted(moving.items())])
            for row in range(width)
        ],
        founding=draw(
            st.just(b"") | st.binary(min_size=(partitions + 7) // 8, max_size=(partitions + 7) // 8)
        ),
    )
