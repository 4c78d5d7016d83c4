"""How the ring builder's answers look to a person: tables, a few lines, and a sign of life while it works.

Owns looks only: what is drawn comes from `documents`, and nothing of it is interpreted as markup.
"""

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TextIO

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tools.ring_builder.documents import Document

WIDE: Final = 10_000
"""Columns off a terminal: a line of a file or pipe is never folded."""
FLOWS_SHOWN: Final = 10
PATIENCE_S: Final = 1.0
"""Work that takes longer shows a sign of life."""


def console(stream: TextIO) -> Console:
    """Return a console that prints text as it is: a device may be called `[red]`."""
    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


@contextmanager
def sign_of_life(doing: str) -> Iterator[None]:
    """Show on a terminal what takes long and for how long it has; elsewhere show nothing."""
    if not sys.stderr.isatty():
        yield
        return
    bar = Progress(
        SpinnerColumn(), TextColumn(doing), TimeElapsedColumn(), console=console(sys.stderr), transient=True
    )
    bar.add_task(doing, total=None)
    timer = threading.Timer(PATIENCE_S, bar.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # so that it cannot start after it was stopped
        bar.stop()


def show_lines(*lines: str) -> None:
    """Print sentences, one a line."""
    for line in lines:
        print(line)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers stand to the right."""
    rows = [[_cell(value) for value in row] for row in rows]
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, column in enumerate(table.columns):
        if rows and all(_is_number(row[number]) for row in rows):
            column.justify = "right"
        column.overflow = "fold"
    for row in rows:
        table.add_row(*row)
    console(sys.stdout).print(table)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.2f}"
        case int():
            return str(value)
        case list():
            return " ".join(value)
        case _:
            return str(value)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(",", "").replace(".", "", 1).lstrip("-+").isdecimal()


def show_ring(file: Path, document: Document) -> None:
    """Print the table of a ring."""
    ring_file = document["ring_file"]
    show_lines(
        f"{file}: ring {document['ring']}, epoch {document['epoch']}, builder {document['builder_id']}",
        f"{document['partitions']} partitions (2^{document['part_power']}), {document['replicas']:g} replicas,"
        f" {document['regions']} regions, {document['zones']} zones, {document['device_count']} devices,"
        f" {document['balance_percent']:.2f}% balance, {document['dispersion_percent']:.2f}% dispersion",
        f"overload {document['overload']:.2%}; a partition rests for {document['min_part_hours']:g} hours after a move"
        f" ({clock(document['seconds_to_wait'])} remaining); {_moving(document['moving_partitions'])}",
        f"ring file {ring_file['path']}: {ring_file['standing']}",
    )
    show_devices(document["devices"])


def _moving(partitions: int) -> str:
    return f"{partitions} partitions are moving" if partitions else "nothing is moving"


def show_devices(devices: Sequence[Document]) -> None:
    """Print devices and what they hold."""
    if not devices:
        show_lines("there are no devices yet")
        return
    show_table(
        ("id", "region", "zone", "address:port", "name", "weight", "replicas", "balance %", "flags", "meta"),
        (
            (
                device["id"],
                device["region"],
                device["zone"],
                f"{bracketed(device['ip'])}:{device['port']}",
                device["device"],
                f"{device['weight']:.10g}",
                device["replicas"],
                device["balance_percent"],
                device["flags"],
                device["meta"],
            )
            for device in devices
        ),
    )


def bracketed(host: str) -> str:
    """Write a host so that a port can follow it."""
    return f"[{host}]" if ":" in host else host


def show_moves(document: Document) -> None:
    """Print from where to where replicas move."""
    show_table(
        ("from zone", "to zone", "replicas"),
        ((flow["from"], flow["to"], flow["replicas"]) for flow in document["zone_flows"]),
    )
    flows = document["device_flows"]
    show_table(
        ("from device", "to device", "replicas"),
        ((flow["from"], flow["to"], flow["replicas"]) for flow in flows[:FLOWS_SHOWN]),
    )
    if len(flows) > FLOWS_SHOWN:
        show_lines(f"and {len(flows) - FLOWS_SHOWN} smaller flows between devices; --json names them all")


def show_rebalance(document: Document) -> None:
    """Print what a rebalance did, or would do."""
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in document["replicas_by_reason"].items() if count
    )
    placed = (
        f"epoch {document['epoch']}, the first: {document['replicas']} replicas have their place, none moves"
    )
    show_lines(
        placed
        if document["epoch"] == 1
        else f"epoch {document['epoch']}: {document['replicas_moved']} replicas of {document['partitions_moved']} partitions"
        f" move, {document['percent_of_cluster']:.2f}% of the cluster{f' ({reasons})' if reasons else ''}",
        f"balance {document['balance_percent']:.2f}%, dispersion {document['dispersion_percent']:.2f}%",
    )
    if document["draining_replicas"]:
        show_lines(f"{document['draining_replicas']} replicas are still to be drained")
    if document["held_back"]:
        show_lines(
            f"{document['held_back']} replicas are held back: their partitions moved within min_part_hours, or another of"
            " their replicas moves now; rebalance again once these have settled and the hours have passed"
        )
    show_lines(*document["notes"])


def show_dispersion(document: Document) -> None:
    """Print how far apart replicas stand, a row for each tier."""
    show_lines(
        f"{document['dispersion_percent']:.2f}% dispersion: {document['crowded_replicas']} of {document['replicas']} replicas"
        " stand closer to another of their partition than they need to"
    )
    counts = sorted({int(n) for tier in document["tiers"] for n in tier["partitions_by_distinct"]})
    show_table(
        ("tier", "there are", *(f"partitions in {n}" for n in counts), "crowded replicas"),
        (
            (
                tier["tier"],
                tier["nodes"],
                *(tier["partitions_by_distinct"].get(str(n), 0) for n in counts),
                tier["crowded_replicas"],
            )
            for tier in document["tiers"]
        ),
    )
    partners = document["partners_per_device"]
    if partners:
        show_lines(
            f"the other replicas of a device's partitions are on {partners['fewest']} to {partners['most']} devices"
            f" (median {partners['median']:g}): so many share a repair"
        )


def clock(seconds: int) -> str:
    """Write a time to wait as 1:02:03."""
    return str(timedelta(seconds=seconds))
