"""What the ring builder refuses: one sentence that names cause and fix, exit code 2, and nothing written or printed."""

import fcntl
from pathlib import Path

import pytest

from ring.builder.file import save_builder
from tests.unit.tools.runs import Operator
from tools.ring_builder import tables

UUID = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        # the line
        (["rebalence"], "there is no command 'rebalence'; did you mean rebalance?"),
        (["set-weight", "d0", "5"], "there is no command 'set-weight'; did you mean set_weight"),
        (["frobnicate"], "there is no command 'frobnicate'; --help lists the commands"),
        (["rebalance", "--dry"], "there is no option '--dry' here; did you mean --dry-run?"),
        (
            ["remove", "d0", "--frobnicate"],
            "there is no option '--frobnicate' here; --help lists the options",
        ),
        (["rebalance", "--seed", "x"], "'x' is not a valid integer range; --help behind the command shows"),
        (["rebalance", "d0"], "unexpected extra argument"),
        (["set_replicas"], "Missing argument 'REPLICAS'; --help behind the command shows what it takes"),
        (["create", "6", "3", "1"], "exists already; choose another name"),
        # devices
        (["add"], "0 values are not pairs of DEVICE WEIGHT"),
        (["add", "z1-a:1/s"], "1 values are not pairs of DEVICE WEIGHT"),
        (["add", "sdb1", "100"], "'sdb1' is not a device; write it like r1z1-127.0.0.1:6200/sdb1_meta"),
        (["add", "z1-a:1/s", "heavy"], "'heavy' is not a weight; write a number"),
        (["add", "z1-a:1/s", "-5"], "a weight of -5 is not between 0 and"),
        (["add", "z1-a:99999/s", "5"], "port 99999 is not between 1 and 65535"),
        (["add", "z1-a:1/s", "5", "z1-a:1/s", "6"], "a:1/s is in the ring already, as d3"),
        (["add", "z9-10.0.0.1:6200/sdb1", "5"], "10.0.0.1:6200/sdb1 is in the ring already, as d0"),
        (["add", "d0z9-a:1/s", "5"], "there is a device d0 already; leave the id out"),
        (["add", "d4000000000z9-a:1/s", "5"], "id 4000000000 is far above the others"),
        (["add", "d4999999999z9-a:1/s", "5"], "4999999999"),
        (["add", "z1-a:1R10.0.0.1:2/s", "5"], "has a replication address, which is not supported"),
        (
            ["add", "z1-a:1/s", "5", "z1-b:1/s", "6", "--uuid", UUID],
            "--uuid is of one device and 2 are given",
        ),
        (["add", "--zone", "1", "--weight", "5"], "a device needs --ip, --port, --device as well"),
        (["add", "z1-a:1/s", "5", "--zone", "1"], "not by both"),
        (
            ["add", "--zone", "1", "--ip", "a", "--port", "1", "--device", "a/b", "--weight", "5"],
            "'a/b' is not a device name",
        ),
        (
            ["add", "--zone", "1", "--ip", "?", "--port", "1", "--device", "a", "--weight", "5"],
            "'?' is neither an IP",
        ),
        # searches
        (["remove"], "no search value is given; write one such as d3"),
        (["remove", "?"], "'?' is not a search value; write it like d3"),
        (["remove", ""], "'' is not a search value; write it like d3"),
        (["remove", "d9"], "no device matches d9; leave the command out to list the devices"),
        (["remove", "d0", "d9"], "no device matches d9"),
        (["remove", "d0", "--zone", "1"], "search by options or by values such as 'd0', not by both"),
        (["remove", "--zone", "9", "--ip", "a"], "no device matches --zone 9 --ip a"),
        (["remove", ":6200"], "narrow it, or say --yes to change them all"),
        (["search", "d9"], "no device matches d9"),
        (["list_parts", "d9"], "no device matches d9"),
        (["set_weight", "d0"], "1 values are not pairs of SEARCH WEIGHT"),
        (["set_weight", "d0", "-5"], "a weight of -5 is not between 0 and"),
        (["set_weight", "d0", "nan"], "a weight of nan is no share of anything"),
        (["set_weight", "d0", "5", "d9", "5"], "no device matches d9"),
        (["set_weight", "--id", "0"], "search options go with one WEIGHT, and 0 are given"),
        (["set_zone", "d0", "-1"], "'-1' is not a zone; write a whole number"),
        (["set_region", "d0", "west"], "'west' is not a region; write a whole number"),
        (["set_info", "d0", "r2z1-10.0.0.9"], "use set_region or set_zone"),
        (["set_info", "d0", "10.0.0.2"], "10.0.0.2:6200/sdb1 is in the ring already, as d1"),
        (["set_info", "d0", "--change-port", "0"], "--help behind the command shows what it takes"),
        (["set_info", "--id", "0"], "search options go with one CHANGE, and 0 are given"),
        (["bind", "d0"], "look it up in its device.toml and bind d0 --uuid UUID"),
        (["bind"], "look it up in its device.toml and bind d0 --uuid UUID"),
        (["bind", "--uuid", UUID], "--uuid is of one device; give one search value"),
        (["bind", ":6200", "--uuid", UUID], "name one of them by its id, such as d0"),
        (["bind", "d0", "--uuid", "x"], "'x' is not a valid UUID"),
        # settings
        (["set_replicas", "-1"], "a replica count of -1 is not between 1 and"),
        (["set_replicas", "nan"], "a replica count of nan is not between 1 and"),
        (["set_replicas", "many"], "'many' is not a valid float"),
        (["set_overload", "-0.1"], "an overload of -0.1 is below zero"),
        (["set_overload", "much"], "'much' is not an overload; write 0.1 or 10%"),
        (["set_min_part_hours", "1e300"], "1e+300 is not in the range x<=878400"),
        (["set_min_part_hours", "nan"], "min_part_hours of nan is below zero"),
        (["set_min_part_hours", "-1"], "min_part_hours of -1 is below zero"),
        # the ring
        (["undo"], "the first ring cannot be undone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_refusal_is_one_sentence_and_writes_nothing(
    owner: Operator, values: list[str], sentence: str
) -> None:
    assert sentence in owner.refused(*values)
    assert sentence in owner.refused(*values, "--json")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["add", "z1-a:1/s", "1"],
        ["remove", "d0"],
        ["set_weight", "d0", "1"],
        ["set_replicas", "1"],
        ["rebalance"],
        ["settle"],
        ["undo"],
        ["write_ring"],
        ["bind"],
        ["search", "d0"],
        ["list_parts", "d0"],
        ["dispersion"],
        ["validate"],
        ["version"],
    ],
    ids=" ".join,
)
def test_a_file_that_is_no_builder_is_refused_by_every_command(
    operator: Operator, command: list[str]
) -> None:
    assert "does not exist; create it, or fix the path" in operator.refused(*command)
    operator.file.write_bytes(b"something else")
    assert "is not a builder file; name a file that the ring builder made" in operator.refused(*command)
    assert "cannot be read" in operator.refused(*command, file=operator.directory)


def test_a_damaged_builder_is_refused(owner: Operator) -> None:
    owner.file.write_bytes(owner.file.read_bytes()[:-1])
    assert "is truncated or corrupted" in owner.refused("rebalance")


def test_a_ring_in_the_place_of_its_builder_is_refused_with_the_builders_name(owner: Operator) -> None:
    assert "is a ring; name its builder, object-0.builder" in owner.refused(file=owner.ring_file)
    assert "is a ring" in owner.refused("create", 6, 3, 1, file=owner.directory / "new.ring")


@pytest.mark.parametrize("name", ["", "/", "new\n.builder", "new\udcff.builder"])
def test_a_file_that_cannot_name_a_ring_is_refused(operator: Operator, name: str) -> None:
    assert "is no name for a builder file" in operator.refused(
        "create", 6, 3, 1, file=Path(name) if name else Path("/")
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["33", "3", "1"], "33 is not in the range 0<=x<=32"),
        (["-1", "3", "1"], "-1 is not in the range"),
        (["6", "0.5", "1"], "a replica count of 0.5 is not between 1 and"),
        (["6", "3", "-1"], "min_part_hours of -1 is below zero"),
        (["6", "3"], "Missing argument 'MIN_PART_HOURS'"),
    ],
)
def test_a_ring_that_cannot_be_is_not_created(operator: Operator, values: list[str], sentence: str) -> None:
    assert sentence in operator.refused("create", *values)


def test_a_builder_is_not_created_beside_a_ring_that_may_be_in_use(owner: Operator) -> None:
    owner.file.unlink()
    assert "make its builder with write_builder, or move it away" in owner.refused("create", 6, 3, 1)


def test_a_builder_is_not_created_in_a_directory_that_is_not_there(operator: Operator) -> None:
    assert "could not be written" in operator.refused(
        "create", 6, 3, 1, file=operator.directory / "no" / "a.builder"
    )


@pytest.mark.parametrize("command", ["rebalance", "write_ring", "list_parts", "dispersion"])
def test_a_ring_without_devices_is_refused(operator: Operator, command: str) -> None:
    operator.does("create", 6, 3, 1)
    operator.does("add", "z1-a:1/s", 0)
    operator.refused(command, *(["d0"] if command == "list_parts" else []))


def test_fewer_devices_than_replicas_are_refused_with_the_way_out(owner: Operator) -> None:
    owner.does("remove", "d0")
    assert "3 replicas need 3 devices with a weight above zero and there are 2" in owner.refused("rebalance")


def test_two_operators_cannot_change_one_builder_at_once(owner: Operator) -> None:
    with owner.file.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "is being changed by another ring builder; wait" in owner.refused("set_weight", "d0", 5)
        assert owner.run().code == 0, "looking is allowed"
    owner.does("set_weight", "d0", 5)


def test_a_builder_that_was_replaced_just_before_it_was_locked_is_read_anew(
    owner: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, newer = fcntl.flock, owner.builder
    newer.set_overload(0.5)
    calls = 0

    def flock_late(descriptor: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            save_builder(owner.file, newer)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    owner.does("set_weight", "d0", 5)
    assert (calls, owner.builder.overload, owner.builder.device(0).weight) == (2, 0.5, 5)


def test_a_ring_that_cannot_be_written_says_that_the_builder_is_saved(operator: Operator) -> None:
    operator.does("create", 6, 1, 1)
    operator.does("add", "z1-a:1/s", 1, "--uuid", UUID)
    operator.ring_file.mkdir()
    run = operator.run("rebalance")
    assert run.code == 2
    assert run.sentence.endswith("the builder is saved, so write_ring is all there is to repeat")
    operator.ring_file.rmdir()
    operator.does("write_ring")
    assert operator.ring.epoch == 1


def test_an_interrupted_question_is_no_traceback(owner: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "show_table", interrupt)
    run = owner.run()
    assert run.code == 2
    assert "stopped; leave the command out to see how the ring stands" in run.err
