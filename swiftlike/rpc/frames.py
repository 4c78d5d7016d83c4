"""Frames: the bytes of the internal RPC, and the decoder that finds them in a stream of bytes.

Owns the layout and the order of its checks. Pure: never touches a socket, a clock or a secret.

    rpc frame, version 1, big-endian:  offset  size  field
                                            0     2  magic b"sl"
                                            2     1  version = 1
                                            3     1  kind, see Kind
                                            4     4  call_id, chosen by the caller, growing; 0 where no call is meant
                                            8     4  header_bytes, of the msgpack that follows
                                           12     4  body_bytes, raw, after the header
                                           16     8  checksum, see checksum_of
                                           24        header, then body

The first four bytes keep their meaning in every version, so that any version can name another. They are checked
first, then the lengths against their limits, and only then is memory set aside; the checksum is checked before the
header is parsed. It finds damage and does not stop a forger: that is what the handshake and TLS are for.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial
from struct import Struct
from typing import Any, Final, NamedTuple, cast

import msgpack
import xxhash

from swiftlike.limits import RPC_BODY_BYTES_MAX, RPC_HANDSHAKE_HEADER_BYTES_MAX, RPC_HEADER_BYTES_MAX
from swiftlike.rpc.errors import ForeignFrame, FrameDamaged, FrameTooLarge, VersionMismatch
from swiftlike.rpc.transport import Body

MAGIC: Final = b"sl"
VERSION: Final = 1
FIXED: Final = Struct(">2sBBIIIQ")
FIXED_BYTES: Final = FIXED.size
assert FIXED_BYTES == 24, "the table and the code must agree"

CALL_ID_MAX: Final = 2**32 - 1


class Kind(IntEnum):
    """What a frame says, and beside it the header that it carries."""

    # The handshake, in this order; see `handshake`.
    HELLO = 1  # (channel, nonce)
    CHALLENGE = 2  # (nonce,)
    PROOF = 3  # (mac,)
    WELCOME = 4  # (mac,)
    DENIED = 5  # (code, reason)

    # Calls, and the answers that end a call or a stream.
    CALL = 16  # (method, deadline_ms, map); body
    REPLY = 17  # map; body: done
    FAILED = 18  # (code, reason, map): judged by the handler and not done
    REFUSED = 19  # (code, reason): not begun
    ABANDONED = 20  # (reason,): begun, and nobody knows how far it came
    CANCEL = 21  # (): the caller has gone

    # Streams.
    OPEN = 32  # (method, deadline_ms, window_bytes, map)
    DATA = 33  # map; body
    CREDIT = 34  # (bytes,): so much more may be sent
    END = 35  # (): the caller will send no more

    # The connection itself.
    PING = 48  # ()
    PONG = 49  # ()
    GOODBYE = 50  # (): the server takes no more calls on this connection


_KINDS: Final = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One frame, taken apart. `header` is what msgpack made of it: whoever handles the kind checks its shape."""

    kind: Kind
    call_id: int
    header: Any
    body: Body
    header_bytes: int = 0
    """The header's size on the wire, which counts against a stream's credit."""


# Every call of every device passes here four times: names of this module, and frames made as the tuples that they are.
_pack: Final = msgpack.Packer(use_bin_type=True).pack
_unpack: Final = partial(msgpack.unpackb, use_list=False, raw=False, strict_map_key=True)
_digest: Final = xxhash.xxh3_64_intdigest
_as_frame: Final = cast("Callable[[tuple[Kind, int, Any, Body, int]], Frame]", partial(tuple.__new__, Frame))


def checksum_of(kind: int, call_id: int, header: Body, body: Body) -> int:
    """Return xxh3_64 of the body, seeded with that of the header, seeded with call_id, kind and header_bytes.

    body_bytes needs no place of its own: it is the length of what is hashed.
    """
    return _digest(body, _digest(header, call_id << 32 | kind << 24 | len(header)))


def encode(kind: Kind, call_id: int, header: object, body: Body = b"") -> bytes:
    """Return everything of a frame but its body, which the caller sends right behind, uncopied.

    Raises FrameTooLarge, and TypeError or ValueError when msgpack has no form for the header.
    """
    packed: bytes = _pack(header)
    header_bytes, body_bytes = len(packed), len(body)
    if header_bytes > RPC_HEADER_BYTES_MAX:
        raise FrameTooLarge("header", header_bytes, RPC_HEADER_BYTES_MAX)
    if body_bytes > RPC_BODY_BYTES_MAX:
        raise FrameTooLarge("body", body_bytes, RPC_BODY_BYTES_MAX)
    checksum = _digest(body, _digest(packed, call_id << 32 | kind << 24 | header_bytes))  # see `checksum_of`
    return FIXED.pack(MAGIC, VERSION, kind, call_id, header_bytes, body_bytes, checksum) + packed


# A body of which this much or more has not arrived yet is read straight into memory of its own, without a copy.
_DIRECT_BYTES: Final = 8 * 1024
_BUFFER_BYTES_MIN: Final = 16 * 1024
_BUFFER_BYTES_MAX: Final = 256 * 1024
_QUIET_READS: Final = 256
"""After so many reads in a row that would have fitted the smallest buffer, a grown one shrinks again."""


class FrameDecoder:
    """Turns what a socket delivers, in pieces of any size, into frames.

    The reader fills `space()` and tells `received(n)`, which yields the frames that are complete. Until
    `trust()` is called, the limits are those of strangers. Memory: one buffer that grows from 16 to 256 KiB
    while the peer keeps it full and shrinks when it no longer does, and at most one body within its limit.
    """

    __slots__ = (
        "_body_bytes_max",
        "_buffer",
        "_direct",
        "_direct_filled",
        "_direct_frame",
        "_header_bytes_max",
        "_quiet_reads",
        "_start",
        "_stop",
        "_view",
    )

    def __init__(self) -> None:
        self._header_bytes_max = RPC_HANDSHAKE_HEADER_BYTES_MAX
        self._body_bytes_max = 0
        self._buffer = bytearray(FIXED_BYTES + RPC_HANDSHAKE_HEADER_BYTES_MAX)
        self._view = memoryview(self._buffer)
        self._start = 0  # of what is in the buffer and not yet decoded
        self._stop = 0
        self._quiet_reads = 0
        self._direct: bytearray | None = None  # the body that is being read without the buffer,
        self._direct_filled = 0  # how much of it is there,
        self._direct_frame: tuple[Kind, int, bytes, int] | None = None  # kind, call_id, header, checksum

    def trust(self) -> None:
        """Admit frames of full size: the peer has proved who it is."""
        self._header_bytes_max = RPC_HEADER_BYTES_MAX
        self._body_bytes_max = RPC_BODY_BYTES_MAX
        self._rebase(_BUFFER_BYTES_MIN)

    @property
    def midway(self) -> bool:
        """True while part of a frame has arrived and part has not."""
        return self._direct is not None or self._start < self._stop

    def space(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        if self._direct is not None:
            return memoryview(self._direct)[self._direct_filled :]
        return self._view[self._stop :]

    def received(self, received_bytes: int) -> Iterator[Frame]:
        """Yield the frames that are complete now that `received_bytes` more are in `space()`.

        Raises FrameError at the first that is none of ours; the decoder is then of no more use.
        """
        if self._direct is not None:
            self._direct_filled += received_bytes
            if self._direct_filled == len(self._direct):
                yield self._take_direct()
            return
        self._stop += received_bytes
        full = self._stop == len(self._buffer)
        self._quiet_reads = self._quiet_reads + 1 if received_bytes < _BUFFER_BYTES_MIN else 0
        while self._stop - (start := self._start) >= FIXED_BYTES:
            magic, version, number, call_id, header_bytes, body_bytes, checksum = FIXED.unpack_from(
                self._buffer, start
            )
            kind = _KINDS.get(number)
            if magic != MAGIC or version != VERSION or kind is None:
                raise self._foreign()
            if header_bytes > self._header_bytes_max:
                raise FrameTooLarge("header", header_bytes, self._header_bytes_max)
            if body_bytes > self._body_bytes_max:
                raise FrameTooLarge("body", body_bytes, self._body_bytes_max)
            header_start = start + FIXED_BYTES
            body_start = header_start + header_bytes
            body_stop = body_start + body_bytes
            if body_start > self._stop:
                self._make_room(FIXED_BYTES + header_bytes, full)
                return
            if body_stop > self._stop:
                if body_stop - self._stop >= _DIRECT_BYTES:
                    self._begin_direct(kind, call_id, checksum, header_start, body_start, body_bytes)
                else:
                    self._make_room(body_stop - start, full)
                return
            view = self._view
            body = bytes(view[body_start:body_stop]) if body_bytes else b""
            frame = _checked(kind, call_id, view[header_start:body_start], body, checksum)
            self._start = body_stop
            yield frame
        if self._stop - self._start >= 4:
            self._check_prefix()
        self._make_room(FIXED_BYTES, full)

    def _check_prefix(self) -> None:
        """Refuse a stranger's first bytes without waiting for more of them."""
        magic, version, number = self._prefix()
        if magic != MAGIC or version != VERSION or number not in _KINDS:
            raise self._foreign()

    def _prefix(self) -> tuple[bytes, int, int]:
        start = self._start
        return bytes(self._view[start : start + 2]), self._buffer[start + 2], self._buffer[start + 3]

    def _foreign(self) -> ForeignFrame | VersionMismatch | FrameDamaged:
        magic, version, number = self._prefix()
        if magic != MAGIC:
            return ForeignFrame(
                f"a frame begins with {magic!r} instead of {MAGIC!r}; something else than swiftlike speaks on this port"
            )
        if version != VERSION:
            return VersionMismatch(version, VERSION)
        return FrameDamaged(f"version {VERSION} of the RPC has no frame of kind {number}")

    def _begin_direct(
        self, kind: Kind, call_id: int, checksum: int, header_start: int, body_start: int, body_bytes: int
    ) -> None:
        body = bytearray(body_bytes)
        filled = self._stop - body_start
        body[:filled] = self._view[body_start : self._stop]
        self._direct = body
        self._direct_filled = filled
        self._direct_frame = (kind, call_id, bytes(self._view[header_start:body_start]), checksum)
        self._start = self._stop = 0

    def _take_direct(self) -> Frame:
        assert self._direct is not None
        assert self._direct_frame is not None
        body, (kind, call_id, header, checksum) = self._direct, self._direct_frame
        self._direct = self._direct_frame = None
        return _checked(kind, call_id, header, body, checksum)

    def _make_room(self, wanted_bytes: int, full: bool) -> None:
        """Have room for `wanted_bytes` from the start of what is left; grow the buffer when reads fill it."""
        size = len(self._buffer)
        if self._start == self._stop:
            self._start = self._stop = 0
            if self._quiet_reads > _QUIET_READS and size > _BUFFER_BYTES_MIN:
                self._rebase(_BUFFER_BYTES_MIN)
                return
        if full and self._body_bytes_max and size < _BUFFER_BYTES_MAX:
            self._rebase(max(2 * size, wanted_bytes))
        elif self._start + wanted_bytes > size:
            self._rebase(max(size, wanted_bytes))

    def _rebase(self, size: int) -> None:
        """Move what is left to the front, into a buffer of `size`."""
        left = bytes(self._view[self._start : self._stop])
        if size != len(self._buffer):
            self._buffer = bytearray(size)
            self._view = memoryview(self._buffer)
        self._view[: len(left)] = left
        self._start, self._stop = 0, len(left)


def _checked(kind: Kind, call_id: int, header: Body, body: Body, checksum: int) -> Frame:
    header_bytes = len(header)
    if _digest(body, _digest(header, call_id << 32 | kind << 24 | header_bytes)) != checksum:
        raise FrameDamaged(
            f"the checksum of a {kind.name} frame does not match its bytes; it was damaged on the way"
        )
    try:
        # Lengths inside the header are bounded by its own: msgpack takes no array longer than its input.
        unpacked = _unpack(header)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FrameDamaged(f"the header of a {kind.name} frame is not msgpack of ours: {error}") from None
    return _as_frame((kind, call_id, unpacked, body, header_bytes))
