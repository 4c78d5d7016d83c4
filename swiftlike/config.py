"""Configuration: what a cluster and a host are told, read once, checked whole, and frozen.

Owns the settings and their meaning: the comment under each field is its manual. Never reads a ring or a device.

Two TOML files. `cluster.toml` is the same on every host; one more file per host says what runs there. A key that is
unknown, missing or out of bounds stops the start, by its name and with the fix. Relative paths are taken from the
directory of the file that names them. `cluster.toml` and the secret file must be readable by their owner only.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from swiftlike.limits import (
    AUDITED_BODIES_PER_S,
    AUDITED_BYTES_PER_S,
    COMPARED_EVERY_S,
    EXPIRED_PER_S,
    HEALED_BYTES_PER_S,
    HEALED_PER_S,
    REAPED_PER_S,
    RECLAIM_AGE_US,
    RESERVE_BYTES,
    RESERVE_BYTES_MIN,
    RPC_SECRET_BYTES_MIN,
    RpcLimits,
)
from swiftlike.seeds import bound_secret
from swiftlike.toml_tables import Between, ConfigError, load_table, read_secret
from swiftlike.user_config import UserConfig, check_users

__all__ = [
    "AuthConfig",
    "Cluster",
    "ClusterFile",
    "ConfigError",
    "DeviceConfig",
    "HostConfig",
    "JobsConfig",
    "LimitsConfig",
    "PolicyConfig",
    "ProxyConfig",
    "StorageConfig",
    "TlsConfig",
    "load_cluster",
    "load_host",
]

POLICY_INDEX_MAX: Final = 255
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_RPC: Final = RpcLimits()
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")

Port = Annotated[int, Between(1, 65_535)]


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """One `[[policies]]`: how the objects of some containers are protected."""

    index: Annotated[int, Between(0, POLICY_INDEX_MAX)]
    """Its number, for ever: it names the ring `object-<index>` and stands in every entry."""
    name: Annotated[str, Between(1, 63)]
    """What clients call it in `X-Storage-Policy`; letters, digits, `_`, `.` and `-`."""
    replicas: Annotated[int, Between(1, 16)] = 3
    """Copies of each object. 3: one may be down, and nothing waits for it. Must agree with the ring's to less than one copy: a process that
    finds it otherwise is refused at its start, and says so where a new ring changes it."""
    default: bool = False
    """The policy of containers that ask for none; exactly one is. A single policy is it without saying so."""


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """`[auth]`: how clients show who they are."""

    token_lifetime_s: Annotated[int, Between(60, 365 * 86_400)] = 86_400
    """How long a token of `/auth/v1.0` is good. A day: it ends sooner when its user is removed or the key is rotated."""


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What `cluster.toml` says."""

    hash_seed: Annotated[str, Between(16, 16)] = field(repr=False)
    """The cluster's secret 64-bit seed, 16 hexadecimal digits, for ever: it places every path. `openssl rand -hex 8`."""
    secret_file: Path
    """The secret that processes prove to each other, at least 16 bytes. `openssl rand -hex 32 > secret; chmod 600 secret`."""
    policies: tuple[PolicyConfig, ...]
    """At least one."""
    reclaim_age_s: Annotated[int, Between(3600, 10 * 365 * 86_400)] = RECLAIM_AGE_US // 1_000_000
    """How long a tombstone is remembered. A week: longer than any owner should be away without being replaced."""
    auth: AuthConfig = AuthConfig()
    """How clients show who they are."""
    users: tuple[UserConfig, ...] = ()
    """Users that the cluster has from its start; more are added with `swiftlike-users`."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`cluster.toml` and the secret it names, checked."""

    hash_seed: int = field(repr=False)
    secret: bytes = field(repr=False)
    policies: tuple[PolicyConfig, ...]
    reclaim_age_us: int
    auth: AuthConfig = AuthConfig()
    users: tuple[UserConfig, ...] = ()

    @property
    def ring_replicas(self) -> dict[str, int]:
        """How many copies the rings of the policies must give, by the names of these rings."""
        return {f"object-{policy.index}": policy.replicas for policy in self.policies}

    @property
    def rpc_secret(self) -> bytes:
        """What processes prove to each other: the secret and the seed, since who places by another seed does harm."""
        return bound_secret(self.secret, self.hash_seed)


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """One `[[storage.devices]]`: a disk of this host, served by a process of its own."""

    name: Annotated[str, Between(1, 63)]
    """What the ring calls it, such as `d1`; also the name of its Unix socket, `<socket_directory>/<name>.sock`."""
    path: Path
    """Where it is mounted: the directory that `swiftlike-device init` has formatted."""
    port: Port
    """TCP port of its process, as in the ring."""
    index_path: Path | None = None
    """Directory of its index, this device's alone, if on a faster disk than the bodies: as `swiftlike-device init --index` was
    told. Default: `index` on the device itself."""
    metrics_port: Annotated[int, Between(0, 65_535)] = 0
    """Loopback port where Prometheus reads its metrics. 0, the default: none; the RPC method `metrics` is always there."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """`[storage.limits]`: bounds of each device process towards all of its callers together."""

    connections_max: Annotated[int, Between(16, 65_536)] = _RPC.served_connections_max
    """Connections served; a newcomer above it is told "full". 4096: one for each proxy worker of a large cluster."""
    calls_in_flight_max: Annotated[int, Between(16, 65_536)] = _RPC.calls_in_flight_max
    """Calls at work; above it the answer is "busy". 4096: as many as the writer's queue holds."""
    streams_in_flight_max: Annotated[int, Between(1, 4096)] = _RPC.streams_in_flight_max
    """Large bodies on their way at once, each with up to 2 MiB of memory; above it the answer is "busy"."""
    bytes_in_flight_max: Annotated[int, Between(2**20, 2**36)] = _RPC.bytes_in_flight_max
    """Bytes of small bodies at work; above it the answer is "busy". 256 MiB: half a second of a fast disk."""

    def rpc_limits(self) -> RpcLimits:
        """Return the limits of the RPC with these in place."""
        return RpcLimits(
            served_connections_max=self.connections_max,
            calls_in_flight_max=self.calls_in_flight_max,
            streams_in_flight_max=self.streams_in_flight_max,
            bytes_in_flight_max=self.bytes_in_flight_max,
        )


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """`[storage.jobs]`: how fast each device goes about what nobody waits for."""

    expired_per_s: Annotated[float, Between(0.1, 100_000)] = EXPIRED_PER_S
    """Objects whose `X-Delete-At` is due, deleted a second. 100: an hour for a million that fall due at once, on three devices, for a
    third of a core on each of them while it lasts."""
    audited_bytes_per_s: Annotated[int, Between(2**10, 2**40)] = AUDITED_BYTES_PER_S
    """Bytes of bodies that are read back a second. 16 MiB: 1.3 TiB a day, a tenth of what a spinning disk reads."""
    audited_bodies_per_s: Annotated[float, Between(0.1, 1_000_000)] = AUDITED_BODIES_PER_S
    """Bodies that are read back a second, where they are small. 200: 17 million a day, for some 5 % of a core."""
    audit_every_s: Annotated[float, Between(1, 365 * 86_400)] = 86_400.0
    """From the beginning of one full pass of the auditor to that of the next, at least; a large device takes longer. A day."""
    reaped_per_s: Annotated[float, Between(0.1, 100_000)] = REAPED_PER_S
    """Objects of deleted accounts that are removed a second. 100: eight million a day, by one of the account's owners."""
    compared_every_s: Annotated[float, Between(1, 300)] = COMPARED_EVERY_S
    """From the end of one comparison with all other owners to the next, some 30 % more or less. 30 s: what is missed and hinted at by
    nobody is found within a minute, for one message to each peer when all is well."""
    healed_per_s: Annotated[float, Between(1, 1_000_000)] = HEALED_PER_S
    """Entries and rows that are taken from other owners a second, for whatever reason: a device that was away, a new disk, a ring
    that changed. At most: down to a quarter of it while whoever calls has to wait. 4,000: a million small objects, with their
    rows, in some nine minutes."""
    healed_bytes_per_s: Annotated[int, Between(2**16, 2**40)] = HEALED_BYTES_PER_S
    """Bytes of bodies that are taken a second. 64 MiB: 5.3 TiB a day, half of what a gigabit network carries."""


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """`[storage]`: the devices of this host and what their processes share."""

    bind_host: Annotated[str, Between(1, 253)]
    """Address that the device processes listen on, as in the ring; only the cluster's own network should reach it."""
    devices: tuple[DeviceConfig, ...]
    """At least one."""
    reserve_bytes: Annotated[int, Between(RESERVE_BYTES_MIN, 2**50)] = RESERVE_BYTES
    """Free space on each device that new bodies leave alone, so that deletes find room, and the index does: a commit that meets a full
    disk ends the process. 1 GiB; 4 MiB at least."""
    drain_s: Annotated[float, Between(0, 3600)] = 20.0
    """After SIGTERM, how long what is at work may take to finish. 20 s: below the 30 that most service managers wait."""
    restart_min_s: Annotated[float, Between(0.01, 3600)] = 0.5
    """Wait before a dead device process is started again; doubles with each death that follows soon."""
    restart_max_s: Annotated[float, Between(0.01, 3600)] = 30.0
    """The longest such wait; also how often a refused device (not mounted, in use) is tried again."""
    limits: LimitsConfig = LimitsConfig()
    """Bounds towards callers."""
    jobs: JobsConfig = JobsConfig()
    """The pace of what nobody waits for."""


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """`[proxy]`: the workers of this host that clients talk to. Each is a process, and all listen on one port."""

    bind_host: Annotated[str, Between(1, 253)]
    """Address that clients reach, such as `0.0.0.0`; without TLS in front, only on a network that you trust."""
    port: Port
    """TCP port of both APIs."""
    workers: Annotated[int, Between(0, 1024)] = 0
    """Worker processes. 0, the default: one for each core, and two at least, so that one may be restarted."""
    requests_in_flight_max: Annotated[int, Between(1, 65_536)] = 1024
    """Requests at work in one worker; above it the answer is 503 with Retry-After. 1024: some 0.2 s of a core's work."""
    connections_max: Annotated[int, Between(16, 1_000_000)] = 8192
    """Connections of one worker, most of them idle; above it a newcomer is closed. 8192: some 40 KiB of memory each."""
    request_s: Annotated[float, Between(0.1, 3600)] = 30.0
    """How long devices may take to answer, beyond which the outcome is unknown (503); a body that moves renews it."""
    client_idle_s: Annotated[float, Between(0.1, 3600)] = 60.0
    """How long a client may be silent in the midst of a request, or take nothing of an answer, before it is let go."""
    keepalive_s: Annotated[float, Between(0, 3600)] = 75.0
    """How long a connection may wait for its next request. 75 s: longer than the pools of most clients keep theirs."""
    storage_domain: Annotated[str, Between(0, 253)] = ""
    """A host name, such as `objects.example.org`, whose labels in front name a bucket in S3 requests. Default: none."""
    s3_region: Annotated[str, Between(1, 63)] = "us-east-1"
    """What S3 clients must call the region when they sign; the same on every host. What they do unless told otherwise."""
    s3_signature_version_2: bool = True
    """Whether S3 requests may be signed in AWS's older version too; the same on every host. It covers no bodies, but boto3 still
    presigns with it, unless told otherwise."""
    drain_s: Annotated[float, Between(0, 3600)] = 20.0
    """After SIGTERM, how long requests at work may take to finish. 20 s: below the 30 that most service managers wait."""
    restart_min_s: Annotated[float, Between(0.01, 3600)] = 0.1
    """Wait before a dead worker is started again; doubles with each death that follows soon."""
    restart_max_s: Annotated[float, Between(0.01, 3600)] = 10.0
    """The longest such wait; also how often a refused worker is tried again."""
    metrics_port: Annotated[int, Between(0, 65_535)] = 0
    """Loopback port where Prometheus reads the first worker's metrics; the second's is the next, and so on. 0: none."""
    clock_offset_s: Annotated[float, Between(-3600, 3600)] = 0.0
    """For tests only: how far this host's proxies believe the time to be from what its clock says."""

    def worker_count(self) -> int:
        """Return how many workers there are."""
        return self.workers or max(2, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """`[tls]`: TLS beneath the internal RPC wherever it goes over TCP. See `swiftlike/tls.py`."""

    ca_file: Path
    """Certificate (PEM) of the authority that signed those of all hosts with devices; callers on this host trust no other."""
    certificate_file: Path | None = None
    """This host's certificate (PEM, followed by any between it and the authority's), made out to the name or address by which
    the ring reaches its devices. Needed on a host with devices."""
    key_file: Path | None = None
    """The private key of that certificate (PEM, without a password); readable by its owner only."""


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What the file of one host says."""

    cluster_file: Path
    """Where `cluster.toml` is."""
    ring_directory: Path
    """Where the ring files are: `account.ring`, `container.ring` and one `object-<index>.ring` for each policy."""
    socket_directory: Path
    """Where Unix sockets are made, for callers on this host; at most 80 bytes, which is what the kernel leaves room for."""
    log_level: Annotated[str, Between(4, 7)] = "info"
    """The least that is logged: debug, info, warning or error."""
    tls: TlsConfig | None = None
    """TLS between hosts: on all of them or on none. Default: none, for a network that only the cluster is on."""
    storage: StorageConfig | None = None
    """The devices of this host; none on a host of proxies only."""
    proxy: ProxyConfig | None = None
    """The proxy workers of this host; none on a host of devices only."""


def load_cluster(path: Path) -> Cluster:
    """Read and check `cluster.toml` and the secret file it names. Raises ConfigError."""
    file = load_table(ClusterFile, path, secret=True)
    try:
        seed = int(file.hash_seed, 16)
    except ValueError:
        raise ConfigError(f"{path}: hash_seed must be 16 hexadecimal digits: openssl rand -hex 8") from None
    secret = read_secret(file.secret_file).strip()
    if len(secret) < RPC_SECRET_BYTES_MIN:
        raise ConfigError(
            f"{file.secret_file} holds {len(secret)} bytes and a secret has {RPC_SECRET_BYTES_MIN} at least: "
            f"openssl rand -hex 32 > {file.secret_file}"
        )
    policies, users = _check_policies(path, file.policies), check_users(path, file.users)
    return Cluster(seed, secret, policies, file.reclaim_age_s * 1_000_000, file.auth, users)


def load_host(path: Path) -> HostConfig:
    """Read and check the file of one host. Raises ConfigError."""
    host = load_table(HostConfig, path)
    if host.log_level not in _LOG_LEVELS:
        raise ConfigError(
            f"{path}: log_level must be one of {', '.join(_LOG_LEVELS)}, and is {host.log_level!r}"
        )
    if len(bytes(host.socket_directory)) > 80:
        raise ConfigError(
            f"{path}: socket_directory is over 80 bytes long, too long for a socket: choose a shorter path"
        )
    if host.tls is not None:
        _check_tls(path, host.tls, serving=host.storage is not None)
    if host.storage is not None:
        _check_devices(path, host.storage)
    if host.proxy is not None:
        _check_proxy(path, host.proxy)
    return host


def _check_policies(path: Path, policies: tuple[PolicyConfig, ...]) -> tuple[PolicyConfig, ...]:
    if not policies:
        raise ConfigError(f"{path}: policies is empty: add one [[policies]] with index and name")
    _check_names(path, "policies", [policy.name.lower() for policy in policies])
    _check_unique(path, "policies", "index", [policy.index for policy in policies])
    defaults = [policy.name for policy in policies if policy.default]
    if len(defaults) > 1:
        raise ConfigError(f"{path}: policies {', '.join(defaults)} are all default: leave it to one of them")
    if not defaults and len(policies) > 1:
        raise ConfigError(f"{path}: no policy is the default: set default = true in one of policies")
    return policies


def _check_devices(path: Path, storage: StorageConfig) -> None:
    if not storage.devices:
        raise ConfigError(
            f"{path}: storage.devices is empty: add one [[storage.devices]] with name, path and port"
        )
    if storage.restart_min_s > storage.restart_max_s:
        raise ConfigError(f"{path}: storage.restart_min_s is above storage.restart_max_s: lower it")
    devices = storage.devices
    _check_names(path, "storage.devices", [device.name for device in devices])
    _check_unique(path, "storage.devices", "path", [device.path for device in devices])
    ports = [device.port for device in devices] + [d.metrics_port for d in devices if d.metrics_port]
    _check_unique(path, "storage.devices", "port", ports)


def _check_proxy(path: Path, proxy: ProxyConfig) -> None:
    if proxy.restart_min_s > proxy.restart_max_s:
        raise ConfigError(f"{path}: proxy.restart_min_s is above proxy.restart_max_s: lower it")
    last_port = proxy.metrics_port + proxy.worker_count() - 1
    if proxy.metrics_port and last_port > 65_535:
        raise ConfigError(
            f"{path}: proxy.metrics_port {proxy.metrics_port} leaves no port for each of {proxy.worker_count()} workers: lower it"
        )
    if proxy.metrics_port and proxy.metrics_port <= proxy.port <= last_port:
        raise ConfigError(f"{path}: proxy.port {proxy.port} is a worker's metrics port as well: change one")


def _check_tls(path: Path, tls: TlsConfig, *, serving: bool) -> None:
    for key, value, other in (
        ("certificate_file", tls.certificate_file, tls.key_file),
        ("key_file", tls.key_file, tls.certificate_file),
    ):
        if value is None and (serving or other is not None):
            raise ConfigError(
                f"{path}: tls.{key} is missing: set it to a path, since "
                + ("this host has devices" if serving else "the other of certificate and key is there")
            )


def _check_names(path: Path, where: str, names: list[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{path}: {where}: name {name!r} may hold letters, digits, '_', '.' and '-', and must begin with one of "
                "the first two: choose another"
            )
    _check_unique(path, where, "name", names)


def _check_unique(path: Path, where: str, what: str, values: list[str] | list[int] | list[Path]) -> None:
    for at, value in enumerate(values):
        if value in values[:at]:
            raise ConfigError(f"{path}: {where}: {what} {value} is there twice: give each its own")
