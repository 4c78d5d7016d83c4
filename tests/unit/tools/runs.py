"""Runs of the ring builder in this process, with a clock in hand."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ring.builder import RingBuilder
from ring.builder.file import load_builder
from ring.file import load_ring
from ring.ring import Ring
from tools.ring_builder import main

HOUR_S = 3600


@dataclass(frozen=True)
class Run:
    """How one command line ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line on stderr."""
        assert self.err.count("\n") == 1, self.err
        return self.err.removesuffix("\n")


@dataclass
class Operator:
    """Somebody at a command line, in a directory of its own; time passes when it is told to."""

    directory: Path
    capture: pytest.CaptureFixture[str]
    now_s: int = 1_800_000_000

    @property
    def file(self) -> Path:
        return self.directory / "object-0.builder"

    @property
    def ring_file(self) -> Path:
        return self.directory / "object-0.ring"

    @property
    def builder(self) -> RingBuilder:
        return load_builder(self.file)

    @property
    def ring(self) -> Ring:
        return load_ring(self.ring_file, hash_seed=0)

    def run(self, *values: object, file: Path | None = None) -> Run:
        """Run `FILE values…`."""
        self.capture.readouterr()
        code = main([str(file or self.file), *map(str, values)], now_s=self.now_s)
        return Run(code, *self.capture.readouterr())

    def does(self, *values: object) -> Run:
        """Run what must end well and without a word on stderr, a ring's unbound devices apart."""
        run = self.run(*values)
        assert not run.err or "do not vote" in run.err or "settled on your word" in run.err, run
        assert run.code == (1 if run.err else 0), run
        return run

    def refused(self, *values: object, file: Path | None = None) -> str:
        """Run what must be refused with nothing written or printed; return the sentence."""
        before = self.files()
        run = self.run(*values, file=file)
        assert run.code == 2, run
        assert run.out == ""
        assert self.files() == before
        assert run.sentence.startswith("swiftlike-ring-builder: ")
        return run.sentence.removeprefix("swiftlike-ring-builder: ")

    def files(self) -> dict[str, bytes]:
        """Everything in the directory."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        }

    def pass_hours(self, hours: float) -> None:
        self.now_s += int(hours * HOUR_S)
