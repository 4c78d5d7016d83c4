"""What healing is measured on, each stage in a process of its own: devices filled alike, two of them that compare, paced reads.

usage: python -m benchmarks.our_healing agree|fill|get ...

Filling is the engine's bulk path, in the order of the keys. All devices of a cluster are filled with the very same entries, so that
owners agree without ever having spoken.
"""

import asyncio
import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

import click
import uvloop

from ring.builder import RingBuilder
from ring.device import Device as RingDevice
from ring.device import DeviceId
from ring.file import load_ring, replace_file
from ring.ring import Ring
from storage_node.device import Device, Settings
from storage_node.formatting import format_device
from storage_node.keys import ACCOUNTS, CONTAINERS, Key, Layout, bucket_of, objects
from storage_node.maintenance import SetStanding
from storage_node.operations import Accept, Operation, UpsertRows
from storage_node.replicator import Replicator
from storage_node.service import DeviceService, Surroundings
from storage_node.store import RowOffer
from swiftlike.digests import Digest
from swiftlike.entries import Entry, pack_metadata
from swiftlike.listed import row_of
from swiftlike.node_calls import Standing, ring_name
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.transport import TcpAddress
from swiftlike.timestamps import Ballot, Clock, Timestamp, WriteId

OBJECTS: Final = objects(0)
TABLES: Final = (ACCOUNTS, CONTAINERS, OBJECTS)
POWER: Final = 10
BODY: Final = b"a hundred bytes of a small object. " * 3
FILLED_US: Final = 1_760_000_000_000_000
"""When all that is filled in was written, so that every device has the same."""
SECRET: Final = b"the secret of two devices that agree"
_BATCH: Final = 10_000
_WALKS: Final = 5

_directory = click.argument("directory", type=click.Path(path_type=Path))


@click.group(help=__doc__.partition("\n")[0])
def main() -> None:
    """Group the stages."""


# --- filling ----------------------------------------------------------------------------------------------------


@main.command()
@_directory
@click.argument("count", type=int)
@click.argument("seed", type=int)
@click.argument("container")
@click.argument("incarnation")
def fill(directory: Path, count: int, seed: int, container: str, incarnation: str) -> None:
    """Put COUNT objects and rows of a container's incarnation (hexadecimal) into a formatted device, which need not vote."""
    layout = Layout(seed, dict.fromkeys(TABLES, POWER))
    device = Device(directory, layout, now_us, settings=Settings(reserve_bytes=0))
    seconds = fill_device(device, container.encode(), count, Timestamp(bytes.fromhex(incarnation)))
    device.close_now()
    click.echo(json.dumps({"fill_per_s": count / seconds}))


def fill_device(device: Device, container: bytes, count: int, incarnation: Timestamp) -> float:
    """Put objects `o00000000` and so on into a device, with their rows; return how many seconds that took."""
    start = time.perf_counter()
    listed = container.replace(b"/", b"\0")
    batch: list[Operation] = []
    for number, path in _in_key_order(device.layout, listed, count):
        batch.append(
            Accept(
                Key(OBJECTS, path),
                _entry(number, incarnation),
                BODY,
                owing=False,
                from_voter=False,
                oldest_us=0,
            )
        )
        if len(batch) == _BATCH:
            commit(device, batch)
            batch = []
    commit(device, batch)
    for first in range(0, count, _BATCH):
        rows = []
        for number in range(first, min(count, first + _BATCH)):
            row = row_of(OBJECTS, _path_of(listed, number), _entry(number, incarnation)).row
            rows.append(RowOffer(Key(CONTAINERS, row.parent), row.name, row.entry))
        commit(device, [UpsertRows(tuple(rows))])
    return time.perf_counter() - start


def _path_of(container: bytes, number: int) -> bytes:
    return b"%s\0o%08d" % (container, number)


def _entry(number: int, incarnation: Timestamp) -> Entry:
    stamp = Clock(lambda: FILLED_US + number, writer=1).issue()
    metadata = pack_metadata({"etag": "5f4dcc3b5aa765d61d8327deb882cf99", "type": "application/octet-stream"})
    ballot, write_id = Ballot(bytes(incarnation) + stamp), WriteId(stamp)
    return Entry(ballot, write_id, stamp.micros, body_id=write_id, size=len(BODY), metadata=metadata)


def _in_key_order(layout: Layout, container: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield numbers and paths in the order of their keys: by bucket, then by name."""
    import numpy as np  # only here: what serves and is measured needs none

    buckets = np.fromiter(
        (
            int.from_bytes(bucket_of(layout.hashed(_path_of(container, number))), "big")
            for number in range(count)
        ),
        dtype=np.uint32,
        count=count,
    )
    for number in np.argsort(buckets, kind="stable").tolist():
        yield number, _path_of(container, number)


def commit(device: Device, operations: list[Operation]) -> None:
    """Make operations durable together; none may fail."""
    for _, error in device.commit(operations):
        if error is not None:
            raise error


def now_us() -> int:
    """Return the present in microseconds."""
    return time.time_ns() // 1_000


# --- two devices that agree -------------------------------------------------------------------------------------


class OneRing:
    """The rings of two devices, which never change."""

    def __init__(self, rings: dict[bytes, Ring]) -> None:
        self._rings = rings

    def ring(self, table: bytes) -> Ring:
        """Return the ring that places a table."""
        return self._rings[table]

    def epoch(self, table: bytes) -> int | None:
        """Return its epoch."""
        return self._rings[table].epoch if table in self._rings else None

    def look_for_newer(self, table: bytes) -> None:
        """There is none."""


@main.command()
@_directory
@click.argument("count", type=int)
def agree(directory: Path, count: int) -> None:
    """Fill two devices alike, let each make a pass over the other, and tell what that costs both ends together."""
    layout = Layout(1, dict.fromkeys(TABLES, POWER))
    uuids, fill_s = [], 0.0
    for name in ("one", "two"):
        (directory / name).mkdir()
        uuids.append(format_device(directory / name))
        device = Device(directory / name, layout, now_us, settings=Settings(reserve_bytes=0))
        commit(
            device,
            [
                SetStanding(table, partition, Standing(), Standing(votes=True))
                for table in TABLES
                for partition in range(1 << POWER)
            ],
        )
        fill_s += fill_device(device, b"account/container", count, Timestamp(bytes(16)))
        device.close_now()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_agree(directory, layout, uuids))
    click.echo(json.dumps({**figures, "fill_per_s": 2 * count / fill_s}))


async def _agree(directory: Path, layout: Layout, uuids: list[UUID]) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        devices, servers, services = [], [], []
        for name in ("one", "two"):
            device = Device(directory / name, layout, now_us, settings=Settings(reserve_bytes=0))
            device.start()
            stack.push_async_callback(device.close)
            devices.append(device)
        ports: list[int] = []
        rings = OneRing({})
        replicators: list[Replicator] = []
        for device in devices:
            service = DeviceService(device, layout, rings, Surroundings())
            services.append(await stack.enter_async_context(service))
            server = await stack.enter_async_context(Server(SocketNetwork(), service.service, SECRET))
            servers.append(server)
            place = await server.listen(TcpAddress("127.0.0.1", 0))
            assert isinstance(place, TcpAddress)
            ports.append(place.port)
        rings._rings = _rings(directory, uuids, ports)
        for device, uuid in zip(devices, uuids, strict=True):
            transport = await stack.enter_async_context(Client(SocketNetwork(), SECRET))
            replicators.append(Replicator(device, uuid, rings, transport, None, Random(1)))

        def calls() -> int:
            return sum(count for service in services for count in service.counts.values())

        async def walk() -> tuple[float, float, int]:
            """Let each make a pass; return CPU and elapsed seconds, and calls, of both together."""
            cpu_s, began, before = time.process_time(), time.perf_counter(), calls()
            for replicator in replicators:
                await replicator.walk()
                assert replicator.differing == 0, "they were filled alike"
            return time.process_time() - cpu_s, time.perf_counter() - began, calls() - before

        first = await walk()
        later = [await walk() for _ in range(_WALKS)]
        held = [
            device.partition_digest(OBJECTS, number) for device in devices for number in range(1 << POWER)
        ]
        entries = sum(map(_entries, held))
        return {
            "entries": entries,
            "first_cpu_s": first[0],
            "first_s": first[1],
            "cpu_s": statistics.median(cpu for cpu, _, _ in later),
            "cpu_s_most": max(cpu for cpu, _, _ in later),
            "seconds": statistics.median(seconds for _, seconds, _ in later),
            "calls": later[0][2],
        }


def _entries(digest: Digest) -> int:
    return digest.entries


def _rings(directory: Path, uuids: list[UUID], ports: list[int]) -> dict[bytes, Ring]:
    rings = {}
    for table in TABLES:
        builder = RingBuilder(uuid4(), ring_name(table), POWER, 2.0, 1.0)
        for number, (uuid, port) in enumerate(zip(uuids, ports, strict=True), 1):
            place = DeviceId(builder.next_id()), 1, number, "127.0.0.1", port, f"d{number}"
            builder.add(RingDevice(*place, 100.0, "", uuid))
        builder.rebalance(1_700_000_000)
        path = directory / f"{ring_name(table)}.ring"
        replace_file(path, builder.publish().pieces)
        rings[table] = load_ring(path, 1)
    return rings


# --- paced reads ------------------------------------------------------------------------------------------------


@main.command()
@click.argument("host")
@click.argument("port", type=int)
@click.argument("path")
@click.argument("token")
@click.argument("objects_count", type=int)
@click.option("--per-s", default=200.0, help="Reads begun a second, whatever the answers take.")
@click.option("--seconds", default=0.0, help="0: until standard input ends.")
@click.option("--connections", default=16)
def get(
    host: str,
    port: int,
    path: str,
    token: str,
    objects_count: int,
    per_s: float,
    seconds: float,
    connections: int,
) -> None:
    """Read random objects of a container at a steady pace, and tell how long answers took from when each was due."""
    took_s: list[float] = []
    failed: list[int] = []
    ended = threading.Event()
    began = time.perf_counter() + 0.2

    def read(lane: int) -> None:
        random, connection = Random(lane), http.client.HTTPConnection(host, port, timeout=60)
        due = began + lane / per_s
        while not ended.is_set():
            time.sleep(max(0.0, due - time.perf_counter()))
            name = f"{path}/o{random.randrange(objects_count):08d}"
            connection.request("GET", name, headers={"X-Auth-Token": token})
            answer = connection.getresponse()
            body = answer.read()
            took_s.append(time.perf_counter() - due)
            if answer.status != 200 or body != BODY:
                failed.append(answer.status)
            due += connections / per_s
        connection.close()

    threads = [threading.Thread(target=read, args=(lane,)) for lane in range(connections)]
    for thread in threads:
        thread.start()
    if seconds:
        time.sleep(seconds)
    else:
        while os.read(0, 1024):
            pass
    ended.set()
    for thread in threads:
        thread.join()
    ranked = sorted(took_s)
    figures = {"reads": len(ranked), "failed": len(failed)}
    figures |= {f"p{share}_ms": ranked[len(ranked) * share // 100] * 1000 for share in (50, 95, 99)}  # type: ignore[misc]
    click.echo(json.dumps(figures))


if __name__ == "__main__":
    main()
