"""Free ports on loopback."""

import socket


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now; all are held open until the last is found, so they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
