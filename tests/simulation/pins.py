"""Where each deliberate bug is found: `make pins` looks again where a change has moved the schedules.

Owns the file of pins, a seed for each bug, and the search for one. A pin that still holds, or a seed soon after it, is kept: a
bug is searched for, from seed 0, only where nothing finds it there any more. Exits with 1 when one is not found at all.

    make pins                                    all bugs
    python -m tests.simulation.pins ONE_SET      these; --anew: from seed 0, also where the pin holds
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Final

from tests.simulation import plans
from tests.simulation.campaign import quietly, wrong_of
from tests.simulation.mutants import Mutant, mutated

FILE: Final = Path(__file__).with_name("pins.json")
SEEDS_MAX: Final = 1_000
"""Within which a bug has to be found."""
NEAR: Final = 10
"""Seeds from a pin on that are tried before all others."""


def pins() -> dict[Mutant, int]:
    """Return the seed at which each bug was found."""
    return {Mutant[name]: seed for name, seed in json.loads(FILE.read_text()).items()}


def write_pins(found: dict[Mutant, int]) -> None:
    """Keep the seeds at which bugs were found."""
    lines = {mutant.name: found[mutant] for mutant in Mutant if mutant in found}
    FILE.write_text(json.dumps(lines, indent=2) + "\n")


def finds(mutant: Mutant, seed: int) -> bool:
    """Whether a seed is wrong with the bug. Raises AssertionError for one that is wrong without it too."""
    with mutated(mutant), quietly():
        wrong, _ = wrong_of(plans.draw(seed))
    if not wrong:
        return False
    with quietly():
        whole, _ = wrong_of(plans.draw(seed))
    assert not whole, f"seed {seed} is wrong without {mutant.name} too: {whole}"
    return True


def search(mutant: Mutant, seeds: range) -> int | None:
    """Return the first of these seeds that finds a bug."""
    return next((seed for seed in seeds if finds(mutant, seed)), None)


def main(arguments: list[str] | None = None) -> int:
    """Look at pins; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mutants", nargs="*", choices=[*(mutant.name for mutant in Mutant), []])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    parser.add_argument("--anew", action="store_true", help="search also where the pin holds")
    options = parser.parse_args(arguments)
    code = 0
    for mutant in [Mutant[name] for name in options.mutants] or list(Mutant):
        pinned, began = pins().get(mutant), time.monotonic()
        found = None
        if pinned is not None and not options.anew:
            found = search(mutant, range(pinned, pinned + NEAR))
        if found is None:
            found = search(mutant, range(options.first, options.first + options.seeds))
        took_s = time.monotonic() - began
        if found is None:
            print(
                f"{mutant.name}: NOT FOUND from {options.first} on in {options.seeds} seeds, {took_s:.0f} s",
                flush=True,
            )
            code = 1
            continue
        print(f"{mutant.name}: seed {found}, after {took_s:.0f} s", flush=True)
        if found != pinned:
            write_pins({**pins(), mutant: found})
    return code


if __name__ == "__main__":
    sys.exit(main())
