"""How the owners of a key are called: the clients, the epoch that each call carries, and what a failed call proves.

Owns no state but what it was given. Never decides whom to ask or whether enough have answered.
"""

from asyncio import Future
from collections.abc import Callable
from typing import Final

from proxy.cluster.placement import Key, PlacedRing, Placement, Rings, tcp_address
from ring.device import Device
from swiftlike.joined_offers import JoinedOffers, Offering
from swiftlike.node_calls import Acceptance, Code
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.transport import Address, Outcome, Transport

_NOT_BEGUN: Final = frozenset({Outcome.NOT_SENT, Outcome.BUSY, Outcome.REFUSED})
_NOT_DONE: Final = frozenset(
    {
        Code.BAD_CALL,
        Code.UNKNOWN_TABLE,
        Code.RING_OLDER,
        Code.RING_NEWER,
        Code.BALLOT_REFUSED,
        Code.INSUFFICIENT_STORAGE,
    }
)
"""Codes that say that nothing was stored. A device that failed while it wrote, or whose ring changed, is not among them."""
_RING_IS_OLD: Final = frozenset({Code.RING_OLDER, Code.RING_CHANGED})


class Nodes:
    """The devices of a cluster, as one process reaches them."""

    def __init__(
        self, transport: Transport, rings: Rings, address_of: Callable[[Device], Address] = tcp_address
    ) -> None:
        self.transport: Final = transport
        self.now: Final = transport.now
        """Returns the time on the clock that deadlines refer to."""
        self._joined: Final = JoinedOffers(transport)
        self._rings = rings
        self.address_of: Final = address_of
        self._placed: dict[bytes, PlacedRing] = {}

    def place(self, key: Key) -> Placement:
        """Return the owners of a key under the newest epoch known here."""
        ring = self._rings.ring(key.table)
        placed = self._placed.get(key.table)
        if placed is None or placed.ring is not ring:
            placed = self._placed[key.table] = PlacedRing(ring)
        return placed.place(key)

    def client(self, placement: Placement, device: Device, deadline: float) -> NodeClient:
        """Return a way to call a device under a placement's epoch, with what is left until the deadline."""
        left_s = max(0.0, deadline - self.now())
        return NodeClient(
            self.transport, self.address_of(device), lambda table: placement.epoch, timeout_s=left_s
        )

    def offer(
        self, placement: Placement, device: Device, offering: Offering, deadline: float
    ) -> "Future[Acceptance | NodeFailed]":
        """Offer an entry to a device, in one call with what else is offered to it in this turn of the loop."""
        return self._joined.ask(self.address_of(device), placement.epoch, offering, deadline)

    def heed(self, placement: Placement, failure: NodeFailed) -> None:
        """Take note of what a failure says about the ring."""
        if failure.reply.code in _RING_IS_OLD:
            self._rings.look_for_newer(placement.key.table)


def is_without_effect(failure: NodeFailed) -> bool:
    """Say whether a failed call has provably changed nothing, and never will."""
    reply = failure.reply
    return reply.outcome in _NOT_BEGUN or (reply.outcome is Outcome.ERROR and reply.code in _NOT_DONE)


def is_full(failure: NodeFailed) -> bool:
    """Say whether a device has only its reserve of space left."""
    return failure.reply.code == Code.INSUFFICIENT_STORAGE


def wants_handoff(failure: NodeFailed) -> bool:
    """Say whether an owner is down or full, so that another device should keep its copy meanwhile."""
    reply = failure.reply
    match reply.outcome:
        case Outcome.NOT_SENT | Outcome.UNKNOWN | Outcome.BUSY | Outcome.REFUSED:
            return True
        case _:
            return reply.code in (Code.INSUFFICIENT_STORAGE, Code.DEVICE_FAILED)
