"""Every figure in an experiment's page is the one in its results.json."""

from __future__ import annotations

import json

import jinja2
import pytest

from experiments import pages


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_page_is_what_its_results_give(name):
    if not (pages.HERE / name / "results.json").is_file():
        pytest.skip(f"{name} has not been run yet")
    assert pages.PAGES[name].read_text(encoding="utf-8") == pages.rendered(name)


def test_a_figure_that_the_results_do_not_have_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "results.json").write_text(json.dumps({"change": {"value": 0.1}}))
    (tmp_path / "one" / "page.md.j2").write_text("{{ change.value | number }} {{ change.interval }}")
    monkeypatch.setattr(pages, "HERE", tmp_path)
    with pytest.raises(jinja2.UndefinedError, match="interval"):
        pages.rendered("one")
