"""swiftlike-device: format a device, check it, and look into it while no process has it open.

Owns the command line and its exit codes: 0 done, 1 damage or something missing, 2 not done (in use, foreign,
unreadable). What reads an index does so in a process of its own, whose death by a damaged page becomes a sentence.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from ring.errors import RingError
from storage_node import keys, tables
from storage_node.checking import ClosedDevice, Report, check
from storage_node.errors import StorageError
from storage_node.formatting import format_device
from storage_node.identity import no_access
from storage_node.keys import Key
from storage_node.locations import InFile, InVolume, Location, Nowhere
from storage_node.rebuilding import Rebuilt
from storage_node.rebuilding import rebuild_index as rebuild
from storage_node.tables import Held
from swiftlike.config import ConfigError, load_cluster, load_host
from swiftlike.entries import Version, unpack_metadata
from swiftlike.timestamps import NO_INCARNATION, NO_WRITE, ZERO_BALLOT
from tools.apart import Died, apart
from tools.times import ballot_told, time_told, timestamp_told
from tools.votes import NotTold, Waiting, waiting

_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))
_INDEX = click.option(
    "--index",
    "index_directory",
    type=click.Path(path_type=Path),
    help="Directory of its index, if not on the device; by default where DIRECTORY says that it is.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_REFUSED: Final = (StorageError, ConfigError, NotTold, RingError, OSError)
"""What cannot be done, each with its sentence."""


@click.group()
def main() -> None:
    """Format, check and inspect one storage device."""


@main.command()
@_DIRECTORY
@click.option(
    "--index",
    "index_directory",
    type=click.Path(path_type=Path),
    help="Keep its index in this directory, on a faster disk; the host's file must say so too, as index_path.",
)
@_JSON
def init(directory: Path, index_directory: Path | None, as_json: bool) -> None:
    """Make an empty DIRECTORY a device with a new uuid."""
    with _refusals():
        uuid = format_device(directory, index_directory=index_directory)
    _print({"device": str(directory), "uuid": str(uuid)}, as_json, f"{directory} is device {uuid}")


@main.command(name="check")
@_DIRECTORY
@_INDEX
@_JSON
def check_command(directory: Path, index_directory: Path | None, as_json: bool) -> None:
    """Read everything on a device and say what is damaged; writes nothing."""
    with _refusals():
        try:
            report = apart(_REFUSED, _checked, directory, index_directory)
        except Died as died:
            if not died.of_damage:
                raise
            report = Report(damage=[_unreadable(died)])
    _print(asdict(report), as_json, _told(report))
    sys.exit(1 if report.damage else 0)


@main.command()
@_DIRECTORY
@click.argument("path")
@_INDEX
@_JSON
def show(directory: Path, path: str, index_directory: Path | None, as_json: bool) -> None:
    """Say what a device holds at PATH: account, account/container or account/container/object."""
    account, *rest = path.encode("utf-8", "surrogateescape").split(b"/", 2)
    if not account or b"" in rest:
        _fail(f"{path!r} names nothing: give account, account/container or account/container/object", 2)
    wanted = b"\0".join((account, *rest))
    letter = (b"a", b"c", b"o")[len(rest)]
    with _refusals():
        found = apart(_REFUSED, _found, directory, index_directory, letter, wanted)
    if not found:
        _fail(f"{directory} holds nothing at {path!r}", 1)
    facts = [_facts(key, held) for key, held in found]
    lines = [f"{name}: {value}" for each in facts for name, value in each.items()]
    _print({"found": facts}, as_json, "\n".join(lines))


@main.command()
@_DIRECTORY
@_INDEX
@_JSON
def stats(directory: Path, index_directory: Path | None, as_json: bool) -> None:
    """Say how much a device holds, without reading bodies."""
    with _refusals():
        figures = apart(_REFUSED, _figures, directory, index_directory)
    _print(figures, as_json, "\n".join(f"{name:18} {value}" for name, value in figures.items()))


@main.command()
@_DIRECTORY
@click.option(
    "--cluster-file",
    required=True,
    type=click.Path(path_type=Path),
    help="The cluster.toml of the cluster: its hash_seed places every path.",
)
@click.option(
    "--index",
    "index_directory",
    type=click.Path(path_type=Path),
    help="Where to build it, if not where the old one is; the host's file must say so too, as index_path.",
)
@_JSON
def rebuild_index(directory: Path, cluster_file: Path, index_directory: Path | None, as_json: bool) -> None:
    """Build a new index from volumes and files. The device gets a new uuid and votes only when it has caught up.

    Exit code 1 says that something on it could not be used: it comes back from the other owners, if they have it.
    """
    with _refusals():
        cluster = load_cluster(cluster_file)
        rebuilt = rebuild(directory, cluster.hash_seed, index_directory=index_directory)
    figures = {
        "uuid": str(rebuilt.device.uuid),
        "generation": rebuilt.device.generation,
        "entries": rebuilt.entries,
        "damaged": rebuilt.damaged,
        "passed_over": [
            {"volume": str(span.path), "start": span.start, "stop": span.stop} for span in rebuilt.passed_over
        ],
        "unreadable_files": rebuilt.unreadable_files,
    }
    _print(figures, as_json, _told_of_rebuild(directory, rebuilt))
    sys.exit(0 if rebuilt.is_whole else 1)


@main.command()
@click.argument("name")
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    help="This host's TOML file, which names the device.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Let it vote on all of them, once it has all that the owners hold who answer and vote: what only lost devices held is gone.",
)
@_JSON
def votes(name: str, config: Path, trust: bool, as_json: bool) -> None:
    """Say on which partitions the running device NAME does not vote, since it has still to catch up (exit code 1).

    It catches up by itself as long as a majority of the other owners answers and votes. Only where they are lost for good
    does --trust help: on one device that takes a lost one's place, and the next then catches up by itself.
    """
    with _refusals():
        host = load_host(config)
        found = waiting(host, load_cluster(host.cluster_file), name, trust=trust)
    figures = {each.ring: list(each.partitions) for each in found}
    verb = "votes on your word on" if trust else "has to catch up with"
    lines = [
        f"{name} {verb} {len(each.partitions)} partitions of ring {each.ring}{_how(each)}" for each in found
    ]
    _print(
        {"device": name, "trusted": trust, "waiting": figures},
        as_json,
        "\n".join(lines or [f"{name} votes on all that it owns"]),
    )
    sys.exit(1 if found else 0)


def _how(each: Waiting) -> str:
    """Say what the operator may not have meant."""
    words = [f"no owner that votes was found for {each.alone}"] * bool(each.alone)
    words += [f"some owner is silent for {each.silent}"] * bool(each.silent)
    return f": {', '.join(words)}" if words else ""


def _checked(directory: Path, index_directory: Path | None) -> Report:
    with _closed(directory, index_directory) as closed:
        return check(closed)


def _figures(directory: Path, index_directory: Path | None) -> dict[str, Any]:
    with _closed(directory, index_directory) as closed:
        with closed.index.reading() as view:
            live = tables.read_live_bytes(view)
        return {
            "uuid": str(closed.device.uuid),
            "generation": closed.device.generation,
            "index": str(closed.index_directory),
            "index_bytes": closed.index.used_bytes(),
            "volumes": len(closed.volumes.ids()),
            "volume_bytes": sum(map(closed.volumes.size, closed.volumes.ids())),
            "volume_bytes_live": sum(live.values()),
            "large_files": len(closed.files.finished()),
        }


def _found(
    directory: Path, index_directory: Path | None, letter: bytes, path: bytes
) -> list[tuple[Key, Held]]:
    with _closed(directory, index_directory) as closed:
        return list(_find(closed, letter, path))


def _find(closed: ClosedDevice, letter: bytes, path: bytes) -> Iterator[tuple[Key, Held]]:
    """Look for a path in the whole of its tables: slower than by its hash, but it needs no secret."""
    with closed.index.reading() as view:
        policies = range(256) if letter == b"o" else range(1)
        for table in (letter + bytes([policy]) for policy in policies):
            for raw_key, raw in view.scan(table, keys.after(table)):
                if raw_key[keys.HEAD_KEY_BYTES :] == path:
                    yield Key(table, path), tables.decode_held(raw_key, raw)


def _facts(key: Key, held: Held) -> dict[str, Any]:
    """Put a register into words."""
    register, entry = held.register, held.register.entry
    facts: dict[str, Any] = {"table": {b"a": "accounts", b"c": "containers"}.get(key.table[:1], "objects")}
    if key.table[:1] == b"o":
        facts["policy"] = key.table[1]
    if entry is not None:
        facts |= {
            "state": "deleted" if entry.tombstone else "live",
            "ballot": ballot_told(entry.ballot),
            "write id": entry.write_id.hex(),
            "modified": time_told(entry.modified),
            "size": entry.size,
            "body": _place_told(held.location),
            "metadata": {name: str(value) for name, value in unpack_metadata(entry.metadata).items()},
        }
        if entry.delete_at:
            facts["delete at"] = time_told(entry.delete_at)
        if entry.base is not None:
            facts["base"] = _base_told(entry.base)
        if entry.incarnation != NO_INCARNATION:
            facts["incarnation"] = timestamp_told(entry.incarnation)
    if register.promised != ZERO_BALLOT:
        facts["promised"] = ballot_told(register.promised) + (" (closing)" if register.closing else "")
    facts["replaced entries remembered"] = len(register.replaced)
    return facts


def _place_told(place: Location) -> str:
    """Say where a body lies; paths are those on the device."""
    match place:
        case InVolume(volume, offset, head_bytes):
            return (
                f"in volumes/{volume:08d}.vol, from byte {offset + head_bytes}; its record from byte {offset}"
            )
        case InFile(file):
            return f"in files/{file.hex()[:2]}/{file.hex()}"
        case Nowhere(missing):
            return "missing" if missing else "none needed"


def _base_told(base: Version) -> str:
    """Say what a conditional write was judged on."""
    if base.write_id == NO_WRITE:
        return "nothing: it was to be the first"
    return f"write id {base.write_id.hex()}, ballot {ballot_told(base.ballot)}"


def _told(report: Report) -> str:
    lines = [f"damage: {each}" for each in report.damage] + [f"leftover: {each}" for each in report.leftovers]
    lines.append(
        f"{report.registers} entries, {report.rows} rows, {report.bodies} bodies of {report.body_bytes} bytes: "
        f"{len(report.damage)} damaged, {report.awaited} bodies awaited, {len(report.leftovers)} leftovers"
    )
    return "\n".join(lines)


def _told_of_rebuild(directory: Path, rebuilt: Rebuilt) -> str:
    spans = rebuilt.passed_over
    lines = [f"{span.path}: bytes {span.start} to {span.stop} hold no sound record" for span in spans]
    lines += [f"not used: {each}" for each in rebuilt.unreadable_files]
    if spans:
        lost = sum(span.stop - span.start for span in spans)
        lines.append(
            f"{len(spans)} spans of {lost} bytes hold no sound record: what a crash tore, or objects that are lost here"
        )
    lines.append(
        f"{directory} is device {rebuilt.device.uuid} now: {rebuilt.entries} entries found, {rebuilt.damaged} of them "
        f"without their body, {len(rebuilt.unreadable_files)} large files not used. Put the new uuid into the ring: "
        "what is missing comes back from the other owners."
    )
    return "\n".join(lines)


@contextmanager
def _closed(directory: Path, index_directory: Path | None) -> Iterator[ClosedDevice]:
    closed = ClosedDevice(directory, index_directory=index_directory)
    try:
        yield closed
    finally:
        closed.close()


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what cannot be done into a sentence and exit code 2."""
    try:
        yield
    except Died as died:
        _fail(_unreadable(died) if died.of_damage else f"{died}: it was not looked at; try again", 2)
    except PermissionError as error:
        _fail(no_access(error), 2)
    except _REFUSED as error:
        _fail(str(error), 2)


def _unreadable(died: Died) -> str:
    """Say what ended the process that read an index."""
    return f"the index is damaged, or its disk does not read it ({died}): look at the disk, and run rebuild-index"


def _fail(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


def _print(figures: dict[str, Any], as_json: bool, text: str) -> None:
    click.echo(json.dumps(figures) if as_json else text)


if __name__ == "__main__":
    main()
