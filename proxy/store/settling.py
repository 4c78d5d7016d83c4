"""Settling: a key whose promise stands in the way of a copy, carried through for the device that met it.

Owns only what a carry-through owes: the row of an object or a container, as its own write does. Which entry is chosen is the
register's business.
"""

from typing import Final

from proxy.cluster.decisions import Outcome
from proxy.cluster.placement import Key
from proxy.cluster.register import Registers
from swiftlike.node_calls import ACCOUNTS
from swiftlike.timestamps import Timestamp


class Settling:
    """Settles; what a storage node's replicator asks for."""

    def __init__(self, registers: Registers) -> None:
        """Take what coordinates registers."""
        self._registers: Final = registers

    async def settle(self, table: bytes, path: bytes, incarnation: Timestamp, timeout_s: float) -> bool:
        """Carry the newest entry of a key through; say whether a majority holds it now, or nothing stands there."""
        key = Key(table, path, incarnation, owes=table != ACCOUNTS)
        deadline = self._registers.nodes.now() + timeout_s
        return (await self._registers.settle(key, deadline=deadline)).outcome is Outcome.REFUSED
