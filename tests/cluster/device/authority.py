"""An authority of the tests: certificates for hosts, made on the spot."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

_BEGAN = datetime.now(UTC) - timedelta(days=1)


class Authority:
    """A key that signs, and its certificate in `ca.pem`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = generate_private_key(SECP256R1())
        self._name = _named("authority")
        basics = x509.BasicConstraints(ca=True, path_length=None)
        own = self._builder(self._name, self._key.public_key()).add_extension(basics, critical=True)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, address: str = "127.0.0.1", password: bytes | None = None) -> int:
        """Write `host.pem` and `host.key` for an address; return the certificate's serial number."""
        key = generate_private_key(SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        built = self._builder(_named("host"), key.public_key()).add_extension(names, critical=False)
        certificate = built.sign(self._key, hashes.SHA256())
        self._write("host.pem", certificate.public_bytes(Encoding.PEM))
        self._write("host.key", _private(key, password))
        return certificate.serial_number

    def _builder(self, subject: x509.Name, key: EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_BEGAN)
            .not_valid_after(_BEGAN + timedelta(days=3))
        )

    def _write(self, name: str, raw: bytes) -> None:
        path = self.directory / name
        path.write_bytes(raw)
        path.chmod(0o600)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _private(key: EllipticCurvePrivateKey, password: bytes | None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
