"""One request on its way to a handler, and what every handler needs.

Owns nothing that lasts: the surroundings are the worker's, an ask is gone with its answer.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDictProxy

from proxy.auth.decisions import Action, Decision
from proxy.auth.identities import Identity
from proxy.http.request import Request
from proxy.s3_api.access import Asker, Users, acls_of, require
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.resources import Resource, check_bucket
from proxy.s3_api.signatures import Rules
from proxy.s3_api.uploads import BodyReader
from proxy.s3_api.xml import Node, XmlRefused, read_document
from proxy.store.buckets import CACHED_S, Buckets
from proxy.store.contract import Store
from proxy.store.errors import NoSuchContainer, NoSuchObject
from proxy.store.multipart import Multipart
from proxy.store.names import ObjectName
from proxy.store.values import ContainerInfo, ObjectBody, ObjectInfo
from swiftlike.limits import PART_BYTES_MIN, RPC_BODY_BYTES_MAX

XML_BYTES_MAX: Final = 64 * 1024
"""A document of a client, unless it is a list of keys or parts."""
LONG_BYTES: Final = 256 * 1024
"""A document that may be longer than this is long: 1,000 keys of 200 bytes are none."""
LONG_AT_ONCE: Final = 16
"""Long documents that a worker reads at the same time, at some 18 MB each; others wait for their turn."""
TURN_PATIENCE_S: Final = 10.0
TURN_S: Final = 20.0
"""For a turn, in which 8 MiB come at 400 KB/s: whoever sends in drops holds up the others no longer."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the dialect stands on."""

    store: Store
    buckets: Buckets
    uploads: Multipart
    users: Users
    rules: Rules
    domain: str
    """The host name whose labels in front name a bucket; empty: none does."""
    now_us: Callable[[], int]
    """The host's clock, for signatures."""
    host_id: str = ""
    """What answers say of who gave them."""
    part_bytes_min: int = PART_BYTES_MIN
    """What every part of an object has at least, but for its last."""
    long_documents: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LONG_AT_ONCE))
    """Turns of those who send long documents."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, who makes it, and what it is about."""

    around: Surroundings
    request: Request
    asker: Asker
    resource: Resource

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The request's headers."""
        return self.request.headers

    @property
    def deadline(self) -> float:
        """When it should be over."""
        return self.request.deadline

    @property
    def identity(self) -> Identity:
        """Who asks."""
        return self.asker.identity

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter. Raises S3Error when it is no text."""
        value = self.request.query.get(name)
        if value is None:
            return default
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise invalid_argument(f"The parameter {name} must be valid UTF-8", name, "") from None

    async def bucket(self, max_age_s: float = CACHED_S) -> ContainerInfo:
        """Return the bucket that the request is about, as it stood at most `max_age_s` ago. Raises S3Error."""
        return await self.find_bucket(self.resource.bucket, "x-amz-expected-bucket-owner", max_age_s)

    async def find_bucket(self, name: bytes, owner_header: str, max_age_s: float = CACHED_S) -> ContainerInfo:
        """Return a bucket, whose owner a header may name. Raises S3Error."""
        try:
            info = await self.around.buckets.locate(
                check_bucket(name), deadline=self.deadline, max_age_s=max_age_s
            )
        except NoSuchContainer:
            raise S3Error("NoSuchBucket", facts={"BucketName": name.decode()}) from None
        expected = self.headers.get(owner_header)
        if expected is not None and expected.encode("utf-8", "replace") != info.name.account:
            raise S3Error("AccessDenied")
        return info

    def require(self, action: Action, bucket: ContainerInfo, of_object: ObjectInfo | None = None) -> Decision:
        """Return the decision about something to be done in a bucket, when it allows. Raises S3Error."""
        acls = acls_of(bucket.attributes, None if of_object is None else of_object.attributes)
        return require(self.identity, action, bucket.name.account, self.headers, acls)

    def may(self, action: Action, bucket: ContainerInfo) -> bool:
        """Say whether something may be done in a bucket."""
        try:
            return self.require(action, bucket).allowed
        except S3Error:
            return False

    def object_in(self, bucket: ContainerInfo) -> ObjectName:
        """Return the name of the object that the request is about."""
        return ObjectName(*bucket.name, self.resource.key)

    async def find_object(
        self,
        name: ObjectName,
        bucket: ContainerInfo,
        action: Action = Action.READ_OBJECT,
        inline_bytes: int = RPC_BODY_BYTES_MAX,
    ) -> tuple[ObjectInfo, ObjectBody]:
        """Return an object that the asker may do something with. Raises S3Error.

        That one is not there is told only to those who may list the bucket.
        """
        objects = self.around.store.objects
        try:
            info, body = await objects.read(name, deadline=self.deadline, inline_bytes=inline_bytes)
        except NoSuchObject:
            if self.may(Action.READ_CONTAINER, bucket):
                raise S3Error("NoSuchKey", facts={"Key": name.name.decode()}) from None
            raise S3Error("AccessDenied") from None
        self.require(action, bucket, info)
        return info, body

    async def read_xml(
        self, root: str, bytes_max: int = XML_BYTES_MAX, *, is_summed: bool = True
    ) -> Node | None:
        """Return the document that is the body; None when there is no body. Raises S3Error, BodyError."""
        size = self.request.body.size
        if size == 0:
            return None
        if min(bytes_max, bytes_max if size is None else size) <= LONG_BYTES:
            return await self._read_xml(root, bytes_max, is_summed)
        turns = self.around.long_documents
        try:
            async with asyncio.timeout(TURN_PATIENCE_S):
                await turns.acquire()
        except TimeoutError:
            raise S3Error("SlowDown") from None
        try:
            async with asyncio.timeout(TURN_S):
                return await self._read_xml(root, bytes_max, is_summed)
        except TimeoutError:
            raise S3Error("RequestTimeout") from None
        finally:
            turns.release()

    async def _read_xml(self, root: str, bytes_max: int, is_summed: bool) -> Node:
        raw = await self.read_body(bytes_max, is_summed=is_summed)
        try:
            return read_document(raw, root)
        except XmlRefused as refused:
            raise S3Error("MalformedXML", f"The XML you provided is not taken: {refused}") from None

    async def read_body(self, bytes_max: int, *, is_summed: bool = True) -> bytes:
        """Return a small body, which is what was promised of it. Raises S3Error, BodyError, SignatureRefused."""
        reader = BodyReader(self.request, self.asker.proven, bytes_max, is_summed=is_summed)
        return await reader.read_checked()
