"""Places: a network and disks for the hosts of one run, as far as the rights of this machine allow.

Owns the namespaces: a run goes on in a process, network and mount namespace of its own (`isolated`), so that whatever ends it
leaves nothing behind. In there each host is a network namespace on a bridge, a cut is a neighbour at an address that nobody has
(what is sent to it is lost in silence, on connections that stand as on new ones), and a small disk is a tmpfs. Where the kernel
does not let us, hosts are addresses of loopback, nothing can be cut, and a disk is full because its reserve says so.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MARK: Final = "SWIFTLIKE_NEMESIS_ISOLATED"
_UNSHARE: Final = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_ROOT: Final = ("--user", "--map-root-user")
_NOBODY: Final = "02:00:00:00:de:ad"
_NETWORK: Final = "10.66.0"
_HERE: Final = f"{_NETWORK}.254"
SMALL_DISK_BYTES: Final = 64 * 1024**2


def isolated(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return how a command is run in namespaces of its own, and in which environment; as it is where that cannot be."""
    for how in (_UNSHARE, (*_UNSHARE, *_AS_ROOT)):
        probe = [*how, "sh", "-c", "ip link add x type bridge && mount -t tmpfs none /mnt"]
        try:
            done = subprocess.run(probe, capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return [*how, *command], os.environ | {_MARK: "yes"}
    return list(command), dict(os.environ)


def is_isolated() -> bool:
    """Say whether this process has namespaces of its own."""
    return _MARK in os.environ


class Places:
    """Where the hosts of a run are."""

    def __init__(self, holders: list["subprocess.Popen[bytes]"]) -> None:
        """Take a process for each host, which holds its namespace; none: loopback."""
        self._holders: Final = holders
        self._cuts: Final[dict[tuple[int, int], int]] = {}

    @property
    def can_cut(self) -> bool:
        """Whether hosts can be cut off from each other."""
        return bool(self._holders)

    def address(self, host: int) -> str:
        """Return the address of a host."""
        return f"{_NETWORK}.{host + 1}" if self._holders else f"127.0.0.{host + 1}"

    def prefix(self, host: int) -> tuple[str, ...]:
        """Return what makes a command run on a host."""
        return ("nsenter", f"--net=/proc/{self._holders[host].pid}/ns/net") if self._holders else ()

    def cut(self, sender: int, receiver: int) -> None:
        """Lose what one host sends to another; as often as it was cut, it has to be mended."""
        held = self._cuts[sender, receiver] = self._cuts.get((sender, receiver), 0) + 1
        if held == 1:
            neighbour = ("neigh", "replace", self.address(receiver), "lladdr", _NOBODY)
            _run(*self.prefix(sender), "ip", *neighbour, "dev", "eth0", "nud", "permanent")

    def mend(self, sender: int, receiver: int) -> None:
        """Undo one cut."""
        self._cuts[sender, receiver] -= 1
        if not self._cuts[sender, receiver]:
            _run(*self.prefix(sender), "ip", "neigh", "del", self.address(receiver), "dev", "eth0")


@contextmanager
def places(hosts: int) -> Iterator[Places]:
    """Make places for so many hosts; they are gone afterwards."""
    if not is_isolated():
        yield Places([])
        return
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "middle", "type", "bridge")
    _run("ip", "address", "add", f"{_HERE}/24", "dev", "middle")
    _run("ip", "link", "set", "middle", "up")
    holders: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(hosts):
            holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
            holders.append(holder)
            _wait_for_namespace(holder.pid)
            _run(
                *("ip", "link", "add", f"host{number}", "type", "veth"),
                *("peer", "name", "eth0", "netns", str(holder.pid)),
            )
            _run("ip", "link", "set", f"host{number}", "master", "middle", "up")
            inside = ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "ip")
            _run(*inside, "address", "add", f"{_NETWORK}.{number + 1}/24", "dev", "eth0")
            _run(*inside, "link", "set", "eth0", "up")
            _run(*inside, "link", "set", "lo", "up")
        yield Places(holders)
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def _wait_for_namespace(pid: int) -> None:
    ours, until = Path("/proc/self/ns/net").readlink(), time.monotonic() + 10
    while Path(f"/proc/{pid}/ns/net").readlink() == ours:
        assert time.monotonic() < until, "unshare makes a network namespace at once"
        time.sleep(0.005)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"


def make_small(directory: Path) -> None:
    """Put a directory, with what is in it, on a small disk of its own."""
    made = directory.with_name(f"{directory.name}.made")
    directory.rename(made)
    directory.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "none", str(directory))
    shutil.copytree(made, directory, dirs_exist_ok=True)
    shutil.rmtree(made)


def fill(directory: Path, spare_bytes: int) -> Path:
    """Leave only so many bytes free on a small disk; return the file that takes the rest."""
    filler = directory / "filler"
    disk = os.statvfs(directory)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - spare_bytes))
    return filler
