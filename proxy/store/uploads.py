"""Uploads: a body as it arrives, counted and hashed once, on its way to the owners.

Owns the MD5 that clients are promised; devices have checksums of their own. A body that ends within one frame of the RPC
is kept whole, and hashed on the loop. A longer one is handed on in pieces as it comes, and each of them is hashed on a thread
while it is sent: hashing takes as long as sending does, and leaves the interpreter to others.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from hashlib import md5
from typing import Final

from proxy.store.values import Description, ObjectBody, ObjectInfo, Received, Upload
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.rpc.transport import Body


class Arriving:
    """A body on its way in. Close it (`aclosing`) when leaving."""

    def __init__(self, upload: Upload) -> None:
        """Take what a client sends."""
        self._size: Final = upload.size
        self._chunks: Final = upload.chunks()
        self._md5: Final = md5(usedforsecurity=False)
        self._bytes = 0
        self._head: list[Body] = []

    async def small(self) -> Body | None:
        """Return the whole body where it fits a frame; None: it does not, and `stream` yields it."""
        if self._size is not None and self._size > RPC_BODY_BYTES_MAX:
            return None
        async for chunk in self._chunks:
            self._count(chunk)
            self._head.append(chunk)
            if self._bytes > RPC_BODY_BYTES_MAX:
                return None
        return self._head[0] if len(self._head) == 1 else b"".join(self._head)

    async def stream(self, piece_bytes: int) -> AsyncGenerator[Body, None]:
        """Yield the body from its beginning, in pieces of `piece_bytes`, as far as it does not arrive in larger ones.

        Each piece costs its way to the owners and to the thread that hashes it, so small ones are joined first.
        """
        if self._head:
            head, self._head = self._head, []
            yield b"".join(head)  # counted already
        loop = asyncio.get_running_loop()
        counted: asyncio.Future[None] | None = None
        try:
            async with aclosing(self._joined(piece_bytes)) as pieces:
                async for piece in pieces:
                    # One at a time, since the hash is of their order; it goes on while the piece is sent and the next one comes.
                    if counted is not None:
                        await counted
                    counted = loop.run_in_executor(None, self._count, piece)
                    yield piece
        finally:
            if counted is not None:
                await counted

    async def _joined(self, piece_bytes: int) -> AsyncGenerator[Body, None]:
        joined: list[Body] = []
        room = piece_bytes
        async for chunk in self._chunks:
            rest = chunk
            if joined and len(rest) > room:
                # Pieces are full, so that what is a message of a stream ends where blocks of a body do.
                joined.append(memoryview(rest)[:room])
                yield b"".join(joined)
                joined, rest, room = [], memoryview(rest)[room:], piece_bytes
            joined.append(rest)
            room -= len(rest)
            if room <= 0:
                yield rest if len(joined) == 1 else b"".join(joined)
                joined, room = [], piece_bytes
        if joined:
            yield b"".join(joined)

    def received(self) -> Received:
        """Return what came, once all of it has."""
        return Received(self._bytes, self._md5.hexdigest())

    async def aclose(self) -> None:
        """Take no more of it."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    def _count(self, chunk: Body) -> None:
        self._md5.update(chunk)
        self._bytes += len(chunk)


class Copy:
    """An object that is read in order to be stored under another name."""

    def __init__(
        self, source: ObjectInfo, body: ObjectBody, describe: Callable[[ObjectInfo, Received], Description]
    ) -> None:
        """Take the object and what its copy is described by."""
        self._source: Final = source
        self._body: Final = body
        self._describe: Final = describe

    @property
    def size(self) -> int | None:
        """Bytes of the body."""
        return self._source.size

    async def chunks(self) -> AsyncIterator[Body]:
        """Yield the body."""
        if (whole := self._body.whole) is not None:
            yield whole
            return
        chunks = self._body.stream(0, self._source.size)
        async with aclosing(chunks):  # type: ignore[type-var]  # what streams an object is a generator
            async for chunk in chunks:
                yield chunk

    def finish(self, received: Received) -> Description:
        """Describe the copy."""
        return self._describe(self._source, received)
