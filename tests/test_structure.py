"""The house: imports point one way, the model folder stands alone, nothing pickled is loaded."""

from __future__ import annotations

import ast
import functools
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
# What the folders and files within one of these may use of each other; a file not named here may use them all.
WITHIN = {
    "data": {
        "likeness": set(),
        "corpus": {"likeness"},
        "checks": {"corpus", "likeness"},
        "search": {"corpus", "likeness"},
        "instruct": {"checks", "corpus", "likeness", "masking", "rows", "search", "turns"},
        "pairs": {"corpus", "hard_negatives", "instruct", "likeness", "search"},
        # what a loop reads
        "turns": set(),
        "text_rows": set(),
        "rows": {"text_rows", "turns"},
        "masking": {"rows", "text_rows"},
        "packing": {"masking"},
        "fim": {"masking"},
        "replay": {"masking", "packing", "rows"},
        "import_order": set(),
        "hard_negatives": {"likeness"},
        "contrastive": {"hard_negatives", "likeness"},
        "show_rows": {"masking", "packing", "rows"},
    },
    "eval": {
        "stats": set(),
        "charts": set(),
        "environment": set(),
        "model_options": set(),
        "change_table": {"stats"},
        "compare": {"change_table", "charts", "stats"},
        "causes": {"malformed_loop"},  # why answers failed, of instruction pairs and of code tasks
        "malformed_loop": set(),
        "code": {"causes", "environment", "malformed_loop", "model_options", "stats"},
        "text": {"change_table", "environment", "model_options", "nearest_training_example", "stats"},
        "instruct": {"code", "environment", "model_options", "stats"},  # code: pass@k
        "retrieval": {"change_table", "compare", "environment", "model_options", "stats"},
        "report": {"change_table", "charts", "compare", "instruct", "stats"},
    },
}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
# the top floors: nothing below names them
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} | {"bench", "experiments", "notebooks", "paper"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").removesuffix(".__main__")


MODULES = {dotted(path) for path in FILES}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {_module(node.module, alias.name) for alias in node.names}
    return names


def _module(package: str, name: str) -> str:
    """What `from package import name` reads: a module of ours of that name, else the package."""
    place = ROOT.joinpath(*package.split("."), name)
    return f"{package}.{name}" if place.is_dir() or place.with_suffix(".py").is_file() else package


def named_in_strings(tree: ast.AST) -> set[str]:
    """Modules and scripts of ours that a string names: in a command, after `-m`, for importlib.

    Docstrings and the message of an error that is raised are for people: they may name what lies above.
    """
    for_people = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for inner in ast.walk(node)
    }
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in for_people
    ]
    modules = {word for text in strings for word in text.split() if "." in word and word in MODULES}
    return modules | {text.removesuffix(".py") for text in strings if text.endswith(".py")} & SCRIPTS


def refused(path: Path, tree: ast.AST) -> set[str]:
    """Modules that a file uses, by an import or by their name in a string, and that its floor does not allow."""
    home, *below = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for name in imported(tree) | named_in_strings(tree):
        folder, _, rest = name.partition(".")
        if folder in SCRIPTS or (folder in MAY_IMPORT and folder != home and folder not in MAY_IMPORT[home]):
            found.add(name)
        elif folder == home and below[0] in WITHIN.get(home, {}):
            part = rest.partition(".")[0]
            if part and part != below[0] and part not in WITHIN[home][below[0]]:
                found.add(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_reaches_up(path):
    assert refused(path, parsed(path)) == set()


@pytest.mark.parametrize(
    ("place", "text", "module"),
    [
        ("data/rows.py", "from eval.stats import mean", "eval.stats"),
        ("data/rows.py", "import train_cpt", "train_cpt"),
        ("data/rows.py", "def late():\n    import data.corpus", "data.corpus"),
        ("data/checks/jobs.py", "from data.instruct import teacher", "data.instruct.teacher"),
        ("data/corpus/build.py", "from data.search.index import Index", "data.search.index"),
        ("eval/code/grade.py", "from eval.instruct.grade import GREEDY", "eval.instruct.grade"),
        ("data/checks/jobs.py", "run(['python', '-m', 'eval.instruct'])", "eval.instruct"),
        ("data/checks/jobs.py", "run('python -m data.pairs CORPUS')", "data.pairs"),
        ("data/rows.py", "import_module('eval.stats')", "eval.stats"),
        ("model/loss.py", "run(['python', 'train_sft.py'])", "train_sft"),
    ],
)
def test_what_reaches_up_is_seen(place, text, module):
    assert refused(ROOT / place, ast.parse(text)) == {module}


def test_what_reaches_down_is_allowed():
    text = '"""As eval.instruct does."""\nfrom data.corpus import locate\nrun("python -m sandbox", "data.checks.prove")'
    assert refused(ROOT / "data/checks/jobs.py", ast.parse(text)) == set()


@pytest.mark.parametrize("folder", WITHIN)
def test_every_floor_within_a_folder_is_there(folder):
    for name, below in WITHIN[folder].items():
        assert all((ROOT / folder / one).is_dir() or (ROOT / folder / f"{one}.py").is_file() for one in {name} | below)


@pytest.mark.parametrize("folder", WITHIN)
def test_floors_within_a_folder_have_no_circle(folder):
    assert find_circle(WITHIN[folder]) is None


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_import_circles_within_a_folder(folder):
    graph = {}
    for path in (ROOT / folder).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = imported(parsed(path))
    assert find_circle(graph) is None


def find_circle(graph: dict[str, set[str]]) -> str | None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> str | None:
        if name in above:
            return " -> ".join([*above, name])
        if name in done:
            return None
        done.add(name)
        return next((found for other in graph[name] & graph.keys() if (found := visit(other, (*above, name)))), None)

    return next((found for name in graph if (found := visit(name, ()))), None)


def test_a_circle_is_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == "a -> b -> c -> b"
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_nothing_pickled_is_ever_loaded():
    for path in [*FILES, *ROOT.glob("*.py")]:
        tree = parsed(path)
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not imported(tree) & {"pickle", "marshal", "shelve", "dill", "joblib"}, path
        assert "torch.load" not in calls, path


def test_json_lines_are_read_in_one_place():
    """common/files.py knows where a row ends and what gzip is; str.splitlines cuts rows at U+2028 and U+0085."""
    for path in [*FILES, *ROOT.glob("*.py"), *ROOT.glob("bench/*.py")]:
        if path == ROOT / "common" / "files.py":
            continue
        tree = parsed(path)
        assert "gzip" not in imported(tree), path
        for node in ast.walk(tree):
            if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.For | ast.Call):
                text = ast.unparse(node)
                parses = "json.loads(" in text or "parse_json(" in text
                assert not (parses and "splitlines" in text), f"{path}:{node.lineno}"


def test_no_autocast_encloses_a_loop():
    """Autocast may keep casts until its outermost block ends: it would miss an optimiser step inside."""
    seen = 0
    for path in [*FILES, *ROOT.glob("*.py"), *(ROOT / "bench").glob("*.py")]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.With) and any("autocast(" in ast.unparse(item) for item in node.items):
                seen += 1
                loops = [part for line in node.body for part in ast.walk(line) if isinstance(part, ast.For | ast.While)]
                assert not loops, f"{path}:{node.lineno}"
    assert seen > 8
