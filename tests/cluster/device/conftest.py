"""Hosts and processes for the tests of the device process; what they start, they end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.device.hosts import Host, Running


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host of one device."""
    return Host.make(tmp_path)


@pytest.fixture
def run() -> Iterator[Callable[[Running], Running]]:
    """Take care of a process until the test ends."""
    running: list[Running] = []

    def take(process: Running) -> Running:
        running.append(process)
        return process

    yield take
    for process in running:
        process.end()
