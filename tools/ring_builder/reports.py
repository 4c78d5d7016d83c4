"""The commands that only look: the table of the ring, search, list_parts, dispersion, validate, version."""

from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version as version_of
from statistics import median
from typing import Any

import numpy as np

from ring.builder import RingBuilder
from ring.builder import file as builder_file
from ring.builder.report import balance, dispersion, known, partners_per_device, validate
from ring.errors import RingError
from tools.ring_builder.documents import (
    Document,
    balances_document,
    dispersion_document,
    ring_document,
)
from tools.ring_builder.grammar import command, pass_session, search_options, values_argument
from tools.ring_builder.notation import Search
from tools.ring_builder.selection import find, searches
from tools.ring_builder.session import Exit, Session, made_by
from tools.ring_builder.tables import show_devices, show_dispersion, show_lines, show_ring, sign_of_life


def table(session: Session) -> Exit:
    """Show the whole ring."""
    builder = session.load()
    with sign_of_life("looking at the ring"):
        document = ring_document(session, builder)
    return session.say(document, lambda: show_ring(session.builder_path, document))


def _found(builder: RingBuilder, values: Sequence[str], wanted: Search) -> set[int]:
    return {device.id for asked in searches(values, wanted) for device in find(known(builder), asked)}


@command("search")
@values_argument
@search_options
@pass_session
def search(session: Session, /, values: tuple[str, ...], **wanted: Any) -> Exit:
    """Show the devices that match SEARCH values or options.

    A SEARCH is any of d3 r1 z2 -10.0.0.5 :6200 /sdb1 _meta, in this order, such as r1z2 or z1-127.0.0.1:6200.
    """
    builder = session.load()
    ids = _found(builder, values, Search(**wanted))
    document = {"devices": balances_document(each for each in balance(builder) if each.device.id in ids)}
    return session.say(document, lambda: show_devices(document["devices"]))


@command("list_parts")
@values_argument
@search_options
@pass_session
def list_parts(session: Session, /, values: tuple[str, ...], **wanted: Any) -> Exit:
    """List the partitions of which the matching devices hold replicas, and how many."""
    builder = session.load()
    ids = _found(builder, values, Search(**wanted))
    if not builder.owners.size:
        raise RingError("there is no ring yet, so no device holds a partition; add devices and rebalance")
    held = np.isin(builder.owners, np.array(sorted(ids), np.uint32)).sum(axis=0)
    partitions = [
        {"partition": int(partition), "replicas": int(held[partition])} for partition in np.flatnonzero(held)
    ]
    return session.say(
        {"device_ids": sorted(ids), "partitions": partitions},
        lambda: show_lines(
            "partition  replicas", *(f"{each['partition']:>9}  {each['replicas']:>8}" for each in partitions)
        ),
    )


@command("dispersion")
@pass_session
def dispersion_command(session: Session) -> Exit:
    """Show how far apart the replicas of a partition stand, and how many devices share a repair."""
    builder = session.load()
    if not builder.owners.size:
        raise RingError("there is no ring yet, so nothing is dispersed; add devices and rebalance")
    with sign_of_life("measuring dispersion"):
        partners = sorted(partners_per_device(builder).values())
        document = dispersion_document(dispersion(builder))
    document["partners_per_device"] = {
        "fewest": partners[0],
        "median": float(median(partners)),
        "most": partners[-1],
    }
    return session.say(document, lambda: show_dispersion(document))


@command("validate")
@pass_session
def validate_command(session: Session) -> Exit:
    """Check the builder and the ring beside it.

    Exit code 2 when either contradicts itself or the other, 1 when a rebalance still has something to do.
    """
    builder = session.load()
    with sign_of_life("validating"):
        findings = validate(builder)
    by_kind: dict[bool, list[str]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.broken].append(finding.sentence)
    by_kind[True] += _broken_ring(session, builder)
    document: Document = {"broken": by_kind[True], "pending": by_kind[False]}
    for sentence in by_kind[False]:
        session.warn(sentence)
    code = session.say(document, lambda: None if findings or by_kind[True] else show_lines("all is well"))
    if by_kind[True]:
        raise RingError("; ".join(by_kind[True]))
    return code


def _broken_ring(session: Session, builder: RingBuilder) -> list[str]:
    try:
        session.check_name(builder.name)
        ring = session.ring_beside()
    except RingError as error:
        return [str(error)]
    if ring is not None and not made_by(builder, ring):
        return [f"{session.ring_path} (epoch {ring.epoch}) does not come from this builder"]
    return []


@command("version")
@pass_session
def version(session: Session) -> Exit:
    """Show the versions of this program, of the builder file and of the ring."""
    builder = session.load()
    document = {
        "swiftlike": version_of("swiftlike"),
        "builder_file": builder_file.FORMAT_VERSION,
        "ring": builder.name,
        "builder_id": str(builder.id),
        "epoch": builder.epoch,
    }
    return session.say(
        document,
        lambda: show_lines(
            f"swiftlike {document['swiftlike']}, builder file version {document['builder_file']}",
            f"ring {builder.name}, epoch {builder.epoch}, builder {builder.id}",
        ),
    )
