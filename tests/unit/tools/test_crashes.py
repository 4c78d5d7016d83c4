"""A crash or a failure between the writes of one change: what is on disk then, and how an operator goes on."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from ring.errors import RingError
from ring.file import replace_file
from tests.unit.tools.runs import Operator
from tools.ring_builder import session


class Killed(BaseException):
    """The process ended here; nothing of ours catches it."""


def kill_at_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process die when it is about to write a ring."""

    def die(path: Path, pieces: Iterable[bytes]) -> None:
        raise Killed

    monkeypatch.setattr(session, "replace_file", die)


@pytest.fixture
def crashed(owner: Operator, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """An operator whose rebalance died between the builder and the ring."""
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    with monkeypatch.context() as patch:
        kill_at_the_ring(patch)
        with pytest.raises(Killed):
            owner.run("rebalance")
    assert (owner.builder.epoch, owner.builder.is_moving, owner.ring.epoch) == (2, True, 1)
    return owner


def test_the_builder_is_written_before_its_ring(owner: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    epochs = []

    def look_and_replace(path: Path, pieces: Iterable[bytes]) -> None:
        epochs.append(owner.builder.epoch)
        replace_file(path, pieces)

    monkeypatch.setattr(session, "replace_file", look_and_replace)
    for command in (("rebalance",), ("settle", "--force"), ("undo",), ("write_ring",)):
        owner.does(*command)
    assert epochs == [2, 3, 4, 4], "a ring of which its builder does not know has no line to go on with"


@pytest.mark.parametrize("command", ["rebalance", "settle", "increase_partition_power"])
def test_no_epoch_follows_one_that_was_never_written(crashed: Operator, command: str) -> None:
    sentence = (
        "object-0.ring is of epoch 1 and the builder made epoch 2, which devices may not have seen; write_ring first, copy the"
        f" ring to all hosts, then {command}"
    )
    assert crashed.refused(command).endswith(sentence)
    crashed.ring_file.write_bytes(crashed.ring_file.read_bytes()[:-1])
    assert "is damaged and the builder made epoch 2" in crashed.refused(command)
    crashed.ring_file.unlink()
    assert "is not there and the builder made epoch 2" in crashed.refused(command)


def test_after_a_crash_the_ring_is_written_and_then_settled(crashed: Operator) -> None:
    crashed.does("write_ring")
    assert (crashed.ring.epoch, crashed.ring.is_moving) == (2, True)
    crashed.does("settle", "--force")
    assert (crashed.ring.epoch, crashed.ring.is_moving) == (3, False)


def test_a_change_that_was_never_written_can_be_undone(crashed: Operator) -> None:
    before = crashed.ring
    crashed.does("undo")
    assert (crashed.ring.epoch, crashed.ring.is_moving) == (3, False)
    assert [crashed.ring.primaries(p) for p in range(64)] == [before.primaries(p) for p in range(64)]  # type: ignore[arg-type]  # plain numbers


def test_a_settle_whose_ring_could_not_be_written_is_not_built_on(
    owner: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, pieces: Iterable[bytes]) -> None:
        raise RingError(f"{path} could not be written (No space left on device); make room")

    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    with monkeypatch.context() as patch:
        patch.setattr(session, "replace_file", refuse)
        assert owner.run("settle", "--force").code == 2
    owner.does("pretend_min_part_hours_passed")
    owner.does("set_weight", "d0", 10)
    assert "write_ring first, copy the ring to all hosts, then rebalance" in owner.refused("rebalance")
    owner.does("write_ring")
    owner.does("rebalance")
    assert owner.ring.epoch == 5, "set_weight is told by write_ring as epoch 4"
