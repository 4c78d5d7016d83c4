"""What a failed call proves: a write is called without effect only where nothing can have been kept."""

import pytest

from proxy.cluster.nodes import is_without_effect, wants_handoff
from swiftlike.node_calls import Code
from swiftlike.node_client import NodeFailed
from swiftlike.rpc.transport import Outcome, Reply, TcpAddress

WITHOUT_EFFECT = {
    Code.BAD_CALL,
    Code.UNKNOWN_TABLE,
    Code.RING_OLDER,
    Code.RING_NEWER,
    Code.BALLOT_REFUSED,
    Code.INSUFFICIENT_STORAGE,
}


def failed(outcome: Outcome, code: str = "") -> NodeFailed:
    return NodeFailed(TcpAddress("d1", 1), "offer", Reply(outcome, code=code))


@pytest.mark.parametrize("code", Code)
def test_only_codes_that_are_answered_before_anything_is_kept_prove_that_nothing_is(code: Code) -> None:
    assert is_without_effect(failed(Outcome.ERROR, code)) is (code in WITHOUT_EFFECT)


@pytest.mark.parametrize("outcome", [each for each in Outcome if each not in (Outcome.OK, Outcome.ERROR)])
def test_a_call_that_never_began_has_no_effect_and_one_without_an_answer_may_have(outcome: Outcome) -> None:
    assert is_without_effect(failed(outcome)) is (outcome is not Outcome.UNKNOWN)
    assert wants_handoff(failed(outcome))


def test_an_owner_whose_ring_changed_is_no_reason_for_a_copy_elsewhere() -> None:
    assert not wants_handoff(failed(Outcome.ERROR, Code.RING_CHANGED))
