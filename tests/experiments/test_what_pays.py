"""The command of experiments/what_pays, from a repository to the page, on a tiny model."""

from __future__ import annotations

import pytest

from common.files import read_json
from experiments.what_pays.run import name_of
from tests import test_self_improve
from tests.eval.what_pays.test_what_pays import LONGER, with_room, without_prefixes


def test_repositories_have_short_names():
    named = {source: name_of(source) for source in ("package:networkx", "pypi:sympy==1.14.0", "/code/mine", "mine")}
    assert [*named.values()] == ["networkx", "sympy", "mine", "mine"]


@pytest.fixture
def files(tmp_path, monkeypatch, tiny_folder, reference_encoder):
    """A repository of functions with doctests, a model, an encoder."""
    monkeypatch.setattr(test_self_improve, "FUNCTION", LONGER)
    test_self_improve.write_package(tmp_path / "code")
    model = with_room(tiny_folder, tmp_path / "model")
    encoder = without_prefixes(reference_encoder[1], tmp_path / "encoder")
    return "--repositories", tmp_path / "code", "--model", model, "--encoder", encoder


def test_it_runs_from_a_repository_to_the_page_and_a_clone_has_what_is_done(smoke, files, tmp_path):
    results, page = smoke("what_pays", *files)
    found = results["repositories"]["code"]
    assert [row["arm"] for row in found["rows"]] == [
        f"{who}{search}" for who in ("base", "A", "B") for search in ("", " + search by encoder", " + search by tuned")
    ]
    trained = [row["cost"]["training_minutes"] > 0 for row in found["rows"]]
    assert trained == [False, False, True, *[True] * 6]  # C takes time, too
    assert found["rows"][3]["metrics"]["perplexity"] != found["rows"][0]["metrics"]["perplexity"]
    assert found["advice"] in page and f"| base | {found['rows'][0]['metrics']['pass@1']:.3f} [" in page
    assert (tmp_path / "what_pays" / "code.svg").read_text().startswith("<svg")

    # in a clone, without the runs: nothing is measured anew, and the same is found
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    before = len(smoke.commands)
    again, _ = smoke("what_pays", *files)
    assert smoke.commands[before:] == [] and again == results
    assert read_json(tmp_path / "what_pays" / "results.json") == results
