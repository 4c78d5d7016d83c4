"""TLS beneath the RPC: what either end shows and trusts, from the files that a host's `[tls]` names.

Owns the contexts and what is wrong with the files they are made of. Never opens a socket.

One authority of the cluster's own signs a certificate for every host with devices. A caller checks it against that
authority, and against the host that the ring names; so nobody can stand between the two. Who calls is told by the proof of
the cluster's secret, inside, so callers need no certificate. Only TCP is covered: a Unix socket never leaves the host.
"""

import ssl
from pathlib import Path

from swiftlike.config import ConfigError, TlsConfig
from swiftlike.rpc.network import SocketNetwork
from swiftlike.toml_tables import read_file, read_secret


def calling_network(tls: TlsConfig | None) -> SocketNetwork:
    """Return the network of a process that calls devices. Raises ConfigError when `ca_file` is no good."""
    return SocketNetwork(client_tls=None if tls is None else client_context(tls))


def client_context(tls: TlsConfig) -> ssl.SSLContext:
    """Return what the calling end trusts. Raises ConfigError when `ca_file` is no good."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    raw = _read("ca_file", tls.ca_file, secret=False)
    try:
        context.load_verify_locations(cadata=raw.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"tls.ca_file: {tls.ca_file} holds no certificate in PEM ({error}): give it that of the cluster's authority"
        ) from None
    return context


def server_context(tls: TlsConfig) -> ssl.SSLContext:
    """Return what the serving end shows. Raises ConfigError when a file is no good, or others may read the key."""
    client_context(tls)  # the file that this host's own callers trust should be sound as well
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    _load(context, tls)
    return context


def renew(context: ssl.SSLContext, tls: TlsConfig) -> None:
    """Let a serving end show what the files hold now, from the next connection on.

    A key of another type than before takes a new context. Raises ConfigError, and the end goes on as it was.
    """
    server_context(tls)
    _load(context, tls)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _load(context: ssl.SSLContext, tls: TlsConfig) -> None:
    assert tls.certificate_file is not None, "the configuration was checked"
    assert tls.key_file is not None, "the configuration was checked"
    _read("certificate_file", tls.certificate_file, secret=False)
    _read("key_file", tls.key_file, secret=True)
    try:
        context.load_cert_chain(tls.certificate_file, tls.key_file, password=_refuse_to_ask)
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls.certificate_file {tls.certificate_file} and tls.key_file {tls.key_file} are no certificate in PEM with its "
            f"own key, without a password ({error.reason or error}): give the two that were made together"
        ) from None


def _read(key: str, path: Path, *, secret: bool) -> bytes:
    try:
        return read_secret(path) if secret else read_file(path)
    except ConfigError as error:
        raise ConfigError(f"tls.{key}: {error}") from None


def _refuse_to_ask() -> str:
    """Without this, OpenSSL would ask the terminal."""
    return ""
