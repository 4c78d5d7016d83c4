"""Copies: how many sound copies each degraded partition has, by what all devices say together.

Pure. Owns how what one owner cannot know is made up for by what the others say. Never judges what is well.

Several owners tell of one partition, and some know less than others: who is behind sees all others differ, so of those that vote the
most that one can vouch for counts. Who does not vote tells of little more than its own vote, so each of two such owners takes the
other's copy for sound. Therefore whatever is told is held against who does not vote, who does not answer, and who is
not the device that the ring means: an owner of that kind has no sound copy.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from ring.device import DeviceId
from ring.ring import Ring
from storage_node.sharing import owners_of
from swiftlike.node_calls import CaughtUp
from tools.members import Member, Silence
from tools.recon.seeing import Seen

Place = tuple[bytes, int]
"""A table of registers and a partition."""


def sound_copies(
    rings: Mapping[bytes, Ring], answers: Sequence[tuple[Member, Seen | Silence]]
) -> dict[str, Counter[int]]:
    """Count partitions with fewer sound copies than owners, by the name of the ring and by number of sound copies."""
    absent = {table: _absent(ring, answers) for table, ring in rings.items()}
    waiting: dict[Place, set[DeviceId]] = {}
    told: dict[Place, list[tuple[DeviceId | None, int]]] = {}
    for member, seen in answers:
        if isinstance(seen, Silence):
            continue
        for table, ring in rings.items():
            if (device := member.known_as.get(ring.name)) is not None:
                for partition in _waiting(ring, device.id, (seen.caught_up or {}).get(ring.name)):
                    waiting.setdefault((table, partition), set()).add(device.id)
        for each in seen.degraded:
            if (at := rings.get(each.table)) is not None and each.partition < at.partition_count:
                known = member.known_as.get(at.name)
                sayer = None if known is None else known.id
                told.setdefault((each.table, each.partition), []).append((sayer, each.sound))
    counts: dict[str, Counter[int]] = {}
    for place in told.keys() | waiting.keys():
        table, partition = place
        owners = set(owners_of(rings[table], partition)[0])
        without_vote = waiting.get(place, set()) & owners
        if place not in told and not without_vote:
            continue  # whoever waits is a new owner: until a move is settled, the previous ones hold it
        said = told.get(place, [])
        vouched = [sound for sayer, sound in said if sayer not in without_vote] or [
            sound for _, sound in said
        ]
        possible = len(owners - without_vote - absent[table])
        counts.setdefault(rings[table].name, Counter())[min(possible, max(vouched, default=possible))] += 1
    return counts


def _absent(ring: Ring, answers: Sequence[tuple[Member, Seen | Silence]]) -> set[DeviceId]:
    """Return the devices of a ring that do not answer, or in whose place another one does."""
    return {
        device.id
        for member, seen in answers
        if (device := member.known_as.get(ring.name)) is not None
        and (isinstance(seen, Silence) or seen.health.get("uuid") != str(device.uuid))
    }


def _waiting(ring: Ring, device: DeviceId, told: CaughtUp | Silence | None) -> Sequence[int]:
    """Return the partitions of a ring on which a device does not vote.

    It names the first ones only; of the others that it owns, none is known to be voted on.
    """
    if not isinstance(told, CaughtUp):
        return ()
    waiting = tuple(partition for partition in told.waiting if partition < ring.partition_count)
    if not waiting or told.owned - told.votes <= len(told.waiting):
        return waiting
    behind = range(waiting[-1] + 1, ring.partition_count)
    return (*waiting, *(partition for partition in behind if device in owners_of(ring, partition)[0]))
