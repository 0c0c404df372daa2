import math

import pytest

from eval import compare as module
from eval.compare import compare, number, table, verdict
from model.console import run_command
from model.files import read_json, write_json


def retrieval(values):
    return {
        "metrics": {"mrr@10": sum(values) / len(values)},
        "values": {"mrr@10": {f"q{i}": value for i, value in enumerate(values)}},
        "results": [{"id": f"q{i}", "status": "pass"} for i in range(len(values))],
    }


def perplexity(nats_per_token, tokens=100):
    files = [
        {"path": f"f{i}.py", "nll": nats * tokens, "tokens": tokens, "bytes": 4 * tokens}
        for i, nats in enumerate(nats_per_token)
    ]
    mean = sum(nats_per_token) / len(files)
    return {"metrics": {"perplexity": math.exp(mean), "bits_per_byte": mean / 4 / math.log(2)}, "files": files}


def test_a_gain_a_loss_and_nothing_are_told_apart():
    low, high = [i / 40 for i in range(20)], [i / 40 + 0.2 for i in range(20)]
    for before, after, word in ((low, high, "better"), (high, low, "worse"), (low, low, "not distinguishable")):
        change = compare(retrieval(before), retrieval(after))["mrr@10"]
        assert verdict("mrr@10", change) == word
        assert change["value"] == pytest.approx((sum(after) - sum(before)) / 20) and change["n"] == 20


def test_perplexity_is_better_when_it_falls_and_its_change_is_in_its_own_unit():
    before = perplexity([2.0 + i / 10 for i in range(8)])
    after = perplexity([1.8 + i / 10 for i in range(8)])
    changes = compare(before, after)
    assert list(changes) == ["perplexity", "bits_per_byte"]
    for metric, change in changes.items():
        assert change["value"] == pytest.approx(after["metrics"][metric] - before["metrics"][metric])
        assert verdict(metric, change) == "better" and change["interval"][1] < 0 and change["n"] == 8
    assert verdict("perplexity", compare(after, before)["perplexity"]) == "worse"


def test_perplexities_of_two_tokenizers_are_not_compared_but_their_bits_per_byte_are():
    before, after = perplexity([2.0] * 8), perplexity([4.0] * 8, tokens=50)
    for row in after["files"]:
        row["bytes"] = 400
    changes = compare(before, after)
    assert list(changes) == ["bits_per_byte"] and changes["bits_per_byte"]["interval"] == [0.0, 0.0]


def test_a_metric_defined_for_some_tasks_is_paired_over_those():
    before, after = retrieval([0.0] * 10), retrieval([1.0] * 10)
    before["values"]["style"] = {f"q{i}": 0.0 for i in range(2, 10)}
    after["values"]["style"] = {f"q{i}": 1.0 for i in range(8)}
    assert compare(before, after)["style"]["n"] == 6
    after["values"]["style"] = {"q0": 1.0}
    assert "style" not in compare(before, after)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (retrieval([1.0]), perplexity([1.0]), "different kinds"),
        (
            retrieval([1.0]),
            retrieval([1.0, 0.0]),
            "not of the same tasks (1 and 2, 1 in one of them alone, such as 'q1')",
        ),
        (perplexity([1.0]), perplexity([1.0, 2.0]), "such as 'f1.py'"),
        (retrieval([1.0]), {**retrieval([1.0]), "values": {"pass@1": {"q0": 1.0}}}, "share no metric"),
        (retrieval([1.0]), {"metrics": {}, "results": []}, "has no 'values'"),
    ],
)
def test_results_that_cannot_be_compared_are_refused_in_one_line(tmp_path, monkeypatch, capsys, before, after, says):
    write_json(tmp_path / "a.json", before)
    write_json(tmp_path / "b.json", after)
    monkeypatch.setattr(
        "sys.argv", ["compare", f"{tmp_path}/a.json", f"{tmp_path}/b.json", "--out", f"{tmp_path}/c.json"]
    )
    assert run_command(module.main) == 2
    said = capsys.readouterr()
    assert says in said.err and said.err.count("\n") == 1 and said.out == ""
    assert not (tmp_path / "c.json").exists()


def test_the_command_prints_a_line_a_metric_and_writes_the_changes(tmp_path, monkeypatch, capsys):
    before, after = retrieval([0.1] * 12), retrieval([0.35] * 12)
    after["metrics"]["extra"] = 1.0
    write_json(tmp_path / "a.json", before)
    write_json(tmp_path / "b.json", after)
    monkeypatch.setattr(
        "sys.argv", ["compare", f"{tmp_path}/a.json", f"{tmp_path}/b.json", "--out", f"{tmp_path}/c.json"]
    )
    assert run_command(module.main) == 0
    _, line, left_out, _ = capsys.readouterr().out.splitlines()
    assert line.split() == ["mrr@10", "0.100", "0.350", "+0.250", "[+0.250,", "+0.250]", "12", "better"]
    assert left_out.endswith(": extra")
    assert read_json(tmp_path / "c.json") == compare(before, after)


def test_columns_of_the_table_align():
    before, after = perplexity([2.5] * 8), perplexity([1.0] * 8)
    lines = table(before, after, compare(before, after)).splitlines()
    assert len({line.index(word) for line, word in zip(lines, ("before", "12.18", "0.902"), strict=True)}) == 1


def test_numbers_keep_what_matters():
    assert [number(0.6194), number(-1.771, sign=True), number(12.346)] == ["0.619", "−1.771", "12.35"]
