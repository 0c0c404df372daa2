"""--method prefix and prompt in the scripts: what a run starts from and says, measures, saves, resumes and refuses."""

from __future__ import annotations

import json
import re
import sys
from functools import partial

import pytest
import torch

import chat
import eval.next_token.__main__
import eval.perplexity
import lora.merge
import train_cpt
import train_sft
from common.console import UserError, run_command
from common.files import read_json
from common.options import parse_with_recipe
from data.masking import IGNORE, Example, encode_prompt
from lora.adapter import train_adapter, use_adapter
from lora.adapter_file import save_adapter
from lora.prefix import Prefix
from lora.prompt import Prompt
from model import Stop, fast, generate, load_decoder, load_tokenizer
from model import device as device_module
from model.token_text import REPLACEMENT
from tests.training.test_checkpoint import (
    Stopped,
    adapter,
    assert_same_run,
    cpt_command,
    losses,
    package,  # noqa: F401 (a fixture)
    stop_at,
)
from training.precision import Precision
from training.virtual_start import describe_start, fresh_virtual_tokens

SMALL = {"row-tokens": 128, "most-tokens": 3500, "held-out-files": 2, "held-out-tokens": 300, "validate-every": 0}
WAYS = {
    "prefix": SMALL | {"method": "prefix", "virtual-tokens": 6},
    "prefix by an MLP": SMALL | {"method": "prefix", "virtual-tokens": 6, "prefix-mlp": 12},
    "prompt": SMALL | {"method": "prompt", "virtual-tokens": 6},
}


@pytest.fixture(autouse=True)
def fast_again(monkeypatch):
    monkeypatch.setattr(fast, "_enabled", True)


each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def runs(package, tiny_folder, tmp_path_factory):  # noqa: F811
    """{way: (folder, what was printed)} of uninterrupted runs of train_cpt.py, and one of LoRA."""
    import contextlib
    import io

    made = {}
    for way, settings in (WAYS | {"lora": SMALL}).items():
        folder, said = tmp_path_factory.mktemp("run") / "whole", io.StringIO()
        with contextlib.redirect_stdout(said):
            train_cpt.main(cpt_command(package, tiny_folder, folder, **settings))
        made[way] = folder, said.getvalue()
    return made


@each_way
def test_a_run_learns_and_says_what_its_fresh_virtual_tokens_change(runs, way):
    folder, said = runs[way]
    line = re.search(r"^start    (.*) · loss of the first row (\S+), without virtual tokens (\S+)$", said, re.MULTILINE)
    assert line and float(line[2]) == pytest.approx(float(line[3]), rel=0.1)  # a random network hardly reads
    assert line[1] == "random" if "MLP" in way else line[1].startswith("every text seems to follow ")
    assert re.search(r"^adapter  (prefix|prompt) of 6 virtual tokens .* M trainable", said, re.MULTILINE)
    assert losses(folder)[-1][1] < losses(folder)[0][1]
    # the saved prefix has no MLP
    (tensor,) = adapter(folder).values()
    assert tensor.shape == ((6, 48) if way == "prompt" else (6, 3 * 2 * 2 * 16)) and tensor.dtype == torch.float32


@each_way
def test_before_is_what_the_base_does(runs, way):
    before = read_json(runs[way][0] / "before.json")
    assert before["metrics"] == read_json(runs["lora"][0] / "before.json")["metrics"]
    assert read_json(runs[way][0] / "after.json")["metrics"]["perplexity"] < before["metrics"]["perplexity"]


@each_way
def test_resumed_is_bit_identical_to_one_run(package, tiny_folder, runs, tmp_path, monkeypatch, way):  # noqa: F811
    command = partial(cpt_command, package, tiny_folder, tmp_path / "parts", **WAYS[way])
    carry_on = stop_at(monkeypatch, 5)
    with pytest.raises(Stopped):
        train_cpt.main(command())
    carry_on()
    train_cpt.main([*command(), "--resume"])
    assert_same_run(runs[way][0], tmp_path / "parts")


@each_way
def test_checkpointed_and_plain_runs_are_the_same_run(package, tiny_folder, runs, tmp_path, way):  # noqa: F811
    command = partial(cpt_command, package, tiny_folder, **WAYS[way])
    train_cpt.main([*command(tmp_path / "run", checkpointing="full"), "--plain"])
    assert dict(losses(tmp_path / "run")) == pytest.approx(dict(losses(runs[way][0])), rel=1e-4)


def evaluate(monkeypatch, command, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    command.main()


@each_way
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_perplexity_is_that_of_the_saved_files(package, tiny_folder, tmp_path, monkeypatch, way, dtype):  # noqa: F811
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    run, out = tmp_path / "run", tmp_path / "again.json"
    short = {"dtype": dtype, "most-tokens": 800, "held-out-files": 0, "held-out-tokens": 0}
    train_cpt.main(cpt_command(package, tiny_folder, run, **WAYS[way] | short))
    evaluate(
        monkeypatch, eval.perplexity, "--model", tiny_folder, "--adapter", run / "adapter", "--data", run / "corpus",
        "--window", 128, "--dtype", dtype, "--out", out,
    )  # fmt: skip
    assert read_json(out)["metrics"] == read_json(run / "after.json")["metrics"]


@pytest.mark.parametrize("reference_decoder", ["qwen3"], indirect=True)
@each_way
def test_every_command_takes_it(reference_decoder, tmp_path, monkeypatch, capsys, way):
    """Next tokens, and a conversation, over a network whose answers depend on what it reads."""
    model, folder = str(reference_decoder[1]), tmp_path / "adapter"
    tokenizer, decoder = load_tokenizer(model), load_decoder(model)
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "Say hello."}])
    rules = Stop(max_new_tokens=8, ids=tokenizer.stop_ids)
    plain = generate(decoder, [ids], rules, unused_ids=tokenizer.unused_ids)[0][0]
    learnt = Prompt(decoder, 6) if way == "prompt" else Prefix(decoder, 6, hidden=WAYS[way].get("prefix-mlp", 0))
    train_adapter(decoder, {learnt.place: learnt})
    save_adapter(decoder, folder, base_model=model, task_type="CAUSAL_LM")
    tuned = generate(decoder, [ids], rules, unused_ids=tokenizer.unused_ids)[0][0]
    assert plain != tuned

    words = ["--model", model, "--adapter", folder, "--prompt", "Say hello.", "--max-new-tokens", 8]
    evaluate(monkeypatch, chat, *words)
    unfinished = f"{REPLACEMENT}\n"  # a character that the last token leaves incomplete is not shown
    assert capsys.readouterr().out.rstrip(unfinished) == tokenizer.decode(tuned).rstrip(unfinished)
    words = ["--model", model, "--adapter", folder, "--prompt", "def add(a, b):", "--window", 64]
    evaluate(monkeypatch, eval.next_token.__main__, *words, "--max-new-tokens", "8", "--out", tmp_path / "next.json")
    (prompt,) = read_json(tmp_path / "next.json")["prompts"]
    assert min(position["kl"] for position in prompt["positions"]) > 0.01


@each_way
def test_merging_is_refused_by_name_and_writes_nothing(runs, tiny_folder, tmp_path, monkeypatch, capsys, way):
    words = ["--model", tiny_folder, "--adapter", runs[way][0] / "adapter", "--out", tmp_path / "merged"]
    monkeypatch.setattr(sys, "argv", ["lora.merge", *map(str, words)])
    assert run_command(lora.merge.main) == 2
    said = capsys.readouterr().err
    assert re.search(r"this adapter cannot be merged: a (prefix is keys|learnt prompt is input)", said)
    assert said.count("\n") == 1 and not (tmp_path / "merged").exists()


def test_pairs_are_answered_after_a_prompt_from_a_text(tiny_folder, tmp_path, capsys):
    pairs = [
        {
            "id": str(n), "category": "explain", "instruction": f"Say {word}.", "input": "", "output": f"{word} {word}",
            "check": {"kind": "structure", "names": []},
        }
        for n, word in enumerate(["def", "return"] * 2)
    ]  # fmt: skip
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = {
        "model": tiny_folder, "data": data, "test": data, "out": tmp_path / "run", "max-length": 64, "epochs": 2,
        "step-tokens": 64, "method": "prompt", "virtual-tokens": 4, "init-text": "What does this function do?",
        "samples": 0, "max-new-tokens": 8, "sample-every": 1, "dtype": "fp32",
    }  # fmt: skip
    train_sft.main([*(part for name, value in words.items() for part in (f"--{name}", str(value))), "--fit"])
    said = capsys.readouterr().out
    assert "start    every text seems to follow 'What does this func" in said and "(cut to 4 of " in said
    assert re.search(r"^fit      \d+ rows per pass", said, re.MULTILINE)
    assert (tmp_path / "run" / "samples.md").read_text()


@each_way
def test_a_dry_run_measures_a_pass(package, tiny_folder, tmp_path, capsys, way):  # noqa: F811
    train_cpt.main([*cpt_command(package, tiny_folder, tmp_path / "run", **WAYS[way]), "--dry-run"])
    said = capsys.readouterr().out
    assert "start    " in said and "memory   about" in said and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "prefix", "virtual-tokens": 256}, "--virtual-tokens 256 leaves no room in the model's 256 positio"),
        ({"method": "prompt"}, "--row-tokens 250 exceeds the model's 256 positions less 20 virtual tokens; give less"),
        ({"method": "prefix", "prefix-mlp": 8, "init-text": "a"}, "--prefix-mlp starts from random numbers, --init-te"),
        ({"method": "prompt", "prefix-mlp": 8}, "--prefix-mlp does not go with --method prompt, but with prefix"),
        ({"method": "lora", "virtual-tokens": 8}, "--virtual-tokens does not go with --method lora, but with prefix o"),
        ({"method": "prefix", "init-text": ""}, "the text that virtual tokens start as is empty"),
        ({"method": "prompt", "quantize": "nf4", "r": 8}, "--r does not go with --method prompt, but with lora"),
    ],
)
def test_options_that_do_not_fit_are_one_line(package, tiny_folder, tmp_path, given, said):  # noqa: F811
    options = {"model": tiny_folder, "corpus": package, "out": tmp_path / "run", "row-tokens": 250} | given
    with pytest.raises(UserError, match=re.escape(said)) as refusal:
        train_cpt.main([part for name, value in options.items() for part in (f"--{name}", str(value))])
    assert "\n" not in str(refusal.value) and not (tmp_path / "run").exists()


def asked_for(*words: str) -> train_sft.Options:
    return parse_with_recipe(train_sft.Options, ["--model", "m", "--out", "o", "--data", "d", *words]).values


@pytest.mark.parametrize("reference_decoder", ["gemma2"], indirect=True)
def test_the_start_is_measured_on_the_whole_row(reference_decoder):
    """The loss of a row after the text itself, read by the base: what a fresh prompt is, and what a fresh prefix is."""
    model, text = str(reference_decoder[1]), "What does this function do?"
    tokenizer, decoder = load_tokenizer(model), load_decoder(model)
    ids, row = tokenizer.encode(text), [Example(list(range(5, 17)), [IGNORE] * 4 + list(range(9, 17)))] * 2
    read = torch.tensor([ids + row[0].input_ids])
    losses = decoder(read)[0].log_softmax(-1)[:-1].gather(1, read[0, 1:, None])[-8:]
    plain = decoder(read[:, len(ids) :])[0].log_softmax(-1)[:-1].gather(1, read[0, len(ids) + 1 :, None])[-8:]
    assert abs(losses.mean() - plain.mean()) > 0.01
    for method in ("prefix", "prompt"):
        asked = asked_for("--method", method, "--virtual-tokens", str(len(ids)), "--init-text", text)
        train_adapter(decoder, fresh_virtual_tokens(decoder, tokenizer, asked))
        said = describe_start(decoder, tokenizer, Precision(torch.device("cpu"), torch.float32), row, asked)
        assert said == (
            f"start    every text seems to follow {text!r} · loss of the first row {-losses.mean():.3f}, "
            f"without virtual tokens {-plain.mean():.3f}"
        )
        use_adapter(decoder, None)


def test_random_numbers_are_those_of_peft(tiny, tokenizer):
    """N(0, 1), and the MLP's as nn.Linear draws them: by the seed."""
    asked = asked_for("--method", "prefix", "--random-init")
    torch.manual_seed(3)
    (learnt,) = fresh_virtual_tokens(tiny, tokenizer, asked).values()
    torch.manual_seed(3)
    assert torch.equal(learnt.folded(), Prefix(tiny, 20).folded())
    assert abs(learnt.folded().std() - 1) < 0.05
    with pytest.raises(UserError, match="--random-init starts from random numbers, --init-text from a text"):
        fresh_virtual_tokens(tiny, tokenizer, asked_for("--method", "prefix", "--random-init", "--init-text", "a"))
