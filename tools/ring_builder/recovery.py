"""The command that makes a builder from its ring: `write_builder`, for when the builder file is lost."""

from dataclasses import replace
from typing import Final

import click
import numpy as np

from ring.builder import RingBuilder
from ring.builder.builder import Ids
from ring.file import load_ring
from ring.ring import NOBODY, Ring
from tools.ring_builder.grammar import HOURS, command, pass_session
from tools.ring_builder.rings import say_epoch
from tools.ring_builder.session import BUILDER_SUFFIX, NO_SEED, RING_SUFFIX, Session

MIN_PART_HOURS: Final = 24.0
"""Unless told otherwise; as Swift has it."""

LOST: Final = (
    "lost are the overload, which devices were removed (they have weight 0), the history, and when partitions moved, so that"
    " all rest from now on"
)


@command("write_builder")
@click.argument("min_part_hours", type=HOURS, default=MIN_PART_HOURS)
@pass_session
def write_builder(session: Session, min_part_hours: float) -> None:
    """Make a builder from the ring beside it, when the builder is lost. FILE names either of the two.

    Kept are devices, weights, uuids, assignment, moves and ancestors; lost are the overload, which devices were removed
    (they have weight 0), the history, and when partitions moved, so that all rest for MIN_PART_HOURS from now on.
    """
    path = session.builder_path
    if path.name.endswith(RING_SUFFIX):
        beside = path.with_name(path.name.removesuffix(RING_SUFFIX) + BUILDER_SUFFIX)
        session = replace(session, builder_path=beside)
    session.check_free()
    builder = builder_of(load_ring(session.ring_path, NO_SEED), min_part_hours, session.now_s)
    session.save(builder)
    say_epoch(session, builder, f"{session.builder_path} is made; {LOST}", {"lost": LOST})


def builder_of(ring: Ring, min_part_hours: float, now_s: int) -> RingBuilder:
    """Return a builder whose next ring descends from this one."""
    return RingBuilder(
        id=ring.builder_id,
        name=ring.name,
        part_power=ring.part_power,
        replicas=ring.replicas,
        min_part_hours=min_part_hours,
        devices=list(ring.devices),
        owners=_table(ring.rows, ring.partition_count),
        moving_partitions=np.array(ring.moving_partitions, np.uint32),
        moving_rows=_table(ring.moving_rows, len(ring.moving_partitions)),
        moved_at_s=np.full(ring.partition_count, now_s, np.uint32),
        lineage=bytes(ring.ancestors) + ring.checksum,
    )


def _table(rows: tuple[memoryview, ...], columns: int) -> Ids:
    """Copy rows, of which the last may end early, into one table."""
    table = np.full((len(rows), columns), NOBODY, np.uint32)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table
