"""A run of each method from the command line, and every command that takes its adapter."""

from __future__ import annotations

import json

import pytest

from lora.adapter_file import METHODS as BY_PEFT_TYPE
from tests.commands import run
from training.methods import LEARNING_RATES

RUNS = {  # by --method: its options, what the output calls it, and what the file does
    "ia3": ([], "adapter  IA3 on k_proj v_proj, inputs of down_proj", "IA3"),
    "bitfit": ([], "adapter  BitFit, biases of down_proj gate_proj k_proj o_proj q_proj up_proj v_proj", "BEFT"),
    "bottleneck": (
        ["--placement", "pfeiffer", "--reduction-factor", "4", "--activation", "gelu"],
        "adapter  bottleneck (pfeiffer) of 12, gelu",
        "BOTTLENECK",
    ),
    "prefix": (
        ["--virtual-tokens", "6", "--prefix-mlp", "12"],
        "adapter  prefix of 6 virtual tokens in each layer, made by an MLP of width 12",
        "PREFIX_TUNING",
    ),
    "prompt": (
        ["--virtual-tokens", "6", "--init-text", "Say a number."],
        "adapter  prompt of 6 virtual tokens before every text",
        "PROMPT_TUNING",
    ),
}


def command(*arguments):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("method", RUNS)
def test_a_run_says_and_records_its_method_and_every_command_takes_its_adapter(tiny_folder, tmp_path, method):
    flags, says, kind = RUNS[method]
    pairs = [{"id": str(n), "instruction": f"Say {n}.", "input": "", "output": f"{n} {n}"} for n in range(12)]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    train = ["train_sft.py", "--model", tiny_folder, "--data", data, "--out", out, "--max-length", 64]
    train += ["--step-tokens", 256, "--dtype", "fp32", "--method", method, *flags]

    # a dry run and a run say what is trained, and how fast
    for said in (command(*train, "--dry-run"), command(*train)):
        assert says in said and f"peak learning rate {LEARNING_RATES[method]:g}\n" in said
    refused = run(*train, "--resume", "--lr", "1")
    assert refused.returncode == 2 and "the run was started with" in refused.stderr

    # what it records
    options = json.loads((out / "config.json").read_text())["options"]
    assert options["method"] == {"value": method, "from": "command line"}
    assert options["lr"] == {"value": LEARNING_RATES[method], "from": f"--method {method}"}
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["peft_type"] == kind
    assert json.loads((out / "adapter" / "tritune.json").read_text())["settings"]["method"] == method
    assert (out / "report.html").stat().st_size > 0

    # the commands that take an adapter
    given = ["--model", tiny_folder, "--adapter", out / "adapter"]
    command("chat.py", *given, "--both", "--prompt", "Say 3.", "--max-new-tokens", 4)
    (tmp_path / "text.txt").write_text("x = 1\n" * 30)
    given += ["--window", 64]
    command("-m", "eval.perplexity", *given, "--data", tmp_path / "text.txt", "--out", tmp_path / "p.json")
    command(
        "-m", "eval.next_token", *given, "--prompt", "def f(", "--max-new-tokens", "8", "--out", tmp_path / "n.json"
    )
    given = given[:-2]
    held = {"task_id": "t", "prompt": "def f(a):\n", "entry_point": "f", "tests": "assert f(1) == 1"}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(held) + "\n")
    code = ["--tasks", tmp_path / "tasks.jsonl", "--samples", 0, "--k", 1, "--max-new-tokens", 4]
    command("-m", "eval.code", *given, *code, "--out", tmp_path / "c.json")

    # merged into a model, where that is possible
    merge = ["lora.merge", *given, "--out", tmp_path / "merged"]
    if BY_PEFT_TYPE[kind].module.unmergeable:
        refused = run("-m", *merge)
        assert refused.returncode == 2 and "this adapter cannot be merged" in refused.stderr
    else:
        command("-m", *merge)
        to_gguf = ["--to", "gguf", "--type", "f16", "--out", tmp_path / "m.gguf"]
        command("-m", "model.export", tmp_path / "merged", *to_gguf)
