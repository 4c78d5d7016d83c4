"""Scrapes: what a process has counted, served to Prometheus on loopback.

Owns the thread that does. What is counted, and what a taken port means to the process, is the process's own.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server


def serve_scrapes(port: int, registry: CollectorRegistry) -> Callable[[], None]:
    """Serve a registry on a port of loopback, unless the port is 0; return what ends that. Raises OSError: the port is taken."""
    if port == 0:
        return lambda: None
    server, thread = start_http_server(port, "127.0.0.1", registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
