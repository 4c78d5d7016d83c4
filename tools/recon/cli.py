"""`swiftlike-recon`: from a command line to an exit code.

Owns the commands and how a run ends: 0 all is well, 1 something is not, 2 nobody could be asked. Only `pause` and `resume`
change anything, and only until the end of the pause.
"""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ring.device import Device
from ring.errors import RingError
from swiftlike.config import ConfigError
from swiftlike.limits import PAUSE_S_MAX
from swiftlike.node_calls import CaughtUp
from tools.asking import NOT_ASKED, NOT_WELL, config_option, fail, json_option, show, timeout_option
from tools.members import Member, Members, Silence, ask_all, open_members
from tools.recon.judging import judge
from tools.recon.moving import duration, ring_progress
from tools.recon.seeing import look
from tools.recon.tables import show_cluster, show_progress
from tools.ring_builder.caught_up import new_owners, table_of

_TOOL: Final = "swiftlike-recon"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands before the command."""

    config: Path
    as_json: bool
    timeout_s: float


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Read `90m`, `2h` or `300s`."""
    found = re.fullmatch(r"(\d{1,6})([smh])", value)
    if found is None or not 1 <= int(found[1]) * _UNITS[found[2]] <= PAUSE_S_MAX:
        raise click.BadParameter(f"{value!r} is no time up to {PAUSE_S_MAX // 3600}h: write 90m, 2h or 300s")
    return int(found[1]) * _UNITS[found[2]]


_DEVICES = click.option(
    "--device", "names", multiple=True, help="Only this one, as HOST:PORT/NAME or NAME. May be given again."
)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@json_option
@timeout_option
@click.pass_context
def main(context: click.Context, config: Path, as_json: bool, timeout_s: float) -> None:
    """Say how the devices of a cluster are: all that the rings of this host name.

    Exit codes: 0 all is well, 1 something is not, 2 nobody could be asked.
    """
    context.obj = Asked(config.absolute(), as_json, timeout_s)
    if context.invoked_subcommand is None:
        _whole(context.obj)


def _whole(asked: Asked) -> None:
    async def run(members: Members) -> dict[str, Any]:
        answers = await look(members, asked.timeout_s)
        return judge(members.rings, answers, time.time_ns() // 1000)

    document = _run(asked, run)
    show(document, asked.as_json, lambda: show_cluster(document))
    sys.exit(NOT_ASKED if not document["answering"] else 0 if document["well"] else NOT_WELL)


@main.command()
@click.argument("name", required=False)
@click.pass_obj
def ring(asked: Asked, name: str | None) -> None:
    """Say how far the change of each ring is, or of the ring NAME: replicas that are there, their rate, the time left.

    Exit codes: 0 nothing is moving, or all has come and may be settled; 1 not yet; 2 nobody could be asked.
    """

    async def run(members: Members) -> list[dict[str, Any]]:
        rings = [each for each in members.rings.values() if name in (None, each.name)]
        if not rings:
            known = ", ".join(each.name for each in members.rings.values())
            raise RingError(f"there is no ring {name}: name one of {known}")
        return [await _progress(members, each.name, asked.timeout_s) for each in rings]

    rings = _run(asked, run)

    def in_words() -> None:
        for progress in rings:
            show_progress(progress)

    show({"rings": rings}, asked.as_json, in_words)
    moving = [progress for progress in rings if progress["moving_partitions"]]
    is_told = any(each["answering"] for each in moving)
    sys.exit(NOT_ASKED if moving and not is_told else 0 if all(each["done"] for each in moving) else NOT_WELL)


async def _progress(members: Members, name: str, timeout_s: float) -> dict[str, Any]:
    ring = members.rings[table_of(name)]

    async def ask(device: Device) -> tuple[CaughtUp, bool]:
        client = members.client(device, timeout_s=timeout_s)
        paused = bool((await client.health()).get("paused_until_us", 0))
        return await client.caught_up(table_of(name)), paused

    owners = new_owners(ring)
    answers = await ask_all(owners, ask)
    return ring_progress(
        ring,
        [
            (device, answer, False) if isinstance(answer, Silence) else (device, *answer)
            for device, answer in zip(owners, answers, strict=True)
        ],
    )


@main.command()
@click.option(
    "--for",
    "for_s",
    default="1h",
    show_default=True,
    callback=_seconds,
    metavar="TIME",
    help=f"How long, as 90m, 2h or 300s; {PAUSE_S_MAX // 3600}h at most, and renewed by pausing again.",
)
@_DEVICES
@click.pass_obj
def pause(asked: Asked, for_s: int, names: tuple[str, ...]) -> None:
    """Have devices take nothing from each other for a while: no healing, and no progress of a ring's change.

    They go on serving, comparing and following their rings, and a restart keeps to it. It ends by itself.
    """
    until_us = time.time_ns() // 1000 + for_s * 1_000_000
    _set_pause(asked, names, until_us, f"paused for {duration(for_s)}")


@main.command()
@_DEVICES
@click.pass_obj
def resume(asked: Asked, names: tuple[str, ...]) -> None:
    """End a pause: devices begin at once with what is to be healed."""
    _set_pause(asked, names, 0, "goes on")


def _set_pause(asked: Asked, names: Sequence[str], until_us: int, done: str) -> None:
    async def run(members: Members) -> list[tuple[Member, bool | Silence]]:
        chosen = _chosen(members.all, names)

        async def ask(member: Member) -> bool:
            await members.client(member, timeout_s=asked.timeout_s).pause(until_us)
            return True

        return list(zip(chosen, await ask_all(chosen, ask), strict=True))

    answers = _run(asked, run)
    failed = {str(member): answer.reason for member, answer in answers if isinstance(answer, Silence)}
    document = {
        "paused_until_us": until_us,
        "devices": [str(member) for member, answer in answers if not isinstance(answer, Silence)],
        "failed": failed,
    }

    def in_words() -> None:
        for member, answer in answers:
            print(f"{member} {f'does not hear it: {answer.reason}' if isinstance(answer, Silence) else done}")

    show(document, asked.as_json, in_words)
    sys.exit(NOT_ASKED if len(failed) == len(answers) else NOT_WELL if failed else 0)


def _chosen(members: Sequence[Member], names: Sequence[str]) -> list[Member]:
    unknown = [name for name in names if not any(name in (str(each), each.name) for each in members)]
    if unknown:
        raise RingError(f"no ring names a device {', '.join(unknown)}: write it as recon shows it")
    return [each for each in members if not names or str(each) in names or each.name in names]


# --- running and telling ------------------------------------------------------------------------------------------


def _run(asked: Asked, command: Callable[[Members], Awaitable[T]]) -> T:
    """Run a command over the cluster, or say why not and exit."""

    async def run() -> T | RingError:
        async with open_members(asked.config) as members:
            try:
                return await command(members)
            except RingError as error:
                return error  # a value: raised through the groups that end here, it would come out wrapped

    try:
        end = asyncio.run(run())
    except (ConfigError, RingError, OSError) as error:
        fail(_TOOL, str(error))
    if isinstance(end, RingError):
        fail(_TOOL, str(end))
    return end


if __name__ == "__main__":
    main()
