"""One life of a device in a process of its own, for `device_scale`: fill it, serve from it, list it.

usage: python -m benchmarks.our_device fill|serve|fill-rows|list DIRECTORY ...

Filling is the engine's bulk path: operations committed before the writer starts, in the order of their keys, so that
a batch changes neighbouring pages of the index.
"""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import click

from benchmarks.device_engine import METADATA, entry_of, get_rate, key_of, now_us, put_rate
from benchmarks.processes import private_bytes
from storage_node.device import Device, Settings
from storage_node.formatting import format_device
from storage_node.keys import CONTAINERS, Key, Layout, Listing, bucket_of, objects
from storage_node.maintenance import SetStanding
from storage_node.operations import Accept, Operation, UpsertRows
from storage_node.store import RowOffer
from swiftlike.entries import NO_METADATA, Entry
from swiftlike.node_calls import Query, RowRefused, Standing
from swiftlike.timestamps import NO_WRITE, Ballot, Clock, WriteId

POWER: Final = 10
LAYOUT: Final = Layout(seed=1, part_powers={objects(0): POWER, CONTAINERS: POWER})
BODY: Final = bytes(range(100))
_FILL_BATCH: Final = 10_000
_ROWS_BATCH: Final = 2_000
_DIRECTORY_ROWS: Final = 10
"""Rows under each common prefix."""

_directory = click.argument("directory", type=click.Path(path_type=Path))


@click.group(help=__doc__.partition("\n")[0])
def main() -> None:
    """Group the stages."""


@main.command()
@_directory
@click.argument("count", type=int)
def fill(directory: Path, count: int) -> None:
    """Make a device of COUNT objects of 100 bytes in DIRECTORY."""
    device = _made(directory)
    clock, body = Clock(now_us, writer=1), BODY
    start = time.perf_counter()
    batch: list[Operation] = []
    for number in _in_key_order(count):
        entry = entry_of(clock, len(body))
        batch.append(Accept(key_of(number), entry, body, owing=False, from_voter=False, oldest_us=0))
        if len(batch) == _FILL_BATCH:
            _commit(device, batch)
            batch = []
    _commit(device, batch)
    seconds = time.perf_counter() - start
    device.close_now()
    _print({"fill_per_s": count / seconds, "disk_bytes": _disk_bytes(directory)})


@main.command()
@_directory
@click.argument("count", type=int)
@click.argument("first", type=int)
@click.option("--seconds", default=5.0)
@click.option("--in-flight", default=64)
def serve(directory: Path, count: int, first: int, seconds: float, in_flight: int) -> None:
    """Open a device of COUNT objects, get from it and put new ones into it, from number FIRST on."""
    _print(asyncio.run(_serve(directory, count, first, seconds, in_flight)))


async def _serve(directory: Path, count: int, first: int, seconds: float, in_flight: int) -> dict[str, Any]:
    _warm(directory)
    start = time.perf_counter()
    device = Device(directory, LAYOUT, now_us, settings=Settings(reserve_bytes=0))
    device.start()
    start_s = time.perf_counter() - start
    gets = await get_rate(device, seconds, count)
    cold_reads, index_faults = device.counters.cold_reads, device.counters.index_faults
    puts, done = await put_rate(device, seconds, in_flight, body=BODY, first=first)
    figures = {
        "start_s": start_s,
        "get_per_s": gets,
        "put_per_s": puts,
        "put": done,
        "private_bytes": private_bytes(),
        "cold_reads": cold_reads,
        "index_faults": index_faults,
    }
    await device.close()
    return figures


@main.command()
@_directory
@click.argument("counts", type=int, nargs=-1)
def fill_rows(directory: Path, counts: tuple[int, ...]) -> None:
    """Make a device that holds a listing of each of COUNTS rows."""
    device = _made(directory)
    start = time.perf_counter()
    for count in counts:
        _fill_listing(device, count)
    seconds = time.perf_counter() - start
    device.close_now()
    _print({"fill_per_s": sum(counts) / seconds, "disk_bytes": _disk_bytes(directory)})


def _fill_listing(device: Device, count: int) -> None:
    clock, container = Clock(now_us, writer=1), _container(count)
    created = clock.issue()
    birth = Ballot(bytes(16) + created)
    entry = Entry(birth, WriteId(created), created.micros, body_id=NO_WRITE, size=0, metadata=NO_METADATA)
    entry = entry._replace(incarnation=created)
    _commit(device, [Accept(container, entry, None, owing=False, from_voter=False, oldest_us=0)])
    for first in range(0, count, _ROWS_BATCH):
        rows = []
        for number in range(first, min(first + _ROWS_BATCH, count)):
            stamp = clock.issue()
            ballot = Ballot(bytes(created) + stamp)
            row = Entry(ballot, WriteId(stamp), stamp.micros, body_id=NO_WRITE, size=100, metadata=METADATA)
            rows.append(RowOffer(container, _name(number), row))
        (answer,) = _commit(device, [UpsertRows(tuple(rows))])
        assert not any(isinstance(taken, RowRefused) for taken in answer), "the container takes its rows"


@main.command(name="list")
@_directory
@click.argument("counts", type=int, nargs=-1)
@click.option("--seconds", default=3.0)
def list_pages(directory: Path, counts: tuple[int, ...], seconds: float) -> None:
    """Ask for pages of listings of COUNTS rows, from random markers, and tell the median of each kind."""
    _warm(directory)
    device = Device(directory, LAYOUT, now_us, settings=Settings(reserve_bytes=0))
    figures: dict[str, Any] = {}
    for count in counts:
        listing = _listing(device, count)
        for kind, query, names in _queries(count):
            times = list(_page_times(device, listing, query, names, seconds))
            figures[f"{kind} of {count}"] = statistics.median(times)
    device.close_now()
    _print(figures)


def _queries(count: int) -> Iterator[tuple[str, Callable[[Random], Query], int]]:
    """Yield kinds of pages: what they are called, how one is asked for, and how many names it must have."""
    yield "100 names", lambda random: Query(marker=_marker(random, count, 100), limit=100), 100
    names = min(10_000, count - 1)
    yield (
        "10,000 names",
        lambda random: Query(marker=_marker(random, count, names), limit=10_000),
        names,
    )
    directories = min(100, count // _DIRECTORY_ROWS - 1)
    yield (
        "100 prefixes",
        lambda random: Query(
            prefix=b"photos/",
            delimiter=b"/",
            marker=_prefix(_marker(random, count, directories * _DIRECTORY_ROWS)),
            limit=directories,
        ),
        directories,
    )


def _page_times(
    device: Device, listing: Listing, query: Callable[[Random], Query], names: int, seconds: float
) -> Iterator[float]:
    random, end = Random(names), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        page = device.list_rows(listing, query(random))
        yield time.perf_counter() - start
        assert len(page.rows) >= names, "the page is as full as was asked for"


def _marker(random: Random, count: int, names: int) -> bytes:
    """Return a marker behind which at least `names` rows follow."""
    return _name(random.randrange(max(1, count - names)))


def _prefix(name: bytes) -> bytes:
    return name[: name.rindex(b"/") + 1]


def _name(number: int) -> bytes:
    return b"photos/%07d/%08d" % (number // _DIRECTORY_ROWS, number)


def _container(count: int) -> Key:
    return Key(CONTAINERS, b"account\0container-%d" % count)


def _listing(device: Device, count: int) -> Listing:
    held = device.read(_container(count))
    assert held is not None
    assert held.register.entry is not None
    return Listing(_container(count), held.register.entry.incarnation)


def _made(directory: Path) -> Device:
    """Format a device that votes everywhere."""
    directory.mkdir()
    format_device(directory)
    device = Device(directory, LAYOUT, now_us, settings=Settings(reserve_bytes=0))
    votes = Standing(votes=True)
    _commit(
        device,
        [
            SetStanding(table, partition, Standing(), votes)
            for table in LAYOUT.part_powers
            for partition in range(1 << POWER)
        ],
    )
    return device


def _commit(device: Device, operations: list[Operation]) -> list[Any]:
    """Make operations durable together and return their answers; none may fail."""
    answers = []
    for answer, error in device.commit(operations):
        if error is not None:
            raise error
        answers.append(answer)
    return answers


def _in_key_order(count: int) -> Iterator[int]:
    """Yield the numbers of objects in the order of their keys: by bucket, then by name."""
    # Here and not above: the processes that serve are measured, and need no numpy.
    import numpy as np

    buckets = np.fromiter(
        (int.from_bytes(bucket_of(LAYOUT.hashed(key_of(number).path)), "big") for number in range(count)),
        dtype=np.uint32,
        count=count,
    )
    for some in np.array_split(np.argsort(buckets, kind="stable"), max(1, count // _FILL_BATCH)):
        yield from some.tolist()


def _warm(directory: Path) -> None:
    """Read a device once, so that what is measured is not how much of it the page cache held by chance.

    Page by page, as a device reads its index: what readahead brings lies in large folios, and the kernel walks the whole of one
    for each page that is written into it, which tripled the CPU time of a put. So what it holds already is let go of first.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                while file.read(1 << 22):
                    pass


def _disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _print(figures: dict[str, Any]) -> None:
    click.echo(json.dumps(figures))


if __name__ == "__main__":
    main()
