"""Clients that put, get, delete and list all the while, and know what must be there in the end.

Each lane has names of its own, and so knows what every answer must be: after a request whose outcome nobody told, either
what was before or what was asked for, and from the next answer on, only that.
"""

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.cluster.serve.clusters import Span, wait_for
from tests.cluster.serve.swift_client import Answer, Swift

SIZES = (1, 300, 4_096, 70_000)
Content = bytes | None
"""What an object holds; None: there is no such object."""


class Lane:
    """One client, at one proxy after the other, with its own names in a shared container."""

    def __init__(
        self, number: int, connect: list[Callable[[], Swift]], container: str, names: int = 8
    ) -> None:
        self.errors: list[str] = []
        self.ended: Counter[str] = Counter()
        """Requests by method and status; `lost` where the connection broke."""
        self.lost: list[Span] = []
        """The requests whose connection broke, from its opening on."""
        self.possible: dict[str, set[Content]] = {f"{number:02}-{at}": {None} for at in range(names)}
        self.unsure: set[str] = set()
        """Names whose last write was not answered: if it is there, its row may be owed until a device's updater pays."""
        self._number = number
        self._connect = connect
        self._container = container
        self._random = Random(number)

    def run(self, ended: threading.Event) -> None:
        """Work until told to end, or until something is wrong."""
        try:
            while not ended.is_set() and not self.errors:
                self._step()
        except Exception as error:
            self.errors.append(f"lane {self._number}: {error!r}")

    def _step(self) -> None:
        name = self._random.choice(list(self.possible))
        what = self._random.choice(("put", "put", "get", "get", "delete", "list"))
        match what:
            case "put":
                body = os.urandom(self._random.choice(SIZES))
                self._write(name, body, "PUT", (201,), body)
            case "delete":
                self._write(name, None, "DELETE", (204, 404), b"")
            case "get":
                self._get(name)
            case _:
                self._list()

    def _write(self, name: str, then: Content, method: str, done: tuple[int, ...], body: bytes) -> None:
        # Until an answer says otherwise, it may or may not have happened.
        self.possible[name] = self.possible[name] | {then}
        self.unsure.add(name)
        answer = self._ask(method, name, body)
        if answer is not None and answer.status in done:
            self.possible[name] = {then}
            self.unsure.discard(name)

    def _get(self, name: str) -> None:
        answer = self._ask("GET", name)
        if answer is None or answer.status not in (200, 404):
            return
        content = answer.body if answer.status == 200 else None
        self.check(name, content)
        self.possible[name] = {content}

    def _list(self) -> None:
        answer = self._ask("GET", "", query=f"prefix={self._number:02}-")
        if answer is None or answer.status not in (200, 204):
            return
        listed = set(answer.body.decode().split())
        for name, possible in self.possible.items():
            if name in self.unsure:
                continue
            if name in listed and possible == {None}:
                self.errors.append(f"{name} is listed and not there")
            if name not in listed and None not in possible:
                self.errors.append(f"{name} is there and not listed")

    def check(self, name: str, content: Content) -> None:
        """Note it when an object cannot be what it is."""
        if content not in self.possible[name]:
            told = "missing" if content is None else f"{len(content)} bytes of something else"
            self.errors.append(f"{name} is {told}")

    def _ask(self, method: str, name: str, body: bytes = b"", query: str = "") -> Answer | None:
        """Send one request on a connection of its own, to any proxy; None when the connection broke."""
        headers = {"Content_Length": str(len(body))} if method == "PUT" else {}
        names = (self._container, name) if name else (self._container,)
        began_s = time.monotonic()
        try:
            with self._random.choice(self._connect)() as swift:
                answer = swift.request(method, *names, body=body, query=query, **headers)
        except (OSError, http.client.HTTPException):
            self.lost.append(Span(began_s, time.monotonic()))
            self.ended[f"{method} lost"] += 1
            return None
        self.ended[f"{method} {answer.status}"] += 1
        return answer


@contextmanager
def at_work(lanes: list[Lane]) -> Iterator[Callable[[], Counter[str]]]:
    """Let all lanes work while the block runs; yields how many requests have ended, and how."""
    ended = threading.Event()
    threads = [threading.Thread(target=lane.run, args=(ended,)) for lane in lanes]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum((lane.ended for lane in lanes), Counter())
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert [error for lane in lanes for error in lane.errors] == []


def check_all(lanes: list[Lane], swift: Swift, container: str, rows_within_s: float = 60.0) -> None:
    """See that everything acknowledged is there, by reads and at once by the listing; the listing soon agrees on the rest."""
    there: dict[str, bool] = {}
    listed = set(swift.names(container))
    for lane in lanes:
        for name in lane.possible:
            answer = swift.request("GET", container, name)
            assert answer.status in (200, 404), answer
            lane.check(name, answer.body if answer.status == 200 else None)
            there[name] = answer.status == 200
            assert name in lane.unsure or (name in listed) == there[name], name
        assert lane.errors == []
    wanted = {name for name, is_there in there.items() if is_there}
    wait_for(lambda: set(swift.names(container)) == wanted, "the listing has what is there", rows_within_s)
