"""Golden vectors: what every released version must agree on. They are added to, never edited.

A change that breaks one would send every stored name to another partition, or leave every ring file unread.
"""

from pathlib import Path
from uuid import UUID

import pytest

from ring.device import Device, DeviceId, Partition
from ring.file import RingFields, decode_ring, encode_ring
from ring.handoffs import HandoffOrder
from ring.hashing import partition_of_hash, path_hash
from swiftlike.names import path_of
from tests.unit.ring.rings import device

GOLDEN = Path(__file__).parent.parent / "golden"
SEED = 0xC0FFEE


@pytest.mark.parametrize(
    ("parts", "seed", "hashed", "partition_at_20"),
    [
        ((b"",), 0, 0x99AA06D3014798D86001C324468D497F, 629408),  # the reference implementation's own
        ((b"AUTH_test",), 0, 0x9017B6023939510DB6D7EC1A6589986C, 590203),
        ((b"AUTH_test",), SEED, 0x92C1F88C373F70ECDC6A84F342C241B7, 601119),
        ((b"AUTH_test",), 2**64 - 1, 0x751A2338EC4CF8F06E61CEA4A5E69B9E, 479650),
        ((b"AUTH_test", b"photos"), SEED, 0x3C392214EFD86825832C4AE4C5CB5CDF, 246674),
        ((b"AUTH_test", b"photos", b"2024/cat.jpg"), 0, 0x6B61837DEDDB583684E29BA38E289D83, 439832),
        ((b"AUTH_test", b"photos", b"2024/cat.jpg"), SEED, 0xB7F77386A0CF4374261B5C46D8F20770, 753527),
        ((b"AUTH_test", b"photos", b"2024/cat.jpg"), 2**64 - 1, 0xFAB81C2D6A4AD9C63D15093DBA172B8E, 1026945),
        ((b"AUTH_test", b"photos", b"//a/../b"), SEED, 0x4CB6C114456D70202DBF7F88AC67E7CC, 314220),
        (
            ("AUTH_tëst".encode(), "фото".encode(), "猫/🐈.jpg".encode()),
            SEED,
            0xB7533879E3903E2D9470888E127275C4,
            750899,
        ),
        (
            (b"AUTH_test", b"photos", b"\0parts\0upload\x001"),
            SEED,
            0x773A3834F4057D866E2AC2BD5DAB707F,
            488355,
        ),
        ((b"a" * 256, b"c" * 256, b"o" * 1024), SEED, 0xE951EF8D69C517FE64DFC8D35A8A7832, 955678),
    ],
    ids=str,
)
def test_a_path_hash_never_changes(
    parts: tuple[bytes, ...], seed: int, hashed: int, partition_at_20: int
) -> None:
    assert path_hash(path_of(*parts), seed) == hashed
    assert partition_of_hash(hashed, 20) == partition_at_20
    assert partition_of_hash(hashed, 0) == 0
    assert partition_of_hash(hashed, 32) == hashed >> 96


DEVICES = (
    Device(DeviceId(0), 1, 1, "10.0.0.1", 6200, "sdb1", 100.0, "", UUID(int=0xA0)),
    Device(DeviceId(1), 1, 2, "10.0.0.2", 6200, "sdb1", 100.0, "rack 7", UUID(int=0xA1)),
    None,
    Device(DeviceId(3), 2, 1, "fd00::3", 6201, "nvme0", 33.5, "", None),
    Device(DeviceId(4), 2, 2, "storage-4.example", 6200, "sdc", 0.0, "", UUID(int=0xA4)),
)
PRIMARIES = [[0, 1, 3], [1, 3, 0], [3, 0, 1], [0, 3, 1], [1, 0], [3, 1], [0, 1], [1, 3]]


def test_a_ring_file_of_version_1_is_read_for_ever() -> None:
    data = bytes.fromhex((GOLDEN / "ring-1.hex").read_text())
    ring = decode_ring(data, SEED, "the golden ring file")
    assert ring.checksum.hex() == "5bc46e43d05e4b59449594bf7c7b143a"
    assert (ring.name, ring.epoch, ring.part_power, ring.replicas) == ("object-0", 3, 3, 2.5)
    assert ring.builder_id == UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert ring.devices == DEVICES
    assert bytes(ring.ancestors) == bytes(range(32))
    partitions = [Partition(number) for number in range(8)]
    assert [[owner.id for owner in ring.primaries(partition)] for partition in partitions] == PRIMARIES
    previous = {
        partition: [owner.id for owner in ring.previous_owners(partition)]
        for partition in partitions
        if ring.previous_owners(partition)
    }
    assert previous == {2: [4, 0, 1], 5: [3, 4]}
    assert [partition for partition in partitions if ring.is_founding(partition)] == [1, 3, 4, 6, 7]
    assert ring.partition_of(b"AUTH_test", b"photos", b"2024/cat.jpg") == 5
    assert [handoff.id for handoff in ring.handoffs(Partition(5))] == [0]


def test_the_golden_ring_file_is_what_is_written_today() -> None:
    """Goes when the writer moves on to version 2; the test above stays."""
    data = bytes.fromhex((GOLDEN / "ring-1.hex").read_text())
    ring = decode_ring(data, SEED, "the golden ring file")
    described = RingFields(
        name=ring.name,
        builder_id=ring.builder_id,
        epoch=ring.epoch,
        part_power=ring.part_power,
        replicas=ring.replicas,
        devices=ring.devices,
        rows=ring.rows,
        ancestors=bytes(ring.ancestors),
        moving_partitions=ring.moving_partitions,
        moving_rows=ring.moving_rows,
        founding=ring.founding,
    )
    assert bytes(encode_ring(described)) == data


@pytest.mark.parametrize(
    ("partition", "handoffs"),
    [
        (0, [3, 6, 9, 11, 4, 5, 10, 2, 8, 7]),
        (1, [10, 3, 9, 7, 5, 11, 2, 6, 4, 8]),
        (2**20 - 1, [11, 6, 7, 9, 3, 4, 5, 2, 10, 8]),
    ],
)
def test_the_order_of_handoffs_never_changes(partition: int, handoffs: list[int]) -> None:
    devices = [
        device(number, 1 + number % 2, 1 + number // 2 % 2, f"h{number // 4}", 100.0 + number)
        for number in range(12)
    ]
    assert [found.id for found in HandoffOrder(devices).walk(Partition(partition), devices[:2])] == handoffs
