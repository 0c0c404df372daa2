"""Notebooks that train: run from top to bottom with tiny models, and their text names the figures of their run."""

from __future__ import annotations

import json
import shutil
import sys

import nbformat
import pytest

from common.console import UserError
from data.corpus import build_corpus, save_corpus
from notebooks import build
from notebooks.build import HERE, assembled, names
from tests.browser import open_browser
from tests.data.conftest import write_repository
from tests.notebooks.test_lessons import committed, executed, source_of

with_figures = pytest.mark.parametrize("name", [name for name in names() if (HERE / f"{name}.json").is_file()])


@pytest.fixture
def tiny_models(tiny_folder, reference_encoder, tmp_path):
    """A decoder with room for the notebook's rows, and an encoder."""
    shutil.copytree(tiny_folder, tmp_path / "lm")
    config = json.loads((tmp_path / "lm" / "config.json").read_text())
    (tmp_path / "lm" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return {"LM": str(tmp_path / "lm"), "ENCODER": str(reference_encoder[1])}


def run_cells(name: str, chosen: dict) -> list[str]:
    """What the code cells print, if the variables of the settings are those `chosen`."""
    variables: dict = {}
    said = []
    for number, cell in enumerate(assembled(name).cells):
        if cell.cell_type == "code":
            said.append(executed(cell.source, variables, f"{name}, cell {number}"))
            if "OUT = " in cell.source:
                variables |= chosen
    return said


def test_the_assignment_runs_from_top_to_bottom_resumes_and_leaves_a_notebook(tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("SMOKE", "1")
    chosen = tiny_models | {"OUT": tmp_path / "run"}
    save_corpus(build_corpus(str(write_repository(tmp_path / "code"))), tmp_path / "run" / "corpus")
    printed = json.loads(run_cells("ML_Assignment_Part2", chosen)[-1])
    assert printed == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert printed["tracks"].keys() == {"cpt", "sft", "embed"}

    # again from the top: every run continues after its last checkpoint, and comes to the same
    before = {track: (tmp_path / "run" / track / "before.json").stat().st_mtime_ns for track in printed["tracks"]}
    again = json.loads(run_cells("ML_Assignment_Part2", chosen)[-1])
    assert before == {track: (tmp_path / "run" / track / "before.json").stat().st_mtime_ns for track in before}
    for track, results in printed["tracks"].items():
        assert again["tracks"][track]["after"] == pytest.approx(results["after"], rel=1e-5), track

    # and as quickstart.py --notebook does
    written = build.write_report_notebook(tmp_path / "run", title="tritune on <this>")
    cells = json.loads(written.read_text(encoding="utf-8"))["cells"]
    text = "".join(source_of(cell) for cell in cells)
    assert "# tritune on <this>" in text and "| cpt | perplexity |" in text
    pictures = [o for cell in cells for o in cell.get("outputs", ()) if "image/svg+xml" in o.get("data", {})]
    assert len(pictures) == 7  # the loss, the files, two rates by kind of task, three metrics of retrieval


@with_figures
def test_the_figures_of_a_text_are_those_that_its_last_cell_prints(name):
    cells = [cell for cell in committed(name)["cells"] if cell["cell_type"] == "code"]
    printed = "".join("".join(output.get("text", ())) for output in cells[-1]["outputs"])
    assert json.loads(printed) == json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    assert "(?)" not in build.rendered(name)


def test_before_its_first_run_a_text_has_no_figures(tmp_path, monkeypatch):
    (tmp_path / "first.md").write_text("# First\n\nIt falls to {{ run.tracks.cpt.after.perplexity | number }}.\n")
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert "It falls to (?)." in build.rendered("first")
    (tmp_path / "first.json").write_text('{"tracks": {"cpt": {"after": {"perplexity": 5.4321}}}}')
    assert "It falls to 5.432." in build.rendered("first")


def test_a_new_text_keeps_the_outputs_and_new_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "HERE", tmp_path)
    text = "# First\n\nOne line.\n\n```python\nprint(1)\n```\n"
    (tmp_path / "first.md").write_text(text)
    notebook = assembled("first")
    notebook.cells[1].outputs, notebook.cells[1].execution_count = [nbformat.v4.new_output("stream", text="1\n")], 1
    (tmp_path / "first.ipynb").write_text(nbformat.writes(notebook))

    (tmp_path / "first.md").write_text(text.replace("One line.", "Another line.\n\nAnd one more."))
    newer = build.with_new_text("first")
    assert "And one more." in newer.cells[0].source and newer.cells[1].outputs[0]["text"] == "1\n"
    (tmp_path / "first.md").write_text(text.replace("print(1)", "print(2)"))
    with pytest.raises(UserError, match="a code cell has changed"):
        build.with_new_text("first")


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_page_opens_without_errors_or_requests_and_fits_a_phone(name, tmp_path):
    with open_browser(tmp_path / "profile") as browser:
        address = (HERE / f"{name}.html").as_uri()
        for width, scheme in ((1200, "light"), (390, "dark")):
            browser.show(width=width, scheme=scheme)
            browser.open(address)
            assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.errors == []
        assert all(asked.startswith(("file:", "data:", "about:")) for asked in browser.asked)
