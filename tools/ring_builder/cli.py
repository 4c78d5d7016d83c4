"""`swiftlike-ring-builder`: from a command line to an exit code.

Owns the list of commands, the reading of the clock, and how a run ends: what is refused becomes one sentence on stderr
and exit code 2, never a traceback.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from ring.errors import RingError
from tools.ring_builder import devices, recovery, reports, rings
from tools.ring_builder.grammar import FileFirst
from tools.ring_builder.session import Exit, Session

PROGRAM: Final = "swiftlike-ring-builder"


@click.group(
    cls=FileFirst,
    invoke_without_command=True,
    no_args_is_help=True,
    subcommand_metavar="[COMMAND [VALUES]...]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
@click.argument("file")
@click.pass_context
def cli(context: click.Context, as_json: bool, file: str) -> Exit | None:
    """Make and change a ring. FILE is its builder, such as object-0.builder; without a COMMAND it is shown.

    Exit codes: 0 done; 1 done with a warning, or nothing to do; 2 refused, and nothing is written.
    """
    path = Path(file)
    if not path.name or not file.isprintable():
        raise RingError(
            f"{file!r} is no name for a builder file; name it after its ring, such as object-0.builder"
        )
    context.obj = Session(path, now_s=context.obj, as_json=as_json)
    return None if context.invoked_subcommand else reports.table(context.obj)


for command in (
    rings.create,
    devices.add,
    devices.remove,
    devices.set_weight,
    devices.set_info,
    devices.set_region,
    devices.set_zone,
    devices.bind,
    rings.set_replicas,
    rings.set_overload,
    rings.set_min_part_hours,
    rings.pretend_min_part_hours_passed,
    rings.rebalance,
    rings.settle,
    rings.undo,
    rings.write_ring,
    rings.increase_partition_power,
    *rings.NEEDLESS,
    recovery.write_builder,
    reports.search,
    reports.list_parts,
    reports.dispersion_command,
    reports.validate_command,
    reports.version,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, now_s: int | None = None) -> int:
    """Run one command line and return its exit code."""
    now_s = int(time.time()) if now_s is None else now_s
    try:
        code = cli.main(args=arguments, prog_name=PROGRAM, obj=now_s, standalone_mode=False)
        sys.stdout.flush()
    except RingError as error:
        return _refused(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return Exit.ERROR
    except click.ClickException as error:
        return _refused(
            f"{error.format_message().rstrip('.')}; --help behind the command shows what it takes"
        )
    except click.Abort:
        return _refused("stopped; leave the command out to see how the ring stands")
    except MemoryError:
        return _refused("the ring does not fit this machine's memory; work on it on a larger one")
    except BrokenPipeError:
        # Whoever read us has enough. Python would complain when it flushes stdout at the end. The code is the one that
        # click ends with when it meets this first.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.WARNING
    return code or Exit.DONE


def _refused(sentence: str) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return Exit.ERROR
