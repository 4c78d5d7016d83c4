"""One cluster for all clients that do not mind each other; those that do start their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.serve.clusters import Serve
from tests.compat.clients import make_tree


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A cluster."""
    with Serve(tmp_path_factory.mktemp("clients") / "data") as serve:
        yield serve


@pytest.fixture
def ready(shared: Serve) -> dict[str, Any]:
    """What it printed when it was ready."""
    return shared.ready


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files to go up, in a home directory."""
    return make_tree(tmp_path / "up")
