"""Differing: what one owner of a partition lacks of what another one holds, from their digests and versions.

Pure. Owns how finely a partition is cut for comparison, which keys are taken, and which partition is healed first. Never asks,
never copies.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ring.device import DeviceId
from swiftlike.node_calls import HeldVersion

RANGE_ENTRIES: Final = 16
"""Entries of one range of path hashes, about: two devices exchange the versions of a range that differs."""
RANGE_ENTRIES_MAX: Final = 128
"""The same where more than a quarter is missing, so that most of it has to travel whatever the ranges are."""
RANGES_BITS_MAX: Final = 13
"""Ranges of one partition, as a power: their digests fit one answer."""
BITS_MAX: Final = 24
"""Beyond the buckets of an index a digest is a count of entries, and no cheaper than they are."""
ROWS_BETWEEN: Final = 64
"""Rows of one span of a listing, about."""


class Different(NamedTuple):
    """What a comparison of versions came to."""

    taken: tuple[HeldVersion, ...]
    """What the other one holds, and is newer than what is held here, or whole where this one's body is missing: of the same write, under
    whatever ballot, since a write whose body few hold may be carried through without it."""
    known: frozenset[bytes]
    """The paths of those of which something is held here."""
    is_more_here: bool
    """Something here is newer than what the other owner holds, or whole where its body is missing."""


def cut_bits(part_power: int, here: int, there: int) -> int:
    """Return by how many leading bits of the path hash a partition of so many entries here and there is cut into ranges."""
    fewer, entries = sorted((here, there))
    finer = (entries // (RANGE_ENTRIES if 4 * fewer > 3 * entries else RANGE_ENTRIES_MAX)).bit_length()
    return max(part_power, min(part_power + min(finer, RANGES_BITS_MAX), BITS_MAX))


def compare(here: Iterable[HeldVersion], there: Iterable[HeldVersion]) -> Different:
    """Compare what two owners hold of the same keys; order and promises do not matter."""
    mine = {held.path: held for held in here}
    taken: list[HeldVersion] = []
    known: set[bytes] = set()
    is_more_here = False
    for held in there:
        own = mine.pop(held.path, None)
        if own is None:
            if held.version is not None:
                taken.append(held)
            continue
        is_one = _is_one_write(held, own)
        if held.ballot > own.ballot or (held.whole and not own.whole and is_one):
            taken.append(held)
            known.add(held.path)
        is_more_here |= own.ballot > held.ballot or (own.whole and not held.whole and is_one)
    is_more_here = is_more_here or any(own.version is not None for own in mine.values())
    return Different(tuple(taken), frozenset(known), is_more_here)


def _is_one_write(one: HeldVersion, other: HeldVersion) -> bool:
    return (
        one.version is not None
        and other.version is not None
        and one.version.write_id == other.version.write_id
    )


def covers(there: HeldVersion, here: HeldVersion) -> bool:
    """Say whether another owner holds this, or something newer that it can show; a lone promise needs no cover."""
    if here.version is None:
        return True
    return there.version is not None and there.ballot >= here.ballot and there.whole


def rules_out(there: HeldVersion, here: HeldVersion) -> bool:
    """Say whether another owner has promised never to take this, and has not taken it."""
    return here.version is not None and there.promised > here.ballot > there.ballot


def endangered_first(
    differing: Mapping[tuple[bytes, int], Iterable[DeviceId]],
    owners: Mapping[tuple[bytes, int], int],
    silent: Mapping[tuple[bytes, int], int],
) -> list[tuple[bytes, int]]:
    """Order partitions by how few owners hold the same as this one and answer: those with the fewest sound copies first."""

    def sound(partition: tuple[bytes, int]) -> int:
        differ = len(set(differing[partition]))
        return owners.get(partition, 0) - silent.get(partition, 0) - differ

    return sorted(differing, key=lambda partition: (sound(partition), partition))


def just_before(name: bytes) -> bytes:
    """Return a marker behind which the first possible name is this one; no UTF-8 holds a byte 0xff."""
    if not name:
        return b""
    if name[-1] == 0:
        return name[:-1]
    return name[:-1] + bytes((name[-1] - 1, 0xFF))
