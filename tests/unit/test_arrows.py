"""Who may import whom, read from the import statements, wherever in a module they stand."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

MAY_IMPORT = {
    "swiftlike": set[str](),
    "ring": {"swiftlike"},
    "storage_node": {"swiftlike", "ring"},
    "proxy": {"swiftlike", "ring"},
    "tools": {"swiftlike", "ring", "storage_node", "proxy"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}

READ_SIDE = [
    "ring/ring.py",
    "ring/file.py",
    "ring/watcher.py",
    "ring/files.py",
    "ring/handoffs.py",
    "ring/hashing.py",
    "ring/device.py",
]


def imported(source: str) -> Iterator[str]:
    """Yield the modules that a source imports by their whole names; a relative import stays at home and is left out."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def crossings(package: str) -> list[str]:
    """The imports of a package that go where no arrow points."""
    allowed = {package, *MAY_IMPORT[package]}
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in modules_of(package)
        for module in imported(path.read_text())
        if module.partition(".")[0] in OURS - allowed
    ]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    assert modules_of(package), "an empty package would pass unseen"
    assert crossings(package) == []


def test_every_package_has_its_arrows() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == OURS


def test_only_the_side_of_the_ring_that_changes_it_imports_numpy() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for package in ("swiftlike", "ring", "storage_node", "proxy")
        for path in modules_of(package)
        if "numpy" in {module.partition(".")[0] for module in imported(path.read_text())}
    }
    assert [path for path in importers if not path.startswith("ring/builder")] == []


@pytest.mark.parametrize("path", READ_SIDE)
def test_the_read_side_of_the_ring_does_not_import_the_builder(path: str) -> None:
    assert [
        module for module in imported((ROOT / path).read_text()) if module.startswith("ring.builder")
    ] == []


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import proxy.server", ["proxy.server"]),
        ("import os, proxy as p", ["os", "proxy"]),
        ("from proxy import server", ["proxy"]),
        ("from proxy.cluster.quorum import judge", ["proxy.cluster.quorum"]),
        ("def late():\n    from proxy import server", ["proxy"]),
        ("async def late():\n    import proxy", ["proxy"]),
        ("class C:\n    import proxy", ["proxy"]),
        ("if TYPE_CHECKING:\n    from proxy import server", ["proxy"]),
        ("try:\n    import proxy\nexcept ImportError:\n    raise", ["proxy"]),
        ("from . import server", []),
        ("from .cluster import quorum", []),
        ("text = 'import proxy'", []),
    ],
    ids=str,
)
def test_an_import_is_seen_wherever_it_stands(source: str, modules: list[str]) -> None:
    assert list(imported(source)) == modules


def test_a_crossing_is_told_by_its_file_and_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "server.py").write_text("def run():\n    from storage_node.index import Index\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert crossings("proxy") == ["proxy/server.py imports storage_node.index"]
