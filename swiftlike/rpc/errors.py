"""What can go wrong on the wire, as a tree:

    WireError                     any of the below; the message names the cause and the fix
    ├── FrameError                bytes that are no frame of ours; the connection they came on is dropped
    │   ├── ForeignFrame          unknown magic: not our protocol at all
    │   ├── VersionMismatch       our protocol, another version of it
    │   ├── FrameTooLarge         a length above its limit, refused before anything is allocated
    │   └── FrameDamaged          checksum, msgpack or fields are not what they must be
    ├── ProtocolBroken            sound frames that make no sense here: wrong kind, credit overdrawn
    ├── HandshakeError            the two ends did not come to trust each other
    │   ├── WrongSecret           one of them does not hold the cluster's secret
    │   └── HandshakeRefused      the server is full, or ended the handshake for another reason that it names
    ├── ConnectionFailed          no connection could be made, or the one there was is lost
    ├── StreamEnded               a stream is over; carries the reply, which says how
    └── CallFailed                raised by a handler to answer with an application error code

A sick peer is not among them: to the caller of a transport it is a `Reply` with an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swiftlike.rpc.transport import Reply


class WireError(Exception):
    """Something that must not be believed, or could not be done, on the internal RPC."""


class FrameError(WireError):
    """Bytes that are no frame of ours; nothing after them on the connection can be trusted."""


class ForeignFrame(FrameError):
    """Bytes of another protocol."""


class VersionMismatch(FrameError):
    """A frame of another version of our protocol."""

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__(
            f"the peer speaks version {theirs} of the RPC and this process version {ours}; upgrade the older one"
        )
        self.theirs = theirs
        self.ours = ours


class FrameTooLarge(FrameError):
    """A length above its limit."""

    def __init__(self, what: str, found_bytes: int, bytes_max: int) -> None:
        super().__init__(f"a frame's {what} of {found_bytes} bytes is above the limit of {bytes_max}")
        self.found_bytes = found_bytes
        self.bytes_max = bytes_max


class FrameDamaged(FrameError):
    """A frame whose checksum, msgpack or fields are wrong."""


class ProtocolBroken(WireError):
    """A sound frame where it makes no sense."""


class HandshakeError(WireError):
    """The two ends did not come to trust each other."""


class WrongSecret(HandshakeError):
    """One end does not hold the cluster's secret."""


class HandshakeRefused(HandshakeError):
    """The server ended the handshake for the reason it names."""


class ConnectionFailed(WireError):
    """No connection could be made, or the one there was is lost."""


class StreamEnded(WireError):
    """A stream is over, and `reply` says how: answered, refused, not sent, or unknown."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"the stream ended with {reply.outcome.name}: {reply.code} {reply.reason}".rstrip())
        self.reply = reply


class CallFailed(WireError):
    """Raise it in a handler to answer with an application error `code`; the work was judged, and not done."""

    def __init__(self, code: str, reason: str, header: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.header = header or {}
