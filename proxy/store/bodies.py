"""Bodies on their way to a reader: whole where they are small, else a stream that goes on elsewhere when an owner dies.

Owns for how long a stream may stand still. Never decides which version is read: the entry names its body.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, NamedTuple

from proxy.cluster.bodies import Bodies, BodyUnavailable
from proxy.cluster.register import Read
from proxy.store.errors import BodyGone
from swiftlike.entries import Entry
from swiftlike.rpc.transport import Body

STALL_S: Final = 30.0
"""The longest time without a byte, of which a stall of the reader itself is part."""


class StoredBody(NamedTuple):
    """The body of an object that was read. A NamedTuple, since every read makes one."""

    bodies: Bodies
    now: Callable[[], float]
    read: Read
    entry: Entry

    @property
    def whole(self) -> Body | None:
        """All of it, where it is small and came along."""
        return b"" if self.entry.size == 0 else self.read.body

    async def fetch_all(self) -> Body:
        """Return all of it, which is for callers that know it to be small. Raises BodyGone."""
        if (whole := self.whole) is not None:
            return whole
        async with aclosing(self.stream(0, self.entry.size)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def stream(self, start: int, stop: int) -> AsyncGenerator[Body, None]:
        """Yield the bytes `[start, stop)`. Close it (`aclosing`) when leaving early. Raises BodyGone."""
        if (whole := self.whole) is not None:
            yield memoryview(whole)[start:stop]
            return
        at = start
        while at < stop:
            began_at = at
            chunks = self.bodies.stream(
                self.read.placement, self.entry, self.read.holders, at, stop, self.now() + STALL_S
            )
            try:
                async with aclosing(chunks):
                    async for chunk in chunks:
                        at += len(chunk)
                        yield chunk
            except BodyUnavailable as gone:
                if at == began_at:
                    raise BodyGone(sent_bytes=at - start) from gone
                # It came so far and its time was over: a stream may take as long as it moves.
