"""Mending: the body of one entry, brought to the owner that lacks only that.

Owns who is asked: the other owners that its ring names. A body id names the same bytes for ever, so nothing is decided here;
an entry that is not chosen any more has a body that nobody need have.
"""

from typing import Final
from uuid import UUID

from proxy.cluster.placement import Key
from proxy.cluster.register import Registers
from swiftlike.entries import Entry


class Mending:
    """Brings bodies; what a storage node's mender asks for."""

    def __init__(self, registers: Registers) -> None:
        """Take what knows the way to the owners."""
        self._registers: Final = registers

    async def mend(self, table: bytes, path: bytes, entry: Entry, lacking: UUID, timeout_s: float) -> bool:
        """Bring the body of an entry to the owner with this uuid; say whether it has it now."""
        nodes = self._registers.nodes
        placement = nodes.place(Key(table, path, entry.ballot.incarnation))
        target = next((one for one in placement.devices.values() if one.uuid == lacking), None)
        if target is None:
            return False
        return await self._registers.bodies.fill(placement, target, entry, nodes.now() + timeout_s)
