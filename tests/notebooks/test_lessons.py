"""The notebooks are made from their texts, their outputs are what their cells print, and their solutions solve."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from common.console import UserError
from common.files import read_text
from notebooks import build
from notebooks.build import HERE, MOST_BYTES, ROOT, assembled, names
from tests.commands import run

each_notebook = pytest.mark.parametrize("name", names())
each_lesson = pytest.mark.parametrize(
    "name", [name for name in names() if "solution()" in read_text(HERE / f"{name}.md")]
)
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def committed(name: str) -> dict:
    return json.loads((HERE / f"{name}.ipynb").read_text(encoding="utf-8"))


def source_of(cell: dict) -> str:
    return "".join(cell["source"])


@each_notebook
def test_a_notebook_is_made_from_its_text_and_so_is_its_page(name):
    fresh, notebook = assembled(name), committed(name)
    assert notebook["metadata"]["tritune"] == fresh.metadata["tritune"], "run `make notebooks`"
    assert [source_of(cell) for cell in notebook["cells"]] == [cell.source for cell in fresh.cells]
    page = (HERE / f"{name}.html").read_text(encoding="utf-8")
    assert f'content="{fresh.metadata["tritune"]["sha256"]}"' in page, "run `make notebooks`"


@each_notebook
def test_every_cell_was_run_in_order_and_none_failed(name):
    cells = [cell for cell in committed(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert not [cell for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"]


@each_notebook
def test_a_page_needs_no_network_and_both_files_are_small(name):
    page = (HERE / f"{name}.html").read_text(encoding="utf-8")
    foreign = r"<script|<link|<iframe(?! srcdoc=)|@import|url\(\s*[\"']?https?:|src=[\"'](?!data:)"
    assert not re.search(foreign, page)
    assert all((HERE / f"{name}{suffix}").stat().st_size < MOST_BYTES for suffix in (".ipynb", ".html"))
    assert str(ROOT) not in page and str(ROOT) not in (HERE / f"{name}.ipynb").read_text(encoding="utf-8")


@each_lesson
def test_a_lesson_prints_what_it_shows_and_its_solutions_solve(name, monkeypatch):
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    variables: dict = {}
    solutions = 0
    for number, cell in enumerate(committed(name)["cells"]):
        if cell["cell_type"] == "code":
            said = executed(source_of(cell), variables, f"{name}, cell {number}")
            shown = "".join("".join(output.get("text", ())) for output in cell["outputs"])
            if "PROJECT = " not in source_of(cell):  # which names the device
                assert said == shown, f"cell {number}: run `make notebooks`"
        elif "<details>" in source_of(cell):
            executed("".join(CODE.findall(source_of(cell))), variables, f"{name}, solution {solutions + 1}")
            solutions += 1
    assert solutions == 3


def executed(code: str, variables: dict, where: str) -> str:
    """What the code prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, where, "exec"), variables)
    return said.getvalue()


def test_a_cell_that_fails_and_a_name_that_is_none_end_in_one_line(tmp_path, monkeypatch):
    assert "no such notebook" in run("-m", "notebooks.build", "nothing").stderr
    text = "# A lesson\n\n```python\nprint(1)\n```\n\n```python\nraise ValueError('in a cell')\n```\n"
    (tmp_path / "lesson.md").write_text(text)
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build"])
    with pytest.raises(UserError, match="in a cell"):
        build.main()
    assert [path.name for path in tmp_path.iterdir()] == ["lesson.md"]


@pytest.mark.slow
def test_outside_of_the_project_the_first_cell_is_enough(tmp_path):
    """In a fresh environment with nothing but Jupyter's kernel, and in an empty folder."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    python = tmp_path / "environment" / "bin" / "python"
    torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"
    subprocess.run([python, "-m", "pip", "install", "--quiet", torch, "ipykernel", "nbclient"], check=True)
    folder = tmp_path / "empty"
    folder.mkdir()
    code = (
        "import sys, nbformat, nbclient; nbclient.NotebookClient(nbformat.read(sys.argv[1], 4), timeout=None).execute()"
    )
    for name in names():
        shutil.copy(HERE / f"{name}.ipynb", folder)
        command, environment = [python, "-c", code, f"{name}.ipynb"], os.environ | {"TRITUNE": str(ROOT), "SMOKE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
    assert (folder / "tritune" / "train_sft.py").is_file()
