"""What recon makes of what devices say: a table of troubles, each with its sentence, and the arithmetic of a ring's change."""

from array import array
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from ring.device import Device, DeviceId
from ring.ring import Ring
from swiftlike.node_calls import CaughtUp, Degraded
from tests.unit.ring.rings import fields, ring_of, successor_of
from tools.members import Member, Silence, members_of
from tools.recon.judging import degraded_by_ring, judge, skew_s
from tools.recon.moving import duration, ring_progress, sentence
from tools.recon.seeing import Seen
from tools.recon.tables import show_cluster, show_progress, size

TABLE = b"o\0"
NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000


def device(number: int) -> Device:
    place = DeviceId(number), 1, number, f"10.0.0.{number + 1}", 6200, f"d{number}"
    return Device(*place, 1.0, uuid=UUID(int=number + 1))


def ring_with(*rows_of: Sequence[int], moving: dict[int, Sequence[int]] | None = None) -> Ring:
    rows = [array("I", row) for row in rows_of]
    return ring_of(fields([device(number) for number in range(4)], rows, moving=moving or {}))


RING = ring_with([0], [1], [2])
MEMBERS = members_of([RING])


def seen(member: Member, **changes: Any) -> Seen:
    """What a device that is well says, but for these changes: `health__state="full"`, `jobs__mender__left=3`."""
    name = RING.name
    health: dict[str, Any] = {
        "state": "serving",
        "uuid": str(member.known_as[name].uuid),
        "epochs": {name: RING.epoch},
        "checksums": {name: RING.checksum},
        "uptime_s": 7200,
        "total_bytes": 1000,
        "free_bytes": 400,
        "reserve_bytes": 10,
    }
    stats: dict[str, Any] = {
        "quarantined": 0,
        "debts": {"left": 0, "last_walk_us": NOW_US - 1_000_000},
        "jobs": {
            "replicator": {"last_pass_us": NOW_US - 30_000_000, "differing": 0, "oldest_divergence_s": 0.0},
            "mender": {"left": 0, "waiting": 0},
            "expirer": {"waiting": 0, "late_s": 0.0},
            "auditor": {"values_damaged": 0},
        },
        "device": {"bodies_damaged": 0, "read_errors": 0, "write_errors": 0},
    }
    told: dict[str, Any] = {
        "offset_us": 0,
        "doubt_us": 500,
        "degraded": (),
        "caught_up": {name: CaughtUp(RING.epoch, 1, 1, 0, 0, ())},
    }
    for place, value in changes.items():
        *way, last = place.split("__")
        at: Any = {"health": health, "stats": stats, "jobs": stats["jobs"]}
        for step in way:
            at = at[step]
        (told if not way else at)[last] = value
    return Seen(health, stats, **told)


def judged(**changes: Any) -> dict[str, Any]:
    """The document of four devices, the first of which says something else."""
    answers: list[tuple[Member, Seen | Silence]] = [(member, seen(member)) for member in MEMBERS]
    answers[0] = MEMBERS[0], seen(MEMBERS[0], **changes)
    return judge({TABLE: RING}, answers, NOW_US)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, None, id="all is well"),
        pytest.param({"health__state": "full"}, "add devices", id="full"),
        pytest.param({"health__state": "draining"}, "about to end", id="draining"),
        pytest.param({"health__uuid": "other"}, "is not the device that ring", id="another disk"),
        pytest.param(
            {"health__epochs": {RING.name: 7}, "health__checksums": {RING.name: b"x"}},
            "newer than this host's",
            id="a newer ring",
        ),
        pytest.param({"health__checksums": {RING.name: b"x"}}, "not of this host's line", id="a strange ring"),
        pytest.param({"health__paused_until_us": NOW_US + HOUR_US}, "paused for 3600 s", id="paused"),
        pytest.param(
            {"caught_up": {RING.name: CaughtUp(1, 5, 3, 0, 0, (1, 2))}},
            "has to catch up with 2 partitions",
            id="does not vote",
        ),
        pytest.param({"jobs__mender__left": 2}, "lacks 2 bodies", id="a body that nobody has"),
        pytest.param({"jobs__mender__waiting": 2}, "lacks 2 bodies", id="a body that was just found missing"),
        pytest.param({"stats__missing": 2}, "lacks 2 bodies", id="a body that no walk has met yet"),
        pytest.param({"jobs__lost_bodies": {"volumes": 1}}, "lost 1 volumes or a part", id="a lost volume"),
        pytest.param({"stats__debts": {"left": 4}}, "holds 4 rows", id="rows that are owed"),
        pytest.param({"jobs__expirer__late_s": 300.0}, "due 300 s ago", id="late deletions"),
        pytest.param({"jobs__replicator__last_pass_us": 0}, "has not ended a pass", id="no pass"),
        pytest.param(
            {"jobs__replicator__last_pass_us": NOW_US - HOUR_US}, "has not ended a pass", id="no pass lately"
        ),
        pytest.param({"jobs__replicator__last_pass_us": 0, "health__uptime_s": 5}, None, id="a young process"),
        pytest.param({"stats__quarantined": 1}, "1 files aside", id="quarantined"),
        pytest.param({"stats__device": {"read_errors": 3}}, "refused 3 reads", id="a disk that refuses"),
        pytest.param({"jobs__auditor__values_damaged": 1}, "rebuild-index", id="a damaged index"),
        pytest.param({"offset_us": 9_000_000}, "clocks differ by 8.999 s", id="a wrong clock"),
        pytest.param({"offset_us": 9_000_000, "doubt_us": 8_000_000}, None, id="a slow answer proves no skew"),
        pytest.param(
            {"degraded": (Degraded(TABLE, 0, 3, 1, NOW_US),)}, "1 partitions of ring object-0 have 1 sound copy",
            id="degraded",
        ),
    ],
)  # fmt: skip
def test_what_is_not_well_is_said_with_what_to_do(
    changes: dict[str, Any], words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    document = judged(**changes)
    assert document["well"] is (words is None), document["warnings"]
    show_cluster(document)
    shown = capsys.readouterr().out
    if words is None:
        assert document["warnings"] == []
        assert "all is well: 4 devices answer" in shown
    else:
        assert len(document["warnings"]) == 1
        assert words in document["warnings"][0]
        assert f"warning: {document['warnings'][0]}" in shown


def test_a_device_that_does_not_answer_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[tuple[Member, Seen | Silence]] = [(MEMBERS[0], Silence("connection refused"))]
    document = judge({TABLE: RING}, answers, NOW_US)
    assert (document["well"], document["answering"]) == (False, 0)
    (warning,) = document["warnings"]
    assert warning.startswith("10.0.0.1:6200/d0 does not answer (connection refused): start it")
    show_cluster(document)
    assert "silent" in capsys.readouterr().out


def test_an_older_ring_is_known_by_its_checksum_from_a_strangers() -> None:
    newer = ring_of(successor_of(RING, fields([device(n) for n in range(4)], [array("I", [0])])))
    members = members_of([newer])
    answers: list[tuple[Member, Seen | Silence]] = [(member, seen(member)) for member in members]
    document = judge({TABLE: newer}, answers, NOW_US)
    assert {device["rings"][newer.name]["standing"] for device in document["devices"]} == {"older"}
    assert all("an older one: copy the ring to its host" in warning for warning in document["warnings"])


WIDE = ring_with([0, 0], (1, 1), (2, 2))
"""Two partitions, both of the first three devices."""


def wide(number: int, *degraded: tuple[int, int], waiting: Sequence[int] = ()) -> tuple[Member, Seen]:
    """What one of the devices says: partitions with their sound copies as it sees them, and those that it does not vote on."""
    member = members_of([WIDE])[number]
    caught_up = CaughtUp(WIDE.epoch, 2, 2 - len(waiting), 0, 0, tuple(waiting))
    told = tuple(Degraded(TABLE, partition, 3, sound, 5) for partition, sound in degraded)
    return member, seen(member, degraded=told, caught_up={WIDE.name: caught_up})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param([wide(0), wide(1), wide(2)], {}, id="all is well"),
        pytest.param(
            [wide(0, (0, 1)), wide(1, (0, 2), (1, 0)), wide(2)],
            {"0": 1, "2": 1},
            id="of several that vote, the one that can vouch for most counts",
        ),
        pytest.param(
            [wide(0, (0, 1), (1, 1)), wide(1, (0, 2), (1, 2), waiting=(0, 1)), wide(2, (0, 2), (1, 2), waiting=(0, 1))],
            {"1": 2},
            id="two that do not vote take each other's copies for sound",
        ),
        pytest.param(
            [wide(0), wide(1, (0, 2), waiting=(0,)), wide(2, (0, 2), waiting=(0,))],
            {"1": 1},
            id="and the third sees no difference where nothing is held",
        ),
        pytest.param([wide(0), wide(1), wide(2, waiting=(0, 1))], {"2": 2}, id="one that does not vote, and nobody has told"),
        pytest.param(
            [wide(0, (0, 1), (1, 1)), wide(1, (0, 1), (1, 1)), wide(2, (0, 2), (1, 2), waiting=(0, 1))],
            {"1": 2},
            id="who does not vote vouches for nobody",
        ),
        pytest.param(
            [wide(0, (0, 2), (1, 2)), (wide(1)[0], Silence("gone")), wide(2, (0, 1), (1, 1), waiting=(0, 1))],
            {"1": 2},
            id="one is silent and one does not vote",
        ),
        pytest.param(
            [wide(number, (0, 2), (1, 2), waiting=(0, 1)) for number in range(3)], {"0": 2}, id="none of them votes"
        ),
    ],
)  # fmt: skip
def test_sound_copies_are_those_that_all_devices_together_know_of(
    answers: Sequence[tuple[Member, Seen | Silence]], expected: dict[str, int]
) -> None:
    assert degraded_by_ring({TABLE: WIDE}, answers) == ({WIDE.name: expected} if expected else {})


def test_a_disk_that_a_ring_does_not_mean_holds_no_copy() -> None:
    member, _ = wide(2)
    other = member, seen(member, health__uuid="other")
    assert degraded_by_ring({TABLE: WIDE}, [wide(0, (0, 3)), wide(1, (0, 3)), other]) == {WIDE.name: {"2": 1}}


def test_who_waits_for_more_than_it_can_name_is_taken_to_wait_for_what_is_behind() -> None:
    member, _ = wide(2)
    told = seen(member, caught_up={WIDE.name: CaughtUp(WIDE.epoch, 2, 0, 0, 0, (0,))})
    assert degraded_by_ring({TABLE: WIDE}, [wide(0), wide(1), (member, told)]) == {WIDE.name: {"2": 2}}


def test_a_new_owner_that_waits_takes_no_copy_from_the_previous_ones() -> None:
    moving = ring_with([0], (1,), (3,), moving={0: [0, 1, 2]})
    members = members_of([moving])
    told = {moving.name: CaughtUp(moving.epoch, 1, 0, 1, 0, (0,))}
    answers: list[tuple[Member, Seen | Silence]] = [(member, seen(member)) for member in members[:3]]
    answers.append((members[3], seen(members[3], caught_up=told)))
    assert degraded_by_ring({TABLE: moving}, answers) == {}


def test_clocks_behind_and_ahead_of_this_hosts_add_up() -> None:
    told = [seen(MEMBERS[0], offset_us=-2_000_000), seen(MEMBERS[1], offset_us=3_000_000)]
    assert skew_s(told) == pytest.approx(4.999)
    assert skew_s([]) == 0


# --- the change of a ring -----------------------------------------------------------------------------------------

MOVING = ring_of(
    fields(
        [device(number) for number in range(4)],
        [array("I", [owner] * 128) for owner in (0, 1, 3)],
        moving={number: [0, 1, 2] if number < 100 else [3, 1, 2] for number in range(110)},
    )
)
"""A hundred partitions move to the last device, ten to the first."""


def told(moving: int, moved: int, per_s: float, epoch: int = MOVING.epoch) -> CaughtUp:
    return CaughtUp(epoch, moving, moved, moving, moved, (), per_s)


@pytest.mark.parametrize(
    ("answers", "expected", "words"),
    [
        pytest.param(
            {3: told(110, 35, 0.5), 0: told(110, 110, 0.1), 1: told(110, 110, 0.0)},
            {"replicas": 110, "caught_up": 35, "percent": 31.8, "left_s": 150, "per_s": 0.6, "done": False},
            "35 of 110 replicas are there (31.8 %), about 2 min 30 s left",
            id="the slowest device says when it is over, and who stays is not counted",
        ),
        pytest.param(
            {3: told(110, 110, 0.0), 0: told(110, 110, 0.0), 1: told(110, 110, 0.0)},
            {"percent": 100.0, "left_s": 0, "done": True},
            "settle it",
            id="all are there",
        ),
        pytest.param(
            {3: told(110, 10, 0.0)},
            {"left_s": None, "done": False},
            "time left not known yet",
            id="just begun",
        ),
        pytest.param(
            {3: Silence("no connection")},
            {"left_s": None, "done": False, "percent": 0.0, "answering": 0},
            "not known",
            id="silent",
        ),
        pytest.param(
            {3: told(110, 110, 0.0), 1: told(110, 109, 0.0)},
            {"percent": 100.0, "done": False},
            "not known",
            id="one who stays and waits is waited for",
        ),
        pytest.param(
            {3: told(110, 110, 1.0, MOVING.epoch + 1)}, {"done": False}, "", id="another epoch is no answer"
        ),
        pytest.param(
            {3: Silence("ring_newer", refused=True)},
            {"done": False, "answering": 1, "left_s": None},
            "not known",
            id="a device that has not got the ring yet does answer",
        ),
    ],
)
def test_the_progress_of_a_ring(
    answers: dict[int, CaughtUp | Silence],
    expected: dict[str, Any],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = ring_progress(MOVING, [(device(at), answer, False) for at, answer in answers.items()])
    assert {name: progress[name] for name in expected} == expected
    assert words in sentence(progress)
    show_progress(progress)
    assert str(device(3)) in capsys.readouterr().out


def test_a_device_that_is_paused_has_no_end() -> None:
    progress = ring_progress(MOVING, [(device(3), told(110, 25, 0.5), True)])
    assert progress["left_s"] is None
    assert sentence(progress).endswith(", paused")


def test_a_ring_that_does_not_move_says_so() -> None:
    assert sentence(ring_progress(RING, [])) == f"ring object-0, epoch {RING.epoch}: nothing is moving"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400, "1 d")],
)
def test_a_time_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 * 2**30, "200 GiB")]
)
def test_a_size_has_the_unit_that_fits(count: int, words: str) -> None:
    assert size(count) == words
