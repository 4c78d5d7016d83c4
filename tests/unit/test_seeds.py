"""What of the cluster's seed may be shown."""

from swiftlike.seeds import bound_secret, seed_mark


def test_seeds_have_marks_of_their_own_that_stay_for_ever() -> None:
    assert seed_mark(0x8F1D3C5A7B9E0246) == "40bafb7c"
    assert len({seed_mark(seed) for seed in range(1000)}) == 1000
    assert len(seed_mark(2**64 - 1)) == 8


def test_a_secret_that_is_bound_to_another_seed_is_another_one() -> None:
    secret = b"the secret of a cluster"
    assert bound_secret(secret, 1) == bound_secret(secret, 1)
    assert (
        len({bound_secret(secret, 1), bound_secret(secret, 2), bound_secret(secret + b".", 1), secret}) == 4
    )
