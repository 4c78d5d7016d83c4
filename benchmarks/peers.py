"""The peers we measure ourselves against, each in an environment of its own below `benchmarks/.peer`.

Made on first use by pip from its package index, pinned, and kept; never part of our own environment.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).resolve().parent / ".peer"
SWIFT_VERSION: Final = "2.38.3"


class PeerMissingError(Exception):
    """A peer cannot be installed here; says why in one sentence."""


def swift_python() -> Path:
    """Return the Python of an environment that has Swift, which is made if there is none yet."""
    home = PEERS / "swift"
    python = home / "bin" / "python"
    ready = home / f".ready-{SWIFT_VERSION}"
    if ready.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    _make(home, python, f"swift=={SWIFT_VERSION}", "swift.common.ring")
    ready.touch()
    return python


def _make(home: Path, python: Path, requirement: str, module: str) -> None:
    print(f"installing {requirement} into {home.relative_to(PEERS.parent.parent)} ...", file=sys.stderr)
    venv.create(home, with_pip=True, symlinks=True)
    for step, command in (
        (
            "installed",
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement],
        ),
        ("imported", [python, "-c", f"import {module}"]),
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
            why = errors[-1].strip() if errors else f"exit status {done.returncode}"
            raise PeerMissingError(f"{requirement} cannot be {step} ({why}); only our side is measured")
