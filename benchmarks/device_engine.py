"""The engine of one device, without RPC: puts and gets of 4 KiB beside what the disk gives raw, in the same run.

usage: python -m benchmarks.device_engine [--directory DIR] [--seconds S] [--in-flight N] [--json]

The raw rate appends 4 KiB bodies, syncs once and commits the index once per batch of the same size, with nothing
around it; the file rate is one file per object (create, write, sync, rename, sync the directory).
"""

import asyncio
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import click
import lmdb

from storage_node.device import Device, Settings
from storage_node.formatting import format_device
from storage_node.keys import Key, Layout, objects
from storage_node.store import Offered
from swiftlike.entries import Entry, pack_metadata
from swiftlike.node_calls import Standing
from swiftlike.timestamps import Ballot, Clock, WriteId

BODY = os.urandom(4096)
LAYOUT = Layout(seed=1, part_powers={objects(0): 10})
METADATA = pack_metadata(
    {"content-type": "application/octet-stream", "etag": "d41d8cd98f00b204e9800998ecf8427e"}
)


def now_us() -> int:
    """Return the present in microseconds."""
    return time.time_ns() // 1_000


def raw_rate(directory: Path, seconds: float, in_flight: int) -> float:
    """Append, sync and commit batches as fast as the disk allows."""
    index = lmdb.open(str(directory), map_size=1 << 34, lib_version=1)
    fd = os.open(directory / "bodies", os.O_CREAT | os.O_WRONLY)
    end, done, at, value = time.perf_counter() + seconds, 0, 0, bytes(300)
    while time.perf_counter() < end:
        at += os.pwritev(fd, [BODY] * in_flight, at)
        os.fdatasync(fd)
        with index.begin(write=True) as transaction:
            for number in range(done, done + in_flight):
                key = os.urandom(2) + b"account\0container\0object-%012d" % number
                transaction.put(key, value)
        done += in_flight
    os.close(fd)
    index.close()
    return done / seconds


def file_rate(directory: Path, seconds: float) -> float:
    """Write one file per object, each durable under its name."""
    parent = os.open(directory, os.O_RDONLY)
    end, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        beside = directory / "new"
        fd = os.open(beside, os.O_CREAT | os.O_WRONLY)
        os.write(fd, BODY)
        os.fsync(fd)
        os.close(fd)
        beside.rename(directory / f"object-{done}")
        os.fsync(parent)
        done += 1
    os.close(parent)
    return done / seconds


def key_of(number: int) -> Key:
    """Return the key of an object."""
    return Key(objects(0), b"account\0container\0object-%012d" % number)


def entry_of(clock: Clock, size: int) -> Entry:
    """Return the entry of a new object."""
    stamp = clock.issue()
    write_id = WriteId(stamp)
    return Entry(
        Ballot(bytes(16) + stamp), write_id, stamp.micros, body_id=write_id, size=size, metadata=METADATA
    )


async def put_rate(
    device: Device, seconds: float, in_flight: int, *, body: bytes = BODY, first: int = 0
) -> tuple[float, int]:
    """Put new objects from number `first` on, `in_flight` at a time; return the rate and how many were put."""
    clock = Clock(now_us, writer=1)
    numbers = iter(range(first, first + 10**9))
    end = time.perf_counter() + seconds

    async def writer() -> int:
        done = 0
        while time.perf_counter() < end:
            entry = entry_of(clock, len(body))
            answer = await device.offer(Offered(key_of(next(numbers)), entry, body=body, owing=True))
            assert answer.counts
            done += 1
        return done

    done = sum(await asyncio.gather(*(writer() for _ in range(in_flight))))
    return done / seconds, done


async def get_rate(device: Device, seconds: float, present: int) -> float:
    """Get objects one after another, from the page cache."""
    end, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        found = await device.open_object(key_of(done * 7919 % present))
        assert found is not None
        body = found[1]
        assert len(await body.read(0, body.size)) == body.size > 0
        body.release()
        done += 1
    return done / seconds


async def measure(directory: Path, seconds: float, in_flight: int) -> dict[str, float]:
    """Run everything in one directory and return rates per second."""
    for name in ("raw", "files", "device"):
        (directory / name).mkdir()
    rates = {"raw batched put": raw_rate(directory / "raw", seconds, in_flight)}
    rates["file per object put"] = file_rate(directory / "files", seconds)
    format_device(directory / "device")
    device = Device(directory / "device", LAYOUT, now_us, settings=Settings(reserve_bytes=0))
    device.start()
    for partition in range(1 << 10):
        await device.set_standing(objects(0), partition, Standing(votes=True), seen=Standing())
    rates["engine put"], present = await put_rate(device, seconds, in_flight)
    rates["engine get, warm"] = await get_rate(device, seconds, present)
    await device.close()
    return rates


@click.command(help=__doc__.partition("\n")[0])
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Where to write; a temporary directory by default."
)
@click.option("--seconds", default=5.0, show_default=True, help="How long each rate is measured.")
@click.option("--in-flight", default=64, show_default=True, help="Puts under way at once, and the raw batch.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(directory: Path | None, seconds: float, in_flight: int, as_json: bool) -> None:
    """Measure and print."""
    scratch = Path(tempfile.mkdtemp(prefix="device-engine-", dir=directory))
    try:
        rates = asyncio.run(measure(scratch, seconds, in_flight))
    finally:
        shutil.rmtree(scratch)
    if as_json:
        click.echo(json.dumps(rates))
        return
    for name, rate in rates.items():
        share = f"  {rate / rates['raw batched put']:6.0%} of raw" if name.endswith("put") else ""
        click.echo(f"{name:22} {rate:10,.0f}/s{share}")


if __name__ == "__main__":
    main()
