"""Measuring search on a benchmark: what counts as found, how weights are chosen, and the command as a whole."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.console import UserError
from common.files import write_jsonl
from data.corpus import import_root
from data.search.ranking import CHOSEN, NONE, Places
from experiments import pages, stages
from experiments.code_search import choose
from experiments.code_search.choose import Measured, ascend, cross_validated
from experiments.code_search.peer import semble_values
from experiments.code_search.queries import Asked, Pool, Query, Repository, lies_in, ndcg, read_benchmark
from experiments.code_search.run import ask
from model import load_encoder
from model.distil import cached_table
from tests.commands import run

SEMBLE = Path(os.environ.get("TRITUNE_DATA", "/nowhere")) / "semble"
OWN = stages.ROOT / "data" / "search"  # functions with docstrings
WORDS = ("one", "two", "many")
UNITS = [
    {"id": f"{path}:{first}", "code": "", "source": {"path": path, "qualname": None, "lines": [first, last]}}
    for path, first, last in (("a/tree.py", 1, 5), ("a/tree.py", 7, 9), ("b.py", 1, 4), ("c.py", 1, 4))
]  # fmt: skip


def test_what_is_found():
    assert lies_in(UNITS[0], ("a/tree.py", None)) and not lies_in(UNITS[2], ("a/tree.py", None))
    assert lies_in(UNITS[0], ("a/tree.py", (5, 6))) and not lies_in(UNITS[1], ("a/tree.py", (5, 6)))
    assert lies_in(UNITS[1], "a/tree.py:7") and not lies_in(UNITS[0], "a/tree.py:7")
    # two targets: the first at rank 1, where its second unit adds nothing; the other at rank 3
    targets = (("a/tree.py", None), ("b.py", None))
    assert ndcg(UNITS[:3], targets) == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))
    assert ndcg(UNITS[:2], (("b.py", None),)) == 0


def asked(*targets) -> Asked:
    """Of each target one query: by meaning the third unit is nearest."""
    pools = [
        Pool(Query(f"q{n}", text, "symbol", (target,)), np.arange(4), np.array([0.2, 0.1, 0.9, 0.3]), np.zeros(4))
        for n, (text, target) in enumerate(targets)
    ]
    return Asked(UNITS, Places(UNITS), pools)


def test_the_weights_that_find_files_best_without_a_loss_in_functions(monkeypatch):
    monkeypatch.setattr(choose, "GRID", {"path": (0.0, 2.0)})
    files = {"m": {"r": asked(("the tree", ("a/tree.py", None))), "s": asked(("tree", ("a/tree.py", None)))}}
    harmless = Measured(files, {"m": {"f": asked(("other", "c.py:1"))}})
    assert ascend(harmless, [0, 1], NONE).path == 2.0
    # where the same rule would hide a function it is not taken
    harmed = Measured(files, {"m": {"f": asked(("tree", "b.py:1"))}})
    assert ascend(harmed, [0, 1], NONE) == NONE
    found = cross_validated(harmless, folds=2, seed=0, say=lambda line: None)
    assert len(found["folds"]) == 2 and found["files"]["m"] == 1.0


def test_a_benchmark_as_it_is_published(tmp_path):
    (tmp_path / "annotations").mkdir()
    row = {
        "query": "walk",
        "category": "symbol",
        "relevant": ["lib/a.py", {"path": "lib/b.py", "start_line": 2, "end_line": 4}],
    }
    (tmp_path / "annotations" / "one.json").write_text(json.dumps([row | {"secondary": ["lib/c.py"]}]))
    about = {"name": "one", "language": "python", "url": "u", "revision": "r", "benchmark_root": "lib"}
    (tmp_path / "repos.json").write_text(json.dumps([about, about | {"name": "two"}]))
    with pytest.raises(UserError, match="holds none of the repositories of"):
        read_benchmark(tmp_path, tmp_path / "checkouts")
    (tmp_path / "checkouts" / "one" / "lib").mkdir(parents=True)
    (found,) = read_benchmark(tmp_path, tmp_path / "checkouts")
    (query,) = found.queries
    assert query == Query("one/0", "walk", "symbol", (("a.py", None), ("b.py", (2, 4)), ("c.py", None)))


def test_the_peer_answers_the_same_queries(monkeypatch, tmp_path):
    def chunk(path, first, last):
        return SimpleNamespace(chunk=SimpleNamespace(file_path=path, start_line=first, end_line=last))

    results = [chunk("b.py", 1, 4), chunk(str(tmp_path / "a/tree.py"), 6, 9)]
    index = SimpleNamespace(search=lambda text, top_k: results[:top_k])
    made = SimpleNamespace(from_path=lambda folder, model_path: index)
    monkeypatch.setitem(sys.modules, "semble", SimpleNamespace(SembleIndex=made))
    queries = [
        Query("q", "tree", "symbol", (("a/tree.py", (9, 12)),)),
        Query("r", "tree", "symbol", (("a/tree.py", (1, 5)),)),
    ]
    values = semble_values(tmp_path, tmp_path, queries)
    assert values == {"q": pytest.approx(1 / math.log2(3)), "r": 0.0}


def test_it_runs_from_the_repositories_to_the_page(tmp_path, reference_encoder, monkeypatch):
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path / "cache"))
    checkout = tmp_path / "checkouts" / "tree"
    checkout.mkdir(parents=True)
    for name in ("walk", "grow", "prune"):
        lines = [
            f"def {name}_{n}(tree):\n    '''{name.title()} the tree number {n} down to its leaves.'''\n" for n in "abc"
        ]
        body = "".join(line + "    a = tree\n    b = a\n    c = b\n    return c\n\n\n" for line in lines)
        (checkout / f"{name}.py").write_text(body)
    (tmp_path / "benchmark" / "annotations").mkdir(parents=True)
    rows = [
        {"query": f"how to {name}", "category": "semantic", "relevant": [f"{name}.py"]} for name in ("walk", "grow")
    ]
    (tmp_path / "benchmark" / "annotations" / "tree.json").write_text(json.dumps(rows))
    write_jsonl(tmp_path / "benchmark" / "repos.json", [{"name": "tree", "language": "python", "revision": "r"}])

    command = (
        "-m", "experiments.code_search.run", "--benchmark", tmp_path / "benchmark", "--repositories", checkout.parent,
        "--models", reference_encoder[1], "--tables", "--functions", OWN, "--folds", 0, "--out", tmp_path / "runs",
        "--results", tmp_path / "code_search",
    )  # fmt: skip
    done = run(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "code_search" / "results.json").read_text())
    (model,) = found["models"].values()
    assert found["repositories"] == [{"name": "tree", "language": "python", "revision": "r", "queries": 2, "units": 12}]
    assert model["systems"]["all rules"]["n"] == 2 and "change" not in model["systems"]["no rules"]
    assert 0 <= model["systems"]["all rules"]["functions"][str(OWN)] <= 1
    (tmp_path / "code_search" / "page.md.j2").write_text((pages.HERE / "code_search" / "page.md.j2").read_text())
    monkeypatch.setattr(pages, "HERE", tmp_path)
    assert "| tree | python | r | 2 | 12 |" in pages.rendered("code_search")
    written = (tmp_path / "runs" / "indexes").stat().st_mtime_ns
    assert run(*command).returncode == 0 and (tmp_path / "runs" / "indexes").stat().st_mtime_ns == written


def annotated_repositories(folder):
    """Of the annotations in $TRITUNE_DATA/semble, those repositories that are at hand: checked out beside them in
    repositories/, or installed as a package."""
    found = []
    for block in (folder / "annotations.txt").read_text(encoding="utf-8").split("\n@"):
        head, *rows = block.strip().removeprefix("@").split("\n")
        name, root, *_ = head.split()
        at = folder / "repositories" / name / root
        if not at.is_dir() and importlib.util.find_spec(name):
            at = import_root(f"package:{name}") / name
        if at.is_dir():
            queries = []
            for number, (kind, text, *places) in enumerate(row.split("|") for row in rows):
                targets = [place for one in places for place in one.split(";") if place]
                queries.append(Query(f"{name}/{number}", text, kind, tuple((t.split(":")[0], None) for t in targets)))
            found.append(Repository(name, "", at, "", tuple(queries)))
    return found


@pytest.mark.skipif(not (SEMBLE / "annotations.txt").is_file(), reason="semble's annotations are not in $TRITUNE_DATA")
def test_the_rules_find_what_sembles_annotations_ask_for(tmp_path):
    encoder = load_encoder(str(cached_table("all-minilm-l6-v2")))
    measured = {one.name: ask(one, encoder, tmp_path / one.name) for one in annotated_repositories(SEMBLE)}
    assert "model2vec" in measured
    plain, ruled = (
        np.array([value for one in measured.values() for value in one.values(weights).values()])
        for weights in (NONE, CHOSEN)
    )
    assert len(ruled) >= 20 and ruled.mean() > max(0.7, plain.mean() + 0.05)
