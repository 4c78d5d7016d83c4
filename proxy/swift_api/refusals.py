"""What a client is told when something is not done.

Owns the one table from the domain's errors, and those of bodies, to statuses and sentences. A sentence never holds what
the client sent, but for a header's name.
"""

from collections.abc import Sequence
from typing import Final

from proxy.http.errors import (
    BodyIncomplete,
    BodyMalformed,
    BodyTimeout,
    BodyTooLarge,
    CodingRefused,
    DigestMalformed,
    RangeNotSatisfiable,
    RequestError,
    TargetRefused,
)
from proxy.http.response import Headers, Response
from proxy.store.errors import (
    AccountDeleted,
    BucketTaken,
    ConditionFailed,
    ContainerNotEmpty,
    CopyTooLarge,
    NoSuchAccount,
    NoSuchContainer,
    NoSuchObject,
    NoSuchPolicy,
    NoSuchUpload,
    OutcomeUnknown,
    OutOfSpace,
    PolicyDiffers,
    StoreError,
    Unavailable,
    UploadClaimed,
)

PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")
RETRY_AFTER_S: Final = 1


class Refusal(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


_TOLD: Final[dict[type[Exception], tuple[int, str]]] = {
    NoSuchAccount: (404, "There is no such account."),
    AccountDeleted: (404, "The account was deleted."),
    NoSuchContainer: (404, "There is no such container."),
    NoSuchObject: (404, "There is no such object."),
    NoSuchUpload: (404, "There is no such upload of parts."),
    ConditionFailed: (412, "The condition of the request does not hold."),
    ContainerNotEmpty: (409, "The container has objects: delete them first."),
    PolicyDiffers: (409, "The container exists with another storage policy, which it keeps."),
    CopyTooLarge: (413, "The object is too large for one body: it can be copied in parts only."),
    UploadClaimed: (409, "The upload of parts is being completed: ask again."),
    BucketTaken: (409, "The name is another account's bucket."),
    NoSuchPolicy: (400, "No storage policy has this name."),
    OutOfSpace: (507, "The devices that this belongs to are full; nothing was stored."),
    Unavailable: (503, "Too few devices answered; nothing was changed. Ask again."),
    OutcomeUnknown: (
        503,
        "It is not known whether this was done: too few devices answered in time. Look, or ask again.",
    ),
    BodyTooLarge: (413, "The body is too large."),
    BodyTimeout: (408, "The rest of the body did not come in time; nothing was stored."),
    BodyMalformed: (400, "The body's chunks are malformed; nothing was stored."),
    BodyIncomplete: (499, "The connection ended before the body did; nothing was stored."),
    DigestMalformed: (400, "Content-MD5 is no MD5 in base64: 16 bytes, which are 24 characters."),
    TargetRefused: (400, "The request target is malformed."),
    CodingRefused: (CodingRefused.status, "Of the transfer codings, this server knows chunked alone."),
    RangeNotSatisfiable: (416, "No such range."),
}


def response_to(error: Refusal | StoreError | RequestError) -> Response:
    """Return the answer to what went wrong."""
    if isinstance(error, Refusal):
        status, text, headers = error.status, error.text, list(error.headers)
    else:
        kind = next(kind for kind in type(error).__mro__ if kind in _TOLD)
        (status, text), headers = _TOLD[kind], []
    if status == 503:
        headers.append(("Retry-After", str(RETRY_AFTER_S)))
    return told(status, text, headers)


def told(status: int, text: str = "", headers: Headers | None = None) -> Response:
    """Return an answer of one sentence, or of none."""
    return Response(status, [*(headers or ()), PLAIN], f"{text}\n".encode() if text else b"")
