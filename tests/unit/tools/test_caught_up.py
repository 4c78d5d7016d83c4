"""Settling a move: refused until the new owners have caught up, and what is said meanwhile."""

import pytest

from ring.ring import Ring
from swiftlike.node_calls import CaughtUp
from tests.unit.tools.runs import Operator
from tools.ring_builder import rings
from tools.ring_builder.caught_up import new_owners, shortened, table_of, told_by


@pytest.fixture
def mover(owner: Operator) -> Operator:
    """An operator in the middle of a move."""
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    return owner


def test_a_move_is_not_settled_before_the_devices_have_said_so(
    mover: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def waits(ring: Ring, config: object) -> list[str]:
        asked.append(ring.epoch)
        return ["d3r1z4-10.0.0.4:6200/sdb1 has caught up with 3 of 48 partitions"]

    monkeypatch.setattr(rings, "who_waits", waits)
    before = mover.files()
    run = mover.run("settle", "--config", "host.toml")
    assert run.code == 1
    assert "has caught up with 3 of 48 partitions; wait until all have caught up" in run.err
    assert (mover.files(), asked) == (before, [2])
    monkeypatch.setattr(rings, "who_waits", lambda ring, config: [])
    mover.does("settle", "--config", "host.toml")
    assert (mover.ring.epoch, mover.ring.is_moving) == (3, False)


def test_settling_without_asking_takes_a_word_of_the_operators_own(mover: Operator) -> None:
    assert "name this host's file with --config" in mover.refused("settle")
    run = mover.run("settle", "--force")
    assert run.code == 1
    assert "settled on your word: no device was asked" in run.err
    assert not mover.ring.is_moving


def test_the_configuration_that_is_missing_is_told(mover: Operator) -> None:
    sentence = mover.refused("settle", "--config", mover.directory / "none.toml")
    assert "the devices cannot be asked without it" in sentence


def test_only_new_owners_of_what_moves_are_asked(mover: Operator) -> None:
    ring = mover.ring
    moving = set(ring.moving_partitions)
    assert {device.id for device in new_owners(ring)} == {
        row[partition] for row in ring.rows for partition in moving
    }


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (CaughtUp(2, 48, 48, 48, 48, ()), None),
        (CaughtUp(2, 48, 47, 48, 47, (5,)), "has caught up with 47 of 48 partitions"),
        (CaughtUp(1, 0, 0, 0, 0, ()), "is at epoch 1 of the ring, not 2"),
        (CaughtUp(2, 48, 40, 8, 8, (5,)), None),
    ],
    ids=["caught up", "not yet", "of another epoch", "what does not move is not waited for"],
)
def test_what_a_device_says_becomes_a_sentence(
    mover: Operator, answer: CaughtUp, sentence: str | None
) -> None:
    ring = mover.ring
    told = told_by(new_owners(ring)[0], ring, answer)
    assert told == sentence or (told is not None and sentence is not None and sentence in told)


def test_of_many_devices_the_first_are_named() -> None:
    assert shortened(["a", "b"]) == "a; b"
    assert shortened("abcdefg") == "a; b; c; d; e; and 2 more devices"


def test_every_ring_places_its_table() -> None:
    assert [table_of(name) for name in ("account", "container", "object-0", "object-17")] == [
        b"a\0",
        b"c\0",
        b"o\0",
        b"o\x11",
    ]
