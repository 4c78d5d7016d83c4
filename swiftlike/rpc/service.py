"""What a server does when it is called: named methods and their handlers.

Owns the registry and the shape of a handler. Never touches a connection.

A handler of calls is a plain function or an async one. A plain function runs at once, on the loop and without a task,
and must not block; it returns the reply, or a future of it when the work goes on elsewhere (a group commit), or such work and
how its end is told. Either may
raise CallFailed to answer with an application error code; any other exception is a bug, logged, and UNKNOWN to the caller.
A caller that has gone, or whose deadline has passed, cancels the task or the future: whoever settles a future looks at
`done()` first, and what cannot be stopped any more (a commit under way) simply goes on, UNKNOWN to its caller.
"""

import inspect
from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from swiftlike.limits import RPC_METHOD_BYTES_MAX
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Body, Header, Reply


class Call(NamedTuple):
    """One call, or the opening of a stream, as its handler sees it."""

    method: str
    header: Header
    body: Body
    deadline: float
    """A moment on the loop's clock; work that would end later is not worth beginning."""
    caller: str
    """The other end's address, for logs."""


class Later(NamedTuple):
    """Work that goes on elsewhere, and how its end becomes the reply: no task and no second future wait for it."""

    work: "Future[Any]"
    tell: Callable[["Future[Any]"], Reply]
    """Given the work when it is done, and not where it was cancelled. May raise CallFailed."""


PlainHandler: TypeAlias = Callable[[Call], "Reply | Future[Reply] | Later"]
AsyncHandler: TypeAlias = Callable[[Call], Awaitable[Reply]]
StreamHandler: TypeAlias = Callable[[Call, ServedStream], Awaitable[Reply]]


class Service:
    """The methods that a server answers to."""

    def __init__(self) -> None:
        self.plain: dict[str, PlainHandler] = {}
        self.awaited: dict[str, AsyncHandler] = {}
        self.streamed: dict[str, StreamHandler] = {}

    def calls(self, method: str, handler: PlainHandler | AsyncHandler) -> None:
        """Answer calls of `method` with `handler`, plain or async."""
        self._check_new(method)
        if inspect.iscoroutinefunction(handler):
            self.awaited[method] = handler
        else:
            self.plain[method] = handler  # type: ignore[assignment]  # what is not async is plain

    def streams(self, method: str, handler: StreamHandler) -> None:
        """Answer streams of `method` with `handler`."""
        self._check_new(method)
        self.streamed[method] = handler

    def _check_new(self, method: str) -> None:
        assert method not in self.plain, f"{method} has a handler already"
        assert method not in self.awaited, f"{method} has a handler already"
        assert method not in self.streamed, f"{method} has a handler already"
        assert len(method.encode()) <= RPC_METHOD_BYTES_MAX, f"{method} is too long a name"
