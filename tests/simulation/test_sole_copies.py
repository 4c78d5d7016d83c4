"""A body that only one owner holds, and what the others had before it, in virtual time."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from proxy.cluster.bodies import Bodies
from proxy.store.errors import Unavailable
from proxy.store.store import Store
from storage_node.keys import Key
from storage_node.store import Offered
from swiftlike.timestamps import Ballot, Clock, Offer, WriteId
from tests.simulation.store_cluster import StoreCluster, create, get, named, now_us, play, put


def test_an_acknowledged_write_outlives_the_only_owner_of_a_later_one_of_which_nobody_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"acknowledged")
        await asyncio.sleep(1)
        key = Key(b"o\0", named(b"a").path)
        sole = world.cluster.devices[0].store
        held = sole.read(key)
        assert held is not None
        entry = held.register.entry
        assert entry is not None
        # A proxy that dies reaches one owner only.
        stamp = Clock(now_us, writer=77).issue()
        later = WriteId(stamp)
        entry = entry._replace(
            ballot=Ballot(bytes(entry.ballot[:16]) + stamp), write_id=later, body_id=later, size=5
        )
        assert (await sole.offer(Offered(key, entry, Offer.FIRST, b"later", owing=False))).whole

        async def refuse(*_: Any, **__: Any) -> None:
            return None

        with monkeypatch.context() as full:
            # Somebody reads and offers the others what only one owner has, but they have no room for its body.
            full.setattr(Bodies, "bring", refuse)
            with suppress(Unavailable):
                await get(store, b"a")
        await world.cluster.network.crash("device-0")
        assert await get(store, b"a") == b"acknowledged"

    play(scenario)
