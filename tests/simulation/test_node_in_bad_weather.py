"""A device behind a network that loses, delays and breaks: asking again with the same entry is safe, and ends in what was meant."""

import asyncio
from collections import Counter
from random import Random

import pytest

from storage_node.memory import MemoryStore
from storage_node.service import DeviceService
from swiftlike.entries import Entry
from swiftlike.node_calls import Acceptance
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.simulated import SimulatedHost, SimulatedNetwork, Weather
from swiftlike.rpc.transport import Outcome, TcpAddress
from swiftlike.rpc.virtual_time import run_in_virtual_time
from tests.engine.conftest import vote_everywhere
from tests.engine.samples import LARGE, LAYOUT, NOW_US, OBJECTS, object_key, put

SECRET = b"the secret of the simulated cluster"
ROUGH = Weather(slow_chance=0.05, slow_s=0.3, loss_chance=0.02, reset_chance=0.08)


class OneRing:
    """A ring that never changes."""

    def epoch(self, table: bytes) -> int | None:
        return 1

    def look_for_newer(self, table: bytes) -> None:
        raise AssertionError("nobody has a newer ring")


async def insist(
    client: NodeClient, path: bytes, entry: Entry, body: bytes, failures: Counter[Outcome]
) -> Acceptance:
    """Offer until an answer comes: the same ballot and write id each time."""
    while True:
        try:
            if len(body) <= 1000:
                return await client.offer(OBJECTS, path, entry, body)
            async with client.put_stream(OBJECTS, path, entry.body_id, len(body)) as stream:
                await stream.send(body)
                return await stream.commit(entry)
        except NodeFailed as failed:
            if failed.reply.outcome is Outcome.ERROR:
                raise
            failures[failed.reply.outcome] += 1
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", range(4))
def test_an_offer_that_is_repeated_until_it_is_answered_is_accepted_once(seed: int) -> None:
    store = MemoryStore("memory", LAYOUT, lambda: NOW_US)
    chance = Random(seed)
    written = {f"o{number}": chance.randbytes(LARGE if number % 10 == 0 else 500) for number in range(60)}
    entries = {name: put(at, body) for at, (name, body) in enumerate(written.items())}

    failures: Counter[Outcome] = Counter()

    async def boot(host: SimulatedHost) -> None:
        async with (
            DeviceService(store, LAYOUT, OneRing()) as node,
            host.server(node.service, SECRET) as server,
        ):
            await server.listen(TcpAddress(host.name, 6200))
            await asyncio.Event().wait()

    async def scenario() -> None:
        await vote_everywhere(store)
        async with SimulatedNetwork(seed, ROUGH) as network:
            network.host("device", boot)
            async with network.host("proxy").client(SECRET) as transport:
                client = NodeClient(transport, TcpAddress("device", 6200), lambda table: 1, timeout_s=5)
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(
                            insist(client, object_key(name).path, entries[name], body, failures)
                        )
                        for name, body in written.items()
                    ]
                assert all(task.result().counts for task in tasks)

    run_in_virtual_time(scenario())
    assert failures[Outcome.UNKNOWN] > 0, "the weather was too fair to show anything"
    for name, entry in entries.items():
        held = store.read(object_key(name))
        assert held is not None
        assert held.register.entry == entry
        assert held.register.replaced == ()
        assert held.location.held
    assert sum(store.partition_digest(OBJECTS, partition).entries for partition in range(16)) == len(written)
