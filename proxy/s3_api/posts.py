"""POST Object: an upload by a browser's form.

Owns what the fields mean and the answer. A form is authorized by the policy that it carries, which is signed in either version;
without one it is anonymous, and decided by ACL. Everything that can be refused without the file is refused before it is read.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.auth.decisions import Action
from proxy.auth.identities import ANONYMOUS, Identity
from proxy.http.response import Headers, Response
from proxy.s3_api import sigv2, sigv4
from proxy.s3_api.access import Asker, find_signer
from proxy.s3_api.asks import Ask
from proxy.s3_api.checksums import UNASKED, Summing, read_algorithm, read_promise
from proxy.s3_api.claims import require_version_2
from proxy.s3_api.descriptions import checksum_headers, describe_new, quoted
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.s3_api.forms import Form, read_boundary, with_file_name
from proxy.s3_api.later import refuse_later
from proxy.s3_api.post_policies import Policy, read_policy
from proxy.s3_api.resources import Resource, bucket_of_host, check_key
from proxy.s3_api.tags import ATTRIBUTE as TAGS
from proxy.s3_api.tags import TAGGING, read_document, write_tags
from proxy.s3_api.uploads import check_md5, check_promise, promised_md5
from proxy.s3_api.xml import XML_TYPE, Element, XmlRefused, write_document
from proxy.s3_api.xml import read_document as read_xml
from proxy.store.values import Attributes, Description, ObjectInfo, Received
from swiftlike.limits import BODY_BYTES_MAX
from swiftlike.rpc.transport import Body

_FORM_BYTES_MAX: Final = 64 * 1024
"""Of a form beside its file."""
ANY_SIZE: Final = Policy(0, ())
_V4_FIELDS: Final = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")
_V2_FIELDS: Final = ("awsaccesskeyid", "signature")
_NOT_FILLED_IN: Final = frozenset({"policy", *_V4_FIELDS, *_V2_FIELDS})
"""In these, `${filename}` is what it is."""
_DESCRIBING: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-md5",
        "content-type",
        "expires",
    }
)
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_STATUSES: Final = frozenset({"200", "201"})


async def post(ask: Ask) -> Response:
    """POST of a bucket: a form."""
    boundary = read_boundary(ask.headers.get("Content-Type"))
    bucket = await ask.bucket()
    if ask.asker.proven is not None:
        raise invalid_argument("A form is authorized by its policy alone.", "Authorization", "")
    body = ask.request.body
    if body.size is None:
        raise S3Error("MissingContentLength")
    async with aclosing(Form(body.chunks(BODY_BYTES_MAX + _FORM_BYTES_MAX), boundary)) as form:
        raw = await form.read_fields()
        identity, policy = await _authorize(ask, raw)
        fields = {
            **with_file_name(raw, form.file_name, _NOT_FILLED_IN),
            "bucket": ask.resource.bucket.decode(),
        }
        if raw.get("bucket", fields["bucket"]) != fields["bucket"]:
            raise invalid_argument("The form names another bucket than its address.", "bucket", raw["bucket"])
        if policy is not None:
            policy.check(fields, ask.around.now_us())
        asker, resource = Asker(identity, None), Resource(ask.resource.bucket, _key(fields))
        ask = replace(ask, asker=asker, resource=resource)
        ask.require(Action.WRITE_OBJECT, bucket)
        headers = headers_of(fields)
        refuse_later(headers)
        attributes = describe_new(headers) | _read_tags(fields.get("tagging", ""))
        if TAGS in attributes:
            ask.require(TAGGING, bucket)
        upload = FormUpload(form, headers, attributes, policy)
        info = await ask.around.store.objects.put(ask.object_in(bucket), upload, deadline=ask.deadline)
    return _answer(ask, fields, info)


async def _authorize(ask: Ask, fields: Mapping[str, str]) -> tuple[Identity, Policy | None]:
    """Return who signed the form, and what for; nobody in particular signed one without a policy. Raises S3Error."""
    is_v4 = any(name in fields for name in _V4_FIELDS)
    is_v2 = any(name in fields for name in _V2_FIELDS)
    if "policy" not in fields and not is_v4 and not is_v2:
        return ANONYMOUS, None
    if is_v4 and is_v2:
        raise invalid_argument("Only one auth mechanism allowed", "x-amz-algorithm", "")
    if "x-amz-security-token" in fields:
        raise S3Error("InvalidToken")
    for name in ("policy", *(_V2_FIELDS if is_v2 else _V4_FIELDS)):
        if name not in fields:
            raise invalid_argument(f"Bucket POST must contain a field named '{name}'.", name, "")
    policy, rules = fields["policy"], ask.around.rules
    if is_v2:
        require_version_2(rules)
        user, secret = await find_signer(ask.around.users, fields["awsaccesskeyid"], ask.deadline)
        sigv2.prove_policy(policy, fields["awsaccesskeyid"], fields["signature"], secret)
    else:
        if fields["x-amz-algorithm"] != sigv4.ALGORITHM:
            raise invalid_argument(
                f"X-Amz-Algorithm only supports {sigv4.ALGORITHM}",
                "x-amz-algorithm",
                fields["x-amz-algorithm"],
            )
        credential = sigv4.read_policy_credential(fields["x-amz-credential"], fields["x-amz-date"], rules)
        user, secret = await find_signer(ask.around.users, credential.access_key, ask.deadline)
        sigv4.prove_policy(policy, credential, fields["x-amz-signature"], secret)
    ask.request.who = user.identity.name
    return user.identity, read_policy(policy)


def _key(fields: Mapping[str, str]) -> bytes:
    if "key" not in fields:
        raise invalid_argument(
            "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.",
            "key",
            "",
        )
    if not fields["key"]:
        raise invalid_argument("User key must have a length greater than 0.", "key", "")
    return check_key(fields["key"].encode())


def headers_of(fields: Mapping[str, str]) -> CIMultiDictProxy[str]:
    """Return the fields that say what the headers of a PUT say, as such headers. Raises S3Error."""
    found = CIMultiDict[str]()
    for name, value in fields.items():
        header = "x-amz-acl" if name == "acl" else name
        if header not in _DESCRIBING and not header.startswith("x-amz-"):
            continue
        if not _HEADER_NAME.fullmatch(header):
            raise invalid_argument("The name of a field must be that of a header.", name, value)
        if any(character < " " or character == "\x7f" for character in value):
            raise invalid_argument("The value of a field that becomes a header has one line.", name, value)
        if header not in _V4_FIELDS:
            found[header] = value.strip()
    return CIMultiDictProxy(found)


def _read_tags(text: str) -> dict[str, str]:
    """Return the tags of a field, a Tagging document, as an attribute. Raises S3Error."""
    if not text:
        return {}
    try:
        written = write_tags(read_document(read_xml(text.encode(), "Tagging")))
    except XmlRefused as refused:
        raise S3Error("MalformedXML", f"The XML you provided is not taken: {refused}") from None
    return {TAGS: written} if written else {}


class FormUpload:
    """The file of a form, held against what was promised of it and what the policy says of its size."""

    __slots__ = ("_attributes", "_form", "_md5", "_policy", "_promise", "_size", "_summing", "size")

    def __init__(
        self, form: Form, headers: Mapping[str, str], attributes: Attributes, policy: Policy | None
    ) -> None:
        """Take the form, and what its fields say of the file. Raises S3Error."""
        self.size: int | None = None
        self._form = form
        self._attributes = attributes
        self._policy = policy or ANY_SIZE
        self._size = 0
        self._md5 = promised_md5(headers)
        self._promise = read_promise(headers, ())
        named = headers.get("x-amz-checksum-algorithm")
        algorithm = UNASKED if named is None else read_algorithm("x-amz-checksum-algorithm", named)
        self._summing = Summing(algorithm if self._promise is None else self._promise.algorithm)

    async def chunks(self) -> AsyncIterator[Body]:
        """Yield the file, no more of it than may be. Raises S3Error, BodyError."""
        async for chunk in self._form.chunks():
            self._size += len(chunk)
            self._policy.check_most(self._size)
            self._summing.update(chunk)
            yield chunk

    def finish(self, received: Received) -> Description:
        """Describe it, once it is what was promised. Raises S3Error."""
        self._policy.check_least(received.size)
        check_md5(self._md5, received.md5)
        check_promise(self._promise, self._summing, {})
        summing = self._summing
        return Description(
            {**self._attributes, "etag": received.md5, summing.algorithm.attribute: summing.text()}
        )


# --- the answer -----------------------------------------------------------------------------------------------------


def _answer(ask: Ask, fields: Mapping[str, str], info: ObjectInfo) -> Response:
    """Answer as the form wants it: with a redirection, with a document, or with nothing."""
    location = _location(ask)
    headers: Headers = [("ETag", quoted(info.etag)), *checksum_headers(info.attributes)]
    target = redirection(
        fields.get("success_action_redirect") or fields.get("redirect", ""),
        fields["bucket"],
        fields["key"],
        info.etag,
    )
    if target:
        return Response(303, [*headers, ("Location", target)])
    headers.append(("Location", location))
    status = fields.get("success_action_status", "")
    if status not in _STATUSES:
        return Response(204, headers)
    if status == "200":
        return Response(200, headers)
    elements = [
        Element("Location", location),
        Element("Bucket", fields["bucket"]),
        Element("Key", fields["key"]),
        Element("ETag", quoted(info.etag)),
    ]
    document = write_document("PostResponse", elements, namespace="")
    return Response(201, [*headers, ("Content-Type", XML_TYPE)], document)


def _location(ask: Ask) -> str:
    """Return the URL of what was stored, in the style in which it was asked for."""
    host = ask.headers.get("Host", "")
    bucket = "" if bucket_of_host(host, ask.around.domain) else f"/{ask.resource.bucket.decode()}"
    return f"{ask.request.scheme}://{host}{bucket}/{quote(ask.resource.key, safe='')}"


def redirection(url: str, bucket: str, key: str, etag: str) -> str:
    """Return where a browser is sent on, with what was stored in the query; empty for what is no URL, as if not asked for."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or not url.isprintable()
        or not url.isascii()
    ):
        return ""
    query = urlencode({"bucket": bucket, "key": key, "etag": quoted(etag)}, quote_via=quote)
    return urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query))
