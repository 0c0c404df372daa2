from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import torch
from torch.nn import functional as F

from common.console import UserError, run_command
from common.files import read_json, write_jsonl
from data.masking import encode_prompt
from eval.next_token import __main__ as next_token
from eval.next_token import distributions
from eval.next_token.__main__ import next_tokens
from eval.next_token.distributions import compare_prompt, whole_text
from eval.next_token.language import language_of
from eval.next_token.prompts import Prompt, given_prompt
from eval.next_token.table import table
from lora.adapter import adapter_in_use, use_adapter
from lora.adapter_file import save_adapter
from lora.inject import inject
from model import Sampling, Stop, generate, load_tokenizer

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
    monkeypatch.setattr(distributions, "CHUNK", 5)  # does not divide the length
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
    monkeypatch.setattr(distributions, "CHUNK", 4)
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
    (row,) = [row for row in result["prompts"] if row["name"] == TEXT]
    assert row["next_entropy"] == row["positions"][-1]["entropy"]
    flatter = [p["entropy"][1] - p["entropy"][0] for row in result["prompts"][:2] for p in row["positions"]]
    assert result["metrics"]["entropy_change_seen"] == pytest.approx(sum(flatter) / len(flatter))
    ends = [row["next_entropy"] for row in result["prompts"][:2]]
    assert result["metrics"]["next_entropy_change_seen"] == pytest.approx(sum(b - a for a, b in ends) / 2)
    seen = [position["kl"] for row in result["prompts"][:2] for position in row["positions"]]
    assert result["metrics"]["kl_seen"] == pytest.approx(sum(seen) / len(seen))
    low, high = result["intervals"]["kl_seen"]
    assert low <= result["metrics"]["kl_seen"] <= high and low < high
    assert result["n"] == 3 and "kl_given" not in result["metrics"]
    with pytest.raises(UserError, match="two tokens"):
        next_tokens(decoder, tokenizer, adapter, [Prompt("p", "given", [5], 1)])


SHORT = ("--max-new-tokens", 12)


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
    assert (
        run(monkeypatch, files, "--prompt", TEXT, "--seen", tmp_path / "rows.jsonl", "--raw", "--out", out, *SHORT) == 0
    )
    result = read_json(out)
    assert table(result) in capsys.readouterr().out
    assert [row["kind"] for row in result["prompts"]] == ["given", "seen"]
    assert all(len(row[state]) == 10 for row in result["prompts"] for state in ("base", "tuned"))
    picture = ET.parse(tmp_path / "f.svg").getroot()  # a file of its own: namespaces, colours
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    written = (tmp_path / "f.svg").read_text()
    assert "given · prompt 1" in written and written.count("var(--after)") > 20 and "--after:" in written
    assert "&lt;0x" in written and "\ufffd" not in written + out.read_text()  # parts of characters, as bytes


def test_prompts_named_seen_and_unseen_are_rendered_continued_and_judged(
    tmp_path, tiny_folder, adapted, tokenizer, monkeypatch, capsys
):
    """The question goes through the template; the continuations are those that the two models give by themselves."""
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    decoder, adapter = adapted
    save_adapter(decoder, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    out = tmp_path / "f.json"
    named = ("--seen-prompt", "Add.", "--unseen-prompt", "Sort.", "Swap.", "--answer-begins", "```ts\nconst x")
    assert run(monkeypatch, tmp_path, *named, "--language", "typescript", "--temperature", 5, "--out", out, *SHORT) == 0
    result = read_json(out)
    assert [row["kind"] for row in result["prompts"]] == ["seen", "unseen", "unseen"]
    question = encode_prompt(tokenizer, [{"role": "user", "content": "Add."}]) + tokenizer.encode("```ts\nconst x")
    row = result["prompts"][0]
    assert row["text"] == tokenizer.decode(question) and row["text"].endswith("```ts\nconst x")
    unused = load_tokenizer(str(tiny_folder)).unused_ids
    for state, of_state in (("base", None), ("tuned", adapter)):
        use_adapter(decoder, of_state)
        sampling = Sampling([0.0, 5.0], top_p=0.95, samples=2)
        stop = Stop(max_new_tokens=12, ids=tokenizer.stop_ids)
        greedy, sample = generate(decoder, [question], stop, sampling, unused_ids=unused)[0]
        texts = {how: one["text"] for how, one in row["continuations"][state].items()}
        assert texts == {"greedy": whole_text(tokenizer, greedy), "sample": whole_text(tokenizer, sample)}
    assert row["continuations"]["base"]["sample"] != row["continuations"]["tuned"]["sample"]
    printed = capsys.readouterr().out
    assert "base, greedy: 12 tokens (cut off)" in printed and "tuned, sample" in printed
    assert "tuned, greedy: 12 tokens, cut off" in (tmp_path / "f.svg").read_text()

    # the share of tokens of the language: of all the probability, and of the ten listed ones
    for state in ("base", "tuned"):
        shares = row["language"][state]
        typescript = [one["p"] for one in row[state] if one["language"] == "typescript"]
        assert sum(typescript) <= shares["mass"] + 1e-6 <= shares["judged"] + 2e-6 <= 1 + 3e-6
        assert shares["top"] == len(typescript) / 10
        assert all(
            one["language"] == language_of("const x", one["token"], ("typescript", "python")) for one in row[state]
        )
    unseen = [row["language"]["tuned"]["mass"] - row["language"]["base"]["mass"] for row in result["prompts"][1:]]
    assert result["metrics"]["language_mass_change_unseen"] == pytest.approx(sum(unseen) / 2)
    assert result["n_of"]["language_top_tuned_unseen"] == 2


def test_a_few_prompts_are_shown_and_all_are_kept(tmp_path, tiny_folder, adapted, monkeypatch, capsys):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_adapter(adapted[0], tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    write_jsonl(tmp_path / "rows.jsonl", [CHAT | {"id": f"r{i}"} for i in range(6)])
    arguments = ("--seen", tmp_path / "rows.jsonl", "--unseen", tmp_path / "rows.jsonl", "--continued", 1)
    assert run(monkeypatch, tmp_path, *arguments, "--count", 5, "--out", tmp_path / "f.json", *SHORT) == 0
    result = read_json(tmp_path / "f.json")
    assert [row["name"] for row in result["prompts"]] == [f"r{i}" for i in (*range(5), *range(5))]
    assert ["continuations" in row for row in result["prompts"]] == ([True] + [False] * 4) * 2
    assert "and 4 more prompts, in the file" in capsys.readouterr().out
    assert result["contrasts"]["kl"]["value"] == 0 and result["contrasts"]["kl"]["n"] == [5, 5]


def test_a_continuation_longer_than_the_models_positions_is_one_line(
    tmp_path, tiny_folder, adapted, monkeypatch, capsys
):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_adapter(adapted[0], tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    assert run(monkeypatch, tmp_path, "--prompt", "x", "--max-new-tokens", 999, "--out", tmp_path / "f.json") == 2
    assert "256 positions" in capsys.readouterr().err and not (tmp_path / "f.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give --prompt, --seen-prompt"),
        (["--prompt", ""], "prompt 1: the prompt is empty"),
        (["--prompt", "x", "--window", "1000"], "give 2 to the model's 256 positions"),
        (["--prompt", "x", "--top", "0"], "--top 0: must be at least 1"),
        (["--prompt", "x", "--against", "python"], "give --language, too"),
        (["--prompt", "x", "--language", "python", "--against", "python"], "give another language"),
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
        "contrasts": {"kl": {"value": 0.5, "interval": [-0.5, 1.5], "distinguishable": False}},
        "metrics": {"kl_seen": 0.25, "kl_given": 2.0},
        "intervals": {"kl_seen": [0.125, 0.5], "kl_given": [2.0, 2.0]},
    }
    told = table(result)
    assert "'a'                  0.500  ↑ from 4" in told and "[0.125, 0.500]" in told
    assert "2.000  a single value: no interval" in told
    assert told.endswith("0.500  [-0.500, 1.500] · not distinguishable")
