"""Who is measured: an endpoint of the Swift API, and plain requests to prepare it."""

import http.client
from typing import NamedTuple


class Endpoint(NamedTuple):
    """Where a cluster answers, and the token that it wants."""

    host: str
    port: int
    path: str
    """Of the account, such as `/v1/AUTH_test`."""
    token: str

    def request(self, method: str, path: str, body: bytes = b"") -> int:
        """Send one request on a connection of its own and return its status."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, self.path + path, body or None, {"X-Auth-Token": self.token})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()
