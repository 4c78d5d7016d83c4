"""Headers that a presigned request carries in its query: the signers of some SDKs put every `x-amz-*` header there.

Owns which parameters are such headers. Version 4 signs them with the query, version 2 as headers, and Content-Type and
Content-MD5 too; so they are obeyed, or refused, like the headers that they stand for. One that a header contradicts is refused.
"""

from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.request import Request
from proxy.s3_api import sigv4
from proxy.s3_api.errors import invalid_argument
from proxy.s3_api.sigv2 import is_hoisted, is_presigned

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
    """Count the headers in the query of a presigned request among its headers. Raises S3Error, TargetRefused.

    For a request whose signature was proven: one that is signed in a header has not signed what its query would add.
    """
    query = request.target.raw_query
    if not query:
        return
    is_version_2 = is_presigned(query)
    if not is_version_2 and not sigv4.is_presigned(query):
        return
    headers = CIMultiDict(request.headers)
    for parameter, value in request.query.items():
        name = parameter.lower()
        if name in _OF_SIGNATURE or not (is_hoisted(name) if is_version_2 else name.startswith(_LEAD)):
            continue
        text = value.decode("utf-8", "surrogateescape")
        if headers.setdefault(name, text) != text:
            raise invalid_argument("A header says otherwise than the query.", parameter, text)
    request.headers = CIMultiDictProxy(headers)
