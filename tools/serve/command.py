"""The command line of `swiftlike serve`.

Owns its options, what goes to which stream, and the exit codes: 0 ended when told to, 2 refused, with one sentence.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final

import click

from proxy.supervisor import PortTaken, held_port
from swiftlike import logs, signals
from swiftlike.config import ConfigError, ProxyConfig
from tools.serve.layout import ServeRefused
from tools.serve.making import POLICY
from tools.serve.opening import Asked, Opened, host_file, is_made, opened, wait_for_predecessor
from tools.serve.running import run
from tools.serve.telling import Ready, as_json, as_page, endpoint

DATA: Final = Path("swiftlike-data")
"""In the directory where one stands: whoever tries it sees what it wrote, and may remove it with one command."""

REFUSED: Final = 2

SAMPLE: Final = "README.md"
"""What a checkout has to upload."""


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DATA,
    show_default=True,
    help="Directory that holds the cluster; made if it does not exist.",
)
@click.option(
    "--devices",
    type=click.IntRange(1, 64),
    help="Devices of a new cluster. [default: 3, or as many as replicas]",
)
@click.option("--replicas", type=click.IntRange(1, 16), help="Copies in a new cluster. [default: 3]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that clients reach.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="Port that clients reach; 0: any that is free.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 1024),
    default=0,
    help="Proxy processes. [default: one for each core, 2 at least]",
)
@click.option(
    "--users",
    "users_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of [[users]]: account, user, key, roles, s3_access_key, s3_secret_key.",
)
@click.option(
    "--json", "wants_json", is_flag=True, help="Print one line of JSON when it is ready, and nothing else."
)
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning", "error")),
    default="warning",
    show_default=True,
    help="The least that is logged, on standard error.",
)
def serve(host: str, wants_json: bool, **options: Any) -> None:
    """Serve a whole cluster on this machine: devices, proxy and a first user; Ctrl-C ends it.

    Exit codes: 0 it ended when told to, 2 it was refused.
    """
    signals.hear()  # making a cluster may take a while, and ends at once with the terminal
    asked = Asked(bind_host=host, **options)
    logs.set_up(asked.log_level, "serve")
    try:
        _serve(asked, as_json if wants_json else as_page)
    except (ServeRefused, PortTaken, ConfigError) as refusal:
        click.echo(f"swiftlike serve: {refusal}", err=True)
        sys.exit(REFUSED)


def _serve(asked: Asked, show: Callable[[Ready], str]) -> None:
    with ExitStack() as held:
        if is_made(asked):
            cluster = held.enter_context(opened(asked))
            # The processes of a serve that was killed have the port until they have drained.
            wait_for_predecessor(cluster.layout, cluster.served)
            port = held.enter_context(_port(asked))
        else:
            port = held.enter_context(_port(asked))  # first: one that cannot be had leaves no cluster behind
            cluster = held.enter_context(opened(asked))
        path = held.enter_context(host_file(cluster, asked, port))
        ready = _ready(asked, cluster, port)

        def when_ready(refusals: Sequence[str]) -> None:
            for refusal in [*cluster.left_out.values(), *refusals]:
                click.echo(f"swiftlike serve: {refusal}", err=True)
            click.echo(show(ready))

        asyncio.run(run(path, when_ready))


def _port(asked: Asked) -> AbstractContextManager[int]:
    return held_port(asked.bind_host, asked.port, "--host")


def _ready(asked: Asked, cluster: Opened, port: int) -> Ready:
    proxy = ProxyConfig(asked.bind_host, port, asked.workers)
    policy = next(policy for policy in cluster.cluster.policies if policy.index == POLICY)
    return Ready(
        endpoint(asked.bind_host, port),
        cluster.first,
        proxy.s3_region,
        os.getpid(),
        cluster.layout.data,
        len(cluster.served.devices),
        policy.replicas,
        proxy.worker_count(),
        _swift(),
        SAMPLE if Path(SAMPLE).is_file() else None,
    )


def _swift() -> str:
    """Return what to type for python-swiftclient's program: in a checkout it is beside this one, and not in the PATH."""
    beside = Path(sys.executable).parent / "swift"
    if shutil.which("swift") is not None or not beside.exists():
        return "swift"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
