from __future__ import annotations

import json
import shutil

import pytest

from common.console import UserError
from data.masking import encode_prompt, supervise
from model import load_tokenizer
from model.loss import IGNORE

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is <|im_end|> in ChatML?\n"},
    {"role": "assistant", "content": "\n It ends a turn: <|im_end|><|endoftext|>"},
]


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_template(tokenizer_folder, folder, template, **settings):
    """The small tokenizer with another chat template."""
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    settings = {"eos_token": "<|endoftext|>", "chat_template": template} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def reference(tokenizer_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


def test_the_template_renders_the_reference_librarys_text(tokenizer, reference):
    for messages, prompt in ((CHAT, False), (CHAT[:2], True), (CHAT + CHAT[1:], False)):
        expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert tokenizer.render(messages, add_generation_prompt=prompt) == expected
        segments = tokenizer.segments(messages, add_generation_prompt=prompt)
        assert "".join(segment.text for segment in segments) == expected


def test_embedded_tokenizer_and_template_equal_transformers(tmp_path):
    from transformers import AutoTokenizer

    ours = load_tokenizer("smollm2-135m")
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    nasty = ["", " ", "\t\n  x", "ünïcödé ‮ \U0001f600", "1234 56", "def f():\n\treturn 'x'\r\n", "a" * 300]
    for text in nasty:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text)) == text
    for messages in (CHAT, CHAT[1:]):  # with a system message, and with the template's own
        assert ours.render(messages) == theirs.apply_chat_template(messages, tokenize=False)


def test_the_text_of_a_control_token_in_the_words_is_plain_text(tokenizer):
    end = tokenizer.control_tokens["<|im_end|>"]
    example = supervise(tokenizer, CHAT)
    assert example.input_ids.count(end) == len(CHAT)  # one a turn, none of the three that the words contain
    assert tokenizer.decode(tokenizer.encode("<|im_end|>")) == "<|im_end|>"


def test_the_ids_of_the_prompt_are_a_prefix_of_those_with_the_answer(tokenizer):
    for answer in ("x", "\n\nx", " x", "```python\nx\n```"):
        whole = supervise(tokenizer, [*CHAT[:2], {"role": "assistant", "content": answer}]).input_ids
        prompt = encode_prompt(tokenizer, CHAT[:2])
        assert whole[: len(prompt)] == prompt


@pytest.mark.parametrize("change", [" | trim", " | upper", ".strip('\\n')", " | replace('a', '')"])
def test_a_template_may_rewrite_the_words(tokenizer_folder, tmp_path, change):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("['content']", f"['content']{change}"))
    segments = tokenizer.segments(CHAT)
    assert "".join(s.text for s in segments) == tokenizer.render(CHAT)
    end = tokenizer.control_tokens["<|im_end|>"]
    assert supervise(tokenizer, CHAT).input_ids.count(end) == len(CHAT)  # whatever it does, the words make no token


def test_a_template_that_counts_the_words_is_refused(tokenizer_folder, tmp_path):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("['content']", "['content'][:24]"))
    with pytest.raises(UserError, match="cannot be distinguished"):
        tokenizer.segments(CHAT)


def test_one_bos_and_it_is_not_learnt(tokenizer_folder, tmp_path):
    """A model with a BOS: its template writes it, its post-processor adds it to plain text; never both."""
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    bos = backend.token_to_id("<|endoftext|>")
    backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = json.loads((tokenizer_folder / "tokenizer_config.json").read_text())
    settings |= {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "chat_template": "{{ bos_token }}" + settings["chat_template"],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    example = supervise(tokenizer, [CHAT[1], {"role": "assistant", "content": "yes"}])
    assert example.input_ids.count(bos) == 1 and example.input_ids[0] == bos
    assert example.labels[0] == IGNORE


def test_a_model_without_a_template_says_so(tokenizer_folder, tmp_path):
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(str(tmp_path)).render(CHAT)


# ------------------------------------------------------------------------------------------- templates are strangers


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "must not"),
        ("{{ messages.append(1) }}", "must not"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "must not"),
        ("{% for i in range(10**12) %}{% endfor %}", "loops over more than"),
        ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "loops over more than"),
        ("{% include '/etc/passwd' %}", "refuses"),
        ("{% import 'os' as os %}", "refuses"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ raise_exception('no system, please') }}", "refuses these messages: no system, please"),
        ("{% for %}", "not valid"),
        ("{{ open('/etc/passwd') }}", "'open' is undefined"),
    ],
)
def test_a_template_that_misbehaves_is_one_clear_line(tokenizer_folder, tmp_path, template, reason):
    with pytest.raises(UserError, match=reason):
        with_template(tokenizer_folder, tmp_path, template).render(CHAT)


def test_what_a_template_may_use_gives_the_reference_librarys_text(tokenizer_folder, tmp_path):
    from transformers import AutoTokenizer

    template = """
    {%- set ns = namespace(n=0) -%}
    {%- for m in messages %}
        {%- if m.role == 'system' %}{% continue %}{% endif %}
        {%- set ns.n = ns.n + 1 %}
        {%- generation %}{% set inner = 1 %}{{ m.content }}{% endgeneration %}
    {%- endfor %}
    {{ {'b': '<é>', 'a': [1, none]} | tojson }} {{ [1] | tojson(indent=2) }} {{ strftime_now('%Y') }} {{ ns.n }}
    {{ inner is defined }} {{ tools is none }} {{ documents is none }} {{ eos_token }} {{ bos_token is defined }}
    {{ add_bos_token is defined }} {{ range(3) | list }} {{ dict(x=1) }} {{ messages[0].absent is defined }}
    """
    ours = with_template(tokenizer_folder, tmp_path, template, add_bos_token=False)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{**CHAT[0], "absent": None}, *CHAT[1:]]
    expected = theirs.apply_chat_template(messages, tokenize=False)
    assert ours.render(messages) == expected and "<é>" in expected


def test_named_templates_are_chosen_as_the_reference_library_does(tokenizer_folder, tmp_path):
    from transformers import AutoTokenizer

    by_name = {"default": "d{{ messages[0].content }}", "tool_use": "t{{ tools[0].name }}"}
    listed = [{"name": name, "template": template} for name, template in by_name.items()]
    ours = with_template(tokenizer_folder, tmp_path, listed)
    for step in ("in tokenizer_config.json", "in files"):
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        for tools in (None, [{"name": "f"}]):
            expected = theirs.apply_chat_template(CHAT, tools=tools, tokenize=False)
            assert ours.render(CHAT, tools=tools) == expected, step
        (tmp_path / "saved").mkdir()
        ours.save(tmp_path / "saved")
        assert load_tokenizer(str(tmp_path / "saved")).chat_templates == ours.chat_templates
        shutil.rmtree(tmp_path / "saved")
        by_name = {name: template + "!" for name, template in by_name.items()}
        (tmp_path / "chat_template.jinja").write_text(by_name["default"])
        (tmp_path / "additional_chat_templates").mkdir(exist_ok=True)
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(by_name["tool_use"])
        ours = load_tokenizer(str(tmp_path))
    assert ours.chat_template.endswith("!")


def test_a_list_of_templates_without_a_default_says_what_it_has(tokenizer_folder, tmp_path):
    with pytest.raises(UserError, match="it has only rag"):
        with_template(tokenizer_folder, tmp_path, [{"name": "rag", "template": "x"}]).render(CHAT)


def test_an_answer_that_does_not_follow_its_own_prompt_is_refused(tokenizer_folder, tmp_path):
    """As DeepSeek-R1's: it asks with an opened think block, and writes a finished answer without one."""
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("assistant\n", "assistant\n<think>\n"))
    with pytest.raises(UserError, match=r"own generation prompt.*--chat-template"):
        supervise(tokenizer, CHAT)


def test_a_template_without_a_generation_prompt_asks_with_what_it_writes_before_an_answer(tokenizer_folder, tmp_path):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.split("{% if add")[0])
    prompt = encode_prompt(tokenizer, CHAT[:2])
    assert tokenizer.decode(prompt, keep_special=True).endswith("<|im_end|>\n<|im_start|>assistant\n")
    example = supervise(tokenizer, CHAT)
    assert example.input_ids[: len(prompt)] == prompt and set(example.labels[: len(prompt)]) == {IGNORE}
    assert example.labels[len(prompt)] != IGNORE


def test_template_options_hold_for_every_rendering(tokenizer_folder, tmp_path):
    with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("assistant\n", "assistant\n{{ mood }}"))
    tokenizer = load_tokenizer(str(tmp_path), template_options={"mood": "glad"})
    assert tokenizer.render(CHAT[:2], add_generation_prompt=True).endswith("assistant\nglad")


# ------------------------------------------------------------------------------------------------------------- ids


def test_half_a_surrogate_pair_is_named(tokenizer):
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(UserError, match="not valid Unicode: half a surrogate pair at character 2"):
            encode("ab\ud800c")


def test_tokens_are_control_tokens_by_what_they_say_look_like_or_do(tokenizer_folder, tmp_path):
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.add_tokens(
        [AddedToken(token, normalized=False) for token in ("<|fim|>", "<call>", "<table>", "\n\n", "ab")]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE + "{% if tools %}<call>{% endif %}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    assert set(tokenizer.control_tokens) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim|>", "<call>"}
    table, two_lines = (tokenizer.backend.token_to_id(token) for token in ("<table>", "\n\n"))
    assert tokenizer.encode("<table>\n\n") == [table, two_lines]  # words to the model, as the reference reads them


def sentencepiece(tmp_path, step: str):
    """A tokenizer that puts SentencePiece's space before a text, in one of the three ways that files have it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = ["<unk>", *"\u2581abc", "\u2581a", "\u2581b", "\u2581c"]
    merges = [("\u2581", letter) for letter in "abc"]
    backend = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges, unk_token="<unk>"))
    if step == "Prepend":
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        backend.normalizer = normalizers.Sequence(steps)
        backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=step)
        backend.decoder = decoders.Metaspace(prepend_scheme=step)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in ("<s>", "</s>")])
    backend.save(str(tmp_path / "tokenizer.json"))
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>{% endif %}{{ m.content }}{% if m.role != 'user' %}</s>"
    )
    settings = {"eos_token": "</s>", "chat_template": template + "{% endif %}{% endfor %}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("step", ["Prepend", "always", "first", "never"])
def test_the_space_before_a_text_stands_where_the_reference_puts_it_and_at_no_seam(tmp_path, step):
    tokenizer = sentencepiece(tmp_path, step)
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "ca"}]
    text = tokenizer.render(messages)
    assert text == "<s>abca</s>"
    example = supervise(tokenizer, messages)  # cut between b and c, where no merge could be
    assert example.input_ids == tokenizer.backend.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode("ab") == tokenizer.backend.encode("ab", add_special_tokens=False).ids


def test_what_stands_around_a_text_is_told_apart(tokenizer_folder, tmp_path):
    """An end token of the post-processor (Qwen3-Embedding) is no BOS; add_bos_token alone (DeepSeek) makes one."""
    from tokenizers import Tokenizer, processors

    def load(single, **settings):
        backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        ids = {token: backend.token_to_id(token) for token in ("<|im_start|>", "<|endoftext|>")}
        if single:
            backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=list(ids.items()))
        backend.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return load_tokenizer(str(tmp_path)), *ids.values()

    tokenizer, begin, end = load("$A <|endoftext|>")
    assert tokenizer.prefix_ids == []
    ids = tokenizer.encode("def add")
    assert tokenizer.encode_for_encoder(["def add"], 99) == [[*ids, end]]
    assert tokenizer.encode_for_encoder(["def add"], 2) == [[ids[0], end]]
    tokenizer, begin, end = load("<|im_start|> $A <|endoftext|>")
    assert tokenizer.prefix_ids == [begin]
    assert tokenizer.encode_for_encoder(["def add"], 3) == [[begin, ids[0], end]]
    for setting, expected in ((True, [begin]), (False, []), (None, [])):
        assert load(None, bos_token="<|im_start|>", add_bos_token=setting)[0].prefix_ids == expected


@pytest.mark.parametrize(
    ("single", "settings", "expected"),
    [
        (None, {"add_eos_token": True}, "ids end"),
        (None, {"add_bos_token": True, "add_eos_token": True}, "begin ids end"),
        ("<|im_start|> $A", {"add_eos_token": True}, "begin ids end"),  # e5-mistral
        ("<|im_start|> $A", {"add_bos_token": True}, "begin ids"),  # one, not two
        ("$A <|endoftext|>", {"add_eos_token": True}, "ids end"),
        ("$A <|endoftext|>", {"add_bos_token": True}, "begin ids end"),
        ("$A <|endoftext|>", {"add_eos_token": None}, "ids end"),  # Qwen3-Embedding says it in the post-processor alone
        (None, {"add_eos_token": False, "add_bos_token": False}, "ids"),
        (None, {"eos_token": {"content": "<|endoftext|>"}, "add_eos_token": True}, "ids end"),
    ],
)
def test_an_encoder_reads_the_ends_that_the_settings_or_the_post_processor_ask_for(
    tokenizer_folder, tmp_path, single, settings, expected
):
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    begin, end = (backend.token_to_id(token) for token in ("<|im_start|>", "<|endoftext|>"))
    if single:
        special = [("<|im_start|>", begin), ("<|endoftext|>", end)]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    backend.save(str(tmp_path / "tokenizer.json"))
    named = {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named | settings))
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer.encode("def add(a, b):")
    parts = {"begin": [begin], "end": [end]}
    for length in (99, 4):  # whole, and cut so that all fit
        room = length - len(expected.split()) + 1
        wanted = [token for part in expected.split() for token in parts.get(part, ids[:room])]
        assert tokenizer.encode_for_encoder(["def add(a, b):"], length) == [wanted] and len(wanted) <= length
    assert tokenizer.encode("def add(a, b):") == ids


def test_an_end_that_the_files_do_not_name_is_refused(tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    for name in (None, "</s>"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": name, "add_eos_token": True}))
        with pytest.raises(UserError, match="add_eos_token is true, but eos_token is"):
            load_tokenizer(str(tmp_path)).encode_for_encoder(["x"], 9)
