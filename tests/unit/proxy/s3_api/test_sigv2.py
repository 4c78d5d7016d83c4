"""Version 2: published examples hold, what it covers cannot be changed, and it can be switched off."""

import base64
import hmac
from collections.abc import Callable

import pytest

from proxy.http.dates import parse_date
from proxy.s3_api import sigv2
from proxy.s3_api.claims import read_claim
from proxy.s3_api.signatures import Head, Payload, Proven, Rules, SignatureRefused
from tests.unit.proxy.s3_api.published import ACCESS_KEY, IN_VERSION_2, RULES, SECRET, head

EXAMPLE = IN_VERSION_2["put with metadata"]
EXPIRES = 1_175_139_620


def now_of(signed: Head) -> int:
    seconds = parse_date(signed.header("date") or "")
    assert seconds is not None
    return seconds * 1_000_000


def prove(signed: Head, now_us: int | None = None, secret: str = SECRET) -> Proven:
    claim = read_claim(signed, RULES, now_of(signed) if now_us is None else now_us)
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    return claim.prove(secret)


def code_of(signed: Head, now_us: int | None = None) -> str:
    with pytest.raises(SignatureRefused) as refused:
        prove(signed, now_us)
    return refused.value.code


def presigned(query: str = "", method: str = "GET", expires: str = str(EXPIRES)) -> Head:
    """Sign in the query, as a client would."""
    bare = head(f"/photos/puppy.jpg?{query}", {}, method, bucket="examplebucket")
    text = sigv2.string_to_sign(bare, expires)
    signature = base64.b64encode(hmac.digest(SECRET.encode(), text, "sha1")).decode()
    escaped = signature.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    return bare._replace(
        raw_query=f"{query}&AWSAccessKeyId={ACCESS_KEY}&Expires={expires}&Signature={escaped}"
    )


@pytest.mark.parametrize("signed", IN_VERSION_2.values(), ids=IN_VERSION_2)
def test_a_published_example_is_proven_and_leaves_the_body_open(signed: Head) -> None:
    assert prove(signed) == Proven(Payload.UNSIGNED)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda one: one._replace(method="DELETE"), id="method"),
        pytest.param(lambda one: one._replace(raw_path="/db-backup.dat"), id="path"),
        pytest.param(lambda one: one._replace(raw_query="acl"), id="sub-resource"),
        pytest.param(lambda one: one._replace(raw_query="response-expires=x"), id="override"),
        pytest.param(lambda one: one._replace(bucket="other"), id="bucket"),
        *(
            pytest.param(
                lambda one, name=name: one._replace(
                    headers=tuple((key, "x" if key == name else value) for key, value in one.headers)
                ),
                id=name,
            )
            for name in ("content-type", "content-md5", "x-amz-acl", "x-amz-meta-filechecksum")
        ),
        pytest.param(lambda one: one._replace(headers=(*one.headers, ("x-amz-meta-new", "x"))), id="new"),
    ],
)
def test_what_it_covers_cannot_be_changed(change: Callable[[Head], Head]) -> None:
    assert code_of(change(EXAMPLE)) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("signed", "sent", "is_sound"),
    [("/box", "/box", True), ("/box/", "/box", True), ("/box/", "/box/", True), ("/box", "/box/", False), ("/box/o/", "/box/o", False)],
)  # fmt: skip
def test_a_bucket_may_be_signed_with_a_slash_that_is_not_sent(signed: str, sent: str, is_sound: bool) -> None:
    date = "Tue, 27 Mar 2007 19:36:42 GMT"
    text = sigv2.string_to_sign(head(signed, {"date": date}, "PUT"), date)
    signature = base64.b64encode(hmac.digest(SECRET.encode(), text, "sha1")).decode()
    one = head(sent, {"date": date, "authorization": f"AWS {ACCESS_KEY}:{signature}"}, "PUT")
    if is_sound:
        assert prove(one) == Proven(Payload.UNSIGNED)
    else:
        assert code_of(one) == "SignatureDoesNotMatch"


def test_metadata_in_several_headers_of_one_name_is_signed_as_one() -> None:
    split = tuple(
        pair
        for key, value in EXAMPLE.headers
        for pair in (
            [(key, one) for one in value.split(",")] if key == "x-amz-meta-reviewedby" else [(key, value)]
        )
    )
    assert len(split) == len(EXAMPLE.headers) + 1
    assert prove(EXAMPLE._replace(headers=split))


def test_an_x_amz_date_takes_the_place_of_the_date() -> None:
    bare = head(
        "/a", {"date": "Tue, 27 Mar 2007 21:20:27 +0000", "x-amz-date": "Tue, 27 Mar 2007 21:20:26 +0000"}
    )
    text = sigv2.string_to_sign(bare, "")
    assert text == b"GET\n\n\n\nx-amz-date:Tue, 27 Mar 2007 21:20:26 +0000\n/a"
    signature = base64.b64encode(hmac.digest(SECRET.encode(), text, "sha1")).decode()
    signed = bare._replace(headers=(*bare.headers, ("authorization", f"AWS {ACCESS_KEY}:{signature}")))
    assert prove(signed)
    assert code_of(signed, now_of(signed) + 901_000_000) == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    "query", ["", "acl", "response-content-type=text%2Fplain&versionId=a%2Bb", "x=1&acl"]
)
def test_a_presigned_request_is_good_until_it_expires(query: str) -> None:
    signed = presigned(query)
    assert prove(signed, EXPIRES * 1_000_000 - 1)
    assert code_of(signed, EXPIRES * 1_000_000) == "AccessDenied"
    assert code_of(signed._replace(method="HEAD"), 0) == "SignatureDoesNotMatch"
    later = signed._replace(raw_query=signed.raw_query.replace(str(EXPIRES), str(EXPIRES + 1)))
    assert code_of(later, 0) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("expires", ["", "soon", "-1", "1e9", "9" * 13, "٣"])
def test_a_time_of_expiry_that_is_none_is_refused(expires: str) -> None:
    assert code_of(presigned(expires=expires), 0) == "AccessDenied"


def test_a_parameter_of_the_signature_that_comes_twice_is_refused() -> None:
    signed = presigned()
    assert (
        code_of(signed._replace(raw_query=signed.raw_query + f"&Expires={EXPIRES + 9}"), 0) == "AccessDenied"
    )


@pytest.mark.parametrize("value", ["AWS x", "AWS :x", "AWS x:", "AWS "])
def test_a_malformed_header_is_refused(value: str) -> None:
    signed = head("/a", {"date": "Tue, 27 Mar 2007 21:20:27 +0000", "authorization": value})
    with pytest.raises(SignatureRefused) as refused:
        read_claim(signed, RULES, now_of(signed))
    assert refused.value.code == "InvalidArgument"


@pytest.mark.parametrize("date", [None, "yesterday", ""])
def test_a_request_without_a_time_is_refused(date: str | None) -> None:
    headers = tuple((key, value) for key, value in EXAMPLE.headers if key != "date")
    signed = EXAMPLE._replace(headers=headers if date is None else (*headers, ("date", date)))
    assert code_of(signed, now_of(EXAMPLE)) == "AccessDenied"


@pytest.mark.parametrize("signed", [EXAMPLE, presigned()], ids=["header", "query"])
def test_it_can_be_switched_off(signed: Head) -> None:
    with pytest.raises(SignatureRefused, match="Please use AWS4-HMAC-SHA256"):
        read_claim(signed, Rules("us-east-1", takes_version_2=False), now_of(EXAMPLE))
