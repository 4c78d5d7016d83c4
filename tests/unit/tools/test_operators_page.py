"""The operator's page is true: its commands are run in their order, a day between sections, and say what it says."""

import re
import shlex
from pathlib import Path

import pytest

from tests.unit.tools.runs import Operator
from tools.ring_builder.cli import cli

PAGE = Path(__file__).parents[3] / "docs" / "ring-builder.md"
PROMPT = "$ "
HOURS_BETWEEN_SECTIONS = 24


def sections() -> list[str]:
    return PAGE.read_text().split("\n## ")


def lines_of(section: str) -> list[str]:
    """The lines of a section's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def perform(operator: Operator, command: str) -> str:
    """Run one command of the page and return what it says."""
    program, *values = shlex.split(command)
    if program == "mv":
        Path(values[0]).rename(values[1])
        return ""
    assert program == "swiftlike-ring-builder"
    run = operator.run(*values[1:], file=Path(values[0]))
    assert run.code == 0, (command, run)
    return run.out


def test_the_commands_of_the_page_do_what_it_says(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operator.directory)
    commands = 0
    for section in sections():
        said = ""
        for line in lines_of(section):
            if line.startswith(PROMPT):
                said = perform(operator, line.removeprefix(PROMPT))
                commands += 1
            else:
                assert line in (each.rstrip() for each in said.splitlines()), said
        operator.pass_hours(HOURS_BETWEEN_SECTIONS)
    assert commands > 30


def test_the_page_names_every_command() -> None:
    page = PAGE.read_text().replace(
        "`prepare_…`, `finish_…`,", "prepare_increase_partition_power, finish_increase_partition_power,"
    )
    assert [name for name in cli.commands if not re.search(rf"\b{name}\b", page)] == []
