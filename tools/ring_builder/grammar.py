"""The command line's grammar: `FILE COMMAND VALUES`, in which a value may be a negative number.

Owns how a line is cut into file, command, options and values. Knows none of the commands.
"""

import difflib
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ring.device import DEVICE_ID_MAX
from tools.ring_builder.notation import REGION_MAX, NotationError
from tools.ring_builder.session import Session

NEGATIVE: Final = re.compile(r"-[0-9.\[]")
"""`-5` is a weight and `-127.0.0.1` a search value; no option begins like that."""

Function = TypeVar("Function", bound=Callable[..., Any])

pass_session = click.make_pass_decorator(Session)


class FileFirst(click.Group):
    """A group whose options may stand behind FILE as well, and which suggests the command that was meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the options between FILE and the command before FILE, where click looks for them."""
        if args and not args[0].startswith("-"):
            behind = 1
            while behind < len(args) and args[behind].startswith("--"):
                behind += 1
            args = [*args[1:behind], args[0], *args[behind:]]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or tell which ones come close."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name.replace("-", "_"), self.list_commands(ctx), n=2)
            fix = f"did you mean {' or '.join(near)}?" if near else "--help lists the commands"
            raise NotationError(f"there is no command {name!r}; {fix}")
        return super().resolve_command(ctx, args)


class Command(click.Command):
    """A command whose values may be negative numbers, and that knows --json."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Let through what looks like an unknown option; `parse_args` refuses what is one."""
        kwargs["context_settings"] = {"ignore_unknown_options": True, **kwargs.get("context_settings", {})}
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                callback=_choose_json,
                help="Print one JSON document instead.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse unknown options, of which no negative number is one."""
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        for arg in args[: args.index("--") if "--" in args else None]:
            name = arg.partition("=")[0]
            if arg.startswith("-") and arg != "-" and not NEGATIVE.match(arg) and name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1)
                fix = f"did you mean {near[0]}?" if near else "--help lists the options"
                raise NotationError(f"there is no option {name!r} here; {fix}")
        return super().parse_args(ctx, args)


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command of this name; left to itself click would write set_weight with a dash."""
    return click.command(name, cls=Command, **attributes)


def _choose_json(ctx: click.Context, _: click.Parameter, chosen: bool) -> None:
    if chosen:
        ctx.ensure_object(Session).as_json = True


def search_options(function: Function) -> Function:
    """Give a command the options that search values can also be written as; it gets the fields of a `Search`."""
    for option in reversed(
        [
            click.option("--id", type=click.IntRange(0, DEVICE_ID_MAX), help="Device id."),
            click.option("--region", type=click.IntRange(0, REGION_MAX)),
            click.option("--zone", type=click.IntRange(0, REGION_MAX)),
            click.option("--ip", "host", metavar="HOST", help="IP address or host name."),
            click.option("--port", type=click.IntRange(1, 65535)),
            click.option("--device", "name", metavar="NAME", help="Device name, such as sdb1."),
            click.option("--weight", type=float),
            click.option("--meta", metavar="TEXT"),
        ]
    ):
        function = option(function)
    return function


HOURS_MAX: Final = 24.0 * 366 * 100
"""A century; a partition that rests longer is not at rest but forgotten."""
HOURS: Final = click.FloatRange(max=HOURS_MAX)

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask when several devices match.")
values_argument = click.argument("values", nargs=-1)
