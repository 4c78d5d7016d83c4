"""Bodies as they arrive: what is kept whole, what is handed on in pieces, and that each byte is hashed once."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from hashlib import md5

import pytest

from proxy.store.uploads import Arriving
from proxy.store.values import Description, Received
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.rpc.transport import Body

PIECE = 1000


class Sending:
    """A client that sends chunks of these sizes."""

    def __init__(self, sizes: Sequence[int], size: int | None = None) -> None:
        self.size = size
        self.body = bytes(at % 251 for at in range(sum(sizes)))
        self.taken = 0
        self._sizes = sizes

    async def chunks(self) -> AsyncIterator[Body]:
        for size in self._sizes:
            self.taken += size
            yield self.body[self.taken - size : self.taken]

    def finish(self, received: Received) -> Description:
        return Description({"etag": received.md5})


@pytest.mark.parametrize(
    ("sizes", "pieces"),
    [
        ([], []),
        ([10], [10]),
        ([400, 400, 400], [1000, 200]),
        ([400, 600, 1], [1000, 1]),
        ([999, 2, 999], [1000, 1000]),
        ([5000, 1, 1, 5000], [5000, 1000, 4002]),
        ([999, 2, 998], [1000, 999]),
        ([999, 1001], [1000, 1000]),
        ([100] * 25, [1000, 1000, 500]),
    ],
    ids=str,
)
async def test_small_chunks_are_joined_to_full_pieces_and_only_what_came_larger_stays_so(
    sizes: list[int], pieces: list[int]
) -> None:
    sending = Sending(sizes, size=RPC_BODY_BYTES_MAX + 1)
    async with aclosing(Arriving(sending)) as arriving:
        assert await arriving.small() is None
        got = [bytes(piece) async for piece in arriving.stream(PIECE)]
        assert list(map(len, got)) == pieces
        assert b"".join(got) == sending.body
        assert arriving.received() == Received(len(sending.body), md5(sending.body).hexdigest())


async def test_what_came_before_a_body_proved_large_leads_it_and_is_hashed_once() -> None:
    sending = Sending([RPC_BODY_BYTES_MAX, 1, 10])
    async with aclosing(Arriving(sending)) as arriving:
        assert await arriving.small() is None
        assert sending.taken == RPC_BODY_BYTES_MAX + 1
        got = [bytes(piece) async for piece in arriving.stream(PIECE)]
        assert list(map(len, got)) == [RPC_BODY_BYTES_MAX + 1, 10]
        assert b"".join(got) == sending.body
        assert arriving.received() == Received(len(sending.body), md5(sending.body).hexdigest())


async def test_a_reader_that_leaves_early_takes_no_more_of_the_body() -> None:
    sending = Sending([PIECE] * 10, size=RPC_BODY_BYTES_MAX + 1)
    async with aclosing(Arriving(sending)) as arriving, aclosing(arriving.stream(PIECE)) as pieces:
        async for piece in pieces:
            assert len(piece) == PIECE
            break
    assert sending.taken == PIECE
