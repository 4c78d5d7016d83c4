"""swiftlike-device: what it prints, what it exits with, and that looking writes nothing."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from storage_node import identity
from storage_node.blocks import SECTOR_BYTES
from storage_node.checking import ClosedDevice, check
from storage_node.compaction import compact, worth_compacting
from storage_node.device import Device, Settings
from storage_node.errors import BodyDamaged, DeviceRefused, StorageError
from storage_node.keys import HEAD_KEY_BYTES, Due, Key, after, register_key, volume_key
from storage_node.leftovers import remove_leftovers
from storage_node.locations import InVolume
from swiftlike.entries import pack_metadata
from swiftlike.limits import LEFTOVER_AGE_US, OLD_INDEX_AGE_US
from swiftlike.registers import encode_register
from tests.engine.conftest import SETTINGS, opened, vote_everywhere
from tests.engine.samples import (
    CONTAINER,
    LARGE,
    LAYOUT,
    NOW_US,
    OBJECTS,
    container,
    delete,
    object_key,
    post,
    put,
    row,
)
from tests.engine.test_device import flip
from tests.engine.test_store_contract import body_of, offer, rows
from tools.device import main

PAGE_BYTES = 4_096
"""Of LMDB's file."""


def run(*arguments: str | Path) -> Result:
    """Run the tool."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


async def fill_device(root: Path) -> None:
    """Leave a device with some of everything."""
    async with opened(root) as device:
        await vote_everywhere(device)
        await offer(device, CONTAINER, container())
        await offer(device, object_key("small"), put(1, b"precious bytes"), b"precious bytes")
        await offer(
            device, object_key("large"), put(1, bytes(LARGE - 5) + b"large"), bytes(LARGE - 5) + b"large"
        )
        await offer(device, object_key("due"), put(1, b"", delete_at=NOW_US + 9))
        await offer(device, object_key("gone"), delete(2))
        await offer(device, object_key("awaited"), put(1, b"elsewhere"))
        await rows(device, (b"small", row(1, 14)), (b"gone", row(2, tombstone=True)))


def tree(root: Path) -> dict[Path, str]:
    """Return every file below a directory with its digest."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


async def test_a_sound_device_passes_its_check_and_is_not_touched_by_it(root: Path) -> None:
    await fill_device(root)
    before = tree(root)
    result = run("check", root, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["damage"], report["leftovers"], report["awaited"]) == ([], [], 1)
    assert (report["registers"], report["rows"], report["bodies"]) == (6, 2, 3)
    assert tree(root) == before


@pytest.mark.parametrize("path", ["", "/", "acc/", "acc//small", "acc/con/"])
async def test_what_is_no_path_is_told_with_what_is_one(root: Path, path: str) -> None:
    await fill_device(root)
    result = run("show", root, path)
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"{path!r} names nothing: give account, account/container or account/container/object\n"
    )


async def test_a_path_that_is_no_text_is_looked_for_as_it_is(root: Path) -> None:
    async with opened(root) as device:
        await offer(device, object_key(b"\xff"), put(1, b"x"), b"x")
    assert "state: live" in run("show", root, os.fsdecode(b"acc/con/\xff")).stdout
    nothing = run("show", root, os.fsdecode(b"acc/con/\xfe"))
    assert (nothing.exit_code, "holds nothing at" in nothing.stderr) == (1, True)


async def test_what_a_crash_leaves_behind_is_listed_and_is_no_damage(root: Path) -> None:
    await fill_device(root)
    with (root / "volumes" / "00000001.vol").open("ab") as file:
        file.write(b"torn")
    (root / "staging" / "half").write_bytes(b"x")
    (root / "files" / "ab" / ("ab" * 16)).write_bytes(b"x")
    result = run("check", root)
    assert result.exit_code == 0
    assert "4 bytes behind the last live body" in result.stdout
    assert "half: staged, never finished" in result.stdout
    assert "nothing points at it" in result.stdout


@pytest.mark.parametrize("needle", [b"precious bytes", b"large"])
async def test_a_damaged_body_fails_the_check(root: Path, needle: bytes) -> None:
    await fill_device(root)
    path = root / "volumes" / "00000001.vol" if needle != b"large" else next((root / "files").glob("??/*"))
    if needle == b"large":
        raw = bytearray(path.read_bytes())
        raw[LARGE - 3] ^= 1
        path.write_bytes(raw)
    else:
        flip(path, needle)
    result = run("check", root)
    assert result.exit_code == 1
    assert "checksum mismatch" in result.stdout


async def test_a_missing_file_fails_the_check(root: Path) -> None:
    await fill_device(root)
    next((root / "files").glob("??/*")).unlink()
    result = run("check", root)
    assert result.exit_code == 1
    assert "its body is not there" in result.stdout


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"o", "its digest is not that of its entries"),
        (b"p\0o\0", "digests of partitions of table b'o\\x00' are not those of their entries"),
        (b"p\0r\0", "digests of partitions of table b'r\\x00' are not those of their entries"),
    ],
    ids=["bucket", "partition of registers", "partition of rows"],
)
async def test_a_digest_that_lies_fails_the_check(root: Path, table: bytes, told: str) -> None:
    await fill_device(root)
    async with opened(root) as device:
        view = device._index.begin()
        scanned = view.scan(table, after(table))
        key = next(key for key, _ in scanned if len(key) == HEAD_KEY_BYTES or table[:1] == b"p")
        view.put(key, bytes(24))
        view.commit()
    result = run("check", root)
    assert result.exit_code == 1
    assert told in result.stdout


@pytest.mark.parametrize("table", [b"o\0", b"r\0", b"s\0", b"f\0", b"f\1", b"f\2", b"j"])
async def test_a_damaged_value_in_the_index_fails_the_check(root: Path, table: bytes) -> None:
    await fill_device(root)
    async with opened(root) as device:
        await device.take_epoch(OBJECTS, 3, ())
        await device.remember("auditor", b"its place")
        spoil_value(device, table)
    result = run("check", root, "--json")
    assert result.exit_code == 1
    assert ["checksum mismatch" in each for each in json.loads(result.stdout)["damage"]] == [True]


async def test_every_damaged_value_is_told(root: Path) -> None:
    await fill_device(root)
    async with opened(root) as device:
        await device.remember("auditor", b"its place")
        for table in (b"j", b"f\0", b"o\0"):
            spoil_value(device, table)
    damage = json.loads(run("check", root, "--json").stdout)["damage"]
    assert ["checksum mismatch" in each for each in damage] == [True] * 3
    assert ["was not looked at" in each for each in damage] == [False, False, True]


async def test_a_page_of_the_index_that_lmdb_dies_of_is_damage_and_not_a_death_of_the_tool(
    root: Path,
) -> None:
    await fill_device(root)
    data = root / "index" / "data.mdb"
    raw = data.read_bytes()
    told = (
        "the index is damaged, or its disk does not read it (the process that reads it was killed by SIGABRT)"
    )
    # Of the pages that hold the last key one is its present leaf; others are a branch, and copies that stand no more.
    holding = [at for at in range(0, len(raw), PAGE_BYTES) if volume_key(1) in raw[at : at + PAGE_BYTES]]
    for at in reversed(holding):
        data.write_bytes(raw[:at] + bytes(PAGE_BYTES) + raw[at + PAGE_BYTES :])
        checked = run("check", root, "--json")
        if told in checked.stdout:
            break
    assert checked.exit_code == 1
    (damage,) = json.loads(checked.stdout)["damage"]
    assert damage.startswith(told)
    assert f"damage: {told}" in run("check", root).stdout
    for other in (run("stats", root), run("show", root, "acc/con/small")):
        assert other.exit_code == 2
        assert "the index is damaged" in other.stderr


DROP_RIGHTS = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root without them is bound by modes, once it has executed
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_CAPBSET_DROP): {os.strerror(ctypes.get_errno())}")
os.execv(sys.executable, [sys.executable, "-m", "tools.device", *sys.argv[1:]])
"""


def run_as_anybody(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the tool as a user who is bound by the modes of files."""
    return subprocess.run(
        [sys.executable, "-c", DROP_RIGHTS, *map(str, arguments)], capture_output=True, text=True, check=False
    )


async def test_what_this_user_may_not_read_is_not_called_lost(root: Path) -> None:
    await fill_device(root)
    volume, _, file = await places(root)
    cluster = cluster_file(root.parent)
    for path in (root / "volumes", volume, file, file.parent, root / "staging", root / "index" / "data.mdb"):
        mode = path.stat().st_mode
        path.chmod(0)
        checked = run_as_anybody("check", root)
        rebuilding = run_as_anybody("rebuild-index", root, "--cluster-file", cluster)
        path.chmod(mode)
        assert (checked.returncode, checked.stdout) == (2, "")
        assert "give this user access" in checked.stderr
        assert "rebuild-index" not in checked.stderr
        if root / "index" not in path.parents and path.name != "staging":
            assert rebuilding.returncode == 2
            assert "give this user access" in rebuilding.stderr
            assert run("check", root).exit_code == 0, "the old index is what it was"


async def test_a_device_whose_volumes_may_not_be_listed_is_not_served_as_one_that_lost_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_device(root)
    scandir = os.scandir

    def refusing(path: Path | str = ".") -> Any:
        if Path(path) == root / "volumes":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError):
        Device(root, LAYOUT, lambda: NOW_US, settings=SETTINGS)


def spoil_value(device: Device, table: bytes) -> None:
    """Flip a bit in a value of a table, but not in that of a bucket's head."""
    with device._index._env.begin(write=True) as change:
        for key, raw in change.cursor():
            if key.startswith(table) and (table[:1] in b"jf" or len(key) > HEAD_KEY_BYTES):
                change.put(key, bytes([raw[0] ^ 4]) + raw[1:])
                return
    raise AssertionError(f"nothing stands in table {table!r}")


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (b"g", ["its rows stand in no range"]),
        (b"s", ["2 rows stand in no listing", "1 ranges of rows stand in no listing"]),
    ],
    ids=["ranges", "tally"],
)
async def test_rows_that_nothing_counts_fail_the_check(root: Path, gone: bytes, told: list[str]) -> None:
    await fill_device(root)
    async with opened(root) as device:
        change = device._index.begin()
        for key, _ in list(change.scan(gone, after(gone))):
            change.delete(key)
        change.commit()
    result = run("check", root, "--json")
    assert result.exit_code == 1
    damage = json.loads(result.stdout)["damage"]
    assert [sentence for sentence in told if any(sentence in each for each in damage)] == told


async def test_a_volume_that_lost_its_last_byte_has_lost_a_body_and_has_no_leftover(root: Path) -> None:
    await fill_device(root)
    volume, _, _ = await places(root)
    os.truncate(volume, volume.stat().st_size - 1)
    result = run("check", root, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (len(report["damage"]), report["leftovers"]) == (1, [])


async def test_what_cannot_be_checked_exits_with_2_and_the_fix(root: Path, tmp_path: Path) -> None:
    lock = identity.lock_device(root)
    busy = run("check", root)
    identity.unlock_device(lock)
    assert busy.exit_code == 2
    assert "stop that one first" in busy.stderr
    foreign = run("check", tmp_path)
    assert foreign.exit_code == 2
    assert "mount its disk" in foreign.stderr


def test_init_formats_an_empty_directory_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.mkdir()
    made = run("init", path, "--json")
    assert made.exit_code == 0
    assert json.loads(made.stdout)["uuid"] == str(identity.read_device_file(path).uuid)
    again = run("init", path)
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


async def test_show_tells_one_entry_in_words(root: Path) -> None:
    await fill_device(root)
    live = run("show", root, "acc/con/small")
    assert live.exit_code == 0
    assert "state: live" in live.stdout
    assert "size: 14" in live.stdout
    assert "body: missing" in run("show", root, "acc/con/awaited").stdout
    assert "table: containers" in run("show", root, "acc/con").stdout
    assert "incarnation: 2023-11-14T22:13:15.000000Z by writer" in run("show", root, "acc/con").stdout
    nothing = run("show", root, "acc/con/nothing")
    assert nothing.exit_code == 1
    assert "holds nothing at 'acc/con/nothing'" in nothing.stderr


async def test_what_show_tells_is_in_words(root: Path) -> None:
    await fill_device(root)
    async with opened(root) as device:
        held = device.read(object_key("small"))
        assert held is not None
        assert held.register.entry is not None
        described = post(3, held.register.entry, metadata=pack_metadata({}), delete_at=NOW_US + 60_000_000)
        assert (await offer(device, object_key("small"), described)).counts
    _, place, file = await places(root)
    (small,) = json.loads(run("show", root, "acc/con/small", "--json").stdout)["found"]
    body_at = place.offset + place.head_bytes
    assert (
        small["body"] == f"in volumes/00000001.vol, from byte {body_at}; its record from byte {place.offset}"
    )
    assert small["ballot"] == "2023-11-14T22:13:20.000003Z by writer 0000000000000001"
    assert small["modified"] == "2023-11-14T22:13:20.000003Z"
    assert small["delete at"] == "2023-11-14T22:14:20.000000Z"
    assert small["base"].endswith("ballot 2023-11-14T22:13:20.000001Z by writer 0000000000000001")
    assert f"body: in files/{file.parent.name}/{file.name}" in run("show", root, "acc/con/large").stdout
    gone = run("show", root, "acc/con/gone").stdout
    assert "body: none needed" in gone
    assert "delete at" not in gone
    assert "base" not in gone


async def test_stats_counts_what_is_there(root: Path) -> None:
    await fill_device(root)
    figures = json.loads(run("stats", root, "--json").stdout)
    assert (figures["volumes"], figures["large_files"]) == (1, 1)
    assert 0 < figures["volume_bytes_live"] < figures["volume_bytes"]


async def rebuilt(root: Path, *options: str | Path, as_json: bool = True) -> Result:
    """Rebuild the index of a device."""
    form = ("--json",) if as_json else ()
    return run("rebuild-index", root, "--cluster-file", cluster_file(root.parent), *form, *options)


def cluster_file(directory: Path) -> Path:
    """Write the file of the cluster."""
    secret, cluster = directory / "secret", directory / "cluster.toml"
    secret.write_text("s" * 32)
    secret.chmod(0o600)
    cluster.write_text(
        f'hash_seed = "{LAYOUT.seed:016x}"\nsecret_file = "secret"\n'
        '[[policies]]\nindex = 0\nname = "standard"\nreplicas = 3\ndefault = true\n'
    )
    cluster.chmod(0o600)
    return cluster


async def test_a_rebuilt_device_has_its_bodies_a_new_uuid_and_no_vote(root: Path) -> None:
    await fill_device(root)
    async with opened(root) as device:
        await offer(device, object_key("small"), put(5, b"newer bytes"), b"newer bytes")
    before = identity.read_device_file(root)
    for path in (root / "index").iterdir():
        path.unlink()
    result = await rebuilt(root)
    assert result.exit_code == 0
    after = identity.read_device_file(root)
    assert after.uuid != before.uuid
    assert (after.generation, after.stamp) == (2, before.stamp)
    assert run("check", root).exit_code == 0
    async with opened(root) as device:
        assert await body_of(device, object_key("small")) == b"newer bytes"
        assert await body_of(device, object_key("large")) == bytes(LARGE - 5) + b"large"
        assert await body_of(device, object_key("due")) == b""
        assert not device.standing(OBJECTS, 0).votes
        held = device.read(object_key("small"))
        assert held is not None
        assert held.register.since_us is None, "it cannot tell what came before"
        assert len(device.due(Due.DEBT, NOW_US + 10, 10)) == 3
        assert (await offer(device, object_key("new"), put(9, b"x"), b"x")).counts
    assert json.loads((await rebuilt(root)).stdout)["generation"] == 3


async def test_a_rebuild_keeps_the_entry_of_a_damaged_body_and_says_so(root: Path) -> None:
    await fill_device(root)
    flip(root / "volumes" / "00000001.vol", b"precious bytes")
    result = await rebuilt(root)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["damaged"] == 1
    async with opened(root) as device:
        assert device.missing(None, 5) == [object_key("small")]


async def test_a_read_that_was_refused_leaves_the_lock_free(root: Path) -> None:
    (root / "index" / "data.mdb").rename(root / "index" / "elsewhere")
    assert run("check", root).exit_code == 2
    with pytest.raises(StorageError, match="rebuild-index"):
        async with opened(root):
            pass


@pytest.fixture
def apart(tmp_path: Path) -> tuple[Path, Path]:
    """A device that was formatted with its index elsewhere, and the place of that."""
    root, index = tmp_path / "slow", tmp_path / "fast" / "index"
    root.mkdir()
    index.parent.mkdir()
    assert run("init", root, "--index", index).exit_code == 0
    assert identity.read_device_file(root).index == index
    assert not (root / "index").exists()
    return root, index


def settings_of(index: Path | None) -> Settings:
    """Return what a host's file with this index_path makes of it."""
    return Settings(reserve_bytes=0, index_map_bytes=SETTINGS.index_map_bytes, index_directory=index)


async def test_the_tools_find_an_index_that_is_on_another_disk(apart: tuple[Path, Path]) -> None:
    root, index = apart
    async with opened(root, settings_of(index)) as device:
        await vote_everywhere(device)
        await offer(device, object_key("small"), put(1, b"precious bytes"), b"precious bytes")
    assert run("check", root).exit_code == 0
    assert "state: live" in run("show", root, "acc/con/small").stdout
    assert json.loads(run("stats", root, "--json").stdout)["index"] == str(index)
    assert json.loads((await rebuilt(root)).stdout)["entries"] == 1
    assert identity.read_device_file(root).index == index
    assert (index / "data.mdb.1").exists(), "the old one is kept beside, on its own disk"
    assert not (root / "index").exists()
    async with opened(root, settings_of(index)) as device:
        assert await body_of(device, object_key("small")) == b"precious bytes"
    mounted_elsewhere = index.rename(index.with_name("other"))
    missing = run("check", root)
    assert missing.exit_code == 2
    assert "mount its disk, or say with --index where it is" in missing.stderr
    assert "rebuild-index" not in missing.stderr
    assert run("check", root, "--index", mounted_elsewhere).exit_code == 0
    assert run("show", root, "acc/con/small", "--index", mounted_elsewhere).exit_code == 0
    assert run("stats", root, "--index", mounted_elsewhere).exit_code == 0


async def test_an_index_that_may_only_not_be_mounted_is_not_given_up_unasked(
    apart: tuple[Path, Path],
) -> None:
    root, index = apart
    away = index.rename(index.with_name("unmounted"))
    refused = await rebuilt(root)
    assert refused.exit_code == 2
    assert "mount its disk, for it may be sound" in refused.stderr
    taken = await rebuilt(root, "--index", away)
    assert taken.exit_code == 2
    assert "already holds an index" in taken.stderr
    assert (await rebuilt(root, "--index", index)).exit_code == 0
    new = index.with_name("new-disk")
    assert (await rebuilt(root, "--index", new)).exit_code == 0
    assert identity.read_device_file(root).index == new
    async with opened(root, settings_of(new)):
        pass
    assert (await rebuilt(root, "--index", root / "index")).exit_code == 0
    assert identity.read_device_file(root).index is None
    async with opened(root):
        pass


async def test_a_rebuild_does_not_set_aside_what_seems_to_be_another_devices_index(
    apart: tuple[Path, Path], tmp_path: Path
) -> None:
    root, index = apart
    other = tmp_path / "other"
    other.mkdir()
    run("init", other)
    index.rename(index.with_name("away"))
    (other / "index").rename(index)
    refused = await rebuilt(root)
    assert refused.exit_code == 2
    assert "is not this device's: mount the right disk there" in refused.stderr
    assert not list(index.glob("data.mdb.*"))
    with pytest.raises(DeviceRefused, match="mount the right disk there, or correct index_path"):
        Device(root, LAYOUT, lambda: NOW_US, settings=settings_of(index))


async def test_a_device_is_told_where_its_index_is_and_the_two_must_agree(apart: tuple[Path, Path]) -> None:
    root, index = apart

    def refusal(told: Path | None) -> str:
        with pytest.raises(DeviceRefused) as refused:
            Device(root, LAYOUT, lambda: NOW_US, settings=settings_of(told))
        return str(refused.value)

    assert f'its index is kept in {index}: set index_path = "{index}"' in refusal(None)
    assert f"its index is in {index} and index_path says" in refusal(index.with_name("copy"))
    shutil.copytree(index, root / "index")
    assert "set index_path" in refusal(None), "a copy that was left behind is not the index"
    shutil.rmtree(root / "index")
    moved = index.rename(index.with_name("moved"))
    assert "mount its disk, or correct index_path; only if it is lost" in refusal(index)
    async with opened(root, settings_of(moved)):
        assert identity.read_device_file(root).index == moved
    moved.rename(root / "index")
    async with opened(root, settings_of(root / "index")):
        assert identity.read_device_file(root).index is None
    async with opened(root):
        pass


def test_a_device_is_not_formatted_where_its_index_cannot_be(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert run("init", one).exit_code == 0
    taken = run("init", two, "--index", one / "index")
    assert (taken.exit_code, "already holds an index" in taken.stderr) == (2, True)
    unmounted = run("init", two, "--index", tmp_path / "nowhere" / "index")
    assert (unmounted.exit_code, "mount the disk of the index" in unmounted.stderr) == (2, True)
    assert not list(two.iterdir()), "it can be formatted once the place is right"


def spoil(path: Path, offset: int, size: int = 4) -> None:
    """Flip bits on disk."""
    with path.open("r+b") as file:
        file.seek(offset)
        raw = file.read(size)
        file.seek(offset)
        file.write(bytes(each ^ 0x5A for each in raw))


async def places(root: Path) -> tuple[Path, InVolume, Path]:
    """Return the volume and the place of the small body, and the file of the large one."""
    async with opened(root) as device:
        held = device.read(object_key("small"))
        assert held is not None
        assert isinstance(held.location, InVolume)
        return (
            device.volumes.path(held.location.volume),
            held.location,
            device.files.path(device.files.finished()[0]),
        )


async def test_a_record_whose_head_is_damaged_fails_the_check_and_a_rebuild_says_what_it_passed_over(
    root: Path,
) -> None:
    await fill_device(root)
    volume, place, _ = await places(root)
    spoil(volume, place.offset + 36)
    checked = run("check", root)
    assert checked.exit_code == 1
    assert "acc\\x00con\\x00small': " in checked.stdout
    assert f"record at {place.offset}: its head is damaged" in checked.stdout
    size = place.head_bytes + 14
    told = await rebuilt(root, as_json=False)
    assert told.exit_code == 1
    assert (
        f"{volume}: bytes {place.offset} to {place.offset + size} hold no sound record\n"
        f"1 spans of {size} bytes hold no sound record" in told.stdout
    )
    figures = json.loads((await rebuilt(root)).stdout)
    assert figures["passed_over"] == [
        {"volume": str(volume), "start": place.offset, "stop": place.offset + size}
    ]
    assert (figures["entries"], figures["damaged"], figures["unreadable_files"]) == (2, 0, [])


async def test_a_large_file_whose_trailer_is_damaged_fails_the_check_and_a_rebuild_names_it(
    root: Path,
) -> None:
    await fill_device(root)
    _, _, file = await places(root)
    spoil(file, file.stat().st_size - 30)
    checked = run("check", root)
    assert checked.exit_code == 1
    assert f"{file}: " in checked.stdout
    result = await rebuilt(root)
    assert result.exit_code == 1
    (unreadable,) = json.loads(result.stdout)["unreadable_files"]
    assert unreadable.startswith(f"{file}: ")
    assert f"not used: {file}: " in (await rebuilt(root, as_json=False)).stdout


async def test_no_bit_beside_a_body_can_turn_without_failing_the_check(root: Path) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        for name, body in (("small", b"precious bytes"), ("large", bytes(LARGE))):
            await offer(device, object_key(name), put(1, body), body)
    volume, place, file = await places(root)
    beside = [(volume, place.offset + at) for at in range(place.head_bytes)]
    beside += [(file, at) for at in range(LARGE, file.stat().st_size)]
    unseen = []
    for path, at in beside:
        spoil(path, at, 1)
        closed = ClosedDevice(root, map_bytes=SETTINGS.index_map_bytes)
        if not check(closed).damage:
            unseen.append((path.name, at))
        closed.close()
        spoil(path, at, 1)
    assert unseen == []
    assert run("check", root).exit_code == 0, "each was put back"


async def test_a_sound_record_that_is_another_bodys_fails_the_check(root: Path) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        for name in ("one", "two"):
            await offer(device, object_key(name), put(1, b"x"), b"x")
        one, two = device.read(object_key("one")), device.read(object_key("two"))
        assert one is not None
        assert two is not None
        change = device._index.begin()
        raw_key = register_key(object_key("one"), LAYOUT.hashed(object_key("one").path))
        change.put(raw_key, two.location.encode() + encode_register(one.register))
        change.commit()
    result = run("check", root, "--json")
    assert result.exit_code == 1
    assert any("'acc\\x00con\\x00one'" in each for each in json.loads(result.stdout)["damage"])


async def test_what_was_described_anew_since_its_body_was_stored_is_no_damage(root: Path) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        for name, body in (("small", b"small"), ("large", bytes(LARGE))):
            entry = put(1, body)
            await offer(device, object_key(name), entry, body)
            assert (await offer(device, object_key(name), post(2, entry, metadata=pack_metadata({})))).counts
    assert run("check", root).exit_code == 0


async def test_what_a_crash_tore_is_a_leftover_to_the_check_and_told_by_a_rebuild(root: Path) -> None:
    await fill_device(root)
    volume, _, _ = await places(root)
    with volume.open("ab") as file:
        file.write(b"slvr and then nothing")
    async with opened(root) as device:
        await offer(device, object_key("behind"), put(7, b"x"), b"x")
    assert run("check", root).exit_code == 0
    result = await rebuilt(root)
    assert result.exit_code == 1, "what was torn and what was lost look the same"
    figures = json.loads(result.stdout)
    assert [span["stop"] - span["start"] for span in figures["passed_over"]] == [21]
    assert figures["entries"] == 4


async def test_a_rebuild_passes_over_sectors_that_the_disk_does_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(root) as device:
        await vote_everywhere(device)
        for number in range(40):
            body = bytes([number]) * 1_000
            await offer(device, object_key(f"n{number:02}"), put(1, body), body)
    (volume,) = (root / "volumes").glob("*.vol")
    bad = range(2 * SECTOR_BYTES, 3 * SECTOR_BYTES)
    preadv = os.preadv

    def refusing(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        wanted = sum(map(len, buffers))
        if (
            offset < bad.stop
            and offset + wanted > bad.start
            and os.path.samestat(os.fstat(fd), volume.stat())
        ):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(fd, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", refusing)
    result = await rebuilt(root)
    assert result.exit_code == 1
    figures = json.loads(result.stdout)
    (span,) = figures["passed_over"]
    assert bad.start <= span["start"] < bad.stop
    assert span["stop"] - span["start"] < 2 * SECTOR_BYTES
    monkeypatch.undo()
    async with opened(root) as device:
        there = [name for name in range(40) if device.read(object_key(f"n{name:02}")) is not None]
        assert len(there) == figures["entries"] >= 35
        for number in there[:3] + there[-3:]:
            if (held := device.read(object_key(f"n{number:02}"))) is not None and held.location.held:
                assert await body_of(device, object_key(f"n{number:02}")) == bytes([number]) * 1_000


@pytest.mark.parametrize("at", [0, 8, 20, None], ids=["magic", "version", "stamp", "all of it"])
async def test_a_volume_whose_header_is_damaged_is_named_and_costs_no_body(
    root: Path, at: int | None
) -> None:
    await fill_device(root)
    volume, _, _ = await places(root)
    spoil(volume, 0 if at is None else at, 32 if at is None else 1)
    checked = run("check", root)
    assert (checked.exit_code, f"{volume}: its header is damaged" in checked.stdout) == (1, True)
    async with opened(root) as device:
        assert await body_of(device, object_key("small")) == b"precious bytes"
        await offer(device, object_key("next"), put(9, b"x"), b"x")
        assert volume.stat().st_size == device.volumes.size(device.volumes.damaged()[0])
        for damaged in worth_compacting(device):
            await compact(device, damaged)
        assert device.volumes.damaged() == ()
        assert await body_of(device, object_key("small")) == b"precious bytes"
    assert not volume.exists()
    assert run("check", root).exit_code == 0


async def test_a_rebuild_takes_what_lies_behind_a_damaged_header(root: Path) -> None:
    await fill_device(root)
    volume, _, _ = await places(root)
    spoil(volume, 0, 32)
    result = await rebuilt(root)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["passed_over"] == [{"volume": str(volume), "start": 0, "stop": 32}]
    async with opened(root) as device:
        assert await body_of(device, object_key("small")) == b"precious bytes"


@pytest.mark.parametrize("is_blank", [False, True], ids=["garbage", "no header"])
async def test_a_volume_in_which_nothing_is_sound_is_damage_and_is_kept(root: Path, is_blank: bool) -> None:
    await fill_device(root)
    volume, _, _ = await places(root)
    raw = bytes(each ^ 0x5A for each in volume.read_bytes())
    raw = bytes(32) + raw[32:] if is_blank else raw
    volume.write_bytes(raw)
    checked = run("check", root)
    assert (checked.exit_code, f"{volume}: nothing in it is sound" in checked.stdout) == (1, True)
    async with opened(root) as device:
        wanted: list[Key] = []
        device.on_missing = wanted.append
        with pytest.raises(BodyDamaged):
            await body_of(device, object_key("small"))
        assert wanted == [object_key("small")]
    figures = json.loads((await rebuilt(root)).stdout)
    assert figures["passed_over"] == [{"volume": str(volume), "start": 0, "stop": len(raw)}]
    async with opened(root) as device:
        await offer(device, object_key("next"), put(9, b"x"), b"x")
        await remove_leftovers(device, time.time_ns() // 1_000 + LEFTOVER_AGE_US + OLD_INDEX_AGE_US)
    assert volume.read_bytes() == raw


@pytest.mark.parametrize("name", ["volumes", "staging", "files", "files/3c", "quarantine"])
async def test_a_device_that_lost_a_directory_is_refused_with_the_fix(root: Path, name: str) -> None:
    await fill_device(root)
    away = (root / name).rename(root / "away")
    for result in (run("check", root), run("stats", root), await rebuilt(root)):
        assert result.exit_code == 2
        assert f"{root / name} is missing: look at the disk" in result.stderr
    with pytest.raises(DeviceRefused, match="is missing: look at the disk"):
        Device(root, LAYOUT, lambda: NOW_US, settings=SETTINGS)
    away.rename(root / name)
    assert run("check", root).exit_code == 0


async def test_a_directory_that_was_lost_and_made_again_costs_the_bodies_in_it_and_no_entry(
    root: Path,
) -> None:
    await fill_device(root)
    (root / "volumes").rename(root / "away")
    (root / "volumes").mkdir()
    assert "its body is not there" in run("check", root).stdout
    async with opened(root) as device:
        with pytest.raises(BodyDamaged):
            await body_of(device, object_key("small"))
        held = device.read(object_key("small"))
        assert held is not None
        assert held.register.entry is not None
        assert await device.fill(object_key("small"), held.register.entry.body_id, b"precious bytes")
        assert await body_of(device, object_key("small")) == b"precious bytes"
