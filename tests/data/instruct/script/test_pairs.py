"""Pairs from a small package of JavaScript, and one of TypeScript: made, proven by node, graded."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from common.console import UserError
from data.checks import proves, refutes, run_groups
from data.checks.mutate import Mutant
from data.checks.script import job_of_calls
from data.corpus import build_corpus
from data.instruct import build_instruction_pairs
from data.instruct.answers import read
from data.instruct.replies import Reply
from data.instruct.script import tasks
from eval.instruct import grade_answers
from eval.row_texts import texts_of
from tests.data.checks.script.test_check import needs_node

FUNCTION = """import {{ offset }} from './offset.js';

/**
 * {what}
 *
 * @param {{number[]}} a the numbers to look at
 * @param {{number}} b {other}
 * @returns {{number}} {result}
 * @example
 *
 * {name}([4, 9, 2, 7], 3);
 * // => {value}
 *
 * {name}(numbers, b) // => anything
 */
export function {name}(a, b) {{{body}
}}
"""
FUNCTIONS = [  # (name, what it does, what b is, the result, the value of the example, the body)
    (
        "sumAbove", "Adds the numbers of `a` that are larger than a limit. "
        "Smaller numbers are ignored altogether.", "the limit", "The sum of the large numbers.", 20,
        """
  let total = offset;
  for (const one of a) {
    if (one > b) {
      total += one;
    }
  }
  return total;""",
    ),
    (
        "indexOfNearest", "Searches `a` for the number whose distance to a target is least. "
        "The first one wins a tie.", "the target", "The index of the nearest number.", 0,
        """
  let best = offset;
  a.forEach((value, index) => {
    if (Math.abs(value - b) < Math.abs(a[best] - b)) best = index;
  });
  return best;""",
    ),
    (
        "rotated", "Takes the last element of a rotation of `a` to the left. "
        "The rotation wraps around as often as needed.", "how far to rotate", "The element that ends up last.", 2,
        """
  const shift = (b + offset) % a.length;
  const turned = [...a.slice(shift), ...a.slice(0, shift)];
  return turned[turned.length - 1];""",
    ),
    (
        "polynomial", "Evaluates a polynomial by Horner's rule, with `a` as its coefficients. "
        "The highest power comes first.", "the point", "The value of the polynomial at the point.", 202,
        """
  let result = 0;
  for (let i = 0; i < a.length; i++) {
    result = result * b + a[i];
  }
  return result + offset;""",
    ),
    (
        "runs", "Counts how often neighbours in `a` differ by at least a step. "
        "An empty list has no neighbours and gives zero.", "the step", "The number of large jumps.", 3,
        """
  return a.slice(1).filter((one, index) => {
    const jump = Math.abs(one - a[index]);
    return jump >= b + offset;
  }).length;""",
    ),
    (
        "clampedLast", "Limits the last element of `a` from above. "
        "It returns the bound where that element would exceed it.", "the bound", "The element or the bound.", 3,
        """
  const last = a[a.length - 1];
  if (last > b) {
    return b + offset;
  }
  return last;""",
    ),
    (
        "digits", "Writes the numbers of `a` in another base and counts the digits. "
        "Signs and points are not counted.", "the base", "The number of digits in all.", 8,
        """
  const texts = a.map((one) => one.toString(b));
  const joined = texts.join('');
  return joined.replace(/[^0-9a-z]/g, '').length + offset;""",
    ),
    (
        "spread", "Measures how far the extremes of `a` lie apart, in units of a width. "
        "Rounding is towards zero.", "the width", "The number of whole widths.", 2,
        """
  const low = Math.min(...a);
  const high = Math.max(...a);
  const widths = (high - low) / b;
  return Math.trunc(widths) + offset;""",
    ),
]  # fmt: skip
SHARES = {"complete": 0.25, "bugfix": 0.25, "docstring": 0.25, "explain": 0.25}


def write_package(folder, *, suffix="js"):
    """Eight files with a function each, which import a file that is too short for a corpus."""
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "small", "version": "1.0.0"}))
    for number, (name, what, other, result, value, body) in enumerate(FUNCTIONS):
        text = FUNCTION.format(name=name, what=what, other=other, result=result, value=value, body=body)
        constants = "".join(f"export const {name.upper()}_{n} = {number * n};\n" for n in range(12))
        if suffix == "ts":
            text = text.replace("(a, b) {", "(a: number[], b: number): number {")
        (folder / f"{name}.{suffix}").write_text(text + constants)
    (folder / f"offset.{suffix}").write_text("export const offset = 0;\n")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = write_package(tmp_path_factory.mktemp("script") / "code")
    return build_corpus(str(folder), languages=["javascript", "typescript"])


def made_from(corpus, **options):
    options = {"count": 16, "test_count": 0, "validation_count": 0, "shares": SHARES} | options
    return build_instruction_pairs(corpus, **options)


@pytest.fixture(scope="module")
def pairs(corpus):
    if reason := tasks._why_not_executed("javascript"):
        pytest.skip(reason)
    return made_from(corpus)


def test_every_category_is_made_and_what_can_be_run_is(pairs):
    kinds = Counter((pair["category"], pair["check"]["kind"]) for pair in pairs.train)
    assert kinds == dict.fromkeys(
        [("complete", "calls"), ("bugfix", "calls"), ("docstring", "structure"), ("explain", "structure")], 4
    )
    assert {pair["check"]["language"] for pair in pairs.train} == {"javascript"}
    check = next(pair["check"] for pair in pairs.train if pair["category"] == "complete")
    assert len(check["modules"]) == 2 and "offset.js" in check["modules"]  # which the corpus left out as too short
    assert [call["arguments"] for call in check["calls"]] == ["[[4, 9, 2, 7], 3]"]


@needs_node
def test_the_gold_passes_its_check_and_the_question_does_not(pairs):
    executed = [pair for pair in pairs.train if pair["check"]["kind"] == "calls"]
    golds = [job_of_calls(pair["check"], read(pair, pair["output"]).code) for pair in executed]
    questions = [job_of_calls(pair["check"], pair["input"]) for pair in executed]
    outcomes = list(run_groups([[job] for job in golds + questions]))
    for pair, gold, question in zip(executed, outcomes[:8], outcomes[8:], strict=True):
        assert proves(pair["check"], gold) and refutes(pair["check"], question), pair["input"]
    bug = next(pair for pair in executed if pair["category"] == "bugfix")
    assert bug["input"].split("\n")[bug["check"]["line"] - 1].strip() in bug["output"].split("\n")[0]


def test_a_comment_and_an_explanation_are_the_repositorys_own_words(pairs):
    comment = next(pair for pair in pairs.train if pair["category"] == "docstring")
    assert comment["output"].startswith("/**\n * ") and "@example" not in comment["output"]
    assert "/**" not in comment["input"] and comment["check"]["arguments"] == ["a", "b"]
    text = next(pair for pair in pairs.train if pair["category"] == "explain")
    assert text["output"].count(".") >= 3 and "It returns the" in text["output"]


def test_they_are_graded_by_execution_and_not_by_what_is_for_python(pairs):
    answers = [{"id": pair["id"], "output": pair["output"]} for pair in pairs.train]
    result = grade_answers(pairs.train, answers, ks=(1,))
    assert result["metrics"]["pass@1"] == result["metrics"]["lenient_pass@1"] == 1
    assert result["n_of"]["pass@1"] == 8 and result["n_of"]["lenient_pass@1"] == 16
    assert not {"style", "hallucination_rate", "published_pass@1", "docstring_match"} & result["metrics"].keys()
    wrong = [{**answer, "output": "```js\nfunction f() {\n  return 1;\n}\n```"} for answer in answers]
    failed = grade_answers(pairs.train, wrong, ks=(1,))
    assert failed["metrics"]["pass@1"] == failed["metrics"]["lenient_pass@1"] == 0


def test_without_node_or_examples_only_structure_is_left_and_named(corpus, monkeypatch):
    monkeypatch.setattr(tasks, "_why_not_executed", lambda language: "there is no node")
    only = {"shares": {"complete": 0.5, "bugfix": 0.5}, "count": 4}
    found = made_from(corpus, checks=["doctest", "structure"], **only)
    assert {pair["check"]["kind"] for pair in found.train} == {"structure"}
    with pytest.raises(UserError, match="no function of the train files"):
        made_from(corpus, checks=["doctest"], **only)


@needs_node
def test_a_bug_that_the_examples_do_not_notice_is_no_pair(corpus, monkeypatch):
    def harmless(code, language):
        return [Mutant("none", f"{code}\nvoid 0;", 1, "", "")]

    monkeypatch.setattr(tasks, "script_mutants", harmless)
    found = made_from(corpus, shares={"bugfix": 0.5, "complete": 0.5}, count=4)
    reasons = {one["reason"] for one in found.rejects if one.get("category") == "bugfix"}
    assert {pair["category"] for pair in found.train} == {"complete"}
    assert "what is wrong does not fail its check" in reasons


def test_categories_that_need_python_say_so(corpus, monkeypatch):
    monkeypatch.setattr(tasks, "_why_not_executed", lambda language: "not here")
    found = made_from(corpus, checks=["structure"], shares=None, count=12)
    reasons = {one["category"]: one["reason"] for one in found.rejects if one["category"] in ("improve", "unit_test")}
    assert set(reasons.values()) == {"a category that is made from Python alone"} and len(reasons) == 2


def test_typescript_gives_pairs_too(tmp_path):
    corpus = build_corpus(str(write_package(tmp_path / "code", suffix="ts")), languages=["typescript"])
    found = made_from(corpus, checks=["doctest", "structure"], count=8)
    kind = "structure" if tasks._why_not_executed("typescript") else "calls"
    assert {pair["check"]["kind"] for pair in found.train if pair["category"] == "complete"} == {kind}
    assert all("```typescript" in pair["output"] for pair in found.train if pair["category"] in ("complete", "bugfix"))


def test_an_own_instruction_is_no_text_to_compare():
    (_, text) = texts_of(
        [{"instruction": "Write a JSDoc comment for this function. Reply with the comment.", "output": "x"}]
    )[0]
    assert text == "x"


@pytest.fixture(scope="module")
def tested_corpus(tmp_path_factory):
    """The package without examples, whose tests assert what each function gives, of one function wrongly."""
    folder = write_package(tmp_path_factory.mktemp("tested") / "code")
    (folder / "test").mkdir()
    for name, *_, value, _ in FUNCTIONS:
        file = folder / f"{name}.js"
        head, _, rest = file.read_text().partition(" * @example")
        file.write_text(head.rstrip("\n *") + "\n */\n" + rest.partition(" */\n")[2])
        said = value + (name == "runs")
        test = f"test('it', () => {{\n  expect({name}([4, 9, 2, 7], 3)).toEqual({said});\n}});\n"
        (folder / "test" / f"{name}.test.js").write_text(test)
    return build_corpus(str(folder), languages=["javascript"], test_share=0, validation_share=0)


@needs_node
def test_what_a_packages_tests_assert_proves_answers_where_there_is_no_example(tested_corpus):
    asked = {"count": 6, "test_count": 0, "validation_count": 0}
    shares = dict.fromkeys(("docstring", "explain", "unit_test", "improve"), 0.0) | {"complete": 0.5, "bugfix": 0.5}
    pairs = build_instruction_pairs(tested_corpus, **asked, shares=shares, checks=["doctest", "tests"])
    assert {pair["category"] for pair in pairs.train} == {"complete", "bugfix"}
    names = {pair["check"]["name"] for pair in pairs.train}
    assert all(pair["check"]["kind"] == "calls" and len(pair["check"]["calls"]) == 1 for pair in pairs.train)
    assert names and "runs" not in names  # its test is wrong: the function itself fails it
    with pytest.raises(UserError, match="doctest: no example with literals"):
        build_instruction_pairs(tested_corpus, **asked, shares=shares, checks=["doctest"])


def test_a_teacher_answers_for_scripts_too_and_is_held_to_the_check(corpus):
    shares = dict.fromkeys(("complete", "bugfix", "unit_test", "improve"), 0.0) | {"docstring": 0.5, "explain": 0.5}
    asked = {"count": 2, "test_count": 0, "validation_count": 0, "shares": shares, "checks": ["structure"]}

    class Table:
        model = "big"

        def ask(self, conversations, *, samples):
            self.systems = {messages[0]["content"] for messages in conversations}
            return [[Reply(self.answer(messages[1]["content"]), True, 1, 1)] for messages in conversations]

        def answer(self, question):
            if "JSDoc" in question:
                return "```js\n/**\n * Looks at a with regard to b.\n * @returns the result of it\n */\n```"
            return "Hm."

    teacher = Table()
    pairs = build_instruction_pairs(corpus, **asked, teacher=teacher, candidates=1)
    (taught,) = (pair for pair in pairs.train if pair["category"] == "docstring")
    assert taught["teacher"]["held"] == 1 and taught["output"].startswith("/**\n * Looks at a")
    (kept,) = (pair for pair in pairs.train if pair["category"] == "explain")
    assert "teacher" not in kept  # "Hm." does not hold: the package's own words stay
    assert all("JavaScript" in system and "Python" not in system for system in teacher.systems)
    assert any(reject["reason"].startswith("teacher: ") for reject in pairs.rejects)
