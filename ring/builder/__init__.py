"""The change side of the ring: what an operator does to a cluster, and the assignment that comes of it.

Imports numpy, so a proxy or a device never imports this package.
"""

from ring.builder.board import Reason
from ring.builder.builder import BalanceNote, Rebalance, RingBuilder

__all__ = ["BalanceNote", "Reason", "Rebalance", "RingBuilder"]
