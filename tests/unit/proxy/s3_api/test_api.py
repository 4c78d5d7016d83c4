"""The S3 API as a client sees it, over HTTP and a store in memory."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import quote

import pytest
from awscrt import checksums
from botocore.auth import HmacV1Auth, HmacV1QueryAuth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from proxy.dialects import Answering
from proxy.http.access_log import AccessLog
from proxy.http.begun import TRIES_MAX
from proxy.http.request import Request
from proxy.http.response import Response
from proxy.s3_api import asks, copies
from proxy.s3_api.uploads import BodyReader
from proxy.server import Server
from proxy.store.buckets import Buckets, RegisteredContainers
from proxy.store.names import ContainerName, ObjectName
from proxy.store.values import Description
from swiftlike.limits import HttpLimits
from tests.unit.proxy.fake_store import FakeContainers
from tests.unit.proxy.s3_api.serving import (
    DOMAIN,
    S3,
    SECRET,
    code_of,
    make_api,
    make_store,
    now_us,
    serve_s3,
    text_of,
    texts_of,
    tree_of,
)
from tests.unit.proxy.serving import Serving, serve
from tests.unit.proxy.serving import make_api as make_swift

MD5_HELLO = "5d41402abc4b2a76b9719d911017c592"
CRC64_HELLO = "M3eFcAZSQlc="


@pytest.fixture
async def s3() -> AsyncIterator[S3]:
    async with serve_s3() as running:
        assert (await running.ask("PUT", "/box")).status == 200
        yield running


# --- every answer -------------------------------------------------------------------------------------------------


async def test_every_answer_has_a_request_id_and_errors_are_xml_that_names_it(s3: S3) -> None:
    answer = await s3.ask("GET", "/box/missing")
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/xml"
    assert text_of(answer, "RequestId") == answer.headers["x-amz-request-id"]
    assert text_of(answer, "Resource") == "/box/missing"
    assert (text_of(answer, "Code"), text_of(answer, "Key")) == ("NoSuchKey", "missing")
    assert answer.headers["x-amz-id-2"] == text_of(answer, "HostId") == "host"


async def test_an_error_to_a_head_has_no_body_and_the_connection_goes_on(s3: S3) -> None:
    async with s3.serving.client() as client:
        assert (await s3.ask_on(client, "HEAD", "/box/missing")).status == 404
        assert (await s3.ask_on(client, "GET", "/box/missing")).status == 404
        assert (await s3.ask_on(client, "PUT", "/box/o", b"x", headers={"Content-MD5": "!"})).status == 400
        assert (await s3.ask_on(client, "PUT", "/box/o", b"x")).status == 200


async def test_a_fault_of_ours_is_an_internal_error_with_its_id_and_nothing_else(
    s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(type(s3.store.objects), "read", fail)
    answer = await s3.ask("GET", "/box/o")
    assert (answer.status, code_of(answer)) == (500, "InternalError")
    assert b"secret reason" not in answer.body
    assert answer.headers["x-amz-request-id"] == text_of(answer, "RequestId")
    assert any(answer.headers["x-amz-request-id"] in record.getMessage() for record in caplog.records)


async def test_a_request_for_which_there_is_no_room_is_told_to_slow_down() -> None:
    store = make_store()
    answering = Answering(make_swift(store), make_api(store), cast(Any, None))
    go_on, began = asyncio.Event(), asyncio.Event()

    async def wait(request: Request) -> Response:
        began.set()
        await go_on.wait()
        return Response(200)

    log = AccessLog("worker=test", lambda text: None, lambda: None)
    limits = HttpLimits(requests_in_flight_max=1, retry_after_s=7, drain_s=1.0)
    async with Server(wait, log, limits, turn_away=answering.turn_away) as server:
        s3 = S3(Serving(server, store, await server.listen("127.0.0.1", 0), []), store, "us-east-1")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(s3.ask("GET", "/box"))
            await began.wait()
            answer = await s3.ask("GET", "/box")
            of_swift = await s3.serving.ask("GET", "/v1/AUTH_test/box")
            go_on.set()
    assert (answer.status, code_of(answer)) == (503, "SlowDown")
    assert [value for name, value in answer.fields if name == "Retry-After"] == ["7"]
    assert (of_swift.status, of_swift.headers["content-type"]) == (503, "text/plain; charset=utf-8")
    assert first.result().status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/no-such-box", 404, "NoSuchBucket"),
        ("GET", "/no-such-box/o", 404, "NoSuchBucket"),
        ("PUT", "/no-such-box/o", 404, "NoSuchBucket"),
        ("GET", "/No_Such_Box", 400, "InvalidBucketName"),
        ("PUT", "/ab", 400, "InvalidBucketName"),
        ("PUT", "/192.168.5.4", 400, "InvalidBucketName"),
        ("PUT", "/a..b", 400, "InvalidBucketName"),
        ("PUT", "/" + "a" * 64, 400, "InvalidBucketName"),
        ("PUT", "/box/" + "k" * 1025, 400, "KeyTooLongError"),
        ("PUT", "/box/a%00b", 400, "InvalidURI"),
        ("PUT", "/box/%ff", 400, "InvalidURI"),
        ("PATCH", "/box", 405, "MethodNotAllowed"),
        ("POST", "/box", 412, "PreconditionFailed"),
        ("GET", "/box?delete", 405, "MethodNotAllowed"),
        ("DELETE", "/box?acl", 405, "MethodNotAllowed"),
        ("PUT", "/", 405, "MethodNotAllowed"),
        ("PUT", "/box?versioning", 501, "NotImplemented"),
        ("PUT", "/box?policy", 501, "NotImplemented"),
        ("GET", "/box?policy&cors", 400, "InvalidArgument"),
        ("OPTIONS", "/box/o", 403, "AccessForbidden"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_its_code(
    s3: S3, method: str, path: str, status: int, code: str
) -> None:
    answer = await s3.ask(method, path)
    assert (answer.status, code_of(answer)) == (status, code)


# --- who asks -----------------------------------------------------------------------------------------------------


async def test_only_a_sound_signature_of_a_known_key_lets_in(s3: S3) -> None:
    assert code_of(await s3.ask("GET", "/box", who="nobody")) == "InvalidAccessKeyId"
    raw = s3.write("GET", "/box").replace(b"Signature=", b"Signature=" + b"0" * 64 + b"\r\nX-Rest: ")
    async with s3.serving.client() as client:
        await client.send(raw)
        answer = await client.answer()
    assert (answer.status, code_of(answer)) == (403, "SignatureDoesNotMatch")
    assert text_of(answer, "CanonicalRequest").startswith("GET\n/box\n")


async def test_an_amz_header_that_is_not_signed_is_refused(s3: S3) -> None:
    raw = s3.write("PUT", "/box/o", b"x").replace(b"\r\n\r\n", b"\r\nx-amz-acl: public-read\r\n\r\n", 1)
    async with s3.serving.client() as client:
        await client.send(raw)
        answer = await client.answer()
    assert (answer.status, text_of(answer, "HeadersNotSigned")) == (403, "x-amz-acl")


async def test_strangers_and_anonymous_are_decided_by_acl(s3: S3) -> None:
    await s3.ask("PUT", "/box/private", b"x")
    await s3.ask("PUT", "/box/public", b"x", headers={"x-amz-acl": "public-read"})
    await s3.ask("PUT", "/box/known", b"x", headers={"x-amz-acl": "authenticated-read"})
    statuses = {
        (who, name): (await s3.ask("GET", f"/box/{name}", who=who)).status
        for who in ("", "other", "plain", "owner")
        for name in ("private", "public", "known", "missing")
    }
    assert statuses == {
        ("", "private"): 403, ("", "public"): 200, ("", "known"): 403, ("", "missing"): 403,
        ("other", "private"): 403, ("other", "public"): 200, ("other", "known"): 200, ("other", "missing"): 403,
        ("plain", "private"): 403, ("plain", "public"): 200, ("plain", "known"): 200, ("plain", "missing"): 403,
        ("owner", "private"): 200, ("owner", "public"): 200, ("owner", "known"): 200, ("owner", "missing"): 404,
    }  # fmt: skip
    assert (await s3.ask("GET", "/box", who="other")).status == 403
    assert (await s3.ask("PUT", "/box/new", b"x", who="other")).status == 403
    assert (await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read-write"})).status == 200
    assert (await s3.ask("GET", "/box", who="")).status == 200
    assert code_of(await s3.ask("GET", "/box/missing", who="")) == "NoSuchKey"
    assert (await s3.ask("PUT", "/box/new", b"x", who="")).status == 200
    assert (await s3.ask("DELETE", "/box/new", who="other")).status == 204
    assert (await s3.ask("DELETE", "/box", who="other")).status == 403
    assert (await s3.ask("PUT", "/box?acl", who="other", headers={"x-amz-acl": "private"})).status == 403


async def test_an_acl_shows_its_owner_and_what_is_granted(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"x", headers={"x-amz-acl": "public-read"})
    for path, granted in (("/box?acl", []), ("/box/o?acl", ["READ"])):
        answer = await s3.ask("GET", path)
        assert text_of(answer, "Owner/ID") == "AUTH_test"
        assert texts_of(answer, "AccessControlList/Grant/Permission") == ["FULL_CONTROL", *granted]
    assert (await s3.ask("PUT", "/box/o?acl", headers={"x-amz-acl": "private"})).status == 200
    assert (await s3.ask("GET", "/box/o", who="")).status == 403
    assert (await s3.ask("GET", "/box/o")).body == b"x"
    assert code_of(await s3.ask("PUT", "/box/o", b"", headers={"x-amz-acl": "nonsense"})) == "InvalidArgument"


GROUP = "http://acs.amazonaws.com/groups/global/AllUsers"


def policy(*grants: tuple[str, str], owner: str = "AUTH_test") -> bytes:
    listed = "".join(
        f"<Grant><Grantee>{who}</Grantee><Permission>{may}</Permission></Grant>" for who, may in grants
    )
    return f"<AccessControlPolicy><Owner><ID>{owner}</ID></Owner><AccessControlList>{listed}</AccessControlList></AccessControlPolicy>".encode()


@pytest.mark.parametrize("way", ["headers of the object", "headers of its acl", "document"])
async def test_an_account_is_granted_by_its_name_in_headers_and_in_documents(s3: S3, way: str) -> None:
    granting = {"x-amz-grant-read": 'id="AUTH_else"', "x-amz-grant-read-acp": "id=AUTH_else"}
    await s3.ask("PUT", "/box/o", b"x", headers=granting if way == "headers of the object" else {})
    if way == "headers of its acl":
        assert (await s3.ask("PUT", "/box/o?acl", headers=granting)).status == 200
    if way == "document":
        body = policy(
            ("<ID>AUTH_else</ID>", "READ"),
            ("<ID>AUTH_else</ID>", "READ_ACP"),
            ("<ID>AUTH_test</ID>", "FULL_CONTROL"),
        )
        assert (await s3.ask("PUT", "/box/o?acl", body)).status == 200
    assert (await s3.ask("GET", "/box/o", who="other")).status == 200
    answer = await s3.ask("GET", "/box/o?acl", who="other")
    assert texts_of(answer, "AccessControlList/Grant/Grantee/ID") == ["AUTH_test", "AUTH_else", "AUTH_else"]
    assert texts_of(answer, "AccessControlList/Grant/Permission") == ["FULL_CONTROL", "READ", "READ_ACP"]
    assert (await s3.ask("PUT", "/box/o?acl", policy(), who="other")).status == 403
    assert (await s3.ask("GET", "/box/o", who="plain")).status == 403
    assert (await s3.ask("PUT", "/box/o?acl", answer.body)).status == 200, (
        "what was shown can be written back"
    )
    assert (await s3.ask("GET", "/box/o?acl")).body == answer.body


async def test_a_bucket_is_opened_by_a_document(s3: S3) -> None:
    body = policy((f"<URI>{GROUP}</URI>", "READ"), ("<ID>AUTH_else</ID>", "WRITE"))
    assert (await s3.ask("PUT", "/box?acl", body)).status == 200
    assert (await s3.ask("GET", "/box", who="")).status == 200
    assert (await s3.ask("PUT", "/box/o", b"x", who="other")).status == 200
    assert (await s3.ask("PUT", "/box/o", b"x", who="")).status == 403


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"<AccessControlPolicy/>", "MalformedACLError"),
        (b"<Other/>", "MalformedXML"),
        (policy(owner="AUTH_else"), "MalformedACLError"),
        (policy(("<ID>AUTH_else</ID>", "FLY")), "MalformedACLError"),
        (policy(("", "READ")), "MalformedACLError"),
        (policy(("<ID></ID>", "READ")), "InvalidArgument"),
        (policy(("<URI>x</URI>", "READ")), "InvalidArgument"),
        (policy(("<EmailAddress>x@y</EmailAddress>", "READ")), "NotImplemented"),
        (policy(*[(f"<ID>a{number}</ID>", "READ") for number in range(101)]), "MalformedACLError"),
    ],
)
async def test_a_document_that_is_no_acl_changes_nothing(s3: S3, document: bytes, code: str) -> None:
    await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read"})
    assert code_of(await s3.ask("PUT", "/box?acl", document)) == code
    assert (await s3.ask("GET", "/box", who="")).status == 200


# --- buckets ------------------------------------------------------------------------------------------------------


async def test_a_bucket_belongs_to_whoever_came_first_among_all_accounts(s3: S3) -> None:
    answer = await s3.ask("PUT", "/box", who="other")
    assert (answer.status, code_of(answer)) == (409, "BucketAlreadyExists")
    assert (await s3.ask("PUT", "/box")).status == 200
    assert texts_of(await s3.ask("GET", "/"), "Buckets/Bucket/Name") == ["box"]
    assert texts_of(await s3.ask("GET", "/", who="other"), "Buckets/Bucket/Name") == []
    assert (await s3.ask("DELETE", "/box")).status == 204
    assert (await s3.ask("PUT", "/box", who="other")).status == 200
    assert code_of(await s3.ask("GET", "/box")) == "AccessDenied"


async def test_outside_of_us_east_1_a_bucket_of_ones_own_is_not_made_again() -> None:
    async with serve_s3(region="eu-north-9") as s3:
        wanted = b"<CreateBucketConfiguration><LocationConstraint>eu-north-9</LocationConstraint></CreateBucketConfiguration>"
        assert (await s3.ask("PUT", "/box", wanted)).status == 200
        answer = await s3.ask("PUT", "/box")
        assert (answer.status, code_of(answer)) == (409, "BucketAlreadyOwnedByYou")
        assert tree_of(await s3.ask("GET", "/box?location")).text == "eu-north-9"
        assert (await s3.ask("HEAD", "/box")).headers["x-amz-bucket-region"] == "eu-north-9"


async def test_where_a_bucket_is_told_to_those_too_who_may_not_look_into_it() -> None:
    async with serve_s3(region="eu-north-9") as s3:
        assert (await s3.ask("PUT", "/box")).status == 200
        for who in ("other", ""):
            answer = await s3.ask("HEAD", "/box", who=who)
            assert (answer.status, answer.headers.get("x-amz-bucket-region")) == (403, "eu-north-9"), who
        absent = await s3.ask("HEAD", "/nobodys", who="other")
        assert (absent.status, absent.headers.get("x-amz-bucket-region")) == (404, None)


async def test_who_signs_for_another_region_is_told_the_right_one_in_the_head_too() -> None:
    async with serve_s3(region="eu-north-9") as s3:
        abroad = s3._replace(region="us-east-1")
        for method in ("GET", "HEAD"):
            answer = await abroad.ask(method, "/box")
            assert (answer.status, answer.headers["x-amz-bucket-region"]) == (400, "eu-north-9")
        assert text_of(await abroad.ask("GET", "/box"), "Region") == "eu-north-9"


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ("<CreateBucketConfiguration/>", 200, ""),
        ('<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>', 200, ""),
        ("<CreateBucketConfiguration><LocationConstraint>mars</LocationConstraint></CreateBucketConfiguration>", 400, "IllegalLocationConstraintException"),
        ("<CreateBucketConfiguration><Bucket/></CreateBucketConfiguration>", 501, "NotImplemented"),
        ("<Nonsense/>", 400, "MalformedXML"),
        ("<CreateBucketConfiguration>", 400, "MalformedXML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><CreateBucketConfiguration>&b;</CreateBucketConfiguration>', 400, "MalformedXML"),
        ("<a>" * 100, 400, "MalformedXML"),
        ("x" * 10_000_000, 400, "EntityTooLarge"),
    ],
)  # fmt: skip
async def test_a_new_bucket_is_here_or_nowhere(s3: S3, document: str, status: int, code: str) -> None:
    async with s3.serving.client() as client:
        await client.send(s3.write("PUT", "/fresh-box", document.encode()))
        answer = await client.answer()
    assert (answer.status, code_of(answer) if status != 200 else "") == (status, code)


@pytest.mark.parametrize(("method", "query"), [("HEAD", ""), ("GET", "?location")])
async def test_whether_a_bucket_is_there_is_never_answered_from_memory(
    s3: S3, monkeypatch: pytest.MonkeyPatch, method: str, query: str
) -> None:
    ages: list[float] = []
    read = FakeContainers.read

    async def note_age(*given: Any, max_age_s: float = 1.0, **options: Any) -> Any:
        ages.append(max_age_s)
        return await read(*given, **options)

    monkeypatch.setattr(FakeContainers, "read", note_age)
    assert (await s3.ask(method, f"/box{query}")).status == 200
    assert ages == [0.0]


async def test_a_bucket_is_deleted_only_when_it_is_empty(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"x")
    answer = await s3.ask("DELETE", "/box")
    assert (answer.status, code_of(answer)) == (409, "BucketNotEmpty")
    await s3.ask("DELETE", "/box/o")
    assert (await s3.ask("DELETE", "/box/")).status == 204
    assert (await s3.ask("HEAD", "/box")).status == 404


async def test_buckets_are_listed_by_prefix_and_page_by_page(s3: S3) -> None:
    for name in ("a-one", "a-two", "a-three", "z-one"):
        await s3.ask("PUT", f"/{name}")
    found, token = [], ""
    while True:
        answer = await s3.ask("GET", f"/?prefix=a-&max-buckets=2{token}")
        found.append(texts_of(answer, "Buckets/Bucket/Name"))
        if not text_of(answer, "ContinuationToken"):
            break
        token = "&continuation-token=" + quote(text_of(answer, "ContinuationToken"))
    assert found == [["a-one", "a-three"], ["a-two"]]
    assert code_of(await s3.ask("GET", "/?continuation-token=nonsense")) == "InvalidArgument"
    assert (await s3.ask("GET", "/", who="")).status == 403


async def test_a_bucket_named_by_the_host_is_the_one_of_the_path(s3: S3) -> None:
    host = f"box.{DOMAIN}:8080"
    assert (await s3.ask("PUT", "/a/b", b"hello", host=host)).status == 200
    assert (await s3.ask("GET", "/box/a/b")).body == b"hello"
    assert texts_of(await s3.ask("GET", "/", host=host), "Contents/Key") == ["a/b"]
    assert texts_of(await s3.ask("GET", "/", host=DOMAIN), "Buckets/Bucket/Name") == ["box"]


async def test_a_container_whose_name_is_taken_is_reached_by_swift_alone(s3: S3) -> None:
    buckets = Buckets(s3.store.containers, s3.store.objects, s3.store.clock.now_us, lambda: 0.0)
    containers = RegisteredContainers(s3.store.containers, buckets)
    for account, container in (
        (b"AUTH_else", b"box"),
        (b"AUTH_else", b"Not_A_Bucket"),
        (b"AUTH_else", b"mine"),
    ):
        await containers.create(ContainerName(account, container), lambda old: old, None, deadline=0.0)
    assert texts_of(await s3.ask("GET", "/", who="other"), "Buckets/Bucket/Name") == ["mine"]
    assert (await s3.ask("GET", "/box", who="other")).status == 403
    assert ContainerName(b"AUTH_else", b"box") in s3.store.container_infos


async def test_what_s3_puts_swift_gets_and_the_other_way_round(s3: S3) -> None:
    put = {"x-amz-meta-color": "blue", "Content-Type": "text/plain", "Cache-Control": "no-store"}
    assert (await s3.ask("PUT", "/box/from-s3", b"hello", headers=put)).status == 200
    async with serve(dialect=make_swift(s3.store), store=s3.store) as swift:
        answer = await swift.ask("GET", "/v1/AUTH_test/box/from-s3")
        assert (answer.body, answer.headers["etag"]) == (b"hello", MD5_HELLO)
        assert answer.headers["x-object-meta-color"] == "blue"
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("text/plain", "no-store")
        await swift.ask("PUT", "/v1/AUTH_test/box/from-swift", b"hi", X_Object_Meta_Shape="öval")
    answer = await s3.ask("GET", "/box/from-swift")
    assert answer.body == b"hi"
    assert answer.headers["x-amz-meta-shape"] == "=?UTF-8?B?w7Z2YWw=?="


# --- sub-resources ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("versioning", 200, "VersioningConfiguration"),
        ("logging", 200, "BucketLoggingStatus"),
        ("notification", 200, "NotificationConfiguration"),
        ("requestPayment", 200, "RequestPaymentConfiguration"),
        ("accelerate", 200, "AccelerateConfiguration"),
        ("analytics", 200, "ListBucketAnalyticsConfigurationResult"),
        ("inventory&id=x", 404, "NoSuchConfiguration"),
        ("object-lock", 404, "ObjectLockConfigurationNotFoundError"),
        ("policy", 404, "NoSuchBucketPolicy"),
        ("policyStatus", 404, "NoSuchBucketPolicy"),
        ("lifecycle", 404, "NoSuchLifecycleConfiguration"),
        ("encryption", 404, "ServerSideEncryptionConfigurationNotFoundError"),
        ("cors", 404, "NoSuchCORSConfiguration"),
        ("tagging", 404, "NoSuchTagSet"),
        ("publicAccessBlock", 404, "NoSuchPublicAccessBlockConfiguration"),
        ("ownershipControls", 404, "OwnershipControlsNotFoundError"),
        ("replication", 404, "ReplicationConfigurationNotFoundError"),
        ("website", 404, "NoSuchWebsiteConfiguration"),
    ],
)
async def test_a_probe_of_a_bucket_is_answered_as_by_one_without_that_configuration(
    s3: S3, name: str, status: int, told: str
) -> None:
    answer = await s3.ask("GET", f"/box?{name}")
    assert answer.status == status
    assert (tree_of(answer).tag if status == 200 else code_of(answer)) == told
    assert code_of(await s3.ask("GET", f"/box?{name}", who="other")) == "AccessDenied"
    assert code_of(await s3.ask("GET", f"/none?{name}")) == "NoSuchBucket"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
async def test_what_belongs_to_buckets_or_objects_alone_is_refused_of_the_other(s3: S3, method: str) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    of_buckets = ("versioning", "policy", "lifecycle", "cors", "location", "delete", "website", "versions")
    of_objects = ("attributes", "restore", "retention", "legal-hold", "torrent", "select", "uploadId=x")
    for path in (
        *(f"/box/o?{name}" for name in of_buckets),
        *(f"/box?{name}" for name in of_objects),
        "/?acl",
        "/?policy",
    ):
        answer = await s3.ask(method, path)
        assert answer.status == 405, path
        assert method == "HEAD" or code_of(answer) == "MethodNotAllowed"
    assert (await s3.ask("GET", "/box/o")).body == b"hello", "a mistaken sub-resource is no upload"


async def test_an_acl_that_nobody_says_changes_nothing(s3: S3) -> None:
    await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read"})
    await s3.ask("PUT", "/box/o", b"x", headers={"x-amz-acl": "public-read"})
    for path in ("/box", "/box/o"):
        answer = await s3.ask("PUT", f"{path}?acl")
        assert (answer.status, code_of(answer)) == (400, "MissingSecurityHeader")
        assert (await s3.ask("GET", path, who="")).status == 200


async def test_a_configuration_that_is_not_there_can_be_deleted(s3: S3) -> None:
    for name in ("cors", "lifecycle", "policy", "tagging", "website", "encryption"):
        assert (await s3.ask("DELETE", f"/box?{name}")).status == 204
    assert (await s3.ask("HEAD", "/box")).status == 200, "the bucket is still there"


async def test_an_object_has_no_retention_and_no_legal_hold(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"x")
    for name in ("retention", "legal-hold"):
        answer = await s3.ask("GET", f"/box/o?{name}")
        assert (answer.status, code_of(answer)) == (400, "InvalidRequest")
    assert code_of(await s3.ask("GET", "/box/none?retention")) == "NoSuchKey"


# --- objects ------------------------------------------------------------------------------------------------------


async def test_an_object_goes_in_and_comes_out_with_all_that_was_said_of_it(s3: S3) -> None:
    headers = {
        "Content-Type": "text/plain",
        "Content-Disposition": "inline",
        "Content-Language": "de",
        "Cache-Control": "max-age=1",
        "Expires": "tomorrow",
        "x-amz-meta-Mixed-Case": "Value",
        "x-amz-storage-class": "STANDARD",
    }
    put = await s3.ask("PUT", "/box/a//b", b"hello", headers=headers)
    assert (put.status, put.body, put.headers["etag"]) == (200, b"", f'"{MD5_HELLO}"')
    assert put.headers["x-amz-checksum-crc64nvme"] == CRC64_HELLO
    answer = await s3.ask("GET", "/box/a//b")
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["etag"] == f'"{MD5_HELLO}"'
    assert answer.headers["x-amz-meta-mixed-case"] == "Value"
    for name in ("Content-Type", "Content-Disposition", "Content-Language", "Cache-Control", "Expires"):
        assert answer.headers[name.lower()] == headers[name]
    assert "x-amz-version-id" not in answer.headers
    assert answer.headers["accept-ranges"] == "bytes"
    head = await s3.ask("HEAD", "/box/a//b", headers={"x-amz-checksum-mode": "ENABLED"})
    assert head.headers["content-length"] == "5"
    assert head.headers["x-amz-checksum-crc64nvme"] == CRC64_HELLO
    assert head.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert "x-amz-checksum-crc64nvme" not in answer.headers


async def test_a_type_that_nobody_said_is_a_stream_of_octets(s3: S3) -> None:
    await s3.ask("PUT", "/box/o.txt", b"x")
    assert (await s3.ask("GET", "/box/o.txt")).headers["content-type"] == "binary/octet-stream"


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=0-1", 206, b"he", "bytes 0-1/5"),
        ("bytes=-2", 206, b"lo", "bytes 3-4/5"),
        ("bytes=4-", 206, b"o", "bytes 4-4/5"),
        ("bytes=0-1,3-4", 200, b"hello", None),
        ("bytes=x", 200, b"hello", None),
        ("bytes=5-", 416, None, "bytes */5"),
    ],
)
async def test_a_single_range_is_honoured(
    s3: S3, header: str, status: int, body: bytes | None, content_range: str | None
) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    answer = await s3.ask("GET", "/box/o", headers={"Range": header, "x-amz-checksum-mode": "ENABLED"})
    assert (answer.status, answer.headers.get("content-range")) == (status, content_range)
    if body is not None:
        assert answer.body == body
        assert ("x-amz-checksum-crc64nvme" in answer.headers) == (status == 200)


async def test_a_body_that_is_gone_before_its_first_byte_is_looked_up_again(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    s3.store.inline_bytes, s3.store.bodies_gone = 0, TRIES_MAX - 1
    answer = await s3.ask("GET", "/box/o")
    assert (answer.status, answer.body) == (200, b"hello")
    s3.store.bodies_gone = TRIES_MAX
    assert code_of(await s3.ask("GET", "/box/o")) == "ServiceUnavailable"


async def test_the_only_part_of_an_object_is_all_of_it(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    answer = await s3.ask("GET", "/box/o?partNumber=1")
    assert (answer.status, answer.body) == (206, b"hello")
    assert code_of(await s3.ask("GET", "/box/o?partNumber=2")) == "InvalidPartNumber"
    for number in ("0", "10001", "x", "-1"):
        assert code_of(await s3.ask("GET", f"/box/o?partNumber={number}")) == "InvalidArgument"


async def test_conditions_of_reads_are_those_of_http(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    for headers, status in (
        ({"If-Match": f'"{MD5_HELLO}"'}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-None-Match": f'"{MD5_HELLO}"'}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 200),
        ({"If-Unmodified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 412),
    ):
        answer = await s3.ask("GET", "/box/o", headers=headers)
        assert answer.status == status, headers
    assert code_of(await s3.ask("GET", "/box/o", headers={"If-Match": "x"})) == "PreconditionFailed"


async def test_conditions_of_writes_decide_whether_anything_is_written(s3: S3) -> None:
    ask = s3.ask
    assert (await ask("PUT", "/box/o", b"1", headers={"If-None-Match": "*"})).status == 200
    answer = await ask("PUT", "/box/o", b"2", headers={"If-None-Match": "*"})
    assert (answer.status, code_of(answer)) == (412, "PreconditionFailed")
    assert code_of(await ask("PUT", "/box/none", b"2", headers={"If-Match": '"x"'})) == "NoSuchKey"
    assert code_of(await ask("PUT", "/box/o", b"2", headers={"If-Match": '"x"'})) == "PreconditionFailed"
    etag = (await ask("HEAD", "/box/o")).headers["etag"]
    assert (await ask("PUT", "/box/o", b"3", headers={"If-Match": etag})).status == 200
    assert code_of(await ask("DELETE", "/box/o", headers={"If-Match": etag})) == "PreconditionFailed"
    assert (await ask("GET", "/box/o")).body == b"3"
    assert code_of(await ask("PUT", "/box/o", b"4", headers={"If-None-Match": etag})) == "NotImplemented"


async def test_parameters_override_the_headers_of_a_signed_answer_only(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"x", headers={"x-amz-acl": "public-read"})
    query = "response-content-type=a%2Fb&response-content-disposition=attachment%3B%20filename%3Dx&response-expires=e"
    answer = await s3.ask("GET", f"/box/o?{query}")
    assert answer.headers["content-type"] == "a/b"
    assert answer.headers["content-disposition"] == "attachment; filename=x"
    assert answer.headers["expires"] == "e"
    assert code_of(await s3.ask("GET", f"/box/o?{query}", who="")) == "InvalidRequest"
    assert code_of(await s3.ask("GET", "/box/o?response-expires=a%0D%0Ab")) == "InvalidArgument"


async def test_deleting_is_done_whether_it_was_there_or_not_and_null_is_the_only_version(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"x")
    assert (await s3.ask("GET", "/box/o?versionId=null")).body == b"x"
    assert code_of(await s3.ask("GET", "/box/o?versionId=abc")) == "NoSuchVersion"
    for _ in range(2):
        answer = await s3.ask("DELETE", "/box/o?versionId=null")
        assert (answer.status, answer.body) == (204, b"")
        assert "x-amz-version-id" not in answer.headers


@pytest.mark.parametrize(
    ("method", "query", "headers"),
    [
        ("PUT", "versionId=null", {}),
        ("PUT", "versionId=", {}),
        ("PUT", "versionId=null", {"x-amz-copy-source": "/box/o"}),
        ("POST", "uploads&versionId=null", {}),
        ("GET", "uploadId=x&versionId=null", {}),
        ("POST", "uploadId=x&versionId=null", {}),
        ("PUT", "uploadId=x&partNumber=1&versionId=null", {}),
    ],
)
async def test_a_version_is_refused_where_it_would_be_ignored(
    s3: S3, method: str, query: str, headers: dict[str, str]
) -> None:
    await s3.ask("PUT", "/box/o", b"x")
    answer = await s3.ask(
        method, f"/box/o?{query}", b"y" if query == "versionId=null" else b"", headers=headers
    )
    assert (answer.status, code_of(answer)) == (400, "InvalidArgument")
    assert "version-id" in text_of(answer, "Message")
    assert (await s3.ask("GET", "/box/o")).body == b"x"


async def test_a_target_that_cannot_be_read_is_refused_in_its_own_dialect() -> None:
    store = make_store()
    answering = Answering(make_swift(store), make_api(store), cast(Any, None))
    log = AccessLog("worker=test", lambda text: None, lambda: None)
    async with Server(answering, log, HttpLimits(drain_s=1.0), refuse=answering.refuse) as server:
        s3 = S3(Serving(server, store, await server.listen("127.0.0.1", 0), []), store, "us-east-1")
        for path in ("/box/%zz", "/box/a%", "/%4?acl", "/box/%f"):
            answer = await s3.ask("GET", path, who="")
            assert (answer.status, code_of(answer)) == (400, "InvalidURI")
            assert text_of(answer, "RequestId") == answer.headers["x-amz-request-id"]
        head = await s3.ask("HEAD", "/box/%zz", who="")
        assert (head.status, head.body) == (400, b"")
        of_swift = await s3.serving.ask("GET", "/v1/AUTH_test/%zz")
        assert (of_swift.status, of_swift.headers["content-type"]) == (400, "text/plain; charset=utf-8")
        assert (await s3.ask("PUT", "/box")).status == 200


async def test_a_transfer_coding_that_is_not_known_is_refused_in_its_own_dialect() -> None:
    store = make_store()
    answering = Answering(make_swift(store), make_api(store), cast(Any, None))
    log = AccessLog("worker=test", lambda text: None, lambda: None)
    async with Server(answering, log, HttpLimits(drain_s=1.0), refuse=answering.refuse) as server:
        serving = Serving(server, store, await server.listen("127.0.0.1", 0), [])
        coded = {"Transfer_Encoding": "gzip, chunked"}
        answer = await serving.ask("PUT", "/box/o", b"1\r\nx\r\n0\r\n\r\n", token="", **coded)
        assert (answer.status, code_of(answer)) == (501, "NotImplemented")
        assert "Transfer-Encoding" in text_of(answer, "Message")
        of_swift = await serving.ask("PUT", "/v1/AUTH_test/box/o", b"1\r\nx\r\n0\r\n\r\n", **coded)
        assert (of_swift.status, of_swift.headers["content-type"]) == (501, "text/plain; charset=utf-8")
        assert b"chunked" in of_swift.body
    assert not store.bodies


def tagging(**tags: str) -> bytes:
    listed = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in tags.items())
    return f"<Tagging><TagSet>{listed}</TagSet></Tagging>".encode()


async def test_an_object_is_tagged_when_it_is_put_and_afterwards(s3: S3) -> None:
    async def tags(name: str) -> dict[str, str]:
        answer = await s3.ask("GET", f"/box/{name}?tagging")
        assert answer.status == 200
        return dict(
            zip(texts_of(answer, "TagSet/Tag/Key"), texts_of(answer, "TagSet/Tag/Value"), strict=True)
        )

    await s3.ask("PUT", "/box/o", b"x", headers={"x-amz-tagging": "a=1&b%20c=%C3%A9+d"})
    assert await tags("o") == {"a": "1", "b c": "é d"}
    assert (await s3.ask("HEAD", "/box/o")).headers["x-amz-tagging-count"] == "2"
    await s3.ask("PUT", "/box/copy", headers={"x-amz-copy-source": "/box/o"})
    assert await tags("copy") == {"a": "1", "b c": "é d"}
    replaced = {"x-amz-copy-source": "/box/o", "x-amz-tagging-directive": "REPLACE", "x-amz-tagging": "z=9"}
    await s3.ask("PUT", "/box/anew", headers=replaced)
    assert await tags("anew") == {"z": "9"}
    assert (await s3.ask("PUT", "/box/o", headers=replaced)).status == 200, "tags alone are a change"
    assert await tags("o") == {"z": "9"}
    assert (await s3.ask("PUT", "/box/o?tagging", tagging(k="v", e=""))).status == 200
    assert await tags("o") == {"k": "v", "e": ""}
    assert (await s3.ask("PUT", "/box/o?acl", headers={"x-amz-acl": "public-read"})).status == 200
    assert (await s3.ask("GET", "/box/o?tagging", who="other")).status == 403, "no ACL grants tags"
    assert "x-amz-tagging-count" not in (await s3.ask("GET", "/box/o", who="other")).headers
    copied = {"x-amz-copy-source": "/box/o"}
    await s3.ask("PUT", "/theirs", who="other", headers={"x-amz-acl": "public-read-write"})
    assert (await s3.ask("PUT", "/theirs/o", who="other", headers=copied)).status == 403, "it would read them"
    assert (await s3.ask("PUT", "/theirs/o", headers=copied)).status == 403, "it would write theirs"
    assert (await s3.ask("DELETE", "/box/o?tagging")).status == 204
    assert await tags("o") == {}
    got = await s3.ask("GET", "/box/o")
    assert (got.body, "x-amz-tagging-count" in got.headers) == (b"x", False)
    assert code_of(await s3.ask("PUT", "/box/none?tagging", tagging(a="1"))) == "NoSuchKey"
    for document, code in (
        (b"", "MalformedXML"),
        (b"<Tagging/>", "MalformedXML"),
        (b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>", "MalformedXML"),
        (tagging(**{"k" * 129: ""}), "InvalidTag"),
        (tagging(a="v" * 257), "InvalidTag"),
        (tagging(**{"aws:a": "b"}), "InvalidTag"),
        (tagging(**{"AWS:a": "b"}), "InvalidTag"),
        (tagging(**{f"k{number}": "" for number in range(11)}), "BadRequest"),
    ):
        assert code_of(await s3.ask("PUT", "/box/o?tagging", document)) == code


async def test_attributes_of_an_object_are_told_by_name(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    asked = {"x-amz-object-attributes": "ETag,ObjectSize,StorageClass,Checksum,ObjectParts"}
    answer = await s3.ask("GET", "/box/o?attributes", headers=asked)
    assert answer.status == 200
    assert (text_of(answer, "ETag"), text_of(answer, "ObjectSize")) == (MD5_HELLO, "5")
    assert text_of(answer, "Checksum/ChecksumCRC64NVME") == CRC64_HELLO
    assert tree_of(answer).find("ObjectParts") is None
    answer = await s3.ask("GET", "/box/o?attributes", headers={"x-amz-object-attributes": "ObjectSize"})
    assert [element.tag for element in tree_of(answer)] == ["ObjectSize"]
    for text in ("", "Nonsense"):
        answer = await s3.ask("GET", "/box/o?attributes", headers={"x-amz-object-attributes": text})
        assert code_of(answer) == "InvalidArgument"
    assert code_of(await s3.ask("GET", "/box/none?attributes", headers=asked)) == "NoSuchKey"


# --- what is promised of a body -----------------------------------------------------------------------------------


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-MD5": b64(hashlib.md5(b"hello").digest())}, ""),
        ({"Content-MD5": b64(hashlib.md5(b"other").digest())}, "BadDigest"),
        ({"Content-MD5": "nonsense"}, "InvalidDigest"),
        ({"x-amz-checksum-crc32": "NhCmhg=="}, ""),
        ({"x-amz-checksum-crc32c": "mnG7TA=="}, ""),
        ({"x-amz-checksum-crc64nvme": CRC64_HELLO}, ""),
        ({"x-amz-checksum-sha1": b64(hashlib.sha1(b"hello").digest())}, ""),
        ({"x-amz-checksum-sha256": b64(hashlib.sha256(b"hello").digest())}, ""),
        ({"x-amz-checksum-sha256": b64(hashlib.sha256(b"other").digest())}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAA"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "NhCmhg==", "x-amz-checksum-crc32c": "mnG7TA=="}, "InvalidRequest"),
        ({"x-amz-checksum-md9": "x"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "MD9", "x-amz-checksum-crc32": "NhCmhg=="}, "InvalidArgument"),
        ({"x-amz-trailer": "x-amz-checksum-crc32"}, "InvalidRequest"),
        ({"x-amz-checksum-type": "COMPOSITE", "x-amz-checksum-crc32": "NhCmhg=="}, "InvalidRequest"),
    ],
)
async def test_a_body_is_stored_only_when_it_is_what_was_promised(
    s3: S3, headers: dict[str, str], code: str
) -> None:
    answer = await s3.ask("PUT", "/box/o", b"hello", headers=headers)
    assert (code_of(answer) if code else answer.status) == (code or 200)
    assert (await s3.ask("HEAD", "/box/o")).status == (404 if code else 200)
    if not code:
        shown = await s3.ask("GET", "/box/o", headers={"x-amz-checksum-mode": "ENABLED"})
        for name, value in headers.items():
            assert name == "Content-MD5" or shown.headers[name] == value


async def test_a_body_other_than_the_signed_one_is_not_stored(s3: S3) -> None:
    raw = s3.write("PUT", "/box/o", b"hello").replace(b"hello", b"HELLO")
    async with s3.serving.client() as client:
        await client.send(raw)
        answer = await client.answer()
    assert (answer.status, code_of(answer)) == (400, "XAmzContentSHA256Mismatch")
    assert (await s3.ask("HEAD", "/box/o")).status == 404


def chunked(*chunks: bytes, trailer: str = "") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body + b"0\r\n" + trailer.encode() + b"\r\n"


UNSIGNED = {
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "x-amz-decoded-content-length": "5",
    "x-amz-trailer": "x-amz-checksum-crc32",
    "Content-Encoding": "gzip,aws-chunked",
}


@pytest.mark.parametrize("framing", ["Content-Length", "Transfer-Encoding"])
async def test_a_body_in_chunks_with_its_checksum_behind_is_unwrapped(s3: S3, framing: str) -> None:
    await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read-write"})
    body = chunked(b"he", b"llo", trailer="x-amz-checksum-crc32:NhCmhg==\r\n")
    headers = dict(UNSIGNED)
    if framing == "Transfer-Encoding":
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    answer = await s3.ask("PUT", "/box/o", body, who="", headers=headers)
    assert (answer.status, answer.headers["x-amz-checksum-crc32"]) == (200, "NhCmhg==")
    answer = await s3.ask("GET", "/box/o")
    assert (answer.body, answer.headers["content-encoding"]) == (b"hello", "gzip")


@pytest.mark.parametrize(
    ("body", "changes", "code"),
    [
        (chunked(b"hello", trailer="x-amz-checksum-crc32:AAAAAA==\r\n"), {}, "BadDigest"),
        (chunked(b"hello", trailer="x-amz-checksum-crc32:!!\r\n"), {}, "InvalidRequest"),
        (chunked(b"hello"), {}, "MalformedTrailerError"),
        (chunked(b"hell", trailer="x-amz-checksum-crc32:NhCmhg==\r\n"), {}, "IncompleteBody"),
        (chunked(b"hello!", trailer="x-amz-checksum-crc32:NhCmhg==\r\n"), {}, "IncompleteBody"),
        (b"5\r\nhello\r\n", {}, "IncompleteBody"),
        (b"hello", {}, "IncompleteBody"),
        (b"", {}, "IncompleteBody"),
        (chunked(b"hello"), {"x-amz-decoded-content-length": "x"}, "InvalidArgument"),
        (chunked(b"hello"), {"x-amz-decoded-content-length": None}, "MissingContentLength"),
        (chunked(b"hello"), {"x-amz-decoded-content-length": "6000000000"}, "EntityTooLarge"),
        (chunked(b"hello"), {"x-amz-trailer": "x-amz-checksum-md9"}, "InvalidRequest"),
        (chunked(b"hello"), {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "Content-Encoding": None}, "InvalidRequest"),
    ],
)  # fmt: skip
async def test_chunks_that_are_not_what_was_declared_store_nothing(
    s3: S3, body: bytes, changes: dict[str, str | None], code: str
) -> None:
    await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read-write"})
    headers = {name: value for name, value in {**UNSIGNED, **changes}.items() if value is not None}
    assert code_of(await s3.ask("PUT", "/box/o", body, who="", headers=headers)) == code
    assert (await s3.ask("HEAD", "/box/o")).status == 404


async def test_a_length_that_nobody_says_is_asked_for(s3: S3) -> None:
    await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read-write"})
    async with s3.serving.client() as client:
        await client.send(b"PUT /box/o HTTP/1.1\r\nHost: h\r\n\r\n")
        assert code_of(await client.answer()) == "MissingContentLength"
    body = b"5\r\nhello\r\n0\r\n\r\n"
    answer = await s3.ask("PUT", "/box/o", body, who="", headers={"Transfer-Encoding": "chunked"})
    assert (answer.status, code_of(answer)) == (411, "MissingContentLength")


async def test_a_refused_upload_is_never_invited(s3: S3) -> None:
    raw = s3.write("PUT", "/none/o", b"", headers={"Expect": "100-continue", "Content-Length": "5"})
    async with s3.serving.client() as client:
        await client.send(raw)
        assert (await client.answer()).status == 404
        assert await client.is_ended()
    raw = s3.write("PUT", "/box/o", b"hello", headers={"Expect": "100-continue", "Content-Length": "5"})
    async with s3.serving.client() as client:
        await client.send(raw[:-5])
        assert (await client.head())[0] == 100
        await client.send(raw[-5:])
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-server-side-encryption": "AES256"}, "NotImplemented"),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, "NotImplemented"),
        ({"x-amz-object-lock-mode": "COMPLIANCE"}, "NotImplemented"),
        ({"x-amz-website-redirect-location": "/x"}, "NotImplemented"),
        ({"x-amz-tagging": "a=1&a=2"}, "InvalidTag"),
        ({"x-amz-tagging": "=b"}, "InvalidTag"),
        ({"x-amz-tagging": "aws%3Aa=b"}, "InvalidTag"),
        ({"x-amz-tagging": "a=%ff"}, "InvalidArgument"),
        ({"x-amz-tagging": "&".join(f"{number}=" for number in range(11))}, "BadRequest"),
        ({"x-amz-grant-read": "emailAddress=x"}, "NotImplemented"),
        ({"x-amz-grant-read": "x"}, "InvalidArgument"),
        ({"x-amz-grant-read": "uri=http://acs.amazonaws.com/groups/global/Nobody"}, "InvalidArgument"),
        ({"x-amz-grant-read": "id=x", "x-amz-acl": "private"}, "InvalidRequest"),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
        ({"x-amz-meta-a": "v" * 2048}, "MetadataTooLarge"),
        ({"x-amz-expected-bucket-owner": "AUTH_else"}, "AccessDenied"),
    ],
)
async def test_headers_that_ask_for_what_is_not_there_are_refused(
    s3: S3, headers: dict[str, str], code: str
) -> None:
    assert code_of(await s3.ask("PUT", "/box/o", b"x", headers=headers)) == code
    assert (await s3.ask("HEAD", "/box/o")).status == 404


# --- copies -------------------------------------------------------------------------------------------------------


async def test_a_copy_is_described_as_its_source_or_anew(s3: S3) -> None:
    of_source = {"x-amz-meta-a": "1", "Content-Type": "text/plain", "x-amz-checksum-crc32": "NhCmhg=="}
    await s3.ask("PUT", "/box/a%20b", b"hello", headers=of_source)
    answer = await s3.ask("PUT", "/box/copy", headers={"x-amz-copy-source": "/box/a%20b?versionId=null"})
    assert (answer.status, text_of(answer, "ETag")) == (200, f'"{MD5_HELLO}"')
    assert text_of(answer, "ChecksumCRC32") == "NhCmhg=="
    shown = await s3.ask("GET", "/box/copy")
    assert (shown.body, shown.headers["x-amz-meta-a"], shown.headers["content-type"]) == (
        b"hello",
        "1",
        "text/plain",
    )
    anew = {
        "x-amz-copy-source": "box/a%20b",
        "x-amz-metadata-directive": "REPLACE",
        "x-amz-meta-b": "2",
        "x-amz-checksum-algorithm": "SHA1",
    }
    answer = await s3.ask("PUT", "/box/anew", headers=anew)
    assert text_of(answer, "ChecksumSHA1") == b64(hashlib.sha1(b"hello").digest())
    shown = await s3.ask("GET", "/box/anew")
    assert shown.headers["x-amz-meta-b"] == "2"
    assert "x-amz-meta-a" not in shown.headers
    assert shown.headers["content-type"] == "binary/octet-stream"


async def test_a_copy_onto_itself_must_change_something(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello", headers={"x-amz-meta-a": "1"})
    itself = {"x-amz-copy-source": "/box/o"}
    assert code_of(await s3.ask("PUT", "/box/o", headers=itself)) == "InvalidRequest"
    anew = itself | {"x-amz-metadata-directive": "REPLACE", "x-amz-meta-a": "2"}
    assert (await s3.ask("PUT", "/box/o", headers=anew)).status == 200
    shown = await s3.ask("GET", "/box/o", headers={"x-amz-checksum-mode": "ENABLED"})
    assert (shown.body, shown.headers["x-amz-meta-a"]) == (b"hello", "2")
    assert shown.headers["x-amz-checksum-crc64nvme"] == CRC64_HELLO


ANEW = {
    "x-amz-copy-source": "/box/o",
    "x-amz-metadata-directive": "REPLACE",
    "x-amz-checksum-algorithm": "SHA1",
}
"""A copy onto itself that asks for a checksum which the object does not hold: its body is read and written again."""


async def test_a_copy_onto_itself_for_another_checksum_keeps_when_it_is_to_go(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    name = ObjectName(b"AUTH_test", b"box", b"o")
    delete_at_us = now_us() + 3_600_000_000
    old = s3.store.object_infos[name]
    s3.store.write(name, Description(old.attributes, delete_at_us), b"hello")
    assert (await s3.ask("PUT", "/box/o", headers=ANEW)).status == 200
    shown = await s3.ask("GET", "/box/o", headers={"x-amz-checksum-mode": "ENABLED"})
    assert shown.headers["x-amz-checksum-sha1"] == b64(hashlib.sha1(b"hello").digest())
    assert s3.store.object_infos[name].delete_at_us == delete_at_us
    await s3.ask("PUT", "/box/copy", headers=ANEW)
    assert s3.store.object_infos[name._replace(name=b"copy")].delete_at_us == 0


async def test_a_copy_onto_itself_for_another_checksum_is_no_larger_than_a_body(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    monkeypatch.setattr(copies, "BODY_BYTES_MAX", 4)
    answer = await s3.ask("PUT", "/box/o", headers=ANEW)
    assert (answer.status, code_of(answer)) == (400, "InvalidRequest")
    same = {name: value for name, value in ANEW.items() if name != "x-amz-checksum-algorithm"}
    assert (await s3.ask("PUT", "/box/o", headers=same)).status == 200


@pytest.mark.parametrize(
    "conditions", [{}, {"If-Match": MD5_HELLO}, {"x-amz-copy-source-if-match": MD5_HELLO}]
)
async def test_a_copy_onto_itself_for_another_checksum_writes_over_nothing_newer(
    s3: S3, conditions: dict[str, str]
) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    put = s3.store.objects.put

    async def put_late(name: ObjectName, *args: Any, **options: Any) -> Any:
        s3.store.write(name, Description({"etag": "newer"}), b"newer")
        return await put(name, *args, **options)

    s3.store.objects.put = put_late  # type: ignore[method-assign]  # another client was faster
    answer = await s3.ask("PUT", "/box/o", headers=ANEW | conditions)
    assert (answer.status, code_of(answer)) == (503, "ServiceUnavailable")
    assert "replaced" in text_of(answer, "Message")
    assert (await s3.ask("GET", "/box/o")).body == b"newer"


async def test_a_copy_onto_itself_for_another_checksum_has_conditions_too(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    assert code_of(await s3.ask("PUT", "/box/o", headers=ANEW | {"If-Match": "x"})) == "PreconditionFailed"
    assert (
        code_of(await s3.ask("PUT", "/box/o", headers=ANEW | {"If-None-Match": "*"})) == "PreconditionFailed"
    )
    assert (await s3.ask("PUT", "/box/o", headers=ANEW | {"If-Match": MD5_HELLO})).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-copy-source": "/box/none"}, "NoSuchKey"),
        ({"x-amz-copy-source": "/none/o"}, "NoSuchBucket"),
        ({"x-amz-copy-source": "box"}, "InvalidArgument"),
        ({"x-amz-copy-source": "box/%zz"}, "InvalidArgument"),
        ({"x-amz-copy-source": "box/o?versionId=x"}, "NoSuchVersion"),
        ({"x-amz-copy-source": "box/o", "x-amz-metadata-directive": "x"}, "InvalidArgument"),
        ({"x-amz-copy-source": "box/o", "x-amz-copy-source-if-match": "x"}, "PreconditionFailed"),
        ({"x-amz-copy-source": "box/o", "x-amz-copy-source-if-none-match": MD5_HELLO}, "PreconditionFailed"),
        ({"x-amz-copy-source": "box/o", "x-amz-copy-source-if-unmodified-since": "Sun, 06 Nov 1994 08:49:37 GMT"}, "PreconditionFailed"),
        ({"x-amz-copy-source": "box/o", "If-Match": "x"}, "NoSuchKey"),
        ({"x-amz-copy-source": "box/o", "x-amz-source-expected-bucket-owner": "x"}, "AccessDenied"),
        ({"x-amz-copy-source": "box/o", "x-amz-copy-source-if-match": MD5_HELLO}, ""),
    ],
)  # fmt: skip
async def test_what_a_copy_asks_of_its_source_and_target_holds_or_nothing_is_copied(
    s3: S3, headers: dict[str, str], code: str
) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    answer = await s3.ask("PUT", "/box/copy", headers=headers)
    assert (code_of(answer) if code else answer.status) == (code or 200)
    assert (await s3.ask("HEAD", "/box/copy")).status == (404 if code else 200)


async def test_nobody_copies_what_he_may_not_read(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    await s3.ask("PUT", "/their-box", who="other")
    copied = await s3.ask("PUT", "/their-box/o", who="other", headers={"x-amz-copy-source": "/box/o"})
    assert (copied.status, code_of(copied)) == (403, "AccessDenied")


# --- many at once -------------------------------------------------------------------------------------------------


def deleting(*objects: str, quiet: bool = False) -> tuple[bytes, dict[str, str]]:
    inside = "".join(f"<Object>{one}</Object>" for one in objects)
    body = f"<Delete>{'<Quiet>true</Quiet>' if quiet else ''}{inside}</Delete>".encode()
    return body, {"Content-MD5": b64(hashlib.md5(body).digest())}


def long_document() -> tuple[bytes, dict[str, str]]:
    body = deleting("<Key>a</Key>")[0] + b" " * asks.LONG_BYTES
    return body, {"Content-MD5": b64(hashlib.md5(body).digest())}


async def test_long_documents_take_turns_and_short_ones_pass_them(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = BodyReader.read_checked
    entered, all_in, go_on = 0, asyncio.Event(), asyncio.Event()

    async def read_slowly(self: BodyReader) -> bytes:
        nonlocal entered
        body = await reading(self)
        if len(body) > asks.LONG_BYTES:
            entered += 1
            if entered == asks.LONG_AT_ONCE:
                all_in.set()
            await go_on.wait()
        return body

    monkeypatch.setattr(BodyReader, "read_checked", read_slowly)
    body, headers = long_document()
    asked = [
        asyncio.ensure_future(s3.ask("POST", "/box?delete", body, headers=headers))
        for _ in range(asks.LONG_AT_ONCE + 4)
    ]
    await all_in.wait()
    short, short_headers = deleting("<Key>a</Key>")
    assert (await s3.ask("POST", "/box?delete", short, headers=short_headers)).status == 200
    assert entered == asks.LONG_AT_ONCE
    monkeypatch.setattr(asks, "TURN_PATIENCE_S", 0.0)
    assert code_of(await s3.ask("POST", "/box?delete", body, headers=headers)) == "SlowDown"
    go_on.set()
    assert {(await one).status for one in asked} == {200}
    assert entered == asks.LONG_AT_ONCE + 4


async def test_who_sends_a_long_document_in_drops_loses_his_turn(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: BodyReader) -> bytes:
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr(asks, "TURN_S", 0.0)
    monkeypatch.setattr(BodyReader, "read_checked", never)
    body, headers = long_document()
    for _ in range(asks.LONG_AT_ONCE + 1):
        assert code_of(await s3.ask("POST", "/box?delete", body, headers=headers)) == "RequestTimeout"


async def test_many_objects_are_deleted_each_by_itself(s3: S3) -> None:
    for name in ("a", "b", "c"):
        await s3.ask("PUT", f"/box/{name}", b"x")
    body, headers = deleting(
        "<Key>a</Key>",
        "<Key>b</Key><VersionId>x</VersionId>",
        "<Key>c</Key><ETag>wrong</ETag>",
        "<Key>none</Key>",
        f"<Key>{'k' * 1025}</Key>",
    )
    answer = await s3.ask("POST", "/box?delete", body, headers=headers)
    assert texts_of(answer, "Deleted/Key") == ["a", "none"]
    assert texts_of(answer, "Error/Code") == ["NoSuchVersion", "PreconditionFailed", "KeyTooLongError"]
    assert texts_of(await s3.ask("GET", "/box"), "Contents/Key") == ["b", "c"]
    body, headers = deleting("<Key>b</Key>", "<Key>c</Key>", quiet=True)
    answer = await s3.ask("POST", "/box?delete", body, headers=headers)
    assert (answer.status, list(tree_of(answer))) == (200, [])
    assert texts_of(await s3.ask("GET", "/box"), "Contents/Key") == []


async def test_a_deletion_with_a_crc64nvme_alone_is_taken_and_one_without_a_digest_is_not(s3: S3) -> None:
    body, _ = deleting("<Key>a</Key>")
    crc = b64(checksums.crc64nvme(body).to_bytes(8, "big"))
    assert (
        await s3.ask("POST", "/box?delete", body, headers={"x-amz-checksum-crc64nvme": crc})
    ).status == 200
    assert code_of(await s3.ask("POST", "/box?delete", body)) == "InvalidRequest"
    wrong = {"Content-MD5": b64(hashlib.md5(b"").digest())}
    assert code_of(await s3.ask("POST", "/box?delete", body, headers=wrong)) == "BadDigest"


@pytest.mark.parametrize(
    "objects",
    [(), ("",), ("<Key/>",), ("<Key>a</Key><Key>b</Key>",), ("<Key>a</Key>",) * 1001],
    ids=["none", "no key", "empty key", "two keys", "1001"],
)
async def test_a_deletion_of_none_or_too_many_is_malformed(s3: S3, objects: tuple[str, ...]) -> None:
    body, headers = deleting(*objects)
    assert code_of(await s3.ask("POST", "/box?delete", body, headers=headers)) == "MalformedXML"


# --- listings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_items", [10_000, 2])
@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_listing_goes_on_page_by_page_with_prefixes_counted(version: str, page_items: int) -> None:
    async with serve_s3(page_items=page_items) as s3:
        await s3.ask("PUT", "/box")
        for name in ("a", "b/1", "b/2", "c", "d/1", "é"):
            await s3.ask("PUT", f"/box/{quote(name)}", b"x")
        pages, go_on = [], ""
        while True:
            answer = await s3.ask("GET", f"/box?list-type={version}&delimiter=%2F&max-keys=2{go_on}")
            names = texts_of(answer, "Contents/Key") + texts_of(answer, "CommonPrefixes/Prefix")
            pages.append(sorted(names))
            if text_of(answer, "IsTruncated") == "false":
                break
            if version == "1":
                go_on = "&marker=" + quote(text_of(answer, "NextMarker"), safe="")
            else:
                assert text_of(answer, "KeyCount") == "2"
                go_on = "&continuation-token=" + quote(text_of(answer, "NextContinuationToken"), safe="")
        assert pages == [["a", "b/"], ["c", "d/"], ["é"]]


@pytest.mark.parametrize(
    ("query", "keys", "prefixes"),
    [
        ("", ["a/1", "a/2", "a|b", "b"], []),
        ("prefix=a%2F", ["a/1", "a/2"], []),
        ("delimiter=%7C", ["a/1", "a/2", "b"], ["a|"]),
        ("delimiter=%2F", ["a|b", "b"], ["a/"]),
        ("delimiter=a%2F", ["a|b", "b"], ["a/"]),
        ("prefix=a%2F&delimiter=%2F", ["a/1", "a/2"], []),
        ("start-after=a%2F2", ["a|b", "b"], []),
        ("max-keys=0", [], []),
        ("max-keys=5000", ["a/1", "a/2", "a|b", "b"], []),
    ],
)
async def test_a_listing_has_what_was_asked_for(
    s3: S3, query: str, keys: list[str], prefixes: list[str]
) -> None:
    query += "&" if query else ""
    for name in ("a/1", "a/2", "a%7Cb", "b"):
        await s3.ask("PUT", f"/box/{name}", b"x")
    answer = await s3.ask("GET", f"/box?{query}list-type=2")
    assert texts_of(answer, "Contents/Key") == keys
    assert texts_of(answer, "CommonPrefixes/Prefix") == prefixes
    assert text_of(answer, "IsTruncated") == "false"
    assert tree_of(answer).find("Contents/Owner") is None
    owned = await s3.ask("GET", f"/box?{query}list-type=2&fetch-owner=true")
    assert set(texts_of(owned, "Contents/Owner/ID")) == ({"AUTH_test"} if keys else set())


@pytest.mark.parametrize(
    "query",
    ["max-keys=-1", "max-keys=x", "max-keys=99999999999", "encoding-type=x", "list-type=3", "list-type=2&continuation-token=x", "list-type=2&continuation-token=", "prefix=%ff"],
)  # fmt: skip
async def test_a_listing_that_cannot_be_is_an_invalid_argument(s3: S3, query: str) -> None:
    await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read"})
    answer = await s3.ask("GET", f"/box?{query}", who="")
    assert (answer.status, code_of(answer)) == (400, "InvalidArgument")


async def test_names_that_xml_cannot_hold_are_percent_encoded_or_break_nothing(s3: S3) -> None:
    await s3.ask("PUT", "/box/a%01%0Ab%3C%26%20%C3%A9", b"x")
    answer = await s3.ask("GET", "/box?encoding-type=url")
    assert texts_of(answer, "Contents/Key") == ["a%01%0Ab%3C%26%20%C3%A9"]
    assert text_of(answer, "EncodingType") == "url"
    assert texts_of(await s3.ask("GET", "/box"), "Contents/Key") == ["a\ufffd\nb<& é"]


async def test_a_bucket_without_versions_lists_each_object_as_version_null(s3: S3) -> None:
    for name in ("a", "b/1", "c"):
        await s3.ask("PUT", f"/box/{name}", b"x")
    answer = await s3.ask("GET", "/box?versions&delimiter=%2F&max-keys=2")
    assert (texts_of(answer, "Version/Key"), texts_of(answer, "CommonPrefixes/Prefix")) == (["a"], ["b/"])
    assert texts_of(answer, "Version/VersionId") == ["null"]
    assert texts_of(answer, "Version/IsLatest") == ["true"]
    marker = quote(text_of(answer, "NextKeyMarker"), safe="")
    answer = await s3.ask("GET", f"/box?versions&delimiter=%2F&key-marker={marker}")
    assert texts_of(answer, "Version/Key") == ["c"]


async def test_times_of_a_listing_are_those_of_the_object(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"hello")
    answer = await s3.ask("GET", "/box")
    head = await s3.ask("HEAD", "/box/o")
    listed = datetime.fromisoformat(text_of(answer, "Contents/LastModified"))
    assert listed == parsedate_to_datetime(head.headers["last-modified"])
    assert text_of(answer, "Contents/ETag") == head.headers["etag"]
    assert text_of(answer, "Contents/Size") == "5"


async def test_an_object_under_a_hidden_name_is_reached_by_nobody(s3: S3) -> None:
    assert ObjectName(b"\0buckets", b"\0names", b"box") in s3.store.object_infos
    for path in ("/%00names/box", "/%00buckets", "/box/%00"):
        assert (await s3.ask("GET", path)).status == 400


# --- headers in the query ---------------------------------------------------------------------------------------


def presigned(s3: S3, target: str) -> str:
    """What a signer makes of a request that has all of its headers in its query."""
    host = f"127.0.0.1:{s3.serving.port}"
    request = AWSRequest("PUT", f"http://{host}{target}")
    S3SigV4QueryAuth(Credentials("owner", SECRET), "s3", s3.region, 60).add_auth(request)
    return str(request.prepare().url).removeprefix(f"http://{host}")


async def test_headers_in_the_query_of_a_presigned_request_are_obeyed(s3: S3) -> None:
    await s3.ask("PUT", "/box/o", b"precious")
    copy = presigned(s3, "/box/copy?x-amz-copy-source=box%2Fo&x-amz-acl=public-read&x-amz-meta-a=b")
    assert (await s3.ask("PUT", copy, who="")).status == 200
    got = await s3.ask("GET", "/box/copy", who="")
    assert got.body == b"precious"
    meta = presigned(s3, "/box/meta?x-amz-meta-a=b")
    assert (await s3.ask("PUT", meta, b"x", who="")).status == 200
    assert (await s3.ask("GET", "/box/meta")).headers["x-amz-meta-a"] == "b"


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        ("x-amz-server-side-encryption=AES256", "NotImplemented"),
        ("x-amz-object-lock-mode=GOVERNANCE", "NotImplemented"),
        ("x-amz-storage-class=GLACIER", "InvalidStorageClass"),
        ("x-amz-checksum-crc32=AAAAAA%3D%3D", "BadDigest"),
    ],
)
async def test_headers_in_the_query_of_a_presigned_request_are_refused_as_headers_are(
    s3: S3, parameter: str, code: str
) -> None:
    target = presigned(s3, f"/box/refused?{parameter}")
    assert code_of(await s3.ask("PUT", target, b"x", who="")) == code
    assert (await s3.ask("GET", "/box/refused")).status == 404


async def test_a_header_that_says_otherwise_than_the_query_is_refused(s3: S3) -> None:
    target = presigned(s3, "/box/o?x-amz-meta-a=b")
    assert (await s3.ask("PUT", target, b"x", who="", headers={"x-amz-meta-a": "c"})).status in (400, 403)
    assert (await s3.ask("GET", "/box/o")).status == 404


def presigned_by_version_2(s3: S3, target: str, headers: dict[str, str]) -> str:
    """What botocore makes of a request when it presigns with version 2: its headers go into the query."""
    host = f"127.0.0.1:{s3.serving.port}"
    request = AWSRequest("PUT", f"http://{host}{target}", headers=headers)
    HmacV1QueryAuth(Credentials("owner", SECRET), 60).add_auth(request)
    return str(request.prepare().url).removeprefix(f"http://{host}")


async def test_headers_in_the_query_of_version_2_are_signed_and_obeyed(s3: S3) -> None:
    headers = {"x-amz-acl": "public-read", "x-amz-meta-a": "b c", "Content-Type": "text/x"}
    target = presigned_by_version_2(s3, "/box/o", headers)
    assert "x-amz-acl=public-read" in target
    answer = await s3.ask("PUT", target, b"x", who="")
    assert answer.status == 200, answer.body
    got = await s3.ask("GET", "/box/o", who="")
    assert (got.body, got.headers["content-type"], got.headers["x-amz-meta-a"]) == (b"x", "text/x", "b c")
    again = await s3.ask(
        "PUT", target, b"y", who="", headers={"Content-Type": "text/x", "x-amz-acl": "public-read"}
    )
    assert again.status == 200, "as boto3's documentation has it, the client sends them as well"


@pytest.mark.parametrize(
    ("changed", "headers", "code"),
    [
        ("x-amz-meta-a=c", {}, "SignatureDoesNotMatch"),
        ("x-amz-meta-a=b&x-amz-acl=public-read", {}, "SignatureDoesNotMatch"),
        ("", {}, "SignatureDoesNotMatch"),
        ("x-amz-meta-a=b", {"x-amz-meta-a": "c"}, "SignatureDoesNotMatch"),
        ("x-amz-meta-a=c", {"x-amz-meta-a": "b"}, "InvalidArgument"),
    ],
)
async def test_headers_in_the_query_of_version_2_cannot_be_changed(
    s3: S3, changed: str, headers: dict[str, str], code: str
) -> None:
    target = presigned_by_version_2(s3, "/box/o", {"x-amz-meta-a": "b"})
    assert "x-amz-meta-a=b" in target
    answer = await s3.ask("PUT", target.replace("x-amz-meta-a=b", changed), b"x", who="", headers=headers)
    assert code_of(answer) == code
    assert (await s3.ask("GET", "/box/o")).status == 404


@pytest.mark.parametrize(
    "added", ["x-amz-acl=public-read-write", "x-amz-copy-source=/box/other", "content-type=text/html"]
)
async def test_the_query_adds_no_header_to_what_version_2_signs_in_a_header(s3: S3, added: str) -> None:
    await s3.ask("PUT", "/box/other", b"other")
    request = AWSRequest("PUT", f"http://127.0.0.1:{s3.serving.port}/box/o", data=b"mine")
    HmacV1Auth(Credentials("owner", SECRET)).add_auth(request)
    signed = {name: request.headers[name] for name in ("Authorization", "Date")}
    target = f"/box/o?AWSAccessKeyId=anybody&{added}"
    assert (await s3.ask("PUT", target, b"mine", who="", headers=signed)).status == 200
    assert (await s3.ask("GET", "/box/o", who="")).status == 403
    got = await s3.ask("GET", "/box/o")
    assert (got.body, got.headers["content-type"]) == (b"mine", "binary/octet-stream")


async def test_headers_in_the_query_of_version_2_are_refused_as_headers_are(s3: S3) -> None:
    for name, value, code in (
        ("x-amz-storage-class", "GLACIER", "InvalidStorageClass"),
        ("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==", "BadDigest"),
    ):
        answer = await s3.ask("PUT", presigned_by_version_2(s3, "/box/o", {name: value}), b"x", who="")
        assert code_of(answer) == code


async def test_tables_of_metadata_are_not_there(s3: S3) -> None:
    for name in ("metadataInventoryTable", "metadataJournalTable"):
        assert code_of(await s3.ask("PUT", f"/box?{name}", b"<x/>")) == "NotImplemented"
