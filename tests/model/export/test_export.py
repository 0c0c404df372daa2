"""Exports: what was written is read again and equals its source; Ollama's template renders what Jinja does."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import gguf
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from torch.testing import assert_close

import model.export.gguf
import model.export.verify
import model.gguf.layout
from common.console import UserError
from model import load_decoder, load_tokenizer
from model.export.convert import export
from model.export.ollama import CONVERSATIONS, deviations, find_markup, go_template, modelfile
from model.gguf.tokenizer import NASTY, PRE, read_tokenizer, tokenizer_metadata
from model.tokenizer import Tokenizer
from tests.commands import run
from tests.conftest import randomize

SHAPE = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 2,
}  # fmt: skip
WIDE = {"head_dim": 32}  # not hidden_size / heads
THETA = {"rope_theta": 10000.0}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
TRAINED = {"original_max_position_embeddings": 64}
# Every family, with all that llama.cpp has a place for; the probe text is longer than windows and trained lengths.
FAMILIES = {
    "llama": ("Llama", WIDE | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    "llama-llama3": ("Llama", WIDE | {"rope_parameters": LLAMA3 | TRAINED | THETA, "tie_word_embeddings": True}),
    "llama-linear": ("Llama", WIDE | {"rope_parameters": {"rope_type": "linear", "factor": 4.0} | THETA}),
    "llama-yarn": (
        "Llama",
        WIDE | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3} | TRAINED | THETA},
    ),
    "mistral": ("Mistral", WIDE | {"sliding_window": 40}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", WIDE),
    "gemma": ("Gemma", WIDE),
    "gemma2": ("Gemma2", WIDE | {"sliding_window": 12, "query_pre_attn_scalar": 32, "final_logit_softcapping": 3.0}),
    "gemma3": (
        "Gemma3",
        WIDE
        | {"num_hidden_layers": 7, "sliding_window": 12, "query_pre_attn_scalar": 32, "rope_parameters": GEMMA3_ROPE},
    ),
}  # fmt: skip


def build(name: str, folder: Path, tokenizer_folder: Path, **changes) -> Path:
    """A tiny random model of transformers, saved with a tokenizer."""
    import transformers

    family, settings = FAMILIES[name]
    config = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    reference = getattr(transformers, f"{family}ForCausalLM")(config(**SHAPE | settings | changes)).float()
    randomize(reference)
    reference.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / file, folder / file)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def family_folder(request, tmp_path_factory, tokenizer_folder):
    return build(request.param, tmp_path_factory.mktemp(request.param), tokenizer_folder)


def test_f32_gives_the_very_logits_and_every_tensor(family_folder, tmp_path):
    report = export(str(family_folder), "gguf", tmp_path / "out" / "x.gguf", type="f32")
    assert report["comparison"]["max_delta_logit"] < 1e-5  # Gemma's norms go through + 1 - 1
    assert report["comparison"]["top1_agreement"] == 1 and report["comparison"]["positions"] >= 40
    source, again = (load_decoder(str(path)) for path in (family_folder, tmp_path / "out" / "x.gguf"))
    assert dict(source.named_parameters()).keys() == dict(again.named_parameters()).keys()
    for name, parameter in source.named_parameters():
        assert_close(again.get_parameter(name), parameter, atol=1e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_the_file_holds_llama_cpps_layout(tokenizer_folder, tmp_path):
    """Seen through the gguf package alone: Llama's q and k rows in pairs of neighbours, Gemma's norms with 1 added."""
    stored, ours = {}, {}
    for family in ("llama", "gemma2", "qwen3"):
        folder = build(family, tmp_path / family, tokenizer_folder)
        export(str(folder), "gguf", tmp_path / f"{family}-gguf" / "x.gguf", type="f32")
        reader = gguf.GGUFReader(tmp_path / f"{family}-gguf" / "x.gguf")
        stored[family] = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
        ours[family] = dict(load_decoder(str(folder)).named_parameters())
    q = ours["llama"]["model.layers.1.self_attn.q_proj.weight"].view(4, 32, 64)  # head, row, column
    neighbours = torch.stack([q[:, :16], q[:, 16:]], dim=2).view(128, 64)  # row i of a head, then row i + 16
    assert torch.equal(stored["llama"]["blk.1.attn_q.weight"], neighbours)
    norm = ours["gemma2"]["model.layers.1.pre_feedforward_layernorm.weight"]
    assert torch.equal(stored["gemma2"]["blk.1.ffn_norm.weight"], norm + 1)
    for name in ("q_norm", "q_proj"):  # neither happens to the others
        assert torch.equal(
            stored["qwen3"][f"blk.1.attn_{name.removesuffix('_proj')}.weight"],
            ours["qwen3"][f"model.layers.1.self_attn.{name}.weight"],
        )


def with_added_tokens(folder: Path, *tokens) -> Tokenizer:
    """The tokenizer of a folder, with tokens added, as it is read from there."""
    backend = load_tokenizer(str(folder)).backend
    backend.add_tokens(list(tokens))
    backend.save(str(folder / "tokenizer.json"))
    return load_tokenizer(str(folder))


def through_metadata(source: Tokenizer) -> Tokenizer:
    others = {"general.architecture": "llama", "tokenizer.chat_template": source.chat_template}
    return Tokenizer(*read_tokenizer(tokenizer_metadata(source, 400) | others))


@pytest.mark.parametrize(
    ("content", "settings", "is_kept"),
    [
        ("<TAX>", {"normalized": False}, True),
        ("<TAX>", {"normalized": True}, True),  # this tokenizer normalizes nothing
        ("<|extra|>", {"special": True, "lstrip": True}, True),  # a control token is never read out of a text
        ("two words", {}, True),
        ("\n\n", {}, True),
        ("<TAX>", {"lstrip": True}, False),
        ("<TAX>", {"rstrip": True}, False),
        ("tax", {"single_word": True}, False),
        ("日本", {"single_word": True, "lstrip": True, "rstrip": True}, False),
    ],
)
def test_an_added_token_is_read_from_a_gguf_as_before_or_named(tokenizer_folder, tmp_path, content, settings, is_kept):
    shutil.copytree(tokenizer_folder, tmp_path / "t")
    source = with_added_tokens(tmp_path / "t", AddedToken(content, **settings))
    again = through_metadata(source)
    if is_kept:
        model.export.verify.check_tokenizer(source, again)
        return
    flags = ", ".join(name for name in ("lstrip", "rstrip", "single_word", "normalized") if name in settings)
    with pytest.raises(UserError, match=re.escape(f"the added token {content!r} ({flags}, normalized)")):
        model.export.verify.check_tokenizer(source, again)


def test_a_token_that_is_looked_for_in_the_normalized_text_is_named(tokenizer_folder, tmp_path):
    shutil.copytree(tokenizer_folder, tmp_path / "t")
    source = load_tokenizer(str(tmp_path / "t"))
    definition = json.loads(source.backend.to_str())
    steps = {"type": "Sequence", "pretokenizers": [{"trim_offsets": False} | step for step in PRE["qwen2"]]}
    definition |= {"normalizer": {"type": "NFC"}, "pre_tokenizer": steps}
    (tmp_path / "t" / "tokenizer.json").write_text(json.dumps(definition))
    for content, normalized, is_kept in (("<kept>", True, True), ("café", False, True), ("naïve", True, False)):
        source = with_added_tokens(tmp_path / "t", AddedToken(content, normalized=normalized))
        again = through_metadata(source)
        if is_kept:
            model.export.verify.check_tokenizer(source, again)
            continue
        with pytest.raises(UserError, match="the added token 'naïve' \\(normalized\\)"):
            model.export.verify.check_tokenizer(source, again)


def test_a_model_with_a_token_that_gguf_cannot_hold_goes_to_a_folder_alone(tokenizer_folder, tmp_path):
    folder = build("qwen3", tmp_path / "m", tokenizer_folder)
    with_added_tokens(folder, AddedToken("<TAX>", lstrip=True, rstrip=True))
    with pytest.raises(UserError, match=r"<TAX>' \(lstrip, rstrip, normalized\).*nothing was written. Use --to hf"):
        export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="f32")
    assert list((tmp_path / "out").iterdir()) == []
    report = export(str(folder), "hf", tmp_path / "hf")
    assert report["same_ids_of_texts"] == len(NASTY) + 1 + 4


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0"])
def test_smaller_types_stay_within_what_they_explain(family_folder, tmp_path, type):
    report = export(str(family_folder), "gguf", tmp_path / "x.gguf", type=type)
    assert 0 < report["comparison"]["relative_delta_logit"] < report["comparison"]["limit"]
    assert report["type"] == type


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        (
            "llama-yarn",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, **TRAINED}},
            "beta_fast",
        ),
        ("gemma2", {"query_pre_attn_scalar": 20}, "query_pre_attn_scalar=20"),
        ("qwen2", {"head_dim": 32}, "4 heads of 32"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        (
            "gemma3",
            {"layer_types": ["full_attention", "full_attention", *["sliding_attention"] * 5]},
            "without a period",
        ),
    ],
)
def test_what_llama_cpp_would_leave_out_is_refused(family, changes, named, tokenizer_folder, tmp_path):
    folder = build(family, tmp_path / "model", tokenizer_folder, **changes)
    load_decoder(str(folder))  # we compute it
    with pytest.raises(UserError, match=named):
        export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="f32")
    assert not list((tmp_path / "out").iterdir())


def test_a_wrong_row_order_is_caught_and_nothing_is_left(tokenizer_folder, tmp_path, monkeypatch):
    folder = build("llama", tmp_path / "model", tokenizer_folder)
    monkeypatch.setattr(model.gguf.layout, "half_split_rows", lambda tensor, heads: tensor)
    with pytest.raises(UserError, match="differ from the source's by"):
        export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="q8_0")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("tokenizer.ggml.merges", lambda merges: merges[:5], "tokenizes .* differently from the source"),
        ("tokenizer.ggml.eos_token_id", lambda eos: eos + 1, "BOS and stop tokens"),
    ],
)
def test_another_tokenizer_is_caught_and_nothing_is_left(key, change, named, tiny_folder, tmp_path, monkeypatch):
    def wrong(*arguments):
        metadata = tokenizer_metadata(*arguments)
        return metadata | {key: change(metadata[key])}

    monkeypatch.setattr(model.export.gguf, "tokenizer_metadata", wrong)
    with pytest.raises(UserError, match=named):
        export(str(tiny_folder), "gguf", tmp_path / "out" / "x.gguf", type="f16")
    assert not list((tmp_path / "out").iterdir())


def test_rows_that_do_not_divide_into_blocks_are_refused(tokenizer_folder, tmp_path):
    folder = build("llama", tmp_path / "model", tokenizer_folder, intermediate_size=72)
    with pytest.raises(UserError, match=r"ffn_down.*blocks of 32; use --type f16"):
        export(str(folder), "gguf", tmp_path / "x.gguf", type="q8_0")


def test_a_weight_beyond_fp16_is_refused(tiny_folder, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"ffn_up.* beyond fp16; use --type bf16"):
        export(str(folder), "gguf", tmp_path / "x.gguf", type="f16")


def test_a_folder_gives_transformers_the_same_logits_and_the_same_template(tiny_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report = export(str(tiny_folder), "hf", tmp_path / "out")
    assert report["comparison"]["max_delta_logit"] == 0
    ids = torch.randint(3, 400, (1, 40))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert_close(theirs(ids).logits, load_decoder(str(tiny_folder))(ids), atol=1e-5, rtol=0)
    messages = [{"role": "user", "content": " What? "}, {"role": "assistant", "content": "That.\n"}]
    messages.append({"role": "user", "content": "<b>"})
    rendered = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert rendered == load_tokenizer(str(tiny_folder)).render(messages, add_generation_prompt=True)


def test_bf16_is_written_and_said(tiny_folder, tmp_path):
    report = export(str(tiny_folder), "hf", tmp_path / "out", dtype="bf16")
    assert 0 < report["comparison"]["relative_delta_logit"] < 0.03 and report["type"] == "bf16"
    assert next(load_decoder(str(tmp_path / "out"), dtype=torch.bfloat16).parameters()).dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_an_encoder_gives_sentence_transformers_the_same_vectors(reference_encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    from model import load_encoder

    report = export(str(reference_encoder[1]), "sentence-transformers", tmp_path / "out")
    assert report["comparison"]["max_cosine_distance"] < 1e-6
    texts = ["abc def", "a"]
    theirs = torch.tensor(SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts))
    assert_close(theirs, load_encoder(str(reference_encoder[1])).encode(texts), atol=1e-5, rtol=0)


def test_an_adapter_is_told_to_be_merged_first(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"python -m lora\.merge"):
        export(str(tmp_path), "hf", tmp_path / "out")


def test_an_encoder_is_no_decoder(reference_encoder, tmp_path):
    with pytest.raises(UserError, match=r"is an encoder \(bert\); use --to sentence-transformers"):
        export(str(reference_encoder[1]), "gguf", tmp_path / "x.gguf")
    with pytest.raises(UserError, match=r"a \.gguf file, which cannot hold an encoder"):
        export("smollm2-135m", "sentence-transformers", tmp_path / "out")


def test_nothing_that_is_there_is_overwritten(tiny_folder, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README\.md: exists already"):
        export(str(tiny_folder), "gguf", tmp_path / "x.gguf", type="f16")
    assert (tmp_path / "README.md").read_text() == "mine"


def front_matter(folder: Path) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (folder / "README.md").read_text(), re.DOTALL)[1])


def test_the_card_says_what_is_known_and_no_more(tiny_folder, tmp_path):
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    export(str(source), "hf", tmp_path / "plain")
    assert front_matter(tmp_path / "plain") == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["tritune"],
    }  # fmt: skip
    plain = (tmp_path / "plain" / "README.md").read_text()
    assert "## Metrics" not in plain and "## Data" not in plain and str(source) in plain

    change = {"perplexity": {"value": -1.5, "interval": [-1.75, -1.25], "n": 37}}
    metrics = {"before": {"perplexity": 6.5}, "after": {"perplexity": 5.0}, "change": change}
    provenance = {"schema": 1, "base": "Qwen/Qwen2.5-Coder-0.5B", "track": "cpt", "settings": {"learning_rate": 1e-3}}
    provenance |= {"metrics": metrics, "data": {"path": "corpus", "sha256": "ab", "rows": 288, "unit": "files"}}
    (source / "tritune.json").write_text(json.dumps(provenance))
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    export(str(source), "gguf", tmp_path / "gguf" / "x-f16.gguf", type="f16")
    assert front_matter(tmp_path / "gguf") == {
        "base_model": "Qwen/Qwen2.5-Coder-0.5B", "base_model_relation": "finetune", "library_name": "gguf",
        "license": "apache-2.0", "pipeline_tag": "text-generation", "tags": ["tritune", "code", "gguf"],
    }  # fmt: skip
    card = (tmp_path / "gguf" / "README.md").read_text()
    assert "| perplexity | 6.5 | 5 | -1.5 [-1.75, -1.25] | 37 |" in card
    assert "llama-cli -m x-f16.gguf -cnv --jinja" in card and "| rows | 288 |" in card


def test_the_command_line_says_what_it_did(tiny_folder, tmp_path):
    done = run("-m", "model.export", tiny_folder, "--to", "gguf", "--type", "f16", "--out", tmp_path / "x.gguf")
    assert done.returncode == 0, done.stderr
    assert f"wrote    {tmp_path / 'x.gguf'} · f16" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Modelfile", "README.md", "export_report.json", "x.gguf"]
    wrong = run("-m", "model.export", tiny_folder, "--to", "gguf", "--out", tmp_path / "x.bin")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "ends in .gguf" in wrong.stderr


# Ollama's template language, as much as a Modelfile of ours uses.


def render_go(template: str, messages: list[dict]) -> str:
    """Go's text/template: actions, `{{-` that trims before it, range .Messages, if / else if / else, one variable."""
    pieces = re.split(r"(\{\{-? .*? \}\})", template)
    tokens = []
    for piece in pieces:
        if piece.startswith("{{-") and tokens and not tokens[-1].startswith("{{"):
            tokens[-1] = tokens[-1].rstrip(" \t\r\n")
        tokens.append(piece)
    out, variables = [], {"before": ""}

    def value(word: str, message: dict) -> str:
        if word.startswith('"'):
            return json.loads(word)
        return variables[word[1:]] if word.startswith("$") else message[word[1:].lower()]

    def run(at: int, message: dict, live: bool) -> int:
        """Runs tokens from `at` on to the matching end or else; returns where that stands."""
        while at < len(tokens):
            token = tokens[at]
            if not token.startswith("{{"):
                if live:
                    out.append(token)
                at += 1
                continue
            words = token.strip("{}").strip("-").split()
            if words[0] in ("end", "else"):
                return at
            if words[0] == "range":
                end = run(at + 1, message, False)
                for each in messages if live else []:
                    run(at + 1, each, True)
                at = end + 1
            elif words[0] == "if":
                at = branch(at, words, message, live) + 1
            else:
                if live and len(words) == 1:
                    out.append(value(words[0], message))
                elif live:
                    variables[words[0][1:]] = value(words[2], message)
                at += 1
        return at

    def branch(at: int, words: list[str], message: dict, live: bool) -> int:
        taken = False
        while words[0] != "end":
            condition = words[words.index("eq") :] if "eq" in words else None
            reached = live and not taken
            holds = reached and (condition is None or value(condition[1], message) == value(condition[2], message))
            at = run(at + 1, message, holds)
            taken = taken or holds
            words = tokens[at].strip("{}").strip("-").split()
        return at

    run(0, {}, True)
    return "".join(out)


def conversation(roles: str) -> list[dict]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[role], "content": f"words {i} of {role}\n  {{{{ .X }}}}"} for i, role in enumerate(roles)]


TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "with a default system message": "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "system inside the user's turn": "{% for m in messages %}{% if m.role == 'system' %}<u>{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}{% if loop.index0 == 0 or messages[loop.index0 - 1].role != 'system' %}<u>{% endif %}"
    "{{ m.content }}{% else %}\n<m>{{ m.content }}</m>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}\n<m>{% endif %}",
    "no system": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_ollamas_template_renders_what_jinja_does(name, tokenizer):
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": TEMPLATES[name]})
    markup = find_markup(source)
    assert markup.has_system == (name != "no system")
    template = go_template(markup)
    for roles in [c for c in (*CONVERSATIONS, "uauauau", "suauauau") if markup.has_system or "s" not in c]:
        messages = conversation(roles)
        assert render_go(template, messages) == source.render(messages, add_generation_prompt=True)


def test_a_system_message_that_the_template_refuses_is_left_out_by_ollama(tokenizer):
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": TEMPLATES["no system"]})
    rendered = render_go(go_template(find_markup(source)), conversation("su"))
    assert rendered == source.render(conversation("su")[1:], add_generation_prompt=True)
    assert "accepts no system message" in modelfile("x.gguf", source, context=64)[0]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}", "today's date"),
        ("{% for m in messages %}[{{ loop.index }}]{{ m.content }}{% endfor %}", "more than markup"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "more than markup|rewrites"),
        ("{% for m in messages %}{{ '{{' }}{{ m.content }}{% endfor %}", "{{ or three quotation marks"),
        (None, "no chat template"),
    ],
)
def test_a_template_that_cannot_be_told_so_is_said(template, why, tokenizer):
    text, missing = modelfile(
        "x.gguf", Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template}), context=64
    )
    assert re.search(why, missing) and 'TEMPLATE "' not in text and f"# no TEMPLATE: {missing}" in text


def test_the_modelfile_stops_where_training_did(tokenizer):
    text, _ = modelfile("x.gguf", tokenizer, context=64)
    assert text.startswith("FROM ./x.gguf\n") and "PARAMETER num_ctx 64\n" in text
    assert set(re.findall(r'PARAMETER stop "(.*)"', text)) == {"<|endoftext|>", "<|im_end|>"}


def test_white_space_that_only_jinja_strips_is_said(tokenizer):
    stripping = TEMPLATES["chatml"].replace("m.content", "m.content.strip()")
    answers = TEMPLATES["chatml"].replace("m.content", "m.content.strip() if m.role == 'assistant' else m.content")
    for template, said in ((stripping, True), (answers, True), (TEMPLATES["chatml"], False)):
        source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template})
        text, missing = modelfile("x.gguf", source, context=64)
        assert missing is None and ("strips the white space" in text) == said


THINKING = "{% if '</think>' in m.content %}{{ CHANGED }}{% else %}{{ m.content }}{% endif %}"
EARLIER = {  # what is done to an earlier answer with thoughts
    "dropped": "m.content.split('</think>')[-1]",
    "dropped with the lines after": "m.content.split('</think>')[-1].lstrip('\\n')",
    "dropped before the last answer": "m.content if loop.revindex < 3 else m.content.split('</think>')[-1]",
    "rewritten": "m.content.replace('<think>\\n', '<think>')",
    "in brackets": "m.content.split('[/THINK]')[-1]",
}


@pytest.mark.parametrize("name", EARLIER)
def test_thoughts_that_only_jinja_takes_out_of_earlier_answers_are_said(name, tokenizer, tiny_folder, tmp_path):
    change = THINKING.replace("CHANGED", EARLIER[name])
    if name == "in brackets":
        change = change.replace("</think>", "[/THINK]")
    template = TEMPLATES["chatml"].replace("{{ m.content }}", change)
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template})
    text, missing = modelfile("x.gguf", source, context=64)
    before, _, _ = text.partition("TEMPLATE")
    tags = "[THINK] … [/THINK]" if name == "in brackets" else "<think> … </think>"
    assert missing is None and before.count(f"removes {tags} from earlier answers") == 1 and "white space" not in before
    if name == "dropped":  # a person sees it too, and it stays in the report
        folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
        report = export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="f16")
        assert [note for note in report["notes"] if tags in note]


def test_tags_that_a_template_leaves_alone_are_not_warned_of(tokenizer):
    template = TEMPLATES["chatml"] + "{% if tools %}<tool_call>{{ tools }}</tool_call> </think> [/INST]{% endif %}"
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template})
    assert deviations(find_markup(source), source) == []


def jinja_files() -> list[Path]:
    return sorted(Path(os.environ.get("TRITUNE_LLAMA_CPP", "."), "models", "templates").glob("*.jinja"))


@pytest.mark.skipif(not jinja_files(), reason="TRITUNE_LLAMA_CPP names no source folder of llama.cpp")
def test_templates_of_the_field_are_told_exactly_or_not_at_all(tokenizer):
    told = 0
    for path in jinja_files():
        source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": path.read_text(encoding="utf-8")})
        markup = find_markup(source)
        if isinstance(markup, str):
            continue
        told += 1
        for roles in [c for c in CONVERSATIONS if markup.has_system or "s" not in c]:
            messages = [m | {"content": m["content"].strip()} for m in conversation(roles)]
            assert render_go(go_template(markup), messages) == source.render(messages, add_generation_prompt=True), path
    assert told > 50
