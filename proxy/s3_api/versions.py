"""Versions in a bucket that has none: each object is one, whose name is null."""

from typing import Final

from proxy.http.request import Request
from proxy.s3_api.asks import Ask
from proxy.s3_api.errors import S3Error, invalid_argument

NULL_VERSION: Final = "null"


def check_version(ask: Ask) -> None:
    """Refuse a version that is not there. Raises S3Error."""
    version = ask.text("versionId", NULL_VERSION)
    if version != NULL_VERSION:
        if not version:
            raise invalid_argument("Version id cannot be the empty string", "versionId", version)
        raise S3Error("NoSuchVersion", facts={"VersionId": version[:100]})


def check_no_version(request: Request) -> None:
    """Refuse a version where an operation has none: it would be ignored. Raises S3Error."""
    if "versionId" in request.target.raw_query and "versionId" in request.query:
        value = request.query["versionId"].decode("utf-8", "replace")
        raise invalid_argument("This operation does not accept a version-id.", "versionId", value)
