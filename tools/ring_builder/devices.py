"""The commands that change devices: add, remove, set_weight, set_info, set_region, set_zone, bind.

Each changes all that it names or nothing, and takes effect on placement at the next rebalance.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from ring.builder import RingBuilder
from ring.device import DEVICE_ID_MAX, Device
from ring.errors import RingError
from tools.ring_builder.asking import ask_for_uuids
from tools.ring_builder.documents import Document, devices_document
from tools.ring_builder.grammar import command, pass_session, search_options, values_argument, yes_option
from tools.ring_builder.notation import (
    REGION_MAX,
    NotationError,
    Search,
    changed,
    make_device,
    pairs_of,
    parse_change,
    parse_device,
    parse_place,
    parse_search,
    parse_weight,
)
from tools.ring_builder.selection import asked_by_options, find, find_one, find_to_change, searches
from tools.ring_builder.session import Exit, Session, remembering_nothing
from tools.ring_builder.tables import show_lines

REBALANCE: Final = "rebalance brings it into effect"
CLUSTER_FILE: Final = Path("/etc/swiftlike/cluster.toml")
ID_GAP_MAX: Final = 65_536
"""A ring's table is indexed by id, so an id far above the others would cost memory on every host."""


@command("add")
@values_argument
@click.option("--id", type=click.IntRange(0, DEVICE_ID_MAX), help="Use this id; no ring may have named it.")
@click.option("--region", type=click.IntRange(0, REGION_MAX))
@click.option("--zone", type=click.IntRange(0, REGION_MAX))
@click.option("--ip", "host", metavar="HOST", help="IP address or host name.")
@click.option("--port", type=click.IntRange(1, 65535))
@click.option("--device", "name", metavar="NAME", help="Device name, such as sdb1.")
@click.option("--weight", metavar="WEIGHT")
@click.option("--meta", metavar="TEXT")
@click.option("--uuid", type=click.UUID, help="The device's own uuid, if it is formatted already.")
@pass_session
def add(session: Session, /, values: tuple[str, ...], uuid: UUID | None, **parts: Any) -> Exit:
    """Add devices: any number of DEVICE WEIGHT pairs, or one device by options.

    A DEVICE is written r1z1-127.0.0.1:6200/sdb1_meta, with IPv6 in brackets.
    """
    given = {part: value for part, value in parts.items() if value is not None}
    with session.locked() as builder:
        added = []
        for device in (
            _by_options(builder, given, values, uuid) if given else _by_pairs(builder, values, uuid)
        ):
            _check_id(builder, device)
            builder.add(device)
            added.append(device)
        session.save(builder)
    return _say(session, added, lambda device: f"{device} is added with weight {device.weight:.10g}")


def _by_pairs(builder: RingBuilder, values: Sequence[str], uuid: UUID | None) -> Iterator[Device]:
    """Yield one device after the other, so that each gets an id behind the last."""
    pairs = pairs_of(values, "DEVICE WEIGHT")
    if uuid is not None and len(pairs) > 1:
        raise NotationError(f"--uuid is of one device and {len(pairs)} are given; add them one by one")
    for text, weight in pairs:
        yield parse_device(text, parse_weight(weight), builder.next_id(), uuid)


def _by_options(
    builder: RingBuilder, given: dict[str, Any], values: Sequence[str], uuid: UUID | None
) -> list[Device]:
    if values:
        raise NotationError(f"add by options or by pairs such as {values[0]!r}, not by both")
    options = {"zone": "--zone", "host": "--ip", "port": "--port", "name": "--device", "weight": "--weight"}
    missing = [option for part, option in options.items() if part not in given]
    if missing:
        raise NotationError(f"a device needs {', '.join(missing)} as well; give what is missing")
    weight = parse_weight(given["weight"])
    return [make_device(**{"id": builder.next_id(), "region": 1, **given, "weight": weight, "uuid": uuid})]


def _check_id(builder: RingBuilder, device: Device) -> None:
    if device.id > builder.next_id() + ID_GAP_MAX:
        raise RingError(
            f"id {device.id} is far above the others, and every id below it would cost memory; the next one is"
            f" {builder.next_id()}"
        )


@command("remove")
@values_argument
@search_options
@yes_option
@pass_session
def remove(session: Session, /, values: tuple[str, ...], yes: bool, **wanted: Any) -> Exit:
    """Remove devices that are gone; the next rebalance empties them at once.

    To take a device out while it still works, drain it: set_weight SEARCH 0.
    """
    with session.locked() as builder:
        removed = _unique(
            device
            for asked in searches(values, Search(**wanted))
            for device in find_to_change(builder.present(), asked, yes=yes)
        )
        for device in removed:
            builder.remove(device.id)
        session.save(builder)
    return _say(session, removed, lambda device: f"{device} is removed")


@command("set_weight")
@values_argument
@search_options
@yes_option
@pass_session
def set_weight(session: Session, /, values: tuple[str, ...], yes: bool, **wanted: Any) -> Exit:
    """Change weights: any number of SEARCH WEIGHT pairs, or search options and one WEIGHT."""
    return _change_each(
        session,
        _pairs(values, Search(**wanted), "SEARCH WEIGHT"),
        lambda text: _with(weight=parse_weight(text)),
        lambda device: f"{device} has weight {device.weight:.10g}",
        yes=yes,
    )


@command("set_region")
@values_argument
@search_options
@yes_option
@pass_session
def set_region(session: Session, /, values: tuple[str, ...], yes: bool, **wanted: Any) -> Exit:
    """Change the region of devices: any number of SEARCH REGION pairs, or search options and one REGION."""
    return _change_each(
        session,
        _pairs(values, Search(**wanted), "SEARCH REGION"),
        lambda text: _with(region=parse_place(text, "region")),
        lambda device: f"{device} is in region {device.region}",
        yes=yes,
    )


@command("set_zone")
@values_argument
@search_options
@yes_option
@pass_session
def set_zone(session: Session, /, values: tuple[str, ...], yes: bool, **wanted: Any) -> Exit:
    """Change the zone of devices: any number of SEARCH ZONE pairs, or search options and one ZONE."""
    return _change_each(
        session,
        _pairs(values, Search(**wanted), "SEARCH ZONE"),
        lambda text: _with(zone=parse_place(text, "zone")),
        lambda device: f"{device} is in zone {device.zone}",
        yes=yes,
    )


@command("set_info")
@values_argument
@search_options
@click.option("--change-ip", "host_after", metavar="HOST")
@click.option("--change-port", "port_after", type=click.IntRange(1, 65535))
@click.option("--change-device", "name_after", metavar="NAME")
@click.option("--change-meta", "meta_after", metavar="TEXT")
@yes_option
@pass_session
def set_info(
    session: Session,
    /,
    values: tuple[str, ...],
    host_after: str | None,
    port_after: int | None,
    name_after: str | None,
    meta_after: str | None,
    yes: bool,
    **wanted: Any,
) -> Exit:
    """Change the address, name or meta of devices: any number of SEARCH CHANGE pairs, or search and --change options.

    A CHANGE is written 127.0.0.1:6200/sdb1_meta; what it leaves out stays.
    """
    change = Search(host=host_after, port=port_after, name=name_after, meta=meta_after)
    search = Search(**wanted)
    if change.is_empty:
        changes = [(asked, parse_change(text)) for asked, text in _pairs(values, search, "SEARCH CHANGE")]
    else:
        changes = [(asked, change) for asked in searches(values, search)]
    return _change_each(
        session,
        changes,
        lambda change: lambda device: changed(device, change),
        str,
        yes=yes,
        then="rebalance, or write_ring, brings it into effect",
    )


@command("bind")
@values_argument
@click.option("--uuid", type=click.UUID, help="The device's own uuid, as its device.toml has it.")
@click.option(
    "--cluster",
    "cluster_file",
    type=click.Path(path_type=Path),
    default=CLUSTER_FILE,
    show_default=True,
    help="cluster.toml, whose secret the devices must be shown.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    help="Where the hosts' files have a [tls]: its ca_file.",
)
@pass_session
def bind(
    session: Session, values: tuple[str, ...], uuid: UUID | None, cluster_file: Path, ca_file: Path | None
) -> Exit:
    """Note the uuids of devices, without which they do not vote.

    SEARCH --uuid UUID notes one. Without --uuid, all devices that SEARCH matches (or all) whose uuid is not known are asked
    for theirs; they must be running.
    """
    if uuid is not None and len(values) != 1:
        raise NotationError("--uuid is of one device; give one search value, such as d3")
    with session.locked() as builder:
        if uuid is not None:
            device = find_one(builder.present(), (values[0], parse_search(values[0])))
            bound = [replace(device, uuid=uuid)]
        else:
            unbound = [device for device in _named(builder, values) if device.uuid is None]
            uuids = ask_for_uuids(unbound, cluster_file, ca_file) if unbound else []
            bound = [replace(device, uuid=told) for device, told in zip(unbound, uuids, strict=True)]
        if not bound:
            return session.refuse("every device is bound already; name one and its --uuid to bind it anew")
        for device in bound:
            builder.update(device)
        session.save(builder, remembering_nothing)
    return _say(
        session,
        bound,
        lambda device: f"{device} is bound to {device.uuid}",
        then="write_ring tells the cluster",
    )


def _named(builder: RingBuilder, values: Sequence[str]) -> list[Device]:
    """Return the devices that search values match, or all when there are none."""
    if not values:
        return builder.present()
    return _unique(
        device for asked in searches(values, Search()) for device in find(builder.present(), asked)
    )


# How


def _pairs(values: Sequence[str], wanted: Search, what: str) -> list[tuple[tuple[str, Search], str]]:
    """Take pairs of a search and a value; with search options there is one value and they are its search."""
    if wanted.is_empty:
        return [((text, parse_search(text)), value) for text, value in pairs_of(values, what)]
    if len(values) != 1:
        raise NotationError(
            f"search options go with one {what.split()[1]}, and {len(values)} are given; give one"
        )
    return [(asked_by_options(wanted), values[0])]


def _with(**after: Any) -> Callable[[Device], Device]:
    return lambda device: replace(device, **after)


def _change_each(
    session: Session,
    changes: Sequence[tuple[tuple[str, Search], Any]],
    parse: Callable[[Any], Callable[[Device], Device]],
    describe: Callable[[Device], str],
    *,
    yes: bool,
    then: str = REBALANCE,
) -> Exit:
    """Change the devices that each search finds among those that were there before, and save all or nothing."""
    edits = [(asked, parse(value)) for asked, value in changes]
    with session.locked() as builder:
        before = builder.present()
        touched = []
        for asked, edit in edits:
            for device in find_to_change(before, asked, yes=yes):
                builder.update(edit(builder.device(device.id)))
                touched.append(device)
        session.save(builder)
        after = [builder.device(device.id) for device in _unique(touched)]
    return _say(session, after, describe, then)


def _unique(devices: Iterable[Device]) -> list[Device]:
    return list({device.id: device for device in devices}.values())


def _say(
    session: Session,
    devices: Sequence[Device],
    describe: Callable[[Device], str],
    then: str = REBALANCE,
) -> Exit:
    document: Document = {"devices": devices_document(devices)}
    return session.say(document, lambda: show_lines(*map(describe, devices), then))
