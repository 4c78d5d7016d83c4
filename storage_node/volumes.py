"""Volumes: append, read and scan the packed small bodies of one device.

Owns the byte layout of a volume and the rule that a volume only grows. Never opens the index and never decides
whether a body is still wanted.

    volume, version 1, big-endian:  offset  size  field
                                         0     8  magic b"slvolume"
                                         8     1  version = 1
                                         9     7  zero
                                        16    16  device stamp
                                                  records, back to back

    record, version 1, big-endian:       0     4  magic b"slvr"
                                         4     1  version = 1
                                         5     1  zero
                                         6     2  key_bytes
                                         8     4  entry_bytes
                                        12     8  body_bytes
                                        20     4  zero
                                        24     8  head checksum: xxh3_64, seeded by the device, of the bytes before, then
                                                  volume number and offset, then key, entry and block checksums
                                        32        register key: table and path
                                                  entry
                                              8 × one checksum per block of the body
                                                  body

Order: records are written and synced before the index points at them; a new volume's name is synced before its first
record is. Nothing is truncated: appending resumes behind the physical end, so a torn record may be followed by sound
ones, and a scan looks for the next magic. The head checksum knows the device and the place, which no client does, so
a body that imitates a record is not taken for one.

A header that is damaged costs no body: a volume is this device's as well if any of its records is. Nothing is appended to such a
volume, its bodies are read like any others, and compaction moves them out of it. A file of which nothing is sound is left alone; one
that is sound and another device's is refused.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final
from uuid import UUID

from xxhash import xxh3_64_intdigest

from storage_node.blocks import (
    SUM_BYTES,
    Cold,
    Extent,
    Pread,
    block_count,
    block_sums,
    pread_salvaging,
    pread_waiting,
    pread_warm,
)
from storage_node.disk import Disk, SharedFile
from storage_node.errors import BodyDamaged, BodyGone, DeviceRefused, InsufficientStorage
from storage_node.keys import Key
from storage_node.locations import InVolume, VolumeId
from swiftlike.entries import ENTRY_BYTES_MAX, Entry, EntryDamaged, decode
from swiftlike.limits import SMALL_BODY_BYTES_MAX, VOLUME_BYTES_MAX, VOLUMES_OPEN_MAX

_VOLUME: Final = Struct(">8sB7x16s")
_RECORD: Final = Struct(">4sBxHIQ4xQ")
_PLACE: Final = Struct(">IQ")
assert (_VOLUME.size, _RECORD.size) == (32, 32), "the tables and the code must agree"
FIRST_RECORD_AT: Final = _VOLUME.size
_MAGIC, _VERSION = b"slvolume", 1
_RECORD_MAGIC, _RECORD_VERSION = b"slvr", 1
_NAME: Final = re.compile("[0-9]{8}")
_SCAN_BYTES: Final = 1024 * 1024
_KEY_BYTES_MAX: Final = 1_600
_RECORD_HEAD_MAX: Final = (
    _RECORD.size + _KEY_BYTES_MAX + ENTRY_BYTES_MAX + block_count(SMALL_BODY_BYTES_MAX) * SUM_BYTES
)


@dataclass(frozen=True, slots=True)
class Record:
    """A sound record head found by a scan."""

    key: Key
    entry: Entry
    location: InVolume
    total_bytes: int


@dataclass(slots=True)
class Volume:
    """One open volume."""

    id: VolumeId
    path: Path
    file: SharedFile
    size: int
    """Physical end, where the next record goes."""


class Volumes:
    """The volumes of one device. `stage`, `write` and `sync` belong to the writer's thread; `open` to any."""

    def __init__(
        self, directory: Path, uuid: UUID, disk: Disk, *, volume_bytes_max: int = VOLUME_BYTES_MAX
    ) -> None:
        """Open every volume in `directory`. Raises OSError, and DeviceRefused for one that is another device's or newer."""
        self._directory = directory
        self._uuid = uuid
        self._device_seed = _seed_of_device(uuid.bytes)
        self._disk = disk
        self._volume_bytes_max = volume_bytes_max
        self._volumes: dict[VolumeId, Volume] = {}
        self._staged: list[tuple[Volume, int, list[bytes | memoryview]]] = []
        self._active: Volume | None = None
        self._damaged: set[VolumeId] = set()
        self._last = VolumeId(0)
        for path in self._files():
            self._adopt(path)

    def stage(self, key: Key, entry_raw: bytes, body: bytes | memoryview, seed: int) -> InVolume:
        """Lay out a record behind the last one, to be written by `write`, and return where its body will be.

        Raises InsufficientStorage; OSError and DeviceFailed when a new volume could not be created or synced.
        """
        sums = block_sums(body, seed)
        raw_key = key.table + key.path
        head_bytes = _RECORD.size + len(raw_key) + len(entry_raw) + len(sums)
        volume = self._room_for(head_bytes + len(body))
        offset = volume.size
        rest = raw_key + entry_raw + sums
        header = _record_header(
            self._device_seed, volume.id, offset, len(raw_key), len(entry_raw), len(body), rest
        )
        buffers = self._buffers_at(volume, offset)
        buffers.append(header + rest)
        buffers.append(body)
        volume.size = offset + head_bytes + len(body)
        return InVolume(volume.id, offset, head_bytes)

    def write(self) -> None:
        """Write what was staged. Raises OSError; then `unstage`."""
        for volume, offset, buffers in self._staged:
            self._disk.write(volume.file.fd, offset, buffers)

    def sync(self) -> None:
        """Put what was written on stable storage. Raises DeviceFailed: nobody knows what is there."""
        for fd in {volume.file.fd for volume, _, _ in self._staged}:
            self._disk.sync(fd)
        self._staged.clear()

    def unstage(self) -> None:
        """Forget what was staged; what was written of it is not pointed at and may be written over."""
        for volume, offset, _ in reversed(self._staged):
            volume.size = offset
        self._staged.clear()

    def open(self, location: InVolume, size: int, seed: int) -> Extent:
        """Open a body for reading; `size` and `seed` are its entry's. Raises BodyGone when the volume was removed."""
        volume = self._held(location)
        body_at = location.offset + location.head_bytes
        sums_at = body_at - block_count(size) * SUM_BYTES
        place = f"{volume.path}, record at {location.offset}"
        return Extent(volume.file, body_at, sums_at, size, seed, place)

    def read_warm(self, location: InVolume, size: int, seed: int) -> memoryview | None:
        """Return a whole body that is in the page cache and sound, without waiting.

        None: it is not; `open` it, and the reading of that waits, or tells what is wrong.
        """
        volume = self._volumes.get(location.volume)
        if volume is None:
            return None
        file, sums_bytes = volume.file, block_count(size) * SUM_BYTES
        body_at = location.offset + location.head_bytes
        try:
            file.hold()
        except BodyGone:
            return None
        try:
            both = pread_warm(file.fd, sums_bytes + size, body_at - sums_bytes)
        except Cold:
            return None
        finally:
            file.release()
        body = both[sums_bytes:]
        return body if block_sums(body, seed) == both[:sums_bytes] else None

    def ids(self) -> tuple[VolumeId, ...]:
        """Return the volumes there are, oldest first."""
        return tuple(sorted(self._volumes))

    def number_from(self, last: VolumeId) -> None:
        """Give the next volume a higher number than `last`, which the index knows, whatever files there are."""
        self._last = max(self._last, last)

    def headless(self) -> list[Path]:
        """Return files that a crash kept from becoming volumes; not the newest, which may be about to become one."""
        paths = self._files()[:-1]
        return [path for path in paths if self._is_not_adopted(path) and _is_headless(path)]

    def ruined(self) -> list[Path]:
        """Return files that hold something of which nothing is sound: no crash leaves that, so it is damage.

        They are never removed. Only while nothing is appended.
        """
        paths = self._files()
        return [path for path in paths if self._is_not_adopted(path) and not _is_headless(path)]

    def damaged(self) -> tuple[VolumeId, ...]:
        """Return the volumes whose header is damaged, oldest first."""
        return tuple(sorted(self._damaged))

    def is_active(self, volume: VolumeId) -> bool:
        """Whether records are still appended to it."""
        return self._active is not None and self._active.id == volume

    def size(self, volume: VolumeId) -> int:
        """Return the physical size of a volume."""
        return self._volumes[volume].size

    def path(self, volume: VolumeId) -> Path:
        """Return the file of a volume."""
        return self._volumes[volume].path

    def remove(self, volume: VolumeId) -> None:
        """Remove a volume that nothing points at; readers that hold it read on."""
        gone = self._volumes.pop(volume)
        self._damaged.discard(volume)
        if self._active is gone:
            self._active = None
        self._disk.unlink(gone.path)
        gone.file.release()

    def read_record(self, location: InVolume) -> Record:
        """Return what the record at a place says of itself; its body is not read.

        Raises BodyDamaged when that is not sound, BodyGone when the volume was removed, OSError when it cannot be read.
        """
        volume = self._held(location)
        try:
            record = self._read_head(volume, location.offset)
        finally:
            volume.file.release()
        if record is None:
            raise BodyDamaged(f"{volume.path}, record at {location.offset}: its head is damaged")
        return record

    def scan(self, volume: VolumeId, pread: Pread = pread_waiting) -> Iterator[Record]:
        """Yield the sound records, skipping whatever is not one. Bodies are not read. Raises what `pread` raises."""
        found = self._volumes[volume]
        with_holder = found.file.hold()
        offset = FIRST_RECORD_AT
        try:
            while (at := self._next_magic(found, offset, pread)) is not None:
                record = self._read_head(found, at, pread)
                if record is not None:
                    yield record
                offset = at + (record.total_bytes if record is not None else 1)
        finally:
            with_holder.release()

    def close(self) -> None:
        """Let go of every volume."""
        while self._volumes:
            _, volume = self._volumes.popitem()
            volume.file.release()
        self._active = None

    def _files(self) -> list[Path]:
        """Return what bears the name of a volume. Raises OSError: what may not be listed would look like a directory that is empty."""
        with os.scandir(self._directory) as found:
            return sorted(self._directory / each.name for each in found if each.name.endswith(".vol"))

    def _is_not_adopted(self, path: Path) -> bool:
        """Whether a file bears the name of a volume and is none."""
        return _NAME.fullmatch(path.stem) is not None and VolumeId(int(path.stem)) not in self._volumes

    def _held(self, location: InVolume) -> Volume:
        """Return the volume of a place, its file held for the caller. Raises BodyGone."""
        volume = self._volumes.get(location.volume)
        if volume is None:
            raise BodyGone(
                f"volume {location.volume} is not there (compacted meanwhile, or lost): begin the read again"
            )
        volume.file.hold()
        return volume

    def _buffers_at(self, volume: Volume, offset: int) -> list[bytes | memoryview]:
        if not self._staged or self._staged[-1][0] is not volume:
            self._staged.append((volume, offset, []))
        return self._staged[-1][2]

    def _room_for(self, record_bytes: int) -> Volume:
        if self._active is not None and self._active.size + record_bytes <= self._volume_bytes_max:
            return self._active
        if len(self._volumes) >= VOLUMES_OPEN_MAX:
            raise InsufficientStorage(
                f"{self._directory} holds {VOLUMES_OPEN_MAX} volumes, the limit: add devices"
            )
        self._last = VolumeId(self._last + 1)
        path = self._directory / f"{self._last:08d}.vol"
        fd = self._disk.create(path)
        try:
            self._disk.write(fd, 0, [_VOLUME.pack(_MAGIC, _VERSION, self._uuid.bytes)])
            self._disk.sync(fd)
            self._disk.sync_directory(self._directory)
        except BaseException:
            os.close(fd)
            raise
        self._active = Volume(self._last, path, SharedFile(fd), _VOLUME.size)
        self._volumes[self._last] = self._active
        return self._active

    def _adopt(self, path: Path) -> None:
        """Open one file as a volume, unless nothing in it is sound: then nothing was ever pointed at, or all is damage."""
        if _NAME.fullmatch(path.stem) is None:
            raise DeviceRefused(
                f"{path} is no volume: move it away, it does not belong to device {self._uuid}"
            )
        self._last = VolumeId(int(path.stem))
        fd = self._disk.open(path, writable=True)
        volume = Volume(self._last, path, SharedFile(fd), os.fstat(fd).st_size)
        header, refusal = b"", None
        try:
            header = bytes(pread_waiting(fd, _VOLUME.size, 0))
        except OSError as error:
            refusal = error
        if header == _VOLUME.pack(_MAGIC, _VERSION, self._uuid.bytes):
            self._volumes[volume.id] = self._active = volume
            return
        if self._has_record(volume, self._device_seed):
            self._volumes[volume.id], self._active = volume, None
            self._damaged.add(volume.id)
            return
        try:
            if refusal is not None:
                raise refusal  # of a disk that reads none of it, more may be expected another day
            self._check_not_anothers(volume, header)
        finally:
            volume.file.release()

    def _check_not_anothers(self, volume: Volume, header: bytes) -> None:
        """Refuse a file that is sound and not for this device, or for this release."""
        if len(header) < _VOLUME.size:
            return
        magic, version, stamp = _VOLUME.unpack(header)
        why = ""
        if magic == _MAGIC and version != _VERSION and stamp == self._uuid.bytes:
            why = f"has format {version}"
        elif magic == _MAGIC and version == _VERSION:
            is_empty = volume.size == _VOLUME.size
            if is_empty or self._has_record(volume, _seed_of_device(stamp)):
                why = "is foreign"
        if why:
            raise DeviceRefused(
                f"{volume.path} {why}: move it away, it does not belong to device {self._uuid}"
            )

    def _has_record(self, volume: Volume, seed: int) -> bool:
        """Say whether a file holds a record of the device with this seed, wherever in it."""
        offset = FIRST_RECORD_AT
        while (at := self._next_magic(volume, offset, pread_salvaging)) is not None:
            if self._read_head(volume, at, pread_salvaging, seed) is not None:
                return True
            offset = at + 1
        return False

    def _next_magic(self, volume: Volume, offset: int, pread: Pread) -> int | None:
        """Find the next place at which a record may begin."""
        overlap = len(_RECORD_MAGIC) - 1
        while offset + _RECORD.size <= volume.size:
            # Records stand back to back nearly always: look at the very spot before reading far ahead.
            for ahead in (_RECORD.size, _SCAN_BYTES):
                chunk = bytes(pread(volume.file.fd, ahead, offset))
                if (at := chunk.find(_RECORD_MAGIC)) >= 0:
                    return offset + at
            offset += max(len(chunk) - overlap, 1)
        return None

    def _read_head(
        self, volume: Volume, offset: int, pread: Pread = pread_waiting, seed: int | None = None
    ) -> Record | None:
        """Read the record that may begin at `offset`; None when there is none, or not a whole one. `seed`: another device's."""
        fd = volume.file.fd
        header = bytes(pread(fd, _RECORD.size, offset))
        if len(header) < _RECORD.size:
            return None
        _, version, key_bytes, entry_bytes, body_bytes, _ = _RECORD.unpack(header)
        rest_bytes = key_bytes + entry_bytes + block_count(body_bytes) * SUM_BYTES
        total_bytes = _RECORD.size + rest_bytes + body_bytes
        if version != _RECORD_VERSION or rest_bytes > _RECORD_HEAD_MAX or offset + total_bytes > volume.size:
            return None
        rest = bytes(pread(fd, rest_bytes, offset + _RECORD.size))
        seed = self._device_seed if seed is None else seed
        if _record_header(seed, volume.id, offset, key_bytes, entry_bytes, body_bytes, rest) != header:
            return None
        try:
            entry = decode(rest[key_bytes : key_bytes + entry_bytes])
        except EntryDamaged:
            return None
        key = Key(rest[:2], rest[2:key_bytes])
        return Record(key, entry, InVolume(volume.id, offset, _RECORD.size + rest_bytes), total_bytes)


def _seed_of_device(stamp: bytes) -> int:
    return int.from_bytes(stamp[:8], "big")


def _record_header(
    seed: int, volume: VolumeId, offset: int, key: int, entry: int, body: int, rest: bytes
) -> bytes:
    """Return what a record of the device with this seed begins with."""
    blank = _RECORD.pack(_RECORD_MAGIC, _RECORD_VERSION, key, entry, body, 0)[:24]
    checksum = xxh3_64_intdigest(blank + _PLACE.pack(volume, offset) + rest, seed)
    return blank + checksum.to_bytes(8, "big")


def _is_headless(path: Path) -> bool:
    """Whether a file has no whole header and nothing behind it, so that nothing ever pointed into it.

    The header is synced before the first record is written. One that is gone counts as a volume.
    """
    try:
        with path.open("rb") as file:
            chunk = file.read(_SCAN_BYTES)
            if len(chunk) < _VOLUME.size:
                return True
            while chunk and not any(chunk):
                chunk = file.read(_SCAN_BYTES)
    except OSError:  # it is gone, or the disk does not tell
        return False
    return not chunk


def record_bytes(location: InVolume, size: int) -> int:
    """Return how many bytes of its volume a body of `size` bytes takes, its head included."""
    return location.head_bytes + size
