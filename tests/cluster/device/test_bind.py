"""The ring builder asks running devices for the uuids on their disks."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ring.builder.file import load_builder
from tests.cluster.device.authority import Authority
from tests.cluster.device.hosts import Host, Running, client_of, free_ports, start_device, wait_serving
from tools.ring_builder import main

Run = Callable[[Running], Running]
NOW_S = 1_800_000_000


def builder_of(host: Host, port: int) -> Path:
    """A ring that knows where the device is, but not its uuid."""
    path = host.root / "object-0.builder"
    assert main([str(path), "create", "4", "1", "1"], NOW_S) == 0
    assert main([str(path), "add", f"r1z1-127.0.0.1:{port}/d1", "100"], NOW_S) == 0
    return path


async def test_bind_notes_the_uuid_that_a_running_device_tells(host: Host, run: Run) -> None:
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
    path = builder_of(host, host.ports[0])
    bind = [str(path), "bind", "--cluster", str(host.root / "cluster.toml")]
    assert await asyncio.to_thread(main, bind, NOW_S) == 0
    assert load_builder(path).device(0).uuid == host.uuids["d1"]


async def test_bind_asks_over_tls_where_the_hosts_speak_it(host: Host, run: Run) -> None:
    authority = Authority(host.root)
    authority.issue()
    host.write()
    with host.config.open("a") as file:
        file.write('[tls]\nca_file = "ca.pem"\ncertificate_file = "host.pem"\nkey_file = "host.key"\n')
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
    path = builder_of(host, host.ports[0])
    bind = [str(path), "bind", "--cluster", str(host.root / "cluster.toml")]
    assert await asyncio.to_thread(main, bind, NOW_S) == 2
    assert await asyncio.to_thread(main, [*bind, "--ca-file", str(authority.ca_file)], NOW_S) == 0
    assert load_builder(path).device(0).uuid == host.uuids["d1"]


def test_bind_names_a_device_that_does_not_answer_and_notes_nothing(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    path = builder_of(host, free_ports(1)[0])
    assert main([str(path), "bind", "--cluster", str(host.root / "cluster.toml")], NOW_S) == 2
    assert "d0r1z1-127.0.0.1" in (told := capsys.readouterr().err)
    assert "does not tell its uuid" in told
    assert load_builder(path).device(0).uuid is None


def test_bind_does_not_believe_a_stranger_without_the_secret(
    host: Host, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(start_device(host))
    path = builder_of(host, host.ports[0])
    (host.root / "secret").write_text("another secret of sufficient length")
    assert main([str(path), "bind", "--cluster", str(host.root / "cluster.toml")], NOW_S) == 2
    assert "does not tell its uuid" in capsys.readouterr().err
