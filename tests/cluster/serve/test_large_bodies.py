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


def staged_bytes(serve_data: Path) -> int:
    """Say how much of bodies on their way the devices hold."""
    return sum(Path(path).stat().st_size for path in staged(serve_data))


def private_bytes(serve: Serve) -> int:
    """Return the memory that is the workers' own."""
    status = [Path(f"/proc/{serve.worker(number)}/status").read_text() for number in (1, 2)]
    return sum(int(text.partition("RssAnon:")[2].split()[0]) * 1024 for text in status)


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


def test_many_uploads_that_stall_take_little_memory_and_their_space_is_back_when_the_clients_vanish(
    serve: Serve, tmp_path: Path
) -> None:
    uploads, mib, data = 8, 24, tmp_path / "data"
    with Swift.of(serve.ready) as swift:
        before = most = private_bytes(serve)
        connections = [begin_put(serve, swift, f"o{number}", 1024 * MIB) for number in range(uploads)]
        for piece in body_of(mib):
            for connection in connections:
                connection.send(piece)
            most = max(most, private_bytes(serve))
        # What each owner lacks of it is in buffers.
        wait_for(lambda: staged_bytes(data) > 0.9 * 3 * uploads * mib * MIB, "the devices have it", 60)
        most = max(most, private_bytes(serve))
        assert most - before < uploads * mib * MIB / 3
        for connection in connections:
            connection.close()
        wait_for(lambda: not staged(data), "the devices have let go of it", 60)
        assert not list(data.glob("devices/*/files/*/*"))
        assert swift.names(BOX) == []


def test_a_proxy_that_dies_in_the_middle_of_a_download_never_passes_a_part_off_as_the_whole(
    serve: Serve,
) -> None:
    mib = 64
    with Swift.of(serve.ready, timeout_s=60) as swift:
        connection = begin_put(serve, swift, "large", mib * MIB)
        go_on(connection, mib)
        connection.close()
        connection.request("GET", f"{swift.path}/{BOX}/large", headers={"X-Auth-Token": swift.token})
        answer = connection.getresponse()
        digest = hashlib.md5(answer.read(MIB), usedforsecurity=False)
        # Whichever of them it comes from.
        for number in (1, 2):
            serve.kill_and_wait(f"worker {number}", serve.worker(number))
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.read()
        connection.close()
        swift.close()
        rest = swift.request("GET", BOX, "large", Range=f"bytes={MIB}-")
        assert rest.status == 206
        digest.update(rest.body)
        assert digest.hexdigest() == digest_of(mib)


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
