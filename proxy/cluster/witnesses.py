"""Witnesses: that a move was not settled while its old owners were read.

A read of a partition that moves goes by what the old owners hold. Where the ring that settles the move reaches the hosts one
after the other, a majority of the new owners may have it, and take writes that no old owner sees, while a reader and a
majority of the old owners know nothing of it yet. So a majority of the new owners has to answer under the reader's own epoch,
whatever they hold: whoever has heard of a newer ring refuses, and a write under that ring needs one of them.

It is enough that they answer after the read began: what was written before then would have been written under their eyes. Where
something stands, the write-back before it is served asks them the same, and leaves it with them: so this is for where nothing does.
"""

from collections.abc import Collection, Mapping
from typing import Final

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Placement
from proxy.cluster.quorum import Answer, Verdict, judge_joining
from proxy.cluster.rounds import Patience, Round, Stragglers
from ring.device import DeviceId
from swiftlike.node_client import NodeFailed
from swiftlike.rpc.transport import Reply


class Witnesses:
    """The new owners of partitions that move, asked whether they know of nothing newer."""

    def __init__(self, nodes: Nodes, stragglers: Stragglers, patience: Patience) -> None:
        """Take how devices are called, who owns the calls, and how long to wait."""
        self._nodes: Final = nodes
        self._stragglers: Final = stragglers
        self._patience: Final = patience

    async def hear(self, placement: Placement, heard: Collection[DeviceId], deadline: float) -> bool:
        """Say whether a majority of the new owners answers under this placement's epoch; `heard` are those that did already.

        True at once for a partition that does not move, which the caller had better see for itself.
        """
        owners, key = placement.owners, placement.key

        def verdict(answers: Mapping[DeviceId, Answer]) -> Verdict:
            return judge_joining(owners, {**dict.fromkeys(heard, Answer.WITNESS), **answers})

        if verdict({}) is Verdict.REACHED:
            return True
        round_deadline = min(deadline, self._nodes.now() + self._patience.round_s)

        def ask(owner: DeviceId) -> None:
            client = self._nodes.client(placement, placement.devices[owner], round_deadline)
            called = client.ask_get(key.table, key.path, 0)

            def read(reply: Reply) -> Answer:
                try:
                    called.read(reply)
                except NodeFailed as failure:
                    self._nodes.heed(placement, failure)
                    return Answer.NO
                return Answer.WITNESS

            asked.call(owner, called.reply, read)

        async with Round[Answer](self._stragglers) as asked:
            for owner in owners.joining:
                if owner not in heard:
                    ask(owner)
            await asked.until(lambda answers: verdict(answers) is not Verdict.UNDECIDED)
            return verdict(asked.answers) is Verdict.REACHED
