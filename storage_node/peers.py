"""Peers: how the jobs of a device know the other devices, by the rings in use here and where those say that they listen."""

from typing import Protocol

from ring.device import Device
from ring.ring import Ring
from storage_node.placing import Rings
from swiftlike.rpc.transport import Address, TcpAddress


class HealingRings(Rings, Protocol):
    """The rings of a device, for who must know owners as well as epochs."""

    def ring(self, table: bytes) -> Ring:
        """Return the ring that places a table."""


def tcp_address(device: Device) -> Address:
    """Return where a device listens across the network."""
    return TcpAddress(device.host, device.port)
