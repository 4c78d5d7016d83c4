"""Tokens: what was issued verifies until its time is over, and nothing else does."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.tokens import PREFIX, Token, TokenExpired, TokenForged, Tokens

TOKENS = Tokens(b"a secret of the cluster", lifetime_s=100)
NOW_US = 1_700_000_000_000_000
GENERATION = b"8 bytes."
TEXT, TOKEN = TOKENS.issue("test", "tester", GENERATION, NOW_US)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@+=-]{0,127}", fullmatch=True)


def test_a_token_says_who_until_when_and_by_which_key() -> None:
    assert TEXT.startswith("AUTH_tk")
    assert TOKENS.verify(TEXT, NOW_US) == TOKEN
    assert Token("test", "tester", GENERATION, NOW_US + 100_000_000) == TOKEN


def test_a_token_is_good_in_every_process_of_the_cluster_whatever_its_own_lifetime() -> None:
    assert Tokens(b"a secret of the cluster", lifetime_s=7).verify(TEXT, NOW_US) == TOKEN


def test_a_token_is_over_when_its_time_is() -> None:
    assert TOKENS.verify(TEXT, NOW_US + 99_999_999) == TOKEN
    for late_us in (100_000_000, 10**15):
        with pytest.raises(TokenExpired, match="test:tester"):
            TOKENS.verify(TEXT, NOW_US + late_us)


def test_a_token_of_another_cluster_is_forged() -> None:
    with pytest.raises(TokenForged):
        Tokens(b"another secret of a cluster", 100).verify(TEXT, NOW_US)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX,
        PREFIX.lower() + TEXT[len(PREFIX) :],
        TEXT[len(PREFIX) :],
        TEXT + "=",
        TEXT + "A",
        TEXT + "\n",
        " " + TEXT,
        TEXT[:-1],
        TEXT[:30],
        TEXT.replace("A", "Ａ"),
        TEXT + "\udc80",
        PREFIX + "A" * 10_000,
        PREFIX + "=" * 8,
        PREFIX + "é" * 20,
        PREFIX + base64.urlsafe_b64encode(bytes(60)).decode(),
        PREFIX + base64.urlsafe_b64encode(b"\x01" + b"\xff" * 80).decode(),
    ],
)
def test_what_is_no_token_is_forged(text: str) -> None:
    with pytest.raises(TokenForged):
        TOKENS.verify(text, NOW_US)


def test_no_bit_of_a_token_can_be_flipped() -> None:
    sound = TEXT.encode()
    for at in range(len(sound) * 8):
        changed = bytearray(sound)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(TokenForged):
            TOKENS.verify(changed.decode("latin-1"), NOW_US)


@pytest.mark.parametrize("user", ["a", "ab", "abc", "abcd"])
def test_no_character_of_a_token_can_be_exchanged(user: str) -> None:
    """Base64 has spare bits in its last character, as many as the length leaves: they count, too."""
    text, _ = TOKENS.issue("test", user, GENERATION, NOW_US)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/="
    for at in range(len(text)):
        for other in alphabet:
            if other != text[at]:
                with pytest.raises(TokenForged):
                    TOKENS.verify(text[:at] + other + text[at + 1 :], NOW_US)


@given(NAMES, NAMES, st.binary(min_size=8, max_size=8), st.integers(0, 2**62))
def test_every_token_reads_back(account: str, user: str, generation: bytes, now_us: int) -> None:
    text, token = TOKENS.issue(account, user, generation, now_us)
    assert TOKENS.verify(text, now_us) == token
    assert (token.account, token.user, token.generation) == (account, user, generation)


@given(NAMES, NAMES)
def test_two_users_never_share_a_token_though_their_names_join_to_the_same(account: str, user: str) -> None:
    one, _ = TOKENS.issue(account + "x", user, GENERATION, NOW_US)
    other, _ = TOKENS.issue(account, "x" + user, GENERATION, NOW_US)
    assert one != other


@given(st.binary(max_size=400))
def test_bytes_that_nobody_signed_are_forged(raw: bytes) -> None:
    for body in (raw, b"\x01" + raw):
        with pytest.raises(TokenForged):
            TOKENS.verify(PREFIX + base64.urlsafe_b64encode(body).rstrip(b"=").decode(), NOW_US)
