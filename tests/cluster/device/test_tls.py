"""TLS between hosts: a real process shows its certificate over TCP, and each wrong file stops the start in a sentence."""

import asyncio
import signal
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.x509 import load_der_x509_certificate

from storage_node.exits import Exit
from swiftlike.config import ConfigError, TlsConfig, load_host
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.tls import calling_network, client_context, server_context
from tests.cluster.device.authority import Authority
from tests.cluster.device.hosts import (
    RPC_SECRET,
    Host,
    Running,
    client_of,
    start_device,
    start_supervisor,
    wait_serving,
    wait_until,
)

Run = Callable[[Running], Running]


@pytest.fixture
def authority(host: Host) -> Authority:
    """The authority of a host whose file asks for TLS."""
    authority = Authority(host.root)
    authority.issue()
    ask_for_tls(host)
    return authority


def ask_for_tls(host: Host) -> None:
    """Write the host's file with a [tls]."""
    host.write()
    with host.config.open("a") as file:
        file.write('[tls]\nca_file = "ca.pem"\ncertificate_file = "host.pem"\nkey_file = "host.key"\n')


def tls_of(host: Host) -> TlsConfig:
    """Read the host's [tls]."""
    tls = load_host(host.config).tls
    assert tls is not None
    return tls


async def health(host: Host, network: SocketNetwork) -> str:
    """Ask the device over TCP how it is; say what became of that."""
    async with Client(network, RPC_SECRET) as transport:
        client = NodeClient(transport, host.tcp("d1"), lambda table: 1, timeout_s=5)
        try:
            return str((await client.health())["state"])
        except NodeFailed as failed:
            return failed.reply.reason


async def shown_serial(host: Host) -> int:
    """Return the serial number of the certificate that the device shows."""
    address = host.tcp("d1")
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=client_context(tls_of(host)))
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return load_der_x509_certificate(shown).serial_number


async def test_a_device_speaks_tls_over_tcp_and_its_unix_socket_stays_plain(
    host: Host, authority: Authority, run: Run
) -> None:
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
    assert await health(host, calling_network(tls_of(host))) == "serving"
    assert await health(host, calling_network(None)) != "serving", "it answers nobody in the clear"


async def test_a_caller_trusts_no_other_authority_and_no_other_hosts_certificate(
    host: Host, authority: Authority, run: Run
) -> None:
    authority.issue("127.0.0.2")
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
    assert "127.0.0.1" in await health(host, calling_network(tls_of(host)))
    (host.root / "other").mkdir()
    stranger = replace(tls_of(host), ca_file=Authority(host.root / "other").ca_file)
    assert "certificate verify failed" in await health(host, calling_network(stranger))


async def test_a_renewed_certificate_is_shown_after_sighup_and_a_bad_one_is_not(
    host: Host, authority: Authority, run: Run
) -> None:
    device = run(start_device(host))
    async with client_of(host) as client:
        pid = await wait_serving(client)
        first = await shown_serial(host)
        second = authority.issue()
        assert first != second
        device.send(signal.SIGHUP)
        await wait_until(lambda: "reloaded log_level" in device.log())
        assert await shown_serial(host) == second
        whole = (host.root / "host.pem").read_bytes()
        authority.issue()
        (host.root / "host.pem").write_bytes(whole)
        device.send(signal.SIGHUP)
        await wait_until(lambda: "not reloaded: tls.certificate_file" in device.log())
        assert await shown_serial(host) == second
        assert (await client.health())["pid"] == pid


async def test_the_supervisor_starts_devices_anew_when_tls_is_switched_on(host: Host, run: Run) -> None:
    supervisor = run(start_supervisor(host))
    async with client_of(host) as client:
        pid = await wait_serving(client)
        Authority(host.root).issue()
        ask_for_tls(host)
        supervisor.send(signal.SIGHUP)
        async with asyncio.timeout(20):
            while await health(host, calling_network(tls_of(host))) != "serving":  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.02)
        assert await wait_serving(client) != pid
        (host.root / "host.key").chmod(0o644)
        supervisor.send(signal.SIGHUP)
        await wait_until(lambda: "not reloaded: tls.key_file" in supervisor.log())


def spoil_key_mode(host: Host, authority: Authority) -> None:
    (host.root / "host.key").chmod(0o640)


def spoil_key_file(host: Host, authority: Authority) -> None:
    (host.root / "host.key").unlink()


def spoil_match(host: Host, authority: Authority) -> None:
    whole = (host.root / "host.pem").read_bytes()
    authority.issue()
    (host.root / "host.pem").write_bytes(whole)


def spoil_password(host: Host, authority: Authority) -> None:
    authority.issue(password=b"of a person")


def spoil_certificate(host: Host, authority: Authority) -> None:
    (host.root / "host.pem").write_text("a certificate")


def spoil_authority(host: Host, authority: Authority) -> None:
    authority.ca_file.write_text("an authority")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        pytest.param(spoil_key_mode, "tls.key_file: {root}/host.key holds a secret and others", id="mode"),
        pytest.param(spoil_key_file, "tls.key_file: {root}/host.key cannot be read (No such", id="no key"),
        pytest.param(spoil_match, "are no certificate in PEM with its own key", id="another key"),
        pytest.param(spoil_password, "are no certificate in PEM with its own key, without a", id="password"),
        pytest.param(spoil_certificate, "tls.certificate_file {root}/host.pem and", id="no certificate"),
        pytest.param(
            spoil_authority, "tls.ca_file: {root}/ca.pem holds no certificate in PEM", id="authority"
        ),
    ],
)
def test_a_wrong_file_of_tls_is_refused_by_key_and_with_the_fix(
    host: Host, authority: Authority, spoil: Callable[[Host, Authority], None], sentence: str
) -> None:
    server_context(tls_of(host))
    spoil(host, authority)
    with pytest.raises(ConfigError) as refused:
        server_context(tls_of(host))
    assert sentence.format(root=host.root) in str(refused.value)


async def test_a_device_whose_key_others_may_read_refuses_to_start(
    host: Host, authority: Authority, run: Run
) -> None:
    (host.root / "host.key").chmod(0o644)
    device = run(start_device(host))
    assert await device.wait() == Exit.REFUSED
    assert f"run chmod 600 {Path(host.root / 'host.key')}" in device.log()


def test_tls_versions_below_1_3_are_not_spoken(host: Host, authority: Authority) -> None:
    for context in (client_context(tls_of(host)), server_context(tls_of(host))):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
