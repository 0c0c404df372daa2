import ast
import subprocess
import sys
from collections import Counter

import pytest

from data.functions import functions_of
from data.instruct import CATEGORIES, build_instruction_pairs
from data.tasks import INSTRUCTIONS, Repository, draft
from eval.instruct import GREEDY, grade_answers


def everything(pairs):
    return [*pairs.train, *pairs.validation, *pairs.test]


def test_categories_are_balanced_and_follow_the_split_of_the_files(small_corpus, small_pairs):
    assert Counter(pair["category"] for pair in small_pairs.train) == dict.fromkeys(CATEGORIES, 3)
    assert Counter(pair["category"] for pair in small_pairs.test) == dict.fromkeys(CATEGORIES, 1)
    split = {file.path: file.split for file in small_corpus.files}
    for side in ("train", "validation", "test"):
        assert {split[pair["source"]["path"]] for pair in small_pairs.split(side)} <= {side}


def test_every_executed_gold_is_proven_and_no_question_answers_itself(small_pairs):
    executed = [pair for pair in everything(small_pairs) if pair["check"]["kind"] != "structure"]
    assert {pair["category"] for pair in executed} == {"bugfix", "complete", "unit_test", "improve"}
    wrong = {
        "bugfix": "pass",
        "complete": "    return None",
        "unit_test": "def test_x():\n    pass",
        "improve": "x = 1",
    }
    for outputs, passes in (({}, True), (wrong, False)):
        answers = [
            {"id": pair["id"], "output": outputs.get(pair["category"], pair["output"]), "sample": GREEDY}
            for pair in executed
        ]
        rows = grade_answers(executed, answers)["results"]
        assert len(rows) == len(executed) and {row["status"] == "pass" for row in rows} == {passes}


def test_each_category_asks_for_what_its_output_gives(small_pairs):
    for pair in everything(small_pairs):
        given, output, check = pair["input"], pair["output"], pair["check"]
        if pair["category"] == "bugfix":
            broken = given.split("\n")[check["line"] - 1].strip()
            assert broken != output and "\n" not in output
        elif pair["category"] == "complete":
            assert ">>>" in given and output.startswith("    ") and "def " not in output
            ast.parse(f"{given}\n{output}")
        elif pair["category"] == "unit_test":
            assert output.startswith(("from ", "import ")) and "def test_" in output and "assert" in output
            assert ">>>" not in given and check["mutants"]
        elif pair["category"] == "docstring":
            assert output.startswith('"""') and output.endswith('"""') and ">>>" not in output
            assert "Parameters" in output and "Returns" in output and '"""' not in given
        elif pair["category"] == "explain":
            assert output.count(". ") >= 1 and '"""' not in given
        else:
            assert set(check["degraded"]) - {"names", "annotations"} and given != output
            ast.parse(given), ast.parse(output)


def test_structure_checks_hold_for_their_own_gold(small_pairs):
    rows = [pair for pair in everything(small_pairs) if pair["check"]["kind"] == "structure"]
    assert len(rows) >= 8
    for pair in rows:
        assert all(name in pair["output"] for name in [*pair["check"]["arguments"], *pair["check"]["names"]])


def test_a_repositorys_own_test_is_preferred_and_kept_as_written(small_corpus):
    pairs = build_instruction_pairs(small_corpus, count=30, test_count=0, validation_count=0)
    tests = {pair["source"]["qualname"]: pair["output"] for pair in pairs.train if pair["category"] == "unit_test"}
    own = [name for name in tests if name.startswith("sum")]
    assert own
    module = own[0].split("_")[1]
    wanted = f"def test_{own[0]}():\n    values = [5]\n    assert {own[0]}(values) == {6 * (int(module) + 1)}"
    assert tests[own[0]] == f"from pkg.m{module} import {own[0]}\n\n\n{wanted}"
    derived = [text for name, text in tests.items() if name.startswith("mass")]
    assert derived and all("assert mass_" in text for text in derived)


def test_drafts_follow_from_the_seed(small_corpus):
    texts = {file.path: file.text for file in small_corpus.files}
    functions = [one for file in small_corpus.files for one in functions_of(file)]
    repositories = [Repository(small_corpus.source, texts, {}, 2400, 700, seed) for seed in (0, 0, 1)]
    first, again, other = ([draft("bugfix", one, each).pair for one in functions] for each in repositories)
    assert first == again
    assert sum(a["input"] != b["input"] for a, b in zip(first, other, strict=True)) > len(functions) // 2


def test_instructions_are_phrased_in_several_ways_and_filled_in(small_pairs):
    assert all(len(set(phrases)) >= 3 for phrases in INSTRUCTIONS.values())
    assert not any("{" in pair["instruction"] for pair in everything(small_pairs))
    assert len({pair["id"] for pair in everything(small_pairs)}) == len(everything(small_pairs))


def test_too_long_rows_are_rejected_with_their_reason(small_corpus):
    pairs = build_instruction_pairs(small_corpus, count=6, test_count=0, validation_count=0, most_output=60)
    assert all(len(pair["output"]) <= 60 for pair in pairs.train)
    reasons = Counter(reject["reason"] for reject in pairs.rejects)
    assert reasons["output over 60 characters"] >= 10
    short = build_instruction_pairs(small_corpus, count=6, test_count=0, validation_count=0, most_input=800)
    assert all(len(pair["instruction"]) + len(pair["input"]) <= 800 for pair in short.train)


@pytest.mark.parametrize("module", ["data.instruct", "data.pairs"])
def test_a_source_that_is_not_there_is_one_line(module, tmp_path):
    command = [sys.executable, "-m", module, str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "no such folder" in result.stderr and result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())
