"""Which dialect a request is in, where both are served on one port."""

from typing import Any, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.request import Request
from proxy.http.target import parse_target
from proxy.swift_api.api import speaks_swift

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=x"}


@pytest.mark.parametrize(
    ("target", "headers", "is_swift"),
    [
        pytest.param("/v1/AUTH_a/c", {}, True, id="a path of Swift's"),
        pytest.param("/bucket/key", {}, False, id="any other path"),
        pytest.param("/v1/key", SIGNED, False, id="a bucket that is called so, signed"),
        pytest.param("/info?X-Amz-Signature=0", {}, False, id="presigned, version 4"),
        pytest.param("/info?a=b&AWSAccessKeyId=0", {}, False, id="presigned, version 2"),
        pytest.param("/v1/AUTH_a/c?marker=X-Amz-Signature=", {}, True, id="a name that looks signed"),
        pytest.param("/v1/AUTH_a/c?prefix=X-Amz-Date", {"X-Auth-Token": "t"}, True, id="a prefix that does"),
        pytest.param("/v1/AUTH_a/c?X-Amz-Signature=0", {"X-Auth-Token": "t"}, True, id="a token"),
    ],
)
def test_a_request_is_in_the_dialect_that_its_path_and_its_signature_say(
    target: str, headers: dict[str, str], is_swift: bool
) -> None:
    request = Request(
        "GET",
        parse_target(target),
        CIMultiDictProxy(CIMultiDict(headers)),
        cast(Any, None),
        transaction_id="tx",
    )
    assert speaks_swift(request) is is_swift
