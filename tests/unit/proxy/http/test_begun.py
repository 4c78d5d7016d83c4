"""Answers that have begun: the first piece is awaited, kept, and the stream behind it is ended whatever happens."""

from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from proxy.http.begun import TRIES_MAX, begun
from proxy.http.response import Response


class Gone(Exception):
    pass


def answers(gone: int, ended: list[int]) -> tuple[list[int], Callable[[], Awaitable[Response]]]:
    """Return the numbers of the answers that were made, and what makes them: the body of the first few is `gone`."""
    made: list[int] = []

    async def stream(number: int) -> AsyncGenerator[bytes, None]:
        try:
            if number < gone:
                raise Gone
            yield b"first"
            yield b"second"
        finally:
            ended.append(number)

    async def answer() -> Response:
        made.append(len(made))
        return Response(200, stream=stream(made[-1]), length=11)

    return made, answer


async def test_an_answer_is_made_anew_until_its_body_begins() -> None:
    for gone in range(TRIES_MAX):
        ended: list[int] = []
        made, answer = answers(gone, ended)
        response = await begun(answer, Gone)
        assert response.stream is not None
        assert [piece async for piece in response.stream] == [b"first", b"second"]
        assert made == ended == list(range(gone + 1))


async def test_what_is_gone_every_time_is_told() -> None:
    ended: list[int] = []
    made, answer = answers(TRIES_MAX, ended)
    with pytest.raises(Gone):
        await begun(answer, Gone)
    assert made == ended == list(range(TRIES_MAX))


async def test_a_stream_that_nobody_reads_on_is_ended() -> None:
    ended: list[int] = []
    _, answer = answers(0, ended)
    response = await begun(answer, Gone)
    await response.stream.aclose()  # type: ignore[union-attr]
    assert ended == [0]
    assert response.stream is not None
    assert [piece async for piece in response.stream] == []


async def test_an_answer_without_a_stream_is_left_as_it_is() -> None:
    whole = Response(200, body=b"whole")

    async def answer() -> Response:
        return whole

    assert await begun(answer, Gone) is whole
    assert whole.body == b"whole"
