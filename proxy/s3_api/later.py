"""Features that are not there: a request that asks for one is refused by name, and never obeyed by half.

Owns the list of headers. Whoever adds a feature takes its names out of here. Sub-resources are in `probes`.
"""

from typing import Final

from multidict import CIMultiDictProxy

from proxy.s3_api.errors import S3Error, not_implemented

_LEADS: Final = (
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-metadata-table",
)
_NAMES: Final = frozenset(
    {
        "x-amz-website-redirect-location",
        "x-amz-object-ownership",
        "x-amz-write-offset-bytes",
        "x-amz-mfa",
        "x-amz-if-match-last-modified-time",
        "x-amz-if-match-size",
        "x-amz-rename-source",
        "x-amz-object-if-match",
        "x-amz-if-match-initiated-time",
        "x-amz-object-annotation-directive",
    }
)
_FALSE: Final = frozenset({"false", ""})
STANDARD: Final = "STANDARD"


def refuse_later(headers: CIMultiDictProxy[str]) -> None:
    """Refuse what is not there. Raises S3Error."""
    for header, value in headers.items():
        name = header.lower()
        if not name.startswith("x-amz-"):
            continue
        if name == "x-amz-storage-class":
            if value != STANDARD:
                raise S3Error("InvalidStorageClass", facts={"StorageClassRequested": value[:100]})
        elif name == "x-amz-bucket-namespace":
            if value.lower() != "global":
                raise not_implemented(name)
        elif name == "x-amz-bucket-object-lock-enabled":
            if value.lower() not in _FALSE:
                raise not_implemented(name)
        elif name in _NAMES or name.startswith(_LEADS):
            raise not_implemented(name)
