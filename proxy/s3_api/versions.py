"""Versions in a bucket that has none: each object is one, whose name is null."""

from typing import Final

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
