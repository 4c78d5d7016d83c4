"""Answers that take long: the connection is kept alive until it is known what to answer.

Owns when an answer begins before its end is known, and what it looks like then: the status is 200 by that time, whatever
comes of it, and white space goes out until the document follows, which may be an error's. That is how S3 does it, for the
completion of an upload and for copies.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

from proxy.http.errors import RequestError
from proxy.http.response import Response
from proxy.s3_api.asks import Ask
from proxy.s3_api.errors import S3Error, response_to
from proxy.s3_api.xml import DECLARATION, XML_TYPE
from proxy.store.errors import StoreError

QUIET_S: Final = 5.0
"""How long a client hears nothing: first, and between two blanks."""


async def answer_patiently(ask: Ask, work: Coroutine[Any, Any, Response]) -> Response:
    """Return what some work answers, or, when it takes long, an answer that is on its way already."""
    task = asyncio.get_running_loop().create_task(work)
    stream = _Waiting(ask, task)
    try:
        await asyncio.wait((task,), timeout=QUIET_S)
    except asyncio.CancelledError:
        await stream.aclose()
        raise
    if task.done():
        return task.result()
    return Response(200, [("Content-Type", XML_TYPE)], stream=stream)


class _Waiting:
    """The body of an answer that is not known yet; owns the work."""

    def __init__(self, ask: Ask, task: asyncio.Task[Response]) -> None:
        self._ask: Final = ask
        self._task: Final = task
        self._has_begun = self._has_ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._has_ended:
            raise StopAsyncIteration
        if not self._has_begun:
            self._has_begun = True
            return DECLARATION
        await asyncio.wait((self._task,), timeout=QUIET_S)
        if not self._task.done():
            return b" "
        self._has_ended = True
        try:
            response = self._task.result()
        except (S3Error, StoreError, RequestError) as error:
            response = response_to(error, self._ask.request, self._ask.around.host_id)
        return bytes(response.body).removeprefix(DECLARATION)

    async def aclose(self) -> None:
        """End it: nobody listens any more."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()  # it was told to nobody, and is no surprise to anybody
