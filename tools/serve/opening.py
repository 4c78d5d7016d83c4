"""The cluster that a data directory holds: whether it is whole, this directory's own, and what was asked for.

Owns the refusals, each with its fix, and what is written at every start: `host.toml` and, if users are given, those.
Never starts a process.
"""

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from shutil import rmtree
from typing import Final
from uuid import UUID

from ring.errors import RingError
from ring.files import RingFiles
from storage_node.errors import DeviceRefused, StorageError
from storage_node.identity import DeviceFile, lock_device, read_device_file, unlock_device
from swiftlike.config import Cluster, ConfigError, load_cluster, load_host
from swiftlike.node_calls import ring_name, tables
from swiftlike.toml_tables import load_table
from swiftlike.user_config import UserConfig, UsersFile, check_users
from tools.serve.layout import (
    SOCKET_PATH_BYTES_MAX,
    Layout,
    ServeFile,
    ServeRefused,
    locked,
    read_serve_file,
    write_toml,
)
from tools.serve.making import (
    HOST,
    POLICY,
    Wanted,
    check_place,
    check_wanted,
    load_cluster_table,
    make_cluster,
    ports_to_try,
    unwritable,
    users_table,
    write_cluster_file,
)

TEMPORARY: Final = "swiftlike-"
"""What a directory of sockets in /tmp is called first."""

PREDECESSOR_S: Final = 10.0
"""How long the processes of a serve that was killed may take to drain before their devices count as in use."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; None: nothing."""

    data: Path
    devices: int | None
    replicas: int | None
    users_file: Path | None
    bind_host: str
    port: int
    workers: int
    log_level: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A cluster that may be started."""

    layout: Layout
    cluster: Cluster
    served: ServeFile
    first: UserConfig
    """Whose keys are shown."""
    was_made: bool
    left_out: Mapping[str, str]
    """Devices that are not to be started, by name, and why. What is wrong with the others, their processes say themselves."""


def is_made(asked: Asked) -> bool:
    """Say whether a cluster is there to be opened; what cannot be looked at is told when it is opened."""
    with suppress(OSError):
        return Layout(asked.data.absolute()).serve_file.exists()
    return False


@contextmanager
def opened(asked: Asked) -> Iterator[Opened]:
    """Make the cluster if there is none, check it if there is, and keep its directory to this process.

    Raises ServeRefused.
    """
    layout = Layout(asked.data.absolute())
    with ExitStack() as held:
        with _refusals(layout):
            users = _read_users(asked.users_file)
            if not is_made(asked):
                _wanted(asked, users)  # what cannot be leaves no directory behind
            layout.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(locked(layout.data))
            was_made = not layout.serve_file.exists()
            if was_made:
                wanted = _wanted(asked, users)
                check_place(layout)
                make_cluster(layout, wanted, free_ports(wanted.devices, HOST, SystemRandom(), asked.port))
            served = read_serve_file(layout)
            _check_devices(layout, served, asked.devices)
            cluster, left_out = _check_cluster(layout, served, asked.replicas)
            if users and not was_made:  # only now: what is refused is left as it was
                cluster = _seed(layout, users)
            if not cluster.users:
                raise ServeRefused(
                    f"{layout.cluster_file} names no user: add [[users]] there, or give --users FILE"
                )
        yield Opened(layout, cluster, served, (users or cluster.users)[0], was_made, left_out)


@contextmanager
def _refusals(layout: Layout) -> Iterator[None]:
    """Turn what cannot be opened or made into the sentence that says so."""
    try:
        yield
    except (ConfigError, RingError, StorageError) as refusal:
        raise ServeRefused(str(refusal)) from None
    except OSError as error:
        path = Path(error.filename or layout.data)
        while not os.path.lexists(path):
            path = path.parent  # what keeps a new file from being there
        raise ServeRefused(unwritable(path, error.strerror or str(error), error.errno)) from None


def free_ports(count: int, host: str, random: Random, kept: int) -> list[int]:
    """Find ports that nothing listens on, besides the one that is `kept` for clients. Raises ServeRefused."""
    found: list[int] = []
    for port in ports_to_try(random):
        if port != kept and is_free(host, port):
            found.append(port)
        if len(found) == count:
            return found
    raise ServeRefused(f"{host} has no {count} free ports for the devices: stop what listens there")


def is_free(host: str, port: int) -> bool:
    """Say whether nothing listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def host_file(opened: Opened, asked: Asked, port: int) -> Iterator[Path]:
    """Write `host.toml` for this run; yields it. Its directory of sockets goes with the run if it is a temporary one.

    Raises ServeRefused.
    """
    layout = opened.layout
    with ExitStack() as held:
        with _refusals(layout):
            _drop_sockets_of_the_dead(layout)
            _write_host_file(opened, asked, port, _sockets(layout, held))
        yield layout.host_file


def _sockets(layout: Layout, held: ExitStack) -> Path:
    """Return where Unix sockets are to be; what is made for them goes when `held` is left."""
    if len(os.fsencode(layout.sockets)) <= SOCKET_PATH_BYTES_MAX:
        return layout.sockets
    made = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir="/tmp"))
    held.callback(rmtree, made, ignore_errors=True)
    return made


def _write_host_file(opened: Opened, asked: Asked, port: int, sockets: Path) -> None:
    layout = opened.layout
    write_toml(
        layout.host_file,
        {
            "cluster_file": layout.cluster_file.name,
            "ring_directory": layout.rings.name,
            "socket_directory": str(sockets),
            "log_level": asked.log_level,
            "storage": {
                "bind_host": HOST,
                "devices": [
                    {
                        "name": device.name,
                        "path": f"{layout.devices.name}/{device.name}",
                        "port": device.port,
                    }
                    for device in opened.served.devices
                    if device.name not in opened.left_out
                ],
            },
            "proxy": {"bind_host": asked.bind_host, "port": port, "workers": asked.workers},
        },
        "Written by swiftlike serve at each start, from its command line; changes here do not last.",
    )


def _drop_sockets_of_the_dead(layout: Layout) -> None:
    """Remove the temporary directory of a run that was killed before it could; nobody uses it, since the data is ours."""
    with suppress(ConfigError):  # no file, or one that is about to be replaced
        sockets = load_host(layout.host_file).socket_directory
        if sockets.parent == Path("/tmp") and sockets.name.startswith(TEMPORARY):  # noqa: S108 (ours, by mkdtemp)
            rmtree(sockets, ignore_errors=True)


def wait_for_predecessor(layout: Layout, served: ServeFile) -> bool:
    """Wait until nobody has a device open any more: the processes of a serve that was killed still drain.

    Returns whether there was anything to wait for. Raises ServeRefused when it takes too long.
    """
    until = time.monotonic() + PREDECESSOR_S
    waited = False
    for device in served.devices:
        while True:
            try:
                unlock_device(lock_device(layout.devices / device.name))
                break
            except DeviceRefused as refused:
                if refused.__cause__ is not None:
                    break  # it cannot be looked at: nobody uses it, and its own process says what is wrong
                if time.monotonic() > until:
                    raise ServeRefused(str(refused)) from None
            waited = True
            time.sleep(0.02)
    return waited


def _wanted(asked: Asked, users: tuple[UserConfig, ...]) -> Wanted:
    """Return the cluster that is to be made. Raises ServeRefused for one that cannot be."""
    devices = asked.devices if asked.devices is not None else max(3, asked.replicas or 3)
    replicas = asked.replicas if asked.replicas is not None else min(3, devices)
    wanted = Wanted(devices, replicas, users)
    check_wanted(wanted)
    return wanted


def _check_devices(layout: Layout, served: ServeFile, devices: int | None) -> None:
    """Refuse another number of devices."""
    if devices is not None and devices != len(served.devices):
        raise ServeRefused(
            f"{layout.data} has {len(served.devices)} devices and --devices says {devices}: leave it out, or choose another "
            "directory with --data"
        )


def _check_cluster(
    layout: Layout, served: ServeFile, replicas: int | None
) -> tuple[Cluster, Mapping[str, str]]:
    """Refuse files that do not belong together; return which devices are not to be started besides, and why."""
    cluster = load_cluster(layout.cluster_file)
    policy = next((policy for policy in cluster.policies if policy.index == POLICY), None)
    if policy is None:
        raise ServeRefused(
            f"{layout.cluster_file} has no policy with index {POLICY}, whose objects are here: give it back that index, which is "
            "for ever; another policy is added beside it"
        )
    if replicas is not None and replicas != policy.replicas:
        raise ServeRefused(
            f"{layout.data} keeps {policy.replicas} replicas and --replicas says {replicas}: leave it out, or choose another "
            "directory with --data"
        )
    names = [ring_name(table) for table in tables(policy.index for policy in cluster.policies)]
    rings = RingFiles.load(layout.rings, names, cluster.hash_seed, replicas=cluster.ring_replicas)
    found, refused = _look_at_devices(layout, served, cluster)
    ours = {UUID(device.uuid) for device in served.devices} | {device.uuid for device in found.values()}
    ringed: set[UUID | None] = set()
    for name in names:
        theirs = {device.uuid for device in rings.ring(name).devices if device is not None}
        ringed |= theirs
        if not theirs & ours:
            raise ServeRefused(
                f"{layout.rings / name}.ring is a ring of another cluster: it names none of the devices of {layout.data}; put "
                "back its own, or choose another directory with --data"
            )
    left_out = {
        name: _stranger(layout, name, device)
        for name, device in found.items()
        # A rebuilt index has a new uuid under the old stamp; what that means is for the device and its ring to say.
        if device.stamp != served.uuid_of(name) and device.uuid not in ringed
    }
    if len(refused) + len(left_out) == len(served.devices):
        raise ServeRefused("; ".join([*refused, *left_out.values()]))
    return cluster, left_out


def _look_at_devices(
    layout: Layout, served: ServeFile, cluster: Cluster
) -> tuple[dict[str, DeviceFile], list[str]]:
    """Return the devices that may be started, by name, and what is wrong with the others."""
    found: dict[str, DeviceFile] = {}
    refused = []
    for device in served.devices:
        root = layout.devices / device.name
        try:
            found[device.name] = read_device_file(root).under(cluster.hash_seed, root)
        except DeviceRefused as refusal:
            refused.append(str(refusal))
    return found, refused


def _stranger(layout: Layout, name: str, device: DeviceFile) -> str:
    """Say of a device that it is not the one that was made here, nor one that the rings know."""
    return (
        f"{layout.devices / name} is left out, since it is a device that no ring here names (uuid {device.uuid}): put back its own; "
        f"if its disk was replaced, bind it in each of the rings (swiftlike-ring-builder {layout.rings}/RING.builder bind /{name} "
        f"--uuid {device.uuid}, then write_ring) and start again"
    )


def _seed(layout: Layout, users: Sequence[UserConfig]) -> Cluster:
    """Add users to the cluster's file; one that is there already takes what is given now."""
    table = load_cluster_table(layout)
    given = {(user.account, user.user) for user in users}
    kept = [user for user in table.get("users", []) if (user.get("account"), user.get("user")) not in given]
    write_cluster_file(layout, {**table, "users": [*kept, *users_table(users)]})
    return load_cluster(layout.cluster_file)


def _read_users(path: Path | None) -> tuple[UserConfig, ...]:
    """Read a file of users. It is the caller's own and need not be secret: what is kept of it is."""
    if path is None:
        return ()
    users = check_users(path, load_table(UsersFile, path.absolute()).users)
    if not users:
        raise ServeRefused(f"{path} names no user: add one [[users]] table")
    return users
