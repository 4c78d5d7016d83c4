"""Deliberate bugs that no seed of the world is known to find are caught by the test of the rule that they break."""

from collections.abc import Callable

import pytest

from proxy.store.errors import NoSuchObject
from tests.simulation.mutants import Mutant, mutated
from tests.simulation.test_catching_up import (
    test_nobody_catches_up_from_fewer_voters_than_a_majority_of_the_others as from_too_few,
)
from tests.simulation.test_catching_up import (
    test_promises_are_settled_debts_handed_over_and_floors_taken_before_the_vote as before_the_vote,
)
from tests.simulation.test_updater import (
    test_an_entry_that_only_one_device_took_is_carried_through_and_listed as carried_through,
)
from tests.unit.proxy.test_decisions import (
    test_a_write_that_was_offered_before_is_judged_by_the_rules_in_order as judged_in_order,
)


def judged_on_what_came_later() -> None:
    """Play the case of that test whose newest entry was judged on what is newer than one's own first offer."""
    (mark,) = vars(judged_in_order)["pytestmark"]
    (case,) = (case for case in mark.args[1] if "judged on something that came after" in case.id)
    judged_in_order(*case.values)


@pytest.mark.parametrize(
    ("mutant", "rule"),
    [
        (Mutant.PAY_UNCHOSEN, carried_through),
        (Mutant.CATCH_UP_FROM_ONE, from_too_few),
        (Mutant.PROMISES_VANISH, before_the_vote),
        (Mutant.BASE_WITHOUT_BALLOT, judged_on_what_came_later),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Mutant) else "",
)
def test_a_deliberate_bug_is_caught_by_the_test_of_its_rule(mutant: Mutant, rule: Callable[[], None]) -> None:
    rule()
    with mutated(mutant), pytest.raises((AssertionError, NoSuchObject)):
        rule()
