"""What can go wrong with a device, as a tree:

StorageError                    any of the below; the message names the device, the cause and the fix
├── DeviceRefused               not opened: foreign, newer, unmounted, in use, not formatted, index missing
├── DeviceFailed                a sync failed or the writer died: the process must stop
│   └── OutcomeUnknown          ... while this operation was in its batch: it may be on disk or not
├── InsufficientStorage         only the reserve is left; reads, deletes, rows and promises go on
├── BodyDamaged                 a checksum does not match; read another replica
├── BodyGone                    the file or volume was removed since the index was read; begin the read again
├── IndexDamaged                a value in the index is not what was written
├── BallotRefused               a ballot too far from this device's clock; set the clock of its host
└── RingChanged                 a newer ring came while this waited its turn: nothing was kept; place it again
"""


class StorageError(Exception):
    """A device that cannot do what was asked."""


class DeviceRefused(StorageError):
    """A directory that is not opened as a device; nothing in it was changed."""


class DeviceFailed(StorageError):
    """The device takes nothing more: its process must stop."""


class OutcomeUnknown(DeviceFailed):
    """A sync failed with this operation in its batch: whether it is on stable storage, nobody knows."""


class InsufficientStorage(StorageError):
    """Only the reserve is left."""


class BodyDamaged(StorageError):
    """Stored bytes do not match their checksum, or are not all there."""


class BodyGone(StorageError):
    """The file or volume that the index named has gone: it was compacted, replaced or deleted meanwhile."""


class IndexDamaged(StorageError):
    """A value in the index does not match its checksum, or is of an unknown version."""


class BallotRefused(StorageError):
    """A ballot that is too far from this device's clock."""


class RingChanged(StorageError):
    """The ring by which this was placed is no longer in use; nothing was kept."""
