"""How answers look: a sign of life on a terminal only, and text that nothing interprets."""

import io
import sys
import threading

import pytest

from tools.ring_builder import tables
from tools.ring_builder.tables import console, show_table, sign_of_life

DEADLINE_S = 30


class Terminal(io.StringIO):
    """A terminal that tells when a text has been shown on it."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self.awaited = awaited
        self.shown = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.awaited in self.getvalue():
            self.shown.set()
        return written


def test_work_that_takes_long_shows_a_sign_of_life_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("rebalancing 64 partitions")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(tables, "PATIENCE_S", 0)
    monkeypatch.setenv("TERM", "xterm")
    with sign_of_life("rebalancing 64 partitions"):
        assert terminal.shown.wait(DEADLINE_S)


def test_work_that_is_soon_done_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("anything")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(tables, "PATIENCE_S", DEADLINE_S)
    with sign_of_life("rebalancing"):
        pass
    assert terminal.getvalue().strip() == ""


def test_nothing_moves_where_nobody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PATIENCE_S", 0)
    with sign_of_life("rebalancing"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_line_of_a_pipe_is_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "count"), [("x" * 500, 1), ("y", 20)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [["x" * 500, "1"], ["y", "20"]]


def test_numbers_stand_to_the_right_and_what_is_not_there_is_a_dash(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_table(("count", "name"), [(1, "a"), (1234, None), (None, ["b", "c"])])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[2:]] == [
        "    1   a",
        " 1234   -",
        "    -   b c",
    ]


def test_text_is_printed_as_it_is() -> None:
    stream = io.StringIO()
    console(stream).print("[red]x[/red] :smile: 10.0.0.1")
    assert stream.getvalue() == "[red]x[/red] :smile: 10.0.0.1\n"
