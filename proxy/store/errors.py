"""What may go wrong with accounts, containers and objects, once for both dialects; one table in each turns it into a status.

    StoreError
    ├── NotThere
    │   ├── NoSuchAccount, NoSuchContainer, NoSuchObject, NoSuchUpload
    │   └── AccountDeleted          it was deleted, and what it held is being removed
    ├── Refused                     what stands there does not allow it; nothing was changed
    │   ├── ConditionFailed
    │   ├── ContainerNotEmpty
    │   ├── PolicyDiffers, NoSuchPolicy
    │   ├── CopyTooLarge            an object of parts that no one body can hold
    │   ├── UploadClaimed           somebody is completing it, or died at that not long ago
    │   └── BucketTaken             another account's container has the name among all buckets
    ├── Unavailable                 provably without effect: ask again
    │   ├── OutOfSpace              too many of the owners are full
    │   └── BodyGone                a body that is being read was replaced, or its holders are down
    └── OutcomeUnknown              it may have been done, or may be done yet

Owns no texts for clients: a dialect words its own.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.store.values import ObjectInfo


class StoreError(Exception):
    """Something that a client is told."""


class NotThere(StoreError):
    """What was asked for does not exist."""


class NoSuchAccount(NotThere):
    """The account does not exist, and this request does not create it."""


class AccountDeleted(NotThere):
    """The account was deleted; what it held is being removed."""


class NoSuchContainer(NotThere):
    """The container does not exist."""


class NoSuchObject(NotThere):
    """The object does not exist, or it is due for deletion."""


class NoSuchUpload(NotThere):
    """The multipart upload does not exist: it was aborted or completed, or never was."""


class Refused(StoreError):
    """What stands there does not allow it; nothing was changed."""


class ConditionFailed(Refused):
    """The condition of a write does not hold over what stands there."""

    def __init__(self, current: "ObjectInfo | None") -> None:
        super().__init__("the condition does not hold over what stands there")
        self.current = current


class ContainerNotEmpty(Refused):
    """The container has objects."""


class PolicyDiffers(Refused):
    """The container exists under another storage policy, which it keeps for ever."""


class NoSuchPolicy(Refused):
    """No storage policy has this name."""


class CopyTooLarge(Refused):
    """The object has more bytes, in parts, than one body may have: it can be copied in parts only."""


class UploadClaimed(Refused):
    """The multipart upload is being completed, with other parts than this asks for, or died at that not long ago: ask again."""


class BucketTaken(Refused):
    """The name of the bucket is another account's."""


class Unavailable(StoreError):
    """Too few owners answered; provably without effect."""


class OutOfSpace(Unavailable):
    """Too many of the owners have only their reserve of space left."""


class BodyGone(Unavailable):
    """The body of an object that was read is on no owner that answers: it was replaced meanwhile, or they are down.

    Begin the read again if nothing was sent yet; else only the end of the connection tells the client.
    """

    def __init__(self, sent_bytes: int = 0) -> None:
        super().__init__(
            f"no owner that answers holds the body that is being read; {sent_bytes} bytes of it were"
        )
        self.sent_bytes = sent_bytes


class OutcomeUnknown(StoreError):
    """The write may have been done, or may be done yet: ask what stands there, or write again."""
