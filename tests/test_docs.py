"""What the documentation shows is what the repository holds: its code runs, its loop, commands and figures are real."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

from tests.commands import run

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    path
    for folder in (ROOT, DOCS, ROOT / "bench", ROOT / "notebooks", ROOT / "paper")
    for path in sorted(folder.glob("*.md"))
]
COMMAND = re.compile(r"^(?:torchrun .* -- |python )(-m [\w.]+|\w+\.py)(.*)$", re.MULTILINE)
TOUR_LINES, FILE_LINES = 1_900, 350


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_of(page: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", read(DOCS / page), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    return "".join(blocks)


def run_code(code: str, page: str, capsys) -> None:
    exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r'# "(.*)"', code)


@pytest.mark.parametrize(
    "page",
    [
        "model.md",
        "retrieval.md",
        "evaluation.md",
        # with thirty layers of gradients; the lessons in notebooks/ are of their sections too
        *(pytest.param(page, marks=pytest.mark.slow) for page in ("methods.md", "training.md")),
    ],
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, capsys):
    run_code(code_of(page), page, capsys)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", read(page))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_named_in_the_text_exist(page):
    """`model/loss.py`, `tests/parity`: a path in backticks that begins with one of our folders."""
    folders = "bench|common|data|docs|eval|experiments|lora|model|paper|recipes|sandbox|tests|training"
    named = re.findall(rf"`((?:{folders})/[\w./]*\w/?)`", read(page))
    assert not [path for path in named if not (ROOT / path).exists()]


def learn_of_train_sft() -> ast.FunctionDef:
    body = ast.parse(read(ROOT / "train_sft.py")).body
    (learn,) = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "learn"]
    return learn


def test_the_readme_shows_the_loop_as_it_is():
    """After a change of the loop, copy it again."""
    (loop,) = [node for node in learn_of_train_sft().body if isinstance(node, ast.For)]
    lines = read(ROOT / "train_sft.py").splitlines()[loop.lineno - 1 : loop.end_lineno]
    (shown,) = re.findall(r"^```python\n(.*?)^```", read(ROOT / "README.md"), re.DOTALL | re.MULTILINE)
    assert shown == textwrap.dedent("\n".join(lines)) + "\n"


def test_the_readme_is_short():
    assert len(read(ROOT / "README.md").splitlines()) < 120


def test_the_figures_of_the_readme_are_those_of_the_benchmarks():
    table = read(ROOT / "README.md").partition("## Measured")[2].partition("\n## ")[0]
    results = [re.split(r"\s*\|\s*", line) for line in read(ROOT / "bench" / "RESULTS.md").splitlines()]
    rows = [re.split(r"\s*\|\s*", line)[2:5] for line in table.splitlines() if re.match(r"\| \S", line)]
    assert len(rows) > 4
    for ours, theirs, ratio in rows:
        matching = [cells for cells in results if ours in cells and theirs in cells]
        assert any(not ratio or any(cell.split(" ")[0] == ratio for cell in cells) for cells in matching), (
            ours,
            theirs,
        )


def test_the_tour_is_an_evening():
    rows = re.findall(r"^\| (\d+) \| \[`(.*?)`\]\((.*?)\).*? \| (\d+) \| .*\? \|$", read(DOCS / "README.md"), re.M)
    assert [int(number) for number, *_ in rows] == list(range(1, 14))
    assert rows[0][1] == "train_sft.py" and rows[-1][1] == "eval/perplexity.py"
    assert all((DOCS / link).resolve() == ROOT / name for _, name, link, _ in rows)
    learn = learn_of_train_sft()
    lines = {name: len(read(ROOT / name).splitlines()) for _, name, *_ in rows}
    assert max(lines.values()) < FILE_LINES
    lines["train_sft.py"] = learn.end_lineno - learn.lineno + 1
    assert sum(lines.values()) < TOUR_LINES
    assert sum(int(minutes) for *_, minutes in rows) <= 180


def test_every_command_is_listed():
    """A file with a command line is one that ends in `run_command`."""
    files = [
        *ROOT.glob("*.py"),
        *(path for package in ROOT.glob("*/__init__.py") for path in package.parent.rglob("*.py")),
    ]
    ours = [path.relative_to(ROOT) for path in files if path.relative_to(ROOT).parts[0] != "common"]
    commands = {path for path in ours if "sys.exit(run_command(" in read(ROOT / path)}
    names = {
        path.name if len(path.parts) == 1 else "-m " + ".".join(path.with_suffix("").parts).removesuffix(".__main__")
        for path in commands
    }
    listed = {name for name, _ in COMMAND.findall(read(DOCS / "commands.md"))}
    assert listed == names


def test_every_option_that_is_shown_exists():
    shown: dict[tuple[str, ...], set[str]] = {}
    for page in (DOCS / "commands.md", ROOT / "README.md"):
        for name, rest in COMMAND.findall(read(page).replace("\\\n", " ")):
            words = tuple(name.split())
            if name == "search.py":
                words += (rest.split()[0],)
            shown.setdefault(words, set()).update(re.findall(r"--[a-z][\w-]*", rest.partition("#")[0]))
    assert len(shown) > 35
    for words, options in shown.items():
        explained = set(re.findall(r"--[a-z][\w-]*", run(*words, "--help").stdout))
        assert options <= explained, (words, options - explained)
