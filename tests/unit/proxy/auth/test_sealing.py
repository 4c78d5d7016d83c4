"""Secrets at rest: they open for what they belong to, under the cluster's secret, and not otherwise."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.sealing import SealBroken, Sealer, derive_key

SECRET = b"a secret of the cluster"
SEALER = Sealer(SECRET, b"users")
OWNER = b"key\0test:tester"


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_a_sealed_secret_opens_to_the_same(plain: bytes, belongs_to: bytes) -> None:
    sealed = SEALER.seal(plain, belongs_to)
    assert SEALER.open(sealed, belongs_to) == plain
    assert Sealer(SECRET, b"users").open(sealed, belongs_to) == plain


def test_a_sealed_secret_does_not_show_it_and_is_never_the_same_twice() -> None:
    one, other = SEALER.seal(b"hush-hush", OWNER), SEALER.seal(b"hush-hush", OWNER)
    assert one != other
    assert b"hush" not in one


def test_a_sealed_secret_opens_for_nobody_else() -> None:
    sealed = SEALER.seal(b"hush-hush", OWNER)
    for sealer, belongs_to in (
        (SEALER, b"key\0test:tester2"),
        (SEALER, b""),
        (Sealer(SECRET, b"tokens"), OWNER),
        (Sealer(b"another secret of a cluster", b"users"), OWNER),
    ):
        with pytest.raises(SealBroken) as broken:
            sealer.open(sealed, belongs_to)
        assert "hush" not in str(broken.value)


def test_no_bit_of_a_sealed_secret_can_be_flipped_and_none_of_its_end_left_out() -> None:
    sealed = SEALER.seal(b"hush-hush", OWNER)
    for at in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(SealBroken):
            SEALER.open(bytes(changed), OWNER)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken, match="key of test:tester does not open"):
            SEALER.open(sealed[:length], OWNER)


def test_the_form_at_rest_is_the_one_of_version_1() -> None:
    """A recorded sample: what was sealed once opens for ever."""
    sealer = Sealer(SECRET, b"users", draw=lambda size: bytes(range(size)))
    sample = "01000102030405060708090a0b74938d54453b90f103ed273233ec59a7a65b04a116866fa12c"
    assert sealer.seal(b"hush-hush", OWNER).hex() == sample
    assert SEALER.open(bytes.fromhex(sample), OWNER) == b"hush-hush"


def test_keys_of_two_purposes_or_secrets_differ_and_are_derived_as_rfc_5869_says() -> None:
    assert (
        len({derive_key(SECRET, b"tokens"), derive_key(SECRET, b"users"), derive_key(SECRET[:-1], b"users")})
        == 3
    )
    # Computed by hand from HMAC alone: extract with the salt, expand one block.
    extracted = hmac.digest(b"swiftlike", SECRET, "sha256")
    assert derive_key(SECRET, b"users") == hmac.digest(extracted, b"users\x01", "sha256")
