"""A new cluster on one machine: its secret, devices, rings, files and first user.

Owns what a cluster that nobody asked for in detail is like. Never starts a process, and never touches a directory that
holds anything but its own unfinished work.
"""

import errno
import os
import secrets
import string
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

from ring.device import Device, DeviceId
from ring.file import replace_file
from ring.files import RING_SUFFIX
from storage_node.formatting import format_device
from swiftlike.config import load_cluster
from swiftlike.node_calls import ring_name, tables
from swiftlike.user_config import UserConfig
from tools.serve.layout import FORMAT, Layout, ServeRefused, write_file, write_toml

PART_POWER: Final = 10
"""1,024 partitions: a hundred a device up to thirty devices of three replicas, far beyond what one machine has, and rings
of 20 KB. A cluster that outgrows it increases the power later, at no cost in data moved."""

MIN_PART_HOURS: Final = 1.0
POLICY: Final = 0
HOST: Final = "127.0.0.1"
"""Of the devices: only this machine's proxies speak to them, so nobody else should."""

PORTS: Final = range(20_000, 32_000)
"""Of the devices: below those that Linux hands to clients (32768 on), so that none is taken by chance between two starts."""

_ACCESS_KEY_LETTERS: Final = string.ascii_uppercase + string.digits
_LETTERS: Final = string.ascii_letters + string.digits
"""Of keys: one that began with - would be taken for an option by the programs that people give it to."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new cluster should be like."""

    devices: int = 3
    replicas: int = 3
    users: tuple[UserConfig, ...] = ()
    """None: one is made up."""


def make_cluster(layout: Layout, wanted: Wanted, ports: Sequence[int]) -> None:
    """Make a cluster in a directory that is empty or holds an unfinished one. Raises OSError, RingError, StorageError."""
    write_file(
        layout.unfinished, "swiftlike serve was making a cluster here; at its next start it begins anew\n"
    )
    layout.drop_unfinished()
    write_file(layout.secret_file, secrets.token_hex(32) + "\n")
    names = [f"d{number}" for number in range(1, wanted.devices + 1)]
    uuids = [_format(layout.devices / name) for name in names]
    layout.rings.mkdir(mode=0o700)
    for table in tables([POLICY]):
        devices = [
            Device(DeviceId(at), 1, 1, HOST, port, name, 100.0, "", uuid)
            for at, (name, port, uuid) in enumerate(zip(names, ports, uuids, strict=True))
        ]
        _write_ring(layout.rings, ring_name(table), wanted.replicas, devices)
    cluster = {
        "hash_seed": secrets.token_hex(8),
        "secret_file": layout.secret_file.name,
        "policies": [{"index": POLICY, "name": "standard", "replicas": wanted.replicas, "default": True}],
        "users": users_table(wanted.users or (first_user(),)),
    }
    write_cluster_file(layout, cluster)
    served = [
        {"name": name, "port": port, "uuid": str(uuid)}
        for name, port, uuid in zip(names, ports, uuids, strict=True)
    ]
    write_toml(
        layout.serve_file,
        {"format": FORMAT, "devices": served},
        "Written by swiftlike serve; what it serves here.",
    )
    layout.unfinished.unlink()


def write_cluster_file(layout: Layout, table: Mapping[str, Any]) -> None:
    """Write `cluster.toml`."""
    write_toml(layout.cluster_file, table, "Written by swiftlike serve, and by swiftlike serve --users FILE.")


def load_cluster_table(layout: Layout) -> dict[str, Any]:
    """Read `cluster.toml` as it stands, so that a change keeps what an operator has set. It has been checked, or will be."""
    load_cluster(layout.cluster_file)
    return tomllib.loads(layout.cluster_file.read_text("utf-8"))


def users_table(users: Iterable[UserConfig]) -> list[dict[str, Any]]:
    """Return `[[users]]` as TOML has them."""
    return [{**asdict(user), "roles": list(user.roles)} for user in users]


def first_user() -> UserConfig:
    """Make up the user of a cluster that was given none; its keys are random."""
    access_key = "SL" + _draw(_ACCESS_KEY_LETTERS, 18)
    return UserConfig(
        account="demo",
        user="demo",
        key=_draw(_LETTERS, 24),
        roles=("admin",),
        s3_access_key=access_key,
        s3_secret_key=_draw(_LETTERS, 40),
    )


def _draw(letters: str, count: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(count))


def check_wanted(wanted: Wanted) -> None:
    """Refuse a cluster that cannot be."""
    if wanted.replicas > wanted.devices:
        raise ServeRefused(
            f"{wanted.replicas} replicas need {wanted.replicas} devices and there are {wanted.devices}: give --devices "
            f"{wanted.replicas}, or --replicas {wanted.devices}"
        )


def check_place(layout: Layout) -> None:
    """Refuse a directory in which no cluster can be made."""
    found = sorted(path.name for path in layout.data.iterdir())
    if found and not layout.unfinished.exists():
        raise ServeRefused(
            f"{layout.data} is not empty (it holds {found[0]}) and no cluster of swiftlike serve: choose an empty directory, "
            "or one that does not exist yet, with --data"
        )
    if not os.access(layout.data, os.W_OK | os.X_OK):
        raise ServeRefused(unwritable(layout.data, "Permission denied"))


def unwritable(path: Path, why: str, number: int | None = None) -> str:
    """Say that nothing can be kept there; `number` is the system's, where it said so."""
    if number in (errno.ENOTDIR, errno.EEXIST):
        return f"{path} is not a directory: choose another one with --data"
    fix = "make room there" if number in (errno.ENOSPC, errno.EDQUOT) else "give this user access to it"
    return f"{path} cannot be written ({why}): {fix}, or choose another directory with --data"


def ports_to_try(random: Random) -> Sequence[int]:
    """Return ports for devices in the order to try them: from anywhere, so that two clusters seldom want the same."""
    start = random.randrange(len(PORTS))
    return [*PORTS[start:], *PORTS[:start]]


def _format(directory: Path) -> UUID:
    directory.mkdir(mode=0o700, parents=True)
    return format_device(directory)


def _write_ring(directory: Path, name: str, replicas: int, devices: Sequence[Device]) -> None:
    """Make a ring and its builder, as `swiftlike-ring-builder` would."""
    # Here and not above: it brings numpy along, a quarter of a start that makes no ring.
    from ring.builder import RingBuilder
    from ring.builder.file import save_builder

    builder = RingBuilder(uuid4(), name, PART_POWER, float(replicas), MIN_PART_HOURS)
    for device in devices:
        builder.add(device)
    builder.rebalance(int(time.time()))
    pieces = builder.publish().pieces
    save_builder(directory / f"{name}.builder", builder)
    replace_file(directory / f"{name}{RING_SUFFIX}", pieces)
