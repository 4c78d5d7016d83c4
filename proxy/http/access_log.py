"""The access log: one line for each request.

Owns the line and its buffering. A line is built once and written with all others of its loop turn, since formatting and
writing each by itself would cost as much as answering a small request. Never holds a query (signatures stand there), a
header or a name that is not percent-encoded, so that no line can be forged and no secret kept.

    2026-01-31T12:00:00.123456Z INFO proxy.access worker=w1 pid=4711 | 10.0.0.7 AUTH_test:tester PUT /v1/AUTH_test/c/o 201 in=4096 out=0 ms=1.94 tx0123…
"""

import asyncio
import os
import sys
from collections.abc import Callable

from proxy.http.dates import format_iso


class AccessLog:
    """Collects the lines of one worker and writes those of a loop turn at once."""

    def __init__(
        self,
        context: str,
        write: Callable[[str], object] = lambda text: sys.stderr.write(text),
        flush: Callable[[], object] = lambda: sys.stderr.flush(),
    ) -> None:
        """Take the fields that every line carries, such as `worker=w1`, and where lines go."""
        self._head = f"Z INFO proxy.access {context} pid={os.getpid()} | "
        self._write = write
        self._flush_sink = flush
        self._lines: list[str] = []

    def note(
        self,
        ended_us: int,
        remote: str,
        who: str,
        method: str,
        raw_path: str,
        status: int,
        received: int,
        sent: int,
        seconds: float,
        transaction_id: str,
    ) -> None:
        """Take note of a request that has ended."""
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(
            f"{format_iso(ended_us)}{self._head}{remote or '-'} {who} {method} {raw_path} {status} "
            f"in={received} out={sent} ms={seconds * 1000:.2f} {transaction_id}\n"
        )

    def flush(self) -> None:
        """Write what was collected."""
        lines, self._lines = self._lines, []
        if lines:
            self._write("".join(lines))
            self._flush_sink()
