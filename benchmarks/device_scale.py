"""What a device costs as it fills: 10 million objects beside 100,000, and pages of long listings beside short ones.

usage: python -m benchmarks.device_scale [--objects N] [--rounds R] [--seconds S] [--directory DIR] [--json FILE]

Each stage is a process of its own (`our_device`): memory is counted where nothing but the device was ever loaded. The
small and the large device take turns, so that what neighbours do to the machine hits both.
"""

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from benchmarks.processes import Figures, MeasurementError, figures_of_module
from benchmarks.tables import table

SMALL_OBJECTS: Final = 100_000
SMALL_ROWS: Final = 1_000
MEGABYTE: Final = 10**6

OBJECT_DISK_BYTES: Final = 1_200
"""On disk for each object of 100 bytes and each row, with room to spare; measured at 850 and 450."""
SPARE_BYTES: Final = 4 * 10**9

PRIVATE_BYTES_GOAL: Final = 200 * MEGABYTE
START_S_GOAL: Final = 2.0
RATE_GOAL: Final = 0.70
DISK_BYTES_GOAL: Final = 20 * 10**9
DISK_OBJECTS_GOAL: Final = 10_000_000
"""What the goal of the disk is said for; fewer objects may take their share."""
PAGE_GOAL: Final = 1.5
"""A page of the longest listing, over one of the shortest that can fill it: trees grow deeper and caches colder."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    goal: str
    small: str
    large: str
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Lay it out."""
        verdict = "" if self.met is None else "met" if self.met else "missed"
        return self.what, self.goal, self.small, self.large, verdict


def measure_objects(scratch: Path, count: int, rounds: int, seconds: float) -> Figures:
    """Fill a small and a large device, and let them serve in turns."""
    counts = {"small": min(SMALL_OBJECTS, count), "large": count}
    figures: Figures = {"rounds": {name: [] for name in counts}}
    for name, objects in counts.items():
        figures[name] = figures_of_module("our_device", "fill", scratch / name, str(objects))
    put = dict(counts)
    for _ in range(rounds):
        for name, objects in counts.items():
            arguments: list[str | Path] = [
                scratch / name,
                str(objects),
                str(put[name]),
                "--seconds",
                str(seconds),
            ]
            served = figures_of_module("our_device", "serve", *arguments)
            put[name] += served["put"]
            figures["rounds"][name].append(served)
    return figures


def measure_listings(scratch: Path, counts: list[int], seconds: float) -> Figures:
    """Fill listings of so many rows and ask for pages of each."""
    arguments: list[str | Path] = [scratch / "rows", *map(str, counts)]
    filled = figures_of_module("our_device", "fill-rows", *arguments)
    pages = figures_of_module("our_device", "list", *arguments, "--seconds", str(seconds))
    return {**filled, "pages": pages}


def judge_objects(figures: Figures, count: int) -> list[Row]:
    """Lay the large device beside the small one."""
    rounds = figures["rounds"]

    def over_rounds(choose: Callable[[list[float]], float], field: str) -> tuple[float, float]:
        small, large = (choose([served[field] for served in rounds[name]]) for name in ("small", "large"))
        return small, large

    rows = []
    for what, field in (("100-byte put, 64 in flight", "put_per_s"), ("100-byte get, warm", "get_per_s")):
        small, large = over_rounds(statistics.median, field)
        share = large / small
        cells = f"{small:,.0f}/s", f"{large:,.0f}/s ({share:.0%})"
        rows.append(Row(what, f">= {RATE_GOAL:.0%} of small", *cells, share >= RATE_GOAL))
    small, large = over_rounds(max, "private_bytes")
    goal, cells = f"< {_megabytes(PRIVATE_BYTES_GOAL)}", (_megabytes(small), _megabytes(large))
    rows.append(Row("private memory (RssAnon)", goal, *cells, large < PRIVATE_BYTES_GOAL))
    small, large = over_rounds(max, "start_s")
    cells = f"{small * 1_000:.0f} ms", f"{large * 1_000:.0f} ms"
    rows.append(Row("start", f"< {START_S_GOAL:.0f} s", *cells, large < START_S_GOAL))
    small, large = figures["small"]["disk_bytes"], figures["large"]["disk_bytes"]
    disk_goal = DISK_BYTES_GOAL * count / DISK_OBJECTS_GOAL
    cells = _megabytes(small), _megabytes(large)
    rows.append(Row("disk", f"< {_megabytes(disk_goal)}", *cells, large < disk_goal))
    small, large = figures["small"]["fill_per_s"], figures["large"]["fill_per_s"]
    return [*rows, Row("bulk fill", "", f"{small:,.0f}/s", f"{large:,.0f}/s")]


def _megabytes(count: float) -> str:
    return f"{count / MEGABYTE:,.0f} MB"


def judge_pages(figures: Figures, counts: list[int]) -> list[tuple[str, ...]]:
    """Lay pages of long listings beside those of short ones."""
    pages, rows = figures["pages"], []
    for kind in ("100 names", "100 prefixes", "10,000 names"):
        times = [pages[f"{kind} of {count}"] for count in counts]
        full = times
        if kind == "10,000 names":
            # A short listing cannot fill the page: it is judged among those that can.
            full = [time for time, count in zip(times, counts, strict=True) if count > 10_000]
        ratio = full[-1] / full[0] if len(full) > 1 else None
        verdict = "" if ratio is None else "met" if ratio <= PAGE_GOAL else "missed"
        cells = [f"{time * 1_000:.2f} ms" for time in times]
        shown = "" if ratio is None else f"{ratio:.2f} x"
        rows.append((f"page of {kind}", f"<= {PAGE_GOAL} x", *cells, shown, verdict))
    return rows


def refuse_small_disk(directory: Path, count: int) -> None:
    """End with a sentence when the scratch would not fit."""
    needed = OBJECT_DISK_BYTES * 2 * count + SPARE_BYTES
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise click.ClickException(
            f"{directory} has {_megabytes(free)} free and {count:,} objects may need {_megabytes(needed)}: "
            f"give a --directory on a larger disk, or fewer --objects"
        )


@click.command(help=__doc__.partition("\n")[0])
@click.option(
    "--objects", "count", default=400_000, show_default=True, type=click.IntRange(100_000), help="How many."
)
@click.option("--rounds", default=2, show_default=True, type=click.IntRange(1), help="Turns of each device.")
@click.option("--seconds", default=3.0, show_default=True, help="How long each rate is measured.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the scratch directory goes, which is removed at the end; the system's by default.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Keep every figure here."
)
def main(count: int, rounds: int, seconds: float, directory: Path | None, json_file: Path | None) -> None:
    """Measure, print, and exit with 1 when a goal is missed."""
    refuse_small_disk(directory or Path(tempfile.gettempdir()), count)
    scratch = Path(tempfile.mkdtemp(prefix="device-scale-", dir=directory))
    row_counts = [SMALL_ROWS, count // 10, count]
    try:
        objects = measure_objects(scratch, count, rounds, seconds)
        rows = [row.cells() for row in judge_objects(objects, count)]
        small = min(SMALL_OBJECTS, count)
        click.echo(table(["", "goal", f"{small:,} objects", f"{count:,} objects", ""], rows))
        _keep(json_file, {"objects": objects})
        listings = measure_listings(scratch, row_counts, seconds)
    except MeasurementError as error:
        raise click.ClickException(f"a measurement failed: {error}") from None
    finally:
        shutil.rmtree(scratch)
    _keep(json_file, {"objects": objects, "listings": listings})
    pages = judge_pages(listings, row_counts)
    click.echo()
    click.echo(table(["", "goal", *(f"{rows:,} rows" for rows in row_counts), "last / first", ""], pages))
    click.echo(f"\nrows were filled at {listings['fill_per_s']:,.0f}/s")
    sys.exit(1 if any(cells[-1] == "missed" for cells in [*rows, *pages]) else 0)


def _keep(json_file: Path | None, figures: dict[str, Figures]) -> None:
    """Write down what was measured so far: a long run that fails late keeps its first half."""
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
