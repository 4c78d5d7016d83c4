"""The index at its boundary: what LMDB refuses is told in the words of the storage node, and with a code."""

import errno
import os
from pathlib import Path
from typing import Any

import lmdb
import pytest

from storage_node import index as index_module
from storage_node.errors import DeviceFailed, DeviceRefused, IndexDamaged, InsufficientStorage, StorageError
from storage_node.index import Index, IndexChange, IndexView
from storage_node.service import reply_to
from swiftlike.node_calls import Code
from swiftlike.rpc.transport import Outcome

TOLD = [
    (lmdb.MapFullError, InsufficientStorage, Code.INSUFFICIENT_STORAGE),
    (lmdb.TxnFullError, InsufficientStorage, Code.INSUFFICIENT_STORAGE),
    (lmdb.CorruptedError, IndexDamaged, Code.INDEX_DAMAGED),
    (lmdb.PageNotFoundError, IndexDamaged, Code.INDEX_DAMAGED),
    (lmdb.PanicError, DeviceFailed, Code.DEVICE_FAILED),
    (lmdb.BadTxnError, StorageError, Code.STORAGE_ERROR),
    (lmdb.Error, StorageError, Code.STORAGE_ERROR),
]


class Refusing:
    """A transaction and its cursor, refusing everything."""

    def __init__(self, error: type[lmdb.Error]) -> None:
        self._error = error

    def __enter__(self) -> "Refusing":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""

    def cursor(self) -> "Refusing":
        return self

    def refuse(self, *arguments: object) -> Any:
        raise self._error("refused")

    get = put = delete = set_range = refuse


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize(("raised", "told", "code"), TOLD)
def test_whatever_lmdb_raises_outside_a_commit_is_told_with_a_code(
    raised: type[lmdb.Error], told: type[StorageError], code: Code
) -> None:
    refusing: Any = Refusing(raised)
    view, change = IndexView(refusing), IndexChange(refusing)
    for attempt in (
        lambda: view.get(b"k"),
        lambda: list(view.scan(b"a", b"b")),
        lambda: list(view.scan(b"a", b"b", reverse=True)),
        lambda: view.take(b"a", b"b", 9),
        lambda: view.take(b"a", b"b", 9, reverse=True),
        lambda: view.floor(b"k", b"a"),
        lambda: change.put(b"k", b"v"),
        lambda: change.delete(b"k"),
    ):
        with pytest.raises(StorageError, match="refused") as caught:
            attempt()
        assert type(caught.value) is told
        reply = reply_to(caught.value)
        assert (reply.outcome, reply.code) == (Outcome.ERROR, code)


def fill(change: IndexChange) -> None:
    for number in range(1000):
        change.put(b"%d" % number, bytes(1000))


def test_a_map_that_is_full_is_insufficient_storage(path: Path) -> None:
    index = Index(path, create=True, map_bytes=1 << 16)
    change = index.begin()
    with pytest.raises(InsufficientStorage, match="add devices"):
        fill(change)
    change.abort()
    index.close()


def test_more_readers_than_there_are_slots_are_refused_in_a_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "INDEX_READERS_MAX", 1)
    index = Index(path, create=True, map_bytes=1 << 20)
    with index.reading():
        with pytest.raises(StorageError, match="try again"), index.reading():
            pass
        with pytest.raises(StorageError, match="try again"):
            index.get(b"k")
    with pytest.raises(StorageError):
        index.get(b"")
    index.close()


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_taken_is_the_beginning_of_what_is_scanned(path: Path, reverse: bool) -> None:
    index = Index(path, create=True, map_bytes=1 << 22)
    change = index.begin()
    for number in range(300):
        change.put(b"%04d" % number, b"value %d" % number)
    change.commit()
    with index.reading() as view:
        for start, stop in (
            (b"0", b"1"),
            (b"0100", b"0101"),
            (b"0010", b"0290"),
            (b"00995", b"0250"),
            (b"5", b"6"),
        ):
            scanned = list(view.scan(start, stop, reverse=reverse))
            for limit in (1, 31, 32, 33, 160, 161, 1000):
                keys, values = view.take(start, stop, limit, reverse=reverse)
                assert list(zip(keys, values, strict=True)) == scanned[:limit]
        assert view.take(b"0", b"1", 0) == ([], [])
    index.close()


def test_damage_among_what_is_taken_is_told(path: Path) -> None:
    index = Index(path, create=True, map_bytes=1 << 20)
    index.begin().commit()
    with index._env.begin(write=True) as transaction:
        transaction.put(b"k", b"no checksum of this")
    with index.reading() as view, pytest.raises(IndexDamaged, match="checksum"):
        view.take(b"a", b"z", 5)
    index.close()


class FailingCommit(Refusing):
    """A transaction whose commit raises a given error."""

    def __init__(self, error: lmdb.Error) -> None:
        self._raised = error

    def commit(self) -> None:
        raise self._raised


def disk_error(code: int) -> lmdb.Error:
    """What py-lmdb raises for an error number."""
    error = lmdb.DiskError("mdb_txn_commit: No space left on device")
    error.__dict__["code"] = code
    return error


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (lmdb.MapFullError("full"), InsufficientStorage),
        (lmdb.TxnFullError("full"), InsufficientStorage),
        (disk_error(errno.ENOSPC), DeviceFailed),
        (disk_error(errno.EIO), DeviceFailed),
        (lmdb.Error("mdb_txn_commit: Input/output error"), DeviceFailed),
        (lmdb.PanicError("panic"), DeviceFailed),
    ],
    ids=repr,
)
def test_a_commit_is_without_effect_only_where_lmdb_found_out_before_its_first_page(
    raised: lmdb.Error, told: type[StorageError]
) -> None:
    transaction: Any = FailingCommit(raised)
    change = IndexChange(transaction)
    with pytest.raises(StorageError) as caught:
        change.commit()
    assert type(caught.value) is told


def test_a_put_that_meets_a_full_disk_is_without_effect() -> None:
    transaction: Any = Refusing(lmdb.DiskError)
    transaction.put = transaction.set_range = lambda *arguments: raise_it(disk_error(errno.ENOSPC))
    with pytest.raises(InsufficientStorage, match="free space or add devices"):
        IndexChange(transaction).put(b"k", b"v")


def raise_it(error: Exception) -> None:
    """Raise, in an expression."""
    raise error


@pytest.mark.parametrize(
    ("raised", "code", "fix"),
    [
        (lmdb.ReadonlyError, errno.EACCES, "give this user access"),
        (lmdb.ReadonlyError, errno.EPERM, "give this user access"),
        (lmdb.ReadonlyError, errno.EROFS, "mount it for writing"),
        (lmdb.MemoryError, errno.ENOMEM, "raise the limit on address space"),
        (lmdb.Error, errno.EMFILE, "raise the limit of open files"),
        (lmdb.DiskError, errno.EIO, "its disk does not read it"),
        (lmdb.DiskError, errno.ENOSPC, "free some MiB of it"),
        (lmdb.Error, errno.ENODEV, "look at its disk"),
    ],
)
def test_an_index_that_the_system_does_not_open_is_not_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[lmdb.Error], code: int, fix: str
) -> None:
    Index(path, create=True, map_bytes=1 << 20).close()

    def refuse(*arguments: object, **options: object) -> None:
        error = raised(os.strerror(code))
        error.__dict__["code"] = code
        raise error

    monkeypatch.setattr(lmdb, "open", refuse)
    with pytest.raises(DeviceRefused) as refused:
        Index(path, map_bytes=1 << 20)
    assert fix in str(refused.value)
    assert "run rebuild-index" not in str(refused.value)


def test_an_index_that_is_none_wants_to_be_rebuilt(path: Path) -> None:
    Index(path, create=True, map_bytes=1 << 20).close()
    (path / "data.mdb").write_bytes(bytes(8_192))
    with pytest.raises(DeviceRefused, match=r"MDB_INVALID.*: run rebuild-index"):
        Index(path, map_bytes=1 << 20)


def test_an_index_without_room_for_its_map_asks_for_the_limit(path: Path) -> None:
    Index(path, create=True, map_bytes=1 << 20).close()
    with pytest.raises(DeviceRefused, match="raise the limit on address space"):
        Index(path, map_bytes=1 << 48)
