import hashlib
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.console import UserError
from data.instruct.answers import READERS
from eval.causes import cause_of_pair
from eval.compare import compare
from eval.instruct import answer_pairs, grade_answers
from eval.instruct import grade as instruct
from eval.instruct.__main__ import main
from eval.instruct.merit import MEASURES
from eval.instruct.published import PUBLISHED
from eval.stats import summarise

MODULE = '''"""Sums."""

import math

LIMIT = 10


def total(values, start=0):
    """Add values to a start.

    >>> total([1, 2])
    3
    >>> total([], start=4)
    4
    """
    for value in values:
        start += value
    return start
'''
FUNCTION = MODULE[MODULE.index("def total") :].rstrip("\n")
HEAD, BODY = FUNCTION[: FUNCTION.index("    for value")].rstrip("\n"), FUNCTION[FUNCTION.index("    for value") :]
BUGGY = FUNCTION.replace("start += value", "start -= value")
LOOP = "    for value in values:\n        start += value"
GAPPED = FUNCTION.replace(LOOP, "    <FILL>")
SHORT = f"def total(values, start=0):\n{BODY}"
TEST = "from pack.sums import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n"
DOCSTRING = (
    '"""Add values to a start.\n\nParameters\n----------\nvalues : list\nstart : int\n\nReturns\n-------\nint\n"""'
)
GOOGLE = "Add values to a start.\n\n    Args:\n        values: Numbers.\n        start: A number.\n\n"
GOOGLE += "    Returns:\n        int: The sum."
EXPLANATION = "The function `total` adds up its values. It begins with `start`, which is zero by default."
PLAIN_WORSE = """def total(values, start=0):
    for i in range(len(values)):
        start = start + values[i]
    return start"""


@pytest.fixture
def pairs(tmp_path) -> list[dict]:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "sums.py").write_text(MODULE)
    first_line = MODULE[: MODULE.index("def total")].count("\n") + 1
    place = {"package": str(tmp_path), "module": "pack.sums", "qualname": "total", "first_line": first_line}
    place |= {"last_line": MODULE.count("\n"), "sha256": hashlib.sha256(MODULE.encode()).hexdigest()}
    examples = [
        {"source": "total([1, 2])\n", "want": "3\n", "options": {}},
        {"source": "total([], start=4)\n", "want": "4\n", "options": {}},
    ]
    doctest = {"kind": "doctest", **place, "examples": examples}
    structure = {"kind": "structure", "arguments": ["values", "start"], "returns": True, "names": ["total"]}
    line = next(number for number, text in enumerate(BUGGY.split("\n"), 1) if "-=" in text)
    made = {
        "complete": (HEAD, BODY, doctest),
        "fim": (GAPPED, LOOP, doctest),
        "bugfix": (BUGGY, "start += value", {**doctest, "line": line, "bug": "arithmetic"}),
        "improve": (PLAIN_WORSE, SHORT, doctest),
        "unit_test": (SHORT, TEST, {"kind": "unit_test", **place, "mutants": [BUGGY]}),
        "docstring": (SHORT, DOCSTRING, structure),
        "explain": (SHORT, EXPLANATION, {**structure, "arguments": [], "names": ["total", "values"]}),
    }
    source = {"path": "pack/sums.py", "commit": None, "license": None, "lines": [first_line, MODULE.count("\n")]}
    return [
        {"id": category, "category": category, "instruction": "Do it.", "input": given, "output": gold}
        | {"source": source, "check": check}
        for category, (given, gold, check) in made.items()
    ]


def _gold(pairs, **changed):
    return [{"id": pair["id"], "output": changed.get(pair["id"], pair["output"])} for pair in pairs]


def _grade_one(pairs, category, output):
    pair = next(pair for pair in pairs if pair["id"] == category)
    return grade_answers([pair], [{"id": category, "output": output}])["results"][0]


def test_the_repositorys_own_answers_pass_everything(pairs):
    result = grade_answers(pairs, _gold(pairs))
    assert {row["id"]: row["status"] for row in result["results"]} == {pair["id"]: "pass" for pair in pairs}
    assert {name: value for name, value in result["metrics"].items() if not name.startswith(PUBLISHED)} == {
        "pass@1": 1,
        "lenient_pass@1": 1,
        "style": 1,
        "hallucination_rate": 0,
        "mutation_score": 1,
        "improvement": 1,
        "docstring_match": 1,
        "docstring_clean": 0,  # NumPy's layout, and the heads of its sections have nothing after them
        "explanation_coverage": 1,
    }
    assert {name: n for name, n in result["n_of"].items() if not name.startswith(PUBLISHED)} == {
        "pass@1": 5,
        "lenient_pass@1": 7,
        "style": 5,
        "hallucination_rate": 6,
        **dict.fromkeys(MEASURES, 1),
    }  # the docstring quotes no name
    assert result["n"] == 7 and set(result["by_category"]) == {pair["category"] for pair in pairs}
    assert result["sandbox"]["network"] != "allowed"
    low, high = result["intervals"]["pass@1"]
    assert low < 0.6 and high == 1  # five of five is no proof of much
    json.dumps(result, allow_nan=False)


WRONG = [
    ("complete", "    return 3", "wrong", True),
    ("complete", "    raise ValueError('no')", "exception", True),
    ("complete", "    while True:\n        pass", "timeout", True),
    ("complete", "    return (", "syntax", False),
    ("complete", "", "extraction", False),
    ("complete", "    pass", "wrong", False),
    ("complete", "    import os\n    os._exit(0)", "died", True),
    ("complete", "    import socket\n    socket.socket()", "denied", True),
    ("complete", "    import sys\n    sys.exit(0)", "exception", True),
    (
        "complete",
        "    class Yes:\n        def __eq__(self, other):\n            return True\n    return Yes()",
        "wrong",
        True,
    ),
    ("fim", LOOP.replace("+=", "-="), "wrong", True),
    ("fim", GAPPED, "wrong", False),
    ("fim", f"```python\n{GAPPED}\n```", "wrong", False),
    ("fim", "def total(values, start=0):\n    start = len(values)\n    <FILL>\n    return start", "wrong", False),
    ("fim", "for value in values:", "syntax", False),
    ("fim", "", "extraction", False),
    ("fim", "pass", "wrong", False),
    ("fim", "# nothing to do", "wrong", False),
    ("fim", GAPPED.replace("<FILL>", "..."), "wrong", False),
    ("fim", BUGGY, "wrong", True),
    ("bugfix", "start -= value", "wrong", False),
    ("bugfix", "start *= value", "wrong", True),
    ("bugfix", "start +=", "syntax", False),
    ("bugfix", "I see\nno bug", "extraction", False),
    ("improve", PLAIN_WORSE, "wrong", False),
    ("improve", SHORT.replace("+=", "-="), "wrong", True),
    ("improve", "It is fine as it is.", "extraction", False),
    ("unit_test", TEST.replace("== 3", "== 4"), "wrong", True),
    ("unit_test", TEST.replace("total([1, 2]) == 3", "total([]) == 0"), "wrong", True),  # notices no bug
    ("unit_test", TEST.replace("assert total([1, 2]) == 3", "total([1, 2])"), "wrong", False),
    ("unit_test", TEST.replace("pack.sums", "pack.summs"), "exception", True),
    ("unit_test", "assert total", "wrong", False),
    ("docstring", '"""Add values."""', "wrong", False),
    ("docstring", DOCSTRING.replace("start : int", "start : int\nend : int"), "wrong", False),
    ("docstring", f'"""{GOOGLE.replace("start:", "begin:")}"""', "wrong", False),
    (
        "docstring",
        f'def total(values, start=0):\n    """{GOOGLE.replace("start:", "start, end:")}\n    """',
        "wrong",
        False,
    ),
    ("docstring", ":param values: numbers\n:param start: where\n:param end: none\n:returns: the sum", "wrong", False),
    ("docstring", DOCSTRING[: DOCSTRING.index("Returns")], "wrong", False),
    ("docstring", "", "wrong", False),
    ("explain", "The function `total` adds up its values.", "wrong", False),
    ("explain", "It adds. It returns the sum of them.", "wrong", False),
    ("explain", f"total adds values. See:\n{SHORT}\nThat is it.", "wrong", False),
    ("explain", "So:\n```python\n# total adds up values. That is all.\n```\n", "wrong", False),  # words in code
    ("complete", f"<think>\n{BODY}\n", "extraction", False),  # still thinking
    ("complete", f"<think>\n```python\n{BODY}\n```\n</think>\n\n```python\n    return 3\n```", "wrong", True),
]


@pytest.mark.parametrize(("category", "output", "status", "lenient"), WRONG)
def test_a_wrong_answer_fails_for_its_own_reason(pairs, category, output, status, lenient, monkeypatch):
    monkeypatch.setattr("data.checks.jobs.SECONDS", 1.5)
    row = _grade_one(pairs, category, output)
    assert (row["status"], row["lenient"]) == (status, lenient), row["detail"]
    assert row["detail"]


@pytest.mark.parametrize(
    "output",
    [
        "Add values to a start; returns the total.",
        "```python\n" + DOCSTRING + "\n```",
        f'def total(values, start=0):\n    {DOCSTRING.splitlines()[0]} Returns values."""\n    ...',
        f'def total(values, start=0):\n    """{GOOGLE}\n    """',
        GOOGLE,
        '"""' + GOOGLE,  # never closed
        ":param values: what to add\n:param int start: where to begin\n:returns: the total",
        f"{GOOGLE}\n\n```python\ntotal([1])\n```",  # an example, not the docstring
        f"Here it is:\n\n```\n{GOOGLE}\n```",
        f"```sh\npip install pack\n```\n\n```{{.python}}\n{DOCSTRING}\n```",
        f"<think>\n```\nhm\n```\n</think>\n\n{GOOGLE}",
    ],
)
def test_a_docstring_may_come_in_any_usual_form(pairs, output):
    row = _grade_one(pairs, "docstring", output)
    assert row["status"] == "pass", row["detail"]


@pytest.mark.parametrize(
    "output",
    [
        "for value in values:\n    start += value",
        "for value in values:\n        start += value",  # in place of the marker alone, and of its last line
        "start += sum(values)\n    start += 0\n",
        f"Like this:\n\n```python\n{LOOP}\n```\nThat is all.",
        f"```python\n{FUNCTION}\n```",
        LOOP.replace("\n", "\r\n"),
    ],
)
def test_a_gap_may_be_filled_at_any_depth_or_by_the_whole_function(pairs, output):
    row = _grade_one(pairs, "fim", output)
    assert row["status"] == "pass", row["detail"]


def test_the_style_of_the_code_around_a_gap_is_not_the_answers(pairs):
    (pair,) = [pair for pair in pairs if pair["id"] == "fim"]
    given = pair["input"].replace("start=0", "start=0, _unused=[]")  # B006 in the prompt
    result = grade_answers([{**pair, "input": given}], [{"id": "fim", "output": LOOP + "\n    x = 1"}])
    assert [issue.split()[0] for issue in result["results"][0]["style_issues"]] == ["F841"]


def test_a_prompt_without_a_gap_is_refused(pairs):
    (pair,) = [pair for pair in pairs if pair["id"] == "fim"]
    with pytest.raises(UserError, match="pair fim: its input has no <FILL>"):
        grade_answers([{**pair, "input": FUNCTION}], [{"id": "fim", "output": LOOP}])


@pytest.mark.parametrize(("given", "problem"), [("*rest, key=1", "other"), ("**options", None)])
def test_any_name_may_be_documented_where_keyword_arguments_are_taken(pairs, given, problem):
    (pair,) = [pair for pair in pairs if pair["id"] == "docstring"]
    pair = {**pair, "input": SHORT.replace("start=0", f"start=0, {given}")}
    output = GOOGLE.replace("Numbers.", "Numbers.\n        other: A name.")
    row = grade_answers([pair], [{"id": "docstring", "output": output}])["results"][0]
    assert (row["status"], "other, which is no argument" in row["detail"]) == (
        ("wrong", True) if problem else ("pass", False)
    )


def test_an_answer_too_deep_to_compare_is_no_fault_of_ours(pairs):
    row = _grade_one(pairs, "improve", f"def total(values, start=0):\n    return {'1 + ' * 2000}1")
    assert row["status"] in ("wrong", "exception", "died") and row["lenient"]


FRAGMENTS = [
    "```python\n",
    "```",
    '"""',
    "Parameters\n------\n",
    "Args:\n    ",
    ":param ",
    "x : int\n",
    "def total(",
    "):\n",
    "    ",
    "\n",
    "`a`",
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=12).map("".join))
def test_no_answer_whatever_breaks_the_reading(pairs, output):
    for pair in pairs:
        reading = READERS[pair["category"]](pair, output)
        assert (reading.problem is None) == (reading.status is None)


def test_thoughts_are_kept_apart_from_the_answer(pairs):
    said = "<think>\n```python\n    return 3\n```\nNo.\n</think>\n\n"
    row = _grade_one(pairs, "complete", said + BODY)
    assert row["status"] == "pass" and row["thoughts"] == said and row["output"] == BODY
    assert "thoughts" not in _grade_one(pairs, "complete", BODY)


def test_a_body_may_bring_a_helper_that_stands_after_it(pairs):
    row = _grade_one(pairs, "complete", "    return _sum(values, start)\n\n\ndef _sum(v, s):\n    return sum(v, s)\n")
    assert row["status"] == "pass", row["detail"]


def test_names_are_looked_up_in_the_words_of_an_explanation_not_in_its_code(pairs):
    some = [pair for pair in pairs if pair["id"] in ("complete", "explain")]
    said = f"{EXPLANATION}\n\n~~~python\nmade_up(values)\n~~~\nNot `frobnicate`."
    rows = grade_answers(some, _gold(some, explain=said))["results"]
    assert rows[1]["hallucinated"] == ["frobnicate"]


def test_the_input_of_a_pair_may_stand_between_fences_or_hold_some(pairs):
    (pair,) = [pair for pair in pairs if pair["id"] == "bugfix"]
    documented = BUGGY.replace("start.\n", "start.\n\n```python\ntotal([])\n```\n", 1)
    moved = {**pair["check"], "line": pair["check"]["line"] + 4}
    for shown, check in ((f"Mend this:\n\n```python\n{BUGGY}\n```", pair["check"]), (documented, moved)):
        row = grade_answers([{**pair, "input": shown, "check": check}], [{"id": "bugfix", "output": pair["output"]}])
        assert row["results"][0]["status"] == "pass", row["results"][0]["detail"]


def test_the_first_difference_is_kept_for_the_report(pairs):
    row = _grade_one(pairs, "complete", "    return 3")
    assert (row["expected"], row["got"]) == ("4", "3")


def test_prose_that_was_cut_off_fails_and_code_is_judged_by_itself(pairs):
    cut = [{**answer, "stopped": False} for answer in _gold(pairs)]
    status = {row["id"]: row["status"] for row in grade_answers(pairs, cut)["results"]}
    assert status["explain"] == status["docstring"] == "wrong" and status["complete"] == "pass"


def test_pass_at_3_is_the_unbiased_estimate_from_the_samples(pairs):
    (pair,) = [pair for pair in pairs if pair["id"] == "complete"]
    answers = [{"id": "complete", "output": "    return 3"}]
    answers += [{"id": "complete", "sample": i, "output": BODY if i < 2 else "    return 3"} for i in range(5)]
    result = grade_answers([pair], answers)
    assert result["metrics"]["pass@1"] == 0  # the greedy answer's
    assert result["values"]["pass@3"] == {"complete": pytest.approx(1 - 1 / 10)}
    assert result["metrics"]["lenient_pass@3"] == 1


def test_an_improvement_without_doctest_counts_in_the_lenient_rate_alone(pairs):
    (pair,) = [pair for pair in pairs if pair["id"] == "improve"]
    pair = {**pair, "check": {"kind": "structure", "arguments": ["values"], "returns": True, "names": ["total"]}}
    result = grade_answers([pair], [{"id": "improve", "output": SHORT}])
    assert result["results"][0]["status"] == "not executed"
    assert "pass@1" not in result["metrics"] and result["metrics"]["lenient_pass@1"] == 1


def test_what_fails_the_lenient_rate_fails_the_strict_one(pairs):
    result = grade_answers(
        pairs, _gold(pairs, complete="    pass", fim="pass", bugfix="?", unit_test="no", improve="no")
    )
    assert result["metrics"]["pass@1"] == 0
    assert not any(row["status"] == "pass" and not row["lenient"] for row in result["results"])


def test_an_invented_name_is_counted_against_the_answer(pairs):
    row = _grade_one(pairs, "complete", "    return math.sum_all(values) + LIMIT * nothing")
    assert row["hallucinated"] == ["math.sum_all", "nothing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answers: answers[1:], "no greedy answer"),
        (lambda answers: [*answers, answers[0]], "twice"),
        (lambda answers: [*answers, {"id": "other", "output": ""}], "no pair with the id other"),
        (lambda answers: [*answers, {"id": "complete"}], "output"),
        (lambda answers: [*answers, {"id": "complete", "output": "", "sample": 0}], "pass@3 needs at least 4"),
        (
            lambda answers: (
                answers
                + [{"id": i, "output": "", "sample": n} for i, m in (("complete", 4), ("fim", 5)) for n in range(m)]
            ),
            "unequal",
        ),
    ],
)
def test_answers_that_do_not_fit_the_pairs_are_refused(pairs, change, message):
    with pytest.raises(UserError, match=message):
        grade_answers(pairs, change(_gold(pairs)))


def test_the_command_grades_a_file_of_answers(pairs, tmp_path, monkeypatch, capsys):
    for name, rows in (("data", pairs), ("answers", _gold(pairs))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("data", "answers")}
    out = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["x", "--data", files["data"], "--answers", files["answers"], "--out", str(out)])
    main()
    assert json.loads(out.read_text())["metrics"]["pass@1"] == 1
    assert "n = 5" in capsys.readouterr().out


def test_one_greedy_and_n_sampled_answers_come_from_the_model(monkeypatch):
    asked = []

    def generate(decoder, prompts, stop, sampling, **settings):
        asked.append((prompts, sampling))
        return [[[7] * (stop.max_new_tokens if i > 1 else 1) for i in range(sampling.samples)] for _ in prompts]

    tokenizer = SimpleNamespace(stop_ids={2}, unused_ids=[9], decode=lambda ids: "x" * len(ids))
    user = {"role": "user", "content": "q"}
    monkeypatch.setattr(instruct, "generate", generate)
    monkeypatch.setattr(instruct, "encode_prompt", lambda tokenizer, messages, tools: [len(messages)])
    options = {"samples": 4, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 3, "seed": 5}
    chat = {"messages": [user, {"role": "assistant", "content": "gold"}]}
    answers = answer_pairs(None, tokenizer, [{"id": "a", **chat}, {"id": "b", **chat}], **options)
    ((prompts, sampling),) = asked  # each prompt is read once
    assert prompts == [[1], [1]]  # the gold answer is not in the prompt
    assert (sampling.samples, sampling.temperature, sampling.seed) == (5, [0.0, 0.7, 0.7, 0.7, 0.7], 5)
    assert len(answers) == 10 and [row["sample"] for row in answers if row["id"] == "b"] == ["greedy", 0, 1, 2, 3]
    assert {row["stopped"] for row in answers if row["sample"] in ("greedy", 0)} == {True}
    assert {row["stopped"] for row in answers if row["sample"] in (1, 2, 3)} == {False}


def test_samples_of_a_part_of_the_tasks_are_of_executed_ones_and_counted_apart(monkeypatch, pairs):
    def generate(decoder, prompts, stop, sampling, **settings):
        return [[[7] for _ in range(sampling.samples)] for _ in prompts]

    tokenizer = SimpleNamespace(stop_ids={2}, unused_ids=[], decode=lambda ids: "    return 1")
    monkeypatch.setattr(instruct, "generate", generate)
    monkeypatch.setattr(instruct, "encode_prompt", lambda tokenizer, messages, tools: [1])
    options = {"samples": 4, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 3, "seed": 5, "sampled": 2}
    answers = answer_pairs(None, tokenizer, pairs, **options)
    assert [row["id"] for row in answers if row["sample"] == "greedy"] == [pair["id"] for pair in pairs]
    sampled = {row["id"] for row in answers if row["sample"] == 0}
    checks = {pair["id"]: pair["check"]["kind"] for pair in pairs}
    assert len(sampled) == 2 and all(checks[i] != "structure" for i in sampled)
    result = grade_answers(pairs, answers)
    assert result["n_of"]["pass@3"] == 2 and result["n_of"]["pass@1"] == 5


def test_tasks_about_one_function_are_resampled_together():
    pairs = [{"id": f"{c}{i}", "source": {"path": "m.py", "qualname": f"f{i}"}} for c in "ab" for i in range(4)]
    clusters = {pair["id"]: instruct._function(pair) for pair in pairs}
    assert instruct._function({"id": "a", "source": {"path": "m.py"}}) == "a"
    values = {"pass@1": {i: float(i.endswith(("0", "1"))) for i in clusters}}
    alone, together = summarise(values), summarise(values, clusters=clusters)
    assert together["metrics"] == alone["metrics"] == {"pass@1": 0.5}
    width, apart = (high - low for low, high in (together["intervals"]["pass@1"], alone["intervals"]["pass@1"]))
    assert width > apart  # four functions tell less than eight tasks

    before = {
        "metrics": {},
        "values": {"pass@1": dict.fromkeys(clusters, 0.0)},
        "results": [{"id": i} for i in clusters],
    }
    after = {**before, "values": values}
    independent, clustered = (compare({**before, "clusters": c}, after)["pass@1"] for c in ({}, clusters))
    assert clustered["value"] == independent["value"] == 0.5 and clustered["p"] > independent["p"]


def test_a_weaker_answer_has_a_lower_measure(pairs):
    pairs[4]["check"]["mutants"].append(BUGGY.replace("start -= value", "start += 2 * value"))
    pairs[4]["check"]["mutants"].append(FUNCTION.replace("start=0", "start=1"))
    weaker = {
        "unit_test": TEST.replace("total([1, 2]) == 3", "total([], 4) == 4 and total([1]) in (1, 2)"),
        "improve": PLAIN_WORSE.replace("for i", "items = list(values)\n    for i").replace("values[i]", "items[i]"),
        "docstring": DOCSTRING.replace("start : int\n", "start\n").replace("int\n", "\n"),
        "explain": "It takes the `values` of `total`. It gives one back.",
    }
    measures = grade_answers(pairs, _gold(pairs, **weaker))["values"]
    assert measures["mutation_score"] == {"unit_test": 1 / 3}
    assert measures["improvement"] == {"improve": 0}
    assert measures["docstring_match"]["docstring"] < 1
    assert measures["explanation_coverage"] == {"explain": 1 / 2}


def test_what_the_measures_say_of_the_pairs_own_answers_stands_beside(pairs):
    invented = "Sums up its values by `frobnicate`. It begins with `start`, and `total` is what it is called."
    result = grade_answers(pairs, _gold(pairs, explain=invented))
    assert result["metrics"]["hallucination_rate"] == 1 / 6 and result["gold"]["metrics"]["hallucination_rate"] == 0
    assert result["hallucination"]["prose"]["invented"] == 1 and result["gold"]["invented"] == {}
    assert result["gold"]["hallucination"]["prose"] == {"invented": 0, "checked": 2}
    pairs[6]["output"] = invented
    assert grade_answers(pairs, _gold(pairs))["gold"]["invented"] == {"explain": ["frobnicate"]}


def test_a_wrong_row_says_what_was_asked_and_how_many_examples_held(pairs):
    row = _grade_one(pairs, "complete", "    return sum(values)")
    assert (row["asked"], row["held"]) == ("total([], start=4)", 1)
    assert cause_of_pair(pairs[0], row) == "missed edge case"
    assert _grade_one(pairs, "complete", "    return 5")["held"] == 0
