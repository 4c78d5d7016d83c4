"""The scale ahead: our builder and reader at sizes that clusters may grow to, one process each, figures only.

A process that needs more memory than the machine has free, or more than its time, is given up, and the table says so.
"""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.clusters import Shape, write_cluster
from benchmarks.processes import Figures, MeasurementError, available_bytes, figures_of_module
from benchmarks.tables import table

DEVICES_PER_HOST: Final = 10
SHAPES: Final = tuple(
    Shape(part_power, devices, devices // DEVICES_PER_HOST)
    for part_power in (22, 24)
    for devices in (10_000, 70_000)
)
LOOKUPS: Final = 200_000
TIMEOUT_S: Final = 1_800.0
SPARED_BYTES: Final = 2 << 30
"""Left to whoever else is on the machine."""


def measure_scale(shape: Shape) -> Figures:
    """Build, grow, write and load one ring; where it does not fit, the figures are its name and why."""
    named: Figures = {"part_power": shape.part_power, "devices": shape.devices, "hosts": shape.hosts}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cluster = directory / "cluster.json"
        write_cluster(cluster, shape)
        limit_bytes = max(0, available_bytes() - SPARED_BYTES)
        try:
            built = figures_of_module(
                "our_builder", cluster, directory, str(limit_bytes), timeout_s=TIMEOUT_S
            )
            read = figures_of_module(
                "our_reader", directory / "first.ring", str(LOOKUPS), timeout_s=TIMEOUT_S
            )
        except MeasurementError as error:
            return {**named, "given_up": f"given up with {limit_bytes / 1e9:.1f} GB to use: {error}"}
    return {**named, **built, **read}


def scale_table(measured: list[Figures]) -> str:
    """Lay out the figures of all sizes."""
    head = (
        "partitions",
        "devices",
        "first rebalance",
        "one device added",
        "peak memory",
        "ring file",
        "load",
        "private",
    )
    rows = [(f"2^{each['part_power']}", f"{each['devices']:,}", *_cells(each)) for each in measured]
    return table(head, rows)


def _cells(each: Figures) -> tuple[str, ...]:
    if "given_up" in each:
        return (str(each["given_up"]), "", "", "", "", "")
    return (
        f"{each['first_s']:.1f} s",
        f"{each['add_s']:.1f} s",
        f"{each['peak_bytes'] / 1e6:,.0f} MB",
        f"{each['file_bytes'] / 1e6:,.0f} MB",
        f"{each['load_s'] * 1e3:.0f} ms",
        f"{each['load_bytes'] / 1e6:.1f} MB",
    )
