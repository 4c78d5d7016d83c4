"""Bad bodies: what becomes of a body whose bytes are wrong, are gone, cannot be read, or would not be found again.

Owns that judgement and the quarantine. Never decides what an entry is: whatever becomes of its body, it stays.

    found                               what becomes of the copy                     and then
    a checksum does not match, or gone  given up; a large file goes to quarantine/   another owner's is brought
    the disk does not read it           kept, for it may be read another day         another owner's is put in its place
    sound, but a rebuild would miss it  kept until it is stored anew, from itself    the old one is dead
"""

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from storage_node.counters import Counters
from storage_node.described import verify_description
from storage_node.disk import Disk
from storage_node.errors import BodyDamaged, BodyGone, InsufficientStorage, StorageError
from storage_node.files import Files
from storage_node.keys import Key
from storage_node.locations import InFile, InVolume, Location
from storage_node.operations import Content
from storage_node.staged_body import StagedBody
from storage_node.store import Body
from storage_node.tables import Held
from storage_node.volumes import Volumes
from swiftlike.limits import UNREADABLE_MAX
from swiftlike.timestamps import WriteId

_log: Final = logging.getLogger(__name__)
_MEDIUM_ERRORS: Final = frozenset(
    {errno.EIO, errno.ENODATA, errno.EREMOTEIO, errno.EILSEQ, errno.EBADMSG, errno.EUCLEAN}
)
"""What Linux answers where a medium or its file system is bad, rather than that we have too many files open."""


class KeepingDevice(Protocol):
    """What the judgement needs of the device that the bodies lie on."""

    on_missing: Callable[[Key], None]

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def root(self) -> Path:
        """Its directory."""

    @property
    def counters(self) -> Counters:
        """What it counts."""

    @property
    def disk(self) -> Disk:
        """Its file system."""

    @property
    def files(self) -> Files:
        """Its large files."""

    @property
    def volumes(self) -> Volumes:
        """Its small bodies."""

    async def on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run what waits for the disk on a reader's thread."""

    def stage(self, body_id: WriteId) -> StagedBody:
        """Begin a body."""

    async def disown(self, key: Key, place: Location) -> bool:
        """Count the body at a place as missing, if the index still points there; say whether it did."""

    async def relocate(self, key: Key, place: InVolume | InFile, content: Content) -> bool:
        """Point at another copy of a body, unless the index points elsewhere by now."""


class BadBodies:
    """The judgement over the bodies of one device; all but `quarantined` on its loop."""

    def __init__(self, device: KeepingDevice) -> None:
        """Take the device."""
        self._device: Final = device
        self._unreadable: dict[Key, Location] = {}
        """Where bodies lie that the disk did not read, until others have come in their place."""

    async def judge(self, key: Key, place: Location, damage: BodyDamaged) -> StorageError:
        """Quarantine a damaged body, if the index still points at it; return what to tell the reader."""
        device = self._device
        if not await device.disown(key, place):
            return BodyGone(
                f"device {device.name}: {key.path!r} was replaced while it was read: begin the read again"
            )
        device.counters.bodies_damaged += 1
        _log.error("device %s: %s", device.name, damage)
        if isinstance(place, InFile):
            await device.on_thread(self._quarantine, place)
        device.on_missing(key)
        return damage

    def refused(self, key: Key, place: Location, named: str, error: OSError) -> BodyDamaged:
        """Count a body that the disk does not read, and have another owner's copy put in its place; return what to tell.

        Until that has come nothing is given up: it may be read another day.
        """
        if error.errno in _MEDIUM_ERRORS:
            if len(self._unreadable) >= UNREADABLE_MAX:
                # The oldest goes; the next audit meets it again.
                self._unreadable.pop(next(iter(self._unreadable)))
            self._unreadable[key] = place
            self._device.on_missing(key)
        return self._refused_read(named, error)

    def unreadable(self, key: Key) -> Location | None:
        """Return where the body of a key lay when the disk did not read it."""
        return self._unreadable.get(key)

    def replaced(self, key: Key) -> None:
        """Forget that a body was not read: another is in its place."""
        self._unreadable.pop(key, None)

    async def ensure_described(self, key: Key, held: Held, body: Body) -> bool:
        """See that a rebuild of the index would find a body; say whether it was so. One that it would not is stored anew.

        Raises as `Store.ensure_described` says.
        """
        device, entry, place = self._device, held.register.entry, held.location
        assert entry is not None, "only an entry has a body"
        assert isinstance(place, InVolume | InFile), "an open body lies somewhere"
        try:
            await device.on_thread(verify_description, device.volumes, device.files, key, entry, place)
        except BodyDamaged as error:
            damage = error
        except OSError as error:
            damage = self._refused_read(f"device {device.name}, {key.path!r}", error)
        else:
            return True
        device.counters.bodies_damaged += 1
        _log.error(
            "device %s: %r: %s; the body itself is sound and is stored anew", device.name, key.path, damage
        )
        staged = device.stage(entry.body_id)
        try:
            async for chunk in body.stream(0, body.size):
                await staged.write(chunk)
            await device.relocate(key, place, await staged.finish(key, entry))
        except InsufficientStorage as error:
            raise BodyDamaged(f"{damage}; it cannot be stored anew: {error}") from error
        finally:
            await staged.abort()
        return False

    def quarantined(self) -> int:
        """Count the files that were set aside; none where the disk does not tell."""
        try:
            return sum(1 for _ in (self._device.root / "quarantine").iterdir())
        except OSError:
            return 0

    def _refused_read(self, named: str, error: OSError) -> BodyDamaged:
        self._device.counters.read_errors += 1
        return BodyDamaged(f"{named}: {error}; read another replica and look at the disk")

    def _quarantine(self, place: InFile) -> None:
        """Move a damaged file aside; a damaged record stays where it is, dead, until its volume is compacted."""
        device = self._device
        path, target = device.files.path(place.file), device.root / "quarantine"
        try:
            device.disk.rename(path, target / place.file.hex())
            device.disk.sync_directory(target)
        except FileNotFoundError:
            return  # there is nothing to keep for a second look
        except OSError as error:
            # Nothing points at it any more, wherever it lies: the reader hears of the damage, not of this.
            device.counters.write_errors += 1
            _log.error("device %s: %s stays where it is: %s", device.name, path, error)
