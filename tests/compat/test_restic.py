"""The life of a backup in restic, with the settings of the page and no flag."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.compat.clients import Person, assert_same, find


@pytest.fixture
def restic(ready: dict[str, Any], tmp_path: Path) -> Person:
    find("restic")
    return Person(tmp_path, ready, "restic")


def test_backups_are_made_checked_restored_and_forgotten(restic: Person, tree: Path) -> None:
    restic.run("restic", "init")
    restic.run("restic", "backup", "up")
    (tree / "more").write_bytes(os.urandom(4_000_000))
    (tree / "a.txt").unlink()
    restic.run("restic", "backup", "up")
    assert b"no errors were found" in restic.run("restic", "check", "--read-data")
    restic.run("restic", "restore", "latest", "--target", "down")
    assert_same(tree, restic.home / "down" / "up")
    restic.run("restic", "forget", "--keep-last", "1", "--prune")
    assert b"no errors were found" in restic.run("restic", "check", "--read-data")
    restic.run("restic", "restore", "latest", "--target", "again")
    assert_same(tree, restic.home / "again" / "up")
