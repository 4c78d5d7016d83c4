"""What callers of the RPC see: addresses, replies and their outcomes, and the Transport interface.

Owns the meaning of an outcome. Never touches a socket; `client` and `simulated` do the work.

Time is the event loop's: a deadline is a moment on `loop.time()`, so whoever runs the loop passes the clock in,
and on a virtual loop everything here happens in virtual time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from enum import Enum
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, cast

Body: TypeAlias = bytes | bytearray | memoryview
"""Raw bytes. A sender must not change them afterwards; a receiver owns what it got."""

Header: TypeAlias = Mapping[str, Any]
"""A msgpack map; arrays arrive as tuples. The method that owns it parses it at its door."""

EMPTY: Header = {}


class TcpAddress(NamedTuple):
    """A listening peer across the network."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as people do, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """A listening peer on this host."""

    path: str

    def __str__(self) -> str:
        """Write it as a URL would."""
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress


class Outcome(Enum):
    """What is known about the work that a call asked for."""

    OK = "ok"
    """Done, and this is the handler's answer."""
    ERROR = "error"
    """The handler judged the call and answered with an application error `code`; no exception on either side."""
    BUSY = "busy"
    """The peer did not begin: it is at its limit. Another peer, or the same one later, may do it."""
    REFUSED = "refused"
    """The peer did not begin: it drains, does not know the method, or the call came too late."""
    NOT_SENT = "not sent"
    """Nothing of the call left this process, so nothing was done."""
    UNKNOWN = "unknown"
    """The call left, and no answer came: it may have been done, or may be done yet. Never round this to "failed"."""


class Reply(NamedTuple):
    """How a call or a stream ended. Handlers return one as well: `Reply(header=...)` or `failed(...)`."""

    outcome: Outcome = Outcome.OK
    header: Header = EMPTY
    body: Body = b""
    code: str = ""
    """For ERROR an application code; for the others one of ours, such as `busy`, `draining`, `timeout`."""
    reason: str = ""
    """One sentence for people, empty when OK."""


def done(header: Header, body: Body = b"") -> Reply:
    """Return the reply of what was done; every call has two, and `Reply` takes twice as long."""
    return _as_reply((_OK, header, body, "", ""))


_OK: Final = Outcome.OK
_as_reply: Final = cast(
    "Callable[[tuple[Outcome, Header, Body, str, str]], Reply]", partial(tuple.__new__, Reply)
)


def failed(code: str, reason: str, header: Header = EMPTY) -> Reply:
    """Return the reply of a handler that judged a call and did not do it."""
    return Reply(Outcome.ERROR, header, b"", code, reason)


class Message(NamedTuple):
    """One frame of a stream, either way."""

    header: Header
    body: Body


class Stream(Protocol):
    """The calling end of a stream.

    Both directions are open from the start, each a sequence of messages under its own credit; the serving end
    closes the whole with a reply. A wait for the peer ends at the stream's deadline or when the peer stalls.
    """

    async def send(self, body: Body = b"", header: Header = EMPTY) -> None:
        """Send one message of at most a quarter of the window, waiting for credit.

        Raises StreamEnded when the stream is over; its reply says how, and may even be OK.
        """

    async def receive(self) -> Message | None:
        """Return the next message, or None once the stream has ended with OK.

        Raises StreamEnded on any other end, so that a cut-off body cannot be taken for a whole one.
        """

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over `receive`."""

    async def finish(self, body: Body = b"", header: Header = EMPTY) -> Reply:
        """Send a last message if there is anything in it, say that no more will come, and return the reply.

        Messages not yet received are dropped. Never raises for the peer's faults.
        """

    @property
    def message_bytes(self) -> int:
        """The largest body of a message that leaves room for three more on their way."""

    @property
    def reply(self) -> Reply | None:
        """How the stream ended, or None while it goes on."""


class Told(Protocol):
    """A call that was made."""

    def cancel(self) -> object:
        """Give it up; nothing happens once it has ended."""


class Transport(Protocol):
    """The way to other processes, real or simulated. The contract suite holds for both."""

    def now(self) -> float:
        """Return the time on the clock that deadlines refer to, in seconds."""

    async def call(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> Reply:
        """Ask `peer` to do `method` and return how that ended; the world's faults are outcomes, not exceptions.

        Raises FrameTooLarge when header or body are above their limits: the caller's mistake. A cancelled call
        tells the peer to stop, and may or may not have been done.
        """

    def ask(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> "asyncio.Future[Reply]":
        """Make a call as `call` does, and return at once what will be how it ends: for many at a time, without a task each.

        Cancel it to give the call up.
        """

    def tell(
        self, peer: Address, method: str, header: Header, hear: Callable[[Reply], object], *, deadline: float
    ) -> Told:
        """Make a call as `ask` does, and have `hear` called with how it ends: not before this has returned, and within the
        turn of the loop that brings the answer, which neither a future nor a turn of its own has to wait for.

        `hear` neither waits nor raises. It is not called once the call is given up.
        """

    def open_stream(
        self, peer: Address, method: str, header: Header = EMPTY, *, deadline: float
    ) -> AbstractAsyncContextManager[Stream]:
        """Open a stream; leaving the context before it has ended aborts it, and the peer stops.

        Entering raises StreamEnded when there is no connection (NOT_SENT).
        """
