"""Features that are not there yet: a request that asks for one is refused by name, and never stored in silence.

Owns the list. Whoever adds a feature takes its names out of here. `symlink=get` and `versions=true`, which clients send
before they delete, are no features: where there are no symlinks and no versions, the answer is what stands there.
"""

from typing import Final

from proxy.http.request import Request
from proxy.swift_api.refusals import Refusal

_QUERIES: Final = frozenset(
    {
        "multipart-manifest",
        "extract-archive",
        "bulk-delete",
        "temp_url_sig",
        "temp_url_expires",
        "temp_url_prefix",
        "temp_url_ip_range",
        "version-id",
    }
)
_HEADERS: Final = (
    "X-Object-Manifest",
    "X-Static-Large-Object",
    "X-Symlink-Target",
    "X-Symlink-Target-Account",
    "X-Versions-Enabled",
    "X-Versions-Location",
    "X-History-Location",
    "X-Container-Sync-To",
    "X-Container-Sync-Key",
    "X-Account-Access-Control",
)
_FORM: Final = "multipart/form-data"
_METADATA: Final = {
    "Account": frozenset({"temp-url-key", "temp-url-key-2", "quota-bytes"}),
    "Container": frozenset(
        {
            *("temp-url-key", "temp-url-key-2", "quota-bytes", "quota-count"),
            *("access-control-allow-origin", "access-control-max-age", "access-control-expose-headers"),
            *("web-index", "web-error", "web-listings", "web-listings-css", "web-listings-label"),
            "web-directory-type",
        }
    ),
    "Object": frozenset[str](),
}
"""Metadata that would do something: a key, a quota, CORS, a web site."""


def refuse_later(request: Request) -> None:
    """Refuse what is not there yet. Raises Refusal."""
    if request.target.raw_query:
        for name in request.query:
            if name.lower() in _QUERIES:
                raise Refusal(
                    501, f"This cluster does not have the feature behind the parameter {name.lower()}."
                )
    if request.reads or request.method in ("DELETE", "OPTIONS"):
        return
    headers = request.headers
    for name in _HEADERS:
        if name in headers:
            raise Refusal(501, f"This cluster does not have the feature behind the header {name}.")
    if request.method == "POST" and _is_form(headers.get("Content-Type", "")):
        # Taken for a description, it would replace the one that an object has.
        raise Refusal(501, "This cluster does not have form posts: store each file by a PUT of its own.")


def _is_form(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == _FORM


def refuse_metadata(kind: str, name: str) -> None:
    """Refuse an item of metadata that asks for what is not there. Raises Refusal."""
    if name in _METADATA[kind]:
        raise Refusal(501, f"This cluster does not have the feature behind X-{kind}-Meta-{name.title()}.")
