"""The code in the documentation runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import model

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def code_of(page: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    return "".join(blocks)


def run_code(code: str, page: str, capsys) -> None:
    exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r'# "(.*)"', code)


@pytest.mark.parametrize(
    "page", ["model.md", "retrieval.md", pytest.param("training.md", marks=pytest.mark.slow), "evaluation.md"]
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, capsys):
    run_code(code_of(page), page, capsys)


def test_the_page_on_training_runs_with_a_fifth_of_its_model(capsys, monkeypatch):
    """On the first 6 of 30 layers, which learn too slowly for one assertion. `make slow` runs the page as it stands."""
    load = model.load_decoder

    def load_a_part(*arguments, **options):
        decoder = load(*arguments, **options)
        config = dataclasses.replace(decoder.config, num_hidden_layers=6, windows=decoder.config.windows[:6])
        decoder.config = decoder.model.config = config
        decoder.model.layers = decoder.model.layers[:6]
        return decoder

    monkeypatch.setattr(model, "load_decoder", load_a_part)
    code = code_of("training.md")
    assert code.count("losses[-1] < 0.7 * losses[0]") == 1
    run_code(code.replace("0.7 * losses[0]", "losses[0]"), "training.md", capsys)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
