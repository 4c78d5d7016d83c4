"""Our own cluster on this machine, as `swiftlike serve` starts it: four devices, three replicas, two workers, strict fsync."""

import http.client
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from benchmarks.ports import free_ports
from benchmarks.serving import Endpoint

DEVICES: Final = 4
REPLICAS: Final = 3
WORKERS: Final = 2
START_S: Final = 30.0
STOP_S: Final = 40.0


class ServeFailedError(Exception):
    """Our cluster did not come up; says why in one sentence."""


@contextmanager
def our_cluster(home: Path, workers: int = WORKERS) -> Iterator[Endpoint]:
    """Run a cluster below `home`, an empty directory on the disk that is to be measured."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tools.start", "serve", "--json", "--data", str(home / "data")]
    command += ["--devices", str(DEVICES), "--replicas", str(REPLICAS)]
    command += ["--port", str(port), "--workers", str(workers)]
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            yield _sign_in(_read_ready(process.stdout, home / "serve.log"))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _read_ready(output: IO[bytes], log: Path) -> dict[str, Any]:
    """Return what serve prints when it is ready."""
    give_up = time.monotonic() + START_S
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(0.0, give_up - time.monotonic())):
            more = os.read(output.fileno(), 65536)
            if not more:
                break
            line += more
    if not line.endswith(b"\n"):
        raise ServeFailedError(
            f"swiftlike serve was not ready within {START_S:g} s: {log.read_text()[-400:]}"
        )
    ready: dict[str, Any] = json.loads(line)
    return ready


def _sign_in(ready: dict[str, Any]) -> Endpoint:
    swift = ready["swift"]
    auth = urlsplit(swift["auth_url"])
    assert auth.hostname is not None
    assert auth.port is not None
    connection = http.client.HTTPConnection(auth.hostname, auth.port, timeout=10)
    try:
        headers = {"X-Auth-User": swift["user"], "X-Auth-Key": swift["key"]}
        connection.request("GET", auth.path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        token, url = answer.getheader("X-Auth-Token"), answer.getheader("X-Storage-Url")
    finally:
        connection.close()
    if not token or not url:
        raise ServeFailedError(f"signing in was answered with {answer.status}")
    return Endpoint(auth.hostname, auth.port, urlsplit(url).path, token)
