"""boto3 itself against the dialect over HTTP and HTTPS: it sends checksums in headers over the one, in trailers over the other."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.http.request import Request
from proxy.http.response import Response
from tests.unit.proxy.fake_store import FakeStore
from tests.unit.proxy.s3_api.serving import REGION, SECRET, make_api, make_store
from tests.unit.proxy.serving import serve

BODY = bytes(range(256)) * 1000


def make_certificate(directory: Path, *names: str) -> Path:
    """Write a certificate of loopback, and of names, and its key; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    others = [x509.DNSName(name) for name in names]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address, *others]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "loopback.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    return path


class Watched:
    """The dialect, and the headers of what it was asked."""

    def __init__(self, store: FakeStore) -> None:
        self.api = make_api(store)
        self.seen: list[dict[str, str]] = []

    async def __call__(self, request: Request) -> Response:
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        return await self.api(request)


@asynccontextmanager
async def client_of(scheme: str, directory: Path) -> AsyncIterator[tuple[Any, Watched]]:
    store = make_store()
    watched = Watched(store)
    async with serve(dialect=watched, store=store) as serving:
        port, verify = serving.port, None
        if scheme == "https":
            verify = make_certificate(directory)
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(verify)
            port = await serving.server.listen("127.0.0.1", 0, tls=tls)
        client = boto3.client(
            "s3",
            endpoint_url=f"{scheme}://127.0.0.1:{port}",
            aws_access_key_id="owner",
            aws_secret_access_key=SECRET,
            region_name=REGION,
            verify=None if verify is None else str(verify),
            config=Config(retries={"max_attempts": 1, "mode": "standard"}),
        )
        with closing(client):
            yield client, watched


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
async def test_a_checksum_arrives_in_a_header_or_behind_the_body(
    scheme: str, algorithm: str, tmp_path: Path
) -> None:
    async with client_of(scheme, tmp_path) as (client, watched):

        def work() -> None:
            client.create_bucket(Bucket="box")
            put = client.put_object(
                Bucket="box", Key="o", Body=BODY, ChecksumAlgorithm=algorithm, ContentEncoding="gzip"
            )
            got = client.get_object(Bucket="box", Key="o", ChecksumMode="ENABLED")
            assert got["Body"].read() == BODY
            assert got["ContentEncoding"] == "gzip"
            assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]

        await asyncio.to_thread(work)
        put = next(one for one in watched.seen if "x-amz-sdk-checksum-algorithm" in one)
        header = f"x-amz-checksum-{algorithm.lower()}"
        if scheme == "https":
            assert put["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
            assert (put["x-amz-trailer"], header in put) == (header, False)
        else:
            assert header in put


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_file_goes_up_whole(scheme: str, tmp_path: Path) -> None:
    async with client_of(scheme, tmp_path) as (client, _):

        def work() -> None:
            client.create_bucket(Bucket="box")
            with (tmp_path / "file").open("w+b") as file:
                file.write(BODY)
                file.seek(0)
                client.upload_fileobj(file, "box", "o")
            assert client.get_object(Bucket="box", Key="o")["Body"].read() == BODY

        await asyncio.to_thread(work)
