"""Sub-resources that are not there: what a bucket without that configuration answers, which is what clients probe for.

Owns the table of them, so that none is ever taken for a listing or for the object itself. What would configure something is
refused; what would delete a configuration finds it deleted.
"""

from collections.abc import Mapping
from typing import Final

from proxy.auth.decisions import Action
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.errors import S3Error, not_implemented
from proxy.s3_api.xml import XML_TYPE, Element, write_document

_EMPTY: Final[Mapping[str, tuple[str, tuple[Element, ...]]]] = {
    "versioning": ("VersioningConfiguration", ()),
    "logging": ("BucketLoggingStatus", ()),
    "notification": ("NotificationConfiguration", ()),
    "accelerate": ("AccelerateConfiguration", ()),
    "requestPayment": ("RequestPaymentConfiguration", (Element("Payer", "BucketOwner"),)),
}
"""What answers with an empty configuration."""

_MISSING: Final[Mapping[str, str]] = {
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "ownershipControls": "OwnershipControlsNotFoundError",
    "policy": "NoSuchBucketPolicy",
    "policyStatus": "NoSuchBucketPolicy",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
    "replication": "ReplicationConfigurationNotFoundError",
    "tagging": "NoSuchTagSet",
    "website": "NoSuchWebsiteConfiguration",
}
"""What answers that it is missing."""

_LISTED: Final[Mapping[str, str]] = {
    "analytics": "ListBucketAnalyticsConfigurationResult",
    "intelligent-tiering": "ListBucketIntelligentTieringConfigurationsOutput",
    "inventory": "ListInventoryConfigurationsResult",
    "metrics": "ListMetricsConfigurationsResult",
}
"""What is a list of configurations, or one of them by `id`."""

_REFUSED: Final = frozenset(
    {
        "abac",
        "metadataAnnotationTable",
        "metadataConfiguration",
        "metadataInventoryTable",
        "metadataJournalTable",
        "metadataTable",
        "session",
    }
)

_DELETABLE: Final = frozenset(_MISSING) - {"object-lock", "policyStatus"}

BUCKET_PROBES: Final = frozenset({*_EMPTY, *_MISSING, *_LISTED, *_REFUSED})

OBJECT_PROBES: Final = frozenset(
    {
        "annotation",
        "encryption",
        "legal-hold",
        "renameObject",
        "restore",
        "retention",
        "select",
        "torrent",
    }
)


async def probe_bucket(ask: Ask, name: str) -> Response:
    """Answer what is asked of a sub-resource of a bucket."""
    method = ask.request.method
    if name in _REFUSED or method not in ("GET", "DELETE"):
        raise not_implemented(name)
    bucket = await ask.bucket()
    ask.require(Action.DESCRIBE_CONTAINER, bucket)
    if method == "DELETE":
        if name in _DELETABLE:
            return Response(204)
        if name in _LISTED:
            raise S3Error("NoSuchConfiguration")
        raise S3Error("MethodNotAllowed")
    if name in _MISSING:
        raise S3Error(_MISSING[name], facts={"BucketName": bucket.name.container.decode()})
    if name in _LISTED:
        if "id" in ask.request.query:
            raise S3Error("NoSuchConfiguration")
        return _document(_LISTED[name], (Element("IsTruncated", "false"),))
    return _document(*_EMPTY[name])


async def probe_object(ask: Ask, name: str) -> Response:
    """Answer what is asked of a sub-resource of an object."""
    method = ask.request.method
    if (method, name) not in _OBJECT_ANSWERS:
        raise not_implemented(name)
    bucket = await ask.bucket()
    await ask.find_object(ask.object_in(bucket), bucket, inline_bytes=0)
    raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


_OBJECT_ANSWERS: Final = frozenset({("GET", "retention"), ("GET", "legal-hold")})


def _document(root: str, elements: tuple[Element, ...]) -> Response:
    return Response(200, [("Content-Type", XML_TYPE)], write_document(root, elements))
