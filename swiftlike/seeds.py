"""The cluster's seed, as far as it may be shown: what tells two of them apart, and binds a secret to one.

Pure. Owns what is derived from the seed but for hashes of paths. A path that was placed under one seed is not found under
another, so whatever was filled, or calls, under another seed must be refused rather than believed.
"""

import hmac
from hashlib import blake2b


def seed_mark(seed: int) -> str:
    """Return eight hexadecimal digits by which seeds are told apart, and from which none can be found out.

    32 bits of a hash: four thousand million seeds share each mark, and no accident hits upon one of them.
    """
    return blake2b(_raw(seed), digest_size=4, person=b"swiftlike seed").hexdigest()


def bound_secret(secret: bytes, seed: int) -> bytes:
    """Return what is proven in place of a cluster's secret, so that who has another seed cannot prove it."""
    return hmac.digest(secret, b"swiftlike rpc under seed" + _raw(seed), "sha256")


def _raw(seed: int) -> bytes:
    return seed.to_bytes(8, "big")
