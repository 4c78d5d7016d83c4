"""The rings of a directory: each under its own name, all of them followed."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ring.errors import RingFileError
from ring.file import write_ring
from ring.files import RingFiles
from ring.ring import Ring
from tests.unit.ring.rings import SEED, device, fields, ring_of, successor_of

FIRST = fields([device(0), device(1)], [[0, 1], [1, 0]], name="account")
NAMES = ("account", "container")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in NAMES:
        write_ring(tmp_path / f"{name}.ring", replace(FIRST, name=name))
    return tmp_path


def test_every_ring_of_a_directory_is_there_under_its_name(directory: Path) -> None:
    files = RingFiles.load(directory, NAMES, SEED)
    assert {name: files.ring(name).name for name in files.names} == {name: name for name in NAMES}
    with pytest.raises(KeyError):
        files.ring("object-0")


def test_a_ring_that_is_missing_is_refused_by_its_file(directory: Path) -> None:
    with pytest.raises(RingFileError, match=r"object-0\.ring does not exist"):
        RingFiles.load(directory, [*NAMES, "object-0"], SEED)


def test_a_ring_under_the_name_of_another_is_refused(directory: Path) -> None:
    write_ring(directory / "container.ring", FIRST)
    with pytest.raises(RingFileError, match="holds ring account: put the ring container there"):
        RingFiles.load(directory, NAMES, SEED)


async def test_a_newer_file_is_taken_when_somebody_says_that_there_is_one(directory: Path) -> None:
    changes: list[tuple[str, int, int]] = []
    changed = asyncio.Event()

    def note(old: Ring, new: Ring) -> None:
        changes.append((new.name, old.epoch, new.epoch))
        changed.set()

    files = RingFiles.load(directory, NAMES, SEED, note)
    following = asyncio.create_task(files.run())
    newer = replace(successor_of(ring_of(replace(FIRST, name="container")), FIRST), name="container")
    write_ring(directory / "container.ring", newer)
    files.look("container")
    async with asyncio.timeout(10):
        await changed.wait()
    following.cancel()
    await asyncio.wait([following])
    assert changes == [("container", 1, 2)]
    assert (files.ring("container").epoch, files.ring("account").epoch) == (2, 1)


def test_a_ring_that_gives_other_replicas_than_is_said_is_refused_and_a_fraction_agrees_with_both(
    directory: Path,
) -> None:
    with pytest.raises(
        RingFileError, match=r"account\.ring: ring account, epoch 1, gives 2 replicas and .* says 3: correct"
    ):
        RingFiles.load(directory, NAMES, SEED, replicas={"account": 3})
    RingFiles.load(directory, NAMES, SEED, replicas={"account": 2, "object-9": 5})
    write_ring(directory / "account.ring", fields([device(0), device(1)], [[0, 1], [1]], name="account"))
    for said in (1, 2):
        assert (
            RingFiles.load(directory, NAMES, SEED, replicas={"account": said}).ring("account").replicas == 1.5
        )
    with pytest.raises(RingFileError, match=r"gives 1\.5 replicas"):
        RingFiles.load(directory, NAMES, SEED, replicas={"account": 3})


def test_a_newer_ring_that_gives_other_replicas_is_taken_and_told_of(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[int] = []
    files = RingFiles.load(
        directory, NAMES, SEED, lambda old, new: changes.append(new.epoch), replicas={"container": 2}
    )
    newer = successor_of(ring_of(replace(FIRST, name="container")), FIRST)
    write_ring(
        directory / "container.ring", replace(newer, name="container", replicas=1.0, rows=newer.rows[:1])
    )
    assert files.watcher("container").check()
    assert (changes, files.ring("container").replicas) == ([2], 1.0)
    assert "gives 1 replicas and cluster.toml says 2" in caplog.text
    assert "refused at the next start" in caplog.text
