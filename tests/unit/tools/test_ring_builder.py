"""The ring builder's commands: the life of a ring, what each command does and writes, and what it prints for scripts."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from ring.builder.file import save_builder
from ring.builder.report import balance
from ring.ring import Kinship
from tests.unit.tools.runs import Operator
from tools.ring_builder import rings
from tools.ring_builder.documents import has_unpublished_changes

SCRIPT = Path(sys.executable).with_name("swiftlike-ring-builder")
UUIDS = [UUID(int=number + 1) for number in range(4)]
DEADLINE_S = 60


def held(operator: Operator) -> list[int]:
    return [each.held for each in balance(operator.builder)]


# The life of a ring


def test_a_ring_grows_by_a_disk_and_back_again(owner: Operator) -> None:
    first = owner.ring
    assert (first.epoch, first.is_moving, held(owner)) == (1, False, [64, 64, 64])

    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    assert owner.ring == first, "a device is added at the next rebalance"
    owner.does("rebalance")
    grown = owner.ring
    assert (grown.epoch, len(grown.moving_partitions), held(owner)) == (2, 48, [48, 48, 48, 48])
    assert grown.kinship(first) is Kinship.ANCESTOR

    assert owner.run("rebalance").code == 1
    owner.does("settle", "--force")
    assert (owner.ring.epoch, owner.ring.is_moving) == (3, False)

    owner.does("undo")
    assert (owner.ring.epoch, owner.ring.is_moving, held(owner)) == (4, True, [64, 64, 64, 0])
    owner.does("settle", "--force")
    owner.does("undo")
    assert [str(device) for device in owner.builder.present()] == [
        f"d{number}r1z{number + 1}-10.0.0.{number + 1}:6200/sdb1_m" for number in range(3)
    ]
    assert owner.ring.descends_from(grown)


def test_a_disk_is_replaced(owner: Operator) -> None:
    owner.does("add", "r1z3-10.0.0.3:6200/sdc1", 100)
    owner.does("remove", "d2")
    owner.does("rebalance")
    assert held(owner) == [64, 64, 0, 64]
    owner.does("settle", "--force")
    assert owner.ring.devices[2] is None


def test_a_removed_device_is_emptied_though_the_hours_have_not_passed(owner: Operator) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    owner.does("settle", "--force")
    owner.does("remove", "d0")
    owner.does("rebalance")
    assert held(owner)[0] == 0


def test_a_drained_disk_keeps_its_place_and_loses_its_replicas(owner: Operator) -> None:
    owner.does("add", "r1z3-10.0.0.3:6200/sdc1", 100)
    owner.does("set_weight", "d2", 0)
    owner.does("rebalance")
    assert held(owner) == [64, 64, 0, 64]
    owner.does("settle", "--force")
    assert owner.ring.devices[2] is not None


def test_two_runs_make_the_same_ring_of_the_same_builder(owner: Operator) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    builder, first = owner.builder, owner.ring_file.read_bytes()
    owner.does("rebalance")
    once = owner.ring
    save_builder(owner.file, builder)
    owner.ring_file.write_bytes(first)
    owner.does("rebalance", "--seed", builder.seed)
    assert owner.ring == once
    save_builder(owner.file, builder)
    owner.ring_file.write_bytes(first)
    owner.does("rebalance", "--seed", builder.seed + 1)
    assert owner.ring != once


# Rebalancing


def test_a_preview_tells_what_moves_and_writes_nothing(owner: Operator) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    before = owner.files()
    told = owner.does("rebalance", "--dry-run", "--json").document
    shown = owner.does("rebalance", "--dry-run").out
    assert owner.files() == before
    assert (told["written"], told["partitions_moved"], told["percent_of_cluster"]) == (False, 48, 25.0)
    assert [(flow["from"], flow["to"]) for flow in told["zone_flows"]] == [
        ("r1z1", "r1z4"),
        ("r1z2", "r1z4"),
        ("r1z3", "r1z4"),
    ]
    assert {flow["to"] for flow in told["device_flows"]} == {"d3r1z4-10.0.0.4:6200/sdb1"}
    assert "48 replicas of 48 partitions move, 25.00% of the cluster (48 balance)" in shown
    assert "nothing was written" in shown

    done = owner.does("rebalance", "--json").document
    assert done == {**told, "written": True, "warnings": done["warnings"]}


def test_a_preview_of_a_first_ring_writes_nothing(operator: Operator) -> None:
    operator.does("create", 4, 1, 1)
    operator.does("add", "z1-a:1/s", 1)
    assert "the first: 16 replicas have their place" in operator.does("rebalance", "--dry-run").out
    assert not operator.ring_file.exists()


def test_a_preview_names_the_largest_flows_and_counts_the_rest(operator: Operator) -> None:
    operator.does("create", 8, 1, 1)
    operator.does(
        "add", *(part for number in range(12) for part in (f"z{number}-10.0.0.{number}:6200/s", 100))
    )
    operator.does("rebalance")
    operator.does("add", "z12-10.0.0.12:6200/s", 100)
    told = operator.does("rebalance", "--dry-run", "--json").document
    rest = len(told["device_flows"]) - 10
    assert f"and {rest} smaller flows between devices" in operator.does("rebalance", "--dry-run").out


def warned(operator: Operator, *values: object) -> str:
    """Run what ends with a warning and writes nothing; return the warning."""
    before = operator.files()
    run = operator.run(*values)
    assert (run.code, run.out) == (1, "")
    assert operator.files() == before
    assert operator.run(*values, "--json").document["warnings"] == [run.sentence.removeprefix("warning: ")]
    return run.sentence.removeprefix("warning: ")


def test_a_rebalance_with_nothing_to_move_warns_and_writes_nothing(owner: Operator) -> None:
    assert warned(owner, "rebalance") == "nothing has to move, so nothing was written"


def test_a_rebalance_that_only_describes_devices_anew_points_to_write_ring(owner: Operator) -> None:
    owner.does("set_info", "d0", "_new")
    assert warned(owner, "rebalance").endswith("devices were changed, and write_ring tells the cluster")
    owner.does("write_ring")
    device = owner.ring.devices[0]
    assert device is not None
    assert (device.meta, owner.ring.epoch) == ("new", 2)


def test_a_rebalance_before_settle_warns_and_writes_nothing(owner: Operator) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    owner.pass_hours(2)
    assert warned(owner, "rebalance").startswith(
        "48 partitions are still moving, so nothing was rebalanced; settle"
    )


def test_a_rebalance_too_soon_tells_the_time_left_and_writes_nothing(operator: Operator) -> None:
    operator.does("create", 6, 2, 1)
    operator.does("add", "z1-a:1/s", 100, "z2-b:1/s", 100)
    operator.does("rebalance")
    operator.does("add", "z3-c:1/s", 600, "z4-d:1/s", 600)
    operator.does("rebalance")
    operator.does("settle", "--force")
    operator.pass_hours(0.25)
    told = warned(operator, "rebalance")
    assert "their partitions rest for min_part_hours, 0:45:00 more" in told
    operator.does("pretend_min_part_hours_passed")
    operator.does("rebalance")
    assert sum(held(operator)[:2]) < 22, "weights ask for 9 and 55"


def test_a_rebalance_tells_what_is_held_back(operator: Operator) -> None:
    operator.does("create", 6, 2, 1)
    operator.does("add", "z1-a:1/s", 100, "z2-b:1/s", 100)
    operator.does("rebalance")
    operator.does("add", "z3-c:1/s", 600, "z4-d:1/s", 600)
    run = operator.does("rebalance")
    assert "replicas are held back: their partitions moved within min_part_hours" in run.out


def test_a_rebalance_tells_which_devices_neither_weight_nor_overload_explains(operator: Operator) -> None:
    operator.does("create", 6, 2, 1)
    operator.does("add", "z1-a:1/s", 100, "z2-b:1/s", 900)
    notes = operator.does("rebalance", "--json").document["notes"]
    assert any(
        "it asks for 1.80 replicas of every partition, and a device can hold one" in note for note in notes
    )
    assert any("it takes what d1 cannot hold" in note for note in notes)


@pytest.mark.parametrize("command", ["rebalance", "settle", "undo", "write_ring", "increase_partition_power"])
def test_a_ring_with_unbound_devices_is_written_with_a_warning(
    owner: Operator, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.does("bind", "d0", "--uuid", UUIDS[0])
    if command != "undo":  # the others show that a device more is counted
        owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    if command in ("settle", "undo"):
        owner.run(*(["rebalance"] if command == "settle" else ["set_weight", "d0", 5]))
    before = owner.ring
    if command == "settle":
        monkeypatch.setattr(rings, "who_waits", lambda ring, config: [])
    run = owner.run(command, *(["--config", "host.toml"] if command == "settle" else []), "--json")
    assert (run.code, owner.ring.descends_from(before)) == (1, True)
    unbound, devices = (2, 3) if command == "undo" else (3, 4)
    assert run.document["warnings"] == [
        f"{unbound} of {devices} devices are not bound to a uuid and do not vote; bind them, then write_ring"
    ]
    assert run.sentence == f"warning: {run.document['warnings'][0]}"


def test_a_ring_of_bound_devices_is_written_without_a_warning(owner: Operator) -> None:
    for number in range(3):
        owner.does("bind", f"d{number}", "--uuid", UUIDS[number])
    run = owner.run("write_ring")
    assert (run.code, run.err) == (0, "")


# Undo, settle, write_ring


def test_settling_a_ring_at_rest_warns_and_writes_nothing(owner: Operator) -> None:
    assert warned(owner, "settle").startswith("nothing is moving, so there is nothing to settle")


def test_ten_changes_can_be_taken_back_and_no_more(owner: Operator) -> None:
    for weight in range(200, 212):
        owner.does("set_weight", "d0", weight)
    for weight in reversed(range(201, 211)):
        owner.does("undo")
        assert owner.builder.device(0).weight == weight
    assert "has no earlier state to return to" in owner.refused("undo")


def test_undo_skips_what_it_could_not_take_back(owner: Operator) -> None:
    owner.does("set_weight", "d0", 300)
    owner.does("bind", "d0", "--uuid", UUIDS[0])
    owner.does("write_ring")
    owner.does("pretend_min_part_hours_passed")
    owner.does("undo")
    device = owner.builder.device(0)
    assert (device.weight, device.uuid) == (100, UUIDS[0])


def test_undo_tells_what_moves_back(owner: Operator) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    owner.does("settle", "--force")
    run = owner.does("undo", "--json")
    assert (run.document["epoch"], run.document["replicas_moved"]) == (4, 48)
    assert {flow["from"] for flow in run.document["zone_flows"]} == {"r1z4"}


def test_an_undo_in_the_middle_of_a_move_is_settled_at_once_and_says_so(owner: Operator) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    assert "or undo, if a new owner died" in owner.run("rebalance").err
    run = owner.does("undo")
    assert (
        "so the ring is settled at once and there is nothing to settle\nnext: copy the ring to all hosts"
        in run.out
    )
    assert (owner.ring.epoch, owner.ring.is_moving) == (3, False)
    assert owner.run("settle", "--force").code == 1


def test_an_undo_of_a_settled_move_is_to_be_settled(owner: Operator) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    owner.does("settle", "--force")
    assert owner.does("undo").out.endswith("when the devices have caught up, settle\n")


def test_an_undo_that_brings_a_device_back_asks_for_its_uuid_if_it_was_wiped(owner: Operator) -> None:
    owner.does("bind", "d2", "--uuid", UUIDS[2])
    owner.does("add", "r1z3-10.0.0.3:6200/sdc1", 100)
    owner.does("remove", "d2")
    owner.does("rebalance")
    owner.does("settle", "--force")
    owner.does("undo")
    owner.does("settle", "--force")
    run = owner.does("undo")
    assert (
        f"is back under uuid {UUIDS[2]}; if its disk was wiped since, bind d2 anew, then write_ring"
        in run.out
    )
    device = owner.builder.device(2)
    assert (device.id, device.uuid) == (2, UUIDS[2])


def test_an_undo_before_anything_is_written_asks_for_no_copy(operator: Operator) -> None:
    operator.does("create", 4, 1, 1)
    operator.does("add", "z1-a:1/s", 1)
    assert "copy the ring" not in operator.does("undo").out


def test_undo_before_the_first_ring_takes_back_an_addition(operator: Operator) -> None:
    operator.does("create", 4, 1, 1)
    operator.does("add", "z1-a:1/s", 1)
    operator.does("undo")
    assert operator.builder.present() == []
    assert not operator.ring_file.exists()


def test_writing_a_ring_again_changes_nothing_in_it(owner: Operator) -> None:
    before = owner.ring_file.read_bytes()
    owner.ring_file.unlink()
    owner.does("write_ring")
    assert owner.ring_file.read_bytes() == before


def test_a_damaged_ring_is_written_again(owner: Operator) -> None:
    before = owner.ring_file.read_bytes()
    owner.ring_file.write_bytes(before[:-1])
    assert "is truncated" in owner.run("validate").err
    owner.does("write_ring")
    assert owner.ring_file.read_bytes() == before


def test_a_ring_that_another_builder_made_is_not_overwritten(owner: Operator, tmp_path: Path) -> None:
    old = owner.builder
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("rebalance")
    save_builder(owner.file, old)
    for command in ("write_ring", "increase_partition_power"):
        assert "(epoch 2) does not come from this builder (epoch 1)" in owner.refused(command)
    owner.does("add", "r1z5-10.0.0.5:6200/sdb1", 100)
    assert "does not come from this builder" in owner.refused("rebalance")
    assert owner.run("validate").code == 2


def test_a_builder_behind_a_link_is_changed_where_it_is(owner: Operator, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "mine.builder"
    link.symlink_to(owner.file)
    assert owner.run("set_weight", "d0", 5, file=link).code == 0
    assert owner.run("write_ring", file=link).code == 1, "the devices are unbound"
    assert link.is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["mine.builder"]
    assert (owner.builder.device(0).weight, owner.ring.epoch) == (5, 2)
    assert owner.run("undo", file=link).code == 1
    assert owner.builder.device(0).weight == 100


def test_a_ring_behind_a_link_is_written_where_it_is(owner: Operator, tmp_path: Path) -> None:
    there = tmp_path / "there.ring"
    owner.ring_file.rename(there)
    owner.ring_file.symlink_to(there)
    owner.does("bind", "d0", "--uuid", UUIDS[0])
    owner.does("write_ring")
    assert owner.ring_file.is_symlink()
    assert owner.ring.epoch == 2


def test_files_keep_the_mode_that_they_were_given(owner: Operator) -> None:
    owner.file.chmod(0o600)
    owner.ring_file.chmod(0o640)
    owner.does("bind", "d0", "--uuid", UUIDS[0])
    owner.does("write_ring")
    assert [path.stat().st_mode & 0o777 for path in (owner.file, owner.ring_file)] == [0o600, 0o640]


def test_asking_whether_there_are_unpublished_changes_changes_nothing(owner: Operator) -> None:
    builder = owner.builder
    builder.update(replace(builder.device(0), meta="new"))
    lineage = builder.lineage
    assert [has_unpublished_changes(builder) for _ in range(2)] == [True, True]
    assert (builder.lineage, has_unpublished_changes(owner.builder)) == (lineage, False)


# Partition power


def test_a_partition_power_increase_moves_nothing(owner: Operator) -> None:
    before = owner.ring
    owner.does("increase_partition_power")
    after = owner.ring
    assert (after.part_power, after.epoch, after.is_moving) == (7, 2, False)
    assert [after.primaries(p) for p in range(128)] == [before.primaries(p // 2) for p in range(128)]  # type: ignore[arg-type]  # plain numbers
    assert "cannot be undone" in owner.refused("undo")


def test_a_partition_power_increase_before_the_first_ring_writes_only_the_builder(operator: Operator) -> None:
    operator.does("create", 4, 1, 1)
    operator.does("increase_partition_power")
    assert (operator.builder.part_power, operator.ring_file.exists()) == (5, False)


@pytest.mark.parametrize("step", ["prepare", "finish", "cancel"])
def test_swifts_steps_of_a_power_increase_are_not_needed(owner: Operator, step: str) -> None:
    before = owner.files()
    run = owner.does(f"{step}_increase_partition_power")
    assert run.out.startswith(f"{step}_increase_partition_power is not needed: ")
    assert owner.files() == before


# A lost builder


@pytest.mark.parametrize("suffix", [".builder", ".ring"])
def test_a_lost_builder_is_made_from_its_ring(owner: Operator, suffix: str) -> None:
    owner.does("add", "r1z4-10.0.0.4:6200/sdb1", 100)
    owner.does("set_replicas", 3.25)
    owner.does("rebalance")
    lost, ring = owner.builder, owner.ring_file.read_bytes()
    owner.file.unlink()
    run = owner.run("write_builder", 5, file=owner.file.with_suffix(suffix))
    assert (run.code, run.err) == (0, "")
    made = owner.builder
    assert (made.owners == lost.owners).all()
    assert (made.devices, made.id, made.lineage) == (lost.devices, lost.id, lost.lineage)
    assert (made.replicas, made.min_part_hours) == (3.25, 5)
    assert made.seconds_to_wait(owner.now_s) == 5 * 3600
    owner.does("write_ring")
    assert owner.ring_file.read_bytes() == ring
    owner.does("settle", "--force")
    assert owner.ring.epoch == 3


def test_a_builder_that_is_there_is_not_made_again(owner: Operator) -> None:
    assert "exists already" in owner.refused("write_builder")


def test_a_builder_is_not_made_from_a_ring_that_is_not_there(operator: Operator) -> None:
    assert "does not exist" in operator.refused("write_builder")


# Devices


def test_devices_are_added_as_pairs_or_by_options(operator: Operator) -> None:
    operator.does("create", 4, 1, 1)
    operator.does("add", "r1z1-10.0.0.1:6200/sdb1_m", 100, "z2-[::1]:6200/sdb1", 1.5)
    operator.does(
        *("add", "--region", 2, "--zone", 3, "--ip", "FD00::1", "--port", 6200, "--device", "disk_1"),
        *("--weight", 7, "--meta", "old", "--id", 9, "--uuid", UUIDS[0]),
    )
    operator.does("add", "z4-a:1/s", 1, "--uuid", UUIDS[1])
    present = operator.builder.present()
    assert [(str(device), device.weight) for device in present] == [
        ("d0r1z1-10.0.0.1:6200/sdb1_m", 100),
        ("d1r1z2-[::1]:6200/sdb1", 1.5),
        ("d9r2z3-[fd00::1]:6200/disk_1_old", 7),
        ("d10r1z4-a:1/s", 1),
    ]
    assert [device.uuid for device in present] == [None, None, *UUIDS[:2]]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["set_info", "d0", "10.9.9.9:6300/sdz_new"], "d0r1z1-10.9.9.9:6300/sdz_new"),
        (
            ["set_info", "--id", "0", "--change-ip", "::9", "--change-port", "6300"],
            "d0r1z1-[::9]:6300/sdb1_m",
        ),
        (["set_info", "d0", "--change-device", "sdz", "--change-meta", ""], "d0r1z1-10.0.0.1:6200/sdz"),
        (["set_region", "d0", "7"], "d0r7z1-10.0.0.1:6200/sdb1_m"),
        (["set_zone", "--ip", "10.0.0.1", "7"], "d0r1z7-10.0.0.1:6200/sdb1_m"),
    ],
    ids=" ".join,
)
def test_what_is_known_of_a_device_is_changed(owner: Operator, values: list[str], names: str) -> None:
    owner.does(*values)
    assert str(owner.builder.device(0)) == names


def test_several_weights_are_set_in_one_call(owner: Operator) -> None:
    owner.does("set_weight", "d0", 1, "z2", 2, "10.0.0.3", 3)
    assert [device.weight for device in owner.builder.present()] == [1, 2, 3]


def test_a_weight_is_set_by_search_options(owner: Operator) -> None:
    owner.does("set_weight", "--zone", 2, "--weight", 100, 50)
    assert [device.weight for device in owner.builder.present()] == [100, 50, 100]


@pytest.mark.parametrize(
    "values",
    [
        ("remove", ":6200"),
        ("set_weight", "_m", 5),
        ("set_info", "r1", "_n"),
        ("set_zone", "r1", 9),
        ("set_region", "r1", 9),
    ],
    ids=lambda values: values[0],
)
def test_several_devices_are_changed_only_with_yes(owner: Operator, values: tuple[object, ...]) -> None:
    assert "matches 3 devices" in owner.refused(*values)
    owner.does(*values, "--yes")
    assert len(owner.run(*values, "--yes").err.splitlines()) <= 1


def test_setting_a_device_does_not_touch_what_an_earlier_pair_made(owner: Operator) -> None:
    owner.does("set_zone", "z1", 2, "z2", 3)
    assert [device.zone for device in owner.builder.present()] == [2, 3, 3]


def test_a_device_is_bound_by_its_uuid(owner: Operator) -> None:
    owner.does("bind", "d1", "--uuid", UUIDS[1])
    owner.does("write_ring")
    device = owner.ring.devices[1]
    assert device is not None
    assert (device.uuid, owner.ring.epoch) == (UUIDS[1], 2)


def test_binding_when_all_are_bound_warns(owner: Operator) -> None:
    for number in range(3):
        owner.does("bind", f"d{number}", "--uuid", UUIDS[number])
    assert warned(owner, "bind").startswith("every device is bound already")


# Settings


def test_settings_are_kept(owner: Operator) -> None:
    owner.does("set_replicas", 2.5)
    owner.does("set_overload", "10%")
    owner.does("set_min_part_hours", 7)
    builder = owner.builder
    assert (builder.replicas, builder.overload, builder.min_part_hours) == (2.5, 0.1, 7)


def test_an_overload_that_was_meant_as_a_percentage_is_set_with_a_warning(owner: Operator) -> None:
    run = owner.run("set_overload", 10, "--json")
    assert (run.code, owner.builder.overload) == (1, 10)
    assert "if you meant 10%, set it with the %" in run.sentence
    assert run.document["warnings"] == [run.sentence.removeprefix("warning: ")]


# Looking


def test_the_table_shows_the_ring_and_its_devices(owner: Operator) -> None:
    shown = owner.does().out
    assert (
        "64 partitions (2^6), 3 replicas, 1 regions, 3 zones, 3 devices, 0.00% balance, 0.00% dispersion"
        in shown
    )
    assert f"ring file {owner.ring_file}: it is up to date" in shown
    assert "10.0.0.3:6200" in shown


def standing(operator: Operator) -> str:
    told = operator.does("--json").document["ring_file"]
    assert told["up_to_date"] == (told["standing"] == "it is up to date")
    return str(told["standing"])


def test_the_table_tells_how_the_ring_file_stands_to_the_builder(operator: Operator) -> None:
    operator.does("create", 4, 1, 1)
    assert standing(operator) == "there is no ring yet: add devices and rebalance"
    operator.does("add", "z1-a:1/s", 1)
    operator.does("rebalance")
    assert standing(operator) == "it is up to date"
    old = operator.ring_file.read_bytes()
    operator.does("set_weight", "d0", 2)
    assert standing(operator).startswith("devices were changed since it was made")
    operator.does("write_ring")
    new = operator.ring_file.read_bytes()
    operator.ring_file.write_bytes(old)
    assert standing(operator) == "it is of epoch 1: write_ring writes epoch 2"
    operator.ring_file.write_bytes(new[:-1])
    assert "is truncated" in standing(operator)
    operator.ring_file.unlink()
    assert standing(operator) == "there is no ring file: write_ring writes it"


def test_devices_that_are_special_say_so(owner: Operator) -> None:
    owner.does("bind", "d0", "--uuid", UUIDS[0])
    owner.does("remove", "d1")
    owner.does("set_weight", "d2", 0)
    flags = [device["flags"] for device in owner.does("--json").document["devices"]]
    assert flags == [[], ["removed"], ["draining", "unbound"]]


def test_a_search_shows_what_it_finds(owner: Operator) -> None:
    assert [device["id"] for device in owner.does("search", "z2", "--json").document["devices"]] == [1]
    assert [
        device["id"] for device in owner.does("search", "--port", 6200, "--json").document["devices"]
    ] == [0, 1, 2]
    assert [device["id"] for device in owner.does("search", "d2", "d0", "--json").document["devices"]] == [
        0,
        2,
    ]
    assert "10.0.0.2:6200" in owner.does("search", "z2").out


def test_the_partitions_of_devices_are_listed_with_how_many_replicas_they_hold(owner: Operator) -> None:
    told = owner.does("list_parts", "d0", "d1", "--json").document
    assert told["partitions"] == [{"partition": number, "replicas": 2} for number in range(64)]
    assert owner.does("list_parts", "d0").out.splitlines()[1].split() == ["0", "1"]


def test_dispersion_is_told_by_tier(owner: Operator) -> None:
    told = owner.does("dispersion", "--json").document
    assert [(tier["tier"], tier["nodes"], tier["partitions_by_distinct"]) for tier in told["tiers"]] == [
        ("region", 1, {"1": 64}),
        ("zone", 3, {"3": 64}),
        ("host", 3, {"3": 64}),
        ("device", 3, {"3": 64}),
    ]
    assert told["partners_per_device"] == {"fewest": 2, "median": 2.0, "most": 2}
    assert "0 of 192 replicas stand closer" in owner.does("dispersion").out


def test_a_sound_ring_is_found_well(owner: Operator) -> None:
    assert owner.does("validate").out == "all is well\n"


def test_a_ring_that_waits_for_a_rebalance_is_found_so(owner: Operator) -> None:
    owner.does("remove", "d0")
    run = owner.run("validate", "--json")
    assert run.code == 1
    assert run.document["broken"] == []
    assert any("was removed and still holds 64 replicas" in sentence for sentence in run.document["pending"])


def test_a_builder_that_contradicts_itself_is_found_broken(owner: Operator) -> None:
    builder = owner.builder
    builder.owners[0] = builder.owners[1]
    save_builder(owner.file, builder)
    assert owner.refused("validate") == "64 partitions have two replicas on one device, first 0"


def test_versions_are_told(owner: Operator) -> None:
    told = owner.does("version", "--json").document
    assert (told["builder_file"], told["epoch"], told["ring"]) == (1, 1, "object-0")
    assert "epoch 1" in owner.does("version").out


def test_a_device_may_have_a_name_that_looks_like_markup(owner: Operator) -> None:
    owner.does("add", "z1-a:1/[red]x_:smile:", 1)
    shown = owner.does().out
    assert "[red]x" in shown
    assert ":smile:" in shown


# For scripts


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["add", "r1z4-10.0.0.4:6200/sdb1", "100"],
        ["remove", "d0"],
        ["set_weight", "d0", "5"],
        ["set_info", "d0", "_n"],
        ["set_region", "d0", "2"],
        ["set_zone", "d0", "2"],
        ["bind", "d0", "--uuid", str(UUIDS[0])],
        ["set_replicas", "2"],
        ["set_overload", "0.1"],
        ["set_min_part_hours", "2"],
        ["pretend_min_part_hours_passed"],
        ["rebalance"],
        ["rebalance", "--dry-run"],
        ["settle"],
        ["undo"],
        ["write_ring"],
        ["increase_partition_power"],
        ["prepare_increase_partition_power"],
        ["search", "d0"],
        ["list_parts", "d0"],
        ["dispersion"],
        ["validate"],
        ["version"],
    ],
    ids=lambda values: "_".join(values[:2]) or "table",
)
def test_json_is_one_document_and_stands_alone(owner: Operator, values: list[str]) -> None:
    if values == ["undo"]:
        owner.does("set_weight", "d0", 5)
    document = owner.run(*values, "--json").document
    assert document["file"] == str(owner.file)
    assert isinstance(document["warnings"], list)


def test_json_is_also_understood_before_the_command(owner: Operator) -> None:
    before = owner.does("--json", "version").document
    assert before == owner.does("version", "--json").document


def test_creating_tells_scripts_what_it_made(operator: Operator) -> None:
    assert operator.does("create", 4, 3, 1, "--json").document["partitions"] == 16


# As a program


def script(directory: Path, *values: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *values], cwd=directory, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_the_installed_program_ends_with_the_code(tmp_path: Path) -> None:
    assert script(tmp_path, "object-0.builder", "create", "4", "1", "1").returncode == 0
    assert script(tmp_path, "object-0.builder", "add", "z1-a:1/s", "1").returncode == 0
    assert script(tmp_path, "object-0.builder", "rebalance").returncode == 1, "d0 is not bound"
    assert script(tmp_path, "object-0.builder", "bind", "d0", "--uuid", str(UUIDS[0])).returncode == 0
    assert script(tmp_path, "object-0.builder", "write_ring").returncode == 0
    again = script(tmp_path, "object-0.builder", "rebalance", "--json")
    assert (again.returncode, json.loads(again.stdout)["written"]) == (1, False)
    refused = script(tmp_path, "object-0.builder", "set_weight", "d0", "-5")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1


def test_help_lists_the_commands(tmp_path: Path) -> None:
    assert "pretend_min_part_hours_passed" in script(tmp_path, "--help").stdout
    assert "SEARCH WEIGHT pairs" in script(tmp_path, "object-0.builder", "set_weight", "--help").stdout
    assert script(tmp_path).returncode == 2


def test_a_reader_that_has_enough_does_no_harm(owner: Operator) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [SCRIPT, owner.file, "list_parts", "d0"],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=DEADLINE_S,
            check=False,
        )
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("answer", "code", "weights"), [(b"y\n", 0, [5, 5, 5]), (b"n\n", 2, [100, 100, 100])]
)
def test_an_operator_at_a_terminal_is_asked(
    owner: Operator, answer: bytes, code: int, weights: list[float]
) -> None:
    ours, theirs = pty.openpty()
    try:
        program = subprocess.Popen(
            [SCRIPT, owner.file, "set_weight", ":6200", "5"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.write(ours, answer)
        program.communicate(timeout=DEADLINE_S)
        said = os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"Change them all?" in said
    assert program.returncode == code
    assert [device.weight for device in owner.builder.present()] == weights
