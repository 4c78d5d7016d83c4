"""What AWS's own Python client signs, in each of its ways, is proven; and is refused with any other secret."""

import base64
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import (
    HmacV1Auth,
    HmacV1QueryAuth,
    S3SigV4Auth,
    S3SigV4PostAuth,
    S3SigV4QueryAuth,
)
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from proxy.s3_api import sigv4
from proxy.s3_api.claims import read_claim
from proxy.s3_api.signatures import Head, Payload, Rules, SignatureRefused
from tests.unit.proxy.s3_api.published import ACCESS_KEY, RULES, SECRET

CREDENTIALS = Credentials(ACCESS_KEY, SECRET)
SIGNERS: dict[str, Callable[[], Any]] = {
    "version 4, header": lambda: S3SigV4Auth(CREDENTIALS, "s3", "us-east-1"),
    "version 4, query": lambda: S3SigV4QueryAuth(CREDENTIALS, "s3", "us-east-1", expires=60),
    "version 2, header": lambda: HmacV1Auth(CREDENTIALS),
    "version 2, query": lambda: HmacV1QueryAuth(CREDENTIALS, expires=60),
}


def now_us() -> int:
    return time.time_ns() // 1000


def sign(signer: Any, request: AWSRequest) -> Head:
    """Sign a request, and return its head as it arrives."""
    request.context["payload_signing_enabled"] = True
    signer.add_auth(request)
    prepared = request.prepare()
    url = urlsplit(prepared.url)
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in prepared.headers.items()
    }
    headers.setdefault("host", url.netloc)
    return Head(prepared.method, url.path or "/", url.query, tuple(headers.items()))


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@pytest.mark.parametrize("how", SIGNERS)
@given(
    key=NAMES,
    method=st.sampled_from(["GET", "PUT", "DELETE"]),
    metadata=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
        st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True),
        max_size=3,
    ),
    parameters=st.dictionaries(
        st.sampled_from(["prefix", "acl", "uploadId", "response-content-type", "marker"]), NAMES, max_size=3
    ),
    body=st.binary(max_size=20),
)
def test_what_botocore_signs_is_proven(
    how: str, key: str, method: str, metadata: dict[str, str], parameters: dict[str, str], body: bytes
) -> None:
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in parameters.items())
    url = f"http://127.0.0.1:8080/bucket/{quote(key, safe='/~')}" + (f"?{query}" if query else "")
    headers = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
    request = AWSRequest(method, url, headers=headers, data=body if "header" in how else b"")
    head = sign(SIGNERS[how](), request)
    claim = read_claim(head, RULES, now_us())
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    proven = claim.prove(SECRET)
    assert proven.payload is (Payload.SIGNED if how == "version 4, header" else Payload.UNSIGNED)
    with pytest.raises(SignatureRefused):
        claim.prove(SECRET + "x")


def test_a_policy_that_botocore_signs_is_proven() -> None:
    request = AWSRequest("POST", "http://127.0.0.1:8080/bucket")
    fields: dict[str, str] = {}
    request.context["s3-presign-post-fields"] = fields
    request.context["s3-presign-post-policy"] = {"conditions": [{"bucket": "bucket"}]}
    S3SigV4PostAuth(CREDENTIALS, "s3", "us-east-1").add_auth(request)
    credential = sigv4.read_policy_credential(
        fields["x-amz-credential"], fields["x-amz-date"], Rules("us-east-1")
    )
    sigv4.prove_policy(fields["policy"], credential, fields["x-amz-signature"], SECRET)
    other = base64.b64encode(b'{"conditions": []}').decode()
    with pytest.raises(SignatureRefused):
        sigv4.prove_policy(other, credential, fields["x-amz-signature"], SECRET)
