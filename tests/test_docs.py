"""The code in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import model

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def run_page(page: str, capsys) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    exec(compile("".join(blocks), page, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == re.findall(r'# "(.*)"', "".join(blocks))


@pytest.mark.parametrize(
    "page", ["model.md", "retrieval.md", pytest.param("training.md", marks=pytest.mark.slow), "evaluation.md"]
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, capsys):
    run_page(page, capsys)


def test_the_page_on_training_runs_with_a_fifth_of_its_model(capsys, monkeypatch):
    """Every line and assertion of it, on the first 6 of 30 layers; `make slow` runs it as it stands."""
    load = model.load_decoder

    def load_a_part(*arguments, **options):
        decoder = load(*arguments, **options)
        decoder.model.layers = decoder.model.layers[:6]
        return decoder

    monkeypatch.setattr(model, "load_decoder", load_a_part)
    run_page("training.md", capsys)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
