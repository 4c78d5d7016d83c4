"""The register protocol over the real acceptor functions: linearizable as it stands, and not with any rule left out."""

import pytest

from tests.unit.linearizability import Call, linearizable
from tests.unit.register_model import Shortcut, run


@pytest.mark.parametrize("owners", [1, 2, 3, 4, 5])
def test_every_schedule_is_linearizable_and_readable_once_faults_have_stopped(owners: int) -> None:
    for seed in range(300):
        history, readable = run(seed, owners=owners)
        assert linearizable(history), f"seed {seed}, {owners} owners"
        assert readable, f"seed {seed}, {owners} owners"


# Seeds found by searching: each is a schedule in which the missing rule mattered.
@pytest.mark.parametrize(
    ("shortcut", "seed", "owners"),
    [
        (Shortcut.REOFFER, 26, 3),
        (Shortcut.NO_WRITE_BACK, 125, 3),
        (Shortcut.NO_PROMISE, 2, 3),
        (Shortcut.MINORITY, 20, 3),
        (Shortcut.NO_BASE, 19, 5),
        (Shortcut.ACROSS_BALLOTS, 2180, 3),
        (Shortcut.NO_MEMORY, 9, 3),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Shortcut) else str(value),
)
def test_leaving_a_rule_out_is_caught(shortcut: Shortcut, seed: int, owners: int) -> None:
    history, _ = run(seed, shortcut, owners)
    assert not linearizable(history)
    history, _ = run(seed, None, owners)
    assert linearizable(history)


def write(value: int | None, began: float, ended: float) -> Call:
    return Call("write", value, began, ended, outcome="ok")


def read(value: int | None, began: float, ended: float) -> Call:
    return Call("read", value, began, ended, outcome="ok")


@pytest.mark.parametrize(
    ("history", "possible"),
    [
        pytest.param([read(None, 0, 1)], True, id="nothing was written, nothing is read"),
        pytest.param([write(1, 0, 1), read(None, 2, 3)], False, id="a finished write is not seen"),
        pytest.param(
            [write(1, 0, 4), read(1, 1, 2), read(None, 2.5, 3)], False, id="a write is seen and then unseen"
        ),
        pytest.param(
            [write(1, 0, 9), read(None, 1, 2), read(1, 3, 4)], True, id="a write takes effect while it runs"
        ),
        pytest.param([Call("write", 1, 0), read(1, 5, 6)], True, id="an unknown write may take effect late"),
        pytest.param([Call("write", 1, 0), read(1, 5, 6), read(None, 7, 8)], False, id="... but only once"),
        pytest.param(
            [Call("swap", 1, 0, 1, None, "ok"), Call("swap", 2, 2, 3, None, "ok")],
            False,
            id="two swaps of one value",
        ),
        pytest.param(
            [write(1, 0, 1), Call("swap", 2, 2, 3, 1, "failed")], False, id="a swap fails though it matched"
        ),
    ],
)
def test_the_checker_tells_possible_histories_from_impossible_ones(
    history: list[Call], possible: bool
) -> None:
    assert linearizable(history) is possible
