"""Version 4: published examples hold, and whatever is changed about a signed request is refused, with the code for it."""

import hmac
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.errors import TargetRefused
from proxy.s3_api import sigv4
from proxy.s3_api.claims import read_claim
from proxy.s3_api.signatures import Head, Payload, Proven, Rules, SignatureRefused
from proxy.s3_api.sigv4 import Credential, V4Claim, canonical_request, signing_key, string_to_sign
from tests.unit.proxy.s3_api.published import (
    ACCESS_KEY,
    CHUNKED,
    EMPTY,
    GET_RANGE,
    IN_HEADERS,
    NOW_US,
    PRESIGNED,
    PUT_OBJECT,
    RULES,
    SECRET,
    STAMP,
    TRAILED,
    authorization,
    head,
)

SECOND = 1_000_000
Change = Callable[[Head], Head]


def prove(signed: Head, now_us: int = NOW_US, secret: str = SECRET, rules: Rules = RULES) -> Proven:
    claim = read_claim(signed, rules, now_us)
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    return claim.prove(secret)


def refusal(signed: Head, now_us: int = NOW_US, secret: str = SECRET) -> SignatureRefused:
    with pytest.raises(SignatureRefused) as refused:
        prove(signed, now_us, secret)
    return refused.value


def with_header(name: str, value: str | None) -> Change:
    """Set a header, or take it away."""

    def change(signed: Head) -> Head:
        kept = tuple(pair for pair in signed.headers if pair[0] != name)
        return signed._replace(headers=kept if value is None else (*kept, (name, value)))

    return change


def with_query(old: str, new: str) -> Change:
    def change(signed: Head) -> Head:
        assert old in signed.raw_query
        return signed._replace(raw_query=signed.raw_query.replace(old, new))

    return change


def with_authorization(old: str, new: str) -> Change:
    def change(signed: Head) -> Head:
        value = signed.header("authorization") or ""
        assert old in value
        return with_header("authorization", value.replace(old, new))(signed)

    return change


# --- what is published -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", IN_HEADERS.values(), ids=IN_HEADERS)
def test_a_published_example_is_proven_and_says_what_its_body_must_be(signed: Head) -> None:
    proven = prove(signed)
    assert proven.payload is Payload.SIGNED
    assert proven.sha256 == signed.header("x-amz-content-sha256")


def test_a_published_presigned_example_is_proven_and_leaves_the_body_open() -> None:
    assert prove(PRESIGNED) == Proven(Payload.UNSIGNED)


@pytest.mark.parametrize(
    ("text", "proven"),
    [
        ("UNSIGNED-PAYLOAD", Proven(Payload.UNSIGNED)),
        (EMPTY, Proven(Payload.SIGNED, sha256=EMPTY)),
    ],
)
def test_a_presigned_request_may_say_in_its_query_what_the_body_is(text: str, proven: Proven) -> None:
    unsigned = with_query("X-Amz-Date", f"X-Amz-Content-Sha256={text}&X-Amz-Date")(PRESIGNED)
    canonical = canonical_request(unsigned, ["host"], text)
    to_sign = string_to_sign(STAMP, "20130524/us-east-1/s3/aws4_request", canonical)
    key = signing_key(SECRET, "20130524", "us-east-1")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    at = unsigned.raw_query.index("X-Amz-Signature=")
    signed = unsigned._replace(raw_query=unsigned.raw_query[:at] + f"X-Amz-Signature={signature}")
    assert prove(signed) == proven
    other = signed._replace(raw_query=signed.raw_query.replace(text, "0" * 64))
    assert refusal(other).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("signed", "payload"), [(CHUNKED, Payload.CHUNKS), (TRAILED, Payload.CHUNKS_AND_TRAILER)]
)
def test_a_published_chunked_example_is_proven_and_its_chain_goes_on(signed: Head, payload: Payload) -> None:
    proven = prove(signed)
    assert proven.payload is payload
    assert proven.chain is not None


def test_the_published_canonical_request_is_ours() -> None:
    signed = ["host", "range", "x-amz-content-sha256", "x-amz-date"]
    canonical = canonical_request(GET_RANGE, signed, EMPTY)
    assert canonical.decode() == (
        "GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\nrange:bytes=0-9\n"
        f"x-amz-content-sha256:{EMPTY}\nx-amz-date:{STAMP}\n\n"
        f"host;range;x-amz-content-sha256;x-amz-date\n{EMPTY}"
    )
    assert string_to_sign(STAMP, "20130524/us-east-1/s3/aws4_request", canonical) == (
        "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n"
        "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972"
    )


def test_the_published_signing_key_is_ours() -> None:
    key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1")
    assert len(key) == 32
    by_hand = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    for part in (b"20150830", b"us-east-1", b"s3", b"aws4_request"):
        by_hand = hmac.digest(by_hand, part, "sha256")
    assert key == by_hand


# --- what a canonical request is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a//b/../c/.", "/a//b/../c/.", ""),
        ("/a%2Fb", "/a/b", ""),
        ("/~-_.%7E", "/~-_.~", ""),
        ("/a b+c", "/a%20b%2Bc", ""),
        ("/%e4%bd%a0", "/%E4%BD%A0", ""),
        ("/é", "/%C3%A9", ""),
        ("/a?b", "/a", "b="),
        ("/a?b=&a", "/a", "a=&b="),
        ("/a?b=2&b=1&B=3", "/a", "B=3&b=1&b=2"),
        ("/a?x=a+b%20c%2Bd", "/a", "x=a%20b%20c%2Bd"),
        ("/a?x=a=b", "/a", "x=a%3Db"),
        ("/a?prefix=/x/&&", "/a", "prefix=%2Fx%2F"),
        ("/a?%7e=~", "/a", "~=~"),
        ("/a?X-Amz-Signature=1&b", "/a", "b="),
        ("/a?a-b=1&a=2&a%3D=3", "/a", "a=2&a%3D=3&a-b=1"),
    ],
)
def test_path_and_query_are_canonical_by_what_they_mean(target: str, path: str, query: str) -> None:
    lines = canonical_request(head(target, {}), ["host"], EMPTY).decode().split("\n")
    assert lines[1:3] == [path, query]


def test_header_values_are_trimmed_joined_and_single_spaced() -> None:
    pairs = (("host", "h"), ("x-amz-meta-a", "  b   c\t d "), ("x-amz-meta-a", "é"), ("x-amz-meta-b", ""))
    signed = Head("GET", "/", "", pairs)
    lines = canonical_request(signed, ["host", "x-amz-meta-a", "x-amz-meta-b", "x-gone"], EMPTY).decode()
    assert lines.split("\n")[3:7] == ["host:h", "x-amz-meta-a:b c d,é", "x-amz-meta-b:", "x-gone:"]


def test_a_bad_escape_is_refused_as_such() -> None:
    with pytest.raises(TargetRefused):
        canonical_request(head("/a?x=%zz", {}), ["host"], EMPTY)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda signed: signed._replace(method="PUT"), id="method"),
        pytest.param(lambda signed: signed._replace(raw_path="/test.tx"), id="path"),
        pytest.param(lambda signed: signed._replace(raw_path="//test.txt"), id="slash"),
        pytest.param(lambda signed: signed._replace(raw_query="acl"), id="query"),
        pytest.param(with_header("host", "other.s3.amazonaws.com"), id="host"),
        pytest.param(with_header("range", "bytes=0-99"), id="a signed header"),
        pytest.param(with_header("range", None), id="a signed header gone"),
        pytest.param(with_header("x-amz-content-sha256", "0" * 64), id="body"),
        pytest.param(with_header("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), id="body unsigned"),
        pytest.param(with_header("x-amz-date", "20130524T000001Z"), id="time"),
        pytest.param(with_authorization("Signature=f0", "Signature=f1"), id="signature"),
    ],
)
def test_whatever_is_changed_about_what_is_signed_the_signature_does_not_match(change: Change) -> None:
    refused = refusal(change(GET_RANGE))
    assert refused.code == "SignatureDoesNotMatch"
    assert refused.facts["CanonicalRequest"].startswith(("GET\n", "PUT\n"))
    assert refused.facts["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert refused.facts["AWSAccessKeyId"] == ACCESS_KEY


def test_another_secret_does_not_match_and_is_not_told() -> None:
    refused = refusal(GET_RANGE, secret="another-secret")
    assert refused.code == "SignatureDoesNotMatch"
    assert "another-secret" not in str(refused.facts)


def test_a_header_that_nobody_signed_may_be_added_unless_it_is_amazons() -> None:
    assert prove(with_header("accept", "*/*")(GET_RANGE))
    for name in ("x-amz-acl", "x-amz-meta-a", "x-amz-"):
        for signed in (GET_RANGE, PRESIGNED):
            refused = refusal(with_header(name, "x")(signed))
            assert (refused.code, refused.facts) == ("AccessDenied", {"HeadersNotSigned": name})


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(899, None), (900, None), (901, "RequestTimeTooSkewed"), (-901, "RequestTimeTooSkewed")],
)
def test_a_signature_is_good_a_quarter_of_an_hour_before_and_after(seconds: int, code: str | None) -> None:
    if code is None:
        assert prove(GET_RANGE, NOW_US + seconds * SECOND)
        assert prove(GET_RANGE, NOW_US - seconds * SECOND)
    else:
        assert refusal(GET_RANGE, NOW_US + seconds * SECOND).code == code


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (0, None),
        (86_399, None),
        (-900, None),
        (86_400, "Request has expired"),
        (10**9, "Request has expired"),
        (-901, "Request is not valid yet"),
    ],
)
def test_a_presigned_request_is_good_until_it_expires(seconds: int, message: str | None) -> None:
    if message is None:
        assert prove(PRESIGNED, NOW_US + seconds * SECOND)
    else:
        refused = refusal(PRESIGNED, NOW_US + seconds * SECOND)
        assert (refused.code, str(refused)) == ("AccessDenied", message)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (
            with_authorization("us-east-1", "eu-west-1"),
            "AuthorizationHeaderMalformed",
            "expecting 'us-east-1'",
        ),
        (with_authorization("/s3/", "/ec2/"), "AuthorizationHeaderMalformed", "incorrect service"),
        (with_authorization("aws4_request", "aws5"), "AuthorizationHeaderMalformed", "aws4_request"),
        (with_authorization("20130524", "20130525"), "AuthorizationHeaderMalformed", "credential date"),
        (with_authorization(ACCESS_KEY, ""), "AuthorizationHeaderMalformed", "not <access key>"),
        (with_authorization("/20130524", ""), "AuthorizationHeaderMalformed", "not <access key>"),
        (with_authorization("Signature=f0", "Signature=F0"), "AuthorizationHeaderMalformed", "64 hex"),
        (with_authorization("Signature=f0", "Signature="), "AuthorizationHeaderMalformed", "64 hex"),
        (with_authorization("host;", ""), "AuthorizationHeaderMalformed", "must have host"),
        (with_authorization("host;range", "range;host"), "AuthorizationHeaderMalformed", "in order"),
        (with_authorization("host;", "host;host;"), "AuthorizationHeaderMalformed", "in order"),
        (with_authorization("host;range", "Host;range"), "AuthorizationHeaderMalformed", "lower case"),
        (with_authorization("range;", ";"), "AuthorizationHeaderMalformed", "lower case"),
        (with_authorization("SignedHeaders", "signedheaders"), "AuthorizationHeaderMalformed", "must have"),
        (
            with_authorization(",Signature=", ",Signature=x,Signature="),
            "AuthorizationHeaderMalformed",
            "twice",
        ),
        (with_authorization(",Signature=", ",Signature"), "AuthorizationHeaderMalformed", "no field"),
        (with_authorization("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), "InvalidArgument", "Unsupported"),
        (with_authorization("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "InvalidArgument", "Unsupported"),
        (with_authorization("AWS4-HMAC-SHA256", "Bearer"), "InvalidArgument", "Unsupported"),
        (with_header("x-amz-date", None), "AccessDenied", "valid Date"),
        (with_header("x-amz-date", "yesterday"), "AccessDenied", "valid Date"),
        (with_header("x-amz-date", "20131324T000000Z"), "AccessDenied", "valid Date"),
        (with_header("x-amz-date", "٢٠130524T000000Z"), "AccessDenied", "valid Date"),
        (with_header("x-amz-content-sha256", None), "InvalidRequest", "Missing required header"),
        (with_header("x-amz-content-sha256", "signed"), "InvalidArgument", "must be UNSIGNED-PAYLOAD"),
        (with_header("x-amz-content-sha256", EMPTY.upper()), "InvalidArgument", "must be UNSIGNED-PAYLOAD"),
        (with_header("x-amz-security-token", "x"), "InvalidToken", "token"),
    ],
)
def test_a_claim_in_the_header_that_is_malformed_is_refused_by_its_code(
    change: Change, code: str, words: str
) -> None:
    refused = refusal(change(GET_RANGE))
    assert refused.code == code
    assert words in str(refused)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (with_query("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS5"), None, "only supports"),
        (with_query("X-Amz-Date=2013", "X-Amz-Date=13"), None, "ISO8601"),
        (with_query("X-Amz-Expires=86400", "X-Amz-Expires=0"), None, "from 1 to 604800"),
        (with_query("X-Amz-Expires=86400", "X-Amz-Expires=604801"), None, "from 1 to 604800"),
        (with_query("X-Amz-Expires=86400", "X-Amz-Expires=-1"), None, "should be a number"),
        (with_query("X-Amz-Expires=86400", "X-Amz-Expires=%D9%A3"), None, "should be a number"),
        (with_query("X-Amz-Expires=86400", "x=1"), None, "X-Amz-Expires is missing"),
        (with_query("X-Amz-Expires=86400", "X-Amz-Expires=1&X-Amz-Expires=2"), None, "there twice"),
        (with_query("us-east-1", "mars"), None, "expecting 'us-east-1'"),
        (with_query("SignedHeaders=host", "SignedHeaders=range"), None, "must have host"),
        (with_query("Signature=aeee", "Signature=zzzz"), None, "64 hex"),
        (with_query("Signature=aeee", "Signature=aeef"), "SignatureDoesNotMatch", "does not match"),
        (with_query("Expires=86400", "Expires=86401"), "SignatureDoesNotMatch", "does not match"),
        (with_query("X-Amz-Date", "acl&X-Amz-Date"), "SignatureDoesNotMatch", "does not match"),
        (with_query("X-Amz-Date", "X-Amz-Security-Token=t&X-Amz-Date"), "InvalidToken", "token"),
        (with_header("authorization", "AWS a:b"), "InvalidArgument", "Only one auth mechanism"),
        (
            with_query("X-Amz-Date", f"AWSAccessKeyId={ACCESS_KEY}&Signature=x&X-Amz-Date"),
            "InvalidArgument",
            "Only one",
        ),
    ],
)
def test_a_claim_in_the_query_that_is_malformed_is_refused_by_its_code(
    change: Change, code: str | None, words: str
) -> None:
    refused = refusal(change(PRESIGNED))
    assert refused.code == (code or "AuthorizationQueryParametersError")
    assert words in str(refused)


def test_two_authorizations_are_refused() -> None:
    twice = GET_RANGE._replace(headers=(*GET_RANGE.headers, ("authorization", "AWS a:b")))
    assert refusal(twice).code == "InvalidArgument"


def test_a_request_without_a_claim_is_anonymous() -> None:
    assert read_claim(head("/test.txt?acl&Expires=1&Signature=x", {"date": "x"}), RULES, NOW_US) is None


# --- what clients do ---------------------------------------------------------------------------------------------


def resigned(signed: Head, names: str, secret: str = SECRET, **changes: str) -> Head:
    """Sign a request as a client would, over what it has now."""
    bare = with_header("authorization", None)(signed)
    for name, value in changes.items():
        bare = with_header(name.replace("_", "-"), value)(bare)
    payload = bare.header("x-amz-content-sha256") or ""
    canonical = canonical_request(bare, names.split(";"), payload)
    text = string_to_sign(STAMP, "20130524/us-east-1/s3/aws4_request", canonical)
    key = signing_key(secret, "20130524", "us-east-1")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return with_header("authorization", authorization(names, signature))(bare)


NAMES = "host;range;x-amz-content-sha256;x-amz-date"


def test_a_host_may_have_been_signed_without_its_port() -> None:
    signed = resigned(GET_RANGE, NAMES, host="127.0.0.1")
    for host in ("127.0.0.1", "127.0.0.1:8080"):
        assert prove(with_header("host", host)(signed))
    for host in ("127.0.0.2:8080", "127.0.0.1:x", "127.0.0.1.evil:80"):
        assert refusal(with_header("host", host)(signed)).code == "SignatureDoesNotMatch"
    assert prove(resigned(GET_RANGE, NAMES, host="127.0.0.1:8080"))


def test_spaces_in_the_authorization_header_are_as_clients_like_them() -> None:
    assert prove(with_authorization(",Signed", ", Signed")(GET_RANGE))
    assert prove(with_authorization(",Signature", " ,  Signature")(GET_RANGE))


def test_the_date_header_serves_where_there_is_no_x_amz_date() -> None:
    names = "date;host;range;x-amz-content-sha256"
    signed = resigned(with_header("x-amz-date", None)(GET_RANGE), names, date="Fri, 24 May 2013 00:00:00 GMT")
    assert prove(signed).payload is Payload.SIGNED


def test_how_a_path_was_escaped_on_its_way_does_not_matter() -> None:
    assert prove(PUT_OBJECT._replace(raw_path="/test%24file.text"))
    assert prove(PUT_OBJECT._replace(raw_path="/%74est$file.text"))


@pytest.mark.parametrize("payload", [one for one in Payload if one is not Payload.SIGNED])
def test_every_way_to_send_a_body_is_known_by_its_name(payload: Payload) -> None:
    proven = prove(resigned(GET_RANGE, NAMES, x_amz_content_sha256=payload.value))
    assert proven.payload is payload
    assert (proven.chain is not None) == payload.value.startswith("STREAMING-AWS4")


@given(
    st.binary(min_size=1, max_size=40).filter(lambda name: b"\n" not in name),
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=5), st.text(st.characters(codec="utf-8"), max_size=5)
    ),
)
def test_any_name_and_query_are_canonical_in_one_form(name: bytes, parameters: dict[str, str]) -> None:
    def canonical(path: str, query: list[str]) -> bytes:
        return canonical_request(Head("GET", path, "&".join(query), (("host", "h"),)), ["host"], EMPTY)

    items = [f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in parameters.items()]
    usual = canonical("/b/" + quote(name, safe="/"), items)
    every = canonical("/b/" + "".join(f"%{byte:02x}" for byte in name), items[::-1])
    assert usual == every


# --- POST policies -----------------------------------------------------------------------------------------------


def test_a_policy_is_proven_by_its_text_in_base64() -> None:
    policy = "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoifQ=="
    credential = sigv4.read_policy_credential(
        f"{ACCESS_KEY}/20130524/us-east-1/s3/aws4_request", STAMP, RULES
    )
    assert credential == Credential(ACCESS_KEY, "20130524", "us-east-1")
    key = signing_key(SECRET, "20130524", "us-east-1")
    signature = hmac.digest(key, policy.encode(), "sha256").hex()
    sigv4.prove_policy(policy, credential, signature, SECRET)
    for wrong in (signature[:-1] + "x", "", "é", signature.upper()):
        with pytest.raises(SignatureRefused, match="does not match"):
            sigv4.prove_policy(policy, credential, wrong, SECRET)
    with pytest.raises(SignatureRefused, match="does not match"):
        sigv4.prove_policy(policy + "=", credential, signature, SECRET)


@pytest.mark.parametrize(
    ("credential", "stamp"),
    [
        (f"{ACCESS_KEY}/20130524/us-east-1/s3/aws4_request", "2013-05-24"),
        (f"{ACCESS_KEY}/20130525/us-east-1/s3/aws4_request", STAMP),
        (f"{ACCESS_KEY}/20130524/mars/s3/aws4_request", STAMP),
        ("", STAMP),
    ],
)
def test_a_form_with_a_malformed_credential_is_refused(credential: str, stamp: str) -> None:
    with pytest.raises(SignatureRefused) as refused:
        sigv4.read_policy_credential(credential, stamp, RULES)
    assert refused.value.code == "InvalidArgument"


def test_a_claim_names_its_key_before_any_secret_is_known() -> None:
    claim = read_claim(GET_RANGE, RULES, NOW_US)
    assert isinstance(claim, V4Claim)
    assert claim.access_key == ACCESS_KEY
    assert sha256(b"").hexdigest() == claim.payload_text
