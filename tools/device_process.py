"""The process of one device with all that it needs: the device, and the quorum client that its jobs ask.

Owns nothing but the two being brought together, which neither package may do: a storage node and a proxy know each other
only by what travels between them.

    python -m tools.device_process --config HOST.toml --device NAME
"""

import sys

from proxy.opening import open_quorums
from storage_node import process
from swiftlike import signals


def main(arguments: list[str] | None = None) -> int:
    """Serve one device until told to stop; return the exit code."""
    return process.main(arguments, open_quorums)


if __name__ == "__main__":
    signals.ignore_hangups()
    sys.exit(main())
