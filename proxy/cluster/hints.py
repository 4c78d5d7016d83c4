"""Hints: an owner that missed a write, or was found behind by a read, is compared with the others soon, not at their next pass.

Owns who is told, and that the same is not told again and again: a device that is down misses thousands of writes, of which one
hint for each partition is enough. Never waits for an answer; what is lost, the owners' passes find.
"""

from collections import OrderedDict
from typing import Final

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Placement
from proxy.cluster.rounds import Stragglers
from ring.device import Device
from ring.hashing import partition_of_hash, path_hash
from swiftlike.node_client import NodeFailed

TELL_S: Final = 5.0
"""For one hint to be told."""
AGAIN_S: Final = 10.0
"""Before the same is told again."""
REMEMBERED_MAX: Final = 20_000


class Hints:
    """The hints of one process."""

    def __init__(self, nodes: Nodes, stragglers: Stragglers, *, is_on: bool) -> None:
        """Take the way to the devices, and who owns calls that nobody waits for; off, it tells nothing."""
        self._nodes: Final = nodes
        self._stragglers: Final = stragglers
        self.is_on = is_on
        self._told: OrderedDict[tuple[bytes, int, int | None], float] = OrderedDict()
        self.told = 0

    def leave(self, placement: Placement, holder: Device, lacking: Device | None) -> None:
        """Have an owner that holds something compare its partition with one that lacks it; None: with all others."""
        if not self.is_on:
            return
        ring, key = placement.ring, placement.key
        partition = partition_of_hash(path_hash(key.path, ring.hash_seed), ring.part_power)
        place = (key.table, int(partition), None if lacking is None else int(lacking.id))
        now = self._nodes.now()
        if self._told.get(place, 0.0) > now:
            return
        self._told[place] = now + AGAIN_S
        self._told.move_to_end(place)
        if len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)
        self._stragglers.leave(self._stragglers.spawn(self._tell(placement, holder, place)))

    async def _tell(self, placement: Placement, holder: Device, place: tuple[bytes, int, int | None]) -> None:
        table, partition, lacking = place
        client = self._nodes.client(placement, holder, self._nodes.now() + TELL_S)
        try:
            self.told += await client.hint(table, partition, lacking)
        except NodeFailed as failure:
            self._nodes.heed(placement, failure)
