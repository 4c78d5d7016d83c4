"""Debts: cleared at the owners of what was written once its row stands, a little later and many at a time.

Owns what is still to be paid by this process. Losing it is no loss: a debt that is not cleared here is paid once more by
the device's updater. So nothing waits for a payment, and above a bound they are dropped and counted.
"""

import asyncio
from collections import defaultdict
from typing import Final

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Key, Placement
from ring.device import DeviceId
from swiftlike.entries import Version
from swiftlike.limits import DEBTS_BATCH_MAX, DEBTS_WAITING_MAX
from swiftlike.node_client import NodeFailed

PAUSE_S: Final = 0.25
"""Between two payments: long enough for many to travel together, and for an owner that was slow to have its debt."""
PATIENCE_S: Final = 5.0
"""For the devices to take a payment."""


class Debts:
    """What this process is about to pay."""

    def __init__(self, nodes: Nodes) -> None:
        """Take how devices are called."""
        self._nodes: Final = nodes
        self._waiting: list[tuple[Key, Version]] = []
        self._some = asyncio.Event()
        self.dropped = 0
        """Left to the updaters, since too many waited."""
        self.failed = 0
        """Left to an updater, since its device did not take the payment."""

    def pay_later(self, key: Key, version: Version) -> None:
        """Clear the debt of a key for this version before long."""
        if len(self._waiting) >= DEBTS_WAITING_MAX:
            self.dropped += 1
            return
        self._waiting.append((key, version))
        self._some.set()

    async def run(self) -> None:
        """Pay until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(PAUSE_S)
            await self.flush()

    async def flush(self) -> None:
        """Pay what waits now."""
        waiting, self._waiting = self._waiting, []
        self._some.clear()
        bound: dict[tuple[DeviceId, bytes, int], list[tuple[Placement, bytes, Version]]] = defaultdict(list)
        for key, version in waiting:
            placement = self._nodes.place(key)
            for device in placement.devices:
                bound[device, key.table, placement.epoch].append((placement, key.path, version))
        deadline = self._nodes.now() + PATIENCE_S
        async with asyncio.TaskGroup() as payments:
            for (device, _, _), debts in bound.items():
                for at in range(0, len(debts), DEBTS_BATCH_MAX):
                    payments.create_task(self._pay(device, debts[at : at + DEBTS_BATCH_MAX], deadline))

    async def _pay(
        self, device: DeviceId, debts: list[tuple[Placement, bytes, Version]], deadline: float
    ) -> None:
        placement = debts[0][0]
        client = self._nodes.client(placement, placement.devices[device], deadline)
        try:
            await client.pay(placement.key.table, [(path, version) for _, path, version in debts])
        except NodeFailed as failure:
            self._nodes.heed(placement, failure)
            self.failed += len(debts)
