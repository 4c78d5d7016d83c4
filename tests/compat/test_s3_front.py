"""Buckets named by the host, behind TLS that ends in front of the proxy, as an operator has it: over real processes, with boto3.

botocore sends checksums in trailers over https only, and addresses buckets by host only where the endpoint has a name.
"""

import asyncio
import base64
import hashlib
import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.cluster.serve.clusters import ACCESS_KEY, SECRET_KEY, HandMade
from tests.unit.proxy.s3_api.test_botocore_client import make_certificate

DOMAIN = "objects.example"
BOX = "box-by-host"
PART = os.urandom(5 * 1024**2)


class Front:
    """What ends TLS in front of a proxy, and hands on what came as it came; it keeps the heads of requests."""

    def __init__(self, certificate: Path, proxy: tuple[str, int]) -> None:
        self.heads: list[bytes] = []
        self.port = 0
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate)
        self._proxy = proxy
        self._loop = asyncio.new_event_loop()
        self._ended: asyncio.Event | None = None
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "Front":
        self._thread.start()
        assert self._began.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._hand_on(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._began.set()
        await self._ended.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beneath, onward = await asyncio.open_connection(*self._proxy)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, onward, keeps=True))
                both.create_task(self._pump(beneath, writer, keeps=False))
        except* ConnectionError:
            pass  # the client has gone, as it may between two requests
        finally:
            for one in (writer, onward):
                one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keeps: bool) -> None:
        while chunk := await reader.read(65_536):
            if keeps and b" HTTP/1.1\r\n" in chunk:
                self.heads.append(chunk.partition(b"\r\n\r\n")[0])
            writer.write(chunk)
            await writer.drain()
        with suppress(OSError, NotImplementedError):
            writer.write_eof()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"), DOMAIN, f"*.{DOMAIN}")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[Front]:
    cluster = HandMade.make(tmp_path_factory.mktemp("front"), hosts=1, devices=3)
    (host,) = cluster.hosts
    host.proxy["storage_domain"] = DOMAIN
    cluster.write()
    with cluster.running(), Front(certificate, (host.address, host.proxy_port)) as running:
        yield running


@pytest.fixture
def client(front: Front, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    resolve = socket.getaddrinfo

    def resolve_ours(host: Any, *args: Any, **options: Any) -> Any:
        is_ours = isinstance(host, str) and (host == DOMAIN or host.endswith(f".{DOMAIN}"))
        return resolve("127.0.0.1" if is_ours else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_ours)  # what a wildcard in DNS does
    made = boto3.client(
        "s3",
        endpoint_url=f"https://{DOMAIN}:{front.port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        verify=str(certificate),
        config=Config(
            retries={"max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": "virtual"},
            signature_version="s3v4",
        ),
    )
    front.heads.clear()
    with closing(made):
        made.create_bucket(Bucket=BOX)
        yield made


def test_objects_of_a_bucket_named_by_the_host_come_and_go_with_their_checksums_behind_them(
    front: Front, client: Any
) -> None:
    body = os.urandom(300_000)
    for key in ("plain", "a b/ü+%25", "dir/", "box-by-host/x"):
        put = client.put_object(Bucket=BOX, Key=key, Body=body, ChecksumAlgorithm="SHA256")
        assert put["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(body).digest()).decode()
        got = client.get_object(Bucket=BOX, Key=key, ChecksumMode="ENABLED")
        assert (got["Body"].read(), got["ChecksumSHA256"]) == (body, put["ChecksumSHA256"])
    puts = [head for head in front.heads if head.startswith(b"PUT /plain")]
    assert puts, "the bucket is in the host alone"
    assert b"x-amz-trailer: x-amz-checksum-sha256" in puts[0].lower()
    assert f"host: {BOX}.{DOMAIN}:{front.port}".encode() in puts[0].lower()
    listed = client.list_objects_v2(Bucket=BOX)
    assert [one["Key"] for one in listed["Contents"]] == ["a b/ü+%25", "box-by-host/x", "dir/", "plain"]
    assert [one["Name"] for one in client.list_buckets()["Buckets"]] == [BOX], "no bucket: the account's"
    copied = client.copy_object(Bucket=BOX, Key="copy", CopySource={"Bucket": BOX, "Key": "a b/ü+%25"})
    assert copied["CopyObjectResult"]["ETag"] == client.head_object(Bucket=BOX, Key="copy")["ETag"]
    client.delete_objects(Bucket=BOX, Delete={"Objects": [{"Key": one["Key"]} for one in listed["Contents"]]})
    assert [one["Key"] for one in client.list_objects_v2(Bucket=BOX)["Contents"]] == ["copy"]


def test_parts_with_trailers_become_an_object_of_a_bucket_named_by_the_host(
    front: Front, client: Any
) -> None:
    named = {"Bucket": BOX, "Key": "parts"}
    begun = client.create_multipart_upload(**named, ChecksumAlgorithm="CRC64NVME")
    upload = {**named, "UploadId": begun["UploadId"]}
    parts = []
    for number, body in ((1, PART), (2, b"the last")):
        sent = client.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm="CRC64NVME")
        parts.append(
            {"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC64NVME": sent["ChecksumCRC64NVME"]}
        )
    assert any(
        b"partNumber=2" in head and b"x-amz-trailer: x-amz-checksum-crc64nvme" in head.lower()
        for head in front.heads
    )
    done = client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert done["ChecksumType"] == "FULL_OBJECT"
    assert client.get_object(**named)["Body"].read() == PART + b"the last"


def test_what_is_presigned_for_a_bucket_named_by_the_host_needs_no_client(
    front: Front, client: Any, certificate: Path
) -> None:
    client.put_object(Bucket=BOX, Key="presigned", Body=b"hello")
    url = client.generate_presigned_url("get_object", Params={"Bucket": BOX, "Key": "presigned"})
    assert url.startswith(f"https://{BOX}.{DOMAIN}:{front.port}/presigned?")
    trusting = ssl.create_default_context(cafile=str(certificate))
    with urllib.request.urlopen(url, context=trusting, timeout=30) as answer:
        assert answer.read() == b"hello"
