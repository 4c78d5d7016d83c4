"""Bodies of manifests: the bytes of all parts, one after the other, from any byte on.

Owns the order in which parts are looked at: the register of the next one is read while this one streams, so that a seam costs
no round trip. A replica that dies in the middle of a part is replaced by whoever streams that part. Never knows how a part
is stored.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

from proxy.store import manifests
from proxy.store.errors import BodyGone, NotThere, Unavailable
from proxy.store.manifests import Manifest, Piece
from proxy.store.names import ObjectName
from proxy.store.values import ObjectBody, ObjectInfo
from swiftlike.rpc.transport import Body


class ListBody(Protocol):
    """The body of the list of parts."""

    async def fetch_all(self) -> Body:
        """Return all of it. Raises BodyGone."""


Look = Callable[[ObjectName], Awaitable[tuple[ObjectInfo, ObjectBody]]]
"""Reads a part."""


class ManifestBody:
    """The body of an object that is the sum of others."""

    def __init__(self, list_body: ListBody, size: int, look: Look) -> None:
        """Take where the list of its parts is, how many bytes they are, and how a part is read."""
        self._list_body: Final = list_body
        self._size: Final = size
        self._look: Final = look
        self._manifest: Manifest | None = None

    @property
    def whole(self) -> Body | None:
        """All of it, where there is nothing of it."""
        return None if self._size else b""

    async def manifest(self) -> Manifest:
        """Return the parts. Raises BodyGone."""
        if self._manifest is None:
            raw = await self._list_body.fetch_all()
            self._manifest = manifests.unpack(raw)
        return self._manifest

    async def stream(self, start: int, stop: int) -> AsyncIterator[Body]:
        """Yield the bytes `[start, stop)`. Close it (`aclosing`) when leaving early. Raises BodyGone."""
        pieces = (await self.manifest()).pieces(start, stop)
        sent = 0
        following = asyncio.ensure_future(self._open(pieces[0])) if pieces else None
        try:
            for at, piece in enumerate(pieces):
                assert following is not None, "each piece is opened before its turn"
                body = await following
                following = (
                    asyncio.ensure_future(self._open(pieces[at + 1])) if at + 1 < len(pieces) else None
                )
                chunks: Any = self._piece(piece, body)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        sent += len(chunk)
                        yield chunk
        except (NotThere, Unavailable) as gone:
            raise BodyGone(sent_bytes=sent) from gone
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def _piece(self, piece: Piece, body: ObjectBody) -> AsyncIterator[Body]:
        """Yield a piece of a part. It may have been opened long ago, when other devices held it: then it is once more."""
        at, is_fresh = piece.start, False
        while True:
            began_at = at
            chunks: Any = body.stream(at, piece.stop)
            try:
                async with aclosing(chunks):
                    async for chunk in chunks:
                        at += len(chunk)
                        yield chunk
                return
            except BodyGone:
                if is_fresh and at == began_at:
                    raise
            body, is_fresh = await self._open(piece), True

    async def _open(self, piece: Piece) -> ObjectBody:
        """Read a part's register. Raises BodyGone when it is not the part that the manifest names any more."""
        info, body = await self._look(piece.part.name)
        if (info.size, info.etag) != (piece.part.size, piece.part.etag):
            raise BodyGone
        return body


async def manifest_of(body: ObjectBody) -> Manifest | None:
    """Return the parts of an object that has any. Raises BodyGone."""
    return await body.manifest() if isinstance(body, ManifestBody) else None
