"""What is wrong with a request, before any dialect has its say; each dialect words its own answer.

RequestError
├── HeadRefused             the head, before a dialect reads it
│   ├── TargetRefused       the request target is no path and query
│   └── CodingRefused       the body came under a transfer coding that nobody here undoes
├── RangeNotSatisfiable     every range asked for lies beyond the body
├── DigestMalformed         Content-MD5 is no MD5
└── BodyError               the body; nothing is stored then
    ├── BodyTooLarge        more than is allowed, known before or while it arrives
    ├── BodyTimeout         the client stopped sending
    ├── BodyMalformed       its chunks are not framed as they should be
    └── BodyIncomplete      the client has gone, or sent less than it declared
"""

from typing import ClassVar


class RequestError(Exception):
    """Something is wrong with a request."""


class HeadRefused(RequestError):
    """The head, before a dialect reads it; the text is for the client."""

    status: ClassVar[int] = 400
    """What it is answered with, in whatever dialect."""


class TargetRefused(HeadRefused):
    """The request target is no path and query."""


class CodingRefused(HeadRefused):
    """The body came under a transfer coding that nobody here undoes: to store it as it came would be to store another body.

    Source: RFC 9112 §6.1.
    """

    status = 501


class RangeNotSatisfiable(RequestError):
    """Every range asked for lies beyond the body, or there are too many."""


class DigestMalformed(RequestError):
    """Content-MD5 is no MD5."""


class BodyError(RequestError):
    """A body that cannot be taken."""


class BodyTooLarge(BodyError):
    """More bytes than allowed."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the body is larger than {bytes_max} bytes")
        self.bytes_max = bytes_max


class BodyTimeout(BodyError):
    """The client stopped sending."""


class BodyMalformed(BodyError):
    """Its chunks are not framed as they should be."""


class BodyIncomplete(BodyError):
    """The client has gone, or sent less than it declared."""
