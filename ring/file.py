r"""The ring file: one epoch of a ring as bytes, written once and then only read.

Owns the byte layout, its checks, and the order of writes and syncs that makes a new file appear whole or
not at all. Never decides which of two rings to use, and never imports numpy: whatever shows its memory as
32-bit numbers can be written, and what is read stays in the memory map.

    ring file, version 1, little-endian:
        offset  size  field
             0     8  magic b"\x89SLRING\n"
             8     4  format version = 1
            12     4  header_bytes = 80
            16    16  checksum: xxh3_128 (big-endian, seed 0) of all bytes of the file but these
            32     8  file_bytes
            40     8  metadata_bytes
            48     8  ancestors_bytes
            56     8  assignment_bytes
            64     8  moving_partitions_bytes
            72     8  moving_rows_bytes
            80        the five sections in this order, each beginning at the next multiple of 8, gaps zero

    metadata           msgpack map: name (str), builder (16 bytes), epoch (int), part_power (int), replicas (float),
                       devices (array by id: nil for a hole, or the array
                       [region, zone, host, port, name, weight, meta, uuid (16 bytes or nil)])
    ancestors          the checksums of epochs 1 … epoch - 1, 16 bytes each
    assignment         ceil(replicas) rows of u32 device ids, one per partition; the last row ends early when replicas
                       are fractional: the partitions before its end have that replica
    moving partitions  u32 each, ascending: the partitions that are moving
    moving rows        as many rows of u32 device ids, one per moving partition, as the largest set of previous
                       owners needs; 0xFFFFFFFF is nobody, and only follows somebody

A file is replaced, never changed: the new one is written beside it, synced, renamed over it, and the
directory is synced. Processes that have the old one mapped keep it whole. Truncating a ring file in place
instead would kill each of them with SIGBUS at its next look-up: edit nothing here with other tools.

The writer reads every slot and refuses ids that the table does not hold. The reader trusts the checksum for
that (reading 3 million slots would cost more than all the rest of a start), and `Ring` still refuses such an
id by name when it meets one.
"""

import contextlib
import math
import mmap
import operator
import os
import stat
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgpack
import xxhash

from ring.device import Device
from ring.device_records import between, pack_devices, typed, unpack_devices, within
from ring.errors import RingError, RingFileError
from ring.hashing import PART_POWER_MAX
from ring.ring import CHECKSUM_BYTES, NOBODY, Ring, ids_in

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC: Final = b"\x89SLRING\n"
FORMAT_VERSION: Final = 1

REPLICAS_MAX: Final = 256.0
"""Far above any policy, replicated or erasure-coded; a row of the assignment is cut for each."""

_PREFIX: Final = Struct("<8sII")
_SIZES: Final = Struct("<6Q")
_CHECKSUM: Final = slice(_PREFIX.size, _PREFIX.size + CHECKSUM_BYTES)
_HEADER_BYTES: Final = _CHECKSUM.stop + _SIZES.size
_ALIGNMENT: Final = 8
_SLOT_BYTES: Final = 4
_NO_SLOTS: Final = memoryview(array("I"))  # an empty view of bytes cannot be cast

assert _HEADER_BYTES == 80, "the table and the code must agree"
assert memoryview(bytes(_SLOT_BYTES)).cast("I").itemsize == _SLOT_BYTES

_REPLACE_IT: Final = "copy it again from another host or write it again from its builder"


@dataclass(frozen=True, slots=True)
class RingFields:
    """What goes into a ring file. Buffers hold contiguous unsigned 32-bit numbers, whoever made them."""

    name: str
    builder_id: UUID
    epoch: int
    part_power: int
    replicas: float
    devices: Sequence[Device | None]
    rows: "Sequence[Buffer]"
    ancestors: bytes = b""
    moving_partitions: "Buffer" = b""
    moving_rows: "Sequence[Buffer]" = ()


@dataclass(frozen=True, slots=True)
class EncodedRing:
    """The bytes of a ring file, in pieces that are the caller's own buffers where they are large."""

    checksum: bytes
    pieces: tuple[memoryview, ...]

    def __bytes__(self) -> bytes:
        """Join the pieces into the whole file."""
        return b"".join(self.pieces)


class _UnsoundError(Exception):
    """Why something is no ring, and what to do about it; the one who raises it further adds where it is."""

    def __init__(self, cause: str, fix: str = _REPLACE_IT) -> None:
        super().__init__(f"{cause}; {fix}")
        self.cause = cause


# Reading


def load_ring(path: str | Path, hash_seed: int) -> Ring:
    """Map a ring file and return the ring in it, whose tables stay in the map.

    Raises RingFileError when the file is missing, is no regular file, or must not be believed.
    """
    source = f"ring file {path}"
    try:
        mapped = _map(path)
    except FileNotFoundError:
        raise RingFileError(f"{source} does not exist; write it from its builder, or fix the path") from None
    except OSError as error:
        raise RingFileError(f"{source} cannot be read ({error.strerror}); make it readable") from error
    except _UnsoundError as unsound:
        raise RingFileError(f"{source} {unsound}") from None
    return decode_ring(mapped, hash_seed, source)


def decode_ring(data: "Buffer", hash_seed: int, source: str) -> Ring:
    """Return the ring in these bytes, on which it then stands: its tables are views of them.

    `source` begins the sentence of a refusal. Raises RingFileError; spends no memory on a length before it is
    known to lie inside `data`.
    """
    try:
        return _decode(memoryview(data).toreadonly().cast("B"), hash_seed)
    except _UnsoundError as unsound:
        raise RingFileError(f"{source} {unsound}") from None


def _map(path: str | Path) -> mmap.mmap:
    # O_NONBLOCK, not to wait for a writer, should somebody have put a pipe there.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _UnsoundError("is not a regular file", "name the ring file itself")
        if status.st_size == 0:
            raise _UnsoundError("is empty")
        try:
            return mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        except ValueError:
            raise _UnsoundError("shrank while it was opened") from None
    finally:
        os.close(descriptor)


def _decode(data: memoryview, hash_seed: int) -> Ring:
    checksum = _check_frame(data)
    packed, ancestors, assignment, moving_partitions, moving_rows = _sections(data)
    metadata = _Metadata.parse(packed)
    rows = _cut(_slots(assignment), 1 << metadata.part_power, math.ceil(metadata.replicas))
    moving = _slots(moving_partitions)
    previous = _cut(_slots(moving_rows), len(moving), len(moving_rows) // max(1, len(moving_partitions)))
    _check_tables(metadata, ancestors, rows, moving, previous)
    return Ring(
        checksum=checksum,
        hash_seed=hash_seed,
        name=metadata.name,
        builder_id=metadata.builder_id,
        epoch=metadata.epoch,
        part_power=metadata.part_power,
        replicas=metadata.replicas,
        devices=metadata.devices,
        rows=rows,
        moving_partitions=moving,
        moving_rows=previous,
        ancestors=ancestors,
    )


def _check_frame(data: memoryview) -> bytes:
    """Return the checksum of a file whose kind, version, length and checksum are right."""
    if sys.byteorder != "little":
        raise _UnsoundError("is little-endian and this machine is not", "run on a little-endian machine")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise _UnsoundError("is not a ring file", "name a file that the ring builder wrote")
    if len(data) < _PREFIX.size:
        raise _UnsoundError(f"is truncated: {len(data)} bytes are left of its header")
    _, version, header_bytes = _PREFIX.unpack_from(data)
    if version > FORMAT_VERSION:
        raise _UnsoundError(
            f"is of format version {version} and this program reads up to version {FORMAT_VERSION}",
            "upgrade swiftlike",
        )
    if version != FORMAT_VERSION or header_bytes != _HEADER_BYTES:
        raise _UnsoundError(f"is corrupted: no version {version} has a header of {header_bytes} bytes")
    if len(data) < _HEADER_BYTES:
        raise _UnsoundError(f"is truncated: {len(data)} bytes are left of its header")
    file_bytes = _SIZES.unpack_from(data, _CHECKSUM.stop)[0]
    if file_bytes > len(data):
        raise _UnsoundError(f"is truncated: {len(data)} of {file_bytes} bytes are there")
    if file_bytes < len(data):
        raise _UnsoundError(f"is corrupted: {len(data)} bytes are there where its header says {file_bytes}")
    checksum = bytes(data[_CHECKSUM])
    if _checksum((data[: _CHECKSUM.start], data[_CHECKSUM.stop :])) != checksum:
        raise _UnsoundError("is corrupted: its checksum does not match")
    return checksum


def _sections(data: memoryview) -> list[memoryview]:
    """Cut a file into its sections, which together with the gaps between them must fill it exactly."""
    file_bytes, *sizes = _SIZES.unpack_from(data, _CHECKSUM.stop)
    *starts, stop = accumulate(map(_aligned, sizes), initial=_HEADER_BYTES)
    if stop != file_bytes:
        raise _UnsoundError("has sections that do not fill it")
    return [data[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _slots(section: memoryview) -> memoryview:
    if len(section) % _SLOT_BYTES:
        raise _UnsoundError("has a table that ends in the middle of a number")
    return section.cast("I") if section else _NO_SLOTS


def _cut(slots: memoryview, row_slots: int, rows: int) -> tuple[memoryview, ...]:
    """Cut a table into rows, of which only the last may be shorter."""
    if not (rows - 1) * row_slots <= len(slots) <= rows * row_slots:
        raise _UnsoundError(f"has a table of {len(slots)} slots, which are not {rows} rows of {row_slots}")
    return tuple(slots[row * row_slots : (row + 1) * row_slots] for row in range(rows))


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The metadata section, each field of its right type and within its bounds."""

    name: str
    builder_id: UUID
    epoch: int
    part_power: int
    replicas: float
    devices: tuple[Device | None, ...]

    @classmethod
    def parse(cls, packed: memoryview) -> "_Metadata":
        try:
            fields = msgpack.unpackb(packed, use_list=False)
            return cls(
                name=typed(fields["name"], str),
                builder_id=UUID(bytes=typed(fields["builder"], bytes)),
                epoch=within(fields["epoch"], 1, 2**63),
                part_power=within(fields["part_power"], 0, PART_POWER_MAX),
                replicas=between(fields["replicas"], 1.0, REPLICAS_MAX),
                devices=tuple(unpack_devices(typed(fields["devices"], tuple))),
            )
        # Everything that msgpack, UUID and a wrong shape raise; the checksum was right, so a writer is at fault.
        except (msgpack.UnpackException, ValueError, TypeError, KeyError) as error:
            raise _UnsoundError(
                f"has metadata that cannot be read ({type(error).__name__}: {error})"
            ) from error


def _check_tables(
    metadata: _Metadata,
    ancestors: memoryview,
    rows: Sequence[memoryview],
    moving: memoryview,
    previous: Sequence[memoryview],
) -> None:
    """Refuse tables whose shapes do not fit together. Reads what is moving, never the whole assignment."""
    partitions = 1 << metadata.part_power
    slots = sum(map(len, rows))
    if len(ancestors) != (metadata.epoch - 1) * CHECKSUM_BYTES:
        raise _UnsoundError(f"has {len(ancestors)} bytes of ancestors in epoch {metadata.epoch}")
    # Within one, because how to round a fraction of the partitions is the builder's choice.
    if any(len(row) != partitions for row in rows[:-1]) or abs(slots - metadata.replicas * partitions) >= 1:
        raise _UnsoundError(
            f"has {slots} slots, which are not {metadata.replicas:g} replicas of {partitions} partitions"
        )
    if any(len(row) != len(moving) for row in previous) or (moving and not previous):
        raise _UnsoundError(
            f"has rows of previous owners that do not fit its {len(moving)} moving partitions"
        )
    if moving and (moving[-1] >= partitions or not all(map(operator.lt, moving, moving[1:]))):
        raise _UnsoundError("has moving partitions that are out of range or out of order")
    if moving and NOBODY in previous[0]:
        raise _UnsoundError("has a moving partition without a previous owner")


# Writing


def encode_ring(fields: RingFields) -> EncodedRing:
    """Return the bytes of a ring file, without copying the large buffers.

    Raises RingError for fields that no reader would accept, or that name a device which is not in the table.
    """
    packed = _pack_metadata(fields)
    ancestors = memoryview(fields.ancestors)
    rows = [_as_slots(row) for row in fields.rows]
    moving = _as_slots(fields.moving_partitions)
    previous = [_as_slots(row) for row in fields.moving_rows]
    try:
        metadata = _Metadata.parse(packed)
        if metadata.devices != tuple(fields.devices) or len(rows) != math.ceil(metadata.replicas):
            raise _UnsoundError("has devices out of their place, or as many rows as no reader expects")
        _check_tables(metadata, ancestors, rows, moving, previous)
        _check_ids(metadata, [*rows, *previous])
    except _UnsoundError as unsound:
        raise RingError(
            f"ring {fields.name}, epoch {fields.epoch}, {unsound.cause}; nothing was written: report this as a bug"
        ) from unsound
    return _frame((packed,), (ancestors,), rows, (moving,), previous)


def write_ring(path: str | Path, fields: RingFields) -> bytes:
    """Replace a ring file as a whole, durably, and return the checksum by which descendants will name it.

    Raises RingError; the file then is what it was.
    """
    encoded = encode_ring(fields)
    replace_file(path, encoded.pieces)
    return encoded.checksum


def replace_file(path: str | Path, pieces: "Iterable[Buffer]") -> None:
    """Write a file beside `path`, sync it, and rename it over `path`, so that a reader sees all of it or none.

    Raises RingError when the file system refuses; before the rename, `path` is then what it was.
    """
    path = Path(path)
    # Beside it, since a rename is atomic only within a file system; and a name that no other writer picks.
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        try:
            with beside.open("xb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):  # what broke the write is what the caller must hear of
                beside.unlink()
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise RingError(
            f"{path} could not be written ({error.strerror}); make room or fix the path and try again"
        ) from error


def sync_directory(directory: Path) -> None:
    """Make a rename in a directory survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pack_metadata(fields: RingFields) -> memoryview:
    packed: bytes = msgpack.packb(
        {
            "name": fields.name,
            "builder": fields.builder_id.bytes,
            "epoch": fields.epoch,
            "part_power": fields.part_power,
            "replicas": float(fields.replicas),
            "devices": pack_devices(fields.devices),
        }
    )
    return memoryview(packed)


def _as_slots(buffer: "Buffer") -> memoryview:
    """View a buffer as u32 numbers, whatever its owner calls their type."""
    view = memoryview(buffer)
    assert view.itemsize == _SLOT_BYTES or not view, "device ids and partitions are unsigned 32-bit numbers"
    return view.cast("B").cast("I") if view else _NO_SLOTS


def _check_ids(metadata: _Metadata, rows: Sequence[memoryview]) -> None:
    """Refuse ids that are not in the table. Reads every slot, as no reader can afford to."""
    known = {device.id for device in metadata.devices if device is not None}
    unknown = ids_in(rows) - known
    if unknown:
        raise _UnsoundError(
            f"names devices that are not in its table ({', '.join(map(str, sorted(unknown)[:5]))})"
        )


def _frame(*sections: Sequence[memoryview]) -> EncodedRing:
    """Put the header before the sections and the gaps between them."""
    sizes = [sum(piece.nbytes for piece in section) for section in sections]
    body = [
        piece.cast("B") if piece else piece
        for section, size in zip(sections, sizes, strict=True)
        for piece in (*section, memoryview(bytes(_aligned(size) - size)))
    ]
    prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, _HEADER_BYTES)
    lengths = _SIZES.pack(_HEADER_BYTES + sum(map(_aligned, sizes)), *sizes)
    checksum = _checksum((prefix, lengths, *body))
    header = memoryview(prefix + checksum + lengths)
    return EncodedRing(checksum, tuple(piece for piece in (header, *body) if piece))


# Both


def _aligned(size: int) -> int:
    """Round a length up to where the next section may begin."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _checksum(pieces: "Iterable[Buffer]") -> bytes:
    running = xxhash.xxh3_128()
    for piece in pieces:
        running.update(piece)
    return running.digest()
