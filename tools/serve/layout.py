"""A data directory: what lies where in it, and how its files are written.

Owns the names below the directory, the order of writes and syncs, and the directory's lock. Never decides what a file says.

    <data>/
      serve.toml      format, and the devices by name, port and uuid; written last, so that a directory that has one is whole
      cluster.toml    0600: hash seed, secret file, policies, users; what an operator of many hosts writes by hand
      secret          0600: what the processes prove to each other
      host.toml       written anew at each start, from the command line
      rings/          account, container and object-0: each its ring and the builder that made it
      devices/d1 …    one directory for each device
      run/            Unix sockets, unless this path is too long for them
      unfinished      there only while a new cluster is being made
"""

import fcntl
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Any, Final
from uuid import UUID

import tomli_w

from ring.file import sync_directory
from swiftlike.toml_tables import Between, load_table

FORMAT: Final = 1
SOCKET_PATH_BYTES_MAX: Final = 80
"""What `load_host` allows a directory of sockets to be called: the kernel has room for 107 bytes, names included."""


class ServeRefused(Exception):
    """Why `swiftlike serve` does not start: one sentence, the fix included."""


@dataclass(frozen=True, slots=True)
class ServedDevice:
    """One `[[devices]]` of `serve.toml`."""

    name: Annotated[str, Between(1, 63)]
    """Also that of its directory."""
    port: Annotated[int, Between(1, 65_535)]
    """As in the rings."""
    uuid: Annotated[str, Between(36, 36)]
    """What it was formatted as; the rings know it by that."""


@dataclass(frozen=True, slots=True)
class ServeFile:
    """What `serve.toml` says."""

    format: int
    """Of the data directory: 1."""
    devices: tuple[ServedDevice, ...]
    """As many as there ever will be: a cluster that grows is one of hosts with files made by hand."""

    def uuid_of(self, name: str) -> UUID:
        """Return what a device was formatted as."""
        return UUID(next(device.uuid for device in self.devices if device.name == name))


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one data directory."""

    data: Path

    @property
    def serve_file(self) -> Path:
        """The mark of a whole data directory."""
        return self.data / "serve.toml"

    @property
    def unfinished(self) -> Path:
        """The mark of one that is being made."""
        return self.data / "unfinished"

    @property
    def cluster_file(self) -> Path:
        """What is the same on every host."""
        return self.data / "cluster.toml"

    @property
    def secret_file(self) -> Path:
        """What the processes prove to each other."""
        return self.data / "secret"

    @property
    def host_file(self) -> Path:
        """What this host is told."""
        return self.data / "host.toml"

    @property
    def rings(self) -> Path:
        """Rings, and their builders."""
        return self.data / "rings"

    @property
    def devices(self) -> Path:
        """A directory for each device."""
        return self.data / "devices"

    @property
    def sockets(self) -> Path:
        """Where Unix sockets are, if this is short enough."""
        return self.data / "run"

    def drop_unfinished(self) -> None:
        """Remove what a making that was interrupted left behind; nothing of it was ever served."""
        for directory in (self.rings, self.devices, self.sockets):
            if directory.exists():
                rmtree(directory)
        for file in (self.cluster_file, self.secret_file, self.host_file):
            file.unlink(missing_ok=True)


def read_serve_file(layout: Layout) -> ServeFile:
    """Read `serve.toml`. Raises ConfigError, and ServeRefused for a newer format before its keys can be unknown."""
    path = layout.serve_file
    try:
        found = tomllib.loads(path.read_text("utf-8")).get("format")
    except (OSError, ValueError):
        found = None  # load_table says it better
    if isinstance(found, int) and found != FORMAT:
        raise ServeRefused(
            f"{layout.data} has format {found} and this release knows {FORMAT}: upgrade swiftlike, or choose another "
            "directory with --data"
        )
    return load_table(ServeFile, path)


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Keep a data directory to this process. Raises ServeRefused when another one serves it."""
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServeRefused(
                f"{data} is being served already: stop that one, or choose another directory with --data"
            ) from None
        yield
    finally:
        os.close(descriptor)


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a crash leaves the old one or the new, for its owner's eyes unless `mode` says otherwise."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_directory(path.parent)


def write_toml(path: Path, table: Mapping[str, Any], comment: str) -> None:
    """Write a TOML file under a comment."""
    write_file(path, f"# {comment}\n{tomli_w.dumps(table)}")
