"""Answers whose body has begun to come before a client is told anything: status and length cannot be taken back.

Owns the wait for the first piece of a streamed body, and that the answer is made anew where the body is gone before that, as
when the object was replaced between its look-up and the first read. Never knows what is answered, nor why a body is gone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from proxy.http.response import Response
from swiftlike.rpc.transport import Body

TRIES_MAX: Final = 4
"""Each time, the object would have to be replaced within a few milliseconds."""


async def begun(answer: Callable[[], Awaitable[Response]], gone: type[Exception]) -> Response:
    """Return an answer whose first bytes are here. Raises `gone` when none of several had any, and what `answer` raises."""
    for _ in range(TRIES_MAX - 1):
        try:
            return await _begin(await answer())
        except gone:
            continue  # something else stands there now
    return await _begin(await answer())


async def _begin(response: Response) -> Response:
    if response.stream is not None:
        first = await anext(response.stream, None)
        if first is not None:
            response.stream = _Begun(first, response.stream)
    return response


class _Begun:
    """A stream whose first piece was taken out already."""

    def __init__(self, first: Body, rest: AsyncIterator[Body]) -> None:
        self._first: Body | None = first
        self._rest: Final = rest

    def __aiter__(self) -> AsyncIterator[Body]:
        return self

    async def __anext__(self) -> Body:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        """End the stream, also where it was never read on."""
        self._first = None
        if (end := getattr(self._rest, "aclose", None)) is not None:
            await end()
