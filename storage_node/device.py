"""The device: index, volumes and large files of one disk behind the store interface.

Owns their opening, the one order in which a batch becomes durable, reading with verification, and the reserve. What
becomes of a bad body is `bad_bodies`'s. Never speaks to the network and starts no job by itself.

Order of a batch: the acceptors decide inside an index transaction; bodies of what was accepted are appended and
synced; the transaction commits (LMDB syncs); the waiters are answered; files that nothing points at any more are
unlinked. A crash in between leaves bytes that nothing points at, never an entry without its bytes.
"""

import asyncio
import errno
import logging
import resource
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from storage_node import identity, tables
from storage_node.bad_bodies import BadBodies
from storage_node.blocks import seed_of
from storage_node.commit import GroupCommit
from storage_node.counters import Counters
from storage_node.disk import Disk
from storage_node.errors import (
    BodyDamaged,
    BodyGone,
    DeviceFailed,
    DeviceRefused,
    InsufficientStorage,
    StorageError,
)
from storage_node.files import Files, StagedFile
from storage_node.identity import DeviceFile
from storage_node.index import Index
from storage_node.index_place import check_owner, elsewhere, place_to_serve
from storage_node.keys import Key, Layout
from storage_node.keyvalues import Reading
from storage_node.locations import FileId, InFile, InVolume, Location, VolumeId
from storage_node.lost_bodies import lost_in
from storage_node.maintenance import RemoveVolume, SettleVolumes
from storage_node.open_body import OpenBody
from storage_node.operations import Content, Disown, Fill, Operation, Relocate
from storage_node.partition_digests import count_where_missing
from storage_node.powers import carry_standings
from storage_node.staged_body import StagedBody
from storage_node.store import Body, Glance, Offered, Outcome, P, Staged, T
from storage_node.table_store import TableStore, check_size
from storage_node.tables import Change, Held
from storage_node.volumes import Volumes
from storage_node.warmth import Warmth
from swiftlike.entries import Entry
from swiftlike.limits import (
    BODY_BYTES_MAX,
    COMMIT_ROOM_BYTES_MAX,
    INDEX_LOOKUPS_SAMPLED,
    INDEX_MAP_BYTES,
    READ_THREADS,
    RECLAIM_AGE_US,
    RESERVE_BYTES,
    SCAN_THREADS,
    SMALL_BODY_BYTES_MAX,
    VOLUME_BYTES_MAX,
)
from swiftlike.node_calls import Acceptance
from swiftlike.timestamps import WriteId

_log: Final = logging.getLogger(__name__)
_OPEN_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How one device is kept."""

    reserve_bytes: int = RESERVE_BYTES
    """Free space that new bodies leave alone."""
    reclaim_age_us: int = RECLAIM_AGE_US
    """How long tombstones are remembered."""
    volume_bytes_max: int = VOLUME_BYTES_MAX
    """Where a volume is rolled."""
    index_directory: Path | None = None
    """Where the index lives, if on a faster disk than the bodies: what the host's file says, to be held against the device's."""
    index_map_bytes: int = INDEX_MAP_BYTES
    """Address space of the index; must exceed the disk."""


class Device(TableStore):
    """An open device. `start` its writer on an event loop, `close` it in the end."""

    def __init__(
        self,
        root: Path,
        layout: Layout,
        read_us: Callable[[], int],
        *,
        settings: Settings | None = None,
        on_failure: Callable[[DeviceFailed], None] = lambda failure: None,
        disk: Disk | None = None,
        open_index: Callable[..., Index] = Index,
        without_votes: bool = False,
    ) -> None:
        """Open a formatted device for this process alone.

        `on_failure` is told, on the loop, that a sync failed and the process must stop. `without_votes` takes the votes
        away first, as after a failed sync that could not be noted. Raises DeviceRefused.
        """
        settings = settings or Settings()
        device = identity.read_device_file(root)
        marked = device.under(layout.seed, root)
        super().__init__(f"{root.name} ({device.uuid})", layout, read_us, settings.reclaim_age_us)
        self.root: Final = root
        self.uuid: Final = device.uuid
        self.generation: Final = device.generation
        self.settings: Final = settings
        self.counters: Final = Counters()
        self.disk: Final = disk or Disk()
        self._owes_votes = False
        """Whether the votes are to be taken away before anything else is committed."""
        self._lock = identity.lock_device(root)
        try:
            self.index_directory: Final = place_to_serve(root, device, settings.index_directory)
            self._index = open_index(self.index_directory, map_bytes=settings.index_map_bytes)
            try:
                check_owner(self._index, device, root, self.index_directory)
                index = elsewhere(root, self.index_directory)
                self._places = (root,) if index is None else (root, self.index_directory)
                self._record(device, replace(marked, index=index))
                self.volumes = Volumes(
                    root / "volumes", device.stamp, self.disk, volume_bytes_max=settings.volume_bytes_max
                )
                self.lost_volumes: Mapping[VolumeId, int] = self._compare_volumes()
                """Volumes that hold less than the index points at, each with its size; 0: it is gone. Of `lost_bodies`."""
                self._load_standings(without_votes=without_votes)
            except BaseException:
                self._index.close()
                raise
        except BaseException:
            identity.unlock_device(self._lock)
            raise
        self._tell_of_damage()
        self.files = Files(root / "files", root / "staging", device.stamp, self.disk)
        self._writer = GroupCommit(self, on_failure)
        self.on_missing: Callable[[Key], None] = lambda key: None
        """Told, on the loop, of a body that is wanted from another owner from then on: whoever repairs sets this."""
        self.bad_bodies: Final = BadBodies(self)
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="reader")
        self._scanners = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="scanner")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="remover")
        self.warmth: Final = Warmth()
        self._unsampled = 0
        self._faults_seen = 0

    def _tell_of_damage(self) -> None:
        """Log which volumes a bad disk has been at; their bodies are held against their checksums one by one."""
        for path in map(self.volumes.path, self.volumes.damaged()):
            _log.error(
                "device %s: the header of %s is damaged; its bodies are moved to another volume",
                self.name,
                path,
            )
        for path in self.volumes.ruined():
            _log.error(
                "device %s: nothing in %s is sound; its bodies are brought from other owners", self.name, path
            )

    def start(self) -> None:
        """Start the writer's thread; answers come on the running event loop, whose thread's faults count from now."""
        self._faults_seen = major_faults()
        self._writer.start()

    async def close(self) -> None:
        """Commit what is queued, then let go of everything."""
        await self._writer.stop()
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Let go of everything; for a device whose writer was never started, or has stopped."""
        self._readers.shutdown()
        self._scanners.shutdown()
        self._remover.shutdown()
        self.volumes.close()
        self._index.close()
        identity.unlock_device(self._lock)

    # ---- writing -------------------------------------------------------------------------------------------

    async def offer(self, offered: Offered) -> Acceptance:
        """Offer an entry to the acceptor of its key."""
        now_us = self._check_ballot(offered.entry.ballot, offered.offer)
        content = await self._content(offered.key, offered.entry, offered.body)
        operation = self._accept(offered, content, now_us)
        if not isinstance(offered.body, StagedBody):
            answer: Acceptance | None = await self._submit_with(operation, content)
            return self._applied(answer)
        operation.is_lent = True
        return self._applied(await offered.body.lend(self._submit_with(operation, content)))

    def offer_all(self, offered: Sequence[Offered]) -> "asyncio.Future[Sequence[Outcome]]":
        """Offer entries whose bodies are in memory, without a task: each is accepted, refused, or fails by itself."""
        return self._writer.enqueue_all(self._accepts(offered))

    async def fill(self, key: Key, body_id: WriteId, body: bytes | memoryview | Staged) -> bool:
        """Bring a missing body; say whether the entry that lacked it is whole now."""
        held = await self.look_up(key)
        entry = None if held is None else held.register.entry
        if entry is None or entry.body_id != body_id:
            return False
        content = await self._content(key, entry, body)
        assert content is not None, "a fill brings a body"
        operation = Fill(key, body_id, content, instead_of=self.bad_bodies.unreadable(key))
        answer: bool = await self._submit_with(operation, content)
        if answer:
            self.bad_bodies.replaced(key)
        return answer

    def stage(self, body_id: WriteId) -> StagedBody:
        """Begin a body that is larger than memory should hold."""
        return StagedBody(self, seed_of(body_id))

    async def _content(self, key: Key, entry: Entry, body: bytes | memoryview | Staged | None) -> Content:
        """Check a body against its entry, and put a large one on stable storage."""
        if body is None:
            return None
        if isinstance(body, bytes | memoryview):
            check_size(entry, len(body))
            if len(body) <= SMALL_BODY_BYTES_MAX:
                return body
            staged = self.stage(entry.body_id)
            try:
                await staged.write(body)
                return await staged.finish(key, entry)
            except BaseException:
                await staged.abort()
                raise
        assert isinstance(body, StagedBody), "a staged body belongs to the device that staged it"
        return await body.finish(key, entry)

    async def _submit_with(self, operation: Operation, content: Content) -> Any:
        """Submit, and remove the finished file of an operation that failed alone, or that nobody began."""
        try:
            answer = await self._writer.enqueue(operation)
        except asyncio.CancelledError:
            # Nobody began it, and this call cannot wait for the removal.
            if isinstance(content, InFile):
                self.remove_soon(content.file)
            raise
        try:
            return await answer
        except DeviceFailed:
            raise
        except Exception:
            # Not on cancellation: the operation may still happen, and the index would point at nothing.
            if isinstance(content, InFile):
                await self.on_thread(self.remove_file, content.file)
            raise

    def _submit(self, operation: Operation) -> "asyncio.Future[Any]":
        return self._writer.submit(operation)

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Make operations durable together, on the writer's thread; one that fails, fails alone.

        Raises DeviceFailed when a sync failed.
        """
        try:
            return self._commit(operations)
        except DeviceFailed as error:
            self._mark_failed(error)
            raise DeviceFailed(f"device {self.name}: {error}") from error

    def _commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        try:
            self._check_commit_room()
            if self._has_room() or all(operation.spends_reserve for operation in operations):
                return [Outcome(answer) for answer in self._commit_together(operations)]
        except DeviceFailed:
            raise
        except Exception as error:  # one by one, each is told its own
            if len(operations) == 1:
                return [self._refusal(error)]
        return [self._commit_alone(operation) for operation in operations]

    def _commit_alone(self, operation: Operation) -> Outcome:
        try:
            self._check_commit_room()
            if not operation.spends_reserve and not self._has_room():
                return self._refusal(self._no_room())
            (answer,) = self._commit_together([operation])
        except DeviceFailed:
            raise
        except Exception as error:
            return self._refusal(error)
        return Outcome(answer)

    def _commit_together(self, operations: Sequence[Operation]) -> list[Any]:
        view = self._index.begin()
        try:
            change = Change(view, self.layout, self._standings)
            answers = [operation.apply(change, self.volumes) for operation in operations]
            change.flush()
            self.volumes.write()
        except BaseException:
            view.abort()
            self.volumes.unstage()
            raise
        try:
            self.volumes.sync()
            view.commit()
        except BaseException:
            view.abort()
            raise
        try:
            self._follow(change)
        except (
            Exception
        ) as error:  # what is on disk must not be replayed: a second offer would free its own body
            raise DeviceFailed(
                f"device {self.name}: {error} after a commit: its outcome stands, and the process must start anew"
            ) from error
        self.counters.batches += 1
        self.counters.operations += len(operations)
        return answers

    def _follow(self, change: Change) -> None:
        """Let what is kept in memory follow a commit, and give back what it freed."""
        self._standings.update(change.standings_changed)
        self.files.settle(change.adopted)
        for file in change.freed:
            self.remove_soon(file)

    def _refusal(self, error: Exception) -> Outcome:
        """Turn what stopped an operation into its outcome."""
        return Outcome(None, self.refused_write(error) if isinstance(error, OSError) else error)

    def refused_write(self, error: OSError) -> StorageError:
        """Count a write that the disk refused, and say what that means."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return InsufficientStorage(f"device {self.name} is full: add devices")
        self.counters.write_errors += 1
        return StorageError(f"device {self.name}: {error}; look at the disk")

    def _check_commit_room(self) -> None:
        """Raise InsufficientStorage when not even a commit may begin; once one may, votes that are owed go first."""
        if self._lacking_bytes():
            raise self._no_commit_room()
        if self._owes_votes:
            self._take_votes()

    def _lacking_bytes(self) -> int:
        """Return how many bytes must become free before a commit may begin."""
        room_bytes = min(self.settings.reserve_bytes // 4, COMMIT_ROOM_BYTES_MAX)
        return max(0, *(room_bytes - self.disk.free_bytes(place) for place in self._places))

    def _no_commit_room(self) -> InsufficientStorage:
        return InsufficientStorage(
            f"device {self.name} is full to the last, and is only read from: free {self._lacking_bytes()} bytes or more of its disk"
        )

    def _has_room(self) -> bool:
        # An index on a disk of its own needs room there: a commit that meets a full disk ends the process.
        return all(self.disk.free_bytes(place) > self.settings.reserve_bytes for place in self._places)

    def _no_room(self) -> InsufficientStorage:
        return InsufficientStorage(
            f"device {self.name} has less than its reserve of {self.settings.reserve_bytes} bytes left: "
            "add devices, or lower their weight"
        )

    def check_room(self) -> None:
        """Raise InsufficientStorage when only the reserve is left."""
        if not self._has_room():
            raise self._no_room()

    def drop_dead_readers(self) -> int:
        """Free index readers whose process was killed, which pin pages; to be called every minute."""
        return self._index.drop_dead_readers()

    def _mark_failed(self, error: Exception) -> None:
        try:
            identity.mark_failed(self.root)
        except DeviceFailed as second:
            _log.critical(
                "device %s: after %s, its failure could not be noted either: %s", self.name, error, second
            )

    def give_up(self, staged: StagedFile) -> None:
        """Remove a staged file; what the disk does not let go now, the leftovers' pass removes."""
        try:
            staged.abort()
        except OSError as error:
            self.counters.write_errors += 1
            _log.warning("device %s: %s was not removed: %s", self.name, staged.path, error)
        self.files.settle([staged.id])

    def remove_soon(self, file: FileId) -> None:
        """Remove a file that nothing points at, on a thread of its own."""
        self._remover.submit(self.remove_file, file)

    def remove_file(self, file: FileId) -> None:
        """Remove a finished file that nothing points at; what the disk does not let go now is a leftover."""
        try:
            self.files.remove(file)
        except FileNotFoundError:
            self.files.settle([file])  # whoever removes leftovers was quicker
        except OSError as error:
            # It is dead either way: the pass for leftovers finds it.
            self.files.settle([file])
            _log.warning("device %s: %s was not removed: %s", self.name, self.files.path(file), error)

    # ---- reading -------------------------------------------------------------------------------------------

    def _view(self) -> AbstractContextManager[Reading]:
        return self._index.reading()

    def _get(self, raw_key: bytes) -> bytes | None:
        return self._index.get(raw_key)

    def _warm_body(self, place: InVolume, size: int, seed: int) -> memoryview | None:
        body = self.volumes.read_warm(place, size, seed)
        if body is not None:
            self.counters.warm_reads += 1
        return body

    def glance(self, key: Key, hashed: int, size_max: int) -> Glance | None:
        """Return what a read shows of a key, if index and body are warm; None: `find` it."""
        if not self.warmth.warm:
            return None
        seen = super().glance(key, hashed, size_max)
        self._note_warm_lookup()
        return seen

    async def look_up(self, key: Key) -> Held | None:
        """Return what stands at a key: at once while the index is warm, else from a reader's thread."""
        return await self.look(self.read, key)

    async def look(self, read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call one of the plain reads that touches a key or two, in the way of `look_up`."""
        if not self.warmth.warm:
            found: T
            found, faults = await self.on_thread(_count_faults, partial(read, *arguments, **options))
            self._note_faults(1, faults)
            return found
        found = read(*arguments, **options)
        self._note_warm_lookup()
        return found

    def _note_warm_lookup(self) -> None:
        """Count a look-up on the loop, and ask the kernel now and then how many pages it had to wait for."""
        self._unsampled += 1
        if self._unsampled == INDEX_LOOKUPS_SAMPLED:
            # All faults of this thread count: nothing else that it does touches a mapped file after the first minutes.
            seen, self._faults_seen = self._faults_seen, major_faults()
            self._note_faults(self._unsampled, self._faults_seen - seen)
            self._unsampled = 0

    def _note_faults(self, lookups: int, faults: int) -> None:
        self.counters.index_faults += faults
        was_warm = self.warmth.warm
        self.warmth.note(lookups, faults)
        if self.warmth.warm and not was_warm:
            # What the loop's thread waited for meanwhile was not this.
            self._faults_seen = major_faults()

    async def scan(self, read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call one of the plain reads on a thread, where it may wait for the disk."""
        call = partial(read, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._scanners, call)

    async def open_object(self, key: Key, size_max: int = BODY_BYTES_MAX) -> tuple[Entry, OpenBody] | None:
        """Return the entry of a key and its body, held open; None unless both are here and it is no larger than that."""
        held, body = await self.find(key, size_max)
        entry = None if held is None else held.register.entry
        return None if entry is None or body is None else (entry, body)

    async def find(self, key: Key, size_max: int) -> tuple[Held | None, OpenBody | None]:
        """Return what stands at a key and, where that is here and no larger than `size_max`, its body, held open."""
        gone: Location | None = None
        for _ in range(_OPEN_TRIES):
            held = await self.look_up(key)
            if held is None or held.register.entry is None or held.register.entry.size > size_max:
                return held, None
            entry, place = held.register.entry, held.location
            if place == gone:
                # Nobody has put it elsewhere meanwhile: it is lost, as by a file system that was repaired.
                lost = BodyDamaged(f"{key.path!r} is not where it should be, {place}; read another replica")
                raise await self.bad_bodies.judge(key, place, lost)
            try:
                match place:
                    case InVolume():
                        extent = self.volumes.open(place, entry.size, seed_of(entry.body_id))
                    case InFile():
                        opener = partial(self.files.open, place, entry.size, seed_of(entry.body_id))
                        extent = await self.on_thread(opener)
                    case _:
                        return held, None
            except BodyGone:
                gone = place
                continue
            except OSError as error:
                raise self.bad_bodies.refused(
                    key, place, f"device {self.name}, {key.path!r}", error
                ) from error
            return held, OpenBody(self, key, place, extent)
        raise StorageError(
            f"device {self.name}: {key.path!r} was replaced {_OPEN_TRIES} times while it was opened: try again"
        )

    async def on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run what waits for the disk on a reader's thread. A failed sync is final there too."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._watched, call, *arguments
        )

    def _watched(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call; on the thread itself, since the caller that waits for it may have been cancelled."""
        try:
            return call(*arguments)
        except DeviceFailed as error:
            self._mark_failed(error)
            self._writer.fail_from_thread(error)
            raise

    def wants_body(self, key: Key, held: Held) -> bool:
        """Whether the body of what stands at a key is missing, or the disk does not read it."""
        return super().wants_body(key, held) or self.bad_bodies.unreadable(key) == held.location

    async def ensure_described(self, key: Key, held: Held, body: Body) -> bool:
        """See that a rebuild of the index would find a body; say whether it was so. One that it would not is stored anew."""
        return await self.bad_bodies.ensure_described(key, held, body)

    async def disown(self, key: Key, place: Location) -> bool:
        """Count the body at a place as missing, if the index still points there; say whether it did."""
        disowned: bool = await self._submit(Disown(key, place))
        return disowned

    async def relocate(self, key: Key, place: InVolume | InFile, content: Content) -> bool:
        """Point at another copy of a body, unless the index points elsewhere by now."""
        assert content is not None, "a body is moved"
        moved: bool = await self._submit_with(Relocate(key, place, content), content)
        return moved

    # ---- volumes -------------------------------------------------------------------------------------------

    def live_bytes(self) -> dict[VolumeId, int]:
        """Return how many bytes of each volume something points at."""
        with self._index.reading() as view:
            counted = tables.read_live_bytes(view)
        return {volume: counted.get(volume, 0) for volume in self.volumes.ids()}

    def files_pointed_at(self, after: bytes, limit: int) -> tuple[set[FileId], bytes | None]:
        """Return the large files that the next `limit` registers point at, and the index key to go on from."""
        with self._view() as view:
            return tables.read_files_pointed_at(view, after, limit)

    async def lost_bodies(self, after: bytes, limit: int) -> tuple[list[tuple[Key, InVolume]], bytes | None]:
        """Return what lost volumes held for the next `limit` registers, and the index key to go on from."""
        return await self.scan(self._lost_bodies, after, limit)

    def _lost_bodies(self, after: bytes, limit: int) -> tuple[list[tuple[Key, InVolume]], bytes | None]:
        with self._view() as view:
            return tables.read_lost_bodies(view, self.lost_volumes, after, limit)

    async def settle_volumes(self) -> None:
        """Count nothing any more in what the volumes have lost: nothing points there."""
        await self._submit(SettleVolumes(self.lost_volumes))
        self.lost_volumes = {}

    async def remove_volume(self, volume: VolumeId) -> None:
        """Remove a volume that nothing points at."""
        if self.volumes.is_active(volume) or self.live_bytes()[volume] != 0:
            raise StorageError(
                f"device {self.name}: volume {volume} is still written to or pointed into: compact it first"
            )
        await self._submit(RemoveVolume(volume))
        await self.on_thread(self.volumes.remove, volume)

    # ---- opening -------------------------------------------------------------------------------------------

    def _record(self, before: DeviceFile, after: DeviceFile) -> None:
        """Write `device.toml` where it says something else. The mark of the seed alone can wait for room."""
        if before == after:
            return
        try:
            identity.write_device_file(self.root, after, self.disk)
        except DeviceRefused as refused:
            error = refused.__cause__
            if before.index != after.index or getattr(error, "errno", None) not in (
                errno.ENOSPC,
                errno.EDQUOT,
            ):
                raise
            _log.warning(
                "device %s is full: it notes under which seed it was filled at its next start", self.name
            )

    def _compare_volumes(self) -> dict[VolumeId, int]:
        """Return the volumes that have lost something, and see that no number is given twice while anything points there."""
        with self._index.reading() as view:
            counts = tables.read_volumes(view)
        self.volumes.number_from(max(counts, default=VolumeId(0)))
        return lost_in(counts, {volume: self.volumes.size(volume) for volume in self.volumes.ids()})

    def _load_standings(self, *, without_votes: bool) -> None:
        if without_votes or identity.has_failed(self.root):
            # The page cache may show bytes that never reached the disk: what is here may be less than was promised.
            if lacking := self._lacking_bytes():
                # There is no room to take the votes away, and reads are worth more than nothing: in memory there are none, nothing
                # is committed before they are taken, and the mark sees to it that the next process does the same.
                identity.note_failed(self.root)
                self._owes_votes = True
                _log.error(
                    "device %s: its last sync failed and its disk is full: it is only read from, without a vote, until %d bytes are free",
                    self.name,
                    lacking,
                )
            else:
                self._take_votes()
        if carried := carry_standings(self._index, self.layout):
            _log.info("device %s: %d partitions were divided as a part power was raised", self.name, carried)
        if counted := count_where_missing(self._index, self.layout):
            _log.info(
                "device %s: the digests of the partitions of %d tables were counted", self.name, counted
            )
        with self._index.reading() as view:
            self._standings = tables.read_standings(view, self.layout)
        if self._owes_votes:
            self._standings = {
                place: standing._replace(votes=False) for place, standing in self._standings.items()
            }

    def _take_votes(self) -> None:
        """Take all votes away durably. The mark of the failed sync goes last: a crash before takes them once more."""
        change = self._index.begin()
        try:
            Change(change, self.layout, {}).take_all_votes()
        except BaseException:
            change.abort()
            raise
        change.commit()
        identity.clear_failed(self.root)
        self._owes_votes = False
        _log.warning("device %s: its last sync failed; it does not vote until it has caught up", self.name)


def _count_faults(read: Callable[[], T]) -> tuple[T, int]:
    before = major_faults()
    return read(), major_faults() - before


def major_faults() -> int:
    """Return how often this thread has waited for a page of a mapped file."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
