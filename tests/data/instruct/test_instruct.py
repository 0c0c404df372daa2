import ast
import json
import sys
from collections import Counter

import pytest

from common.console import UserError
from common.files import read_json, read_jsonl
from data.checks import jobs_of, proves, refutes, run_groups
from data.checks.mutate import KINDS
from data.checks.prove import UNPROVEN, Checks
from data.corpus import build_corpus
from data.corpus.functions import functions_of
from data.instruct import build_instruction_pairs, instruction_summary
from data.instruct.__main__ import main
from data.instruct.answers import READERS
from data.instruct.build import CATEGORIES, EQUAL, category_counts
from data.instruct.gap import GAP, fill_gap
from data.instruct.phrasings import INSTRUCTIONS, read_instructions
from data.instruct.summary import about
from data.instruct.tasks import DraftContext, draft
from eval.instruct import GREEDY, grade_answers
from tests.commands import run


def everything(pairs):
    return [*pairs.train, *pairs.validation, *pairs.test]


def test_categories_are_balanced_and_follow_the_split_of_the_files(small_corpus, small_pairs):
    assert Counter(pair["category"] for pair in small_pairs.train) == dict.fromkeys(EQUAL, 3)
    assert Counter(pair["category"] for pair in small_pairs.test) == dict.fromkeys(EQUAL, 1)
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


def test_every_bug_that_is_kept_fails_its_check_and_every_original_passes(small_pairs):
    bugs = [pair for pair in everything(small_pairs) if pair["category"] == "bugfix"]
    for answer, holds in (("original", proves), ("bug", refutes)):
        asked = []
        for pair in bugs:
            code = READERS["bugfix"](pair, pair["output"]).code if answer == "original" else pair["input"]
            asked.append((pair["check"], jobs_of(pair["check"], code)))
        outcomes = run_groups([jobs for _, jobs in asked])
        assert bugs and all(holds(check, of_bug) for (check, _), of_bug in zip(asked, outcomes, strict=True)), answer
    assert {pair["check"]["bug"] for pair in bugs} <= set(KINDS) and len({pair["check"]["bug"] for pair in bugs}) > 1


def test_each_category_asks_for_what_its_output_gives(small_pairs):
    for pair in everything(small_pairs):
        given, output, check = pair["input"], pair["output"], pair["check"]
        if pair["category"] == "bugfix":
            broken = given.split("\n")[check["line"] - 1].strip()
            said, code = output.split("\n\n", 1)
            assert said.startswith(f"The bug is `{broken}`: it should be `") and broken not in code.split("\n")
            assert code.startswith("```python\ndef ") and code.endswith("\n```")
        elif pair["category"] == "complete":
            assert ">>>" in given and output.startswith("```python\n    ") and "def " not in output
            ast.parse(given + output.removeprefix("```python").removesuffix("```"))
        elif pair["category"] == "unit_test":
            assert output.startswith(("from ", "import ")) and "def test_" in output and "assert" in output
            assert ">>>" not in given and check["mutants"]
        elif pair["category"] == "docstring":
            assert output.startswith('"""') and output.endswith('"""') and ">>>" not in output
            assert "\n\nArgs:\n    values (list of int): Numbers.\n" in output and '"""' not in given
            assert "\n\nReturns:\n    int: The " in output
        elif pair["category"] == "explain":
            assert output.count(". ") >= 1 and " It returns the " in output and '"""' not in given
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
    checks = Checks(functions, ["doctest"])
    checks.find(functions)
    contexts = [DraftContext(texts, {}, checks, 2400, 700, seed) for seed in (0, 0, 1)]
    first, again, other = ([draft("bugfix", one, each).pair for one in functions] for each in contexts)
    assert first == again
    assert sum(a["input"] != b["input"] for a, b in zip(first, other, strict=True)) > len(functions) // 2


def test_instructions_are_phrased_in_several_ways_and_filled_in(small_pairs):
    assert all(len(set(phrases)) >= 5 for phrases in INSTRUCTIONS.values())
    assert not any("{" in pair["instruction"] for pair in everything(small_pairs))
    assert len({pair["id"] for pair in everything(small_pairs)}) == len(everything(small_pairs))


def test_instructions_of_ones_own_take_the_place_of_ours_in_their_category(small_corpus, tmp_path):
    (tmp_path / "own.json").write_text(json.dumps({"explain": ["Say what `{qualname}` is for."]}))
    own = read_instructions(tmp_path / "own.json")
    shares = {"explain": 0.5, "complete": 0.5} | dict.fromkeys(("docstring", "bugfix", "unit_test", "improve"), 0)
    pairs = build_instruction_pairs(
        small_corpus, count=4, test_count=0, validation_count=0, shares=shares, checks=["structure"], instructions=own
    )
    for pair in pairs.train:
        said = f"Say what `{pair['source']['qualname']}` is for."
        assert (pair["instruction"] == said) == (pair["category"] == "explain")
    templates = about(small_corpus, {}, pairs, None, (), own)["templates"]
    assert templates["explain"] == own["explain"] and templates["complete"] == list(INSTRUCTIONS["complete"])


@pytest.mark.parametrize(
    "given", [[], {"explian": ["Explain."]}, {"explain": "Explain."}, {"explain": []}, {"explain": ["{nam}"]}]
)
def test_instructions_of_another_form_are_refused(given, tmp_path):
    (tmp_path / "own.json").write_text(json.dumps(given))
    with pytest.raises(UserError, match=r"own\.json"):
        read_instructions(tmp_path / "own.json")


def test_too_long_rows_are_rejected_with_their_reason(small_corpus):
    pairs = build_instruction_pairs(small_corpus, count=6, test_count=0, validation_count=0, most_output=90)
    assert all(len(pair["output"]) <= 90 for pair in pairs.train)
    reasons = Counter(reject["reason"] for reject in pairs.rejects)
    assert reasons["output over 90 characters"] >= 10
    short = build_instruction_pairs(small_corpus, count=6, test_count=0, validation_count=0, most_input=800)
    assert all(len(pair["instruction"]) + len(pair["input"]) <= 800 for pair in short.train)


@pytest.mark.parametrize("module", ["data.instruct", "data.pairs"])
def test_a_source_that_is_not_there_is_one_line(module, tmp_path):
    result = run("-m", module, tmp_path / "none", "--out", tmp_path / "out")
    assert result.returncode == 2 and "no such folder" in result.stderr and result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_shares_are_what_is_asked_and_the_others_divide_what_is_left():
    assert category_counts(400) == dict(zip(EQUAL, (67, 67, 67, 67, 66, 66), strict=True)) | {"fim": 0}
    counts = category_counts(100, {"bugfix": 0.3, "fim": 0.1, "explain": 0.0})
    assert counts == {
        "bugfix": 30,
        "fim": 10,
        "explain": 0,
        **dict.fromkeys(("docstring", "complete", "unit_test", "improve"), 15),
    }
    assert sum(category_counts(7, {"fim": 0.5}).values()) == 7
    assert category_counts(10, {name: 0.0 for name in EQUAL} | {"fim": 1}) == dict.fromkeys(CATEGORIES, 0) | {"fim": 10}


@pytest.mark.parametrize(
    "shares",
    [{"bugfix": 1.1}, {"bugfix": 0.6, "fim": 0.5}, {"fim": -0.1}, {name: 0.1 for name in EQUAL}, {"other": 0.1}],
)
def test_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(UserError, match="--share"):
        category_counts(100, shares)


def test_fim_pairs_leave_out_statements_that_the_examples_miss(small_corpus):
    pairs = build_instruction_pairs(
        small_corpus, count=2, test_count=0, validation_count=0, shares={"fim": 1.0, **{name: 0.0 for name in EQUAL}}
    )
    assert [pair["category"] for pair in pairs.train] == ["fim"] * 2
    for pair in pairs.train:
        assert GAP in pair["instruction"] and pair["input"].count(GAP) == 1 and pair["output"] not in pair["input"]
        ast.parse(fill_gap(pair["input"], pair["output"]))
        assert pair["check"]["kind"] == "doctest"
    assert instruction_summary(pairs).count("fim") == 1


def test_a_category_that_falls_short_says_so_and_why(small_corpus):
    pairs = build_instruction_pairs(
        small_corpus,
        count=60,
        test_count=0,
        validation_count=0,
        shares={"explain": 1.0, **{name: 0.0 for name in CATEGORIES if name != "explain"}},
    )
    assert 0 < len(pairs.train) < 60
    assert f"short    {len(pairs.train):>5}  of 60 explain (train): " in instruction_summary(pairs)


def test_the_command_writes_the_pairs_and_what_they_were_made_from(small_corpus, tmp_path, monkeypatch, capsys):
    shares = ["docstring=1", *(f"{name}=0" for name in EQUAL[1:])]
    command = ["data.instruct", small_corpus.source, "--out", str(tmp_path), "--count", "3", "--test-count", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--validation-count", "0", "--share", *shares])
    main()
    assert [len(read_jsonl(tmp_path / f"{side}.jsonl")) for side in ("train", "validation", "test")] == [3, 0, 1]
    told = read_json(tmp_path / "about.json")
    assert told["kind"] == "instruction pairs" and told["teacher"] is None
    assert told["corpus"]["sha256"] == small_corpus.sha256() and told["options"]["share"]["docstring"] == 1
    assert told["templates"]["docstring"] == list(INSTRUCTIONS["docstring"])
    assert "docstring" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--share", "docstring"])
    with pytest.raises(UserError, match="is not CATEGORY=NUMBER"):
        main()


TESTED = '''"""Prices."""


class Basket:
    """What is bought."""

    def __init__(self, prices):
        self.prices = prices

    def total(self, discount):
        """Sum of the prices of a basket after the discount was taken off each."""
        total = 0
        for price in self.prices:
            total += price - discount
        return total


def cheapest(prices, least):
    """Lowest of the prices that reach a least one; zero where none of them does."""
    kept = [price for price in prices if price >= least]
    if not kept:
        return 0
    return min(kept)


def untested(prices):
    """Number of the prices that are even, which no test of this repository asks for."""
    count = 0
    for price in prices:
        count += 1 - price % 2
    return count
'''
TESTS = """from shop.prices import Basket, cheapest


def test_cheapest():
    assert cheapest([5, 2, 3], 3) == 3
    assert cheapest([1], 2) == 0


def test_total():
    assert Basket([5, 3]).total(1) == 6


def test_that_fails():
    assert cheapest([1], 1) == 2
"""


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A corpus of one training file without an example; its tests enter two of three functions."""
    folder = tmp_path_factory.mktemp("tested")
    for name, text in (("shop/__init__.py", ""), ("shop/prices.py", TESTED), ("tests/test_prices.py", TESTS)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return build_corpus(str(folder), test_share=0, validation_share=0)


def test_functions_without_examples_are_checked_by_the_repositorys_tests(tested):
    asked = {"count": 8, "test_count": 0, "validation_count": 0, "shares": {"bugfix": 0.5, "complete": 0.5}}
    asked["shares"] |= {name: 0.0 for name in EQUAL if name not in asked["shares"]}
    pairs = build_instruction_pairs(tested, **asked)
    kinds = {(pair["category"], pair["source"]["qualname"]): pair["check"]["kind"] for pair in pairs.train}
    assert kinds == {
        ("bugfix", "cheapest"): "values", ("complete", "cheapest"): "values",
        ("bugfix", "Basket.total"): "tests", ("complete", "Basket.total"): "tests",
    }  # fmt: skip
    assert {one["qualname"] for one in pairs.rejects if "no check that counts" in one["reason"]} == {"untested"}
    assert pairs.lost == {"test failed": 1} and "no check     1  test failed" in instruction_summary(pairs)

    def statuses(answer):
        rows = grade_answers(pairs.train, [{"id": one["id"], "output": answer(one)} for one in pairs.train])["results"]
        return [(row["status"], row.get("got")) for row in rows]

    assert {status for status, _ in statuses(lambda pair: pair["output"])} == {"pass"}
    wrong = statuses(
        lambda pair: pair["output"].replace("return", "return 1 +") if "return" in pair["output"] else "pass"
    )
    assert "pass" not in {status for status, _ in wrong}
    with pytest.raises(UserError, match="gives a pair of these categories; most often: no check that counts"):
        build_instruction_pairs(tested, **asked, checks=["doctest"])


def test_functions_are_taken_without_proof_only_when_that_is_asked_for(tested):
    shares = {name: float(name == "bugfix") for name in EQUAL}
    asked = {"count": 3, "test_count": 0, "validation_count": 0, "shares": shares}
    pairs = build_instruction_pairs(tested, **asked, checks=["doctest", UNPROVEN]).train
    assert [pair["check"]["kind"] for pair in pairs] == ["structure"] * 3
    rows = grade_answers(pairs, [{"id": pair["id"], "output": pair["output"]} for pair in pairs])["results"]
    assert {(row["status"], row["lenient"]) for row in rows} == {("not executed", True)}
    assert len(build_instruction_pairs(tested, **asked).train) == 2


def test_an_answer_that_reaches_for_its_own_tests_is_not_run(tested):
    shares = {name: float(name == "complete") for name in EQUAL}
    pairs = build_instruction_pairs(tested, count=2, test_count=0, validation_count=0, shares=shares).train
    (pair,) = (one for one in pairs if one["check"]["kind"] == "tests")
    (row,) = grade_answers([pair], [{"id": pair["id"], "output": "    import pytest\n    return 6"}])["results"]
    assert row["status"] == "wrong" and "not run" in row["detail"]
