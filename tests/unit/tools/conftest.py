"""Operators with and without a ring."""

from pathlib import Path

import pytest

from tests.unit.tools.runs import Operator


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    """An operator with an empty directory."""
    return Operator(tmp_path, capsys)


@pytest.fixture
def owner(operator: Operator) -> Operator:
    """An operator with a ring of three devices in three zones."""
    operator.does("create", 6, 3, 1)
    operator.does(
        "add", *(part for zone in (1, 2, 3) for part in (f"r1z{zone}-10.0.0.{zone}:6200/sdb1_m", 100))
    )
    operator.does("rebalance")
    return operator
