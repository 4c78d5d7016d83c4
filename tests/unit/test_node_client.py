"""Answers of a device that go nowhere, or tell of what nobody asked for, are failures and no work without end."""

import asyncio
from typing import Any, cast

import pytest

from swiftlike.node_calls import pack_list
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.transport import Header, Reply, TcpAddress, Transport
from swiftlike.timestamps import NO_WRITE


class Answering:
    """A transport whose peer always answers the same."""

    def __init__(self, header: Header) -> None:
        self._reply = Reply(header=header, body=pack_list([]))

    def now(self) -> float:
        return 0.0

    async def call(self, *_: Any, **__: Any) -> Reply:
        return self._reply


def client(header: Header) -> NodeClient:
    return NodeClient(cast(Transport, Answering(header)), TcpAddress("127.0.0.1", 1), lambda table: 1)


@pytest.mark.parametrize(("served", "after"), [(0, b"a"), (-1, b"b"), (3, b"")])
def test_versions_that_do_not_go_on_are_a_failure(served: int, after: bytes) -> None:
    asked = client({"served": served, "after": after}).versions_in(b"o\0", 4, [1, 2], b"a")
    with pytest.raises(NodeFailed, match="does not go on"):
        asyncio.run(asked)


@pytest.mark.parametrize(("served", "after"), [(0, b"b"), (1, b""), (2, b"")])
def test_versions_that_go_on_are_none(served: int, after: bytes) -> None:
    asked = client({"served": served, "after": after}).versions_in(b"o\0", 4, [1, 2], b"a")
    assert asyncio.run(asked) == ([], served, after)


@pytest.mark.parametrize("served", [-1, 0, 2])
def test_copies_of_none_or_of_more_keys_than_were_asked_for_are_a_failure(served: int) -> None:
    # Taken for an answer, none would be a key that was passed over, by an owner that then votes without it.
    with pytest.raises(NodeFailed, match="none, or of more than was asked for"):
        asyncio.run(client({"served": served}).copies(b"o\0", [(b"a\0c\0o", NO_WRITE)]))
