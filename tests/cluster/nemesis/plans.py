"""Plans: what goes wrong in a run of the nemesis, drawn from one seed before the run begins.

Owns the shape of a plan and how one is drawn. A schedule repeats to the tenth of a second; what the processes make of it does
not, since their machine is real. Only the devices of one host, the victim, ever lose or damage what they hold, so that a majority of
every partition keeps it; whatever else goes wrong may go wrong anywhere, and at the same time.
"""

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

HOSTS: Final = 3
DEVICES: Final = 2
"""Of each host."""
PROXIES: Final = 2
"""On the first hosts."""
SKEWS_S: Final = (0.0, 0.0, 0.03, -0.4, 20.0, -40.0, 90.0, -90.0)
"""How far a proxy's clock may be ahead. Beyond a minute devices refuse what it writes, and name it."""


class Fault(Enum):
    """What may go wrong for a while."""

    KILL_DEVICE = "the process of a device is killed; its supervisor starts another"
    KILL_SUPERVISOR = "the supervisor of a host's devices is killed"
    KILL_HOST = "all processes of a host's devices are killed at once"
    KILL_WORKER = "the worker of a proxy is killed; its supervisor starts another"
    KILL_PROXY = "all processes of a proxy are killed at once"
    STOP_DEVICE = "the process of a device is stopped: alive, and silent"
    STOP_PROXY = "the worker of a proxy is stopped"
    FULL = "the disk of a device is full, but for its reserve or to the brim"
    EMPTY = "all files of a device are removed beneath its process, which is then killed; a new disk takes its place"
    ROT = "bits of volumes and files are flipped on the victim's devices"
    CUT = "hosts do not hear each other"
    SKEW = "the clock of a proxy jumps"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault."""

    fault: Fault
    at_s: float
    for_s: float
    host: int
    """From 0; of proxies, and of what only the victim suffers, drawn accordingly."""
    device: int
    """From 0, on its host."""
    dice: float
    """For whatever else must be chosen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run."""

    seed: int
    seconds: float
    """For how long clients are at work; every fault has ended by then."""
    victim: int
    """The one host whose devices may lose what they hold."""
    skews_s: tuple[float, ...]
    """How far the clock of each proxy is ahead when it starts."""
    troubles: tuple[Trouble, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.seconds:g} s, clocks {self.skews_s}, victim h{self.victim + 1}"]
        lines += [
            f"  at {one.at_s:.1f} s for {one.for_s:.1f} s: {one.fault.name} h{one.host + 1} d{one.device + 1} {one.dice:.4f}"
            for one in self.troubles
        ]
        return "\n".join(lines)

    @property
    def small_disks(self) -> frozenset[tuple[int, int]]:
        """Devices that are to be filled, by host and device."""
        return frozenset((one.host, one.device) for one in self.troubles if one.fault is Fault.FULL)


_OF_PROXIES: Final = frozenset({Fault.KILL_WORKER, Fault.KILL_PROXY, Fault.STOP_PROXY, Fault.SKEW})
_OF_THE_VICTIM: Final = frozenset({Fault.EMPTY, Fault.ROT})


def draw(seed: int, seconds: float) -> Plan:
    """Return the plan of a seed: one fault for each two seconds, and six at least, of which a few are at work at once."""
    random = Random(seed)
    victim = random.randrange(HOSTS)
    skews_s = tuple(random.choice(SKEWS_S[:6]) for _ in range(PROXIES))
    kinds = list(Fault)
    random.shuffle(kinds)
    count = max(6, round(seconds / 2))
    # Every kind comes up before any comes again.
    faults = (kinds * (1 + count // len(kinds)))[:count]
    troubles = []
    for at, fault in enumerate(faults):
        if fault is Fault.EMPTY and fault in faults[:at]:
            fault = Fault.KILL_DEVICE  # one disk is lost in a run
        for_s = min(random.expovariate(1 / random.choice((0.5, 2.0, 4.0))), seconds / 2)
        troubles.append(
            Trouble(
                fault,
                at_s=round(random.uniform(0.5, max(0.6, seconds - for_s)), 1),
                for_s=round(max(0.1, for_s), 1),
                host=_host(random, fault, victim),
                device=random.randrange(DEVICES),
                dice=random.random(),
            )
        )
    return Plan(seed, seconds, victim, skews_s, tuple(sorted(troubles, key=lambda one: one.at_s)))


def _host(random: Random, fault: Fault, victim: int) -> int:
    drawn = random.randrange(PROXIES if fault in _OF_PROXIES else HOSTS)
    return victim if fault in _OF_THE_VICTIM else drawn
