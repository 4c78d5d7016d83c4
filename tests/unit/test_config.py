"""Configuration: what a good file means, and what each wrong one is told."""

import errno
import os
from pathlib import Path

import pytest

from swiftlike.config import ConfigError, load_cluster, load_host

CLUSTER = """
hash_seed = "00000000deadbeef"
secret_file = "secret"

[[policies]]
index = 0
name = "standard"
default = true

[[policies]]
index = 7
name = "twice"
replicas = 2
"""

HOST = """
cluster_file = "cluster.toml"
ring_directory = "/etc/rings"
socket_directory = "run"

[storage]
bind_host = "10.0.0.5"
drain_s = 3

[[storage.devices]]
name = "d1"
path = "/srv/d1"
port = 6201

[[storage.devices]]
name = "d2"
path = "d2"
port = 6202
metrics_port = 9202

[proxy]
bind_host = "0.0.0.0"
port = 8080
workers = 4
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A cluster's file, a host's and a secret."""
    for name, text in (("cluster.toml", CLUSTER), ("host.toml", HOST), ("secret", "0123456789abcdef\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def test_a_cluster_file_is_read_with_its_secret(directory: Path) -> None:
    cluster = load_cluster(directory / "cluster.toml")
    assert cluster.hash_seed == 0xDEADBEEF
    assert cluster.secret == b"0123456789abcdef"
    assert [(policy.index, policy.name, policy.replicas) for policy in cluster.policies] == [
        (0, "standard", 3),
        (7, "twice", 2),
    ]


def test_a_host_file_is_read_with_defaults_and_paths_relative_to_itself(directory: Path) -> None:
    host = load_host(directory / "host.toml")
    assert host.storage is not None
    assert host.cluster_file == directory / "cluster.toml"
    assert host.ring_directory == Path("/etc/rings")
    assert host.storage.drain_s == 3.0
    assert type(host.storage.drain_s) is float
    assert [(device.name, device.path, device.metrics_port) for device in host.storage.devices] == [
        ("d1", Path("/srv/d1"), 0),
        ("d2", directory / "d2", 9202),
    ]
    assert host.storage.limits.rpc_limits().served_connections_max == 4096
    assert host.proxy is not None
    assert (host.proxy.port, host.proxy.worker_count(), host.proxy.metrics_port) == (8080, 4, 0)


def test_there_are_two_workers_at_least_when_the_file_leaves_their_number_to_the_host(
    directory: Path,
) -> None:
    path = directory / "host.toml"
    path.write_text(HOST.replace("workers = 4\n", ""))
    proxy = load_host(path).proxy
    assert proxy is not None
    assert proxy.worker_count() == max(2, len(os.sched_getaffinity(0)))


def test_a_cluster_never_shows_its_secrets(directory: Path) -> None:
    shown = repr(load_cluster(directory / "cluster.toml"))
    assert "0123456789abcdef" not in shown
    assert str(0xDEADBEEF) not in shown


@pytest.mark.parametrize("name", ["cluster.toml", "secret"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_may_read_is_refused_with_the_chmod_that_helps(
    directory: Path, name: str, mode: int
) -> None:
    (directory / name).chmod(mode)
    with pytest.raises(ConfigError, match=f"run chmod 600 {directory / name}"):
        load_cluster(directory / "cluster.toml")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        pytest.param(
            "drain_s = 3", "dran_s = 3", "storage.dran_s is not a setting: did you mean drain_s?", id="typo"
        ),
        pytest.param(
            "drain_s = 3", "zzz = 3", "storage.zzz is not a setting: remove it, or use one of", id="unknown"
        ),
        pytest.param(
            'bind_host = "10.0.0.5"', "", "storage.bind_host is missing: set it to a text", id="missing"
        ),
        pytest.param(
            "port = 6201", 'port = "6201"', "devices[0].port must be a whole number, and is '6201'", id="type"
        ),
        pytest.param(
            "port = 6201", "port = true", "devices[0].port must be a whole number, and is True", id="bool"
        ),
        pytest.param(
            "port = 6201", "port = 65536", "devices[0].port must be 1 to 65535, and is 65536", id="range"
        ),
        pytest.param(
            "port = 6202", "port = 6201", "port 6201 is there twice: give each its own", id="same port"
        ),
        pytest.param(
            "metrics_port = 9202", "metrics_port = 6201", "port 6201 is there twice", id="metrics port"
        ),
        pytest.param('name = "d2"', 'name = "d1"', "name d1 is there twice", id="same name"),
        pytest.param('name = "d2"', 'name = "../d1"', "name '../d1' may hold letters, digits", id="name"),
        pytest.param('path = "d2"', 'path = "/srv/d1"', "path /srv/d1 is there twice", id="same path"),
        pytest.param(
            'path = "d2"', 'path = ""', "devices[1].path must be a path, and is ''", id="empty path"
        ),
        pytest.param(
            "drain_s = 3", "drain_s = -1", "storage.drain_s must be 0 to 3600, and is -1", id="negative"
        ),
        pytest.param(
            "drain_s = 3", "drain_s = nan", "storage.drain_s must be 0 to 3600, and is nan", id="nan"
        ),
        pytest.param(
            "drain_s = 3",
            "reserve_bytes = 0",
            "reserve_bytes must be 4194304 to 1125899906842624, and is 0",
            id="reserve",
        ),
        pytest.param("drain_s = 3", "limits = 3", "storage.limits must be a table, and is 3", id="table"),
        pytest.param(
            "drain_s = 3", "restart_min_s = 60", "restart_min_s is above storage.restart_max_s", id="order"
        ),
        pytest.param("[storage]", "[storage", "is not TOML (", id="syntax"),
        pytest.param(
            "[storage]",
            '[tls]\nca_file = "ca"\n[storage]',
            "tls.certificate_file is missing: set it to a path, since this host has devices",
            id="tls of devices",
        ),
        pytest.param(
            "[storage]",
            '[tls]\ncertificate_file = "x"\nkey_file = "x"\n[storage]',
            "tls.ca_file is missing: set it to a path",
            id="tls authority",
        ),
        pytest.param("workers = 4", "workers = -1", "proxy.workers must be 0 to 1024", id="workers"),
        pytest.param(
            "workers = 4",
            "restart_min_s = 60",
            "proxy.restart_min_s is above proxy.restart_max_s",
            id="proxy order",
        ),
        pytest.param(
            "workers = 4",
            "workers = 4\nmetrics_port = 65533",
            "proxy.metrics_port 65533 leaves no port for each of 4 workers",
            id="too few metrics ports",
        ),
        pytest.param(
            "workers = 4",
            "workers = 4\nmetrics_port = 8077",
            "proxy.port 8080 is a worker's metrics port as well",
            id="metrics port of a worker",
        ),
        pytest.param('bind_host = "0.0.0.0"', "", "proxy.bind_host is missing", id="no proxy address"),
        pytest.param(
            'socket_directory = "run"', f'socket_directory = "/{"s" * 90}"', "over 80 bytes", id="socket path"
        ),
        pytest.param(
            'socket_directory = "run"',
            'socket_directory = "run"\nlog_level = "loud"',
            "log_level must be one of",
            id="level",
        ),
        pytest.param(
            HOST[HOST.index("[[") : HOST.index("[proxy]")],
            "devices = []\n",
            "storage.devices is empty: add one",
            id="no devices",
        ),
        pytest.param(
            HOST[HOST.index("[[") : HOST.index("[proxy]")],
            "",
            "storage.devices is missing: set it to an array",
            id="devices",
        ),
        pytest.param(
            HOST[HOST.index("[[") : HOST.index("[proxy]")],
            "devices = 3\n",
            "must be an array of tables, and is 3",
            id="no array",
        ),
    ],
)
def test_a_wrong_host_file_is_refused_by_key_and_with_the_fix(
    directory: Path, old: str, new: str, sentence: str
) -> None:
    assert old in HOST
    path = directory / "host.toml"
    path.write_text(HOST.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        load_host(path)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        pytest.param(
            "00000000deadbeef", "00000000deadbeeg", "16 hexadecimal digits: openssl rand -hex 8", id="seed"
        ),
        pytest.param(
            "00000000deadbeef", "beef", "hash_seed must have a length of 16, and is", id="short seed"
        ),
        pytest.param("index = 7", "index = 0", "index 0 is there twice", id="index"),
        pytest.param("index = 7", "index = 256", "policies[1].index must be 0 to 255", id="index range"),
        pytest.param('"twice"', '"Standard"', "name standard is there twice", id="policy name"),
        pytest.param("default = true", "", "no policy is the default", id="no default"),
        pytest.param("replicas = 2", "default = true", "standard, twice are all default", id="two defaults"),
        pytest.param('"secret"', '"other"', "other cannot be read (No such file", id="no secret"),
        pytest.param(CLUSTER[CLUSTER.index("[[") :], "policies = []", "policies is empty", id="no policy"),
    ],
)
def test_a_wrong_cluster_file_is_refused_by_key_and_with_the_fix(
    directory: Path, old: str, new: str, sentence: str
) -> None:
    assert old in CLUSTER
    (directory / "cluster.toml").write_text(CLUSTER.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        load_cluster(directory / "cluster.toml")
    assert sentence in str(refused.value)


def test_a_short_secret_is_refused(directory: Path) -> None:
    (directory / "secret").write_text("guess me")
    with pytest.raises(ConfigError, match="holds 8 bytes and a secret has 16 at least"):
        load_cluster(directory / "cluster.toml")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml cannot be read \(No such file or directory\)"):
        load_host(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EACCES, r"cannot be read \(Permission denied\): give this user access to it"),
        (errno.EIO, r"cannot be read \(Input/output error\): correct its name, or look at its disk"),
    ],
)
def test_a_file_that_is_there_and_cannot_be_read_is_refused_with_another_fix(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    def refuse(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=sentence):
        load_cluster(directory / "cluster.toml")


def test_a_host_without_devices_needs_no_certificate_of_its_own(directory: Path) -> None:
    path = directory / "host.toml"
    plain = HOST[: HOST.index("[storage]")]
    path.write_text(plain + '[tls]\nca_file = "ca.pem"\n')
    tls = load_host(path).tls
    assert tls is not None
    assert (tls.ca_file, tls.certificate_file, tls.key_file) == (directory / "ca.pem", None, None)
    path.write_text(plain + '[tls]\nca_file = "ca.pem"\nkey_file = "key"\n')
    with pytest.raises(ConfigError, match=r"tls\.certificate_file is missing: .* the other of certificate"):
        load_host(path)
