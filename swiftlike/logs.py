"""Logs: one event, one line, fields that a machine can split.

Owns the format and where it goes (standard error). Never decides what is worth a line.

    2026-01-31T12:00:00.123456Z INFO storage_node.process device=d1 pid=4711 | serving on 127.0.0.1:6201
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Final

_ESCAPES: Final = str.maketrans({"\n": "\\n", "\r": "\\r", "\0": "\\0", "\x1b": "\\e"})


class OneLine(logging.Formatter):
    """Formats a record as one line, a traceback included, so that nothing that is logged can forge a second one."""

    def __init__(self, context: str) -> None:
        """Take the fields that every line of this process carries, such as `device=d1`."""
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        said = record.getMessage()
        if record.exc_info:
            said += "\n" + self.formatException(record.exc_info)
        head = f"{at} {record.levelname} {record.name} {self._context} pid={record.process}"
        return f"{head} | {said.translate(_ESCAPES)}"


def set_up(level: str, context: str) -> None:
    """Log to standard error, from `level` on; called once, before anything else is started."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(context))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def set_level(level: str) -> None:
    """Change what is logged from now on."""
    logging.getLogger().setLevel(level.upper())
