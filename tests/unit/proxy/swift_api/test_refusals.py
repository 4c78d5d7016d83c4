"""Every error that a dialect can meet has an answer."""

from collections.abc import Iterator

import pytest

from proxy.http.errors import BodyError, BodyTooLarge, HeadRefused, RequestError
from proxy.store.errors import ConditionFailed, NotThere, Refused, StoreError
from proxy.swift_api.refusals import Refusal, response_to

BASES = {BodyError, HeadRefused, NotThere, Refused}
"""Never raised themselves."""


def kinds(base: type[Exception]) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def make(kind: type[Exception]) -> Exception:
    if kind is ConditionFailed:
        return ConditionFailed(None)
    return BodyTooLarge(1) if kind is BodyTooLarge else kind("why")


@pytest.mark.parametrize(
    "kind", [kind for base in (StoreError, RequestError) for kind in kinds(base) if kind not in BASES]
)
def test_every_error_has_an_answer_that_is_no_500(kind: type[StoreError | RequestError]) -> None:
    error = make(kind)
    assert isinstance(error, StoreError | RequestError)
    response = response_to(error)
    assert 400 <= response.status < 600
    assert response.status != 500
    assert b"why" not in bytes(response.body), "the inside of an error is for the log"
    assert any(name == "Retry-After" for name, _ in response.headers) == (response.status == 503)


def test_a_refusal_is_told_in_its_own_words() -> None:
    response = response_to(Refusal(401, "Sign in.", [("Www-Authenticate", "x")]))
    assert (response.status, bytes(response.body)) == (401, b"Sign in.\n")
    assert ("Www-Authenticate", "x") in response.headers
