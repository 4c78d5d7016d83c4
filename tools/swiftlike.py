"""The command `swiftlike`: the programs that a host runs.

Owns the command line and the exit codes. Each program is its package's own business.
"""

import asyncio
import sys
from pathlib import Path

import click

from proxy import supervisor as proxy_supervisor
from proxy.supervisor import PortTaken, load_proxy
from storage_node.supervisor import Supervisor, SupervisorExit, load_storage
from swiftlike import logs
from swiftlike.config import ConfigError
from tools.composition import DEVICE_PROCESS
from tools.serve.command import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a part of a cluster on this host."""


main.add_command(serve)

_CONFIG = click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The TOML file of this host.",
)


@main.command()
@_CONFIG
def storage(path: Path) -> None:
    """Serve the devices of this host, one process for each, until SIGTERM.

    Exit codes: 0 all have drained, 2 the configuration or every device was refused.
    """
    logs.set_up("info", "supervisor")
    try:
        host, _ = load_storage(path.absolute())
    except ConfigError as error:
        click.echo(f"swiftlike storage: {error}", err=True)
        sys.exit(SupervisorExit.REFUSED)
    logs.set_level(host.log_level)
    sys.exit(asyncio.run(Supervisor(path.absolute(), host, DEVICE_PROCESS).run()))


@main.command()
@_CONFIG
def proxy(path: Path) -> None:
    """Serve clients from this host, by several workers on one port, until SIGTERM.

    Exit codes: 0 all have drained, 2 the configuration, the port or every worker was refused.
    """
    logs.set_up("info", "supervisor")
    try:
        host, settings = load_proxy(path.absolute())
        logs.set_level(host.log_level)
        sys.exit(asyncio.run(proxy_supervisor.Supervisor(path.absolute(), settings).run()))
    except (ConfigError, PortTaken) as error:
        click.echo(f"swiftlike proxy: {error}", err=True)
        sys.exit(proxy_supervisor.SupervisorExit.REFUSED)
