"""Our ring builder beside OpenStack Swift's, in one run on the same devices: what `make bench-ring` runs.

Every measurement is a process of its own, ours and Swift's in turn (A A A B A A A B), and the CPU time of the call alone,
user and system, is what counts; of several lives the medians are compared. Both assignments are judged by
the same functions over plain arrays. Exit status: 0 when all goals that were measured are met, 1 when one is missed.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import starmap
from pathlib import Path
from typing import Final

from benchmarks.assignments import (
    TIERS,
    Domains,
    crowded,
    imbalance_percent,
    least_moves,
    moves,
    partners,
    random_assignment,
    read_assignment,
    spread,
)
from benchmarks.clusters import FULL, QUICK, Shape, disks, write_cluster
from benchmarks.peers import SWIFT_VERSION, PeerMissingError, swift_python
from benchmarks.processes import Figures, MeasurementError, figures_of, figures_of_module
from benchmarks.ring_scale import SHAPES, measure_scale, scale_table
from benchmarks.tables import table

PEER: Final = Path(__file__).with_name("peer_swift_ring.py")
OURS: Final = "ours"
SWIFT: Final = "swift"

FIRST_TIMES_FASTER: Final = 50.0
ADD_TIMES_FASTER: Final = 30.0
MOVES_RATIO_MAX: Final = 1.02
PEAK_BYTES_MAX: Final = 600e6
LOAD_S_MAX: Final = 0.050
LOAD_BYTES_MAX: Final = 2e6
LOOKUPS_PER_S_MIN: Final = 400_000.0
PARTNERS_RATIO_MIN: Final = 0.5

LOOKUPS: Final = 1_000_000
OUR_LIVES_A_ROUND: Final = 3
"""Ours is over in a second, so what neighbours do to the caches weighs more: one life has been 30 % off another."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison."""

    name: str
    goal: str
    ours: str
    swift: str = ""
    ratio: str = ""
    met: bool | None = None
    """None: there is no goal, or nothing to compare with."""
    close: bool = False
    """Single lives fall on both sides of the goal, so another run may judge otherwise."""

    def cells(self) -> tuple[str, ...]:
        """Write it as cells."""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return (self.name, self.goal, self.ours, self.swift, self.ratio, verdict + ", close" * self.close)


HEAD: Final = ("", "goal", "ours", "Swift", "Swift / ours", "")


# Measuring


def measure(cluster: Path, directory: Path, rounds: int, peer: Path | None) -> dict[str, list[Figures]]:
    """Let the builders live and their rings be read, in turn; the files of the last lives stay in `directory`."""
    ours, theirs = directory / OURS, directory / SWIFT
    ours.mkdir()
    theirs.mkdir()
    measured: dict[str, list[Figures]] = {OURS: [], SWIFT: []}
    for _ in range(rounds):
        for _ in range(OUR_LIVES_A_ROUND):
            built = figures_of_module("our_builder", cluster, ours)
            read = figures_of_module("our_reader", ours / "first.ring", str(LOOKUPS))
            measured[OURS].append(built | read)
        if peer is not None:
            built = figures_of([peer, "-P", PEER, "build", cluster, theirs])
            read = figures_of([peer, "-P", PEER, "read", theirs / "first.ring.gz", str(LOOKUPS)])
            measured[SWIFT].append(built | read)
    return measured


def summary(lives: Sequence[Figures]) -> Figures:
    """Take the median of every figure over all lives; under `<name>_range`, its least and its most."""
    figures: Figures = {}
    for key in lives[0]:
        values = [life[key] for life in lives]
        figures[key] = statistics.median(values)
        figures[f"{key}_range"] = (min(values), max(values))
    return figures


def judge(shape: Shape, directory: Path) -> Figures:
    """Judge the assignments that one side left in its directory."""
    grown = disks(shape)
    first, added = (read_assignment(directory / f"{name}.u32", shape) for name in ("first", "added"))
    before, after = Domains.of(grown[:-1]), Domains.of(grown)
    moved = moves(first, added)
    by_chance = partners(random_assignment(shape, before, seed=1), shape.devices)
    shared = partners(first, shape.devices)
    return {
        "imbalance_first": imbalance_percent(first, before),
        "imbalance_added": imbalance_percent(added, after),
        "spread_first": {tier: spread(first, before, n) for n, tier in enumerate(TIERS)},
        "spread_added": {tier: spread(added, after, n) for n, tier in enumerate(TIERS)},
        "crowded_first": {tier: crowded(first, before, n) for n, tier in enumerate(TIERS)},
        "crowded_added": {tier: crowded(added, after, n) for n, tier in enumerate(TIERS)},
        "moves": moved,
        "least_moves": least_moves(shape, grown),
        "moves_ratio": moved / least_moves(shape, grown),
        "partners_fewest": int(shared.min()),
        "partners_median": float(statistics.median(shared.tolist())),
        "partners_by_chance_median": float(statistics.median(by_chance.tolist())),
        "partners_ratio_least": float((shared / by_chance).min()),
    }


# Comparing


def compare(ours: Figures, swift: Figures, *, at_full_size: bool) -> list[Row]:
    """Set both sides beside each other and beside the goals; `swift` is empty where it was not measured.

    How many times faster depends on the size, so that goal is judged at full size only.
    """
    return [
        _speed("first rebalance", "first_s", FIRST_TIMES_FASTER if at_full_size else None, ours, swift),
        _speed("one device added", "add_s", ADD_TIMES_FASTER if at_full_size else None, ours, swift),
        _bounded("moves / least possible", "moves_ratio", "{:.4f}", 1, MOVES_RATIO_MAX, ours, swift),
        *_quality("first", "after the first", ours, swift),
        *_quality("added", "after the addition", ours, swift),
        _bounded("peak memory, first rebalance", "first_peak_bytes", "{:,.0f} MB", 1e-6, PEAK_BYTES_MAX, ours, swift),
        _bounded("load a ring, CPU", "load_s", "{:.1f} ms", 1e3, LOAD_S_MAX, ours, swift),
        _bounded("private memory of a load", "load_bytes", "{:.2f} MB", 1e-6, LOAD_BYTES_MAX, ours, swift),
        _bounded("... and of look-ups", "asked_bytes", "{:.2f} MB", 1e-6, LOAD_BYTES_MAX, ours, swift),
        _floored("partition + primaries, per s", "lookups_per_s", "{:,.0f}", LOOKUPS_PER_S_MIN, ours, swift),
        _floored("partners / by chance, least", "partners_ratio_least", "{:.3f}", PARTNERS_RATIO_MIN, ours, swift),
        Row("partners, fewest / median", _partners_by_chance(ours), _partners(ours), _partners(swift)),
    ]  # fmt: skip


def _speed(name: str, key: str, times_faster: float | None, ours: Figures, swift: Figures) -> Row:
    goal = f">= {times_faster:.0f} x faster" if times_faster else ""
    mine = _seconds(key, ours, 2)
    if not swift:
        return Row(name, goal, mine)
    ratio = swift[key] / ours[key]
    # The least and the most that any two lives give, so that a verdict that noise decides can be seen.
    least = swift[f"{key}_range"][0] / ours[f"{key}_range"][1]
    most = swift[f"{key}_range"][1] / ours[f"{key}_range"][0]
    compared = f"{ratio:.1f} x ({least:.0f}-{most:.0f})"
    if times_faster is None:
        return Row(name, goal, mine, _seconds(key, swift, 1), compared)
    met, close = ratio >= times_faster, least < times_faster <= most
    return Row(name, goal, mine, _seconds(key, swift, 1), compared, met, close)


def _seconds(key: str, side: Figures, digits: int) -> str:
    least, most = side[f"{key}_range"]
    return f"{side[key]:.{digits}f} s ({least:.{digits}f}-{most:.{digits}f})"


def _bounded(name: str, key: str, form: str, unit: float, most: float, ours: Figures, swift: Figures) -> Row:
    theirs, ratio = _beside(key, form, unit, ours, swift)
    goal = f"<= {form.format(most * unit)}"
    return Row(name, goal, form.format(ours[key] * unit), theirs, ratio, ours[key] <= most)


def _floored(name: str, key: str, form: str, least: float, ours: Figures, swift: Figures) -> Row:
    theirs, ratio = _beside(key, form, 1, ours, swift)
    return Row(name, f">= {form.format(least)}", form.format(ours[key]), theirs, ratio, ours[key] >= least)


def _beside(key: str, form: str, unit: float, ours: Figures, swift: Figures) -> tuple[str, str]:
    if not swift:
        return "", ""
    return form.format(swift[key] * unit), f"{swift[key] / ours[key]:.2f} x" if ours[key] else ""


def _partners_by_chance(ours: Figures) -> str:
    return f"by chance {ours['partners_by_chance_median']:.0f}"


def _partners(side: Figures) -> str:
    return f"{side['partners_fewest']} / {side['partners_median']:.0f}" if side else ""


def _quality(when: str, name: str, ours: Figures, swift: Figures) -> list[Row]:
    """Compare the balance and the dispersion of both assignments."""
    off, crowd = f"imbalance_{when}", f"crowded_{when}"
    total = {
        side: sum(figures[crowd].values()) for side, figures in ((OURS, ours), (SWIFT, swift)) if figures
    }
    no_worse = all(ours[crowd][tier] <= swift[crowd][tier] for tier in TIERS) if swift else None
    return [
        Row(
            f"furthest off its weight, {name}",
            "<= Swift's",
            f"{ours[off]:.4f} %",
            f"{swift[off]:.4f} %" if swift else "",
            f"{swift[off] / ours[off]:.2f} x" if swift and ours[off] else "",
            ours[off] <= swift[off] if swift else None,
        ),
        Row(
            f"crowded replicas, {name}",
            "<= Swift's",
            f"{total[OURS]:,}",
            f"{total[SWIFT]:,}" if swift else "",
            "",
            no_worse,
        ),
    ]


def spread_table(ours: Figures, swift: Figures) -> str:
    """Lay out how many partitions lie on how many distinct nodes, tier by tier."""
    rows = [
        (side, when, tier, *(f"{count:,}" for count in figures[key][tier]), f"{figures[crowd][tier]:,}")
        for side, figures in (("ours", ours), ("Swift", swift))
        if figures
        for when, key, crowd in (
            ("first", "spread_first", "crowded_first"),
            ("added", "spread_added", "crowded_added"),
        )
        for tier in TIERS
    ]
    return table(("", "", "partitions by distinct", "on 1", "on 2", "on 3", "crowded"), rows)


# Telling


def machine() -> dict[str, str]:
    """Name what the figures were measured on."""
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    cores = Path("/proc/cpuinfo").read_text().count("processor\t")
    return {
        "CPU": f"{cpu}, {cores} cores",
        "Python": platform.python_version(),
        "numpy": version("numpy"),
        "swift": SWIFT_VERSION,
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ring", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="2^16 partitions, 200 devices: seconds, not minutes"
    )
    parser.add_argument("--hosts", type=int, help="hosts in all (default: 100, or 20 with --quick)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side is measured (default: 2)")
    parser.add_argument("--no-peer", action="store_true", help="measure our side alone")
    parser.add_argument(
        "--scale", action="store_true", help="add the table of 10,000 and 70,000 devices, ours alone"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures of every life")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    if given.hosts is not None and given.hosts < 1:
        parser.error("--hosts must be at least 1")
    return given


def find_peer(*, wanted: bool) -> Path | None:
    """Return the Python that has Swift, or say why there is none."""
    if not wanted:
        return None
    try:
        return swift_python()
    except PeerMissingError as error:
        print(error, file=sys.stderr)
        return None


def main() -> int:
    """Measure, compare, tell."""
    given = arguments()
    shape = QUICK if given.quick else FULL
    if given.hosts:
        shape = replace(shape, hosts=given.hosts)
    peer = find_peer(wanted=not given.no_peer)
    print("; ".join(starmap("{}: {}".format, machine().items())))
    print(
        f"{shape}\nmedians and (least-most) of {OUR_LIVES_A_ROUND * given.rounds} lives of ours and {given.rounds} of Swift's, "
        "CPU seconds (user + system) of the call, each life in a fresh process\n"
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cluster = directory / "cluster.json"
        write_cluster(cluster, shape)
        measured = measure(cluster, directory, given.rounds, peer)
        sides = {
            side: summary(lives) | judge(shape, directory / side) if lives else {}
            for side, lives in measured.items()
        }
    rows = compare(sides[OURS], sides[SWIFT], at_full_size=not given.quick)
    print(table(HEAD, [row.cells() for row in rows]))
    print(f"\n{spread_table(sides[OURS], sides[SWIFT])}", flush=True)
    scale = [measure_scale(each) for each in SHAPES] if given.scale else []
    if scale:
        print(f"\n{scale_table(scale)}")
    if given.json:
        kept = {
            "machine": machine(),
            "shape": asdict(shape),
            "lives": measured,
            "sides": sides,
            "scale": scale,
        }
        given.json.write_text(json.dumps(kept, indent=2) + "\n")
    missed = [row.name for row in rows if row.met is False]
    print(f"\nmissed: {', '.join(missed)}" if missed else "\nno goal missed")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MeasurementError as error:
        sys.exit(f"a measurement failed: {error}")
