"""Asking devices over the network for the uuids on their disks.

Proves the cluster's secret to each and asks nothing else. What a device does not answer is refused, never guessed.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from ring.device import Device
from ring.errors import RingError
from swiftlike.config import TlsConfig, load_cluster
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import TcpAddress
from swiftlike.tls import calling_network
from swiftlike.toml_tables import ConfigError

TIMEOUT_S: Final = 5.0
"""A device that is up answers in milliseconds."""


def ask_for_uuids(devices: Sequence[Device], cluster_file: Path, ca_file: Path | None = None) -> list[UUID]:
    """Return the uuid that each device has, all asked at once; over TLS where the hosts' authority is given.

    Raises RingError when one of these files is no good, or when a device does not answer or is another one than it should be.
    """
    try:
        secret = load_cluster(cluster_file).rpc_secret
        network = calling_network(None if ca_file is None else TlsConfig(ca_file))
    except ConfigError as error:
        raise RingError(str(error)) from None
    return asyncio.run(_ask_all(devices, network, secret))


async def _ask_all(devices: Sequence[Device], network: SocketNetwork, secret: bytes) -> list[UUID]:
    async with Client(network, secret) as transport:
        answers = await asyncio.gather(
            *(_ask(transport, device) for device in devices), return_exceptions=True
        )
    uuids = []
    for device, answer in zip(devices, answers, strict=True):
        if isinstance(answer, NodeFailed):
            raise RingError(
                f"{device} does not tell its uuid ({answer.reply.reason or answer.reply.code}); start it, or look its uuid"
                f" up in its device.toml and bind d{device.id} --uuid UUID"
            )
        if isinstance(answer, BaseException):
            raise answer
        uuids.append(answer)
    return uuids


async def _ask(transport: Client, device: Device) -> UUID:
    peer = TcpAddress(device.host, device.port)
    health = await NodeClient(transport, peer, lambda table: 0, timeout_s=TIMEOUT_S).health()
    return UUID(health["uuid"])
