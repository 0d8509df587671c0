"""The shape of the code: no files that import each other in a circle, no long modules, ray in one ring.

    python tests/test_architecture.py     prints the circles, and nothing where there is none

import-linter sees the direction of imports between packages; this sees single files, and counts every import: at the
head of a module, inside a function, and for type checkers alone.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RINGS = ("finegpr", "search", "cluster")
MAX_LINES = 400


def modules(root: Path = ROOT, packages: tuple[str, ...] = RINGS) -> dict[str, Path]:
    """The files of the packages by dotted name; ``__init__`` has its package's."""
    found = {}
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def named(path: Path) -> Iterator[tuple[str, str | None]]:
    """Every import anywhere in a file: ``from a import b`` as (a, b), ``import a`` as (a, None)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; name the module in full"
            yield from ((node.module or "", alias.name) for alias in node.names)


def imports(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Which of the files each one imports: ``from a import b`` is of ``a.b`` where that is a file, else of ``a``."""
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        wanted = {f"{module}.{item}" if f"{module}.{item}" in files else module for module, item in named(path)}
        found[name] = (wanted & files.keys()) - {name}
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of files each of which leads to every other, sorted."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(group) for group in groups if group)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(imports(modules())) == []


def test_no_module_is_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_only_cluster_imports_ray() -> None:
    importers = {
        name for name, path in modules().items() if any(module.split(".")[0] == "ray" for module, _ in named(path))
    }
    assert importers
    assert {name for name in importers if not name.startswith("cluster.")} == set()


@pytest.mark.parametrize(
    "back",
    [
        "import p.one",
        "from p import one",
        "from p.one import value",
        "def late():\n    from p.one import value",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.one import value",
    ],
)
def test_a_circle_is_seen_however_it_closes(back: str, tmp_path: Path) -> None:
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("from p.two import value\n")
    (package / "two.py").write_text("import p.three\n")
    (package / "three.py").write_text(f"{back}\n")
    (package / "four.py").write_text("from p import one, two\n")
    assert circles(imports(modules(tmp_path, ("p",)))) == [["p.one", "p.three", "p.two"]]


if __name__ == "__main__":
    for circle in circles(imports(modules())):
        print(" <-> ".join(circle))
