"""Headers that a presigned request carries in its query: the signers of some SDKs put every `x-amz-*` header there.

Owns which parameters are such headers. They are signed with the query, so they are obeyed, or refused, like the headers that
they stand for; one that a header contradicts is refused.
"""

from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.request import Request
from proxy.s3_api.errors import invalid_argument

_LEAD: Final = "x-amz-"
_OF_SIGNATURE: Final = frozenset(
    f"x-amz-{name}"
    for name in (
        "algorithm",
        "content-sha256",
        "credential",
        "date",
        "expires",
        "security-token",
        "signature",
        "signedheaders",
    )
)


def unhoist(request: Request) -> None:
    """Count the headers in the query of a presigned request among its headers. Raises S3Error, TargetRefused."""
    if "x-amz-signature" not in request.target.raw_query.lower():
        return
    headers = CIMultiDict(request.headers)
    for parameter, value in request.query.items():
        name = parameter.lower()
        if not name.startswith(_LEAD) or name in _OF_SIGNATURE:
            continue
        text = value.decode("utf-8", "surrogateescape")
        if headers.setdefault(name, text) != text:
            raise invalid_argument("A header says otherwise than the query.", parameter, text)
    request.headers = CIMultiDictProxy(headers)
