"""The operator's page and the README are true: their commands are run in their order, and say what is said there."""

import re
import shlex
from pathlib import Path

import pytest

from tests.unit.tools.runs import Operator, Run
from tools.ring_builder import rings
from tools.ring_builder.cli import cli

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "ring-builder.md"
README = ROOT / "README.md"
PROMPT = "$ "
HOURS_BETWEEN_SECTIONS = 24


def sections() -> list[str]:
    return PAGE.read_text().split("\n## ")


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a text's console blocks, each with the lines that it is shown to say."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith(PROMPT):
                found.append((line.removeprefix(PROMPT), []))
            else:
                found[-1][1].append(line)
    return found


def perform(operator: Operator, command: str) -> Run:
    """Run one command of a page."""
    program, *values = shlex.split(command)
    if program == "mv":
        Path(values[0]).rename(values[1])
        return Run(0, "", "")
    assert Path(program).name == "swiftlike-ring-builder"
    return operator.run(*values[1:], file=Path(values[0]))


def check(command: str, said: list[str], run: Run) -> None:
    """What a page shows of a command's words is there, and of its warnings all."""
    warnings = [line for line in said if line.startswith("warning: ")]
    assert run.err.splitlines() == warnings, (command, run)
    assert run.code == (1 if warnings else 0), (command, run)
    lines = [line.rstrip() for line in run.out.splitlines()]
    assert [line for line in said if line not in warnings and line not in lines] == [], (command, run)


def test_the_commands_of_the_page_do_what_it_says(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operator.directory)
    monkeypatch.setattr(
        rings, "who_waits", lambda ring, config: []
    )  # there are no devices behind the page's ring
    commands = 0
    for section in sections():
        for command, said in commands_of(section):
            check(command, said, perform(operator, command))
            commands += 1
        operator.pass_hours(HOURS_BETWEEN_SECTIONS)
    assert commands > 30


def test_the_first_ring_of_the_readme_is_made_by_its_five_lines(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operator.directory)
    commands = [command for command, _ in commands_of(README.read_text()) if "ring-builder" in command]
    assert len(commands) == 5
    for command in commands:
        run = perform(operator, command)
        warned = "rebalance" in command and "3 of 3 devices are not bound" in run.sentence
        assert (run.code, run.err == "") == ((1, False) if warned else (0, True)), (command, run)
    assert (operator.ring.epoch, operator.ring.partition_count) == (1, 2**14)


def test_the_page_names_every_command() -> None:
    page = PAGE.read_text().replace(
        "`prepare_…`, `finish_…`,", "prepare_increase_partition_power, finish_increase_partition_power,"
    )
    assert [name for name in cli.commands if not re.search(rf"\b{name}\b", page)] == []
