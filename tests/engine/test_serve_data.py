"""The data directory of `swiftlike serve`: what is made, what is found again, and each sentence when it cannot be."""

import errno
import os
import tempfile
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import copy, copytree, rmtree
from uuid import UUID

import pytest

from ring.file import load_ring
from storage_node.formatting import format_device
from swiftlike.config import load_cluster, load_host
from swiftlike.user_config import load_users
from tools.ring_builder.cli import main as ring_builder
from tools.serve.layout import Layout, ServeRefused
from tools.serve.making import first_user
from tools.serve.opening import Asked, Opened, host_file, opened, wait_for_predecessor

USERS = """
[[users]]
account = "acme"
user = "alice"
key = "wonderland"
roles = ["admin"]
s3_access_key = "AKALICE"
s3_secret_key = "looking-glass"

[[users]]
account = "acme"
user = "bob"
key = "builder"
"""


def asked(data: Path, **options: object) -> Asked:
    defaults: dict[str, object] = {
        "devices": None,
        "replicas": None,
        "users_file": None,
        "bind_host": "127.0.0.1",
        "port": 8080,
        "workers": 2,
        "log_level": "warning",
    }
    return Asked(data, **{**defaults, **options})  # type: ignore[arg-type]


def look(data: Path, **options: object) -> Opened:
    """Open a directory and close it again."""
    with opened(asked(data, **options)) as cluster:
        return cluster


def refusal(data: Path, **options: object) -> str:
    with pytest.raises(ServeRefused) as refused:
        look(data, **options)
    return str(refused.value)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A cluster of one device, which is quick to make."""
    look(tmp_path / "data", devices=1)
    return tmp_path / "data"


def test_a_new_cluster_has_three_devices_that_its_rings_know_by_their_uuids(tmp_path: Path) -> None:
    made = look(tmp_path / "data")
    assert made.was_made
    assert [device.name for device in made.served.devices] == ["d1", "d2", "d3"]
    uuids = {UUID(device.uuid) for device in made.served.devices}
    for name in ("account", "container", "object-0"):
        ring = load_ring(tmp_path / "data" / "rings" / f"{name}.ring", made.cluster.hash_seed)
        assert {device.uuid for device in ring.devices if device is not None} == uuids
        assert ring.partition_count == 1024
        assert all(ring.is_founding(number) for number in range(1024))  # type: ignore[arg-type]
        assert len(ring.primaries(5)) == 3  # type: ignore[arg-type]
    assert [policy.replicas for policy in made.cluster.policies] == [3]


def test_no_device_gets_the_port_that_clients_are_to_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.serve.making.PORTS", range(20_000, 20_100))
    monkeypatch.setattr("tools.serve.opening.is_free", lambda host, port: port in (20_041, 20_042))
    for port, given in ((20_041, 20_042), (20_042, 20_041)):
        made = look(tmp_path / str(port), devices=1, port=port)
        assert [device.port for device in made.served.devices] == [given]


def test_a_cluster_is_found_again_as_it_was_made(data: Path) -> None:
    one, two = look(data), look(data)
    assert not one.was_made
    assert (one.served, one.cluster, one.first) == (two.served, two.cluster, two.first)


def test_fewer_devices_than_three_keep_as_many_replicas_and_more_replicas_get_as_many_devices(
    tmp_path: Path,
) -> None:
    assert look(tmp_path / "two", devices=2).cluster.policies[0].replicas == 2
    assert len(look(tmp_path / "five", replicas=5).served.devices) == 5


def test_what_holds_a_secret_is_for_its_owner_alone(data: Path) -> None:
    for path in (data / "secret", data / "cluster.toml", data / "host.toml", data / "serve.toml"):
        if path.exists():
            assert path.stat().st_mode & 0o077 == 0, path
    assert data.stat().st_mode & 0o077 == 0


def test_the_first_user_owns_an_account_and_has_keys_that_nobody_can_guess(tmp_path: Path) -> None:
    users = [look(tmp_path / name, devices=1).first for name in ("one", "two")]
    assert [(user.name, user.roles) for user in users] == [("demo:demo", ("admin",))] * 2
    for field in ("key", "s3_access_key", "s3_secret_key"):
        one, two = (getattr(user, field) for user in users)
        assert one != two
        assert len(one) >= 20


def test_no_key_of_the_first_user_can_be_taken_for_an_option() -> None:
    users = [first_user() for _ in range(50)]
    assert all((user.key + user.s3_access_key + user.s3_secret_key).isalnum() for user in users)


def test_the_file_of_the_host_is_what_an_operator_would_write(data: Path) -> None:
    with opened(asked(data, workers=5)) as cluster, host_file(cluster, asked(data, workers=5), 1234) as path:
        host = load_host(path)
    assert host.storage is not None
    assert host.proxy is not None
    assert [device.path for device in host.storage.devices] == [data / "devices" / "d1"]
    assert (host.proxy.port, host.proxy.worker_count()) == (1234, 5)
    assert load_cluster(host.cluster_file) == cluster.cluster


def test_sockets_get_a_short_path_where_the_directorys_is_too_long_and_it_goes_with_the_run(
    tmp_path: Path,
) -> None:
    data = tmp_path / ("long" * 25)
    options = asked(data, devices=1)
    with opened(options) as cluster:
        with host_file(cluster, options, 1234) as path:
            sockets = load_host(path).socket_directory
            assert len(bytes(sockets)) <= 80
            assert sockets.stat().st_mode & 0o077 == 0
        assert not sockets.exists()


def test_sockets_of_a_run_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 25)
    options = asked(data, devices=1)
    with opened(options) as cluster:
        with host_file(cluster, options, 1234) as path:
            left = load_host(path).socket_directory
            told = path.read_text()
        left.mkdir(mode=0o700)
        (left / "d1.sock").touch()
        path.write_text(told)
        with host_file(cluster, options, 1234) as path:
            assert load_host(path).socket_directory != left
            assert not left.exists()


def test_users_of_a_file_take_the_place_of_the_one_that_is_made_up(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    file.write_text(USERS)
    made = look(tmp_path / "data", devices=1, users_file=file)
    assert made.first.name == "acme:alice"
    file.chmod(0o600)
    assert made.cluster.users == load_users(file)


def test_users_that_are_given_later_are_added_and_win(data: Path, tmp_path: Path) -> None:
    path = data / "cluster.toml"
    path.write_text("reclaim_age_s = 7200\n" + path.read_text())
    file = tmp_path / "users.toml"
    file.write_text(USERS + '[[users]]\naccount = "demo"\nuser = "demo"\nkey = "changed"\n')
    found = look(data, users_file=file)
    assert [user.name for user in found.cluster.users] == ["acme:alice", "acme:bob", "demo:demo"]
    assert found.cluster.users[2].key == "changed"
    assert found.cluster.reclaim_age_us == 7200 * 1_000_000, "what an operator has set stays"
    assert look(data).cluster.users == found.cluster.users


def test_a_making_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    look(data, devices=1)
    before = tomllib.loads((data / "serve.toml").read_text())["devices"]
    (data / "serve.toml").unlink()
    (data / "unfinished").touch()
    (data / "devices" / "d1" / "device.toml").unlink()
    made = look(data, devices=2)
    assert made.was_made
    assert len(made.served.devices) == 2
    assert made.served.devices[0].uuid != before[0]["uuid"]


def foreign_directory(data: Path, other: Path) -> None:
    rmtree(data)
    data.mkdir()
    (data / "thesis.tex").touch()


def newer_format(data: Path, other: Path) -> None:
    path = data / "serve.toml"
    path.write_text(path.read_text().replace("format = 1", 'format = 2\ncolour = "blue"'))


def foreign_device(data: Path, other: Path) -> None:
    rmtree(data / "devices" / "d1")
    copytree(other / "devices" / "d1", data / "devices" / "d1")


def foreign_ring(data: Path, other: Path) -> None:
    copy(other / "rings" / "container.ring", data / "rings" / "container.ring")


def no_ring(data: Path, other: Path) -> None:
    (data / "rings" / "account.ring").unlink()


def no_device(data: Path, other: Path) -> None:
    rmtree(data / "devices" / "d1")
    (data / "devices" / "d1").mkdir()


def another_policy(data: Path, other: Path) -> None:
    path = data / "cluster.toml"
    path.write_text(path.read_text().replace("index = 0", "index = 2"))


def open_secret(data: Path, other: Path) -> None:
    (data / "secret").chmod(0o644)


def no_users(data: Path, other: Path) -> None:
    path = data / "cluster.toml"
    path.write_text(path.read_text().partition("[[users]]")[0])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            foreign_directory,
            "is not empty (it holds thesis.tex) and no cluster of swiftlike serve: choose an empty",
        ),
        (newer_format, "has format 2 and this release knows 1: upgrade swiftlike"),
        (foreign_device, "is left out, since it is a device that no ring here names"),
        (foreign_ring, "container.ring is a ring of another cluster: it names none of the devices"),
        (no_ring, "account.ring"),
        (no_device, "holds no device.toml"),
        (another_policy, "has no policy with index 0, whose objects are here: give it back that index"),
        (open_secret, "run chmod 600"),
        (no_users, "names no user: add [[users]] there, or give --users FILE"),
    ],
)
def test_data_that_cannot_be_served_is_refused_with_the_fix(
    data: Path, tmp_path: Path, spoil: Callable[[Path, Path], None], sentence: str
) -> None:
    look(tmp_path / "other", devices=1)
    spoil(data, tmp_path / "other")
    said = refusal(data)
    assert sentence in said
    assert str(data) in said
    assert "\n" not in said


def garbled_device(data: Path, other: Path) -> None:
    (data / "devices" / "d1" / "device.toml").write_bytes(b"\xff\x00")


def newer_device(data: Path, other: Path) -> None:
    path = data / "devices" / "d1" / "device.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 2"))


def no_directory(data: Path, other: Path) -> None:
    rmtree(data / "devices" / "d1")


def no_volumes(data: Path, other: Path) -> None:
    rmtree(data / "devices" / "d1" / "volumes")


@pytest.mark.parametrize(
    ("spoil", "is_left_out"),
    [
        (foreign_device, True),
        (no_device, False),
        (no_directory, False),
        (no_volumes, False),
        (garbled_device, False),
        (newer_device, False),
    ],
)
def test_one_bad_device_of_three_keeps_the_others_from_nothing(
    tmp_path: Path, spoil: Callable[[Path, Path], None], is_left_out: bool
) -> None:
    data = tmp_path / "data"
    look(data)
    look(tmp_path / "other", devices=1)
    spoil(data, tmp_path / "other")
    with opened(asked(data)) as cluster, host_file(cluster, asked(data), 1234) as path:
        wait_for_predecessor(cluster.layout, cluster.served)
        host = load_host(path)
    assert host.storage is not None
    # Others are told of by their own processes, and tried again while the cluster serves.
    assert list(cluster.left_out) == (["d1"] if is_left_out else [])
    assert [device.name for device in host.storage.devices] == ["d1", "d2", "d3"][is_left_out:]


def test_a_replaced_device_is_left_out_until_the_rings_name_it(data: Path) -> None:
    no_device(data, data)
    uuid = format_device(data / "devices" / "d1")
    assert (
        f"swiftlike-ring-builder {data}/rings/RING.builder bind /d1 --uuid {uuid}, then write_ring"
        in refusal(data)
    )
    for name in ("account", "container", "object-0"):
        for words in (["bind", "/d1", "--uuid", str(uuid)], ["write_ring"]):
            assert ring_builder([str(data / "rings" / f"{name}.builder"), *words], 1_700_000_000) == 0
    assert look(data).left_out == {}


def test_data_that_is_refused_is_left_as_it_was(data: Path, tmp_path: Path) -> None:
    look(tmp_path / "other", devices=1)
    foreign_device(data, tmp_path / "other")
    file = tmp_path / "users.toml"
    file.write_text(USERS)
    before = (data / "cluster.toml").read_bytes()
    assert "a device that no ring here names" in refusal(data, users_file=file)
    assert (data / "cluster.toml").read_bytes() == before


def test_users_of_a_file_help_a_cluster_that_has_none(data: Path, tmp_path: Path) -> None:
    no_users(data, data)
    file = tmp_path / "users.toml"
    file.write_text(USERS)
    assert look(data, users_file=file).first.name == "acme:alice"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"devices": 2}, "has 1 devices and --devices says 2: leave it out, or choose another directory"),
        (
            {"replicas": 3},
            "keeps 1 replicas and --replicas says 3: leave it out, or choose another directory",
        ),
    ],
)
def test_other_numbers_than_the_datas_are_refused(
    data: Path, options: dict[str, object], sentence: str
) -> None:
    assert sentence in refusal(data, **options)


def test_more_replicas_than_devices_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    said = refusal(tmp_path / "data", devices=2, replicas=3)
    assert said == "3 replicas need 3 devices and there are 2: give --devices 3, or --replicas 2"
    assert not (tmp_path / "data").exists()


def test_a_directory_that_is_being_served_is_refused(data: Path) -> None:
    with opened(asked(data)):
        assert "is being served already: stop that one, or choose another directory" in refusal(data)
    look(data)


def test_a_place_where_no_directory_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        assert refusal(place) == f"{tmp_path / 'file'} is not a directory: choose another one with --data"


@pytest.mark.parametrize(
    ("call", "number", "sentence"),
    [
        (
            "open",
            errno.EACCES,
            "cannot be written (Permission denied): give this user access to it, or choose",
        ),
        ("open", errno.EROFS, "cannot be written (Read-only file system): give this user access to it, or"),
        ("fsync", errno.ENOSPC, "cannot be written (No space left on device): make room there, or choose"),
    ],
)
def test_a_cluster_whose_directory_takes_no_file_any_more_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, sentence: str
) -> None:
    real = getattr(os, call)

    def fail(where: object, *rest: object) -> object:
        if isinstance(where, Path) and where.name != "host.toml.new":
            return real(where, *rest)
        raise OSError(number, os.strerror(number), None if isinstance(where, int) else str(where))

    with opened(asked(data)) as cluster:
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(ServeRefused) as refused, host_file(cluster, asked(data), 1234):
            pytest.fail("nothing may be started")
        monkeypatch.undo()
    assert str(refused.value).startswith(f"{data} {sentence}")


def test_no_room_for_the_sockets_is_refused_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = asked(tmp_path / ("long" * 25), devices=1)

    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/swiftlike-0")

    with opened(options) as cluster:
        monkeypatch.setattr(tempfile, "mkdtemp", fail)
        with (
            pytest.raises(ServeRefused, match=r"^/tmp cannot be written .*: make room there, or"),
            host_file(cluster, options, 1234),
        ):
            pytest.fail("nothing may be started")


def test_users_that_cannot_be_are_refused_by_file_and_before_anything_is_made(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    file.write_text(USERS.replace('"admin"', '"king"'))
    assert f"{file}: users[0]: role 'king' is not known" in refusal(tmp_path / "data", users_file=file)
    assert "nowhere.toml cannot be read" in refusal(tmp_path / "data", users_file=tmp_path / "nowhere.toml")
    assert not (tmp_path / "data").exists()


def test_nothing_of_an_error_is_hidden_behind_a_sentence_about_the_directory(data: Path) -> None:
    with suppress(ZeroDivisionError), opened(asked(data)):
        raise ZeroDivisionError
    with pytest.raises(PermissionError), opened(asked(data)):
        raise PermissionError("of the run, not of the directory")


def test_the_layout_is_all_below_the_directory(data: Path) -> None:
    layout = Layout(data)
    for path in (layout.cluster_file, layout.secret_file, layout.rings, layout.devices):
        assert path.exists()
        assert path.is_relative_to(data)
