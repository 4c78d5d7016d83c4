"""The handshake: both ends of a new connection prove that they hold the cluster's secret.

Owns the four messages and their proofs. Pure: nonces and the secret come in, frames' headers go out.

    client                                            server
      HELLO (channel, client nonce)            →
                                               ←        CHALLENGE (server nonce)
      PROOF (mac of "client" and transcript)   →        checks it, or DENIED
      checks it                                ←        WELCOME (mac of "server" and transcript)

    mac = HMAC-SHA256(secret, role ‖ transcript)
    transcript = "swiftlike rpc" ‖ version ‖ channel ‖ client nonce ‖ server nonce

The client proves first, so a server tells a stranger nothing but a nonce. The role in each proof keeps one end's
proof from being played back as the other's; the channel in the transcript keeps a proof made for calls from opening
a stream. It proves who began the connection and does not protect what follows: on a network where others can write
into connections, use TLS beneath it.
"""

import hmac
from enum import IntEnum
from typing import Final

from swiftlike.limits import RPC_SECRET_BYTES_MIN
from swiftlike.rpc.errors import FrameDamaged, HandshakeRefused, ProtocolBroken, WrongSecret
from swiftlike.rpc.frames import VERSION, Frame, Kind

NONCE_BYTES: Final = 32
MAC_BYTES: Final = 32

WRONG_SECRET: Final = "wrong_secret"  # noqa: S105 (a code on the wire, not a secret)
VERSION_MISMATCH: Final = "version_mismatch"
FULL: Final = "full"


class Channel(IntEnum):
    """What a connection will be used for."""

    CALLS = 1
    STREAMS = 2


def check_secret(secret: bytes) -> bytes:
    """Return `secret` when it is long enough to be one, else raise ValueError."""
    if len(secret) < RPC_SECRET_BYTES_MIN:
        raise ValueError(
            f"the cluster's secret has {len(secret)} bytes; make one of at least {RPC_SECRET_BYTES_MIN} random bytes"
        )
    return secret


class ClientHandshake:
    """The end that opened the connection: send `hello`, answer the challenge, believe only a sound welcome."""

    def __init__(self, secret: bytes, channel: Channel, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._secret = secret
        self._channel = channel
        self._nonce = nonce
        self._transcript: bytes | None = None
        self.hello = (int(channel), nonce)

    def answer(self, frame: Frame) -> tuple[bytes] | None:
        """Return the header of the PROOF to send, or None when `frame` was the welcome and the handshake is done.

        Raises WrongSecret, HandshakeRefused, ProtocolBroken or FrameDamaged.
        """
        if frame.kind is Kind.DENIED:
            raise _denied(frame)
        if frame.kind is Kind.CHALLENGE and self._transcript is None:
            self._transcript = _transcript(self._channel, self._nonce, _one_of(frame, NONCE_BYTES))
            return (_mac(self._secret, b"client", self._transcript),)
        if frame.kind is Kind.WELCOME and self._transcript is not None:
            if not hmac.compare_digest(
                _one_of(frame, MAC_BYTES), _mac(self._secret, b"server", self._transcript)
            ):
                raise WrongSecret("the server does not hold this cluster's secret; do not talk to it")
            return None
        raise ProtocolBroken(f"{frame.kind.name} out of turn in the server's half of the handshake")


class ServerHandshake:
    """The end that accepted the connection: challenge, check the proof, and only then prove."""

    def __init__(self, secret: bytes, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._secret = secret
        self._nonce = nonce
        self._transcript: bytes | None = None
        self.channel: Channel | None = None

    def answer(self, frame: Frame) -> tuple[Kind, tuple[bytes]]:
        """Return the kind and header to send; after a WELCOME the peer is trusted.

        Raises WrongSecret, ProtocolBroken or FrameDamaged; the peer is then no more than told so.
        """
        if frame.kind is Kind.HELLO and self._transcript is None:
            self.channel, client_nonce = _hello(frame)
            self._transcript = _transcript(self.channel, client_nonce, self._nonce)
            return Kind.CHALLENGE, (self._nonce,)
        if frame.kind is Kind.PROOF and self._transcript is not None:
            if not hmac.compare_digest(
                _one_of(frame, MAC_BYTES), _mac(self._secret, b"client", self._transcript)
            ):
                raise WrongSecret(
                    "the client does not hold this cluster's secret; compare the secret files of both hosts, and "
                    "hash_seed in their cluster.toml"
                )
            return Kind.WELCOME, (_mac(self._secret, b"server", self._transcript),)
        raise ProtocolBroken(f"{frame.kind.name} out of turn in the client's half of the handshake")


def _transcript(channel: Channel, client_nonce: bytes, server_nonce: bytes) -> bytes:
    return b"swiftlike rpc" + bytes((VERSION, channel)) + client_nonce + server_nonce


def _mac(secret: bytes, role: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, role + transcript, "sha256")


def _one_of(frame: Frame, size: int) -> bytes:
    match frame.header:
        case (bytes(value),) if len(value) == size:
            return value
    raise FrameDamaged(f"the header of a {frame.kind.name} frame is not one string of {size} bytes")


def _hello(frame: Frame) -> tuple[Channel, bytes]:
    match frame.header:
        case (int(number), bytes(nonce)) if (
            number in (Channel.CALLS, Channel.STREAMS) and len(nonce) == NONCE_BYTES
        ):
            return Channel(number), nonce
    raise FrameDamaged("the header of a HELLO frame is not a channel and a nonce")


def _denied(frame: Frame) -> HandshakeRefused | WrongSecret:
    match frame.header:
        case (str(code), str(reason)):
            if code == WRONG_SECRET:
                return WrongSecret(f"the server refused this process's secret: {reason}")
            return HandshakeRefused(f"the server ended the handshake with {code}: {reason}")
    return HandshakeRefused("the server ended the handshake without a reason that this version understands")
