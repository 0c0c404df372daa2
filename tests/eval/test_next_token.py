from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import torch
from torch.nn import functional as F

from common.console import UserError, run_command
from common.files import read_json, write_jsonl
from eval import next_token
from eval.next_token import compare_prompt, next_tokens, table
from eval.next_token_prompts import Prompt, given_prompt
from lora.adapter import adapter_in_use, use_adapter
from lora.adapter_file import save_adapter
from lora.inject import inject

TEXT = "def add(a, b):\n    return a + b\n"
CHAT = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a + b"}]}


@pytest.fixture
def adapted(tiny):
    """A tiny decoder and an adapter that changes what it says."""
    inject(tiny, r=4, alpha=8, targets=["q_proj", "down_proj"])
    for layer in adapter_in_use(tiny).values():
        torch.nn.init.normal_(layer.lora_B.weight, std=1.0)
    return tiny.eval(), adapter_in_use(tiny)


@torch.no_grad()
def both(decoder, adapter, ids):
    """Log-probabilities [T, V] of base and tuned, each in one plain pass."""
    use_adapter(decoder, None)
    base = decoder(torch.tensor([ids]))[0].log_softmax(-1)
    use_adapter(decoder, adapter)
    return base, decoder(torch.tensor([ids]))[0].log_softmax(-1)


def test_each_position_has_the_kl_entropies_surprises_and_ranks_of_a_plain_pass(adapted, tokenizer, monkeypatch):
    monkeypatch.setattr(next_token, "CHUNK", 5)  # does not divide the length
    prompt = given_prompt(tokenizer, TEXT)
    rows = compare_prompt(*adapted[:1], tokenizer, adapted[1], prompt)["positions"]
    base, tuned = both(*adapted, prompt.input_ids)
    assert len(rows) == len(prompt.input_ids) > 11
    for t, row in enumerate(rows):
        assert row["kl"] == pytest.approx(
            F.kl_div(base[t], tuned[t], log_target=True, reduction="sum").item(), abs=1e-5
        )
        entropies = [torch.distributions.Categorical(logits=p[t]).entropy().item() for p in (base, tuned)]
        assert row["entropy"] == pytest.approx(entropies, abs=1e-4)
        assert row["top1"] == [int(base[t].argmax()), int(tuned[t].argmax())]
        if t + 1 < len(rows):
            token = prompt.input_ids[t + 1]
            assert row["nll"] == pytest.approx([-base[t, token].item(), -tuned[t, token].item()], abs=1e-4)
            assert row["rank"] == [p[t].argsort(descending=True).tolist().index(token) + 1 for p in (base, tuned)]
            assert row["token"] == tokenizer.decode([token])
    assert rows[-1]["rank"] is rows[-1]["nll"] is rows[-1]["token"] is None
    assert max(row["kl"] for row in rows) > 0.01  # not passing because the adapter does nothing


@pytest.mark.parametrize("at", [3, 8, 13])
def test_the_top_lists_are_of_the_place_asked_about_each_with_its_rank_in_the_other(
    adapted, tokenizer, monkeypatch, at
):
    monkeypatch.setattr(next_token, "CHUNK", 4)
    ids = tokenizer.encode(TEXT)
    row = compare_prompt(adapted[0], tokenizer, adapted[1], Prompt("p", "seen", ids, at), top=6)
    base, tuned = (p[at - 1] for p in both(*adapted, ids))
    for name, own, other in (("base", base, tuned), ("tuned", tuned, base)):
        order, others = own.argsort(descending=True).tolist(), other.argsort(descending=True).tolist()
        assert [one["id"] for one in row[name]] == order[:6]
        assert [one["other_rank"] for one in row[name]] == [others.index(token) + 1 for token in order[:6]]
        assert [one["p"] for one in row[name]] == pytest.approx(own.exp()[order[:6]].tolist(), abs=1e-5)
    assert row["text"] == tokenizer.decode(ids[:at])


def test_tokens_that_are_parts_of_characters_can_be_told_apart(adapted, tokenizer):
    ids = tokenizer.encode("é日")
    row = compare_prompt(adapted[0], tokenizer, adapted[1], Prompt("p", "seen", ids, 3), top=400)
    assert [one["token"] for one in row["positions"]][:-1] == ["<0xA9>", "<0xE6>", "<0x97>", "<0xA5>"]
    assert row["text"] == "é<0xE6>"  # cut in the middle of a character
    for name in ("base", "tuned"):
        texts = [one["token"] for one in row[name]]
        assert len(set(texts)) == len(texts) == 400 and not any("\ufffd" in text for text in texts)
    unused = [one["token"] for one in row["base"] if one["id"] >= tokenizer.backend.get_vocab_size()]
    assert unused and all(text.startswith("<unused ") for text in unused)


def test_a_fresh_adapter_changes_nothing(tiny, tokenizer):
    inject(tiny, r=2, alpha=4, targets=["q_proj"])
    result = next_tokens(tiny, tokenizer, adapter_in_use(tiny), [given_prompt(tokenizer, TEXT)])
    assert result["metrics"]["kl_given"] == pytest.approx(0, abs=1e-6)
    for metric in ("top1_changed", "rank_better", "rank_worse"):
        assert result["metrics"][f"{metric}_given"] == 0
    (row,) = result["prompts"]
    assert [one["id"] for one in row["base"]] == [one["id"] for one in row["tuned"]]


def test_means_are_over_positions_of_each_kind_and_the_model_is_left_as_it_was(adapted, tokenizer):
    decoder, adapter = adapted
    decoder.train()
    texts = {"seen": [TEXT, "import networkx"], "unseen": [TEXT[:9]]}
    prompts = [given_prompt(tokenizer, t, name=t, kind=kind) for kind, listed in texts.items() for t in listed]
    result = next_tokens(decoder, tokenizer, adapter, prompts)
    assert decoder.training and adapter_in_use(decoder).keys() == adapter.keys()
    seen = [position["kl"] for row in result["prompts"][:2] for position in row["positions"]]
    assert result["metrics"]["kl_seen"] == pytest.approx(sum(seen) / len(seen))
    low, high = result["intervals"]["kl_seen"]
    assert low <= result["metrics"]["kl_seen"] <= high and low < high
    assert result["n"] == 3 and "kl_given" not in result["metrics"]
    with pytest.raises(UserError, match="two tokens"):
        next_tokens(decoder, tokenizer, adapter, [Prompt("p", "given", [5], 1)])


def run(monkeypatch, folder, *arguments):
    command = ["next_token", "--model", folder, "--adapter", folder / "adapter", *arguments]
    monkeypatch.setattr("sys.argv", [str(argument) for argument in command])
    return run_command(next_token.main)


@pytest.fixture
def files(tmp_path, tiny_folder, adapted):
    """A folder with the model, and its adapter in adapter/."""
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_adapter(adapted[0], tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    return tmp_path


def test_the_command_writes_a_table_json_and_a_picture(tmp_path, files, tokenizer, monkeypatch, capsys):
    write_jsonl(tmp_path / "rows.jsonl", [CHAT])
    out = tmp_path / "f.json"
    assert run(monkeypatch, files, "--prompt", TEXT, "--seen", tmp_path / "rows.jsonl", "--out", out) == 0
    result = read_json(out)
    assert table(result) in capsys.readouterr().out
    assert [row["kind"] for row in result["prompts"]] == ["given", "seen"]
    assert all(len(row[state]) == 10 for row in result["prompts"] for state in ("base", "tuned"))
    picture = ET.parse(tmp_path / "f.svg").getroot()  # a file of its own: namespaces, colours
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    written = (tmp_path / "f.svg").read_text()
    assert "given · prompt 1" in written and written.count("var(--after)") > 20 and "--after:" in written
    assert "&lt;0x" in written and "\ufffd" not in written + out.read_text()  # parts of characters, as bytes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give --prompt, --seen or --unseen"),
        (["--prompt", ""], "prompt 1: the prompt is empty"),
        (["--prompt", "x", "--window", "1000"], "give 2 to the model's 256 positions"),
        (["--prompt", "x", "--top", "0"], "--top 0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(tmp_path, files, monkeypatch, capsys, arguments, says):
    assert run(monkeypatch, files, *arguments, "--out", tmp_path / "f.json") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "f.json").exists()


def test_the_table_says_where_a_token_came_from():
    listed = [{"id": 1, "token": "a", "p": 0.5, "rank": 1, "other_rank": 4}]
    result = {
        "prompts": [{"kind": "seen", "name": "n", "text": "x", "base": listed, "tuned": listed}],
        "metrics": {"kl_seen": 0.25, "kl_given": 2.0},
        "intervals": {"kl_seen": [0.125, 0.5], "kl_given": [2.0, 2.0]},
    }
    told = table(result)
    assert "'a'                  0.500  ↑ from 4" in told and "[0.125, 0.500]" in told
    assert told.endswith("2.000  a single value: no interval")
