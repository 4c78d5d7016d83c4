"""swiftlike-users: the users of a cluster: add, list, remove, and change their keys, while the cluster serves.

Owns the command line and its exit codes: 0 done, 1 refused by what stands there (no such user, a name that is taken), 2 not
done or not known to be (a wrong file, too few devices). It speaks to the devices itself, like a proxy; what it changes holds at
every proxy within a second. A secret that was generated is printed once, and one that was given is not printed at all.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from proxy.auth.directory import DirectoryError
from proxy.auth.records import User, UserName
from proxy.auth.users import S3Key, Users
from proxy.cluster.rings import FollowedRings
from proxy.opening import open_store
from proxy.store.errors import OutcomeUnknown, StoreError
from ring.errors import RingError
from swiftlike.config import Cluster, ConfigError, HostConfig, load_cluster, load_host
from swiftlike.rpc.client import Client
from swiftlike.tls import calling_network
from swiftlike.toml_tables import read_secret
from swiftlike.user_config import Role, UserRefused, check_name

T = TypeVar("T")

PATIENCE_S: Final = 30.0
"""For the devices to answer one command."""

REFUSED: Final = 1
NOT_DONE: Final = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands before the command."""

    config: Path
    as_json: bool


def _parsed(context: click.Context, parameter: click.Parameter, value: str) -> UserName:
    """Read `account:user`."""
    account, colon, user = value.partition(":")
    if not colon:
        raise click.BadParameter(f"{value!r} is no user: write account:user")
    try:
        return UserName(check_name("account", account), check_name("user", user))
    except UserRefused as refused:
        raise click.BadParameter(str(refused)) from None


_NAME = click.argument("name", callback=_parsed, metavar="ACCOUNT:USER")
_SECRET_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The TOML file of this host, as for swiftlike proxy.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def main(context: click.Context, config: Path, as_json: bool) -> None:
    """Add, list, remove and re-key the users of a cluster."""
    context.obj = Asked(config.absolute(), as_json)


@main.command()
@_NAME
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([str(role) for role in Role]),
    help="admin: owns its account; reseller_admin: all accounts. May be given twice.",
)
@click.option("--key-file", type=_SECRET_FILE, help="File of its key (0600; - reads standard input).")
@click.option("--s3-access-key", help="Its S3 access key, with --s3-secret-file.")
@click.option("--s3-secret-file", type=_SECRET_FILE, help="File of that key's secret.")
@click.pass_obj
def add(
    asked: Asked,
    name: UserName,
    roles: tuple[str, ...],
    key_file: Path | None,
    s3_access_key: str | None,
    s3_secret_file: Path | None,
) -> None:
    """Add a user. Its key and an S3 key are generated unless they are given, and printed once."""
    key, s3_key = _secret(key_file), _s3_key(s3_access_key, s3_secret_file)
    user = _run(
        asked, lambda users, deadline: users.add(name, roles, key=key, s3_key=s3_key, deadline=deadline)
    )
    facts: dict[str, Any] = {"user": str(name), "roles": sorted(user.roles)}
    if key is None:
        facts["key"] = user.key
    for access_key, secret in user.access_keys.items():
        facts["s3_access_key"] = access_key
        if s3_key is None:
            facts["s3_secret_key"] = secret
    _print(asked, facts, f"user {name} is there")


@main.command(name="list")
@click.argument("account", required=False)
@click.pass_obj
def list_users(asked: Asked, account: str | None) -> None:
    """List all users, or those of ACCOUNT, with their roles and S3 access keys. Shows no secret."""

    async def collect(users: Users, deadline: float) -> list[dict[str, Any]]:
        async with aclosing(users.list(account, deadline=deadline)) as found:
            return [_facts(one) async for one in found]

    rows = _run(asked, collect)
    if asked.as_json:
        click.echo(json.dumps({"users": rows}))
    for row in rows if not asked.as_json else ():
        keys = ", ".join(row["s3_access_keys"]) or "-"
        note = "" if row["opens"] else "  (sealed under another secret of the cluster: rotate its key)"
        click.echo(f"{row['user']:32} {', '.join(row['roles']) or '-':24} {keys}{note}")


@main.command()
@_NAME
@click.pass_obj
def remove(asked: Asked, name: UserName) -> None:
    """Remove a user. Its keys, S3 keys and tokens end; what its account holds stays."""
    _run(asked, lambda users, deadline: users.remove(name, deadline=deadline))
    _print(asked, {"user": str(name)}, f"user {name} is removed")
    _warn_of_file(asked, name)


@main.command()
@_NAME
@click.option("--key-file", type=_SECRET_FILE, help="File of the new key (0600; - reads standard input).")
@click.pass_obj
def rotate_key(asked: Asked, name: UserName, key_file: Path | None) -> None:
    """Give a user another key, printed once unless it is given. Tokens of the old one end; S3 keys stay."""
    given = _secret(key_file)
    key = _run(asked, lambda users, deadline: users.rotate_key(name, key=given, deadline=deadline))
    facts = {"user": str(name)} if given is not None else {"user": str(name), "key": key}
    _print(asked, facts, f"user {name} has another key")
    _warn_of_file(asked, name)


@main.group()
def s3_key() -> None:
    """Add or remove an S3 key of a user."""


@s3_key.command(name="add")
@_NAME
@click.option("--access-key", help="The access key, with --secret-file. Default: generated.")
@click.option("--secret-file", type=_SECRET_FILE, help="File of its secret (0600; - reads standard input).")
@click.pass_obj
def add_s3_key(asked: Asked, name: UserName, access_key: str | None, secret_file: Path | None) -> None:
    """Give a user one more S3 key; the secret is printed once unless it is given."""
    given = _s3_key(access_key, secret_file)
    made = _run(asked, lambda users, deadline: users.add_s3_key(name, s3_key=given, deadline=deadline))
    facts = {"user": str(name), "s3_access_key": made.access_key}
    if given is None:
        facts["s3_secret_key"] = made.secret
    _print(asked, facts, f"user {name} has one more S3 key")


@s3_key.command(name="remove")
@_NAME
@click.argument("access_key")
@click.pass_obj
def remove_s3_key(asked: Asked, name: UserName, access_key: str) -> None:
    """Take an S3 key from a user."""
    _run(asked, lambda users, deadline: users.remove_s3_key(name, access_key, deadline=deadline))
    _print(asked, {"user": str(name), "s3_access_key": access_key}, f"S3 key {access_key} is removed")
    _warn_of_file(asked, name)


# --- the cluster --------------------------------------------------------------------------------------------------


def _run(asked: Asked, command: Callable[[Users, float], Awaitable[T]]) -> T:
    """Run one command over the cluster, or say why not and exit."""

    async def run() -> T | DirectoryError | UserRefused | StoreError:
        async with _open_users(*_load(asked)) as users:
            try:
                return await command(users, asyncio.get_running_loop().time() + PATIENCE_S)
            except (DirectoryError, UserRefused, StoreError) as error:
                return error  # a value: raised through the groups that end here, it would come out wrapped

    try:
        end = asyncio.run(run())
    except (ConfigError, RingError) as error:
        _fail(str(error), NOT_DONE)
    if isinstance(end, DirectoryError | UserRefused):
        _fail(str(end), REFUSED)
    if isinstance(end, OutcomeUnknown):
        _fail(
            "too few devices answered to know whether it is done: look with list, and repeat it; a user whose secrets were "
            "not shown gets new ones with rotate-key and s3-key add",
            NOT_DONE,
        )
    if isinstance(end, StoreError):
        why = f" ({end})" if str(end) else ""
        _fail(
            f"too few devices answered{why}: see that they run, and repeat it; a change cut short does no harm",
            NOT_DONE,
        )
    return end


def _load(asked: Asked) -> tuple[HostConfig, Cluster]:
    host = load_host(asked.config)
    return host, load_cluster(host.cluster_file)


@asynccontextmanager
async def _open_users(host: HostConfig, cluster: Cluster) -> AsyncIterator[Users]:
    rings = FollowedRings(host.ring_directory, cluster)
    async with (
        Client(calling_network(host.tls), cluster.rpc_secret) as transport,
        open_store(transport, rings, host, cluster, _now_us) as store,
        Users(store, cluster.secret, cluster.auth.token_lifetime_s, _now_us) as users,
    ):
        yield users


def _now_us() -> int:
    return time.time_ns() // 1000


# --- what is read and told ------------------------------------------------------------------------------------------


def _secret(path: Path | None) -> str | None:
    """Read a secret that the operator gives; never from the command line, which every process of the host may read."""
    if path is None:
        return None
    if str(path) == "-":
        return sys.stdin.readline().strip()
    try:
        return read_secret(path).decode("utf-8", "replace").strip()
    except ConfigError as error:
        _fail(str(error), NOT_DONE)


def _s3_key(access_key: str | None, secret_file: Path | None) -> S3Key | None:
    if access_key is None and secret_file is None:
        return None
    if access_key is None or secret_file is None:
        raise click.UsageError("give both the S3 access key and the file of its secret, or neither")
    secret = _secret(secret_file)
    assert secret is not None
    return S3Key(access_key, secret)


def _facts(found: User | UserName) -> dict[str, Any]:
    if isinstance(found, UserName):
        return {"user": str(found), "roles": [], "s3_access_keys": [], "opens": False}
    keys = sorted([*found.access_keys, *found.unopened])
    return {
        "user": str(found.name),
        "roles": sorted(found.roles),
        "s3_access_keys": keys,
        "opens": not found.unopened,
    }


def _warn_of_file(asked: Asked, name: UserName) -> None:
    """Say that a file undoes this at the next start."""
    host, cluster = _load(asked)
    if any(user.name == str(name) for user in cluster.users):
        click.echo(
            f"warning: {host.cluster_file} names {name}, and its word wins when a proxy starts: change it there, too",
            err=True,
        )


def _print(asked: Asked, facts: dict[str, Any], text: str) -> None:
    if asked.as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(text)
    shown = {"key": "key", "s3_access_key": "S3 access key", "s3_secret_key": "S3 secret key"}
    for name, words in shown.items():
        if name in facts:
            click.echo(f"  {words:14} {facts[name]}")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"swiftlike-users: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
