"""Bodies of many megabytes through a whole cluster, while devices die and clients vanish."""

import hashlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.serve.clusters import Serve, wait_for
from tests.cluster.serve.swift_client import Swift

BOX = "box"
MIB = 1024 * 1024
PIECE = os.urandom(MIB)


def body_of(mib: int) -> Iterator[bytes]:
    """Yield a body in pieces that all differ."""
    for number in range(mib):
        yield number.to_bytes(8, "big") + PIECE[8:]


def digest_of(mib: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in body_of(mib):
        digest.update(piece)
    return digest.hexdigest()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with Serve(tmp_path / "data", "--log-level", "info") as serve:
        with Swift.of(serve.ready) as swift:
            assert swift.request("PUT", BOX).status == 201
        yield serve


def begin_put(serve: Serve, swift: Swift, name: str, size: int) -> http.client.HTTPConnection:
    """Begin an upload; the worker has taken it up when this returns."""
    connection = http.client.HTTPConnection(*serve.address, timeout=60)
    connection.putrequest("PUT", f"{swift.path}/{BOX}/{name}")
    connection.putheader("X-Auth-Token", swift.token)
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    return connection


def go_on(connection: http.client.HTTPConnection, mib: int) -> None:
    """Send the rest of a body, and wait for the answer."""
    for piece in body_of(mib):
        connection.send(piece)
    connection.getresponse()


def staged(serve_data: Path) -> list[str]:
    """The bodies on their way to a device."""
    return [str(path) for path in serve_data.glob("devices/*/staging/*")]


def test_a_device_that_dies_in_the_middle_of_an_upload_does_not_end_it(serve: Serve, tmp_path: Path) -> None:
    mib = 24
    with Swift.of(serve.ready, timeout_s=60) as swift:
        connection = begin_put(serve, swift, "large", mib * MIB)
        for number, piece in enumerate(body_of(mib)):
            connection.send(piece)
            if number == mib // 2:
                wait_for(lambda: staged(tmp_path / "data"), "the devices have some of it")
                serve.kill_and_wait("device d2", serve.device("d2"))
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Etag")) == (201, digest_of(mib)), answer.read()
        connection.close()
        read = swift.request("GET", BOX, "large")
        assert hashlib.md5(read.body, usedforsecurity=False).hexdigest() == digest_of(mib)


def test_devices_that_die_in_the_middle_of_a_download_leave_no_seam(serve: Serve) -> None:
    mib = 96
    with Swift.of(serve.ready, timeout_s=60) as swift:
        connection = begin_put(serve, swift, "large", mib * MIB)
        for piece in body_of(mib):
            connection.send(piece)
        assert connection.getresponse().read() is not None
        connection.request("GET", f"{swift.path}/{BOX}/large", headers={"X-Auth-Token": swift.token})
        answer = connection.getresponse()
        assert answer.status == 200
        digest = hashlib.md5(usedforsecurity=False)
        for name in ("d1", "d2", "d3"):
            for _ in range(mib // 4):
                digest.update(answer.read(MIB))
            # Whichever of them it comes from, its death is among these.
            serve.kill_and_wait(f"device {name}", serve.device(name))
        digest.update(answer.read())
        connection.close()
    assert digest.hexdigest() == digest_of(mib)


def test_a_client_that_vanishes_in_the_middle_of_an_upload_leaves_nothing(
    serve: Serve, tmp_path: Path
) -> None:
    with Swift.of(serve.ready) as swift:
        connections = [begin_put(serve, swift, f"o{number}", 64 * MIB) for number in range(4)]
        for connection in connections:
            for piece in body_of(4):
                connection.send(piece)
        wait_for(lambda: staged(tmp_path / "data"), "the devices have some of it")
        for connection in connections:
            connection.close()
        wait_for(lambda: not staged(tmp_path / "data"), "the devices have let go of it", 60)
        assert swift.names(BOX) == []
        assert swift.request("GET", BOX, "o1").status == 404


def test_a_proxy_that_dies_in_the_middle_of_an_upload_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    with Swift.of(serve.ready) as swift:
        connection = begin_put(serve, swift, "large", 64 * MIB)
        for piece in body_of(8):
            connection.send(piece)
        wait_for(lambda: staged(tmp_path / "data"), "the devices have some of it")
        # Whichever of them has it.
        for number in (1, 2):
            serve.kill_and_wait(f"worker {number}", serve.worker(number))
        with pytest.raises((OSError, http.client.HTTPException)):
            go_on(connection, 56)
        connection.close()
        wait_for(lambda: not staged(tmp_path / "data"), "the devices have let go of it", 60)
        swift.close()
        assert swift.request("GET", BOX, "large").status == 404
        assert swift.names(BOX) == []
