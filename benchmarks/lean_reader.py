"""A reader that costs next to nothing, so that a benchmark of the device's streams measures the device.

Speaks just enough of the RPC, on a blocking socket: the handshake, one stream after another, credit for what arrived.
Checks no body's checksum and keeps no body.
"""

import os
import socket
from types import TracebackType
from typing import Any, Final, Self

import msgpack

from swiftlike.limits import RPC_BODY_BYTES_MAX, RPC_HEADER_BYTES_MAX, RpcLimits
from swiftlike.rpc.frames import FIXED, FIXED_BYTES, Frame, Kind, encode
from swiftlike.rpc.handshake import NONCE_BYTES, Channel, ClientHandshake

_WINDOW_BYTES: Final = RpcLimits().stream_window_bytes


class LeanReader:
    """One connection for streams."""

    def __init__(self, path: str, secret: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._space = memoryview(bytearray(RPC_HEADER_BYTES_MAX + RPC_BODY_BYTES_MAX))
        self._last_id = 0
        handshake = ClientHandshake(secret, Channel.STREAMS, os.urandom(NONCE_BYTES))
        self._socket.sendall(encode(Kind.HELLO, 0, handshake.hello))
        proof = handshake.answer(self._frame())
        self._socket.sendall(encode(Kind.PROOF, 0, proof))
        handshake.answer(self._frame())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def read(self, method: str, header: dict[str, Any]) -> int:
        """Take one stream to its end; return how many bytes of bodies came."""
        self._last_id += 1
        call_id = self._last_id
        opening = (method, 60_000, _WINDOW_BYTES, header)
        self._socket.sendall(encode(Kind.OPEN, call_id, opening) + encode(Kind.END, call_id, ()))
        taken = owed = 0
        while True:
            kind, header_bytes, body_bytes = self._take()
            if kind == Kind.DATA:
                taken += body_bytes
                owed += FIXED_BYTES + header_bytes + body_bytes
                if owed >= _WINDOW_BYTES // 4:
                    self._socket.sendall(encode(Kind.CREDIT, call_id, (owed,)))
                    owed = 0
            elif kind == Kind.REPLY:
                return taken
            elif kind != Kind.CREDIT:
                raise RuntimeError(
                    f"the stream ended with {Kind(kind).name}: {bytes(self._space[:header_bytes])!r}"
                )

    def _take(self) -> tuple[int, int, int]:
        """Receive a frame into the one buffer; return its kind, and how long its header and body are."""
        self._fill(FIXED_BYTES)
        _, _, kind, _, header_bytes, body_bytes, _ = FIXED.unpack_from(self._space)
        self._fill(header_bytes + body_bytes)
        return kind, header_bytes, body_bytes

    def _fill(self, size: int) -> None:
        if size and self._socket.recv_into(self._space[:size], size, socket.MSG_WAITALL) < size:
            raise ConnectionError("the device closed the connection")

    def _frame(self) -> Frame:
        kind, header_bytes, _ = self._take()
        return Frame(Kind(kind), 0, msgpack.unpackb(self._space[:header_bytes], use_list=False), b"")
