"""One request, as a dialect sees it.

Owns what came and what is known of it. Never writes to the client: a dialect returns a `Response`.
"""

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Protocol

from multidict import CIMultiDictProxy

from proxy.http.body import RequestBody
from proxy.http.response import Response
from proxy.http.target import Target, parse_query


class Request:
    """A request: its head, parsed, and its body, which comes when it is asked for."""

    def __init__(
        self,
        method: str,
        target: Target,
        headers: CIMultiDictProxy[str],
        body: RequestBody,
        *,
        transaction_id: str,
        scheme: str = "http",
        remote: str = "",
        deadline: float = 0.0,
    ) -> None:
        self.method = method
        self.target = target
        self.path = target.path
        self.headers = headers
        """Values are UTF-8; bytes that are not came through as surrogates, and encoding such a value fails."""
        self.body = body
        self.transaction_id = transaction_id
        self.scheme = scheme
        self.remote = remote
        """The client's address, for logs."""
        self.deadline = deadline
        """When what this request asks of the cluster should be over, on the loop's clock."""
        self.who = "-"
        """Who asks, for the access log; a dialect sets it once it knows."""

    @cached_property
    def query(self) -> dict[str, bytes]:
        """The parameters. Raises TargetRefused when they are malformed."""
        return parse_query(self.target.raw_query)

    @property
    def reads(self) -> bool:
        """Whether the method is GET or HEAD."""
        return self.method in ("GET", "HEAD")


Dialect = Callable[[Request], Awaitable[Response]]
"""Answers a request. What it raises is a bug, answered with 500; refusals are responses."""


class Speaks(Protocol):
    """A dialect as an object, for those that hold state."""

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
