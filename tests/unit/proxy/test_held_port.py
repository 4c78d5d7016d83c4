"""The port of a host's workers: who gets it, and what is said when nobody does."""

import socket

import pytest

from proxy.supervisor import PortTaken, held_port


def refusal(host: str, port: int, *named: str) -> str:
    with pytest.raises(PortTaken) as taken, held_port(host, port, *named):
        pytest.fail("it is held by nobody")
    return str(taken.value)


def test_a_port_that_is_held_is_refused_with_the_fix_and_free_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        said = refusal("127.0.0.1", port)
    assert said == (
        f"127.0.0.1:{port} cannot be listened on (Address already in use): stop what is there, or choose another port"
    )
    with held_port("127.0.0.1", port) as held:
        assert held == port


def test_an_address_that_is_another_hosts_is_to_be_replaced_and_not_its_port() -> None:
    said = refusal("203.0.113.9", 18083, "--host")  # RFC 5737: nobody's
    assert said == (
        "203.0.113.9:18083 cannot be listened on (Cannot assign requested address): give an address of this host with --host"
    )


def test_a_name_that_does_not_resolve_is_to_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    said = refusal("nowhere.invalid", 18083)
    assert said == (
        "nowhere.invalid:18083 cannot be listened on (Name or service not known): give an address of this host with bind_host"
    )


def test_what_can_be_nobodys_name_is_to_be_replaced() -> None:
    assert refusal("x" * 64, 18083, "--host").endswith(": give an address of this host with --host")
