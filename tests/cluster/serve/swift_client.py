"""A client of the Swift API that does one thing at a time and tells exactly how it ended."""

import http.client
import json
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlsplit


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Swift:
    """One user at one proxy, over one connection that is opened again when it was lost. Not for several threads."""

    def __init__(self, address: tuple[str, int], user: str, key: str, timeout_s: float = 20.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        answer = self.ask("GET", "/auth/v1.0", headers={"X-Auth-User": user, "X-Auth-Key": key})
        assert answer.status == 200, answer
        self.token = answer.headers["x-auth-token"]
        self.path = urlsplit(answer.headers["x-storage-url"]).path

    @classmethod
    def of(cls, ready: dict[str, Any], **options: float) -> "Swift":
        """Sign in by what serve printed."""
        url, swift = urlsplit(ready["endpoint"]), ready["swift"]
        assert url.hostname is not None
        assert url.port is not None
        return cls((url.hostname, url.port), swift["user"], swift["key"], **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send one request; the world's faults come as OSError or HTTPException, and nothing is repeated."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=self._timeout_s)
        try:
            self._connection.request(method, path, body or None, headers or {})
            answer = self._connection.getresponse()
            found = Answer(
                answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            )
            if answer.will_close:
                self.close()
        except BaseException:
            self.close()
            raise
        return found

    def request(self, method: str, *names: str, body: bytes = b"", query: str = "", **headers: str) -> Answer:
        """Send one request about an account, a container or an object, by its names."""
        path = "/".join([self.path, *(quote(name, safe="") for name in names)])
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(
            method, f"{path}?{query}" if query else path, body, {"X-Auth-Token": self.token, **given}
        )

    def put(self, container: str, name: str, body: bytes) -> Answer:
        """Store an object."""
        return self.request("PUT", container, name, body=body, Content_Length=str(len(body)))

    def names(self, container: str) -> list[str]:
        """List all names of a container, page by page."""
        found: list[str] = []
        while True:
            marker = quote(found[-1], safe="") if found else ""
            answer = self.request("GET", container, query=f"format=json&marker={marker}")
            assert answer.status == 200, answer
            page = [item["name"] for item in json.loads(answer.body)]
            if not page:
                return found
            found += page
