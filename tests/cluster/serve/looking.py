"""Looking into a cluster of real processes: all of its devices asked the same, and whether they hold the same."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from ring.device import Partition
from ring.file import load_ring
from storage_node.keys import ROWS_OF
from swiftlike.config import load_cluster
from swiftlike.digests import Digest
from swiftlike.node_calls import PartitionDigests, objects, ring_name, tables
from swiftlike.node_client import NodeClient
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import TcpAddress
from tests.cluster.serve.clusters import HandMade, HandMadeHost

TABLES: Final = tables([0])
OBJECTS: Final = objects(0)
KINDS: Final = {kind: table for table in TABLES for kind in (table, ROWS_OF.get(table)) if kind is not None}
"""All that owners compare, registers and rows, each with the table whose ring places it."""
NOBODYS: Final = Digest(1, 0)
"""A digest that nothing has, so that who is asked to compare with it tells its own."""

T = TypeVar("T")


class Holding(NamedTuple):
    """What a device holds and whether it has a say."""

    digests: dict[tuple[bytes, int], Digest]
    """By what is compared, and partition."""
    without_votes: int
    """Partitions that it owns and does not vote on."""


def ask_all(
    cluster: HandMade, question: Callable[[NodeClient], Awaitable[T]], hosts: Sequence[HandMadeHost] = ()
) -> dict[str, T]:
    """Ask every device, or every one of these hosts, the same; by their names. Raises NodeFailed."""
    epoch = {table: cluster.builders[ring_name(table)].epoch for table in TABLES}

    async def main() -> dict[str, T]:
        secret = load_cluster(cluster.root / "cluster.toml").rpc_secret
        async with Client(SocketNetwork(), secret) as transport:
            return {
                name: await question(
                    NodeClient(transport, TcpAddress(host.address, port), lambda table: epoch[table])
                )
                for host in hosts or cluster.hosts
                for name, port in host.device_ports.items()
            }

    return asyncio.run(main())


async def holding(cluster: HandMade, client: NodeClient) -> Holding:
    """Ask a device what it holds. Raises NodeFailed."""
    everything = dict.fromkeys(range(1 << cluster.power), NOBODYS)
    asked = [
        PartitionDigests(kind, cluster.builders[ring_name(table)].epoch, everything)
        for kind, table in KINDS.items()
    ]
    digests: dict[tuple[bytes, int], Digest] = {}
    for answer in await client.compare(asked):
        digests |= {(answer.table, number): digest for number, digest in answer.digests.items()}
    found = [await client.caught_up(table) for table in TABLES]
    return Holding(digests, sum(each.owned - each.votes for each in found))


def differing(cluster: HandMade, held: dict[str, Holding]) -> list[str]:
    """Return the partitions that their owners do not hold alike, or do not all vote on, in sentences."""
    left = [f"{name} has {each.without_votes} votes to catch up with" for name, each in held.items()]
    left = [sentence for sentence, each in zip(left, held.values(), strict=True) if each.without_votes]
    for kind, table in KINDS.items():
        ring = load_ring(cluster.root / "rings" / f"{ring_name(table)}.ring", 0)
        for number in range(1 << cluster.power):
            owners = [device.name for device in ring.primaries(Partition(number))]
            digests = {held[name].digests.get((kind, number)) for name in owners}
            if len(digests) > 1 or None in digests:
                left.append(f"partition {number} of {kind!r} differs on {', '.join(owners)}")
    return left
