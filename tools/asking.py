"""Asking: what the tools that ask a whole cluster have in common on a command line.

Owns their common options, how an answer is printed, and how a run ends: 0 all is well, 1 something is not, 2 nobody could be
asked.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from tools.members import ASK_S

NOT_WELL: Final = 1
NOT_ASKED: Final = 2

config_option = click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The TOML file of this host.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 600),
    default=ASK_S,
    show_default=True,
    help="Seconds for a device to answer; to read a body back it may take longer.",
)


def show(document: dict[str, Any], as_json: bool, in_words: Callable[[], None]) -> None:
    """Print a document as one JSON object, or have it written in words."""
    if as_json:
        print(json.dumps(document, allow_nan=False))
    else:
        in_words()


def fail(tool: str, message: str) -> NoReturn:
    """Say in one sentence why nobody could be asked, and exit."""
    click.echo(f"{tool}: {message}", err=True)
    sys.exit(NOT_ASKED)
