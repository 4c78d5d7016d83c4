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
                      owners, moving_partitions, moving_rows, moved_at_s; and founding, a bit for each partition, lowest bit first

Beside `FILE` stands `FILE.history/`, with the states that came before as `000001`, `000002`, ...: whole builder files, of
which the last ten are kept. A state enters it as a hard link, synced before the new file is renamed over the old one, so
that a crash between the two leaves one state too many rather than one too few; a state that holds what the file holds is
passed over. The oldest leaves when the new file is in place.

The checksum is no defence against forgery: each field is checked for its type and bounds, and the tables for their shape,
before anything works with them.
"""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final
from uuid import UUID

import msgpack
import numpy as np
import xxhash

from ring.builder.builder import HOURS_MAX, Ids, RingBuilder, pack_bits, unpack_bits
from ring.device import DeviceId
from ring.device_records import between, pack_devices, typed, unpack_devices, within
from ring.errors import BuilderError, RingError, RingFileError
from ring.file import REPLICAS_MAX, replace_file, sync_directory
from ring.hashing import PART_POWER_MAX
from ring.ring import CHECKSUM_BYTES, NOBODY

MAGIC: Final = b"\x89SLBLDR\n"
FORMAT_VERSION: Final = 1
HISTORY_STATES_MAX: Final = 10
BUILDER_BYTES_MAX: Final = 2**32 - 1
"""Of one file, since it is read and written as a whole; 2^27 partitions of three replicas at rest fill half of it."""
TABLES_BYTES_MAX: Final = BUILDER_BYTES_MAX - 2**29
"""Half a gibibyte is left for devices, lineage and bits."""
SEED_MAX: Final = 2**64 - 1
ROWS_MAX: Final = int(REPLICAS_MAX)
WITHOUT_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS})
"""How a file system says that it makes no hard link, so that a copy must do."""

HEADER: Final = Struct("<8sII16s")
assert HEADER.size == 32, "the table and the code must agree"


def load_builder(path: Path) -> RingBuilder:
    """Read a builder file. Raises RingFileError when it is missing, is no regular file, or must not be believed."""
    source = f"builder file {path}"
    try:
        with _open(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RingFileError(f"{source} is not a regular file; name the builder file itself")
            header = file.read(HEADER.size)
            _check_header(header, source)
            if status.st_size > BUILDER_BYTES_MAX:
                raise RingFileError(
                    f"{source} has {status.st_size} bytes, and none is larger than {BUILDER_BYTES_MAX}; bring back a copy of it"
                )
            data = header + file.read(BUILDER_BYTES_MAX)
    except FileNotFoundError:
        raise RingFileError(f"{source} does not exist; create it, or fix the path") from None
    except OSError as error:
        raise RingFileError(f"{source} cannot be read ({error.strerror}); make it readable") from error
    return decode_builder(data, source)


def _open(path: Path) -> BinaryIO:
    """Open a file to read, without waiting for a writer, should somebody have put a pipe there."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def save_builder(path: Path, builder: RingBuilder, *, remember: bool = True) -> None:
    """Replace a builder file as a whole, durably. With `remember`, what it held becomes a state to undo to.

    Raises RingError; the file and its history then are what they were.
    """
    pieces = encode_builder(builder)
    remembered = _remember(path) if remember and path.exists() else None
    try:
        replace_file(path, pieces)
    except BaseException:
        # The directory's sync may have failed behind the rename, and then the state is the only copy of what was.
        if remembered is not None and _same(remembered, path):
            remembered.unlink()
        raise
    for old in _states(path)[:-HISTORY_STATES_MAX]:
        # The save is done and durable; the next one drops what could not be dropped now.
        with contextlib.suppress(OSError):
            old.unlink()


def previous_state(path: Path) -> RingBuilder:
    """Return the newest state of the history. Raises BuilderError when there is none."""
    return load_builder(_newest_state(path))


def save_undone(path: Path, builder: RingBuilder) -> None:
    """Replace a builder file by the outcome of an undo, and take the state it returned to out of the history."""
    state = _newest_state(path)
    replace_file(path, encode_builder(builder))
    try:
        state.unlink()
        sync_directory(state.parent)
    except OSError as error:
        raise RingError(
            f"{path} is written, but {state} could not be dropped ({error.strerror}); remove it by hand"
        ) from error


def _history(path: Path) -> Path:
    return path.with_name(path.name + ".history")


def _states(path: Path) -> list[Path]:
    """List the remembered states, oldest first."""
    history = _history(path)
    return sorted(state for state in history.iterdir() if state.name.isdecimal()) if history.is_dir() else []


def _newest_state(path: Path) -> Path:
    """Return the newest state that is another one than the present: a crash may have left one that is the same."""
    for state in reversed(_states(path)):
        if not _same(state, path):
            return state
    raise BuilderError(
        f"{path} has no earlier state to return to; the last {HISTORY_STATES_MAX} changes can be undone"
    )


def _same(one: Path, other: Path) -> bool:
    """Say whether two builder files hold the same, by the checksums in their headers."""
    with _open(one) as first, _open(other) as second:
        return first.read(HEADER.size) == second.read(HEADER.size)


def _remember(path: Path) -> Path | None:
    """Keep the file as it stands, durably, as the newest state of its history; None when it is that already."""
    history, states = _history(path), _states(path)
    state = history / f"{int(states[-1].name) + 1 if states else 1:06}"
    try:
        if states and _same(states[-1], path):
            return None
        if not history.is_dir():
            history.mkdir()
            sync_directory(history.parent)
        try:
            os.link(path, state)
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            replace_file(state, [path.read_bytes()])
        sync_directory(history)
    except OSError as error:
        raise RingError(f"{state} could not be written ({error.strerror}); nothing was changed") from error
    return state


def encode_builder(builder: RingBuilder) -> Iterator[bytes]:
    """Return the bytes of a builder file, in pieces. Raises RingError when they are more than a file may have."""
    tables_bytes = sum(
        table.nbytes
        for table in (builder.owners, builder.moving_partitions, builder.moving_rows, builder.moved_at_s)
    )
    if tables_bytes > TABLES_BYTES_MAX:
        raise RingError(
            f"the builder's tables have {tables_bytes} bytes and a builder file has room for {TABLES_BYTES_MAX};"
            " use fewer partitions"
        )
    yield from _encode(builder)


def _encode(builder: RingBuilder) -> Iterator[bytes]:
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
            "founding": pack_bits(builder.founding),
        }
    )
    yield HEADER.pack(MAGIC, FORMAT_VERSION, 0, xxhash.xxh3_128_digest(body))
    yield body


def decode_builder(data: bytes, source: str) -> RingBuilder:
    """Return the builder in these bytes; `source` begins the sentence of a refusal (RingFileError)."""
    _check_header(data[: HEADER.size], source)
    body = memoryview(data)[HEADER.size :]
    if xxhash.xxh3_128_digest(body) != HEADER.unpack_from(data)[-1]:
        raise RingFileError(
            f"{source} is truncated or corrupted: its checksum does not match; bring back a copy of it"
        )
    try:
        return _parse(typed(msgpack.unpackb(body), dict))
    # Everything that msgpack, UUID and a wrong shape raise; the checksum was right, so a writer is at fault.
    except (msgpack.UnpackException, ValueError, TypeError, KeyError, BuilderError) as error:
        raise RingFileError(
            f"{source} is corrupted ({type(error).__name__}: {error}); bring back a copy of it"
        ) from error


def _check_header(header: bytes, source: str) -> None:
    """Refuse what is no builder file, or none of this version."""
    if header[: len(MAGIC)] != MAGIC:
        raise RingFileError(f"{source} is not a builder file; name a file that the ring builder made")
    if len(header) < HEADER.size:
        raise RingFileError(f"{source} is truncated; bring back a copy of it")
    _, version, _, _ = HEADER.unpack(header)
    if version != FORMAT_VERSION:
        raise RingFileError(
            f"{source} is of format version {version} and this program reads version {FORMAT_VERSION}; upgrade swiftlike"
        )


def _parse(fields: dict[str, Any]) -> RingBuilder:
    """Return the builder of these fields, each of its right type and within its bounds."""
    builder = RingBuilder(
        id=UUID(bytes=typed(fields["id"], bytes)),
        name=typed(fields["name"], str),
        part_power=within(fields["part_power"], 0, PART_POWER_MAX),
        replicas=between(fields["replicas"], 1.0, REPLICAS_MAX),
        min_part_hours=between(fields["min_part_hours"], 0.0, HOURS_MAX),
        seed=within(fields["seed"], 0, SEED_MAX),
        overload=between(fields["overload"], 0.0, sys.float_info.max),
    )
    devices = unpack_devices(typed(fields["devices"], list))
    # Places first, so that the builder's own rules judge each device and any id has one.
    builder.devices = [None] * len(devices)
    for device in filter(None, devices):
        builder.add(device)
    builder.removed = {
        DeviceId(within(number, 0, len(devices) - 1)) for number in typed(fields["removed"], list)
    }
    if any(devices[number] is None for number in builder.removed):
        raise ValueError("a removed device is a hole")
    builder.lineage = typed(fields["lineage"], bytes)
    if len(builder.lineage) % CHECKSUM_BYTES:
        raise ValueError(f"a lineage of {len(builder.lineage)} bytes")
    _parse_tables(builder, fields)
    return builder


def _parse_tables(builder: RingBuilder, fields: dict[str, Any]) -> None:
    """Fill in the tables, whose shapes follow from the partitions and from whether there is a ring."""
    columns = builder.partitions if builder.epoch else 0
    builder.owners = _from_table(fields["owners"], columns)
    builder.moved_at_s = _from_table(fields["moved_at_s"], columns)[0]
    _, moving = typed(fields["moving_partitions"], list)
    builder.moving_partitions = _from_table(fields["moving_partitions"], len(typed(moving, bytes)) // 4)[0]
    builder.moving_rows = _from_table(fields["moving_rows"], len(builder.moving_partitions))
    founding = typed(fields["founding"], bytes)
    if len(founding) != -(-columns // 8):
        raise ValueError(f"{len(founding)} bytes of founding bits for {columns} partitions")
    builder.founding = unpack_bits(founding, columns)
    if bool(len(builder.owners)) != bool(builder.epoch):
        raise ValueError(f"{len(builder.owners)} rows of owners at epoch {builder.epoch}")
    if builder.is_moving:
        _check_moving(builder)
    known = np.zeros(len(builder.devices) + 1, bool)
    known[[device.id for device in builder.devices if device is not None]] = True
    for row in (*builder.owners, *builder.moving_rows):
        unknown = row[(row != NOBODY) & ~known[np.minimum(row, len(builder.devices))]]
        if len(unknown):
            raise ValueError(f"d{unknown[0]} owns partitions and is no device")


def _check_moving(builder: RingBuilder) -> None:
    moving = builder.moving_partitions
    if moving[-1] >= builder.partitions or (moving[1:] <= moving[:-1]).any():
        raise ValueError("moving partitions are out of range or out of order")
    if not len(builder.moving_rows) or (builder.moving_rows[0] == NOBODY).any():
        raise ValueError("a moving partition has no previous owner")


def _table(ids: Ids) -> list[Any]:
    return [len(ids), ids.astype("<u4", copy=False).tobytes()]


def _from_table(table: Any, columns: int) -> Ids:
    rows, data = typed(table, list)
    if len(typed(data, bytes)) != within(rows, 0, ROWS_MAX) * columns * 4:
        raise ValueError(f"a table of {len(data)} bytes, which are not {rows} rows of {columns}")
    return np.frombuffer(data, "<u4").astype(np.uint32).reshape(rows, columns)
