"""Python libraries, each in a program of its own that knows nothing but what the page says."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.compat.clients import CLIENTS, assert_same, run_program


@pytest.mark.parametrize(
    ("program", "title"),
    [
        ("boto3_tree.py", "boto3"),
        ("minio_tree.py", "MinIO's Python client"),
        ("s3fs_tree.py", "s3fs (fsspec)"),
        ("pyarrow_tables.py", "pyarrow"),
    ],
)
def test_a_library_does_what_it_is_for(
    ready: dict[str, Any], tree: Path, tmp_path: Path, program: str, title: str
) -> None:
    python = Path(sys.executable) if title == "boto3" else CLIENTS / "python"
    if not python.exists():
        pytest.skip(f"{title} is not installed: make clients")
    run_program(program, title, ready, tmp_path, python)
    assert_same(tree, tmp_path / "down")
