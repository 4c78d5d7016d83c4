"""What clients that stall cost: many uploads to one worker that send a little of what they declared, and vanish.

usage: python -m benchmarks.stalled_uploads [--uploads N] [--sent-mib M] [--directory DIR] [--json FILE]

Each declares 1 GiB, sends some MiB and then nothing. Told are the most memory of the worker that is its own (RssAnon), how
long after the clients vanished the devices had their space back, and whether anything was stored. Needs three times the bytes
that are sent on the disk.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import click

from benchmarks.our_cluster import REPLICAS, ServeFailedError, our_cluster
from benchmarks.processes import private_bytes
from benchmarks.serving import Endpoint
from benchmarks.tables import table

MIB: Final = 2**20
DECLARED_BYTES: Final = 2**30
PIECE: Final = os.urandom(MIB)
SPARE_BYTES: Final = 2 * 2**30

PRIVATE_BYTES_GOAL: Final = 512 * 10**6
BACK_S_GOAL: Final = 60.0
SAMPLE_S: Final = 0.1
STAGED_SHARE: Final = 0.95
"""Of what was sent, by when all of it is taken to have arrived: the rest is in buffers."""
STAGED_S: Final = 120
"""For that; the first to stall are given up a minute after their last byte."""
STALL_S: Final = 10.0
"""How long all of them stall, while memory is still looked at: less than a worker's patience with a silent client."""
BOX: Final = "stalled"


async def upload(endpoint: Endpoint, number: int, sent_bytes: int) -> asyncio.StreamWriter:
    """Begin an upload and send a part of it; return once all of that is on its way. The connection stays open."""
    _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until all has left
    head = f"PUT {endpoint.path}/{BOX}/{number} HTTP/1.1\r\nHost: {endpoint.host}\r\n"
    head += f"X-Auth-Token: {endpoint.token}\r\nContent-Length: {DECLARED_BYTES}\r\n\r\n"
    writer.write(head.encode())
    for _ in range(sent_bytes // MIB):
        writer.write(PIECE)
        await writer.drain()
    return writer


def vanish(writer: asyncio.StreamWriter) -> None:
    """Cut a client off. Whoever means to has to keep the writer: one that nobody holds closes by itself."""
    writer.transport.abort()


async def stall(
    endpoint: Endpoint, worker: int, data: Path, uploads: int, sent_bytes: int
) -> tuple[int, int]:
    """Let all clients send, stall and vanish; return the worker's most memory and the bytes that the devices held."""
    most, before = 0, allocated_bytes(data)

    def staged() -> int:
        return allocated_bytes(data) - before

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, private_bytes(worker))
            await asyncio.sleep(SAMPLE_S)

    async with AsyncExitStack() as held, asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        for writer in await asyncio.gather(*(upload(endpoint, at, sent_bytes) for at in range(uploads))):
            held.callback(vanish, writer)
        for _ in range(STAGED_S):
            if staged() >= STAGED_SHARE * uploads * sent_bytes * REPLICAS:
                break
            await asyncio.sleep(1.0)
        await asyncio.sleep(STALL_S)
        held_bytes = staged()
        watching.cancel()
    return most, held_bytes


def allocated_bytes(directory: Path) -> int:
    """Return what the files below a directory take of the disk, those that vanish meanwhile left out."""
    total = 0
    for root, _, files in os.walk(directory):
        for name in files:
            try:
                total += Path(root, name).stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def wait_back(data: Path, before: int) -> float:
    """Return how long the devices take to hold no more than before, within twice the goal."""
    began = time.monotonic()
    while allocated_bytes(data) > before + SPARE_BYTES // 64 and time.monotonic() - began < 2 * BACK_S_GOAL:
        time.sleep(SAMPLE_S)
    return time.monotonic() - began


def worker_of(group: int) -> int:
    """Return the process of the only proxy worker in a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            of_group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
            command = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if of_group == group and b"--worker\0" in command:
            found.append(int(entry.name))
    assert len(found) == 1, f"one worker was asked for, and there are {len(found)}"
    return found[0]


@click.command(help=__doc__.partition("\n")[0])
@click.option("--uploads", default=400, show_default=True, type=click.IntRange(1, 900), help="At once.")
@click.option("--sent-mib", default=16, show_default=True, type=click.IntRange(1, 1000), help="Of each.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the scratch directory goes, which is removed at the end; the system's by default.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Keep the figures here."
)
def main(uploads: int, sent_mib: int, directory: Path | None, json_file: Path | None) -> None:
    """Measure, print, and exit with 1 when a goal is missed."""
    sent = sent_mib * MIB
    needed = uploads * sent * REPLICAS + SPARE_BYTES
    free = shutil.disk_usage(directory or tempfile.gettempdir()).free
    if free < needed:
        raise click.ClickException(
            f"{free / 1e9:.0f} GB are free and {needed / 1e9:.0f} may be needed: give a --directory"
        )
    scratch = Path(tempfile.mkdtemp(prefix="stalled-uploads-", dir=directory))
    try:
        with our_cluster(scratch, workers=1) as endpoint:
            assert endpoint.request("PUT", f"/{BOX}") == 201
            worker, data = worker_of(os.getpgid(0)), scratch / "data"
            before, idle = allocated_bytes(data), private_bytes(worker)
            most, staged = asyncio.run(stall(endpoint, worker, data, uploads, sent))
            back_s = wait_back(data, before)
            is_empty = endpoint.request("GET", f"/{BOX}") == 204
    except ServeFailedError as error:
        raise click.ClickException(f"{error}") from None
    finally:
        shutil.rmtree(scratch)
    goal_bytes = STAGED_SHARE * uploads * sent * REPLICAS
    rows = [
        ("uploads at once", "", f"{uploads} of 1 GiB, {sent_mib} MiB sent", ""),
        row(
            "staged on the devices",
            f">= {goal_bytes / 1e9:.1f} GB",
            f"{staged / 1e9:.1f} GB",
            staged >= goal_bytes,
        ),
        ("worker's memory before", "", f"{idle / 1e6:.0f} MB", ""),
        row(
            "worker's memory, most",
            f"< {PRIVATE_BYTES_GOAL / 1e6:.0f} MB",
            f"{most / 1e6:.0f} MB",
            most < PRIVATE_BYTES_GOAL,
        ),
        row("space back after", f"<= {BACK_S_GOAL:.0f} s", f"{back_s:.1f} s", back_s <= BACK_S_GOAL),
        row("stored", "nothing", "nothing" if is_empty else "something", is_empty),
    ]
    click.echo(table(["", "goal", "measured", ""], rows))
    if json_file is not None:
        figures = {
            "uploads": uploads,
            "sent_bytes": sent,
            "staged_bytes": staged,
            "idle_bytes": idle,
        }
        json_file.write_text(json.dumps({**figures, "most_bytes": most, "back_s": back_s}, indent=2))
    sys.exit(1 if any(cells[-1] == "missed" for cells in rows) else 0)


def row(what: str, goal: str, measured: str, is_met: bool) -> tuple[str, ...]:
    """Lay out what has a goal."""
    return what, goal, measured, "met" if is_met else "missed"


if __name__ == "__main__":
    main()
