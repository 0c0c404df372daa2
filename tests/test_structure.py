"""The house: imports point one way, the model folder stands alone, nothing pickled is loaded."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "common": set(),
    "model": {"common"},
    "sandbox": {"common"},
    "lora": {"common", "model"},
    "data": {"common", "model", "sandbox"},
    "eval": {"common", "model", "sandbox", "data", "lora"},
    "training": {"common", "model", "data", "lora", "eval"},
}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {_module(node.module, alias.name) for alias in node.names}
    return names


def _module(package: str, name: str) -> str:
    """What `from package import name` reads: a module of ours of that name, else the package."""
    place = ROOT.joinpath(*package.split("."), name)
    return f"{package}.{name}" if place.is_dir() or place.with_suffix(".py").is_file() else package


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    home = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imported(path)} & (MAY_IMPORT.keys() - {home})
    assert ours <= MAY_IMPORT[home]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_import_circles_within_a_folder(folder):
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): imported(path)
        for path in (ROOT / folder).rglob("*.py")
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in graph[name] & graph.keys():
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_nothing_pickled_is_ever_loaded():
    for path in [*FILES, *ROOT.glob("*.py")]:
        names = imported(path)
        calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"} and "torch.load" not in calls, path


def test_json_lines_are_read_in_one_place():
    """common/files.py knows where a row ends and what gzip is; str.splitlines cuts rows at U+2028 and U+0085."""
    for path in [*FILES, *ROOT.glob("*.py"), *ROOT.glob("bench/*.py")]:
        if path == ROOT / "common" / "files.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert "gzip" not in imported(path), path
        for node in ast.walk(tree):
            if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.For | ast.Call):
                text = ast.unparse(node)
                parses = "json.loads(" in text or "parse_json(" in text
                assert not (parses and "splitlines" in text), f"{path}:{node.lineno}"


def test_no_autocast_encloses_a_loop():
    """Autocast may keep what it has cast until its outermost block ends: an optimiser step inside went unseen."""
    seen = 0
    for path in [*FILES, *ROOT.glob("*.py"), *(ROOT / "bench").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.With) and any("autocast(" in ast.unparse(item) for item in node.items):
                seen += 1
                loops = [part for line in node.body for part in ast.walk(line) if isinstance(part, ast.For | ast.While)]
                assert not loops, f"{path}:{node.lineno}"
    assert seen > 8
