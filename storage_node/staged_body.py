"""A staged body: what has come of a body so far, before anything points at it.

Owns where the bytes wait (in memory while they are few, then in a staged file) and what becomes of them when the upload
is given up. Never touches the index.
"""

import asyncio
from collections.abc import Callable, Coroutine
from threading import Lock
from typing import Any, Protocol

from storage_node.errors import StorageError
from storage_node.files import Files, StagedFile
from storage_node.keys import Key
from storage_node.locations import FileId, InFile
from storage_node.operations import Content
from storage_node.table_store import check_size
from swiftlike.entries import Entry, encode
from swiftlike.limits import BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX
from swiftlike.node_calls import Acceptance
from swiftlike.rpc.transport import Body as Octets


class StagingDevice(Protocol):
    """What a staged body needs of the device that it is staged on."""

    @property
    def files(self) -> Files:
        """The large files."""

    async def on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run what waits for the disk on a reader's thread."""

    def check_room(self) -> None:
        """Raise InsufficientStorage when only the reserve is left."""

    def remove_soon(self, file: FileId) -> None:
        """Remove a file that nothing points at, on a thread of its own."""

    def refused_write(self, error: OSError) -> StorageError:
        """Count a write that the disk refused, and say what that means."""

    def remove_file(self, file: FileId) -> None:
        """Remove a finished file that nothing points at."""

    def give_up(self, staged: StagedFile) -> None:
        """Remove a staged file."""


class StagedBody:
    """A body on its way in: in memory while it is small, then in a file of its own.

    A cancelled wait does not stop the thread behind it, so all that touches the file happens under one lock: a
    descriptor closed by `abort` under a write that goes on could be another file's by then.
    """

    def __init__(self, device: StagingDevice, seed: int) -> None:
        """Take the device that it belongs to, and the seed of its checksums."""
        self._device = device
        self._seed = seed
        self._chunks: list[Octets] = []
        self._file: StagedFile | None = None
        self._finished: InFile | None = None
        self._taken_over = False
        self._given_up = False
        self._aborted = False
        self._lock = Lock()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    async def write(self, *chunks: Octets) -> None:
        """Append to the body chunks that do not change any more; waits while the disk is slower than the sender."""
        self._size += sum(map(len, chunks))
        if self._size > BODY_BYTES_MAX:
            raise StorageError(f"the body passes {BODY_BYTES_MAX} bytes, the limit: upload it in segments")
        self._chunks += chunks
        if self._size > SMALL_BODY_BYTES_MAX:
            spilled, self._chunks = self._chunks, []
            await self._write_on_thread(self._spill, spilled)

    async def finish(self, key: Key, entry: Entry) -> Content:
        """Complete the body, durably if it is large, and hand over what its entry can point at."""
        check_size(entry, self._size)
        if self._size <= SMALL_BODY_BYTES_MAX:
            return b"".join(self._chunks)
        place: InFile = await self._write_on_thread(self._finish, key, encode(entry))
        self._taken_over = True
        return place

    async def _write_on_thread(self, write: Callable[..., Any], *arguments: Any) -> Any:
        """Write on a reader's thread. Raises InsufficientStorage or StorageError for what the disk refuses."""
        try:
            return await self._device.on_thread(write, *arguments)
        except OSError as error:
            raise self._device.refused_write(error) from error

    async def lend(self, work: Coroutine[Any, Any, Acceptance | None]) -> Acceptance | None:
        """Wait for an offer of the finished body; one that is refused, or not made, gives it back for another."""
        offer = asyncio.ensure_future(work)
        # Not behind an await: the offer goes on when its caller is cancelled, and may be refused after that.
        offer.add_done_callback(self._take_back)
        return await asyncio.shield(offer)

    def _take_back(self, offer: "asyncio.Future[Acceptance | None]") -> None:
        if offer.cancelled() or offer.exception() is not None:
            return
        answer = offer.result()
        if answer is not None and answer.accepted:
            return
        self._taken_over = False
        if self._given_up and self._finished is not None:
            self._device.remove_soon(self._finished.file)

    async def abort(self) -> None:
        """Give the body up, unless it was handed over."""
        self._given_up = True
        self._chunks.clear()
        if self._size > SMALL_BODY_BYTES_MAX and not self._taken_over:
            await self._device.on_thread(self._abort)

    def _spill(self, chunks: list[Octets]) -> None:
        with self._lock:
            if self._aborted:
                return
            if self._file is None:
                self._device.check_room()
                self._file = self._device.files.stage(self._seed)
            self._file.write(chunks)

    def _finish(self, key: Key, entry_raw: bytes) -> InFile:
        with self._lock:
            assert self._file is not None, "a body of this size was spilled"
            self._device.check_room()
            self._finished = self._device.files.finish(self._file, key, entry_raw)
            return self._finished

    def _abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._finished is not None:
                assert self._file is not None, "only a file is finished"
                self._file.close()  # open again, if a second offer could not be finished
                self._device.remove_file(self._finished.file)
            elif self._file is not None:
                self._device.give_up(self._file)
