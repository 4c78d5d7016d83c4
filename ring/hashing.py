"""Names to hashes to partitions.

The hash only places and compares; whole paths identify, so a crafted collision harms nobody.
"""

from typing import Final

import xxhash

from ring.device import Partition

HASH_BITS: Final = 128
PART_POWER_MAX: Final = 32

path_hash = xxhash.xxh3_128_intdigest
"""`path_hash(path: bytes, seed: int) -> int`: the 128-bit hash of a whole path under the cluster's 64-bit secret seed.

The library's own function, not a wrapper: a look-up is a million times a second or it is in the way.
"""


def partition_of_hash(hashed: int, part_power: int) -> Partition:
    """Return the partition of a path hash: its top `part_power` bits."""
    return Partition(hashed >> (HASH_BITS - part_power))
