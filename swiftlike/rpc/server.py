"""The server: a service behind listening sockets, from entering its context until it is left.

Owns the listeners and the order of the end: accept no more, finish or refuse, close. Never reads a frame: `served` does.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from swiftlike.limits import RpcLimits
from swiftlike.rpc.admission import Admission
from swiftlike.rpc.connection import Connection
from swiftlike.rpc.errors import ConnectionFailed
from swiftlike.rpc.frames import Kind
from swiftlike.rpc.network import Listener, Network
from swiftlike.rpc.served import Served
from swiftlike.rpc.service import Service
from swiftlike.rpc.transport import Address


class Server:
    """Serves `service` from entering its context until it is left; `drain` first to finish what is at work."""

    def __init__(
        self,
        network: Network,
        service: Service,
        secret: bytes,
        *,
        limits: RpcLimits | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.limits = limits or RpcLimits()
        self.admission = Admission(service, secret, self.limits, entropy)
        self.counters = self.admission.counters
        self._network = network
        self._listeners: list[Listener] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Begin to own tasks."""
        await self.admission.handlers.__aenter__()
        self._sweep_idle()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop now: cut all connections and cancel what is still at work."""
        self._stop_accepting()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self.admission.connections):
            connection.abort(ConnectionFailed("this server has stopped"))
        await self.admission.handlers.__aexit__(None, None, None)
        await Connection.wait_gone(list(self.admission.wires), self.limits.goodbye_s)

    async def listen(self, address: Address) -> Address:
        """Accept connections at `address` and return where callers reach it; raises OSError when it is taken."""
        listener = await self._network.listen(address, partial(Served, self.admission))
        self._listeners.append(listener)
        return listener.address

    async def drain(self, deadline: float) -> bool:
        """Accept no more, finish what is at work until `deadline`, close; return whether all of it was finished.

        Callers are told at once, and what they send from then on is answered as "draining" and not begun.
        """
        self.admission.draining = True
        self._stop_accepting()
        for stranger in list(self.admission.strangers):
            stranger.abort(ConnectionFailed("this server drains"))
        for connection in list(self.admission.connections):
            connection.send(Kind.GOODBYE, 0, ())
        await self.admission.wait_until(lambda: not self.admission.at_work(), deadline)
        finished = not self.admission.at_work()
        # A caller that has heard the goodbye closes by itself, so that none of its calls meets a closed door.
        goodbye_until = min(deadline, asyncio.get_running_loop().time() + self.limits.goodbye_s)
        await self.admission.wait_until(lambda: not self.admission.connections, goodbye_until)
        for connection in list(self.admission.connections):
            connection.close(ConnectionFailed("this server has drained"))
        return finished

    def _stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _sweep_idle(self) -> None:
        idle_s = self.limits.idle_s * self.limits.served_idle_factor
        loop = asyncio.get_running_loop()
        for connection in list(self.admission.connections):
            if loop.time() - connection.received_at > idle_s and not connection.is_working():
                connection.close(ConnectionFailed(f"nothing was asked on it for {idle_s:g} s"))
        self._sweep = loop.call_later(idle_s / 4, self._sweep_idle)
