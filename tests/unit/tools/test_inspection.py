"""What inspect makes of the copies that devices hold, and dispersion of the versions: tables."""

from array import array
from uuid import UUID

import pytest

from ring.device import Device, DeviceId
from ring.ring import Ring
from swiftlike.entries import Entry, Version
from swiftlike.names import NameRefused, path_of
from swiftlike.node_calls import HeldVersion
from swiftlike.registers import Register
from swiftlike.timestamps import NO_WRITE, ZERO_BALLOT, Ballot, Timestamp, WriteId
from tests.unit.ring.rings import fields, ring_of
from tools.dispersion import Found, copies_of, part_document, shown
from tools.drawing import Named, Sample
from tools.inspection import Answers, Copy, document_of, parse, ring_document, roles_in
from tools.members import Silence

NOW_US = 1_800_000_000_000_000
PATH = path_of(b"a", b"c", b"o")


def device(number: int) -> Device:
    place = DeviceId(number), 1, number, f"10.0.0.{number + 1}", 6200, f"d{number}"
    return Device(*place, 1.0, uuid=UUID(int=number + 1))


def ring_with(owners: list[int], before: list[int] | None = None) -> Ring:
    rows = [array("I", [owner]) for owner in owners]
    return ring_of(fields([device(n) for n in range(5)], rows, moving={0: before} if before else None))


def entry(at: int, *, tombstone: bool = False) -> Entry:
    stamp = Timestamp.of(NOW_US + at, 1)
    body_id = NO_WRITE if tombstone else WriteId(stamp)
    size = 0 if tombstone else 9
    return Entry(Ballot.of(NOW_US + at, 1), WriteId(stamp), NOW_US + at, tombstone, body_id, size)


def copy(at: int | None, body: str = "sound", *, votes: bool = True, tombstone: bool = False) -> Copy:
    register = None if at is None else Register(entry(at, tombstone=tombstone))
    return Copy(register, body != "missing", votes, "none" if at is None or tombstone else body)


NOTHING = copy(None)


@pytest.mark.parametrize(
    ("owners", "sound", "words"),
    [
        pytest.param([copy(1), copy(1), copy(1)], 3, [], id="all hold it"),
        pytest.param([copy(2), copy(2), copy(1)], 2, ["d2 is behind"], id="an older version"),
        pytest.param([copy(2), copy(2), NOTHING], 2, ["d2 is behind"], id="nothing"),
        pytest.param([copy(1), copy(1), copy(1, "missing")], 2, ["d2 lacks the body"], id="no body"),
        pytest.param([copy(1), copy(1, "damaged"), copy(1)], 2, ["d1 held a damaged body"], id="a bad body"),
        pytest.param([copy(1), copy(1), Silence("refused")], 2, ["d2 (owner) does not answer: refused"], id="silent"),
        pytest.param([copy(1), copy(1), copy(1, votes=False)], 3, ["d2 does not vote"], id="no vote"),
        pytest.param([copy(1), copy(1), copy(1, "unread")], 3, [], id="a body that nobody asked for"),
    ],
)  # fmt: skip
def test_what_owners_hold_is_said_with_what_is_amiss(
    owners: list[Copy | Silence], sound: int, words: list[str]
) -> None:
    ring = ring_with([0, 1, 2])
    answers: Answers = [(device(at), "owner", answer) for at, answer in enumerate(owners)]
    found = ring_document(ring, PATH, [*answers, (device(3), "handoff", NOTHING)], NOW_US)
    document = document_of("a/c/o", [found])
    assert (found["sound_copies"], found["owners"], len(found["copies"])) == (sound, 3, 3)
    assert (document["found"], document["well"]) == (True, not words)
    assert len(document["warnings"]) == len(words)
    assert all(word in warning for word, warning in zip(words, document["warnings"], strict=True))


def test_a_handoff_that_holds_a_copy_is_shown_and_no_fault() -> None:
    answers: Answers = [*((device(at), "owner", copy(1)) for at in range(3)), (device(4), "handoff", copy(1))]
    found = ring_document(ring_with([0, 1, 2]), PATH, answers, NOW_US)
    assert [each["role"] for each in found["copies"]] == ["owner", "owner", "owner", "handoff"]
    assert document_of("a/c/o", [found])["well"]


def test_what_was_deleted_or_never_was_is_not_found() -> None:
    gone: Answers = [(device(at), "owner", copy(1, tombstone=True)) for at in range(3)]
    never: Answers = [(device(at), "owner", NOTHING) for at in range(3)]
    ring = ring_with([0, 1, 2])
    deleted = document_of("p", [ring_document(ring, PATH, gone, NOW_US)])
    assert (deleted["found"], deleted["warnings"]) == (False, ["it was deleted"])
    absent = document_of("p", [ring_document(ring, PATH, never, NOW_US)])
    assert (absent["found"], absent["warnings"]) == (False, ["no device that answers holds it"])


def test_all_devices_have_a_role_and_owners_are_first() -> None:
    assert [(each.id, role) for each, role in roles_in(ring_with([0, 1, 2]), PATH)][:3] == [
        (0, "owner"),
        (1, "owner"),
        (2, "owner"),
    ]
    moving = roles_in(ring_with([0, 1, 3], before=[0, 1, 2]), PATH)
    assert {each.id: role for each, role in moving} == {
        0: "owner",
        1: "owner",
        2: "previous owner",
        3: "new owner",
        4: "handoff",
    }


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a", (b"a",)),
        ("a/c", (b"a", b"c")),
        ("a/c/o", (b"a", b"c", b"o")),
        ("a/c/o/p//q", (b"a", b"c", b"o/p//q")),
    ],
)
def test_a_path_has_one_to_three_names(path: str, parts: tuple[bytes, ...]) -> None:
    assert parse(path) == parts


@pytest.mark.parametrize("path", ["", "/c", "a//o", "a/c/", "a" * 257, "a/c/" + "o" * 1025, "a/c/\udc80"])
def test_a_name_that_nothing_can_have_is_refused(path: str) -> None:
    with pytest.raises(NameRefused):
        parse(path)


# --- dispersion ---------------------------------------------------------------------------------------------------


def version(at: int | None, *, whole: bool = True) -> HeldVersion:
    held = None if at is None else Version(entry(at).write_id, entry(at).ballot)
    return HeldVersion(PATH, held, ZERO_BALLOT, whole, False)


@pytest.mark.parametrize(
    ("answers", "copies"),
    [
        pytest.param([version(1), version(1), version(1)], 3, id="all"),
        pytest.param([version(2), version(2), version(1)], 2, id="one is behind"),
        pytest.param([version(1), version(1), version(None)], 2, id="one has nothing"),
        pytest.param([version(1), version(1), None], 2, id="one does not answer"),
        pytest.param([version(1), version(1), version(1, whole=False)], 2, id="one lacks the body"),
        pytest.param([version(0), version(0), version(0)], 0, id="older than what is listed"),
        pytest.param([version(None), None, version(None)], 0, id="nowhere"),
    ],
)
def test_a_copy_is_the_newest_version_whole(answers: list[HeldVersion | None], copies: int) -> None:
    assert copies_of(Named(b"o\0", PATH, entry(1).ballot), answers) == copies


def test_a_sample_is_told_by_copies_with_the_worst_first() -> None:
    named = [Named(b"o\0", b"a\0c\0%d" % at, ZERO_BALLOT) for at in range(4)]
    found = [Found(one, 3, copies) for one, copies in zip(named, (3, 2, 1, 0), strict=True)]
    part = part_document(Sample(named, 9, 7, 1), found, 16)
    assert part == {
        "sampled": 4,
        "listed": 9,
        "fully": 1,
        "partly": 2,
        "not_there": 1,
        "fully_percent": 25.0,
        "without_majority": 2,
        "by_copies": {"3": 1, "2": 1, "1": 1, "0": 1},
        "partitions_looked_into": 7,
        "partitions": 16,
        "partitions_unread": 1,
        "worst": [
            {"path": "a/c/3", "copies": 0, "owners": 3},
            {"path": "a/c/2", "copies": 1, "owners": 3},
            {"path": "a/c/1", "copies": 2, "owners": 3},
        ],
    }
    assert part_document(Sample(), [], 16)["fully_percent"] is None


def test_a_hidden_name_is_shown_with_its_lead() -> None:
    assert shown(b"\0a\0c\0o\0p") == "\\0a/c/o\\0p"
    assert shown(b"a\0c\0o") == "a/c/o"
