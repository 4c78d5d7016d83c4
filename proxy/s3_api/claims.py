"""Claims: by which of the signatures a request says who it is from, if by any.

Owns the choice. A request that claims in two ways is refused: which of them counts must not depend on who reads it.
"""

from typing import Final

from proxy.s3_api import sigv2, sigv4
from proxy.s3_api.signatures import Claim, Head, Rules, SignatureRefused, parameters_of

_TOKEN: Final = "x-amz-security-token"  # noqa: S105 (a header's name)


def read_claim(head: Head, rules: Rules, now_us: int) -> Claim | None:
    """Return the claim of a request; None when it is anonymous. Raises SignatureRefused, TargetRefused."""
    authorizations = head.values("authorization")
    is_v4_query, is_v2_query = sigv4.is_presigned(head.raw_query), sigv2.is_presigned(head.raw_query)
    if len(authorizations) + is_v4_query + is_v2_query > 1:
        raise SignatureRefused(
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or "
            "the Authorization header should be specified",
        )
    if not authorizations and not is_v4_query and not is_v2_query:
        return None
    if head.header(_TOKEN) or any(
        name.lower() == _TOKEN.encode() for name, _ in parameters_of(head.raw_query)
    ):
        # It would say that the key is a temporary one with fewer rights, which no key of ours is.
        raise SignatureRefused("InvalidToken", "The provided token is malformed or otherwise invalid.")
    if is_v4_query:
        return sigv4.read_query(head, rules, now_us)
    if is_v2_query:
        require_version_2(rules)
        return sigv2.read_query(head, now_us)
    authorization = authorizations[0]
    if authorization.startswith(sigv4.ALGORITHM + " "):
        return sigv4.read_header(head, authorization, rules, now_us)
    if authorization.startswith(sigv2.SCHEME):
        require_version_2(rules)
        return sigv2.read_header(head, authorization, now_us)
    raise SignatureRefused("InvalidArgument", "Unsupported Authorization Type")


def require_version_2(rules: Rules) -> None:
    """Refuse the older version where this cluster does not take it. Raises SignatureRefused."""
    if not rules.takes_version_2:
        raise SignatureRefused(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )
