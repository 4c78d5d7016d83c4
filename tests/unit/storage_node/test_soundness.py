"""How many sound copies a partition has, as one of its owners sees it."""

from array import array
from collections.abc import Sequence
from uuid import UUID

import pytest

from ring.device import Device, DeviceId
from storage_node.sharing import Shares, shares_of
from storage_node.soundness import DIFFERS_S, MICROS, Soundness
from swiftlike.node_calls import Degraded
from tests.unit.ring.rings import fields, ring_of

TABLE = b"o\0"
NOW_US = 1_000_000_000
LONG_US = DIFFERS_S * MICROS


def shares(number: int, owners: list[int], before: list[int] | None = None) -> Shares:
    """The share of one of six devices in a ring of one partition."""
    table = [
        Device(DeviceId(at), 1, at, "host", 6200 + at, "sd", 1.0, uuid=UUID(int=at + 1)) for at in range(6)
    ]
    moving: dict[int, Sequence[int]] = {0: before} if before else {}
    ring = ring_of(fields(table, [array("I", [owner]) for owner in owners], moving=moving))
    return shares_of(ring, UUID(int=number + 1))


def sound_copies(soundness: Soundness) -> list[int]:
    """How many each degraded partition has."""
    return [each.sound for each in soundness.degraded]


@pytest.mark.parametrize(
    ("before", "differing", "silent", "waits", "sound"),
    [
        pytest.param(None, [], [], False, None, id="all are the same"),
        pytest.param(None, [], [1], False, 2, id="one is silent"),
        pytest.param(None, [], [1, 2], False, 1, id="two are silent"),
        pytest.param(None, [1], [], False, 2, id="one differs"),
        pytest.param(None, [1], [2], False, 1, id="one differs and one is silent"),
        pytest.param(None, [1], [1], False, 2, id="one is counted once"),
        pytest.param(None, [], [], True, 2, id="this one does not vote"),
        pytest.param(None, [1, 2], [], True, 2, id="this one does not vote, and so differs"),
        pytest.param(None, [], [1, 2], True, 0, id="this one does not vote and nobody answers"),
        pytest.param([0, 1, 4], [2], [], False, None, id="a newcomer has still to come to what it is to own"),
        pytest.param([0, 1, 4], [], [4], False, 2, id="a previous owner is silent"),
    ],
)
def test_what_does_not_answer_vote_or_agree_is_no_sound_copy(
    before: list[int] | None, differing: list[int], silent: list[int], waits: bool, sound: int | None
) -> None:
    soundness = Soundness()
    place = (TABLE, 0)
    for now_us in (NOW_US, NOW_US + LONG_US):
        soundness.note(
            now_us,
            {TABLE: shares(0, [0, 1, 2], before)},
            {place: [DeviceId(number) for number in differing]} if differing else {},
            [DeviceId(number) for number in silent],
            [place] if waits else [],
        )
    expected = () if sound is None else (Degraded(TABLE, 0, 3, sound, NOW_US),)
    assert soundness.degraded == expected
    counts = [0, 0, 0, 0]
    if sound is not None:
        counts[sound] = 1
    assert soundness.by_sound_copies() == counts


def test_a_newcomer_does_not_count_the_copies_of_others() -> None:
    soundness = Soundness()
    soundness.note(NOW_US, {TABLE: shares(3, [0, 1, 3], [0, 1, 2])}, {}, [DeviceId(0)], [(TABLE, 0)])
    assert soundness.degraded == ()


def test_two_owners_may_differ_for_a_moment_and_not_for_long() -> None:
    soundness, place, peer = Soundness(), (TABLE, 0), DeviceId(1)
    of = {TABLE: shares(0, [0, 1, 2])}
    soundness.note(NOW_US, of, {place: [peer]}, [], [])
    assert (sound_copies(soundness), soundness.oldest_us()) == ([], NOW_US)
    soundness.note(NOW_US + LONG_US // 2, of, {}, [], [])
    assert soundness.oldest_us() is None, "they agreed in between"
    soundness.note(NOW_US + LONG_US, of, {place: [peer]}, [], [])
    assert sound_copies(soundness) == []
    soundness.note(NOW_US + 2 * LONG_US, of, {place: [peer]}, [], [])
    assert sound_copies(soundness) == [2]
    assert soundness.oldest_us() == NOW_US + LONG_US


def test_the_partition_with_the_fewest_sound_copies_is_first() -> None:
    soundness = Soundness()
    of = {TABLE: shares(0, [0, 1, 2]), b"c\0": shares(0, [0, 1, 4])}
    soundness.note(NOW_US, of, {}, [DeviceId(1), DeviceId(2)], [])
    assert [(each.table, each.sound) for each in soundness.degraded] == [(TABLE, 1), (b"c\0", 2)]
