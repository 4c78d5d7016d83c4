"""The handshake, played without a network: who proves what, and what a cheat gets."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlike.rpc.errors import HandshakeRefused, ProtocolBroken, WireError, WrongSecret
from swiftlike.rpc.frames import Frame, Kind
from swiftlike.rpc.handshake import (
    MAC_BYTES,
    NONCE_BYTES,
    Channel,
    ClientHandshake,
    ServerHandshake,
    check_secret,
)

SECRET = b"the cluster's secret"
OTHER = b"some other cluster's"


def frame(kind: Kind, header: object) -> Frame:
    return Frame(kind, 0, header, b"")


def client(
    secret: bytes = SECRET, channel: Channel = Channel.CALLS, nonce: bytes = b"c" * 32
) -> ClientHandshake:
    return ClientHandshake(secret, channel, nonce)


def server(secret: bytes = SECRET, nonce: bytes = b"s" * 32) -> ServerHandshake:
    return ServerHandshake(secret, nonce)


def play(one: ClientHandshake, other: ServerHandshake) -> None:
    challenge = other.answer(frame(Kind.HELLO, one.hello))
    proof = one.answer(frame(*challenge))
    assert proof is not None
    welcome = other.answer(frame(Kind.PROOF, proof))
    assert welcome[0] is Kind.WELCOME
    assert one.answer(frame(*welcome)) is None


@pytest.mark.parametrize("channel", Channel)
def test_two_ends_with_the_same_secret_come_to_trust_each_other(channel: Channel) -> None:
    accepting = server()
    play(client(channel=channel), accepting)
    assert accepting.channel is channel


def test_a_client_with_another_secret_is_refused_and_learns_only_a_nonce() -> None:
    accepting, cheat = server(), client(OTHER)
    kind, header = accepting.answer(frame(Kind.HELLO, cheat.hello))
    assert (kind, header) == (Kind.CHALLENGE, (b"s" * NONCE_BYTES,))
    with pytest.raises(WrongSecret, match="compare the secret files"):
        accepting.answer(frame(Kind.PROOF, cheat.answer(frame(kind, header))))


def test_a_server_with_another_secret_is_not_believed() -> None:
    asking = client()
    assert asking.answer(frame(Kind.CHALLENGE, (b"s" * 32,))) is not None
    with pytest.raises(WrongSecret, match="does not hold this cluster's secret"):
        asking.answer(frame(Kind.WELCOME, (bytes(MAC_BYTES),)))


def test_a_clients_own_proof_played_back_as_the_welcome_is_refused() -> None:
    asking = client()
    proof = asking.answer(frame(Kind.CHALLENGE, (b"c" * 32,)))
    with pytest.raises(WrongSecret):
        asking.answer(frame(Kind.WELCOME, proof))


def test_a_proof_recorded_earlier_does_not_open_a_later_connection() -> None:
    recorded = client()
    earlier = server(nonce=b"1" * 32)
    proof = recorded.answer(frame(*earlier.answer(frame(Kind.HELLO, recorded.hello))))
    later = server(nonce=b"2" * 32)
    later.answer(frame(Kind.HELLO, recorded.hello))
    with pytest.raises(WrongSecret):
        later.answer(frame(Kind.PROOF, proof))


def test_a_proof_for_calls_does_not_open_a_channel_for_streams() -> None:
    asking, accepting = client(channel=Channel.CALLS), server()
    challenge = accepting.answer(frame(Kind.HELLO, (int(Channel.STREAMS), asking.hello[1])))
    with pytest.raises(WrongSecret):
        accepting.answer(frame(Kind.PROOF, asking.answer(frame(*challenge))))


def test_a_server_that_is_full_says_so() -> None:
    with pytest.raises(HandshakeRefused, match="full: come back later"):
        client().answer(frame(Kind.DENIED, ("full", "come back later")))


@pytest.mark.parametrize("kind", [Kind.PROOF, Kind.CALL, Kind.WELCOME, Kind.OPEN, Kind.PING])
def test_a_stranger_who_skips_the_hello_is_refused(kind: Kind) -> None:
    with pytest.raises(ProtocolBroken, match=kind.name):
        server().answer(frame(kind, (bytes(32),)))


def test_a_welcome_without_a_challenge_is_refused() -> None:
    with pytest.raises(ProtocolBroken, match="WELCOME"):
        client().answer(frame(Kind.WELCOME, (bytes(32),)))


@given(
    st.sampled_from(Kind),
    st.none() | st.binary() | st.lists(st.integers() | st.binary(max_size=40)).map(tuple),
)
def test_any_first_frame_is_answered_with_a_challenge_or_a_typed_error(kind: Kind, header: object) -> None:
    for half in (client(), server()):
        with suppress(WireError):
            half.answer(frame(kind, header))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="has 5 bytes; make one of at least 16"):
        check_secret(b"short")
