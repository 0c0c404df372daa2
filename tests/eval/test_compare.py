import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from common.console import UserError, run_command
from common.files import read_json, write_json
from eval import compare as module
from eval.change_table import table_of_runs, verdict
from eval.compare import compare, compare_runs


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
            "not of the same tasks (1 and 2; 1 in only one, such as 'q1')",
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
    _, line, left_out, *_ = capsys.readouterr().out.splitlines()
    assert line.split() == ["mrr@10", "0.100", "0.350", "+0.250", "[+0.250,", "+0.250]", "0.000", "12", "better"]
    assert left_out.endswith(": extra")
    assert read_json(tmp_path / "c.json") == compare(before, after)
    assert (tmp_path / "c.md").read_text().splitlines()[2] == line
    assert ET.parse(tmp_path / "c.svg").getroot().tag.endswith("}svg")


def draws(gain, rng, n=40):
    return retrieval((0.3 + gain + 0.1 * np.random.default_rng(rng).normal(size=n)).tolist())


def test_several_runs_are_each_compared_with_the_first_and_holm_makes_chance_finds_rarer():
    before = draws(0, 0)
    runs = {f"run {i}": [draws(gain, i)] for i, gain in enumerate((0.04, 0.2, 0.0, 0.0), start=1)}
    changes = compare_runs([before], runs)
    for name, (after,) in runs.items():
        alone, change = compare(before, after)["mrr@10"], changes[name]["mrr@10"]
        assert change["p_holm"] >= change["p"] == alone["p"] and change["interval"] == alone["interval"]
        assert change["distinguishable"] == (alone["distinguishable"] and change["p_holm"] <= 0.05)
    first = changes["run 1"]["mrr@10"]
    assert first["p"] <= 0.05 < first["p_holm"] and not first["distinguishable"]  # found alone, not among four
    assert changes["run 2"]["mrr@10"]["distinguishable"]


def test_results_of_several_seeds_are_one_run_with_its_own_level():
    before, seeds = draws(0, 0), [draws(gain, i) for i, gain in enumerate((0.02, 0.3, 0.5), start=1)]
    change = compare_runs([before], {"lora": seeds})["lora"]["mrr@10"]
    alone = [compare(before, run)["mrr@10"] for run in seeds]
    assert change["value"] == pytest.approx(np.mean([one["value"] for one in alone])) and change["seeds"] == 3
    assert alone[2]["distinguishable"] and not change["distinguishable"]  # the seeds do not agree
    assert np.ptp(change["interval"]) > 5 * np.ptp(alone[2]["interval"])
    text = table_of_runs([before], {"lora": seeds}, {"lora": {"mrr@10": change}})
    assert "lora (3 seeds)" in text and "not distinguishable at this n" in text


def test_seeds_of_perplexity_change_what_the_sums_change():
    before = perplexity([2.0 + i / 10 for i in range(8)])
    seeds = [perplexity([1.8 + shift + i / 10 for i in range(8)]) for shift in (0.0, 0.01, -0.01)]
    for result in seeds:
        result["files"].reverse()  # matched by path, not by place
    changes = compare_runs([before], {"lora": seeds})["lora"]
    for metric in ("perplexity", "bits_per_byte"):
        means = np.mean([run["metrics"][metric] for run in seeds])
        assert changes[metric]["value"] == pytest.approx(means - before["metrics"][metric])
        assert verdict(metric, changes[metric]) == "better"


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["compare", *map(str, arguments)])
    return run_command(module.main)


def test_the_command_takes_runs_and_seeds(tmp_path, monkeypatch, capsys):
    for i in range(6):
        write_json(tmp_path / f"r{i}.json", draws(0.1 * (i > 0), i))
    seeds = ",".join(f"{tmp_path}/r{i}.json" for i in (1, 2, 3))
    assert run(monkeypatch, tmp_path / "r0.json", seeds, tmp_path / "r4.json", "--out", tmp_path / "c.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("r1 (3 seeds)") and lines[2].startswith("r4") and "p (Holm)" in lines[0]
    assert read_json(tmp_path / "c.json")["r1"]["mrr@10"]["seeds"] == 3
    assert "r4" in (tmp_path / "c.svg").read_text()
    assert run(monkeypatch, tmp_path / "r0.json", ",".join(seeds.split(",")[:2])) == 2
    assert "three seeds" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path / "r0.json", tmp_path / "none.json") == 2


def test_perplexities_by_other_windows_are_refused():
    before, after = perplexity([2.0] * 8), perplexity([1.0] * 8)
    after["settings"] = {"window": 512, "stride": 256}
    with pytest.raises(UserError, match="different windows"):
        compare(before, after)
    before["settings"] = {"window": 512, "stride": 256, "model": "another"}
    assert compare(before, after)["perplexity"]["n"] == 8
