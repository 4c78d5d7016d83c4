"""When a partition's owners may forget: the table, row by row, and a model of owners that crash, stray and come back."""

from itertools import pairwise
from random import Random

import pytest

from storage_node.reclaiming import (
    Enforce,
    OwnerSeen,
    Refuse,
    Step,
    Wait,
    decide,
    with_floor,
    with_refusal,
)
from swiftlike.node_calls import Standing

HIGHEST, LEAST = 1000, 50


def owner(floor: int = 0, refusing: int = 0, *, votes: bool = True, equal: bool = True) -> OwnerSeen:
    return OwnerSeen(Standing(votes, floor, refusing), equal)


@pytest.mark.parametrize(
    ("owners", "step"),
    [
        ([], Wait.SILENT),
        ([owner(), owner(), None], Wait.SILENT),
        ([owner(900, 900), None, owner(900, 900)], Wait.SILENT),
        ([owner(), owner(), owner(votes=False)], Wait.CATCHING_UP),
        ([owner(), owner(), owner()], Refuse(HIGHEST)),
        ([owner(), owner(equal=False), owner()], Wait.DIFFERING),
        ([owner(0, 990), owner(0, 990), owner()], Refuse(HIGHEST)),
        ([owner(0, 990), owner(0, 990), owner(0, 990)], Enforce(990)),
        ([owner(0, 990), owner(0, 995), owner(0, 990)], Enforce(990)),
        ([owner(0, 990), owner(0, 990, equal=False), owner(0, 990)], Wait.DIFFERING),
        ([owner(990, 990), owner(0, 990), owner(0, 990, equal=False)], Enforce(990)),
        ([owner(990, 990), owner(0, 980), owner(0, 990)], Refuse(990)),
        ([owner(990, 990), owner(0, 0), owner(990, 990)], Refuse(990)),
        ([owner(990, 990), owner(0, 990), None], Wait.SILENT),
        ([owner(990, 990), owner(0, 990, votes=False)], Wait.CATCHING_UP),
        ([owner(960, 960), owner(960, 960)], Wait.SETTLED),
        ([owner(960, 960), owner(960, 960, equal=False)], Wait.SETTLED),
        ([owner(950, 960), owner(950, 955)], Enforce(955)),
        ([owner(940, 940), owner(940, 940, equal=False)], Wait.DIFFERING),
        ([owner(940, 940), owner(940, 940)], Refuse(HIGHEST)),
        ([owner(940, 1200), owner(940, 1100)], Wait.SETTLED),
        ([owner()], Refuse(HIGHEST)),
    ],
)
def test_what_is_done_follows_from_what_is_seen(owners: list[OwnerSeen | None], step: Step) -> None:
    assert decide(owners, HIGHEST, LEAST) == step


class Model:
    """Owners of one key, whose tombstone at `deleted` must hide the write at `written` for as long as anybody may have that.

    Deliberately simple: an entry is a number, the newest wins; a copy below what an owner refuses is refused where that holds
    nothing.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = 0
        self.standings = [Standing(votes=True)] * 3
        self.held: list[tuple[int, bool] | None] = [None] * 3
        """Ballot, and whether it is a tombstone."""
        self.kept_until = [0] * 3
        """The floor that must pass before an owner's tombstone goes, beside its own ballot."""
        self.stray: list[tuple[int, bool]] = []
        """Copies on devices that are no owners, which may be offered at any time."""

    def take(self, at: int, entry: tuple[int, bool]) -> None:
        """Offer a copy to an owner."""
        held, standing = self.held[at], self.standings[at]
        lowest = max(standing.floor_us, standing.refusing_us)
        if entry > held if held is not None else entry[0] >= lowest:
            self.kept_until[at] = lowest if entry[0] < lowest else 0
            self.held[at] = entry

    def coordinate(self, age: int, *, skip_second_look: bool = False, skip_refusal: bool = False) -> None:
        """One step of a coordinator, which may die after any owner has done what it was told."""
        reached = [self.random.random() < 0.9 for _ in range(3)]
        seen = [
            OwnerSeen(self.standings[at], skip_second_look or self.held[at] == self.held[0])
            if reached[at]
            else None
            for at in range(3)
        ]
        step = decide(seen, self.now - age, 1)
        if skip_refusal and isinstance(step, Refuse):
            step = Enforce(step.below_us)
        if isinstance(step, Wait):
            return
        for at in self.random.sample(range(3), 3):
            if self.random.random() < 0.1:
                return
            if isinstance(step, Refuse):
                self.standings[at] = with_refusal(self.standings[at], step.below_us)
            else:
                self.standings[at] = with_floor(self.standings[at], step.floor_us)

    def reclaim(self, *, forget_late_ones: bool = False) -> None:
        """Each owner forgets by itself."""
        for at in range(3):
            held = self.held[at]
            if held is None or not held[1] or self.random.random() < 0.5:
                continue
            time = held[0] if forget_late_ones else max(held[0], self.kept_until[at])
            if time < self.standings[at].floor_us:
                self.held[at] = None

    def replicate(self) -> None:
        source, target = self.random.sample(range(3), 2)
        entry = self.held[source]
        if entry is not None:
            self.take(target, entry)

    def read(self) -> bool:
        """Whether a majority may see something live."""
        return any(held is not None and not held[1] for held in self.held)


def run(seed: int, *, forget_late_ones: bool = False, **shortcuts: bool) -> bool:
    """Write and delete, each at some majority or astray, and let everybody do what he likes; say whether it ever came back for good.

    A live copy that an owner took from a majority-acknowledged write may stand where the tombstone has not come yet; once every
    owner has seen the tombstone or forgotten it, nothing live may appear again.
    """
    random = Random(seed)
    model = Model(random)
    written, deleted = (10, False), (20, True)
    model.now = 20
    if random.random() < 0.5:
        for entry in (written, deleted):
            for at in random.sample(range(3), 2):
                model.take(at, entry)
        model.stray.append(written)
    else:  # neither ever came to an owner, and nobody was told that it did
        model.stray += (written, deleted)
    is_gone = False
    for _ in range(200):
        model.now += random.randrange(4)
        match random.randrange(5):
            case 0:
                model.coordinate(age=30, **shortcuts)
            case 1:
                model.reclaim(forget_late_ones=forget_late_ones)
            case 2 | 3:
                model.replicate()
            case 4:
                model.take(random.randrange(3), random.choice(model.stray))
        is_gone = is_gone or not model.read()
        forgotten = any(held is None for held in model.held) and model.standings[0].floor_us > 20
        if (is_gone or forgotten) and model.read() and forgotten:
            return True
    return False


def test_what_was_deleted_never_comes_back_once_a_floor_has_passed_it() -> None:
    assert not any(run(seed) for seed in range(1500))


@pytest.mark.parametrize("shortcut", ["skip_second_look", "skip_refusal", "forget_late_ones"])
def test_the_model_sees_what_each_step_is_for(shortcut: str) -> None:
    assert any(run(seed, **{shortcut: True}) for seed in range(1500))


def test_a_standing_never_sinks() -> None:
    standing = Standing(votes=True, floor_us=5, refusing_us=9)
    steps = [standing, with_refusal(standing, 3), with_floor(standing, 4), with_refusal(standing, 12)]
    for before, after in pairwise(steps):
        assert after.floor_us >= before.floor_us
        assert after.refusing_us >= min(before.refusing_us, 9)
    assert with_floor(standing, 9) == Standing(votes=True, floor_us=9, refusing_us=9)
