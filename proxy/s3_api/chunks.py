"""Bodies in chunks of S3's own making (`aws-chunked`), decoded as they come.

Owns the grammar and its bounds: nothing is kept but a line of it and the hash of the chunk under way. So data leaves here before
its signature has been seen, and whoever takes it must not let it count before `finish` has returned.

    chunk   = size in hex [";chunk-signature=" 64 hex digits] CRLF, that many bytes, CRLF
    body    = chunks, a chunk of size 0 without the CRLF behind it, trailer lines, CRLF
    trailer = name ":" value CRLF; where chunks are signed, x-amz-trailer-signature is the last

Source: "Transferring payload in multiple chunks" and "Including trailing headers" of the S3 API reference.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from hashlib import sha256
from typing import Final

from proxy.s3_api.signatures import Payload, Proven, SignatureRefused
from swiftlike.rpc.transport import Body

LINE_BYTES_MAX: Final = 1024
"""The head of a chunk takes some 90 bytes; a trailer is a checksum, and there are no more than were announced."""

_SIGNED_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})")
_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,16})(;.*)?")
_TRAILER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)")
_HEX_SHA256: Final = re.compile(rb"[0-9a-f]{64}")
_TRAILER_SIGNATURE: Final = b"x-amz-trailer-signature"


class _Awaits(Enum):
    """What comes next."""

    HEAD = "the head of a chunk"
    DATA = "data"
    DATA_END = "the end of a line after data"
    TRAILER = "a trailer, or the end"
    NOTHING = "nothing"


class ChunkedBody:
    """One body on its way."""

    def __init__(self, proven: Proven, decoded_bytes: int, trailers: Collection[str]) -> None:
        """Take what the head proved, and what it declared: how many bytes there are, and the trailers, in lower case."""
        assert proven.payload.is_chunked
        self._left = decoded_bytes
        self._chain = proven.chain
        self._wanted = frozenset(trailers)
        self._owes_signature = proven.payload is Payload.CHUNKS_AND_TRAILER
        self._is_signed = False
        self._awaits = _Awaits.HEAD
        self._line = bytearray()
        self._chunk_left = 0
        self._signature = ""
        self._hash = sha256()
        self._trailers: dict[str, str] = {}
        self._trailer_lines = b""

    def feed(self, raw: Body) -> Iterator[memoryview]:
        """Take what came and yield the data in it, as parts of `raw`. Raises SignatureRefused; nothing more may be fed then."""
        view = memoryview(raw)
        at = 0
        while at < len(view):
            if self._awaits is _Awaits.DATA:
                piece = view[at : at + self._chunk_left]
                at += len(piece)
                self._take_data(piece)
                yield piece
            elif self._awaits is _Awaits.NOTHING:
                raise _broken("there are bytes behind the end of the body")
            else:
                at += self._take_line(view[at:])

    def finish(self) -> Mapping[str, str]:
        """Return the trailers, by name in lower case, once all has come. Raises SignatureRefused."""
        if self._awaits is _Awaits.TRAILER and not self._line and not self._owes_signature:
            self._end()  # some clients leave out the last CRLF, and nothing hangs on it
        if self._awaits is not _Awaits.NOTHING:
            raise _broken(f"the body ended where {self._awaits.value} was to come")
        return self._trailers

    def _take_data(self, piece: memoryview) -> None:
        self._chunk_left -= len(piece)
        if self._chain is not None:
            self._hash.update(piece)
        if not self._chunk_left:
            self._end_chunk()
            self._awaits = _Awaits.DATA_END

    def _end_chunk(self) -> None:
        if self._chain is not None:
            self._chain.take_chunk(self._signature, self._hash.hexdigest())
            self._hash = sha256()

    def _take_line(self, view: memoryview) -> int:
        """Take bytes up to the end of a line, and the line once it is whole; return how many."""
        seen = bytes(view[: LINE_BYTES_MAX + 1 - len(self._line)])
        stop = seen.find(b"\n") + 1
        self._line += seen[:stop] if stop else seen
        if not stop:
            if len(self._line) > LINE_BYTES_MAX:
                raise _broken(f"a line between chunks is over {LINE_BYTES_MAX} bytes long")
            return len(seen)
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        match self._awaits:
            case _Awaits.HEAD:
                self._take_head(line)
            case _Awaits.DATA_END:
                if line:
                    raise _broken("a chunk is longer than its head says")
                self._awaits = _Awaits.HEAD
            case _:
                self._take_trailer(line)
        return stop

    def _take_head(self, line: bytes) -> None:
        found = (_HEAD if self._chain is None else _SIGNED_HEAD).fullmatch(line)
        if found is None:
            raise _broken("the head of a chunk is malformed")
        self._chunk_left = int(found[1], 16)
        if self._chain is not None:
            self._signature = found[2].decode("ascii")
        if self._chunk_left > self._left:
            raise _broken("there is more data than x-amz-decoded-content-length says")
        self._left -= self._chunk_left
        if self._chunk_left:
            self._awaits = _Awaits.DATA
            return
        if self._left:
            raise _broken("there is less data than x-amz-decoded-content-length says")
        self._end_chunk()
        self._awaits = _Awaits.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            if not self._owes_signature:  # AWS's own example has an empty line in front of the signature
                self._end()
            return
        found = _TRAILER.fullmatch(line)
        if found is None or self._is_signed:
            raise _malformed_trailer("a line of the trailer is malformed, or comes behind its signature")
        name, value = found[1].lower(), found[2].strip()
        if name == _TRAILER_SIGNATURE and self._owes_signature and self._chain is not None:
            self._chain.take_trailer(_signature_of(value), self._trailer_lines)
            self._owes_signature, self._is_signed = False, True
            return
        text = name.decode("ascii")
        if text not in self._wanted or text in self._trailers:
            raise _malformed_trailer(f"{text[:60]!r} was not announced by x-amz-trailer, or comes twice")
        self._trailers[text] = value.decode("utf-8", "replace")
        self._trailer_lines += name + b":" + value + b"\n"

    def _end(self) -> None:
        missing = sorted(self._wanted - set(self._trailers))
        if missing:
            raise _malformed_trailer(f"{missing[0]!r} was announced by x-amz-trailer and did not come")
        self._awaits = _Awaits.NOTHING


def _signature_of(value: bytes) -> str:
    if not _HEX_SHA256.fullmatch(value):
        raise _malformed_trailer("its signature is not 64 hexadecimal digits")
    return value.decode("ascii")


def _broken(why: str) -> SignatureRefused:
    return SignatureRefused("IncompleteBody", f"The request body is not the chunks that it should be: {why}")


def _malformed_trailer(why: str) -> SignatureRefused:
    return SignatureRefused(
        "MalformedTrailerError", f"The request contained trailing data that was not well-formed: {why}"
    )
