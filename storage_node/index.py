"""The index of a device: one LMDB environment, every value under a checksum.

Owns how the environment is made, opened, read and committed. Never knows what a key means. Commits are fully
synchronous; one thread writes; a read transaction never spans an `await`. What LMDB raises leaves here as StorageError.

    value, version 1:  size  field
                             the value, laid out by the table that it stands in
                          8  xxh3_64 of key and value
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import concat
from pathlib import Path
from typing import Final, NamedTuple, cast
from uuid import UUID

import lmdb
from xxhash import xxh3_64_digest

from storage_node.errors import DeviceFailed, DeviceRefused, IndexDamaged, InsufficientStorage, StorageError
from storage_node.keys import IDENTITY
from swiftlike.limits import INDEX_MAP_BYTES, INDEX_READERS_MAX

KEY_BYTES_MIN: Final = 1_700
"""The longest key: a row of 256 + 256 + 1,024 bytes of names, its incarnation, and the time at which it is reclaimed."""

FORMAT_VERSION: Final = 1
_LIB_VERSION: Final = 1
_CHECKSUM_BYTES: Final = 8
_PIECE_ITEMS: Final = 32
"""Of what is taken at once, at first; then four times as many."""
_joined: Final = cast("Callable[[bytes, bytes], bytes]", concat)
_FULL: Final = (lmdb.MapFullError, lmdb.TxnFullError)
_DAMAGED: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.BadChecksumError)

_LIMIT_OF_FILES: Final = "raise the limit of open files (ulimit -n, or LimitNOFILE of the unit)"
_FIXES: Final = {
    errno.EACCES: "give this user access to the directory and its files",
    errno.EPERM: "give this user access to the directory and its files",
    errno.EROFS: "its disk is mounted read-only, so look at the disk, and mount it for writing",
    errno.ENOMEM: "raise the limit on address space (ulimit -v, or LimitAS of the unit): the whole map is reserved at once",
    errno.EMFILE: _LIMIT_OF_FILES,
    errno.ENFILE: _LIMIT_OF_FILES,
    errno.ENOSPC: "its disk is full, so free some MiB of it",
    errno.EIO: "its disk does not read it, so look at the disk; rebuild-index only when it is lost for good",
}
"""What helps where the system refuses to open an index, which is whole for all that anybody knows."""


class Identity(NamedTuple):
    """Whose index it is; must equal what `device.toml` says."""

    uuid: UUID
    generation: int

    def encode(self) -> bytes:
        """Write it down."""
        return bytes([FORMAT_VERSION]) + self.uuid.bytes + self.generation.to_bytes(8, "big")


class Index:
    """An open environment."""

    def __init__(
        self, path: Path, *, create: bool = False, map_bytes: int = INDEX_MAP_BYTES, readonly: bool = False
    ) -> None:
        """Open the environment in directory `path`; only *format* may `create` one.

        With `readonly` nothing at all is written, not even LMDB's lock file: the caller holds the device's lock.

        Raises DeviceRefused when it is not there, when it is there and should be created, or when this LMDB cannot hold
        whole paths as keys.
        """
        present = (path / "data.mdb").exists()
        if present == create:
            what = (
                "already holds an index: choose an empty one"
                if create
                else "holds no index: run rebuild-index"
            )
            raise DeviceRefused(f"{path} {what}")
        try:
            self._env = lmdb.open(
                str(path),
                map_size=map_bytes,
                max_readers=INDEX_READERS_MAX,
                max_spare_txns=8,
                readahead=False,
                create=create,
                readonly=readonly,
                lock=not readonly,
                lib_version=_LIB_VERSION,
            )
        except lmdb.Error as error:
            raise _not_opened(path, error) from None
        self.engine_version: Final = self._env.lib_version()
        if self.engine_version[0] != _LIB_VERSION or self._env.max_key_size() < KEY_BYTES_MIN:
            self._env.close()
            raise DeviceRefused(
                f"this build of lmdb (engine {self.engine_version}) holds keys of {self._env.max_key_size()} bytes, and "
                f"{KEY_BYTES_MIN} are needed: install lmdb>=3"
            )
        self._path = path
        if not readonly:
            self.drop_dead_readers()

    def identity(self) -> Identity:
        """Return whose index it is. Raises DeviceRefused when it is empty or of a newer format."""
        with self.reading() as view:
            raw = view.get(IDENTITY)
        if raw is None:
            raise DeviceRefused(f"the index in {self._path} is empty: run rebuild-index")
        if raw[0] != FORMAT_VERSION:
            raise DeviceRefused(
                f"the index in {self._path} has format {raw[0]}, this release reads 1: upgrade swiftlike on this host"
            )
        return Identity(UUID(bytes=raw[1:17]), int.from_bytes(raw[17:25], "big"))

    @contextmanager
    def reading(self) -> Iterator["IndexView"]:
        """Hold a consistent view; keep it short, since it pins every page that is replaced meanwhile."""
        transaction = self._begin()
        try:
            yield IndexView(transaction)
        finally:
            transaction.abort()

    def get(self, key: bytes) -> bytes | None:
        """Read one value: the shortest of views. Raises IndexDamaged."""
        try:
            with self._env.begin() as transaction:
                raw = transaction.get(key)
        except lmdb.Error as error:
            raise _told(error) from error
        return None if raw is None else _opened(key, raw)

    def begin(self) -> "IndexChange":
        """Begin to write; on the writer's thread only."""
        return IndexChange(self._begin(write=True))

    def _begin(self, *, write: bool = False) -> "lmdb.Transaction[bytes]":
        try:
            return self._env.begin(write=write)
        except lmdb.Error as error:
            raise _told(error) from error

    def drop_dead_readers(self) -> int:
        """Free the slots of readers that were killed, which pin pages; return how many."""
        try:
            return self._env.reader_check()
        except lmdb.Error as error:
            raise _told(error) from error

    def used_bytes(self) -> int:
        """Return how far the environment has grown, free pages included."""
        return int(self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


class IndexView:
    """A read transaction."""

    def __init__(self, transaction: "lmdb.Transaction[bytes]") -> None:
        """Take the transaction."""
        self._transaction = transaction
        self._get = transaction.get

    def get(self, key: bytes) -> bytes | None:
        """Return the value at a key. Raises IndexDamaged."""
        try:
            raw = self._get(key)
        except lmdb.Error as error:
            raise _told(error) from error
        return None if raw is None else _opened(key, raw)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items in `[start, stop)` in order of their keys, or from the last to the first."""
        with self._cursor() as cursor:
            if reverse:
                there = _seek(cursor, start, stop, reverse=True)
                for key, raw in cursor.iterprev() if there else ():
                    if key < start:
                        return
                    yield key, _opened(key, raw)
            elif cursor.set_range(start):
                for key, raw in cursor:
                    if key >= stop:
                        return
                    yield key, _opened(key, raw)

    def scan_sound(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the items in `[start, stop)` in order of their keys, with None for a value that fails its checksum."""
        with self._cursor() as cursor:
            if cursor.set_range(start):
                for key, raw in cursor:
                    if key >= stop:
                        return
                    yield key, _value_of(key, raw)

    def take(
        self, start: bytes, stop: bytes, limit: int, *, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of the first `limit` items that a scan would yield: for many items the cheaper way."""
        keys: list[bytes] = []
        # Keys and values of two cursors: pairs would have to be made, and taken apart again.
        with self._cursor() as walking, self._cursor() as reading:
            there = _seek(walking, start, stop, reverse=reverse) and _seek(
                reading, start, stop, reverse=reverse
            )
            coming = walking.iterprev(values=False) if reverse else walking.iternext(values=False)
            # Pieces, since what lies behind the span is read in vain.
            piece = _PIECE_ITEMS
            while there and len(keys) < limit:
                some = list(islice(coming, min(piece, limit - len(keys))))
                there = len(some) == piece
                if some and (some[-1] < start if reverse else some[-1] >= stop):
                    there = False
                    some = [key for key in some if start <= key < stop]
                keys += some
                piece *= 4
            raws = reading.iterprev(keys=False) if reverse else reading.iternext(keys=False)
            return keys, _all_opened(keys, list(islice(raws, len(keys))))

    def floor(self, key: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """Return the last item in `[start, key]`."""
        with self._cursor() as cursor:
            there = cursor.set_range(key)
            if not there or cursor.key() != key:
                there = cursor.prev() if there else cursor.last()
            if not there or cursor.key() < start:
                return None
            found, raw = cursor.item()
            return found, _opened(found, raw)

    @contextmanager
    def _cursor(self) -> Iterator["lmdb.Cursor[bytes]"]:
        try:
            with self._transaction.cursor() as cursor:
                yield cursor
        except lmdb.Error as error:
            raise _told(error) from error


class IndexChange(IndexView):
    """The write transaction."""

    def __init__(self, transaction: "lmdb.Transaction[bytes]") -> None:
        """Take the transaction."""
        super().__init__(transaction)
        self._put = transaction.put

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value at a key. Raises InsufficientStorage when the map is full."""
        try:
            self._put(key, value + xxh3_64_digest(key + value))
        except lmdb.Error as error:
            raise _told(error) from error

    def delete(self, key: bytes) -> bool:
        """Remove a key; say whether it was there."""
        try:
            return self._transaction.delete(key)
        except lmdb.Error as error:
            raise _told(error) from error

    def commit(self) -> None:
        """Put the changes on stable storage.

        Raises InsufficientStorage when nothing was written for want of space, DeviceFailed when nobody knows.

        Only what LMDB finds out before it writes its first page proves that nothing was written: that the map, or the
        list of changed pages, has no room for the free list. ENOSPC proves nothing here. It may come from a page, from
        the sync behind the pages (a disk that allocates late tells no earlier) or from the meta page that makes the
        commit stand, and the error does not say which.
        """
        try:
            self._transaction.commit()
        except _FULL as error:
            raise _told(error) from None
        except lmdb.Error as error:
            raise DeviceFailed(f"the index could not be committed: {error}") from error

    def abort(self) -> None:
        """Take the changes back."""
        self._transaction.abort()


def _seek(cursor: "lmdb.Cursor[bytes]", start: bytes, stop: bytes, *, reverse: bool) -> bool:
    """Stand where a scan of `[start, stop)` begins, which may lie outside; say whether there is anything."""
    if not reverse:
        return cursor.set_range(start)
    # The last key below `stop` is the one before the first at or above it, or the very last.
    return cursor.prev() if cursor.set_range(stop) else cursor.last()


def _opened(key: bytes, raw: bytes) -> bytes:
    value = raw[:-_CHECKSUM_BYTES]
    if xxh3_64_digest(key + value) != raw[-_CHECKSUM_BYTES:]:
        raise value_damaged(key)
    return value


def value_damaged(key: bytes) -> IndexDamaged:
    """Return what is said of a value that fails its checksum, by a reader and by a check alike."""
    return IndexDamaged(f"index key {key[:80]!r}: checksum mismatch; run check, then rebuild-index")


def _all_opened(keys: Sequence[bytes], raws: Sequence[bytes]) -> list[bytes]:
    """Open many values without a step of ours for each, which costs more than its checksum."""
    values = [raw[:-_CHECKSUM_BYTES] for raw in raws]
    sums = list(map(xxh3_64_digest, map(_joined, keys, values)))
    if sums != [raw[-_CHECKSUM_BYTES:] for raw in raws]:
        return list(map(_opened, keys, raws))  # which names the one that is damaged
    return values


def _value_of(key: bytes, raw: bytes) -> bytes | None:
    value = raw[:-_CHECKSUM_BYTES]
    return value if xxh3_64_digest(key + value) == raw[-_CHECKSUM_BYTES:] else None


def _not_opened(path: Path, error: lmdb.Error) -> DeviceRefused:
    """Say why there is no index to read. Only what is wrong with its file is one for a rebuild, which forgets votes, promises and rows."""
    code: int = getattr(error, "code", 0)
    # The system's errors are positive, LMDB's own negative.
    fix = _FIXES.get(code) or ("look at its disk" if code > 0 else "run rebuild-index")
    return DeviceRefused(f"the index in {path} cannot be opened ({error}): {fix}")


def _told(error: lmdb.Error) -> StorageError:
    """Translate what LMDB raised outside of a commit: nothing was written."""
    if isinstance(error, _FULL):
        return InsufficientStorage(f"the index is full ({error}): add devices, or wait for reclaim")
    if getattr(error, "code", None) == errno.ENOSPC:  # what the binding itself refuses has no code
        return InsufficientStorage(f"the disk of the index is full ({error}): free space or add devices")
    if isinstance(error, _DAMAGED):
        return IndexDamaged(f"the index is damaged ({error}): run check, then rebuild-index")
    if isinstance(error, lmdb.PanicError):
        return DeviceFailed(f"the index takes nothing more ({error}): restart the device")
    return StorageError(f"the index refused ({error}): try again, and look at the disk and the log")
