"""What a ring gives to a device, and whose word an owner needs before it votes."""

from array import array
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.device import Device, DeviceId
from storage_node.sharing import Shares, in_turn, is_enough, shares_of
from tests.unit.ring.rings import fields, ring_of

DEVICES = 6


def shares(number: int, owners: list[int], before: list[int] | None = None) -> Shares:
    """The share of one device in a ring of one partition."""
    table = [
        Device(DeviceId(at), 1, at, "host", 6200 + at, "sd", 1.0, uuid=UUID(int=at + 1))
        for at in range(DEVICES)
    ]
    moving: dict[int, Sequence[int]] = {0: before} if before else {}
    ring = ring_of(fields(table, [array("I", [owner]) for owner in owners], moving=moving))
    return shares_of(ring, UUID(int=number + 1))


@pytest.mark.parametrize(
    ("number", "owners", "before", "heard", "enough"),
    [
        pytest.param(2, [0, 1, 2], None, [0, 1], True, id="both others of three"),
        pytest.param(2, [0, 1, 2], None, [0], False, id="one other of three"),
        pytest.param(4, [0, 1, 2, 3, 4], None, [0, 1, 2], True, id="three of the four others of five"),
        pytest.param(4, [0, 1, 2, 3, 4], None, [0, 1], False, id="two of the four others of five"),
        pytest.param(0, [0], None, [], False, id="no others: never"),
        pytest.param(1, [0, 1], None, [0], True, id="the other of two"),
        pytest.param(3, [3, 4, 5], [0, 1, 2], [0, 2], True, id="a majority of the old owners"),
        pytest.param(3, [3, 4, 5], [0, 1, 2], [0, 4, 5], False, id="newcomers are nobody's word"),
        pytest.param(3, [0, 1, 3], [0, 1, 2], [0, 1], True, id="a newcomer, and those who stay"),
        pytest.param(
            3, [0, 1, 3], [0, 1, 2], [0, 2], False, id="a majority of the old, too few of those who stay"
        ),
        pytest.param(0, [0, 1, 3], [0, 1, 2], [1, 2], True, id="an old owner whose disk was replaced"),
        pytest.param(
            0, [0, 1, 3], [0, 1, 2], [1, 3], False, id="an old owner, and a newcomer for an old one"
        ),
    ],
)
def test_whose_word_is_enough(
    number: int, owners: list[int], before: list[int] | None, heard: list[int], enough: bool
) -> None:
    assert is_enough(shares(number, owners, before).needs(0), list(map(DeviceId, heard))) is enough


@given(st.integers(1, 6))
def test_enough_others_meet_every_majority_that_a_lost_owner_was_part_of(replicas: int) -> None:
    """The lost owner may have been in the majority: the others that are heard must meet what is left of it."""
    (need,) = shares(0, list(range(replicas))).needs(0)
    left_of_a_majority = replicas // 2 + 1 - 1
    assert replicas == 1 or need.voices + left_of_a_majority > len(need.owners)


def test_peers_are_all_owners_of_shared_partitions() -> None:
    table = [Device(DeviceId(at), 1, at, "h", 6200 + at, "sd", 1.0, uuid=UUID(int=at + 1)) for at in range(4)]
    rows = [array("I", [0, 1, 2, 3]), array("I", [1, 2, 3, 0])]
    found = shares_of(ring_of(fields(table, rows, moving={1: [0, 3]})), UUID(int=1))
    assert found.owned == found.staying == {0, 1, 3}
    assert not found.newcoming
    assert found.peers == {1: (0, 1), 2: (1,), 3: (1, 3)}


def test_a_device_that_the_ring_does_not_know_shares_nothing() -> None:
    assert shares(9, [0, 1, 2]).owned == frozenset()


def test_with_each_partition_another_owner_is_asked_first() -> None:
    owners = [DeviceId(4), DeviceId(7), DeviceId(9)]
    orders = [in_turn(owners, partition) for partition in range(6)]
    assert [order[0] for order in orders] == [4, 7, 9, 4, 7, 9]
    assert all(sorted(order) == owners for order in orders)
    assert in_turn([], 3) == ()
