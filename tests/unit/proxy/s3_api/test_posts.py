"""Browsers' forms: what a policy allows, what a form does, and what it leaves behind when it is refused: nothing."""

import base64
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from hashlib import md5
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from proxy.s3_api import sigv2, sigv4
from proxy.s3_api.errors import S3Error
from proxy.s3_api.forms import FIELDS_BYTES_MAX, Form
from proxy.s3_api.post_policies import read_policy
from proxy.s3_api.posts import redirection
from proxy.s3_api.signatures import Rules, SignatureRefused
from proxy.store.names import ObjectName
from tests.unit.proxy.s3_api import published
from tests.unit.proxy.s3_api.serving import (
    S3,
    SECRET,
    code_of,
    make_api,
    make_store,
    serve_s3,
    text_of,
    texts_of,
)
from tests.unit.proxy.serving import Answer, serve

BOUNDARY = "----WebKitFormBoundaryB0undary"
FUTURE = "2030-01-31T12:00:00.000Z"
HELLO_ETAG = f'"{md5(b"hello").hexdigest()}"'

# --- policies -----------------------------------------------------------------------------------------------------


def encoded(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.b64encode(text.encode()).decode()


def policy_of(*conditions: object, expiration: object = FUTURE) -> dict[str, object]:
    return {"expiration": expiration, "conditions": list(conditions)}


def refusal(document: object, fields: Mapping[str, str], now_us: int = 0) -> str:
    """Return why a policy refuses a form; empty when it does not."""
    try:
        read_policy(encoded(document)).check(fields, now_us)
    except S3Error as error:
        return f"{error.code}: {error}"
    return ""


@pytest.mark.parametrize(
    ("condition", "fields", "is_met"),
    [
        ({"key": "a"}, {"key": "a"}, True),
        ({"key": "a"}, {"key": "ab"}, False),
        (["eq", "$key", "a"], {"key": "a"}, True),
        (["EQ", "$Key", "a"], {"key": "a"}, True),
        (["eq", "$key", "a"], {"key": "A"}, False),
        (["starts-with", "$key", "user/"], {"key": "user/x"}, True),
        (["starts-with", "$key", "user/"], {"key": "users"}, False),
        (["starts-with", "$key", ""], {"key": "anything"}, True),
        (["starts-with", "$key", ""], {}, False),
        (["starts-with", "$Content-Type", "image/"], {"content-type": "image/png, image/gif"}, True),
        (["starts-with", "$Content-Type", "image/"], {"content-type": "image/png,text/html"}, False),
        ({"key": "a"}, {"key": "a", "policy": "p", "x-amz-signature": "s", "x-ignore-this": "x"}, True),
        ({"key": "a"}, {"key": "a", "awsaccesskeyid": "p", "signature": "s"}, True),
        ({"key": "a"}, {"key": "a", "bucket": "box"}, False),
        ({"key": "a"}, {"key": "a", "acl": "public-read"}, False),
        ({"key": "a"}, {"key": "a", "x-amz-date": "20150101T000000Z"}, False),
        ({"key": "a", "acl": "private"}, {"key": "a", "acl": "private"}, True),
        ({"bucket": "box"}, {"bucket": "box"}, True),
        ({"bucket": "box"}, {"bucket": "other"}, False),
    ],
)  # fmt: skip
def test_a_condition_holds_or_the_form_is_refused(
    condition: object, fields: dict[str, str], is_met: bool
) -> None:
    told = refusal(policy_of(condition), fields)
    assert told == "" if is_met else told.startswith("AccessDenied: Invalid according to Policy:"), told


def test_a_field_that_no_condition_names_is_told() -> None:
    told = refusal(policy_of({"key": "a"}), {"key": "a", "acl": "x", "tagging": "y"})
    assert told == "AccessDenied: Invalid according to Policy: Extra input fields: acl, tagging"


def test_a_policy_is_good_until_it_expires() -> None:
    at = int(datetime(2030, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000
    assert refusal(policy_of(), {}, at - 1) == ""
    assert refusal(policy_of(), {}, at) == "AccessDenied: Invalid according to Policy: Policy expired."


@pytest.mark.parametrize(
    "document",
    [
        "", "null", "[]", "{}", "{" * 5000, "[" * 15000, '{"a":' * 3000, '{"expiration": "2030-01-31T12:00:00Z"}', '{"conditions": []}',
        policy_of(expiration=5), policy_of(expiration="soon"), policy_of(expiration="2030-01-31T12:00:00"), {**policy_of(), "more": 1},
        policy_of({}), policy_of([]), policy_of("x"), policy_of(None), policy_of({"key": 5}), policy_of({"key": ["a"]}),
        policy_of(["eq", "key", "a"]), policy_of(["like", "$key", "a"]), policy_of(["eq", "$key"]), policy_of(["eq", "$key", 5]),
        policy_of(["content-length-range", 1]), policy_of(["content-length-range", -1, 5]), policy_of(["content-length-range", 1, "x"]),
        policy_of(["content-length-range", True, 5]), policy_of(["content-length-range", 1, 10**30]), policy_of(["content-length-range", 1.0, 2]),
        {"expiration": FUTURE, "conditions": {"key": "a"}},
        '{"expiration": "2030-01-31T12:00:00Z", "conditions": [{"key": "a", "key": "b"}]}',
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused_as_none(document: object) -> None:
    assert refusal(document, {}).startswith("InvalidPolicyDocument: ")


@pytest.mark.parametrize("text", ["!", "é", "////", base64.b64encode(b"\xff").decode(), "e30"])
def test_what_is_no_base64_of_text_is_no_policy(text: str) -> None:
    with pytest.raises(S3Error, match="Invalid Policy"):
        read_policy(text)


@given(st.text())
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    for policy in (text, encoded(text)):
        try:
            read_policy(policy)
        except S3Error as error:
            assert error.code == "InvalidPolicyDocument"  # noqa: PT017 (a refusal is one of two sound outcomes)


def test_escapes_that_json_has_not_are_read() -> None:
    text = r'{"expiration": "2030-01-31T12:00:00Z", "conditions": [["eq", "\$key", "a\\$\v\$"]]}'
    assert refusal(text, {"key": "a\\$\x0b$"}) == ""


@pytest.mark.parametrize(
    ("bounds", "size", "code"),
    [
        ([["content-length-range", 2, 4]], 1, "EntityTooSmall"),
        ([["content-length-range", 2, 4]], 2, ""),
        ([["content-length-range", "2", "4"]], 4, ""),
        ([["content-length-range", 2, 4]], 5, "EntityTooLarge"),
        ([["content-length-range", 0, 9], ["content-length-range", 2, 4]], 5, "EntityTooLarge"),
        ([["content-length-range", 2, 4], ["content-length-range", 0, 9]], 1, "EntityTooSmall"),
        ([["content-length-range", 4, 2]], 3, "EntityTooSmall"),
        ([], 5 * 2**30, ""),
        ([], 5 * 2**30 + 1, "EntityTooLarge"),
    ],
)
def test_the_size_of_a_file_is_bounded(bounds: list[object], size: int, code: str) -> None:
    policy = read_policy(encoded(policy_of(*bounds)))
    found = ""
    try:
        policy.check_least(size)
        policy.check_most(size)
    except S3Error as error:
        found = error.code
    assert found == code


PUBLISHED = (
    '{ "expiration": "2015-12-30T12:00:00.000Z",\r\n  "conditions": [\r\n    {"bucket": "sigv4examplebucket"},\r\n'
    '    ["starts-with", "$key", "user/user1/"],\r\n    {"acl": "public-read"},\r\n'
    '    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},\r\n'
    '    ["starts-with", "$Content-Type", "image/"],\r\n    {"x-amz-meta-uuid": "14365123651274"},\r\n'
    '    {"x-amz-server-side-encryption": "AES256"},\r\n    ["starts-with", "$x-amz-meta-tag", ""],\r\n\r\n'
    '    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},\r\n'
    '    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},\r\n    {"x-amz-date": "20151229T000000Z" }\r\n  ]\r\n}'
)
"""The example of "Browser-Based Upload using HTTP POST (Using AWS Signature Version 4)", with its fields and signature below."""


def test_the_published_policy_is_proven_and_lets_its_form_through() -> None:
    fields = {
        "key": "user/user1/picture.jpg",
        "acl": "public-read",
        "success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html",
        "content-type": "image/jpeg",
        "x-amz-meta-uuid": "14365123651274",
        "x-amz-server-side-encryption": "AES256",
        "x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request",
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-date": "20151229T000000Z",
        "x-amz-meta-tag": "",
        "bucket": "sigv4examplebucket",
        "policy": encoded(PUBLISHED),
        "x-amz-signature": "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e",
    }
    credential = sigv4.read_policy_credential(
        fields["x-amz-credential"], fields["x-amz-date"], Rules("us-east-1")
    )
    sigv4.prove_policy(fields["policy"], credential, fields["x-amz-signature"], published.SECRET)
    before = int(datetime(2015, 12, 29, tzinfo=UTC).timestamp()) * 1_000_000
    assert refusal(PUBLISHED, fields, before) == ""


def test_a_policy_is_proven_in_the_older_version_too() -> None:
    policy = encoded(policy_of())
    signature = base64.b64encode(hmac.digest(SECRET.encode(), policy.encode(), "sha1")).decode()
    sigv2.prove_policy(policy, "owner", signature, SECRET)
    for wrong in (signature[:-2] + "a=", "", "é"):
        with pytest.raises(SignatureRefused, match="does not match"):
            sigv2.prove_policy(policy, "owner", wrong, SECRET)


# --- forms --------------------------------------------------------------------------------------------------------


def part(name: str, value: bytes | str, file_name: str | None = None) -> bytes:
    named = "" if file_name is None else f'; filename="{file_name}"\r\nContent-Type: text/html'
    raw = value.encode() if isinstance(value, str) else value
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + raw + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def write_form(
    fields: Mapping[str, str], file: bytes | None = b"hello", file_name: str = "a.txt", end: bytes = END
) -> bytes:
    parts = [part(name, value) for name, value in fields.items()]
    return b"".join([*parts, *([] if file is None else [part("file", file, file_name)])]) + end


@given(st.lists(st.integers(min_value=1, max_value=400), max_size=6), st.binary(max_size=200))
async def test_a_form_is_the_same_however_it_is_cut(cuts: list[int], file: bytes) -> None:
    raw = write_form({"Key": "a", "x-amz-meta-b": "c\r\nd"}, file, "p/q.txt") + b"\r\n epilogue"

    async def body() -> AsyncIterator[bytes]:
        at = 0
        for cut in [*cuts, len(raw)]:
            if raw[at : at + cut]:
                yield raw[at : at + cut]
            at += cut

    form = Form(body(), BOUNDARY)
    assert await form.read_fields() == {"key": "a", "x-amz-meta-b": "c\r\nd"}
    assert form.file_name == "p/q.txt"
    assert b"".join([chunk async for chunk in form.chunks()]) == file


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://example.org/done", "http://example.org/done?bucket=box&key=a%20b&etag=%22x%22"),
        ("https://example.org/?q=1#top", "https://example.org/?q=1&bucket=box&key=a%20b&etag=%22x%22#top"),
        ("", ""),
        ("javascript:alert(1)", ""),
        ("/relative", ""),
        ("http://[", ""),
        ("http://example.org/\r\nSet-Cookie: a=b", ""),
    ],
)
def test_a_browser_is_sent_on_to_what_is_a_url(url: str, told: str) -> None:
    assert redirection(url, "box", "a b", "x") == told


# --- over HTTP ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def s3() -> AsyncIterator[S3]:
    async with serve_s3() as running:
        assert (await running.ask("PUT", "/box")).status == 200
        yield running


async def send(s3: S3, body: bytes, path: str = "/box", host: str = "", **headers: str) -> Answer:
    fields = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    return await s3.ask("POST", path, body, "", fields, host)


def signed(
    fields: Mapping[str, str], *conditions: object, who: str = "owner", version: str = "s3v4", **options: Any
) -> dict[str, str]:
    """Return fields with a policy about them, as boto3 writes it."""
    client = boto3.client(
        "s3", aws_access_key_id=who, aws_secret_access_key=SECRET, region_name="us-east-1", config=Config(signature_version=version)
    )  # fmt: skip
    key = fields["key"]
    told = {name: value for name, value in fields.items() if name != "key"}
    asked: list[object] = [
        ["starts-with", f"${name}", ""] if "${filename}" in value else {name: value}
        for name, value in told.items()
    ]
    asked += conditions
    form = client.generate_presigned_post("box", key, told, asked, **options)
    return dict(form["fields"])


@pytest.mark.parametrize("version", ["s3v4", "s3"])
async def test_a_signed_form_stores_its_file_with_all_that_its_fields_say(s3: S3, version: str) -> None:
    fields = signed(
        {
            "key": "in/${filename}", "acl": "public-read", "Content-Type": "text/plain", "Cache-Control": "no-store",
            "x-amz-meta-color": "blue", "x-amz-meta-name": "${filename}", "success_action_status": "201",
            "tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>",
            "x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-crc32": "NhCmhg==",
        },
        version=version,
    )  # fmt: skip
    answer = await send(s3, write_form(fields, b"hello", "C:\\photos\\my cat é.png"))
    assert answer.status == 201, answer.body
    url = f"http://127.0.0.1:{s3.serving.port}/box/{quote('in/my cat é.png', safe='')}"
    assert answer.headers["location"] == text_of(answer, "Location") == url
    assert [text_of(answer, name) for name in ("Bucket", "Key", "ETag")] == [
        "box",
        "in/my cat é.png",
        HELLO_ETAG,
    ]
    assert answer.headers["etag"] == HELLO_ETAG
    got = await s3.ask("GET", url.partition(str(s3.serving.port))[2], who="")
    assert (got.status, got.body) == (200, b"hello")
    assert (got.headers["content-type"], got.headers["cache-control"]) == ("text/plain", "no-store")
    assert (got.headers["x-amz-meta-color"], got.headers["x-amz-meta-name"]) == (
        "blue",
        "=?UTF-8?B?bXkgY2F0IMOpLnBuZw==?=",
    )
    path = "/box/in/my%20cat%20%C3%A9.png"
    assert texts_of(await s3.ask("GET", path + "?tagging"), "TagSet/Tag/Key") == ["a"]
    head = await s3.ask("HEAD", path, headers={"x-amz-checksum-mode": "ENABLED"})
    assert head.headers["x-amz-checksum-crc32"] == "NhCmhg=="


@pytest.mark.parametrize(
    ("fields", "status", "has_document"),
    [({}, 204, False), ({"success_action_status": "200"}, 200, False), ({"success_action_status": "201"}, 201, True),
     ({"success_action_status": "204"}, 204, False), ({"success_action_status": "500"}, 204, False)],
)  # fmt: skip
async def test_a_form_says_what_its_answer_shall_be(
    s3: S3, fields: dict[str, str], status: int, has_document: bool
) -> None:
    answer = await send(s3, write_form(signed({"key": "o", **fields})))
    assert (answer.status, bool(answer.body)) == (status, has_document)
    assert answer.headers["location"].endswith("/box/o")


async def test_a_browser_is_sent_on_when_its_form_says_where(s3: S3) -> None:
    fields = signed(
        {"key": "a b", "success_action_redirect": "http://example.org/done", "success_action_status": "201"}
    )
    answer = await send(s3, write_form(fields))
    assert answer.status == 303
    told = quote(HELLO_ETAG)
    assert answer.headers["location"] == f"http://example.org/done?bucket=box&key=a%20b&etag={told}"


async def test_the_host_may_name_the_bucket_of_a_form(s3: S3) -> None:
    answer = await send(s3, write_form(signed({"key": "o"})), "/", "box.objects.example")
    assert (answer.status, answer.headers["location"]) == (204, "http://box.objects.example/o")
    assert (await s3.ask("GET", "/box/o")).body == b"hello"


async def test_a_form_of_nobody_is_decided_by_the_acl_of_the_bucket(s3: S3) -> None:
    assert code_of(await send(s3, write_form({"key": "o"}))) == "AccessDenied"
    await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read-write"})
    assert (await send(s3, write_form({"key": "o", "Content-Type": "a/b", "submit": "x"}))).status == 204
    assert (await s3.ask("HEAD", "/box/o")).headers["content-type"] == "a/b"
    assert code_of(await send(s3, write_form({"key": "o", "tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value/></Tag></TagSet></Tagging>"}))) == "AccessDenied"  # fmt: skip


async def test_a_form_may_only_do_what_its_signer_may(s3: S3) -> None:
    for who, code in (("other", "AccessDenied"), ("plain", "AccessDenied"), ("nobody", "InvalidAccessKeyId")):
        answer = await send(s3, write_form(signed({"key": "o"}, who=who)))
        assert (answer.status, code_of(answer)) == (403, code)


async def test_what_follows_the_file_is_read_past(s3: S3) -> None:
    end = part("submit", "Upload") + part("acl", "public-read") + END
    assert (await send(s3, write_form(signed({"key": "o"}), end=end))).status == 204
    assert (await s3.ask("GET", "/box/o", who="")).status == 403


async def test_a_large_file_streams_into_the_store(s3: S3) -> None:
    body = bytes(range(256)) * 20_000
    assert (
        await send(s3, write_form(signed({"key": "o"}, ["content-length-range", 1, 10**7]), body))
    ).status == 204
    assert (await s3.ask("GET", "/box/o")).body == body


async def test_a_connection_goes_on_after_a_refused_form(s3: S3) -> None:
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    async with s3.serving.client() as client:
        for fields, status in (({"key": ""}, 400), ({"key": "o"}, 403), (signed({"key": "o"}), 204)):
            answer = await s3.ask_on(client, "POST", "/box", write_form(fields), "", head)
            assert answer.status == status


def unsigned_policy(**changes: str) -> dict[str, str]:
    return signed({"key": "o"}) | changes


FORMS: dict[str, tuple[bytes, int, str]] = {
    "no key": (write_form({}), 400, "InvalidArgument"),
    "an empty key": (write_form({"key": ""}), 400, "InvalidArgument"),
    "a key too long": (write_form({"key": "k" * 1025}), 400, "KeyTooLongError"),
    "a key with NUL": (write_form({"key": "a\0b"}), 400, "InvalidURI"),
    "no file": (write_form({"key": "o"}, None), 400, "InvalidArgument"),
    "nothing": (END, 400, "InvalidArgument"),
    "an empty body": (b"", 400, "MalformedPOSTRequest"),
    "another boundary": (b"--other\r\n", 400, "MalformedPOSTRequest"),
    "two files": (write_form({"key": "o"}, end=part("file", b"x", "y") + END), 400, "IncorrectNumberOfFilesInPostRequest"),
    "no end": (write_form({"key": "o"}, end=b""), 400, "MalformedPOSTRequest"),
    "a field twice": (part("key", "o") + write_form({"key": "o"}), 400, "InvalidArgument"),
    "fields that are too much": (write_form({"key": "o", "x-amz-meta-a": "v" * FIELDS_BYTES_MAX}), 400, "MaxPostPreDataLengthExceededError"),
    "too many fields": (write_form({"key": "o", **{f"x-ignore-{number}": "" for number in range(500)}}), 400, "MaxPostPreDataLengthExceededError"),
    "a header of a part that is too long": (part("x" * 9000, "") + END, 400, "MaxPostPreDataLengthExceededError"),
    "a field that is no text": (part("key", b"\xff") + END, 400, "InvalidArgument"),
    "another bucket": (write_form({"key": "o", "bucket": "other"}), 400, "InvalidArgument"),
    "a header of two lines": (write_form({"key": "o", "Content-Type": "a\r\nb"}), 400, "InvalidArgument"),
    "a header that is none": (write_form({"key": "o", "x-amz-meta-a b": "x"}), 400, "InvalidArgument"),
    "too much metadata": (write_form({"key": "o", "x-amz-meta-a": "v" * 3000}), 400, "MetadataTooLarge"),
    "a storage class": (write_form({"key": "o", "x-amz-storage-class": "GLACIER"}), 400, "InvalidStorageClass"),
    "encryption": (write_form({"key": "o", "x-amz-server-side-encryption": "AES256"}), 501, "NotImplemented"),
    "a redirect of a website": (write_form({"key": "o", "x-amz-website-redirect-location": "/x"}), 501, "NotImplemented"),
    "an ACL that is none": (write_form({"key": "o", "acl": "nonsense"}), 400, "InvalidArgument"),
    "tags that are none": (write_form({"key": "o", "tagging": "<Nonsense/>"}), 400, "MalformedXML"),
    "a wrong checksum": (write_form({"key": "o", "x-amz-checksum-crc32": "AAAAAA=="}), 400, "BadDigest"),
    "a wrong digest": (write_form({"key": "o", "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}), 400, "BadDigest"),
    "an unknown algorithm": (write_form({"key": "o", "x-amz-checksum-algorithm": "MD4"}), 400, "InvalidArgument"),
    "a policy that nobody signed": (write_form({"key": "o", "policy": "e30="}), 400, "InvalidArgument"),
    "a signature of nothing": (write_form({"key": "o", "x-amz-signature": "0" * 64}), 400, "InvalidArgument"),
    "both versions": (write_form(unsigned_policy(signature="x", AWSAccessKeyId="owner")), 400, "InvalidArgument"),
    "a temporary key": (write_form(unsigned_policy(**{"x-amz-security-token": "t"})), 400, "InvalidToken"),
    "another algorithm": (write_form(unsigned_policy(**{"x-amz-algorithm": "AWS4-ECDSA-P256-SHA256"})), 400, "InvalidArgument"),
    "another signature": (write_form(unsigned_policy(**{"x-amz-signature": "0" * 64})), 403, "SignatureDoesNotMatch"),
    "another policy": (write_form(unsigned_policy(policy=encoded(policy_of({"key": "o"})))), 403, "SignatureDoesNotMatch"),
    "another key": (write_form(unsigned_policy(key="other")), 403, "AccessDenied"),
    "a field that the policy has not": (write_form(unsigned_policy(acl="public-read")), 403, "AccessDenied"),
    "an expired policy": (write_form(signed({"key": "o"}, ExpiresIn=-1)), 403, "AccessDenied"),
    "a policy of another bucket": (write_form(signed({"key": "o"}, {"bucket": "other"})), 403, "AccessDenied"),
    "a file too large": (write_form(signed({"key": "o"}, ["content-length-range", 1, 4])), 400, "EntityTooLarge"),
    "a file too small": (write_form(signed({"key": "o"}, ["content-length-range", 6, 9])), 400, "EntityTooSmall"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORMS)
async def test_a_form_that_is_refused_stores_nothing(s3: S3, what: str) -> None:
    body, status, code = FORMS[what]
    if "policy" not in what and "x-amz-signature" not in body.decode("latin-1"):
        await s3.ask("PUT", "/box?acl", headers={"x-amz-acl": "public-read-write"})
    answer = await send(s3, body)
    assert (answer.status, code_of(answer)) == (status, code), answer.body
    assert not [
        name for name in s3.store.object_infos if isinstance(name, ObjectName) and name.container == b"box"
    ]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, 412, "PreconditionFailed"),
        ({"Content-Type": ""}, 412, "PreconditionFailed"),
        ({"Content-Type": "multipart/form-data"}, 400, "MalformedPOSTRequest"),
        ({"Content-Type": f"multipart/form-data; boundary={'b' * 71}"}, 400, "MalformedPOSTRequest"),
        ({"Transfer-Encoding": "chunked"}, 411, "MissingContentLength"),
        ({"x-amz-server-side-encryption": "AES256"}, 501, "NotImplemented"),
    ],
)
async def test_what_is_no_form_is_refused_before_it_is_read(
    s3: S3, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await send(s3, b"0\r\n\r\n", **headers)
    assert (answer.status, code_of(answer)) == (status, code)
    assert code_of(await send(s3, write_form({"key": "o"}), "/no-such-box")) == "NoSuchBucket"
    assert code_of(await send(s3, write_form({"key": "o"}), "/box/o")) == "MethodNotAllowed"


async def test_a_form_that_is_authorized_in_its_head_too_is_refused(s3: S3) -> None:
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = await s3.ask("POST", "/box", write_form({"key": "o"}), "owner", head)
    assert (answer.status, code_of(answer)) == (400, "InvalidArgument")


async def test_a_form_that_is_cut_off_stores_nothing(s3: S3) -> None:
    body = write_form(signed({"key": "o"}), b"x" * 100_000)
    head = f"POST /box HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with s3.serving.client() as client:
        await client.send(head.encode() + body[:-50_000])
        client.writer.write_eof()
        await client.is_ended()
    assert (await s3.ask("GET", "/box/o")).status == 404


async def test_a_cluster_that_takes_version_4_alone_refuses_a_form_of_version_2() -> None:
    store = make_store()
    fields = signed({"key": "o"}, version="s3")
    async with serve(dialect=make_api(store, takes_version_2=False), store=store) as serving:
        s3 = S3(serving, store, "us-east-1")
        await s3.ask("PUT", "/box")
        assert code_of(await send(s3, write_form(fields))) == "InvalidRequest"
        assert (await send(s3, write_form(signed({"key": "o"})))).status == 204
