"""Troubles: how each fault is brought upon a cluster of real processes, and how it ends.

Owns the doing and the undoing of one fault at a time; several may be at work at once, each in a thread of its own, and find that
what they would strike is struck already. Never judges what comes of it.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path
from random import Random
from typing import Final

from storage_node.formatting import format_device
from tests.cluster.nemesis.places import Places, fill
from tests.cluster.nemesis.plans import HOSTS, PROXIES, SKEWS_S, Fault, Plan, Trouble
from tests.cluster.serve.clusters import HandMade, HandMadeHost, Program, processes_of, wait_for

RESERVE_BYTES: Final = 4 * 1024**2
"""Of every device: what a disk that is full has left for deletes and rows."""
NEVER_ENOUGH: Final = 2**50
FLIPS_MAX: Final = 8


class Tormentor:
    """Brings the troubles of one plan upon one cluster."""

    def __init__(self, cluster: HandMade, places: Places, plan: Plan, tell: Callable[[str], None]) -> None:
        """Take whom to strike, where they are, and who hears of each blow."""
        self._cluster: Final = cluster
        self._places: Final = places
        self._plan: Final = plan
        self._tell: Final = tell
        self._programs: Final = threading.Lock()
        """Held by who starts a program again, so that no two do."""
        self._rings: Final = threading.Lock()
        self.failures: Final[list[str]] = []

    def torment(self) -> list[threading.Thread]:
        """Begin with the plan; return the threads that see it through."""
        threads = [threading.Thread(target=self._suffer, args=(one,)) for one in self._plan.troubles]
        for thread in threads:
            thread.start()
        return threads

    def _suffer(self, trouble: Trouble) -> None:
        time.sleep(trouble.at_s)
        try:
            with self._struck(trouble) as what:
                self._tell(f"{trouble.fault.name} {what}")
                time.sleep(trouble.for_s)
            self._tell(f"{trouble.fault.name} {what}: over")
        except Exception as error:  # told at the end of the run, which proves nothing then
            self.failures.append(f"{trouble.fault.name} could not be brought about: {error!r}")

    @contextmanager
    def _struck(self, trouble: Trouble) -> Iterator[str]:
        host = self._cluster.hosts[trouble.host]
        name = list(host.device_ports)[trouble.device]
        dice = Random(trouble.dice)
        with ExitStack() as undo:
            match trouble.fault:
                case Fault.KILL_DEVICE:
                    what = self._signal(self._devices_of(host, name), signal.SIGKILL, name)
                case Fault.KILL_SUPERVISOR:
                    undo.callback(self._start_storage, host)
                    what = self._signal(
                        [self._cluster.storages[host.address].pid], signal.SIGKILL, host.address
                    )
                case Fault.KILL_HOST:
                    undo.callback(self._start_storage, host)
                    what = self._kill_all(self._cluster.storages[host.address], host.address)
                case Fault.KILL_WORKER:
                    what = self._signal(self._workers_of(host), signal.SIGKILL, host.address)
                case Fault.KILL_PROXY:
                    undo.callback(self._start_proxy, host)
                    what = self._kill_all(self._cluster.proxies[host.address], host.address)
                case Fault.STOP_DEVICE:
                    what = self._stop(self._devices_of(host, name), name, undo)
                case Fault.STOP_PROXY:
                    what = self._stop(self._workers_of(host), host.address, undo)
                case Fault.FULL:
                    what = self._fill(host, name, trouble, dice, undo)
                case Fault.EMPTY:
                    what = self._empty(host, name)
                    undo.callback(self._replace_disk, host, name)
                case Fault.ROT:
                    what = self._rot(host, dice)
                case Fault.CUT:
                    what = self._cut(dice, undo)
                case Fault.SKEW:
                    what = self._skew(host, dice, undo)
            yield what

    def restore(self) -> None:
        """See that everything runs that should, and goes on."""
        for number, host in enumerate(self._cluster.hosts):
            programs = [self._cluster.storages[host.address]]
            programs += [self._cluster.proxies[host.address]] if number < PROXIES else []
            for program in programs:
                for process in processes_of(program.group):
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGCONT)
            self._start_storage(host)
            if number < PROXIES:
                self._start_proxy(host)

    # --- processes ----------------------------------------------------------------------------------------------

    def _devices_of(self, host: HandMadeHost, name: str) -> list[int]:
        group = self._cluster.storages[host.address].group
        return [one.pid for one in processes_of(group) if f"--device {name} " in one.command]

    def _workers_of(self, host: HandMadeHost) -> list[int]:
        group = self._cluster.proxies[host.address].group
        return [one.pid for one in processes_of(group) if "--worker " in one.command]

    def _signal(self, pids: list[int], number: signal.Signals, whom: str) -> str:
        struck = []
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                struck.append(pid)
        return f"{whom}, processes {struck}"

    def _stop(self, pids: list[int], whom: str, undo: ExitStack) -> str:
        undo.callback(self._signal, pids, signal.SIGCONT, whom)
        return self._signal(pids, signal.SIGSTOP, whom)

    def _kill_all(self, program: Program, whom: str) -> str:
        with suppress(ProcessLookupError):
            os.killpg(program.group, signal.SIGKILL)
        return f"{whom}, group {program.group}"

    def _start_storage(self, host: HandMadeHost) -> None:
        with self._programs:
            if self._has_ended(self._cluster.storages[host.address]):
                self._cluster.start_storage(host)

    def _start_proxy(self, host: HandMadeHost) -> None:
        with self._programs:
            if self._has_ended(self._cluster.proxies[host.address]):
                self._cluster.start_proxy(host)

    def _has_ended(self, program: Program) -> bool:
        """Say whether a supervisor has ended; one that was killed a moment ago will have before long."""
        with suppress(OSError):  # it has ended, and was waited for
            state = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and program.process.poll() is None:
                return False
        program.process.wait(10)
        return True

    # --- disks --------------------------------------------------------------------------------------------------

    def _fill(self, host: HandMadeHost, name: str, trouble: Trouble, dice: Random, undo: ExitStack) -> str:
        directory = host.root / "devices" / name
        if not os.path.ismount(directory):
            before = host.storage.get("reserve_bytes", RESERVE_BYTES)
            undo.callback(self._configure, host, host.storage, {"reserve_bytes": before})
            self._configure(host, host.storage, {"reserve_bytes": NEVER_ENOUGH})
            return f"{host.address}, by its reserve"
        spare_bytes = dice.choice((0, 64 * 1024, RESERVE_BYTES // 2))
        undo.callback((directory / "filler").unlink, missing_ok=True)
        with suppress_full():
            fill(directory, spare_bytes)
        return f"{name}, {spare_bytes} bytes left"

    def _empty(self, host: HandMadeHost, name: str) -> str:
        directory = host.root / "devices" / name
        clear(directory)
        what = self._signal(self._devices_of(host, name), signal.SIGKILL, name)
        return f"{what}, nothing left in {directory}"

    def _replace_disk(self, host: HandMadeHost, name: str) -> None:
        """Do what an operator does: a fresh disk in the place of the old one, its uuid into the rings, the rings to all hosts."""
        directory = host.root / "devices" / name
        clear(directory)  # of what a process has put there that was about to die
        with self._rings:
            host.uuids[name] = format_device(directory)
            for builder in self._cluster.builders.values():
                (device,) = (each for each in builder.present() if each.name == name)
                builder.update(replace(device, uuid=host.uuids[name]))
            self._cluster.publish()
        with self._programs:
            for program in (*self._cluster.storages.values(), *self._cluster.proxies.values()):
                hang_up(program)

    def _rot(self, host: HandMadeHost, dice: Random) -> str:
        """Flip some bits of what the devices of a host have stored."""
        flipped = []
        for _ in range(dice.randint(1, FLIPS_MAX)):
            found = sorted(host.root.glob("devices/*/volumes/*.vol")) + sorted(
                host.root.glob("devices/*/files/*/*")
            )
            with suppress(OSError, IndexError):  # what is chosen may be gone by then
                path = dice.choice(found)
                with path.open("r+b") as file:
                    at = dice.randrange(path.stat().st_size)
                    file.seek(at)
                    byte = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([byte ^ 1 << dice.randrange(8)]))
                flipped.append(f"{path.relative_to(host.root / 'devices')}@{at}")
        return ", ".join(flipped) or "nothing is there yet"

    # --- the network and clocks ---------------------------------------------------------------------------------

    def _cut(self, dice: Random, undo: ExitStack) -> str:
        side = dice.sample(range(HOSTS), dice.randint(1, HOSTS - 1))
        rest = [host for host in range(HOSTS) if host not in side]
        ways = [(one, other) for one in side for other in rest]
        if dice.random() < 0.7:
            ways += [(other, one) for one, other in ways]
        if not self._places.can_cut:
            return "left out: this machine lets us make no network"
        for sender, receiver in ways:
            self._places.cut(sender, receiver)
            undo.callback(self._places.mend, sender, receiver)
        return ", ".join(f"h{sender + 1} to h{receiver + 1}" for sender, receiver in ways)

    def _skew(self, host: HandMadeHost, dice: Random, undo: ExitStack) -> str:
        offset_s = dice.choice(SKEWS_S)
        before = host.proxy["clock_offset_s"]
        undo.callback(self._configure, host, host.proxy, {"clock_offset_s": before})
        self._configure(host, host.proxy, {"clock_offset_s": offset_s})
        return f"{host.address} by {offset_s} s"

    def _configure(self, host: HandMadeHost, table: dict[str, object], settings: dict[str, object]) -> None:
        """Change a host's file, and have its programs read it again."""
        with self._programs:
            table.update(settings)
            host.write()
            for programs in (self._cluster.storages, self._cluster.proxies):
                program = programs.get(host.address)
                if program is not None:
                    hang_up(program)


def hang_up(program: Program) -> None:
    """Have a supervisor read its files again. One that is starting is waited for: it would die of the signal, like most programs."""

    def hears_or_is_gone() -> bool:
        with suppress(OSError):
            status = Path(f"/proc/{program.pid}/status").read_text()
            (caught,) = [
                int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")
            ]
            return bool(caught & 1 << signal.SIGHUP - 1) or program.process.poll() is not None
        return True

    wait_for(hears_or_is_gone, f"{program.pid} hears a hangup")
    if program.process.poll() is None:
        program.process.send_signal(signal.SIGHUP)


@contextmanager
def suppress_full() -> Iterator[None]:
    """Somebody else was faster to take what was left of a disk."""
    try:
        yield
    except OSError as error:
        if error.errno != ENOSPC:
            raise


def clear(directory: Path) -> None:
    """Remove all that is in a directory, whatever is made there meanwhile."""

    def is_empty() -> bool:
        for path in list(directory.iterdir()):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return not any(directory.iterdir())

    wait_for(is_empty, f"{directory} is empty")
