"""The command of experiments/codealpaca, from the rows to the page, on a tiny model."""

from __future__ import annotations

import json

import pytest
import torch

from lora.adapter_file import load_adapter
from model import load_decoder
from tests.commands import run

WORDS = "It multiplies its argument by a constant and adds another one, then gives the result back to whoever asked."
TASKS = [
    {"task_id": f"t{n}", "prompt": f"Add {n} to x.", "entry_point": "f", "tests": f"assert f(1) == {n + 1}",
     "canonical_solution": f"def f(x):\n    return x + {n}\n"}
    for n in range(1, 5)
]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """Rows of which all but two have an explanation, and four tasks."""
    rows = []
    for n in range(12):
        code = f"def f{n}(x):\n    return x * {n + 2} + {n * n + 1} - {n}"
        output = f"```python\n{code}\n```\n{WORDS}" if n < 10 else code
        rows.append({"instruction": f"Write the function number {n}.", "input": "", "output": output})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    return "--data", tmp_path / "rows.json", "--mbpp", tmp_path / "tasks.jsonl", "--own", tmp_path / "tasks.jsonl"


def test_it_runs_from_the_rows_to_the_page(smoke, files, tiny_folder, tmp_path):
    options = ("--models", tiny_folder, "--explain", tiny_folder, *files, "--ranks", 2, 4, "--seeds", 3, "--epochs", 1)
    results, page = smoke("codealpaca", *options)

    # the arms, on the same rows in the same order, and the adapter of rank 2 in peft
    found, own = (results["models"][tiny_folder.name][tasks] for tasks in ("mbpp", "own"))
    arms = [(row["arm"], row["seed"]) for row in found["rows"]]
    assert arms == [("untrained", None), ("code, r = 2", 3), ("code, r = 4", 3), ("explained, r = 2", 3)]
    of_variant = {}
    for variant in ("code", "explained"):
        lines = (smoke.runs / "data" / variant / "train.jsonl").read_text().splitlines()
        of_variant[variant] = [json.loads(line)["id"] for line in lines]
    assert of_variant["code"] == of_variant["explained"] and len(of_variant["code"]) == results["rows"]["train"] == 9
    assert results["import"]["kept"] == results["import"]["explained"] == 10
    run_folder = smoke.runs / tiny_folder.name / "code-r2-3"
    is_the_same_in_peft(tiny_folder, run_folder / "adapter")

    # what is compared: with the untrained model, and ranks and variants with one another
    assert found["changes"].keys() == {"code, r = 2", "code, r = 4", "explained, r = 2"}
    assert "p_holm" in found["changes"]["code, r = 2"]["greedy_pass@1"]
    assert found["against_first"].keys() == {"code, r = 4", "explained, r = 2"} and found["first"] == "code, r = 2"
    assert found["by_type"]["numbers"]["n"] == 4 and len(found["failures"]) <= 4
    assert all(row["training"]["memory_gib"] > 0 for row in found["rows"][1:])

    # the figures, the pages for raters, the page
    assert own["changes"].keys() == found["changes"].keys() and own["rows"][0]["n"]["greedy_pass@1"] == 4
    assert (
        own["shared"] == 0
        and own["without"]["first"]["n"] == 4
        and "\n0 of its tasks, in whatever split, share" in page
    )
    for name in (f"changes-{tiny_folder.name}-own.svg", f"types-{tiny_folder.name}-mbpp.svg"):
        assert (tmp_path / "codealpaca" / name).read_text().startswith("<svg")
    assert all(
        (smoke.runs / tiny_folder.name / f"rate-{name}.html").is_file() for name in ("base", "code", "explained")
    )
    assert "| code, r = 4 | 3 |" in page and "explained, r = 2 against code, r = 2: pass@1 " in page

    # a second call finds everything done; --plan runs nothing
    count = len(smoke.commands)
    smoke("codealpaca", *options)
    assert len(smoke.commands) == count == 1 + 2 + 3 * 3 + 2 + 3
    planned = run("-m", "experiments.codealpaca.run", *options, "--plan", "--out", tmp_path / "other")
    assert planned.returncode == 0 and not (tmp_path / "other").exists()
    assert " min  python train_sft.py" in planned.stdout and "min  of 17 stages" in planned.stdout


def is_the_same_in_peft(folder, adapter):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    ids = torch.arange(5, 29)[None]
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
    decoder = load_decoder(str(folder))
    before = decoder(ids)
    load_adapter(decoder, adapter)
    with torch.no_grad():
        assert torch.allclose(decoder(ids), theirs(ids).logits, atol=1e-4)
        assert (decoder(ids) - before).abs().max() > 1e-4  # it was trained
