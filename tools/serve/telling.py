"""What `swiftlike serve` prints when it is ready: one line of JSON for programs, or a page for people.

Pure. Never prints.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from swiftlike.user_config import UserConfig


@dataclass(frozen=True, slots=True)
class Ready:
    """A cluster that serves."""

    endpoint: str
    user: UserConfig
    region: str
    pid: int
    data: Path
    devices: int
    replicas: int
    workers: int
    swift: str = "swift"
    """What to type for python-swiftclient's program."""
    sample: str | None = "README.md"
    """A file to upload from where one stands; None: there is none, and a line of text is uploaded."""

    @property
    def auth_url(self) -> str:
        """Where the Swift API gives tokens."""
        return f"{self.endpoint}/auth/v1.0"


def endpoint(host: str, port: int) -> str:
    """Return the URL that reaches a server bound to an address; one that is bound to all is reached on loopback."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def as_json(ready: Ready) -> str:
    """Return one line for programs."""
    user = ready.user
    return json.dumps(
        {
            "endpoint": ready.endpoint,
            "swift": {"auth_url": ready.auth_url, "user": user.name, "key": user.key},
            "s3": {
                "access_key": user.s3_access_key or None,
                "secret_key": user.s3_secret_key or None,
                "region": ready.region,
            },
            "pid": ready.pid,
        }
    )


def as_page(ready: Ready) -> str:
    """Return a page for people: where it is, who they are, and three commands to try."""
    user = ready.user
    name, key, auth = shlex.quote(user.name), shlex.quote(user.key), ready.auth_url
    lines = [
        f"swiftlike serves at {ready.endpoint}",
        f"  {ready.devices} devices, {ready.replicas} replicas, {ready.workers} workers; everything is in {ready.data}",
        "",
        f"  Swift   auth URL    {auth}",
        f"          user        {user.name}",
        f"          key         {user.key}",
    ]
    if user.s3_access_key:
        lines += [
            f"  S3      access key  {user.s3_access_key}",
            f"          secret key  {user.s3_secret_key}",
            f"          region      {ready.region}",
        ]
    lines += [
        "",
        "Try",
        f"  curl -i -H {shlex.quote('X-Auth-User: ' + user.name)} -H {shlex.quote('X-Auth-Key: ' + user.key)} {auth}",
        f"  {_upload(ready, f'{shlex.quote(ready.swift)} -A {auth} -U {name} -K {key}')}",
    ]
    if user.s3_access_key:
        lines += [
            f"  AWS_ACCESS_KEY_ID={user.s3_access_key} AWS_SECRET_ACCESS_KEY={shlex.quote(user.s3_secret_key)} \\",
            f"    aws --region {ready.region} --endpoint-url {ready.endpoint} s3 ls s3://first",
        ]
    lines += ["", "Ctrl-C ends it. Started again on the same directory, it comes up with everything in it."]
    return "\n".join(lines)


def _upload(ready: Ready, swift: str) -> str:
    """Return the command that puts a first object in."""
    if ready.sample is not None:
        return f"{swift} upload first {shlex.quote(ready.sample)}"
    return f"echo hello | {swift} upload --object-name hello first -"
