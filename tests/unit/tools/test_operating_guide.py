"""The operator's guide is true: every command that it names exists, takes its options and as many values, and it tells each fault."""

import re
import shlex
from pathlib import Path

import click
import pytest

from tools import device, dispersion, inspection, recon, ring_builder, swiftlike, users
from tools.recon import judging
from tools.ring_builder.cli import cli as ring_builder_cli

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "operating.md"
FILE_FIRST = "swiftlike-ring-builder"
PROGRAMS: dict[str, click.Command] = {
    "swiftlike": swiftlike.main,
    "swiftlike-device": device.main,
    "swiftlike-dispersion": dispersion.main,
    "swiftlike-inspect": inspection.main,
    "swiftlike-recon": recon.main,
    FILE_FIRST: ring_builder_cli,
    "swiftlike-users": users.main,
}
SYSTEMS = {"rm"}
"""Programs of the system that the guide's commands use."""
SPOKEN_IN_PART = {
    "swiftlike-inspect PATH",
    "swiftlike storage",
    "swiftlike proxy",
    "swiftlike-device votes",
    "swiftlike-device init",
}
"""Named in a sentence, without what they need."""
FAULTS = (
    "process died",
    "host died",
    "disk is full",
    "emptied or replaced",
    "not mounted",
    "Bit rot",
    "refuses reads",
    "sync failed",
    "network is cut",
    "clock is wrong",
    "ring is wrong",
    "lost a majority",
    "Growing by one disk",
    "Removing one disk",
    "in the way",
    "Upgrading",
    "Restoring an index",
    "port is busy",
    "seed was changed",
    "secret is lost",
    "builder is lost",
)


def commands() -> list[str]:
    """The commands of the guide's console blocks, and those of ours with options that stand in its sentences."""
    text = GUIDE.read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    shown = [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spoken = [
        span for span in re.findall(r"`([^`]+)`", prose) if span.split()[0] in PROGRAMS and "…" not in span
    ]
    return [*shown, *(span for span in spoken if len(span.split()) > 1)]


def check(command: str, words: list[str]) -> None:
    """Walk a command line as the program would, and say which word it does not know."""
    program, *rest = words
    assert program in PROGRAMS, f"{command}: there is no program {program}"
    at: click.Command = PROGRAMS[program]
    if program == FILE_FIRST:
        _file, *rest = rest
    given: set[str] = set()
    values = 0
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            option = next((one for one in at.params if word in one.opts), None)
            assert isinstance(option, click.Option), f"{command}: {at.name} has no option {word}"
            given.add(str(option.name))
            if not option.is_flag:
                assert rest, f"{command}: {word} takes a value"
                rest.pop(0)
        elif isinstance(at, click.Group):
            require(command, at, given)
            assert word in at.commands, f"{command}: {program} has no command {word}"
            at, given = at.commands[word], set()
        else:
            values += 1
    require(command, at, given)
    arguments = [one for one in at.params if isinstance(one, click.Argument)]
    if not isinstance(at, click.Group) and all(one.nargs == 1 for one in arguments):
        least = sum(one.required for one in arguments)
        assert least <= values <= len(arguments), f"{command}: {at.name} takes other values"


def require(command: str, at: click.Command, given: set[str]) -> None:
    """See that no option is missing."""
    missing = [
        one.name
        for one in at.params
        if isinstance(one, click.Option) and one.required and one.name not in given
    ]
    assert not missing, f"{command}: {at.name} needs {missing}"


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_of_the_guide_exists_and_takes_what_it_is_given(command: str) -> None:
    words = shlex.split(command)
    if words[0] in SYSTEMS:
        return
    if command in SPOKEN_IN_PART:
        named = PROGRAMS[words[0]]
        assert not isinstance(named, click.Group) or words[1] in named.commands
        return
    check(command, words)


@pytest.mark.parametrize(
    "command",
    [
        "swiftlike-recon --config f nothing",
        "swiftlike-recon --config f pause --until 4h",
        "swiftlike-recon ring",
        "swiftlike-device check",
        "swiftlike-device votes d1 d2 --config f",
        "swiftlike-ring-builder f.builder rebalence",
        "swiftlike-nothing --config f",
    ],
)
def test_a_command_that_does_not_exist_would_be_noticed(command: str) -> None:
    with pytest.raises(AssertionError):
        check(command, shlex.split(command))


def test_the_guide_tells_each_fault_with_what_is_seen_and_what_to_do() -> None:
    sections = GUIDE.read_text().split("\n## ")[1:]
    for fault in FAULTS:
        (section,) = [section for section in sections if fault in section.splitlines()[0]]
        assert "```console" in section or "**Do**" in section, fault
    assert len(sections) == len(FAULTS)


def test_the_guide_speaks_of_every_trouble_that_recon_tells() -> None:
    source = Path(judging.__file__).read_text()
    told = re.findall(r"yield \(?\s*f?\"([^\"]+)", source)
    assert len(told) >= 15
    guide = " ".join(GUIDE.read_text().split())
    phrases = {
        "takes no bodies", "older one", "newer than this host's", "not of this host's line", "is not the device that ring",
        "has to catch up with", "clocks differ by", "reads or writes by its disk", "set aside", "does not answer",
    }  # fmt: skip
    assert [phrase for phrase in phrases if phrase not in guide] == []


def test_each_program_of_the_project_is_one_that_the_guide_may_name() -> None:
    scripts = re.findall(r"^(swiftlike[\w-]*) = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(scripts) == PROGRAMS.keys()
    assert ring_builder.main is not None
