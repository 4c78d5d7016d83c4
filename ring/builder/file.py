r"""The builder file: everything a `RingBuilder` knows, and its last ten states beside it.

Owns the byte layout and the history directory. Never decides what a change does.

    builder file, version 1, little-endian:
        offset  size  field
             0     8  magic b"\x89SLBLDR\n"
             8     4  format version = 1
            12     4  zero
            16    16  checksum: xxh3_128 (big-endian, seed 0) of all bytes behind it
            32        msgpack map: id (16 bytes), name, part_power, replicas, min_part_hours, seed, overload, lineage
                      (bytes), removed (array of ids), devices (array by id: nil for a hole, or [region, zone, host,
                      port, name, weight, meta, uuid (16 bytes or nil)]), and the tables as [rows, bytes of u32]:
                      owners, moving_partitions, moving_rows, moved_at_s

Beside `FILE` stands `FILE.history/`, with the states that came before as `000001`, `000002`, ...: whole builder files, of
which the last ten are kept. A state enters it as a hard link, before the new file is renamed over the old one, so that a
crash between the two leaves one state too many rather than one too few.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any, Final
from uuid import UUID

import msgpack
import numpy as np
import xxhash

from ring.builder.builder import Ids, RingBuilder
from ring.device import DeviceId
from ring.device_records import pack_devices, unpack_devices
from ring.errors import BuilderError, RingError, RingFileError
from ring.file import replace_file

MAGIC: Final = b"\x89SLBLDR\n"
FORMAT_VERSION: Final = 1
HISTORY_STATES_MAX: Final = 10

HEADER: Final = Struct("<8sII16s")
assert HEADER.size == 32, "the table and the code must agree"


def load_builder(path: Path) -> RingBuilder:
    """Read a builder file. Raises RingFileError when it is missing or must not be believed."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RingFileError(f"builder file {path} does not exist; create it, or fix the path") from None
    except OSError as error:
        raise RingFileError(
            f"builder file {path} cannot be read ({error.strerror}); make it readable"
        ) from error
    return decode_builder(data, f"builder file {path}")


def save_builder(path: Path, builder: RingBuilder, *, remember: bool = True) -> None:
    """Replace a builder file as a whole, durably. With `remember`, what it held becomes a state to undo to.

    Raises RingError; the file then is what it was.
    """
    pieces = encode_builder(builder)
    if remember and path.exists():
        _remember(path)
    replace_file(path, pieces)


def previous_state(path: Path) -> RingBuilder:
    """Return the newest state of the history. Raises BuilderError when there is none."""
    states = _states(path)
    if not states:
        raise BuilderError(
            f"{path} has no earlier state to return to; the last {HISTORY_STATES_MAX} changes can be undone"
        )
    return load_builder(states[-1])


def save_undone(path: Path, builder: RingBuilder) -> None:
    """Replace a builder file by the outcome of an undo, and take the state it returned to out of the history."""
    replace_file(path, encode_builder(builder))
    for state in _states(path)[-1:]:
        state.unlink()


def _history(path: Path) -> Path:
    return path.with_name(path.name + ".history")


def _states(path: Path) -> list[Path]:
    """List the remembered states, oldest first."""
    history = _history(path)
    return sorted(state for state in history.iterdir() if state.name.isdecimal()) if history.is_dir() else []


def _remember(path: Path) -> None:
    """Keep the file as it stands as the newest state of its history, and drop what is too old."""
    states = _states(path)
    number = int(states[-1].name) + 1 if states else 1
    state = _history(path) / f"{number:06}"
    try:
        state.parent.mkdir(exist_ok=True)
        try:
            os.link(path, state)
        except PermissionError:  # a file system without hard links
            shutil.copy2(path, state)
        for old in [*states, state][:-HISTORY_STATES_MAX]:
            old.unlink()
    except OSError as error:
        raise RingError(f"{state} could not be written ({error.strerror}); nothing was changed") from error


def encode_builder(builder: RingBuilder) -> Iterator[bytes]:
    """Return the bytes of a builder file, in pieces."""
    body = msgpack.packb(
        {
            "id": builder.id.bytes,
            "name": builder.name,
            "part_power": builder.part_power,
            "replicas": float(builder.replicas),
            "min_part_hours": float(builder.min_part_hours),
            "seed": builder.seed,
            "overload": float(builder.overload),
            "lineage": builder.lineage,
            "removed": sorted(builder.removed),
            "devices": pack_devices(builder.devices),
            "owners": _table(builder.owners),
            "moving_partitions": _table(builder.moving_partitions[None]),
            "moving_rows": _table(builder.moving_rows),
            "moved_at_s": _table(builder.moved_at_s[None]),
        }
    )
    yield HEADER.pack(MAGIC, FORMAT_VERSION, 0, xxhash.xxh3_128_digest(body))
    yield body


def decode_builder(data: bytes, source: str) -> RingBuilder:
    """Return the builder in these bytes; `source` begins the sentence of a refusal (RingFileError)."""
    if data[: len(MAGIC)] != MAGIC:
        raise RingFileError(f"{source} is not a builder file; name a file that the ring builder made")
    if len(data) < HEADER.size:
        raise RingFileError(f"{source} is truncated; bring back a copy of it")
    _, version, _, checksum = HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        raise RingFileError(
            f"{source} is of format version {version} and this program reads version {FORMAT_VERSION}; upgrade swiftlike"
        )
    body = memoryview(data)[HEADER.size :]
    if xxhash.xxh3_128_digest(body) != checksum:
        raise RingFileError(
            f"{source} is truncated or corrupted: its checksum does not match; bring back a copy of it"
        )
    try:
        return _parse(msgpack.unpackb(body))
    except (msgpack.UnpackException, ValueError, TypeError, KeyError, BuilderError) as error:
        raise RingFileError(f"{source} is corrupted ({error!r}); bring back a copy of it") from error


def _parse(fields: dict[str, Any]) -> RingBuilder:
    return RingBuilder(
        id=UUID(bytes=fields["id"]),
        name=fields["name"],
        part_power=fields["part_power"],
        replicas=fields["replicas"],
        min_part_hours=fields["min_part_hours"],
        seed=fields["seed"],
        overload=fields["overload"],
        lineage=fields["lineage"],
        removed={DeviceId(number) for number in fields["removed"]},
        devices=unpack_devices(fields["devices"]),
        owners=_from_table(fields["owners"]),
        moving_partitions=_from_table(fields["moving_partitions"])[0],
        moving_rows=_from_table(fields["moving_rows"]),
        moved_at_s=_from_table(fields["moved_at_s"])[0],
    )


def _table(ids: Ids) -> list[Any]:
    return [len(ids), ids.astype("<u4", copy=False).tobytes()]


def _from_table(table: list[Any]) -> Ids:
    rows, data = table
    return np.frombuffer(data, "<u4").astype(np.uint32).reshape(rows, -1 if rows else 0)
