"""The watcher: it takes newer epochs of its own line and nothing else, and never loses the ring it has."""

import asyncio
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ring.errors import RingAncestryError, RingError, RingFileError
from ring.file import encode_ring, load_ring, write_ring
from ring.ring import Ring
from ring.watcher import RingWatcher
from tests.unit.ring.rings import SEED, device, fields, ring_of, successor_of

DEADLINE_S = 10.0
FIELDS = fields([device(0), device(1)], [[0, 1], [1, 0]])


def epochs(count: int) -> list[Ring]:
    rings = [ring_of(FIELDS)]
    while len(rings) < count:
        rings.append(ring_of(successor_of(rings[-1], FIELDS)))
    return rings


def put(path: Path, epoch: int) -> Ring:
    """Write this epoch of the one line to the file, and return what the file then holds."""
    described = FIELDS if epoch == 1 else successor_of(epochs(epoch - 1)[-1], FIELDS)
    write_ring(path, described)
    return load_ring(path, SEED)


class Told:
    """What a watcher has told, in order."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, int]] = []
        self.refusals: list[RingError] = []
        self.something = asyncio.Event()

    def change(self, old: Ring, new: Ring) -> None:
        self.changes.append((old.epoch, new.epoch))
        self.something.set()

    def refusal(self, error: RingError) -> None:
        self.refusals.append(error)
        self.something.set()

    async def wait(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.something.wait()
        self.something.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "object-0.ring"


def watcher_of(path: Path, ring: Ring, told: Told, interval_s: float = 3600.0) -> RingWatcher:
    return RingWatcher(path, ring, on_change=told.change, on_refusal=told.refusal, interval_s=interval_s)


def refusal_of(watcher: RingWatcher) -> str:
    return str(watcher.refusal or "")


def take_away(path: Path) -> None:
    path.unlink()


def test_a_file_that_did_not_change_changes_nothing(path: Path) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 1), told)
    held = watcher.ring
    assert not watcher.check()
    assert not watcher.check()
    assert watcher.ring is held
    assert (told.changes, told.refusals, watcher.refusal) == ([], [], None)


def test_a_newer_epoch_is_taken_even_when_some_were_missed(path: Path) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 1), told)
    put(path, 4)
    assert watcher.check()
    assert (watcher.ring.epoch, told.changes) == (4, [(1, 4)])
    assert not watcher.check()


def test_an_older_epoch_is_never_gone_back_to(path: Path) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 3), told)
    put(path, 2)
    assert not watcher.check()
    assert watcher.ring.epoch == 3
    assert isinstance(watcher.refusal, RingAncestryError)
    assert "holds epoch 2 of ring object-0 and epoch 3 is in use already; put the newer file back" in str(
        watcher.refusal
    )


@pytest.mark.parametrize("epoch", [1, 2, 3], ids=["earlier", "equal", "later"])
def test_an_epoch_of_another_line_is_refused(path: Path, epoch: int) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 2), told)
    other = replace(FIELDS, name="container")
    for _ in range(epoch - 1):
        other = successor_of(ring_of(other), other)
    write_ring(path, other)
    assert not watcher.check()
    assert watcher.ring == epochs(2)[1]
    assert isinstance(watcher.refusal, RingAncestryError)
    assert f"holds ring container, epoch {epoch}, which does not descend from object-0, epoch 2;" in str(
        watcher.refusal
    )


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"nonsense", "is not a ring file"),
        (bytes(encode_ring(FIELDS))[:-1], "is truncated"),
        (bytes(encode_ring(FIELDS))[:-1] + b"?", "is corrupted"),
    ],
    ids=["missing", "empty", "foreign", "truncated", "corrupted"],
)
def test_a_bad_file_leaves_the_ring_in_use_and_is_told_once(
    path: Path, content: bytes | None, cause: str
) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 1), told)
    held = watcher.ring
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert not watcher.check()
    assert not watcher.check()
    assert watcher.ring is held
    assert [str(error) for error in told.refusals] == [str(watcher.refusal)]
    assert isinstance(watcher.refusal, RingFileError)
    assert cause in str(watcher.refusal)


def test_a_file_that_becomes_good_again_is_taken(path: Path) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 1), told)
    path.write_bytes(b"nonsense")
    watcher.check()
    put(path, 2)
    assert watcher.check()
    assert (watcher.ring.epoch, watcher.refusal, len(told.refusals)) == (2, None, 1)


def test_a_refusal_ends_when_the_file_in_use_is_put_back(path: Path) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 1), told)
    watcher.check()
    kept = path.rename(path.with_suffix(".kept"))
    watcher.check()
    assert "does not exist" in refusal_of(watcher)
    kept.rename(path)
    assert not watcher.check()
    assert refusal_of(watcher) == ""
    path.unlink()
    watcher.check()
    assert len(told.refusals) == 2, "and what happens again is told again"
    write_ring(path, FIELDS)
    assert not watcher.check(), "the same ring, though another file"
    assert refusal_of(watcher) == ""


def test_refusals_and_changes_are_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watcher = RingWatcher(path, put(path, 1))
    with caplog.at_level(logging.INFO, logger="ring.watcher"):
        put(path, 2)
        watcher.check()
        path.unlink()
        watcher.check()
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert caplog.messages[0] == "ring object-0: epoch 2 replaces epoch 1"
    assert caplog.messages[1].endswith("or fix the path; epoch 2 stays in use")


async def test_a_poke_makes_a_running_watcher_look_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    looks: list[Path] = []

    def load_and_count(path: Path, hash_seed: int) -> Ring:
        looks.append(path)
        return load_ring(path, hash_seed)

    monkeypatch.setattr("ring.watcher.load_ring", load_and_count)
    monkeypatch.setattr("ring.watcher._signature", lambda path: None)
    watcher = watcher_of(path, put(path, 1), told)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watcher.run())
        for epoch in (2, 3):
            put(path, epoch)
            watcher.poke()
            await told.wait()
            assert watcher.ring.epoch == epoch
        running.cancel()
    assert told.changes == [(1, 2), (2, 3)]
    assert len(looks) == 2, "once for each poke, and then it waits again"


async def test_a_running_watcher_looks_at_each_interval(path: Path) -> None:
    told = Told()
    watcher = watcher_of(path, put(path, 1), told, interval_s=0.001)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watcher.run())
        take_away(path)
        await told.wait()
        assert "does not exist" in str(told.refusals[0])
        put(path, 2)
        await told.wait()
        running.cancel()
    assert (watcher.ring.epoch, watcher.refusal) == (2, None)


async def test_what_a_callback_raises_reaches_the_owner_of_the_watcher(path: Path) -> None:
    def fail(old: Ring, new: Ring) -> None:
        raise LookupError(f"epoch {new.epoch}")

    watcher = RingWatcher(path, put(path, 1), on_change=fail, interval_s=3600.0)
    put(path, 2)
    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            group.create_task(watcher.run())
    assert failed.group_contains(LookupError, match="epoch 2")


def test_looking_up_does_not_import_numpy() -> None:
    program = "import ring.ring, ring.file, ring.watcher, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
